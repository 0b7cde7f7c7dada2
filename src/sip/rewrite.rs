//! A copy of a message with other Contacts, another Request-URI or without its first Routes.
//!
//! Its own room because `proxy` changes only what every proxy must, and this changes what an edge proxy may: what stands
//! for a phone towards its registrar. It refuses to know why.

use super::encode::Encoder;
use super::message::{HeaderName, Message};

/// What is to be different.
#[derive(Clone, Copy, Default)]
pub struct Rewrite<'a> {
    /// Another Request-URI.
    pub request_uri: Option<&'a [u8]>,
    /// These Contacts instead of all others, whatever form their name had.
    pub contacts: Option<&'a [Vec<u8>]>,
    /// Without so many leading Route values.
    pub routes_dropped: usize,
    /// Header fields to add at the end.
    pub extra: &'a [(&'a str, String)],
}

/// Writes the copy. `None` if it is no message any more: what was added pushed it over a limit.
#[must_use]
pub fn rewritten(message: &Message, change: &Rewrite<'_>) -> Option<Message> {
    let mut out = Vec::with_capacity(message.bytes().len() + 256);
    let mut encoder = match (message.method(), message.status()) {
        (Some(method), _) => {
            let uri = change.request_uri.or_else(|| message.request_uri()).unwrap_or_default();
            Encoder::request(&mut out, method, uri)
        }
        (None, status) => Encoder::response(&mut out, status?, message.reason_phrase()),
    };
    let mut contacts = change.contacts;
    let mut to_drop = change.routes_dropped;
    for header in message.headers() {
        match header.name {
            HeaderName::ContentLength => {}
            HeaderName::Contact if change.contacts.is_some() => {
                for contact in contacts.take().unwrap_or_default() {
                    encoder.raw(HeaderName::Contact, contact);
                }
            }
            HeaderName::Route if to_drop > 0 => {
                let values: Vec<&[u8]> = super::grammar::Elements::of_addresses(header.value).collect();
                let dropped = to_drop.min(values.len());
                to_drop -= dropped;
                for value in &values[dropped..] {
                    encoder.raw(HeaderName::Route, value);
                }
            }
            _ => drop(encoder.copy(header)),
        }
    }
    for (name, value) in change.extra {
        encoder.extension(name, value);
    }
    encoder.finish(message.body());
    Message::parse_datagram(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_changes() {
        let text = "REGISTER sip:pbx SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nroute: <sip:us;lr>, <sip:b>\r\n\
                    m: <sip:a@b>, <sip:c@d>\r\nX-Odd:  kept \r\nl: 2\r\n\r\nhi";
        let message = Message::parse_datagram(text.as_bytes().to_vec()).expect("a request");
        let contacts = [b"<sip:e@f>".to_vec()];
        let change = Rewrite {
            contacts: Some(&contacts),
            routes_dropped: 1,
            extra: &[("Path", "<sip:p;lr>".to_owned())],
            ..Rewrite::default()
        };
        let copy = rewritten(&message, &change).expect("a message");
        let expected = "REGISTER sip:pbx SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nRoute: <sip:b>\r\n\
                        Contact: <sip:e@f>\r\nX-Odd: kept\r\nPath: <sip:p;lr>\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(String::from_utf8_lossy(copy.bytes()), expected);
    }

    #[test]
    fn a_response_keeps_its_status_and_may_lose_all_contacts() {
        let text = "SIP/2.0 200 Fine\r\nVia: SIP/2.0/UDP a\r\nContact: <sip:a@b>\r\nm: <sip:c@d>\r\n\r\n";
        let message = Message::parse_datagram(text.as_bytes().to_vec()).expect("a response");
        let copy = rewritten(&message, &Rewrite { contacts: Some(&[]), ..Rewrite::default() }).expect("a message");
        assert_eq!((copy.status().map(|it| it.code()), copy.reason_phrase()), (Some(200), &b"Fine"[..]));
        assert_eq!(copy.contacts().count(), 0);
    }
}
