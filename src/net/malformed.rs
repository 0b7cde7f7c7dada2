//! What a message must have before anyone looks at what it means, and the answer to one that lacks it.
//!
//! Its own room because datagrams and streams share it. A stream answers by itself; whether a datagram is worth an answer
//! depends on what the engine holds, which gets what is left of it. Refuses to answer responses, ACKs and what does not say
//! where the answer goes (`Message::salvage` decides that).

use std::net::SocketAddr;
use std::sync::OnceLock;

use crate::engine::input::Malformed;
use crate::sip::proxy::{Reply, write_reply};
use crate::sip::{CSeq, HeaderName, Message, StatusCode};

/// Whether the fields every message must have (RFC 3261 §8.1.1) are there and well-formed, and CSeq names the method.
pub(super) fn is_wellformed(message: &Message) -> bool {
    let cseq_fits = |cseq: CSeq<'_>| message.method().is_none_or(|method| cseq.method == method);
    message.top_via().is_ok()
        && message.from().is_ok()
        && message.to().is_ok()
        && message.call_id().is_ok()
        && message.cseq().is_ok_and(cseq_fits)
}

/// What is left of a malformed datagram, if it is a request with all that an answer copies.
pub(super) fn remains(raw: &[u8], code: StatusCode) -> Option<Malformed> {
    let request = Message::salvage(raw)?;
    let copied = [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
    let is_answerable = copied.into_iter().all(|name| request.header(name).is_some());
    is_answerable.then_some(Malformed { request, code, paid: raw.len() })
}

/// What stands for the response of a peer that cannot be sent a request for its size; `None` where nothing waits for one.
pub(super) fn unsent(request: &[u8]) -> Option<Message> {
    let request = Message::salvage(request)?;
    let reply = Reply {
        code: StatusCode::MESSAGE_TOO_LARGE,
        to_tag: Some("unsent"),
        source: None,
        record_route: false,
        extra: &[],
    };
    let mut bytes = Vec::new();
    write_reply(&request, &reply, &mut bytes).ok()?;
    Message::parse_datagram(bytes).ok()
}

/// The answer to a malformed request, if its header tells enough to send one. `raw` may be cut anywhere.
pub(super) fn refusal(raw: &[u8], code: StatusCode, source: SocketAddr) -> Option<Vec<u8>> {
    static KEY: OnceLock<ahash::RandomState> = OnceLock::new();
    let request = Message::salvage(raw)?;
    // RFC 3261 §8.2.7: without state, the same request has to get the same tag.
    let tag = format!("{:016x}", KEY.get_or_init(ahash::RandomState::new).hash_one(request.bytes()));
    let reply = Reply { code, to_tag: Some(&tag), source: Some(source), record_route: false, extra: &[] };
    let mut bytes = Vec::new();
    write_reply(&request, &reply, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: &str = "REGISTER sip:edge.test SIP/2.0\r\nv: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKa\r\n\
        f: <sip:a@edge.test>;tag=1\r\nTo:\r\n <sip:a@edge.test>\r\ni: one@192.0.2.1\r\nCSeq: 1 REGISTER\r\n\
        no colon here\r\nContent-Length: 0\r\n\r\n";

    fn refused(raw: &[u8]) -> Option<Vec<u8>> {
        refusal(raw, StatusCode::BAD_REQUEST, "192.0.2.1:5060".parse().expect("a literal"))
    }

    #[test]
    fn a_request_that_says_whom_to_answer_gets_one_answer() {
        let reply = refused(BROKEN.as_bytes()).expect("an answer");
        let parsed = Message::parse_frame(reply.clone()).expect("well-formed");
        assert_eq!(parsed.status(), Some(StatusCode::BAD_REQUEST));
        assert!(parsed.to().expect("To").tag().is_some());
        assert!(is_wellformed(&parsed));
        assert_eq!(refused(BROKEN.as_bytes()), Some(reply), "the same request, the same tag");
    }

    #[test]
    fn what_must_not_or_cannot_be_answered_is_not() {
        assert_eq!(refused(BROKEN.replace("REGISTER sip", "ACK sip").as_bytes()), None);
        assert_eq!(refused(BROKEN.replace("v: SIP", "x: SIP").as_bytes()), None);
        assert_eq!(refused(b"noise"), None);
        for end in 0..BROKEN.len() {
            let _ = refused(&BROKEN.as_bytes()[..end]);
        }
    }

    #[test]
    fn a_message_without_its_fields_is_malformed() {
        let whole = BROKEN.replace("no colon here\r\n", "");
        let is_whole = |text: &str| Message::parse_frame(text.into()).is_ok_and(|message| is_wellformed(&message));
        assert!(is_whole(&whole));
        assert!(!is_whole(&whole.replace("1 REGISTER", "1 INVITE")));
        for field in ["v:", "f:", "To:", "i:", "CSeq:"] {
            assert!(!is_whole(&whole.replace(field, "X-Other:")), "{field}");
        }
    }
}
