//! The PBX: a registrar with digest that is as strict or as odd as a test wants it, and a caller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use reveille::clock::Instant;
use reveille::engine::ids::Capability;
use reveille::sip::auth::Algorithm;
use reveille::sip::outbound;
use reveille::sip::proxy::write_cancel;
use reveille::sip::uri::Uri;
use reveille::sip::{HeaderName, Message, Method, Transport, digest};

use crate::sip_text::{Answer, Dialog, Request, call_id, code, contact, field, uri, values};
use crate::transactions::{Incoming, Out, Path, Transactions};

/// How a registrar treats a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As its credentials deserve.
    Fair,
    /// Nothing at all.
    Silent,
    /// This code, with this Retry-After.
    Code(u16, Option<u32>),
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
    pub algorithms: Vec<Algorithm>,
    pub nonces: NonceLife,
    pub delay: Duration,
    pub min_expires: u32,
    pub max_expires: u32,
    /// A Contact of somebody else under the same AOR.
    pub other_contact: Option<String>,
    /// Whether connections to it are accepted.
    pub listens: bool,
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

struct Binding {
    user: String,
    capability: String,
    uri: String,
    instance: String,
    call_id: String,
    until: Instant,
    path: Path,
}

struct Nonce {
    since: Instant,
    count: u32,
}

/// Names a call of the PBX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(pub usize);

/// What the PBX knows of a call.
pub struct CallState {
    pub user: String,
    pub invite: Message,
    pub path: Path,
    pub heard: Vec<u16>,
    pub responses: Vec<Message>,
    pub dialog: Option<Dialog>,
    /// The peer's tags of answers that could start a dialog.
    pub tags: Vec<String>,
    pub cancelled: bool,
    /// Who ended it.
    pub ended: Option<&'static str>,
    /// Requests the peer sent inside.
    pub received: Vec<Message>,
    /// Answers to our requests inside.
    pub answers: Vec<(String, u16)>,
    acks: BTreeMap<u32, Message>,
}

/// An INVITE to place.
pub struct Invite {
    user: String,
    capability: Option<String>,
    record_route: bool,
    require: Option<&'static str>,
    own: Option<SocketAddr>,
    contact: Option<SocketAddr>,
    expires: Option<u32>,
    call_id: Option<String>,
    from_tag: Option<String>,
    datagram: bool,
    body: Vec<u8>,
}

/// A registrar and its caller.
pub struct Pbx {
    pub address: SocketAddr,
    pub domain: String,
    pub registrar: Registrar,
    pub registers: Vec<Registered>,
    /// REGISTERs that came in the wrong order.
    pub out_of_order: usize,
    /// When it hangs up by itself after an answer.
    pub talk: Option<Duration>,
    passwords: BTreeMap<String, String>,
    bindings: Vec<Binding>,
    nonces: BTreeMap<String, Nonce>,
    /// Call-ID to its last CSeq.
    sequence: BTreeMap<String, u32>,
    calls: Vec<CallState>,
    later: Vec<(Instant, Todo)>,
    pub transactions: Transactions,
    /// Where our side of the world listens.
    edge: SocketAddr,
    now: Instant,
    minted: u64,
}

enum Todo {
    Judge(Message, Path),
    HangUp(Call),
    GiveUp(Call),
}

/// How long the PBX waits for the final of a call.
const PATIENCE: Duration = Duration::from_secs(240);

pub const SDP_OFFER: &[u8] = b"v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";
const REALM: &str = "pbx";

impl Invite {
    pub fn to(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            capability: None,
            record_route: false,
            require: None,
            own: None,
            contact: None,
            expires: None,
            call_id: None,
            from_tag: None,
            datagram: false,
            body: SDP_OFFER.to_vec(),
        }
    }

    pub fn to_capability(mut self, capability: &str) -> Self {
        self.capability = Some(capability.to_owned());
        self
    }

    pub fn record_routed(mut self) -> Self {
        self.record_route = true;
        self
    }

    pub fn requiring(mut self, option: &'static str) -> Self {
        self.require = Some(option);
        self
    }

    /// From another address of the PBX than the one it registers at.
    pub fn from_address(mut self, own: &str) -> Self {
        self.own = Some(own.parse().expect("an address"));
        self
    }

    pub fn with_contact(mut self, contact: &str) -> Self {
        self.contact = Some(contact.parse().expect("an address"));
        self
    }

    pub fn expiring(mut self, seconds: u32) -> Self {
        self.expires = Some(seconds);
        self
    }

    pub fn with_body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    fn forked(mut self, call_id: &str, from_tag: &str) -> Self {
        self.call_id = Some(call_id.to_owned());
        self.from_tag = Some(from_tag.to_owned());
        self
    }
}

impl From<&str> for Invite {
    fn from(user: &str) -> Self {
        Self::to(user)
    }
}

impl Pbx {
    pub fn new(address: SocketAddr, domain: &str, edge: SocketAddr) -> Self {
        let registrar = Registrar {
            verdict: Verdict::Fair,
            challenges: true,
            algorithms: vec![Algorithm::Md5],
            nonces: NonceLife::Forever,
            delay: Duration::ZERO,
            min_expires: 0,
            max_expires: 3600,
            other_contact: None,
            listens: true,
        };
        Self {
            address,
            domain: domain.to_owned(),
            registrar,
            registers: Vec::new(),
            out_of_order: 0,
            talk: None,
            passwords: BTreeMap::new(),
            bindings: Vec::new(),
            nonces: BTreeMap::new(),
            sequence: BTreeMap::new(),
            calls: Vec::new(),
            later: Vec::new(),
            transactions: Transactions::default(),
            edge,
            now: Instant::default(),
            minted: 0,
        }
    }

    pub fn set_password(&mut self, user: &str, password: &str) {
        self.passwords.insert(user.to_owned(), password.to_owned());
    }

    /// Contacts that are registered for `user` now.
    pub fn contacts(&self, user: &str) -> Vec<String> {
        self.bindings.iter().filter(|it| it.user == user && it.until > self.now).map(|it| it.uri.clone()).collect()
    }

    /// The user part of the newest Contact of `user`.
    pub fn capability(&self, user: &str) -> Option<String> {
        self.bindings.iter().rev().find(|it| it.user == user && it.until > self.now).map(|it| it.capability.clone())
    }

    /// Forgets a binding, as a PBX does that restarts.
    pub fn forget_bindings(&mut self) {
        self.bindings.clear();
    }

    /// The codes of all REGISTERs so far.
    pub fn verdicts(&self) -> Vec<u16> {
        self.registers.iter().map(|register| register.code).collect()
    }

    pub fn call(&self, call: Call) -> &CallState {
        &self.calls[call.0]
    }

    pub fn calls(&self) -> impl Iterator<Item = (Call, &CallState)> {
        self.calls.iter().enumerate().map(|(place, call)| (Call(place), call))
    }

    /// All codes heard of a call, in order.
    pub fn heard(&self, call: Call) -> &[u16] {
        &self.call(call).heard
    }

    pub fn final_response(&self, call: Call) -> Option<u16> {
        self.call(call).heard.iter().copied().find(|&code| code >= 200)
    }

    /// Places a call.
    pub fn invite(&mut self, invite: impl Into<Invite>) -> Call {
        let invite = invite.into();
        let binding = self.bindings.iter().rev().find(|it| it.user == invite.user);
        let capability = invite.capability.clone().or_else(|| Some(binding?.capability.clone()));
        let capability = capability.expect("a capability: nobody is registered");
        let bound_path = binding.map(|it| it.path);
        let own = invite.own.unwrap_or(self.address);
        let path = match bound_path {
            Some(Path::Stream(stream)) if !invite.datagram && invite.own.is_none() => Path::Stream(stream),
            _ => Path::Datagram { own, peer: self.edge },
        };
        let uri = format!("sip:{capability}@{};transport={}", self.edge, transport(path).as_param());
        let minted = self.mint();
        let call_id = invite.call_id.clone().unwrap_or_else(|| format!("call-{minted}@{}", self.domain));
        let tag = invite.from_tag.clone().unwrap_or_else(|| format!("caller{minted}"));
        let contact_at = invite.contact.unwrap_or(own);
        let mut extra =
            vec![("Contact".to_owned(), format!("<sip:caller@{contact_at};transport={}>", transport(path).as_param()))];
        extra.push(("User-Agent".to_owned(), "a PBX that tells who it is".to_owned()));
        extra.push(("Allow".to_owned(), "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, NOTIFY, REFER".to_owned()));
        if invite.record_route {
            extra.push(("Record-Route".to_owned(), format!("<sip:{own};transport={};lr>", transport(path).as_param())));
        }
        extra.extend(invite.require.map(|option| ("Require".to_owned(), option.to_owned())));
        extra.extend(invite.expires.map(|seconds| ("Expires".to_owned(), seconds.to_string())));
        extra.push(("Content-Type".to_owned(), "application/sdp".to_owned()));
        let request = Request {
            method: Method::Invite,
            uri: &uri,
            transport: transport(path),
            sent_by: own.to_string(),
            branch: format!("z9hG4bKpbx{minted}"),
            routes: &[],
            from: format!("\"Carol\" <sip:carol@{}>;tag={tag}", self.domain),
            to: format!("<sip:{}@{}>", invite.user, self.domain),
            call_id: &call_id,
            cseq: 1,
            extra,
            body: &invite.body,
        };
        let message = request.write();
        self.transactions.request(&message, path, self.now);
        self.calls.push(CallState {
            user: invite.user,
            invite: message,
            path,
            heard: Vec::new(),
            responses: Vec::new(),
            dialog: None,
            tags: Vec::new(),
            cancelled: false,
            ended: None,
            received: Vec::new(),
            answers: Vec::new(),
            acks: BTreeMap::new(),
        });
        let call = Call(self.calls.len() - 1);
        self.later.push((self.now + PATIENCE, Todo::GiveUp(call)));
        call
    }

    /// The same INVITE over another branch, as a proxy that forked it would send it.
    pub fn invite_copy(&mut self, call: Call) -> Call {
        let known = self.call(call);
        let tag = known.invite.from().expect("From").tag().expect("a tag").to_owned();
        let copy = Invite::to(&known.user).forked(&call_id(&known.invite), &tag);
        self.invite(copy)
    }

    /// The caller hangs up before anyone answered.
    pub fn cancel(&mut self, call: Call) {
        self.cancel_because(call, None);
    }

    pub fn cancel_because(&mut self, call: Call, reason: Option<&str>) {
        let now = self.now;
        let state = &mut self.calls[call.0];
        state.cancelled = true;
        let mut out = Vec::new();
        write_cancel(&state.invite, reason, &mut out).expect("a CANCEL of an INVITE of ours");
        let cancel = Message::parse_datagram(out).expect("a CANCEL");
        self.transactions.request(&cancel, state.path, now);
    }

    /// Ends an answered call.
    pub fn hang_up(&mut self, call: Call) {
        self.inside(call, Method::Bye, b"");
        self.calls[call.0].ended = Some("pbx");
    }

    /// Sends the ACK of the 2xx once more.
    pub fn acknowledge_again(&mut self, call: Call) {
        let state = &self.calls[call.0];
        let ack = state.acks.get(&1).expect("an ACK").clone();
        self.transactions.request(&ack, state.path, self.now);
    }

    /// A request inside an answered call.
    pub fn inside(&mut self, call: Call, method: Method<'_>, body: &[u8]) {
        let request = self.write_inside(call, method, body, None);
        let path = self.calls[call.0].path;
        self.transactions.request(&request, path, self.now);
    }

    /// A request outside any dialog, to a capability or whatever URI, from `own`.
    pub fn outside(&mut self, method: Method<'_>, uri: &str, extra: &[(&str, &str)]) -> Call {
        self.outside_from(method, uri, extra, self.address)
    }

    pub fn outside_to(&mut self, method: Method<'_>, uri: &str, to: &str) -> Call {
        self.odd(method, uri, to, &[], self.address)
    }

    pub fn outside_from(&mut self, method: Method<'_>, uri: &str, extra: &[(&str, &str)], own: SocketAddr) -> Call {
        self.odd(method, uri, &format!("<{uri}>"), extra, own)
    }

    fn odd(&mut self, method: Method<'_>, uri: &str, to: &str, extra: &[(&str, &str)], own: SocketAddr) -> Call {
        let minted = self.mint();
        let path = Path::Datagram { own, peer: self.edge };
        let call_id = format!("out-{minted}@{}", self.domain);
        let mut fields = vec![
            ("Contact".to_owned(), format!("<sip:pbx@{own}>")),
            ("User-Agent".to_owned(), "a PBX that tells who it is, at some length".to_owned()),
            ("Accept".to_owned(), "application/sdp, application/dialog-info+xml, text/plain".to_owned()),
        ];
        fields.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let request = Request {
            method,
            uri,
            transport: Transport::Udp,
            sent_by: own.to_string(),
            branch: format!("z9hG4bKout{minted}"),
            routes: &[],
            from: format!("<sip:pbx@{}>;tag=out{minted}", self.domain),
            to: to.to_owned(),
            call_id: &call_id,
            cseq: 1,
            extra: fields,
            body: b"",
        };
        let message = request.write();
        self.transactions.request(&message, path, self.now);
        self.calls.push(CallState {
            user: String::new(),
            invite: message,
            path,
            heard: Vec::new(),
            responses: Vec::new(),
            dialog: None,
            tags: Vec::new(),
            cancelled: false,
            ended: None,
            received: Vec::new(),
            answers: Vec::new(),
            acks: BTreeMap::new(),
        });
        Call(self.calls.len() - 1)
    }

    /// The URI of `user`'s capability at our edge.
    pub fn capability_uri(&self, user: &str) -> String {
        format!("sip:{}@{}", self.capability(user).expect("a registration"), self.edge)
    }

    /// Sends bytes as they stand.
    pub fn send_raw(&mut self, own: SocketAddr, bytes: &[u8]) {
        let path = Path::Datagram { own, peer: self.edge };
        self.transactions.out.push_back(Out::Send(path, bytes.to_vec().into()));
    }

    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    pub fn handle_timeout(&mut self) {
        let now = self.now;
        self.transactions.handle_timeout(now);
        while let Some(place) = self.later.iter().position(|(due, _)| *due <= now) {
            match self.later.remove(place).1 {
                Todo::Judge(request, path) => self.judge(&request, path),
                Todo::GiveUp(call) => {
                    if self.final_response(call).is_none() {
                        self.transactions.give_up(&self.calls[call.0].invite);
                    }
                }
                Todo::HangUp(call) => {
                    if self.calls[call.0].dialog.is_some() && self.calls[call.0].ended.is_none() {
                        self.hang_up(call);
                    }
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let later = self.later.iter().map(|(due, _)| *due).min();
        [later, self.transactions.poll_timeout()].into_iter().flatten().min()
    }

    /// Whether nothing of it is on its way.
    pub fn is_quiet(&self) -> bool {
        self.later.iter().all(|(_, todo)| matches!(todo, Todo::GiveUp(_)))
    }

    pub fn handle(&mut self, message: Message, path: Path) {
        self.watch_finals(&message);
        match self.transactions.handle(message, path, self.now) {
            Some(Incoming::Request(request, path)) => self.handle_request(request, path),
            Some(Incoming::Response(response, request)) => self.handle_response(response, &request),
            None => {}
        }
    }

    /// One INVITE has one final response, however often it is repeated.
    fn watch_finals(&mut self, message: &Message) {
        let (Some(status), Ok(cseq)) = (message.status(), message.cseq()) else { return };
        if status.is_provisional() || cseq.method != Method::Invite {
            return;
        }
        let branch = message.top_via().expect("a Via").branch().expect("a branch").to_owned();
        let call = self.calls.iter().find(|it| it.invite.top_via().expect("a Via").branch() == Some(&branch));
        if let Some(first) = call.and_then(|it| it.heard.iter().find(|&&code| code >= 200)) {
            assert_eq!(*first, status.code(), "one INVITE, two finals");
        }
    }

    fn handle_response(&mut self, response: Message, request: &Message) {
        let id = call_id(&response);
        let branch = request.top_via().expect("a Via").branch().expect("a branch").to_owned();
        let method = request.method().expect("a request").as_str().to_owned();
        let place = self.calls.iter().position(|it| it.invite.top_via().expect("a Via").branch() == Some(&branch));
        match place {
            Some(place) if method != "CANCEL" => self.handle_answer(Call(place), response),
            _ => {
                // Of the copies of one INVITE, the one that was answered.
                let of_call = |it: &CallState| call_id(&it.invite) == id;
                let answered = self.calls.iter().position(|it| of_call(it) && it.dialog.is_some());
                let Some(place) = answered.or_else(|| self.calls.iter().position(of_call)) else { return };
                if code(&response) >= 200 {
                    self.calls[place].answers.push((method.clone(), code(&response)));
                }
                if method == "INVITE" && (200..300).contains(&code(&response)) {
                    let number = request.cseq().expect("our CSeq").number;
                    let ack = self.write_inside(Call(place), Method::Ack, b"", Some(number));
                    self.transactions.request(&ack, self.calls[place].path, self.now);
                }
            }
        }
    }

    /// An answer to the request that began it.
    fn handle_answer(&mut self, call: Call, response: Message) {
        let code = code(&response);
        let state = &mut self.calls[call.0];
        let again = code >= 200 && state.heard.contains(&code);
        if !again {
            state.heard.push(code);
            state.responses.push(response.clone());
        }
        if state.invite.method() != Some(Method::Invite) {
            return;
        }
        if let Some(tag) = response.to().expect("To").tag()
            && !state.tags.iter().any(|known| known == tag)
        {
            state.tags.push(tag.to_owned());
        }
        if !(200..300).contains(&code) {
            return;
        }
        if state.dialog.is_none() {
            let dialog = Dialog::of_caller(&state.invite, &response);
            state.dialog = Some(dialog);
            let ack = self.write_inside(call, Method::Ack, b"", Some(1));
            self.calls[call.0].acks.insert(1, ack);
        }
        let state = &self.calls[call.0];
        let ack = state.acks.get(&1).expect("the ACK of the first 2xx").clone();
        let (path, cancelled, ended) = (state.path, state.cancelled, state.ended);
        self.transactions.request(&ack, path, self.now);
        if cancelled && ended.is_none() {
            self.hang_up(call);
        } else if let (false, Some(talk)) = (again, self.talk) {
            self.later.push((self.now + talk, Todo::HangUp(call)));
        }
    }

    fn write_inside(&mut self, call: Call, method: Method<'_>, body: &[u8], number: Option<u32>) -> Message {
        let minted = self.mint();
        let state = &mut self.calls[call.0];
        let dialog = state.dialog.as_mut().expect("an answered call");
        let cseq = number.unwrap_or_else(|| {
            dialog.cseq += 1;
            dialog.cseq
        });
        let own = match state.path {
            Path::Datagram { own, .. } => own,
            Path::Stream(_) => self.address,
        };
        // Its own proxy's Record-Route is not a hop for it.
        let here = format!("sip:{own};");
        let routes: Vec<String> = dialog.routes.iter().filter(|route| !route.contains(&here)).cloned().collect();
        let mut extra = vec![("Contact".to_owned(), format!("<sip:caller@{own}>"))];
        if !body.is_empty() {
            extra.push(("Content-Type".to_owned(), "application/sdp".to_owned()));
        }
        let request = Request {
            method,
            uri: &dialog.target,
            transport: transport(state.path),
            sent_by: own.to_string(),
            branch: format!("z9hG4bKin{minted}"),
            routes: &routes,
            from: dialog.local.clone(),
            to: dialog.remote.clone(),
            call_id: &dialog.call_id,
            cseq,
            extra,
            body,
        };
        request.write()
    }

    fn handle_request(&mut self, request: Message, path: Path) {
        match request.method().expect("a request") {
            Method::Register if self.registrar.verdict == Verdict::Silent => {
                self.criticise(&request);
                self.log(&request, path, 0);
                self.transactions.ignore(&request);
            }
            Method::Register if self.registrar.delay.is_zero() => self.judge(&request, path),
            Method::Register => self.later.push((self.now + self.registrar.delay, Todo::Judge(request, path))),
            _ => self.handle_inside(request, path),
        }
    }

    /// A request of the phone, inside a call.
    fn handle_inside(&mut self, request: Message, path: Path) {
        let id = call_id(&request);
        let tag = request.to().expect("To").tag().unwrap_or_default().to_owned();
        let edge = self.edge.ip().to_string();
        let source = self.source_of(path);
        let known = self.calls.iter_mut().find(|it| {
            call_id(&it.invite) == id
                && it.invite.from().expect("From").tag() == Some(tag.as_str())
                && it.dialog.is_some()
        });
        let Some(call) = known else {
            assert!(request.method() == Some(Method::Ack) || !tag.is_empty(), "a request of ours outside a dialog");
            if request.method() != Some(Method::Ack) {
                self.transactions.respond(&request, &Answer::plain(481).write(&request, source), path, self.now);
            }
            return;
        };
        assert!(values(&request, HeaderName::Route).iter().all(|route| !route.contains(&edge)), "our Route came along");
        call.received.push(request.clone());
        match request.method().expect("a request") {
            Method::Ack => {}
            Method::Bye => {
                call.ended = Some("phone");
                self.transactions.respond(&request, &Answer::plain(200).write(&request, source), path, self.now);
            }
            Method::Invite => {
                let contact = format!("<sip:caller@{}>", self.address);
                let answer = Answer {
                    code: 200,
                    tag: None,
                    record_route: true,
                    extra: vec![("Contact", contact)],
                    body: b"v=0\r\ns=again\r\n",
                };
                self.transactions.respond(&request, &answer.write(&request, source), path, self.now);
            }
            _ => self.transactions.respond(&request, &Answer::plain(200).write(&request, source), path, self.now),
        }
    }

    fn source_of(&self, path: Path) -> SocketAddr {
        match path {
            Path::Datagram { peer, .. } => peer,
            Path::Stream(_) => self.edge,
        }
    }

    /// What every REGISTER of ours must be like.
    fn criticise(&self, request: &Message) {
        assert!(!request.contact_is_star(), "Contact: *");
        assert_eq!(values(request, HeaderName::Supported), ["path"], "Supported");
        assert_eq!(request.extension("User-Agent"), None, "tells who it is");
        let contacts: Vec<_> = request.contacts().collect();
        assert_eq!(contacts.len(), 1, "one Contact");
        let contact = contacts[0].as_ref().expect("a Contact");
        let user = contact.uri().user().expect("a capability");
        assert!(Capability::parse(user).is_some(), "the Contact's user is a capability");
        let instance = outbound::instance(contact).expect("+sip.instance");
        let via = request.top_via().expect("a Via");
        let port = via.sent_by_port().map_or_else(String::new, |port| format!(":{port}"));
        let advertised = format!("{}{port}", via.sent_by());
        let text = String::from_utf8_lossy(contact.uri().raw()).into_owned();
        assert!(
            text.contains(&format!("@{advertised};transport=")),
            "{text} is not where it is sent from: {advertised}"
        );
        for binding in self.bindings.iter().filter(|it| it.capability.as_bytes() == user) {
            assert_eq!(binding.uri, text, "the Contact changed");
            assert_eq!(binding.instance, instance, "+sip.instance changed");
            assert_eq!(binding.call_id, call_id(request), "the Call-ID changed");
        }
    }

    fn log(&mut self, request: &Message, path: Path, code: u16) {
        let credentials = request.credentials(HeaderName::Authorization, REALM);
        self.registers.push(Registered {
            at: self.now,
            call_id: call_id(request),
            cseq: request.cseq().expect("CSeq").number,
            contact: contact(request).unwrap_or_default(),
            expires: request.expires().expect("Expires").unwrap_or(0),
            nonce: credentials.as_ref().map(|it| it.nonce.clone().into_owned()),
            code,
            path,
        });
    }

    fn judge(&mut self, request: &Message, path: Path) {
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
        match self.registrar.verdict.clone() {
            Verdict::Code(code, after) => {
                let extra = after.map(|seconds| ("Retry-After", seconds.to_string())).into_iter().collect();
                return Answer { extra, ..Answer::plain(code) };
            }
            Verdict::NeverContent => return self.challenge(false),
            Verdict::AlwaysStale => return self.challenge(true),
            Verdict::Fair | Verdict::Silent => {}
        }
        if self.registrar.challenges
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
        self.bind(request, asked.min(self.registrar.max_expires), path)
    }

    fn bind(&mut self, request: &Message, granted: u32, path: Path) -> Answer<'static> {
        let uri = contact(request).expect("a Contact");
        let capability =
            String::from_utf8_lossy(Uri::parse(uri.as_bytes()).expect("a URI").user().expect("a user")).into_owned();
        let user = String::from_utf8_lossy(request.to().expect("To").uri().user().unwrap_or_default()).into_owned();
        let now = self.now;
        self.bindings.retain(|it| it.capability != capability && it.until > now);
        if granted > 0 {
            let first = request.contacts().next().expect("a Contact").expect("a Contact");
            let instance = outbound::instance(&first).expect("an instance").to_owned();
            let until = now + Duration::from_secs(granted.into());
            let call_id = call_id(request);
            self.bindings.push(Binding { user: user.clone(), capability, uri, instance, call_id, until, path });
        }
        let mut extra: Vec<(&str, String)> = Vec::new();
        for binding in self.bindings.iter().filter(|it| it.user == user) {
            let left = binding.until.saturating_since(now).as_secs();
            extra.push(("Contact", format!("<{}>;expires={left}", binding.uri)));
        }
        extra.extend(self.registrar.other_contact.iter().map(|other| ("Contact", format!("<{other}>;expires=1800"))));
        Answer { extra, ..Answer::plain(200) }
    }

    /// `Err(stale)`: the credentials do not do.
    fn check(&mut self, request: &Message) -> Result<(), bool> {
        let credentials = request.credentials(HeaderName::Authorization, REALM).ok_or(false)?;
        let strongest = *self.registrar.algorithms.iter().max().expect("an algorithm");
        assert_eq!(credentials.algorithm, Some(strongest), "the strongest algorithm is answered");
        assert_eq!(credentials.uri, uri(request), "digest uri and Request-URI differ");
        let password = self.passwords.get(credentials.username.as_ref()).ok_or(false)?;
        let ha1 = digest::ha1(strongest, &credentials.username, REALM, password.as_bytes());
        if !digest::verify(&credentials, &ha1, strongest, "REGISTER") {
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

    fn challenge(&mut self, stale: bool) -> Answer<'static> {
        let mut extra = Vec::new();
        for algorithm in self.registrar.algorithms.clone() {
            let nonce = format!("nonce{}", self.mint());
            self.nonces.insert(nonce.clone(), Nonce { since: self.now, count: 0 });
            extra.push(("WWW-Authenticate", digest::challenge(REALM, &nonce, algorithm, stale)));
        }
        Answer { extra, ..Answer::plain(401) }
    }

    fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }
}

impl CallState {
    /// Answered, and not over.
    pub fn is_up(&self) -> bool {
        self.dialog.is_some() && self.ended.is_none()
    }

    /// The value of a header field in the first answer of that code.
    pub fn header(&self, wanted: u16, name: HeaderName) -> String {
        let response = self.responses.iter().find(|response| code(response) == wanted).expect("that answer");
        field(response, name)
    }
}

fn transport(path: Path) -> Transport {
    match path {
        Path::Datagram { .. } => Transport::Udp,
        Path::Stream(_) => Transport::Tcp,
    }
}
