//! The PBX: a registrar with digest that is as strict or as odd as a test wants it, and a caller.

mod caller;
mod guards;
mod registrar;
mod texting;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use reveille::clock::Instant;
use reveille::sip::auth::Algorithm;
use reveille::sip::{HeaderName, Message, Method, Transport};

use crate::sip_text::{Answer, Dialog, call_id, code, field, values};
pub use guards::{Guard, Guards};
use registrar::{Binding, Nonce};
pub use registrar::{Desk, Dials, Lists, NonceLife, Registered, Registrar, Verdict};
pub use texting::{Mailbox, Text};

use crate::transactions::{Incoming, Path, Transactions};

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
    /// By the last provisional answer that could start one.
    early: Option<Dialog>,
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
    replaces: Option<String>,
    own: Option<SocketAddr>,
    contact: Option<SocketAddr>,
    expires: Option<u32>,
    /// Over a connection that the PBX opens for it.
    connects: bool,
    call_id: Option<String>,
    from_tag: Option<String>,
    body: Vec<u8>,
}

/// A registrar and its caller.
pub struct Pbx {
    pub address: SocketAddr,
    pub domain: String,
    pub registrar: Registrar,
    pub registers: Vec<Registered>,
    pub mailbox: Mailbox,
    /// REGISTERs that came in the wrong order.
    pub out_of_order: usize,
    /// When it hangs up by itself after an answer.
    pub talk: Option<Duration>,
    passwords: BTreeMap<String, String>,
    bindings: Vec<Binding>,
    /// What phones registered by themselves.
    pub desks: Vec<Desk>,
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
    streams: u64,
}

enum Todo {
    Judge(Message, Path),
    HangUp(Call),
    GiveUp(Call),
    /// A request inside a call.
    GiveUpInside(Message),
}

/// How long the PBX waits for the final of a call.
const PATIENCE: Duration = Duration::from_secs(240);

pub const SDP_OFFER: &[u8] = b"v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";

impl Invite {
    pub fn to(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            capability: None,
            record_route: false,
            require: None,
            replaces: None,
            own: None,
            contact: None,
            expires: None,
            connects: false,
            call_id: None,
            from_tag: None,
            body: SDP_OFFER.to_vec(),
        }
    }

    pub fn by_capability(mut self, capability: &str) -> Self {
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

    /// With a Replaces header (RFC 3891).
    pub fn replacing(mut self, dialog: &str) -> Self {
        self.replaces = Some(dialog.to_owned());
        self
    }

    /// From another address of the PBX than the one it registers at.
    pub fn calling_from(mut self, own: &str) -> Self {
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

    pub fn over_a_connection_of_its_own(mut self) -> Self {
        self.connects = true;
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
            proxy: false,
            next_nonce: false,
            realm: registrar::REALM.to_owned(),
            algorithms: vec![Algorithm::Md5],
            nonces: NonceLife::Forever,
            delay: Duration::ZERO,
            min_expires: 0,
            max_expires: 3600,
            other_contact: None,
            ours_as: None,
            expires_header: None,
            one_contact: false,
            lists: Lists::All,
            dials: Dials::User,
            guards: Guards::default(),
            listens: true,
            certified: None,
            apart: None,
        };
        Self {
            address,
            domain: domain.to_owned(),
            registrar,
            registers: Vec::new(),
            mailbox: Mailbox::default(),
            out_of_order: 0,
            talk: None,
            passwords: BTreeMap::new(),
            bindings: Vec::new(),
            desks: Vec::new(),
            nonces: BTreeMap::new(),
            sequence: BTreeMap::new(),
            calls: Vec::new(),
            later: Vec::new(),
            transactions: Transactions::default(),
            edge,
            now: Instant::default(),
            minted: 0,
            streams: 0,
        }
    }

    /// Lives elsewhere, and knows us by another address.
    pub fn move_to(&mut self, address: SocketAddr, edge: SocketAddr) {
        self.address = address;
        self.edge = edge;
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

    /// A phone registers by itself, here and now.
    pub fn add_desk(&mut self, user: &str, uri: &str, span: Duration) {
        let until = self.now + span;
        self.desks.push(Desk { user: user.to_owned(), uri: uri.to_owned(), until });
    }

    /// Contacts of phones that registered by themselves, as far as they hold.
    pub fn desks(&self, user: &str) -> Vec<String> {
        self.desks.iter().filter(|it| it.user == user && it.until > self.now).map(|it| it.uri.clone()).collect()
    }

    /// Forgets a binding, as a PBX does that restarts.
    pub fn forget_bindings(&mut self) {
        self.bindings.clear();
    }

    /// Forgets its nonces: whatever comes next is challenged anew.
    pub fn forget_nonces(&mut self) {
        self.nonces.clear();
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
                Todo::GiveUpInside(request) => self.transactions.give_up(&request),
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
        self.later.iter().all(|(_, todo)| matches!(todo, Todo::GiveUp(_) | Todo::GiveUpInside(_)))
    }

    pub fn handle(&mut self, message: Message, path: Path) {
        self.watch_finals(&message);
        match self.transactions.handle(message, path, self.now) {
            Some(Incoming::Request(request, path)) => self.handle_request(request, path),
            Some(Incoming::Response(response, request)) => self.handle_response(&response, &request),
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

    fn handle_response(&mut self, response: &Message, request: &Message) {
        let id = call_id(response);
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
                if code(response) >= 200 {
                    self.calls[place].answers.push((method.clone(), code(response)));
                }
                if method == "INVITE" && (200..300).contains(&code(response)) {
                    let number = request.cseq().expect("our CSeq").number;
                    let ack = self.write_inside(Call(place), Method::Ack, b"", Some(number));
                    self.transactions.request(&ack, self.calls[place].path, self.now);
                }
            }
        }
    }

    fn handle_request(&mut self, request: Message, path: Path) {
        match request.method().expect("a request") {
            Method::Register if *self.registrar.verdict_on(&request) == Verdict::Silent => {
                self.criticise(&request);
                self.log(&request, path, 0);
                self.transactions.ignore(&request);
            }
            Method::Register if self.registrar.delay.is_zero() => self.judge(&request, path),
            Method::Register => self.later.push((self.now + self.registrar.delay, Todo::Judge(request, path))),
            Method::Subscribe => self.handle_subscribe(&request, path),
            _ => self.handle_inside(&request, path),
        }
    }

    /// A request of the phone, inside a call.
    fn handle_inside(&mut self, request: &Message, path: Path) {
        let id = call_id(request);
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
                self.transactions.respond(request, &Answer::plain(481).write(request, source), path, self.now);
            }
            return;
        };
        assert!(values(request, HeaderName::Route).iter().all(|route| !route.contains(&edge)), "our Route came along");
        call.received.push(request.clone());
        match request.method().expect("a request") {
            Method::Ack => {}
            Method::Bye => {
                call.ended = Some("phone");
                self.transactions.respond(request, &Answer::plain(200).write(request, source), path, self.now);
            }
            Method::Invite => {
                let contact = format!("<sip:caller@{}>", self.address);
                let answer = Answer {
                    code: 200,
                    tag: None,
                    record_route: true,
                    extra: vec![("Contact", contact)],
                    raw: Vec::new(),
                    body: b"v=0\r\ns=again\r\n",
                };
                self.transactions.respond(request, &answer.write(request, source), path, self.now);
            }
            _ => self.transactions.respond(request, &Answer::plain(200).write(request, source), path, self.now),
        }
    }

    fn source_of(&self, path: Path) -> SocketAddr {
        match path {
            Path::Datagram { peer, .. } => peer,
            Path::Stream(_) => self.edge,
        }
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
