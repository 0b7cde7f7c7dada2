//! What a message must have before anyone looks at what it means, and the 400 for one that lacks it.
//!
//! The answer is built from the raw lines, because what is malformed has no parsed form. Refuses to answer responses, ACKs
//! and what does not say whom to answer.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use crate::sip::Message;
use crate::sip::message::MESSAGE_MAX;

/// Whether the fields every message must have (RFC 3261 §8.1.1) are there and well-formed, and CSeq names the method.
pub(super) fn is_wellformed(message: &Message) -> bool {
    let cseq_fits = |cseq: crate::sip::CSeq<'_>| message.method().is_none_or(|method| cseq.method == method);
    message.top_via().is_ok()
        && message.from().is_ok()
        && message.to().is_ok()
        && message.call_id().is_ok()
        && message.cseq().is_ok_and(cseq_fits)
}

/// The 400 for a malformed request, if its header tells enough to send one. `raw` may be cut anywhere.
pub(super) fn bad_request(raw: &[u8]) -> Option<Vec<u8>> {
    let raw = raw.get(..MESSAGE_MAX.min(raw.len()))?;
    let raw = &raw[raw.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?..];
    let mut lines = unfolded(raw).into_iter();
    let start = lines.next()?;
    if start.starts_with(b"SIP/") || start.starts_with(b"ACK ") || !start.contains(&b' ') {
        return None;
    }
    let fields: Vec<(Field, Vec<u8>)> = lines.filter_map(|line| Some((Field::of(&line)?, line))).collect();
    let only = |wanted: Field| {
        let mut matching = fields.iter().filter(|(field, _)| *field == wanted).map(|(_, line)| line);
        matching.next().filter(|_| matching.next().is_none())
    };
    let (from, to) = (only(Field::From)?, only(Field::To)?);
    let (call_id, cseq) = (only(Field::CallId)?, only(Field::CSeq)?);

    let mut reply = b"SIP/2.0 400 Bad Request\r\n".to_vec();
    let vias = fields.iter().filter(|(field, _)| *field == Field::Via).map(|(_, line)| line);
    let before_vias = reply.len();
    vias.for_each(|via| add_line(&mut reply, via));
    if reply.len() == before_vias {
        return None;
    }
    add_line(&mut reply, from);
    add_line(&mut reply, &with_tag(to, call_id));
    add_line(&mut reply, call_id);
    add_line(&mut reply, cseq);
    reply.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    Some(reply)
}

/// The fields a response copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Via,
    From,
    To,
    CallId,
    CSeq,
}

impl Field {
    fn of(line: &[u8]) -> Option<Self> {
        let name = line[..line.iter().position(|byte| *byte == b':')?].trim_ascii_end().to_ascii_lowercase();
        match &name[..] {
            b"via" | b"v" => Some(Self::Via),
            b"from" | b"f" => Some(Self::From),
            b"to" | b"t" => Some(Self::To),
            b"call-id" | b"i" => Some(Self::CallId),
            b"cseq" => Some(Self::CSeq),
            _ => None,
        }
    }
}

/// The lines of the header, folded ones joined, without control characters.
fn unfolded(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in raw.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let clean = line.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte });
        match (line.first(), lines.last_mut()) {
            (Some(b' ' | b'\t'), Some(last)) => last.extend(clean),
            _ => lines.push(clean.collect()),
        }
    }
    lines
}

/// RFC 3261 §8.2.6.2: a response has a To tag, and §8.2.7: the same request gets the same one.
fn with_tag(to: &[u8], call_id: &[u8]) -> Vec<u8> {
    static KEY: OnceLock<ahash::RandomState> = OnceLock::new();
    let mut line = to.to_vec();
    if !to.to_ascii_lowercase().windows(5).any(|window| window == b";tag=") {
        let tag = KEY.get_or_init(ahash::RandomState::new).hash_one((to, call_id));
        line.extend_from_slice(format!(";tag={tag:016x}").as_bytes());
    }
    line
}

fn add_line(reply: &mut Vec<u8>, line: &[u8]) {
    reply.extend_from_slice(line);
    reply.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: &str = "REGISTER sip:edge.test SIP/2.0\r\nv: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKa\r\n\
        f: <sip:a@edge.test>;tag=1\r\nTo:\r\n <sip:a@edge.test>\r\ni: one@192.0.2.1\r\nCSeq: banana REGISTER\r\n\
        Content-Length: lies\r\n\r\nbody: \r\nVia: none\r\n\r\n";

    #[test]
    fn a_request_that_says_whom_to_answer_gets_its_400() {
        let reply = String::from_utf8(bad_request(BROKEN.as_bytes()).expect("an answer")).expect("text");
        let (head, tag) = reply.split_once(";tag=1\r\n").expect("From as it came");
        assert_eq!(
            head,
            "SIP/2.0 400 Bad Request\r\nv: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKa\r\nf: <sip:a@edge.test>"
        );
        assert!(tag.starts_with("To: <sip:a@edge.test>;tag="), "{tag}");
        assert!(tag.ends_with("\r\ni: one@192.0.2.1\r\nCSeq: banana REGISTER\r\nContent-Length: 0\r\n\r\n"), "{tag}");
        assert_eq!(bad_request(BROKEN.as_bytes()).map(|again| again == reply.as_bytes()), Some(true));
    }

    #[test]
    fn what_must_not_or_cannot_be_answered_is_not() {
        assert_eq!(bad_request(BROKEN.replace("REGISTER sip", "ACK sip").as_bytes()), None);
        assert_eq!(bad_request(BROKEN.replace("REGISTER sip:edge.test SIP/2.0", "SIP/2.0 200 OK").as_bytes()), None);
        assert_eq!(bad_request(BROKEN.replace("v: SIP", "x: SIP").as_bytes()), None);
        assert_eq!(bad_request(BROKEN.replace("i: one", "f: two").as_bytes()), None);
        assert_eq!(bad_request(b"\r\n\r\n"), None);
        assert_eq!(bad_request(b"noise"), None);
    }

    #[test]
    fn a_header_cut_anywhere_never_panics_and_injects_nothing() {
        for end in 0..BROKEN.len() {
            if let Some(reply) = bad_request(&BROKEN.as_bytes()[..end]) {
                assert!(reply.ends_with(b"Content-Length: 0\r\n\r\n"));
            }
        }
        let bare_cr = BROKEN.replace("one@192.0.2.1", "one\rEvil: yes");
        let reply = bad_request(bare_cr.as_bytes()).expect("an answer");
        assert!(!reply.windows(6).any(|window| window == b"\rEvil:"));
    }
}
