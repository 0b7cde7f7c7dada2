//! What we are at a registrar: Call-ID, Contact and counters of one binding, and the REGISTER they make.

use std::time::Duration;

use bytes::Bytes;

use super::others::{Counts, Others};
use super::{Desk, Target};
use crate::clock::Instant;
use crate::engine::account::{Account, ContactStyle};
use crate::engine::challenges::Sessions;
use crate::engine::ids::{BranchId, Capability, ListenerId};
use crate::engine::policy::Policy;
use crate::engine::random::Random;
use crate::sip::Message;
use crate::sip::proxy::OwnVia;
use crate::sip::registration::{self, OwnContact, Register};
use crate::sip::uri::{self, Uri};
use crate::vault::CredentialId;

/// What we are at the registrar: all that stays the same for a binding's whole life, and its counters.
pub(crate) struct Identity {
    pub(crate) capability: Capability,
    pub(crate) credential: CredentialId,
    pub(super) aor: String,
    pub(super) request_uri: String,
    pub(super) username: String,
    call_id: String,
    from_tag: String,
    urn: String,
    cseq: u32,
    style: ContactStyle,
    /// The whole Contact value; it never changes.
    contact: Option<(ListenerId, String)>,
    pub(super) sessions: Sessions,
    /// The request written last bears our credentials.
    signed: bool,
    /// The least expiry that the registrar takes, as far as it said so.
    min_expires: Duration,
    /// Most bindings have none: boxed where there is something to remember.
    others: Option<Box<Others>>,
}

impl Identity {
    /// A new identity at the registrar of `account`.
    pub(crate) fn new(
        capability: Capability,
        credential: CredentialId,
        account: &Account,
        random: &mut Random,
    ) -> Self {
        let urn = uuid::Builder::from_random_bytes(random.bytes()).into_uuid();
        Self {
            capability,
            credential,
            aor: account.aor.clone(),
            request_uri: account.registrar.text.clone(),
            username: account.auth_username.clone(),
            call_id: random.text::<16>(),
            from_tag: random.text::<8>(),
            urn: format!("urn:uuid:{urn}"),
            cseq: 0,
            style: account.contact_style,
            contact: None,
            sessions: Sessions::default(),
            signed: false,
            min_expires: Duration::ZERO,
            others: None,
        }
    }

    /// The same registrant with other credentials, for trying them out: same Call-ID and Contact.
    pub(crate) fn with_credential(&self, credential: CredentialId, username: &str) -> Self {
        Self {
            capability: self.capability,
            credential,
            aor: self.aor.clone(),
            request_uri: self.request_uri.clone(),
            username: username.to_owned(),
            call_id: self.call_id.clone(),
            from_tag: self.from_tag.clone(),
            urn: self.urn.clone(),
            cseq: self.cseq,
            style: self.style,
            contact: self.contact.clone(),
            sessions: Sessions::default(),
            signed: false,
            min_expires: self.min_expires,
            others: self.others.clone(),
        }
    }

    /// Takes over the sequence number of a twin that spoke for the same binding, so that CSeq only grows.
    pub(crate) fn catch_up(&mut self, twin: &Self) {
        self.cseq = self.cseq.max(twin.cseq);
        if self.contact.is_none() {
            self.contact.clone_from(&twin.contact);
        }
    }

    /// Speaks with other credentials of the same account from now on; the former ones come back.
    pub(crate) fn exchange_credential(&mut self, credential: CredentialId, username: String) -> (CredentialId, String) {
        let former = std::mem::replace(&mut self.credential, credential);
        (former, std::mem::replace(&mut self.username, username))
    }

    /// What it spoke with.
    pub(crate) fn into_credential(self) -> (CredentialId, String) {
        (self.credential, self.username)
    }

    /// Forgets the Contact, so that the next target may choose the listener. Only before the first 200.
    pub(crate) fn forget_contact(&mut self) {
        self.contact = None;
    }

    fn contact_for(&mut self, target: &Target, policy: &Policy) -> &str {
        let (_, contact) = self.contact.get_or_insert_with(|| {
            let advertise = policy.listener(target.listener).map_or("", |listener| listener.advertise.as_str());
            let transport = target.transport.as_param();
            let (capability, urn) = (&self.capability, &self.urn);
            let uri = match self.style {
                ContactStyle::Capability => format!("sip:{capability}@{advertise};transport={transport}"),
                ContactStyle::Username => {
                    format!("sip:{}@{advertise};cap={capability};transport={transport}", user_of(&self.aor))
                }
            };
            (target.listener, format!("<{uri}>;+sip.instance=\"<{urn}>\""))
        });
        contact
    }

    /// The address of record.
    pub(crate) fn aor(&self) -> &str {
        &self.aor
    }

    /// The user name of the credentials.
    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    /// The Call-ID of its REGISTERs.
    pub(crate) fn call_id(&self) -> &str {
        &self.call_id
    }

    /// The user part of the address of record, where the Contact bears it (RFC 3261 §19.1.4: compared unescaped).
    pub(crate) fn called(&self) -> Option<Vec<u8>> {
        (self.style == ContactStyle::Username).then(|| uri::unescape(user_of(&self.aor).as_bytes()))
    }

    /// The Contact URI, once there is one.
    pub(crate) fn contact_uri(&self) -> Option<&str> {
        let (_, contact) = self.contact.as_ref()?;
        contact.strip_prefix('<')?.split_once('>').map(|(uri, _)| uri)
    }

    /// What is known of other contacts of the address of record.
    pub(crate) fn counts(&self) -> Counts {
        self.others.as_ref().map(|others| others.counts()).unwrap_or_default()
    }

    /// Whether ours is to take the place of the contacts there are, from the next REGISTER on.
    pub(crate) fn set_takeover(&mut self, wanted: bool) {
        if wanted || self.others.is_some() {
            self.others.get_or_insert_default().set_takeover(wanted);
        }
    }

    /// Forgets what is known of other contacts; whether ours is to take their place is said anew.
    pub(crate) fn forget_others(&mut self) {
        self.others = None;
    }

    /// The registration begins anew after a time without one.
    pub(crate) fn begin_anew(&mut self) {
        if let Some(others) = &mut self.others {
            others.begin_anew();
        }
    }

    /// The expiry to ask for where `expires` is wanted: the registrar's minimum, where that is longer, without another 423.
    pub(super) fn at_least(&self, expires: Duration) -> Duration {
        expires.max(self.min_expires)
    }

    /// What a 423 demands.
    pub(super) fn set_min_expires(&mut self, least: Duration) {
        self.min_expires = least;
    }

    pub(super) fn wants_query(&self) -> bool {
        self.others.as_ref().is_some_and(|others| others.wants_query())
    }

    /// The answer to a query, or that there is none to be had.
    pub(super) fn handle_query(&mut self, response: Option<&Message>, now: Instant) {
        self.learn(|others, own| others.handle_query(response, own, now));
    }

    /// A 2xx to a REGISTER that asked for `asked`; zero removed our Contact. Tells also who else is there.
    pub(super) fn handle_granted(&mut self, response: &Message, asked: Duration, now: Instant) -> Answered {
        self.sessions.handle_granted(response);
        let granted = self.with_own(|own| registration::granted(response, own, asked));
        if asked.is_zero() {
            return Answered::Granted(granted.unwrap_or_default());
        }
        let others = self.with_own(|own| registration::others(response, own).next().is_some());
        if others {
            self.others.get_or_insert_default();
        }
        if let Some(expires) = granted {
            self.learn(|others, own| {
                others.forget_rewritten();
                others.handle_granted(response, own, now);
            });
            return Answered::Granted(expires);
        }
        if self.with_own(|own| registration::lists(response, own)) {
            return Answered::Nothing;
        }
        if let Some(expires) = self.take_rewritten(response, asked) {
            self.learn(|others, own| others.handle_granted(response, own, now));
            return Answered::Rewritten(expires);
        }
        self.learn(|others, own| others.handle_ungranted(response, own));
        Answered::Missing
    }

    /// Takes the Contact of a 200 for ours where a middlebox can only have rewritten it, and tells how long it holds. Where the
    /// account's own name stands in our Contact, every phone of it looks alike; in a takeover, those whose place we take do; another
    /// capability is another binding of ours.
    fn take_rewritten(&mut self, response: &Message, asked: Duration) -> Option<Duration> {
        let ok = response.status().is_some_and(|status| status.code() == 200);
        if !ok || !self.signed || self.style == ContactStyle::Username {
            return None;
        }
        let sent = Uri::parse(self.contact_uri()?.as_bytes()).ok()?;
        let named = uri::unescape(user_of(&self.aor).as_bytes());
        let (contact, expires) = registration::rewritten(response, &sent, &named, asked)?;
        let uri = contact.uri();
        let names =
            [uri.user().map(uri::unescape), uri.param("cap").flatten().map(|cap| uri::unescape(cap.as_bytes()))];
        if names.iter().flatten().any(|name| Capability::parse(name).is_some()) {
            return None;
        }
        self.others.get_or_insert_default().take_for_ours(&contact).then_some(expires)
    }

    fn learn(&mut self, what: impl FnOnce(&mut Others, &OwnContact<'_>)) {
        let Some(mut others) = self.others.take() else { return };
        self.with_own(|own| what(&mut others, own));
        self.others = Some(others);
    }

    fn with_own<R>(&self, what: impl FnOnce(&OwnContact<'_>) -> R) -> R {
        let capability = self.capability.to_string();
        let named = self.contact_uri().filter(|_| self.style == ContactStyle::Username);
        what(&OwnContact { unguessable: &capability, named, instance: &self.urn })
    }

    pub(super) fn write(
        &mut self,
        target: &Target,
        branch: BranchId,
        wanted: Wanted,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Bytes {
        self.cseq += 1;
        let authorizations = self.authorize(desk.vault, desk.random);
        self.signed = !authorizations.is_empty();
        let mut contact = self.contact_for(target, desk.policy).to_owned();
        let expires = match wanted {
            Wanted::Query => {
                contact.clear();
                Duration::ZERO
            }
            Wanted::Binding(expires) => {
                contact.extend(self.others.iter().map(|others| others.beside(expires, now)));
                expires
            }
        };
        let sent_by = desk.policy.listener(target.listener).map_or("", |listener| listener.advertise.as_str());
        let mut out = Vec::with_capacity(1024);
        registration::write_register(
            &Register {
                request_uri: &self.request_uri,
                aor: &self.aor,
                from_tag: &self.from_tag,
                call_id: &self.call_id,
                cseq: self.cseq,
                via: OwnVia { transport: target.transport, sent_by, branch: &branch.branch() },
                contact: &contact,
                expires: u32::try_from(expires.as_secs()).unwrap_or(u32::MAX),
                authorizations: &authorizations,
                route: None,
            },
            &mut out,
        );
        Bytes::from(out)
    }
}

/// What a 2xx says of our Contact.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answered {
    /// It holds for so long.
    Granted(Duration),
    /// It holds for so long, under another URI.
    Rewritten(Duration),
    /// It holds for no time.
    Nothing,
    /// Others are listed, and it is not.
    Missing,
}

/// What one request asks for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Who is registered (RFC 3261 §10.2.3).
    Query,
    /// That our Contact holds for so long; zero removes it.
    Binding(Duration),
}

/// The user part of an address of record, as it stands there.
fn user_of(aor: &str) -> &str {
    let address = aor.strip_prefix("sip:").unwrap_or(aor);
    address.rsplit_once('@').map_or(address, |(user, _)| user)
}
