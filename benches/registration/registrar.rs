//! A registrar that challenges once and grants what is asked, made from the bytes of the engine's own requests.

use std::fmt::Write as _;
use std::net::SocketAddr;

use reveille::engine::ids::Capability;
use reveille::sip::{HeaderName, Message, Method};

/// One PBX with one nonce that never grows stale.
pub(crate) struct Registrar {
    /// The longest expiry it grants, in seconds.
    pub(crate) most: u32,
    /// The user part of the Contact it bound last: where its calls would go.
    pub(crate) bound: Option<Capability>,
}

impl Registrar {
    pub(crate) fn address() -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 7], 5060))
    }

    /// The answer to a REGISTER: 401 without credentials, else 200.
    pub(crate) fn answer(&mut self, request: &[u8]) -> Message {
        let request = Message::parse_datagram(request.to_vec()).expect("the engine writes SIP");
        assert_eq!(request.method(), Some(Method::Register), "nothing else is sent to a registrar");
        let mut answer = String::with_capacity(768);
        let known = request.header(HeaderName::Authorization).is_some();
        answer.push_str(if known { "SIP/2.0 200 OK\r\n" } else { "SIP/2.0 401 Unauthorized\r\n" });
        for name in [HeaderName::Via, HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
            copy(&mut answer, name, &request, "");
        }
        copy(&mut answer, HeaderName::To, &request, ";tag=b27e1a1d33761e85846fc98f5f3a7e58.0e6a");
        let asked = request.expires().expect("a number").expect("the engine names an expiry");
        if !known {
            answer.push_str(concat!(
                "WWW-Authenticate: Digest realm=\"pbx.example.net\", ",
                "nonce=\"ZzkxpWc5MHlGZ0dKk0tVQ3Jx8PzN2l7A\", algorithm=MD5, qop=\"auth\"\r\n"
            ));
        } else if asked > 0 {
            copy(&mut answer, HeaderName::Contact, &request, &format!(";expires={}", asked.min(self.most)));
            self.bound = contact_user(&request);
        }
        answer.push_str("Server: Example PBX 20.5\r\nContent-Length: 0\r\n\r\n");
        Message::parse_datagram(answer.into_bytes()).expect("well-formed")
    }
}

fn copy(answer: &mut String, name: HeaderName, request: &Message, suffix: &str) {
    let value = request.header(name).expect("each REGISTER has it");
    let value = std::str::from_utf8(value).expect("the engine writes ASCII");
    write!(answer, "{}: {value}{suffix}\r\n", name.as_str()).expect("a String never refuses");
}

fn contact_user(request: &Message) -> Option<Capability> {
    Capability::parse(request.contacts().next()?.ok()?.uri().user()?)
}
