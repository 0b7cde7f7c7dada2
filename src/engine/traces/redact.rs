//! What of a SIP message may be written down: an allow-list, header by header. Everything that is not on it is told by its
//! length alone.
//!
//! Never: credentials and challenges, bodies, whatever we minted (capabilities, instance ids, route tokens, branches). Names,
//! numbers, hosts and addresses only where the consent says so.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::engine::ids::{Capability, InstanceId};
use crate::sip::address::Address;
use crate::sip::uri::{Host, Uri};
use crate::sip::via::Via;
use crate::sip::{HeaderName, Message, Method};

/// What stands for something that is left out.
const HIDDEN: &str = "[hidden]";
/// What stands for a header that SIP does not know.
const OTHER_HEADER: &str = "[other header]";
/// More digits in a row than any word of the protocol has: somebody's number.
const DIGITS_MAX: usize = 4;
/// Longest number that the protocol has: 2^32 - 1.
const NUMBER_DIGITS_MAX: usize = 10;
/// Parameters of URIs, and of headers with addresses, that name nobody.
const PARAMETERS: [&str; 7] = ["transport", "lr", "ob", "expires", "q", "user", "methods"];
/// Schemes that may be told, beside those of SIP.
const SCHEMES: [&str; 3] = ["tel", "urn", "ws"];
/// Longest value of a header that is written as it is.
const PLAIN_BYTES_MAX: usize = 256;

/// The message, redacted, cut off at `longest` bytes. `identities`: names, numbers and hosts may be written.
pub(super) fn redacted(message: &Message, identities: bool, longest: usize) -> Zeroizing<String> {
    // One allocation: a text that grows leaves copies.
    let mut out = Zeroizing::new(String::with_capacity(longest + PLAIN_BYTES_MAX));
    start_line(message, identities, &mut out);
    for header in message.headers() {
        if out.len() >= longest {
            break;
        }
        let name = match header.name {
            HeaderName::Other if identities => printable(header.raw_name),
            // Whoever makes a header up may put anybody into its name.
            HeaderName::Other => OTHER_HEADER,
            known => known.as_str(),
        };
        out.push_str(name);
        out.push_str(": ");
        value(header.name, header.value, identities, &mut out);
        out.push('\n');
    }
    if !message.body().is_empty() {
        let _ = writeln!(out, "[body, {} bytes]", message.body().len());
    }
    cut(&mut out, longest);
    // What is kept takes no more room than it is counted for.
    Zeroizing::new(String::from(out.as_str()))
}

fn start_line(message: &Message, identities: bool, out: &mut String) {
    if let Some(status) = message.status() {
        // The phrase is the peer's own.
        let _ = writeln!(out, "SIP/2.0 {} {}", status.code(), status.reason());
    } else {
        out.push_str(message.method().map_or("", known_method));
        out.push(' ');
        match message.request_uri().and_then(|uri| Uri::parse(uri).ok()) {
            Some(it) => uri(&it, identities, true, out),
            None => out.push_str(HIDDEN),
        }
        out.push_str(" SIP/2.0\n");
    }
}

/// Headers that hold words of the protocol, as their grammar has them.
const WORDS: [HeaderName; 11] = [
    HeaderName::Accept,
    HeaderName::Allow,
    HeaderName::AllowEvents,
    HeaderName::ContentType,
    HeaderName::Date,
    HeaderName::Event,
    HeaderName::ProxyRequire,
    HeaderName::Require,
    HeaderName::SubscriptionState,
    HeaderName::Supported,
    HeaderName::Unsupported,
];
/// Headers that hold numbers, some with a method behind them.
const NUMBERS: [HeaderName; 10] = [
    HeaderName::ContentLength,
    HeaderName::CSeq,
    HeaderName::Expires,
    HeaderName::FlowTimer,
    HeaderName::MaxForwards,
    HeaderName::MinExpires,
    HeaderName::RAck,
    HeaderName::RetryAfter,
    HeaderName::RSeq,
    HeaderName::SessionExpires,
];

fn value(name: HeaderName, value: &[u8], identities: bool, out: &mut String) {
    match name {
        name if WORDS.contains(&name) => words(value, out),
        name if NUMBERS.contains(&name) => numbers(value, out),
        HeaderName::Contact | HeaderName::From | HeaderName::ReferTo | HeaderName::To => {
            addresses(value, identities, true, out);
        }
        // Their user parts are what opens a way: ours are tokens, and those of others are theirs.
        HeaderName::Path | HeaderName::RecordRoute | HeaderName::Route | HeaderName::ServiceRoute => {
            addresses(value, identities, false, out);
        }
        HeaderName::Via => via(value, identities, out),
        HeaderName::CallId | HeaderName::Reason | HeaderName::Warning if identities && is_plain(value) => {
            out.push_str(printable(value));
        }
        HeaderName::Authorization
        | HeaderName::ProxyAuthorization
        | HeaderName::WwwAuthenticate
        | HeaderName::ProxyAuthenticate
        | HeaderName::AuthenticationInfo => out.push_str(HIDDEN),
        _ => drop(write!(out, "[{} bytes]", value.len())),
    }
}

/// What comes before the first parameter or comment, where people write what they like.
fn before_parameters(value: &[u8]) -> (&str, bool) {
    let end = value.iter().position(|byte| b";(\"<@".contains(byte));
    (printable(value.get(..end.unwrap_or(value.len())).unwrap_or(value)), end.is_some())
}

fn words(value: &[u8], out: &mut String) {
    let (text, more) = before_parameters(value);
    let digits = text.as_bytes().split(|byte| !byte.is_ascii_digit()).map(<[u8]>::len).max();
    out.push_str(if digits.is_some_and(|digits| digits > DIGITS_MAX) { HIDDEN } else { text });
    if more {
        out.push(';');
        out.push_str(HIDDEN);
    }
}

fn numbers(value: &[u8], out: &mut String) {
    let (text, more) = before_parameters(value);
    for (place, word) in text.split_ascii_whitespace().enumerate() {
        if place > 0 {
            out.push(' ');
        }
        let number = word.len() <= NUMBER_DIGITS_MAX && word.bytes().all(|byte| byte.is_ascii_digit());
        out.push_str(if number { word } else { Method::parse(word.as_bytes()).map_or(HIDDEN, known_method) });
    }
    if more {
        out.push(';');
        out.push_str(HIDDEN);
    }
}

fn known_method(method: Method<'_>) -> &str {
    if matches!(method, Method::Other(_)) { HIDDEN } else { method.as_str() }
}

fn addresses(value: &[u8], identities: bool, users: bool, out: &mut String) {
    if value == b"*" {
        return out.push('*');
    }
    // A list is told by its first value: the rest would have to be cut as carefully.
    let Ok(address) = Address::parse(first_of(value)) else { return out.push_str(HIDDEN) };
    if let Some(name) = address.display() {
        let told = if identities && is_plain(name.as_bytes()) { name.as_str() } else { HIDDEN };
        let _ = write!(out, "\"{told}\" ");
    }
    out.push('<');
    uri(&address.uri(), identities, users, out);
    out.push('>');
    for parameter in PARAMETERS {
        if let Some(value) = address.param(parameter) {
            parameter_of(parameter, value, out);
        }
    }
    if address.tag().is_some() {
        out.push_str(";tag=");
        out.push_str(HIDDEN);
    }
    if first_of(value).len() < value.len() {
        out.push_str(", ");
        out.push_str(HIDDEN);
    }
}

/// A URI; `users`: whether its user part may be written at all.
fn uri(uri: &Uri<'_>, identities: bool, users: bool, out: &mut String) {
    if !uri.is_sip() && !uri.is_sips() {
        let known = SCHEMES.iter().find(|known| uri.scheme().eq_ignore_ascii_case(known));
        out.push_str(known.unwrap_or(&HIDDEN));
        out.push(':');
        return out.push_str(HIDDEN);
    }
    out.push_str(uri.scheme());
    out.push(':');
    if let Some(user) = uri.user() {
        let ours = Capability::parse(user).is_some() || InstanceId::parse(user).is_some();
        out.push_str(if identities && users && !ours && is_plain(user) { printable(user) } else { HIDDEN });
        out.push('@');
    }
    match (uri.host(), identities) {
        (Host::Name(name), true) if is_plain(name.as_bytes()) => out.push_str(name),
        (Host::Address(address), true) => drop(write!(out, "{address}")),
        (Host::Name(_) | Host::Address(_), _) => out.push_str(HIDDEN),
    }
    if let Some(port) = uri.port() {
        let _ = write!(out, ":{port}");
    }
    for parameter in PARAMETERS {
        if let Some(value) = uri.param(parameter) {
            parameter_of(parameter, value, out);
        }
    }
}

fn parameter_of(name: &str, value: Option<&str>, out: &mut String) {
    out.push(';');
    out.push_str(name);
    if let Some(value) = value {
        out.push('=');
        let told =
            if matches!(name, "expires" | "q") { is_number(value.as_bytes()) } else { is_word(value.as_bytes()) };
        out.push_str(if told { value } else { HIDDEN });
    }
}

fn via(value: &[u8], identities: bool, out: &mut String) {
    let Ok(via) = Via::parse(first_of(value)) else { return out.push_str(HIDDEN) };
    out.push_str("SIP/2.0/");
    out.push_str(via.transport().map_or(HIDDEN, crate::sip::Transport::as_via));
    out.push(' ');
    out.push_str(if identities && is_plain(via.sent_by().as_bytes()) { via.sent_by() } else { HIDDEN });
    if via.param("rport").is_some() {
        out.push_str(";rport");
    }
}

/// The first value of a comma-separated list, aware of quotes and angle brackets.
fn first_of(value: &[u8]) -> &[u8] {
    let (mut quoted, mut angled, mut escaped) = (false, false, false);
    let end = value.iter().position(|&byte| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => angled = true,
            b'>' if !quoted => angled = false,
            b',' => return !quoted && !angled,
            _ => {}
        }
        false
    });
    value.get(..end.unwrap_or(value.len())).unwrap_or(value)
}

/// Whether bytes may be written as they are: short, printable ASCII.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.len() <= PLAIN_BYTES_MAX && bytes.iter().all(|&byte| (b' '..=b'~').contains(&byte))
}

/// A number of seconds, or a weight.
fn is_number(bytes: &[u8]) -> bool {
    bytes.len() <= 7 && bytes.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

/// A word that the protocol has for the value of a parameter.
fn is_word(bytes: &[u8]) -> bool {
    const WORDS: [&str; 10] = ["udp", "tcp", "tls", "sctp", "ws", "wss", "phone", "ip", "on", "true"];
    WORDS.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(bytes))
}

fn printable(bytes: &[u8]) -> &str {
    if is_plain(bytes) { std::str::from_utf8(bytes).unwrap_or(HIDDEN) } else { HIDDEN }
}

fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push_str("\n[cut]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:aaaiuqcaofkdkmrugqzdsobqha2te@192.0.2.5:5060;transport=tcp;secret=x SIP/2.0\r\n\
        Via: SIP/2.0/TCP pbx.example.com:5060;branch=z9hG4bKplanted-branch;rport\r\n\
        From: \"Planted Name\" <sip:+15550100@caller.example>;tag=plantedtag\r\n\
        To: <sip:alice@pbx.example.com>\r\nCall-ID: planted-call@host\r\nCSeq: 7 INVITE\r\n\
        Contact: <sip:bob@198.51.100.7>;+sip.instance=\"<urn:uuid:planted>\"\r\n\
        Record-Route: <sip:plantedtoken@proxy.example;lr>, <sip:two@proxy2.example>\r\n\
        Authorization: Digest username=\"planted\", response=\"planted\"\r\nX-Planted: planted value\r\n\
        Max-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: 7\r\n\r\nv=0 sdp";

    fn of(text: &str, identities: bool) -> String {
        let message = Message::parse_datagram(text.into()).expect("well-formed");
        redacted(&message, identities, 4096).to_string()
    }

    #[test]
    fn without_identities_nobody_is_named_and_no_place() {
        let text = of(INVITE, false);
        for hidden in ["lanted", "15550100", "alice", "bob", "example", "192.0.2", "198.51", "v=0", "aaaiuq", "two"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
        for told in [
            "INVITE sip:[hidden]@[hidden]:5060;transport=tcp SIP/2.0\n",
            "Via: SIP/2.0/TCP [hidden];rport\n",
            "From: \"[hidden]\" <sip:[hidden]@[hidden]>;tag=[hidden]\n",
            "CSeq: 7 INVITE\n",
            "Record-Route: <sip:[hidden]@[hidden];lr>, [hidden]\n",
            "Authorization: [hidden]\n",
            "[other header]: [13 bytes]\n",
            "Content-Type: application/sdp\n",
            "[body, 7 bytes]\n",
        ] {
            assert!(text.contains(told), "{told} not in {text}");
        }
    }

    #[test]
    fn what_a_peer_may_write_where_the_protocol_has_words_and_numbers_is_left_out() {
        let odd = "PLANTED planted5550100:somebody SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKa\r\n\
            From: <sip:a@b;transport=planted;user=5550100>;tag=1;expires=planted;q=5550100555\r\n\
            To: <sip:a@b;user=phone>\r\nCall-ID: one\r\nCSeq: 7 PLANTED\r\nMax-Forwards: planted\r\n\
            Retry-After: 120 (planted at 5550100)\r\nSupported: path, 15550100\r\nRAck: 1 7 INVITE\r\n\
            Content-Type: application/pdf; name=\"planted\"\r\nEvent: message-summary;id=planted\r\n\
            Session-Expires: 1800;refresher=uac\r\nAllow: INVITE, ACK\r\nContent-Length: 0\r\n\r\n";
        let text = of(odd, false);
        for hidden in ["lanted", "LANTED", "5550100", "somebody"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
        for told in [
            "[hidden] [hidden]:[hidden] SIP/2.0\n",
            "From: <sip:[hidden]@[hidden];transport=[hidden];user=[hidden]>;expires=[hidden];q=[hidden];tag=[hidden]\n",
            "To: <sip:[hidden]@[hidden];user=phone>\n",
            "CSeq: 7 [hidden]\n",
            "Max-Forwards: [hidden]\n",
            "Retry-After: 120;[hidden]\n",
            "Supported: [hidden]\n",
            "RAck: 1 7 INVITE\n",
            "Content-Type: application/pdf;[hidden]\n",
            "Event: message-summary;[hidden]\n",
            "Session-Expires: 1800;[hidden]\n",
            "Allow: INVITE, ACK\n",
        ] {
            assert!(text.contains(told), "{told} not in {text}");
        }
    }

    #[test]
    fn with_identities_names_and_places_are_told_and_secrets_are_not() {
        let text = of(INVITE, true);
        for told in [
            "From: \"Planted Name\" <sip:+15550100@caller.example>",
            "To: <sip:alice@pbx.example.com>",
            "Call-ID: planted-call@host",
        ] {
            assert!(text.contains(told), "{told} not in {text}");
        }
        for hidden in [
            "aaaiuq",
            "plantedtoken",
            "planted-branch",
            "response",
            "urn:uuid",
            "planted value",
            "v=0",
            "secret",
            "plantedtag",
        ] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_odd_is_hidden() {
        let message = Message::parse_datagram(INVITE.into()).expect("well-formed");
        let short = redacted(&message, true, 80);
        assert!(short.len() <= 87 && short.ends_with("\n[cut]"), "{short:?}");
        assert_eq!(redacted(&message, true, 4096).capacity(), of(INVITE, true).len(), "no more than is counted");
        let odd = INVITE.replace("sip:alice@pbx.example.com", "tel:+15550199");
        assert!(of(&odd, true).contains("To: <tel:[hidden]>"));
        let refused = "SIP/2.0 403 Planted words\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\n\
            To: <sip:a@b>;tag=2\r\nCall-ID: one\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: Digest nonce=\"planted\"\r\n\r\n";
        let text = of(refused, true);
        assert!(text.starts_with("SIP/2.0 403 Forbidden\n") && !text.to_lowercase().contains("planted"), "{text}");
    }
}
