//! A caller made of a UDP socket: it writes messages as it likes, which no phone would, and takes note of every answer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::pbx::Pbx;
use crate::process::PATIENCE;
use crate::world::PBX_DOMAIN;

/// After how long a request that got no answer is sent again (timer T1).
const AGAIN: Duration = Duration::from_millis(500);

/// What is offered in every INVITE with nothing else in its body; no media ever come.
const OFFER: &str =
    "v=0\r\no=bob 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 8 0\r\n";

/// What is wrong with an INVITE, or unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    Nothing,
    /// A body of so many bytes.
    Body(usize),
    /// So many header fields more than there have to be.
    Fields(usize),
    /// One header field of so many bytes.
    Field(usize),
    /// A caller's name of so many bytes.
    Name(usize),
    /// An offer with so many attributes that nobody knows.
    Attributes(usize),
    /// A comma in the caller's name, which stands in no quotes.
    BareComma,
    /// A header field with bytes that are no text.
    NoText,
    /// A URI without its end, in a field that a proxy has no reason to read.
    OpenUri,
}

/// A caller at the PBX.
pub(crate) struct Line {
    socket: UdpSocket,
    pbx: (Ipv4Addr, u16),
    sent: u32,
    /// Every status heard, by Call-ID.
    pub(crate) heard: BTreeMap<String, Vec<u16>>,
}

impl Line {
    #[track_caller]
    pub(crate) fn open(pbx: &dyn Pbx) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        Self { socket, pbx: (Ipv4Addr::LOCALHOST, pbx.port()), sent: 0, heard: BTreeMap::new() }
    }

    /// Sends an INVITE to a user and gives its Call-ID.
    #[track_caller]
    pub(crate) fn invite(&mut self, user: &str, oddity: Oddity) -> String {
        self.sent += 1;
        let id = format!("{}-{}", self.port(), self.sent);
        self.heard.insert(id.clone(), Vec::new());
        self.send(&self.invitation(user, &id, oddity));
        id
    }

    /// Calls a user as anyone would, waits until it rings there, and gives up. How long it took to ring, and what was heard
    /// besides, the call's own end left out.
    #[track_caller]
    pub(crate) fn ring(&mut self, user: &str) -> (Duration, Vec<u16>) {
        let began = Instant::now();
        let id = self.invite(user, Oddity::Nothing);
        let invite = self.invitation(user, &id, Oddity::Nothing);
        self.wait(&id, &invite, |status| status > 100);
        let took = began.elapsed();
        let mut heard = self.heard[&id].clone();
        if heard.iter().all(|status| *status < 200) {
            let cancel = self.request("CANCEL", user, &id, "");
            self.send(&cancel);
            self.wait(&id, &cancel, |status| status >= 200);
        }
        heard.retain(|status| *status != 100);
        (took, heard)
    }

    /// Asks for the end of a call, without waiting for it.
    pub(crate) fn give_up(&self, id: &str, user: &str) {
        if self.heard[id].iter().all(|status| *status < 200) {
            self.send(&self.request("CANCEL", user, id, ""));
        }
    }

    /// Waits for an answer to an INVITE beyond 100, and gives it.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, id: &str) -> u16 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.heard[id].iter().copied().find(|status| *status > 100) {
                return status;
            }
            assert!(Instant::now() < deadline, "no answer to {id}: {:?}", self.heard[id]);
            self.take(AGAIN);
        }
    }

    /// Takes what comes within a span.
    pub(crate) fn listen(&mut self, span: Duration) {
        let deadline = Instant::now() + span;
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.take(left);
        }
    }

    /// Sends `request` again until a status of the call is `enough`.
    #[track_caller]
    fn wait(&mut self, id: &str, request: &[u8], enough: impl Fn(u16) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut again = Instant::now() + AGAIN;
        while !self.heard[id].iter().any(|status| enough(*status)) {
            assert!(Instant::now() < deadline, "no answer to {id}: {:?}", self.heard[id]);
            if Instant::now() >= again {
                self.send(request);
                again = Instant::now() + AGAIN;
            }
            self.take(AGAIN);
        }
    }

    /// Takes one message, if one comes in time, and acknowledges a refusal.
    fn take(&mut self, span: Duration) {
        self.socket.set_read_timeout(Some(span)).expect("not zero");
        let mut buffer = vec![0; 65_536];
        let Ok(length) = self.socket.recv(&mut buffer) else { return };
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let status = message.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let (Some(status), Some(id), Some(to)) = (status, field("Call-ID:"), field("To:")) else { return };
        if !field("CSeq:").is_some_and(|cseq| cseq.ends_with("INVITE")) {
            return;
        }
        if status >= 300 {
            let ack = self.request("ACK", "", id, to);
            self.send(&ack);
        }
        if let Some(heard) = self.heard.get_mut(id) {
            heard.push(status);
        }
    }

    fn send(&self, message: &[u8]) {
        self.socket.send_to(message, self.pbx).expect("loopback takes it");
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().expect("it is bound").port()
    }

    fn invitation(&self, user: &str, id: &str, oddity: Oddity) -> Vec<u8> {
        let body = match oddity {
            Oddity::Body(length) => "x".repeat(length),
            Oddity::Attributes(count) => OFFER.to_owned() + &"a=x-odd:nobody knows what this means\r\n".repeat(count),
            _ => OFFER.to_owned(),
        };
        let from = match oddity {
            Oddity::BareComma => "Smith, Carol <sip:bob@".to_owned(),
            Oddity::Name(length) => format!("\"{}\" <sip:bob@", "x".repeat(length)),
            _ => "\"Bob\" <sip:bob@".to_owned(),
        };
        let mut message = self.head("INVITE", user, id, &format!("<sip:{user}@{PBX_DOMAIN}>"), &from).into_bytes();
        message.extend_from_slice(format!("Contact: <sip:bob@127.0.0.1:{}>\r\n", self.port()).as_bytes());
        match oddity {
            Oddity::Fields(count) => {
                (0..count).for_each(|number| message.extend_from_slice(format!("X-Field: {number}\r\n").as_bytes()));
            }
            Oddity::Field(length) => {
                message.extend_from_slice(format!("X-Field: {}\r\n", "x".repeat(length)).as_bytes());
            }
            Oddity::NoText => message.extend_from_slice(b"X-Field: \x01\xff \xc3\x28\r\n"),
            Oddity::OpenUri => message.extend_from_slice(b"Referred-By: <sip:carol@\r\n"),
            Oddity::Nothing | Oddity::Body(_) | Oddity::BareComma | Oddity::Name(_) | Oddity::Attributes(_) => {}
        }
        let end = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        message.extend_from_slice(end.as_bytes());
        message
    }

    /// A request of the INVITE's own transaction; empty `to`: as it stood in the INVITE.
    fn request(&self, method: &str, user: &str, id: &str, to: &str) -> Vec<u8> {
        let own = format!("<sip:{user}@{PBX_DOMAIN}>");
        let to = if to.is_empty() { &own } else { to };
        let user = to.split_once("sip:").and_then(|(_, rest)| rest.split('@').next()).unwrap_or(user);
        (self.head(method, user, id, to, "\"Bob\" <sip:bob@") + "Content-Length: 0\r\n\r\n").into_bytes()
    }

    fn head(&self, method: &str, user: &str, id: &str, to: &str, from: &str) -> String {
        format!(
            "{method} sip:{user}@{PBX_DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{};branch=z9hG4bK{id};rport\r\n\
             Max-Forwards: 70\r\nFrom: {from}{PBX_DOMAIN}>;tag=caller\r\nTo: {to}\r\nCall-ID: {id}\r\nCSeq: 1 {method}\r\n",
            self.port()
        )
    }
}
