//! Push parameters of a Contact (RFC 8599 §4, §14): `pn-provider`, `pn-param`, `pn-prid`, `pn-purr`.
//!
//! They belong into the URI; some phones write them behind it as header parameters, which is tolerated. Their own room
//! because a Contact at the edge may carry them whoever sent it. What they mean is not decided here.

use super::address::Address;
use super::grammar;
use super::message::{HeaderName, Message};
use super::rewrite::{Rewrite, rewritten};
use super::uri::{self, Uri};

/// What a Contact says about pushes to its phone. The values are as written, escapes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushParams<'a> {
    /// Who carries the push: `apns`, `fcm`, …
    pub provider: &'a str,
    /// What the provider needs beside the token (team and topic, or project).
    pub param: Option<&'a str>,
    /// The device token.
    pub prid: Option<&'a str>,
    /// Names an earlier registration in a request (RFC 8599 §6.1).
    pub purr: Option<&'a str>,
}

/// Whether `pn-provider` is there at all, and what it says: `Some(None)` asks which providers there are (RFC 8599 §4.1.1).
#[must_use]
pub fn asked_provider<'a>(contact: &Address<'a>) -> Option<Option<&'a str>> {
    let in_uri = contact.uri().param("pn-provider");
    in_uri.or_else(|| contact.param("pn-provider")).map(|value| value.filter(|value| !value.is_empty()))
}

/// The `pn-purr` of a URI: which registration of its phone a dialog belongs to (RFC 8599 §6.1.2).
#[must_use]
pub fn purr<'a>(uri: &Uri<'a>) -> Option<&'a str> {
    uri.param("pn-purr").flatten()
}

/// Whether a message's Contacts say anything about pushes: nothing else has to be looked at twice.
#[must_use]
pub fn are_in(message: &Message) -> bool {
    message.values(HeaderName::Contact).any(|value| value.windows(3).any(|name| name.eq_ignore_ascii_case(b"pn-")))
}

/// The URI of a Contact without its push parameters: also those that some phones add to the RFC's own (`pn-silent`, …).
#[must_use]
pub fn stripped_uri(uri: &Uri<'_>, keep_purr: bool) -> Vec<u8> {
    let raw = uri.raw();
    let headers = uri.headers().len();
    let body = if headers > 0 { &raw[..raw.len() - headers - 1] } else { raw };
    let host_at = body.iter().position(|&byte| byte == b'@').map_or(0, |at| at + 1);
    let params_at = body[host_at..].iter().position(|&byte| byte == b';').map_or(body.len(), |at| host_at + at);
    let mut out = body[..params_at].to_vec();
    for param in body[params_at..].split(|&byte| byte == b';').skip(1) {
        let name = param.split(|&byte| byte == b'=').next().unwrap_or_default();
        if !is_push_param(&uri::unescape(name), keep_purr) {
            out.push(b';');
            out.extend_from_slice(param);
        }
    }
    out.extend_from_slice(&raw[body.len()..]);
    out
}

/// The header parameters of a Contact, each with its semicolon, as they stand: without push parameters and those `named`.
#[must_use]
pub fn header_params(contact: &Address<'_>, named: &[&str]) -> Vec<u8> {
    let raw = contact.raw();
    let uri = contact.uri().raw();
    // The URI is a part of the value: what follows it are parameters, behind the bracket if there is one.
    let end = uri.as_ptr().addr() - raw.as_ptr().addr() + uri.len();
    let tail = raw[end..].strip_prefix(b">").unwrap_or(&raw[end..]);
    let mut out = Vec::with_capacity(tail.len());
    for param in segments(tail).skip(1) {
        let name = param.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
        let unwanted = named.iter().any(|named| named.as_bytes().eq_ignore_ascii_case(name));
        if !unwanted && !is_push_param(name, false) {
            out.push(b';');
            out.extend_from_slice(param.trim_ascii());
        }
    }
    out
}

/// A message whose Contacts tell no push token any more; `None`: there is nothing to take away, or it cannot be read.
/// `pn-purr` stays: it is made to be told (RFC 8599 §6.1).
#[must_use]
pub fn without(message: &Message) -> Option<Message> {
    if !are_in(message) {
        return None;
    }
    let mut contacts = Vec::new();
    for contact in message.contacts() {
        let contact = contact.ok()?;
        let mut value = Vec::with_capacity(contact.raw().len());
        if let Some(name) = contact.display() {
            value.extend_from_slice(format!("\"{}\" ", name.replace(['"', '\\'], "")).as_bytes());
        }
        value.push(b'<');
        value.extend_from_slice(&stripped_uri(&contact.uri(), true));
        value.push(b'>');
        value.extend_from_slice(&header_params(&contact, &[]));
        contacts.push(value);
    }
    rewritten(message, &Rewrite { contacts: Some(&contacts), ..Rewrite::default() })
}

fn is_push_param(name: &[u8], keep_purr: bool) -> bool {
    name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"pn-"))
        && !(keep_purr && name.eq_ignore_ascii_case(b"pn-purr"))
}

/// The parts between semicolons; one in a quoted string parts nothing.
fn segments(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            match byte {
                b'"' => at = grammar::quoted(&text[at..]).map_or(text.len(), |(_, after)| text.len() - after.len()),
                b';' => {
                    rest = Some(&text[at + 1..]);
                    return Some(&text[..at]);
                }
                _ => at += 1,
            }
        }
        Some(text)
    })
}

/// Reads them; `None` where no provider is named.
#[must_use]
pub fn push_params<'a>(contact: &Address<'a>) -> Option<PushParams<'a>> {
    let uri = contact.uri();
    let read = |name: &str| {
        let in_uri = uri.param(name).flatten();
        in_uri.or_else(|| contact.param(name).flatten()).filter(|value| !value.is_empty())
    };
    let provider = read("pn-provider")?;
    Some(PushParams { provider, param: read("pn-param"), prid: read("pn-prid"), purr: read("pn-purr") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_from_the_uri() {
        let text =
            "<sip:alice@192.0.2.1;pn-provider=apns;pn-param=ABC.com.example.app.voip;pn-prid=00fc13%3aX>;expires=9";
        let expected = PushParams {
            provider: "apns",
            param: Some("ABC.com.example.app.voip"),
            prid: Some("00fc13%3aX"),
            purr: None,
        };
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn header_parameters_are_tolerated_but_the_uri_wins() {
        let text = "<sip:alice@192.0.2.1;pn-provider=fcm>;pn-provider=apns;pn-prid=\"token\";pn-purr=p";
        let expected = PushParams { provider: "fcm", param: None, prid: Some("token"), purr: Some("p") };
        assert_eq!(read(text), Some(expected));
    }

    #[test]
    fn without_a_provider_there_are_none() {
        for text in ["<sip:a@b>", "<sip:a@b;pn-prid=token>", "<sip:a@b;pn-provider>", "<tel:+15550100>"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn asking_for_providers_differs_from_not_speaking_of_them() {
        let asked = |text: &str| {
            let contact = Address::parse(text.as_bytes()).expect("a Contact");
            asked_provider(&contact).map(|provider| provider.map(str::to_owned))
        };
        assert_eq!(asked("<sip:a@b;pn-provider>"), Some(None));
        assert_eq!(asked("<sip:a@b>;pn-provider=fcm"), Some(Some("fcm".to_owned())));
        assert_eq!(asked("<sip:a@b>"), None);
    }

    #[test]
    fn stripping_takes_push_parameters_and_leaves_everything_else_as_it_stands() {
        let text = "\"A; pn-prid=x\" <sip:a;pn-x=1@b:5070;transport=tcp;PN-Prid=secret;ob;pn%2dparam=T?X=pn-prid>;q=0.5;\
                    pn-prid=secret; +sip.instance=\"<urn:uuid:1;pn-prid=2>\";reg-id=1;expires=60";
        let contact = Address::parse(text.as_bytes()).expect("a Contact");
        let shown = |bytes: Vec<u8>| String::from_utf8(bytes).expect("ASCII");
        assert_eq!(shown(stripped_uri(&contact.uri(), false)), "sip:a;pn-x=1@b:5070;transport=tcp;ob?X=pn-prid");
        assert_eq!(
            shown(header_params(&contact, &["REG-ID"])),
            ";q=0.5;+sip.instance=\"<urn:uuid:1;pn-prid=2>\";expires=60"
        );
        let bare = Address::parse(b"sip:a@b;pn-prid=1;expires=5").expect("a Contact");
        assert_eq!(shown(stripped_uri(&bare.uri(), false)), "sip:a@b");
        assert_eq!(shown(header_params(&bare, &[])), ";expires=5");
    }

    #[test]
    fn a_message_loses_its_token_and_keeps_its_purr() {
        let text = "INVITE sip:bob@pbx SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
                    m: \"Al\" <sip:a@b;pn-provider=apns;pn-prid=secret;pn-purr=known>\r\nl: 0\r\n\r\n";
        let message = Message::parse_datagram(text.as_bytes().to_vec()).expect("a request");
        let bare = without(&message).expect("something to take away");
        assert_eq!(bare.header(HeaderName::Contact), Some(&b"\"Al\" <sip:a@b;pn-purr=known>"[..]));
        assert_eq!(purr(&bare.contacts().next().expect("one").expect("a Contact").uri()), Some("known"));
        let text = text.replace("pn-", "xx-");
        assert!(without(&Message::parse_datagram(text.into_bytes()).expect("a request")).is_none());
    }

    fn read(text: &str) -> Option<PushParams<'_>> {
        push_params(&Address::parse(text.as_bytes()).expect("a Contact"))
    }
}
