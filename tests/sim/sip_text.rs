//! Writing SIP as peers do: requests, answers with bodies, and the dialogs they belong to.

use std::net::SocketAddr;

use bytes::Bytes;
use reveille::sip::encode::Encoder;
use reveille::sip::proxy::{Reply, write_reply};
use reveille::sip::{HeaderName, Message, Method, StatusCode, Transport};

/// A request to write.
pub struct Request<'a> {
    pub method: Method<'a>,
    pub uri: &'a str,
    pub transport: Transport,
    pub sent_by: String,
    pub branch: String,
    pub routes: &'a [String],
    pub from: String,
    pub to: String,
    pub call_id: &'a str,
    pub cseq: u32,
    /// Name and value of everything else.
    pub extra: Vec<(String, String)>,
    pub body: &'a [u8],
}

impl Request<'_> {
    pub fn write(&self) -> Message {
        let mut out = Vec::new();
        let mut message = Encoder::request(&mut out, self.method, self.uri.as_bytes());
        let rport = if self.transport == Transport::Udp { ";rport" } else { "" };
        let via = format!("SIP/2.0/{} {}{rport};branch={}", self.transport.as_via(), self.sent_by, self.branch);
        message.header(HeaderName::Via, via);
        for route in self.routes {
            message.header(HeaderName::Route, route);
        }
        message.header(HeaderName::MaxForwards, 70);
        message.header(HeaderName::From, &self.from);
        message.header(HeaderName::To, &self.to);
        message.header(HeaderName::CallId, self.call_id);
        message.header(HeaderName::CSeq, format_args!("{} {}", self.cseq, self.method.as_str()));
        for (name, value) in &self.extra {
            message.extension(name, value);
        }
        message.finish(self.body);
        Message::parse_datagram(out).expect("a request of our own")
    }
}

/// An answer to write.
pub struct Answer<'a> {
    pub code: u16,
    pub tag: Option<&'a str>,
    pub record_route: bool,
    pub extra: Vec<(&'a str, String)>,
    /// Further fields that need not be text.
    pub raw: Vec<(&'a str, Vec<u8>)>,
    pub body: &'a [u8],
}

impl Answer<'_> {
    pub fn plain(code: u16) -> Self {
        Self { code, tag: None, record_route: false, extra: Vec::new(), raw: Vec::new(), body: b"" }
    }

    pub fn write(&self, request: &Message, source: SocketAddr) -> Message {
        let code = StatusCode::new(self.code).expect("a status code");
        let mut out = Vec::new();
        let reply =
            Reply { code, to_tag: self.tag, source: Some(source), record_route: self.record_route, extra: &self.extra };
        write_reply(request, &reply, &mut out).expect("a request that can be answered");
        let end = out.len() - "Content-Length: 0\r\n\r\n".len();
        let fields = self.raw.iter().map(|(name, value)| [name.as_bytes(), b": ", value, b"\r\n"].concat());
        out.splice(end..end, fields.collect::<Vec<_>>().concat());
        if !self.body.is_empty() {
            let end = out.len() - "Content-Length: 0\r\n\r\n".len();
            out.truncate(end);
            let head = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n", self.body.len());
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(self.body);
        }
        Message::parse_datagram(out).expect("an answer of our own")
    }
}

/// One side of a dialog.
#[derive(Clone, Debug)]
pub struct Dialog {
    pub call_id: String,
    /// Our From value, tag included.
    pub local: String,
    /// Our To value, tag included.
    pub remote: String,
    /// The peer's Contact.
    pub target: String,
    pub routes: Vec<String>,
    pub cseq: u32,
}

impl Dialog {
    /// The caller's side, from its INVITE and the answer.
    pub fn of_caller(invite: &Message, response: &Message) -> Self {
        let mut routes = values(response, HeaderName::RecordRoute);
        routes.reverse();
        let cseq = invite.cseq().expect("our CSeq").number;
        Self {
            call_id: call_id(invite),
            local: field(invite, HeaderName::From),
            remote: field(response, HeaderName::To),
            target: contact(response).unwrap_or_default(),
            routes,
            cseq,
        }
    }

    /// The callee's side, from the INVITE and the tag of our answers.
    pub fn of_callee(invite: &Message, tag: &str) -> Self {
        Self {
            call_id: call_id(invite),
            local: format!("{};tag={tag}", field(invite, HeaderName::To)),
            remote: field(invite, HeaderName::From),
            target: contact(invite).expect("an INVITE has a Contact"),
            routes: values(invite, HeaderName::RecordRoute),
            cseq: 0,
        }
    }
}

pub fn field(message: &Message, name: HeaderName) -> String {
    String::from_utf8_lossy(message.header(name).unwrap_or_default()).into_owned()
}

pub fn values(message: &Message, name: HeaderName) -> Vec<String> {
    message.list(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

pub fn call_id(message: &Message) -> String {
    String::from_utf8_lossy(message.call_id().expect("a Call-ID")).into_owned()
}

/// The URI of the first Contact.
pub fn contact(message: &Message) -> Option<String> {
    let contact = message.contacts().next()?.expect("a Contact");
    Some(String::from_utf8_lossy(contact.uri().raw()).into_owned())
}

pub fn uri(message: &Message) -> String {
    String::from_utf8_lossy(message.request_uri().unwrap_or_default()).into_owned()
}

pub fn code(message: &Message) -> u16 {
    message.status().map_or(0, StatusCode::code)
}

pub fn bytes(message: &Message) -> Bytes {
    message.bytes().clone()
}

/// The first line, for the transcript.
pub fn first_line(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == b'\r').unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A message in a few words, for the transcript: its first line, whose it is, and which transaction's.
pub fn gist(bytes: &[u8]) -> String {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]);
    let value = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim();
    let branch = value("Via:").rsplit_once("branch=").map_or("?", |(_, branch)| branch);
    let branch = &branch[branch.len().saturating_sub(8)..];
    format!("{} [{} {} {branch}]", first_line(bytes), value("Call-ID:"), value("CSeq:"))
}
