//! A phone: asleep until its push comes, then it attaches, rings, and does what its owner would do.

mod attaching;
pub mod through;

use std::net::SocketAddr;
use std::time::Duration;

use reveille::clock::Instant;
use reveille::engine::ids::InstanceId;
use reveille::engine::output::WakeKind;
use reveille::sip::digest::Session;
use reveille::sip::{HeaderName, Message, Method, Transport};
use zeroize::Zeroizing;

use crate::sip_text::{Answer, Dialog, Request, call_id, code, field, uri, values};
use crate::transactions::{Incoming, Out, Path, Transactions};

/// What the owner does with a ringing phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers after so long.
    Answer(Duration),
    /// Lets it ring.
    Ring,
    /// Plays an announcement instead of ringing: 183 with SDP.
    Media,
    /// Refuses with this code after so long.
    Refuse(u16, Duration),
    /// The app hangs: it does not answer SIP at all.
    Dead,
    /// Says nothing until it answers with 200 upon the CANCEL: the two cross.
    AnswerAtCancel,
}

/// A push as it reached the phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub at: Instant,
    pub kind: WakeKind,
    pub call: Option<String>,
}

/// What the app got for handing over.
pub struct Handed {
    pub instance: InstanceId,
    pub token: Zeroizing<String>,
    pub aor: String,
    pub realm: String,
}

/// A call at the phone.
pub struct Rung {
    pub id: String,
    pub invite: Message,
    pub tag: String,
    pub dialog: Option<Dialog>,
    path: Path,
    pub ended: Option<&'static str>,
}

enum Todo {
    Attach,
    Answer(usize),
    Refuse(usize, u16),
    Refresh,
}

/// A phone and its app.
pub struct Phone {
    pub name: String,
    /// What its app hands over as its platform.
    pub platform: &'static str,
    pub transport: Transport,
    pub address: SocketAddr,
    pub manner: Manner,
    /// From the push to the first REGISTER.
    pub boot: Duration,
    /// Whether a push wakes it.
    pub wakes: bool,
    /// Whether its datagrams reach anyone.
    pub reachable: bool,
    /// Answers 482 to an INVITE it already has.
    pub merges: bool,
    pub expires: u32,
    /// Insists that its credentials are right.
    pub stubborn: bool,
    pub account: Option<Handed>,
    /// It hands nothing over and registers at its PBX through us (RFC 8599), with this password.
    pub through: Option<String>,
    pub token: String,
    pub pushes: Vec<Pushed>,
    /// `Reveille-Call` values of answers to its REGISTERs.
    pub news: Vec<String>,
    /// Codes of answers to its REGISTERs.
    pub verdicts: Vec<u16>,
    /// MESSAGEs and NOTIFYs it got, repetitions left out.
    pub told: Vec<Message>,
    /// What it answers to them.
    pub telling: u16,
    /// Methods of requests it got, repetitions left out.
    pub requests: Vec<String>,
    pub calls: Vec<Rung>,
    /// Answers to requests of its own inside calls.
    pub answers: Vec<(String, u16)>,
    pub transactions: Transactions,
    stream: Option<u64>,
    streams: u64,
    later: Vec<(Instant, Todo)>,
    session: Option<Session>,
    cseq: u32,
    minted: u64,
    number: u64,
    edge: SocketAddr,
    now: Instant,
    /// Attached until.
    until: Option<Instant>,
}

pub const SDP_ANSWER: &[u8] = b"v=0\r\no=- 2 2 IN IP4 192.168.1.5\r\ns=-\r\nt=0 0\r\nm=audio 5000 RTP/AVP 8\r\n";

impl Phone {
    pub fn new(name: &str, number: u64, edge: SocketAddr) -> Self {
        let last = u8::try_from(number % 200 + 1).expect("a small number");
        Self {
            name: name.to_owned(),
            platform: "ios",
            transport: Transport::Udp,
            address: SocketAddr::from(([203, 0, 113, last], 40_000)),
            manner: Manner::Answer(Duration::from_secs(2)),
            boot: Duration::from_millis(300),
            wakes: true,
            reachable: true,
            merges: false,
            expires: 600,
            stubborn: true,
            account: None,
            through: None,
            token: format!("push-token-{name}"),
            pushes: Vec::new(),
            news: Vec::new(),
            verdicts: Vec::new(),
            told: Vec::new(),
            telling: 200,
            requests: Vec::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            transactions: Transactions::default(),
            stream: None,
            streams: 0,
            later: Vec::new(),
            session: None,
            cseq: 0,
            minted: 0,
            number,
            edge,
            now: Instant::default(),
            until: None,
        }
    }

    /// The `call` ids it rang for.
    pub fn rang(&self) -> Vec<String> {
        self.calls.iter().map(|call| call.id.clone()).collect()
    }

    /// Kinds of pushes it got, in order.
    pub fn kinds(&self) -> Vec<WakeKind> {
        self.pushes.iter().map(|push| push.kind).collect()
    }

    pub fn instance(&self) -> InstanceId {
        self.account.as_ref().expect("handed over").instance
    }

    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    pub fn handle_push(&mut self, kind: WakeKind, call: Option<String>) {
        self.pushes.push(Pushed { at: self.now, kind, call });
        let comes = match &self.through {
            Some(_) => true,
            None => kind == WakeKind::Call && self.account.is_some(),
        };
        if comes && self.wakes {
            self.later.push((self.now + self.boot, Todo::Attach));
        }
    }

    /// Ends its answered calls.
    pub fn hang_up(&mut self) {
        for place in 0..self.calls.len() {
            if self.calls[place].dialog.is_some() && self.calls[place].ended.is_none() {
                self.calls[place].ended = Some("phone");
                self.inside(place, Method::Bye, b"");
            }
        }
    }

    /// A request inside the last answered call, if that is up.
    pub fn speak(&mut self, method: Method<'_>, body: &[u8]) {
        if let Some(place) = self.calls.iter().rposition(|call| call.dialog.is_some() && call.ended.is_none()) {
            self.inside(place, method, body);
        }
    }

    /// A request inside an answered call.
    pub fn inside(&mut self, place: usize, method: Method<'_>, body: &[u8]) {
        let request = self.write_inside(place, method, body, None);
        self.transactions.request(&request, self.path(), self.now);
    }

    pub fn write_inside(&mut self, place: usize, method: Method<'_>, body: &[u8], number: Option<u32>) -> Message {
        self.minted += 1;
        let branch = format!("z9hG4bKphone{}x{}", self.number, self.minted);
        let contact = self.contact();
        let host = self.host();
        let dialog = self.calls[place].dialog.as_mut().expect("an answered call");
        let cseq = number.unwrap_or_else(|| {
            dialog.cseq += 1;
            dialog.cseq
        });
        let mut extra = vec![("Contact".to_owned(), format!("<{contact}>"))];
        if !body.is_empty() {
            extra.push(("Content-Type".to_owned(), "application/sdp".to_owned()));
        }
        let request = Request {
            method,
            uri: &dialog.target,
            transport: self.transport,
            sent_by: host.to_owned(),
            branch,
            routes: &dialog.routes,
            from: dialog.local.clone(),
            to: dialog.remote.clone(),
            call_id: &dialog.call_id,
            cseq,
            extra,
            body,
        };
        request.write()
    }

    /// Sends a message as it stands.
    pub fn send(&mut self, message: &Message) {
        let path = self.path();
        self.transactions.request(message, path, self.now);
    }

    pub fn handle_timeout(&mut self) {
        let now = self.now;
        self.transactions.handle_timeout(now);
        while let Some(place) = self.later.iter().position(|(due, _)| *due <= now) {
            match self.later.remove(place).1 {
                Todo::Attach => self.attach(),
                Todo::Refresh if self.until.is_some() => self.attach(),
                Todo::Refresh => {}
                Todo::Answer(call) => self.answer(call),
                Todo::Refuse(call, code) => self.finish(call, code),
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let later = self.later.iter().map(|(due, _)| *due).min();
        [later, self.transactions.poll_timeout()].into_iter().flatten().min()
    }

    /// Whether nothing but its next refresh is ahead.
    pub fn is_quiet(&self) -> bool {
        self.later.iter().all(|(_, todo)| matches!(todo, Todo::Refresh))
    }

    pub fn is_attached(&self) -> bool {
        self.until.is_some_and(|until| until > self.now)
    }

    pub fn handle_closed(&mut self, stream: u64) {
        self.transactions.handle_closed(stream);
        if self.stream == Some(stream) {
            self.stream = None;
            self.until = None;
        }
    }

    pub fn handle(&mut self, message: Message, path: Path) {
        if self.manner == Manner::Dead && message.status().is_none() {
            return;
        }
        if self.merges && self.is_merged(&message, path) {
            let answer = Answer { tag: Some("merged"), ..Answer::plain(482) };
            let source = self.edge;
            let response = answer.write(&message, source);
            self.transactions.out.push_back(Out::Send(path, response.bytes().clone()));
            return;
        }
        match self.transactions.handle(message, path, self.now) {
            Some(Incoming::Request(request, path)) => self.handle_request(request, path),
            Some(Incoming::Response(response, request)) => self.handle_response(&response, &request),
            None => {}
        }
    }

    fn is_merged(&self, message: &Message, path: Path) -> bool {
        message.method() == Some(Method::Invite)
            && message.to().expect("To").tag().is_none()
            && self.calls.iter().any(|call| call_id(&call.invite) == call_id(message) && call.path != path)
    }

    fn handle_response(&mut self, response: &Message, request: &Message) {
        let code = code(response);
        match request.method() {
            Some(Method::Register) => self.handle_register_answer(response, request),
            Some(method) if code >= 200 => {
                self.answers.push((method.as_str().to_owned(), code));
                if method == Method::Invite && code < 300 {
                    let id = call_id(response);
                    let place = self.calls.iter().position(|call| call_id(&call.invite) == id).expect("a call");
                    let number = request.cseq().expect("CSeq").number;
                    let ack = self.write_inside(place, Method::Ack, b"", Some(number));
                    self.transactions.request(&ack, self.path(), self.now);
                }
            }
            _ => {}
        }
    }

    fn handle_request(&mut self, request: Message, path: Path) {
        let method = request.method().expect("a request").as_str().to_owned();
        self.requests.push(method.clone());
        match method.as_str() {
            "INVITE" if request.to().expect("To").tag().is_none() => self.ring(request, path),
            "INVITE" => self.respond(&request, path, 200, true, SDP_ANSWER),
            "ACK" => {}
            "CANCEL" => self.handle_cancel(&request, path),
            "BYE" => {
                let id = call_id(&request);
                let known = self.calls.iter_mut().find(|call| call_id(&call.invite) == id && call.dialog.is_some());
                let code = if let Some(call) = known {
                    call.ended.get_or_insert("caller");
                    200
                } else {
                    481
                };
                self.respond(&request, path, code, false, b"");
            }
            "MESSAGE" | "NOTIFY" if request.to().expect("To").tag().is_none() => {
                self.respond(&request, path, self.telling, false, b"");
                self.told.push(request);
            }
            _ => self.respond(&request, path, 200, false, b""),
        }
    }

    /// The bodies of the MESSAGEs and NOTIFYs it got.
    pub fn read(&self) -> Vec<String> {
        self.told.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect()
    }

    fn ring(&mut self, invite: Message, path: Path) {
        assert_eq!(uri(&invite), self.contact(), "the Request-URI is the phone's own Contact");
        let id = field_of(&invite, "Reveille-Call").expect("Reveille-Call");
        let tag = format!("{}{}", self.name, self.calls.len());
        let place = self.calls.len();
        self.calls.push(Rung { id, invite, tag, dialog: None, path, ended: None });
        match self.manner {
            Manner::Answer(after) => {
                self.provisional(place, 180);
                self.later.push((self.now + after, Todo::Answer(place)));
            }
            Manner::Ring => self.provisional(place, 180),
            Manner::Media => {
                let (invite, path) = (self.calls[place].invite.clone(), self.calls[place].path);
                self.respond_as(place, &invite, path, 183, SDP_ANSWER);
            }
            Manner::Refuse(code, after) => {
                self.provisional(place, 180);
                self.later.push((self.now + after, Todo::Refuse(place, code)));
            }
            Manner::AnswerAtCancel => self.provisional(place, 180),
            Manner::Dead => {}
        }
    }

    fn provisional(&mut self, place: usize, code: u16) {
        let (invite, path) = (self.calls[place].invite.clone(), self.calls[place].path);
        self.respond_as(place, &invite, path, code, b"");
    }

    /// Picks up.
    pub fn answer(&mut self, place: usize) {
        if self.calls[place].ended.is_some() || self.calls[place].dialog.is_some() {
            return;
        }
        let invite = self.calls[place].invite.clone();
        let dialog = Dialog::of_callee(&invite, &self.calls[place].tag);
        self.calls[place].dialog = Some(dialog);
        let path = self.path();
        self.respond_as(place, &invite, path, 200, SDP_ANSWER);
    }

    /// Refuses, or says that the caller did.
    pub fn finish(&mut self, place: usize, code: u16) {
        if self.calls[place].ended.is_some() || self.calls[place].dialog.is_some() {
            return;
        }
        self.calls[place].ended = Some(if code == 487 { "cancelled" } else { "refused" });
        let invite = self.calls[place].invite.clone();
        let path = self.path();
        self.respond_as(place, &invite, path, code, b"");
    }

    /// Stops ringing, whatever it rang for.
    pub fn give_up(&mut self) {
        for place in 0..self.calls.len() {
            self.finish(place, 480);
        }
    }

    fn handle_cancel(&mut self, cancel: &Message, path: Path) {
        let id = call_id(cancel);
        let place = self.calls.iter().position(|call| call_id(&call.invite) == id);
        self.respond(cancel, path, if place.is_some() { 200 } else { 481 }, false, b"");
        let Some(place) = place else { return };
        if self.manner == Manner::AnswerAtCancel {
            self.answer(place);
        } else {
            self.finish(place, 487);
        }
    }

    fn respond(&mut self, request: &Message, path: Path, code: u16, contact: bool, body: &[u8]) {
        let extra = if contact { vec![("Contact", format!("<{}>", self.contact()))] } else { Vec::new() };
        let answer = Answer { code, tag: None, record_route: contact, extra, raw: Vec::new(), body };
        let response = answer.write(request, self.edge);
        self.transactions.respond(request, &response, path, self.now);
    }

    fn respond_as(&mut self, place: usize, invite: &Message, path: Path, code: u16, body: &[u8]) {
        let extra = vec![("Contact", format!("<{}>", self.contact()))];
        let tag = self.calls[place].tag.clone();
        let answer = Answer { code, tag: Some(&tag), record_route: code < 300, extra, raw: Vec::new(), body };
        let response = answer.write(invite, self.edge);
        self.transactions.respond(invite, &response, path, self.now);
    }
}

/// The value of an extension header.
pub fn field_of(message: &Message, name: &str) -> Option<String> {
    message.extension(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Record-Routes and Routes of a message, for comparing.
pub fn routes(message: &Message) -> (Vec<String>, Vec<String>) {
    (values(message, HeaderName::RecordRoute), values(message, HeaderName::Route))
}

/// The Call-ID and the branch of the top Via.
pub fn names(message: &Message) -> (String, String) {
    let via = message.top_via().expect("a Via");
    (field(message, HeaderName::CallId), format!("{} {}", via.sent_by(), via.branch().expect("a branch")))
}
