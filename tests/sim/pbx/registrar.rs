//! The registrar: judges REGISTERs as strictly or as oddly as a test wants it.

use std::time::Duration;

use reveille::clock::Instant;
use reveille::engine::ids::Capability;
use reveille::engine::output::TrunkKey;
use reveille::sip::address::Address;
use reveille::sip::auth::Algorithm;
use reveille::sip::{HeaderName, Message, digest, outbound};

use super::{Guards, Pbx};
use crate::phone::through::OWN_REGISTER;
use crate::sip_text::{Answer, call_id, contact, uri, values};
use crate::transactions::Path;

/// How a registrar treats a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As its credentials deserve.
    Fair,
    /// Nothing at all.
    Silent,
    /// This code, with this Retry-After.
    Code(u16, Option<u32>),
    /// 423 whatever is asked, with this Min-Expires.
    TooBrief(Option<&'static str>),
    /// Challenges whatever comes, as a PBX in reload does.
    NeverContent,
    /// Calls every nonce stale, its own fresh one too.
    AlwaysStale,
}

/// How long a nonce is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceLife {
    Forever,
    For(Duration),
    OneRequest,
}

/// How the registrar behaves.
pub struct Registrar {
    pub verdict: Verdict,
    pub challenges: bool,
    /// Challenges with 407 as a proxy does.
    pub proxy: bool,
    /// Gives the next nonce along with each 200.
    pub next_nonce: bool,
    pub realm: String,
    pub algorithms: Vec<Algorithm>,
    pub nonces: NonceLife,
    pub delay: Duration,
    pub min_expires: u32,
    pub max_expires: u32,
    /// A Contact of somebody else under the same AOR.
    pub other_contact: Option<String>,
    /// What a 200 lists in the place of our Contact; `{left}` is how long it holds.
    pub ours_as: Option<&'static str>,
    /// The Expires header of a 200.
    pub expires_header: Option<u32>,
    /// The newest Contact of an address of record pushes the others out.
    pub one_contact: bool,
    pub lists: Lists,
    pub dials: Dials,
    /// Those that ask instead of its own challenge, if any.
    pub guards: Guards,
    /// Whether connections to it are accepted.
    pub listens: bool,
    /// The only name in its certificate; `None`: all that are asked for.
    pub certified: Option<&'static str>,
    /// A user who is treated otherwise.
    pub apart: Option<(&'static str, Verdict)>,
}

impl Registrar {
    /// Whether a connection can be opened.
    pub fn accepts(&self, trunk: &TrunkKey) -> bool {
        let is_named = |name| trunk.identity.as_ref().is_none_or(|it| it.host == name);
        self.listens && self.certified.is_none_or(is_named)
    }

    pub(super) fn verdict_on(&self, request: &Message) -> &Verdict {
        let to = request.to().expect("To").uri();
        let apart = self.apart.as_ref().filter(|(user, _)| to.user() == Some(user.as_bytes()));
        apart.map_or(&self.verdict, |(_, verdict)| verdict)
    }
}

/// Which contacts a 200 lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    All,
    /// None at all.
    Nothing,
    /// Bare of URI parameters and header parameters other than `expires`.
    Bare,
    /// Other people's only.
    Others,
}

/// What a call is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dials {
    /// The user part of the Contact, at our address.
    User,
    /// The Contact URI.
    Contact,
    /// The Contact URI without its parameters.
    Bare,
}

/// A phone's own Contact under an address of record.
#[derive(Clone, Debug)]
pub struct Desk {
    pub user: String,
    pub uri: String,
    pub until: Instant,
}

/// A REGISTER as the registrar judged it.
#[derive(Clone, Debug)]
pub struct Registered {
    pub at: Instant,
    pub call_id: String,
    pub cseq: u32,
    pub contact: String,
    pub expires: u32,
    pub nonce: Option<String>,
    pub code: u16,
    pub path: Path,
}

pub(super) struct Binding {
    pub(super) user: String,
    pub(super) capability: String,
    pub(super) uri: String,
    pub(super) instance: String,
    pub(super) call_id: String,
    pub(super) until: Instant,
    pub(super) path: Path,
}

pub(super) struct Nonce {
    since: Instant,
    count: u32,
}

/// The realm of a registrar that was not told otherwise.
pub(super) const REALM: &str = "pbx";

/// The unguessable name in a Contact: its user part, or the parameter `cap` beside the account's own.
fn capability_of(contact: &Address<'_>) -> String {
    let uri = contact.uri();
    let user = String::from_utf8_lossy(uri.user().expect("a user")).into_owned();
    uri.param("cap").flatten().map_or(user, str::to_owned)
}

impl Pbx {
    /// What every REGISTER of ours must be like.
    pub(super) fn criticise(&self, request: &Message) {
        if call_id(request).starts_with(OWN_REGISTER) {
            return self.criticise_passed(request);
        }
        assert!(!request.contact_is_star(), "Contact: *");
        assert_eq!(values(request, HeaderName::Supported), ["path"], "Supported");
        assert_eq!(request.extension("User-Agent"), None, "tells who it is");
        // A query has none; behind our own stand those whose place we take or give back.
        let Some(contact) = request.contacts().next() else { return };
        let contact = contact.as_ref().expect("a Contact");
        let user = capability_of(contact);
        assert!(Capability::parse(user.as_bytes()).is_some(), "the Contact bears a capability");
        let instance = outbound::instance(contact).expect("+sip.instance");
        let via = request.top_via().expect("a Via");
        let port = via.sent_by_port().map_or_else(String::new, |port| format!(":{port}"));
        let advertised = format!("{}{port}", via.sent_by());
        let text = String::from_utf8_lossy(contact.uri().raw()).into_owned();
        assert!(
            text.contains(&format!("@{advertised};transport=")) || text.contains(&format!("@{advertised};cap={user};")),
            "{text} is not where it is sent from: {advertised}"
        );
        for binding in self.bindings.iter().filter(|it| it.capability == user) {
            assert_eq!(binding.uri, text, "the Contact changed");
            assert_eq!(binding.instance, instance, "+sip.instance changed");
            assert_eq!(binding.call_id, call_id(request), "the Call-ID changed");
        }
    }

    /// What a phone's own REGISTER that passed through us must be like.
    fn criticise_passed(&self, request: &Message) {
        let text = String::from_utf8_lossy(request.bytes());
        assert!(!text.contains("pn-"), "push parameters leave us");
        let contact = request.contacts().next().expect("a Contact").expect("a Contact");
        let handle = capability_of(&contact);
        assert!(Capability::parse(handle.as_bytes()).is_some(), "the Contact stands for us");
        for binding in self.bindings.iter().filter(|it| it.call_id == call_id(request)) {
            assert_eq!(binding.capability, handle, "the same registration has the same Contact");
        }
    }

    pub(super) fn log(&mut self, request: &Message, path: Path, code: u16) {
        let credentials = request.credentials(self.challenge_fields().1, &self.registrar.realm);
        self.registers.push(Registered {
            at: self.now,
            call_id: call_id(request),
            cseq: request.cseq().expect("CSeq").number,
            contact: contact(request).unwrap_or_default(),
            expires: request.expires().expect("Expires").unwrap_or(0),
            nonce: credentials.map(|it| it.nonce.into_owned()),
            code,
            path,
        });
    }

    pub(super) fn judge(&mut self, request: &Message, path: Path) {
        self.criticise(request);
        let source = self.source_of(path);
        let answer = self.verdict_on(request, path);
        self.log(request, path, answer.code);
        self.transactions.respond(request, &answer.write(request, source), path, self.now);
    }

    fn verdict_on(&mut self, request: &Message, path: Path) -> Answer<'static> {
        let number = request.cseq().expect("CSeq").number;
        let last = self.sequence.entry(call_id(request)).or_default();
        if number <= *last {
            self.out_of_order += 1;
            return Answer::plain(500);
        }
        *last = number;
        match self.registrar.verdict_on(request).clone() {
            Verdict::Code(code, after) => {
                let extra = after.map(|seconds| ("Retry-After", seconds.to_string())).into_iter().collect();
                return Answer { extra, ..Answer::plain(code) };
            }
            Verdict::TooBrief(least) => {
                let extra = least.map(|least| ("Min-Expires", least.to_owned())).into_iter().collect();
                return Answer { extra, ..Answer::plain(423) };
            }
            Verdict::NeverContent => return self.challenge(false),
            Verdict::AlwaysStale => return self.challenge(true),
            Verdict::Fair | Verdict::Silent => {}
        }
        if !self.registrar.guards.list.is_empty() {
            if let Some(asks) = self.guard(request) {
                return asks;
            }
        } else if self.registrar.challenges
            && let Err(stale) = self.check(request)
        {
            return self.challenge(stale);
        }
        let asked = request.expires().expect("Expires").unwrap_or(self.registrar.max_expires);
        if asked > 0 && asked < self.registrar.min_expires {
            return Answer {
                extra: vec![("Min-Expires", self.registrar.min_expires.to_string())],
                ..Answer::plain(423)
            };
        }
        let granted = asked.min(self.registrar.max_expires);
        if request.contacts().next().is_none() { self.list(request) } else { self.bind(request, granted, path) }
    }

    fn bind(&mut self, request: &Message, granted: u32, path: Path) -> Answer<'static> {
        let uri = contact(request).expect("a Contact");
        let first = request.contacts().next().expect("a Contact").expect("a Contact");
        let capability = capability_of(&first);
        let user = String::from_utf8_lossy(request.to().expect("To").uri().user().unwrap_or_default()).into_owned();
        let now = self.now;
        for other in request.contacts().skip(1) {
            let other = other.expect("a Contact");
            let uri = String::from_utf8_lossy(other.uri().raw()).into_owned();
            let seconds: u64 = other.param("expires").flatten().expect("expires").parse().expect("a number");
            self.desks.retain(|desk| desk.uri != uri);
            if seconds > 0 {
                let until = now + Duration::from_secs(seconds);
                self.desks.push(Desk { user: user.clone(), uri, until });
            }
        }
        self.bindings.retain(|it| it.capability != capability && it.until > now);
        if granted > 0 {
            if self.registrar.one_contact {
                self.desks.retain(|desk| desk.user != user);
                self.bindings.retain(|it| it.user != user);
            }
            let instance = outbound::instance(&first).unwrap_or_default().to_owned();
            let until = now + Duration::from_secs(granted.into());
            let call_id = call_id(request);
            self.bindings.push(Binding { user: user.clone(), capability, uri, instance, call_id, until, path });
        }
        self.list(request)
    }

    /// 200 with the contacts there are.
    fn list(&mut self, request: &Message) -> Answer<'static> {
        let user = String::from_utf8_lossy(request.to().expect("To").uri().user().unwrap_or_default()).into_owned();
        let now = self.now;
        let lists = self.registrar.lists;
        let mut extra: Vec<(&str, String)> = Vec::new();
        for binding in self.bindings.iter().filter(|it| it.user == user) {
            let left = binding.until.saturating_since(now).as_secs();
            let bare = binding.uri.split(';').next().expect("a URI");
            if let Some(text) = self.registrar.ours_as {
                extra.push(("Contact", text.replace("{left}", &left.to_string())));
                continue;
            }
            match lists {
                Lists::All => extra.push(("Contact", format!("<{}>;expires={left}", binding.uri))),
                Lists::Bare => extra.push(("Contact", format!("<{bare}>;expires={left}"))),
                Lists::Nothing | Lists::Others => {}
            }
        }
        for desk in self.desks.iter().filter(|it| it.user == user && it.until > now && lists != Lists::Nothing) {
            let left = desk.until.saturating_since(now).as_secs();
            extra.push(("Contact", format!("<{}>;expires={left}", desk.uri)));
        }
        extra.extend(self.registrar.other_contact.iter().map(|other| ("Contact", format!("<{other}>;expires=1800"))));
        extra.extend(self.registrar.expires_header.iter().map(|seconds| ("Expires", seconds.to_string())));
        if self.registrar.next_nonce {
            let nonce = format!("nonce{}", self.mint());
            self.nonces.insert(nonce.clone(), Nonce { since: now, count: 0 });
            extra.push(("Authentication-Info", format!("nextnonce=\"{nonce}\"")));
        }
        Answer { extra, ..Answer::plain(200) }
    }

    /// `Err(stale)`: the credentials do not do.
    pub(super) fn check(&mut self, request: &Message) -> Result<(), bool> {
        let credentials = request.credentials(self.challenge_fields().1, &self.registrar.realm).ok_or(false)?;
        let strongest = *self.registrar.algorithms.iter().max().expect("an algorithm");
        let ours = self.nonces.contains_key(credentials.nonce.as_ref());
        assert!(!ours || credentials.algorithm == Some(strongest), "the strongest algorithm is answered");
        assert_eq!(credentials.uri, uri(request), "digest uri and Request-URI differ");
        let password = self.passwords.get(credentials.username.as_ref()).ok_or(false)?;
        let ha1 = digest::ha1(strongest, &credentials.username, &self.registrar.realm, password.as_bytes());
        let method = request.method().expect("a request");
        if !digest::verify(&credentials, &ha1, strongest, method.as_str()) {
            return Err(false);
        }
        let nonce = self.nonces.get_mut(credentials.nonce.as_ref()).ok_or(true)?;
        let fresh = match self.registrar.nonces {
            NonceLife::Forever => true,
            NonceLife::For(life) => self.now.saturating_since(nonce.since) <= life,
            NonceLife::OneRequest => nonce.count == 0,
        };
        let count = credentials.nc.expect("qop has a count");
        if !fresh || count <= nonce.count {
            return Err(true);
        }
        nonce.count = count;
        Ok(())
    }

    pub(super) fn challenge(&mut self, stale: bool) -> Answer<'static> {
        let mut extra = Vec::new();
        for algorithm in self.registrar.algorithms.clone() {
            let nonce = format!("nonce{}", self.mint());
            self.nonces.insert(nonce.clone(), Nonce { since: self.now, count: 0 });
            let (name, _) = self.challenge_fields();
            extra.push((name, digest::challenge(&self.registrar.realm, &nonce, algorithm, stale)));
        }
        Answer { extra, ..Answer::plain(if self.registrar.proxy { 407 } else { 401 }) }
    }

    fn challenge_fields(&self) -> (&'static str, HeaderName) {
        if self.registrar.proxy {
            ("Proxy-Authenticate", HeaderName::ProxyAuthorization)
        } else {
            ("WWW-Authenticate", HeaderName::Authorization)
        }
    }
}
