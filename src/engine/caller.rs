//! Who calls, as a push tells it: the name that the caller gives itself, and a number that the phone's address book can match.
//!
//! Its own room because From is written for people and for proxies, while CallKit and Telecom compare digits: escapes,
//! parameters and visual separators have to go, and what stands for "not told" must not look like a number. It does
//! not decide whether a push tells a caller at all, and it does not judge whether From is true: the phone gets the same From
//! with the INVITE.

use super::output::Caller;
use crate::sip::Message;
use crate::sip::address::decoded;
use crate::sip::uri::{self, Host, Uri};

/// Characters of a name that are told; the rest is cut off. Longer ones fit on no call screen.
const NAME_MAX: usize = 128;
/// Characters of a number, or of another user part.
const NUMBER_MAX: usize = 64;
/// User parts that say that the number is not told: of RFC 3323 §4.1.1.3, of RFC 3325, and of gateways.
const UNTOLD: [&str; 6] = ["anonymous", "restricted", "unavailable", "unknown", "private", "withheld"];
/// RFC 3323 §4.2 and RFC 3325 §9.3: values of Privacy by which a caller asks not to be named.
const PRIVATE: [&str; 2] = ["user", "id"];

/// The caller of an INVITE. Name and number are empty where they are not told.
pub(super) fn caller_of(invite: &Message) -> Option<Caller> {
    let from = invite.from().ok()?;
    if wants_privacy(invite) {
        return Some(Caller::default());
    }
    let name = from.display().map(|name| bounded(&name, NAME_MAX)).filter(|name| !name.is_empty());
    Some(Caller { name, number: number(&from.uri()) })
}

fn wants_privacy(invite: &Message) -> bool {
    let Some(wanted) = invite.extension("Privacy") else { return false };
    let values = wanted.split(|byte| matches!(byte, b';' | b','));
    values.map(<[u8]>::trim_ascii).any(|value| PRIVATE.iter().any(|it| value.eq_ignore_ascii_case(it.as_bytes())))
}

/// The number that a URI names, as an address book has it: `+`, digits, `*` and `#`. Of a name that is no number, the name.
fn number(uri: &Uri<'_>) -> String {
    let subscriber = match uri.scheme() {
        scheme if scheme.eq_ignore_ascii_case("tel") => &uri.raw()[scheme.len() + 1..],
        _ => uri.user().unwrap_or_default(),
    };
    // A user part may bear the parameters of a tel URI (RFC 3261 §19.1.6).
    let subscriber = subscriber.split(|byte| *byte == b';').next().unwrap_or_default();
    let text = bounded(&decoded(&uri::unescape(subscriber)), NUMBER_MAX);
    if is_untold(&text, uri.host()) {
        return String::new();
    }
    dialled(&text).unwrap_or(text)
}

/// Digits without visual separators (RFC 3966 §3); `None` if it is no number.
fn dialled(text: &str) -> Option<String> {
    let is_separator = |character: char| matches!(character, ' ' | '-' | '.' | '(' | ')');
    let bare: String = text.chars().filter(|character| !is_separator(*character)).collect();
    let local = bare.strip_prefix('+').unwrap_or(&bare);
    let is_number = local.chars().all(|character| character.is_ascii_digit() || matches!(character, '*' | '#'));
    (is_number && local.contains(|character: char| character.is_ascii_digit())).then_some(bare)
}

fn is_untold(user: &str, host: Host<'_>) -> bool {
    // RFC 2606 keeps the names under `invalid` for what is nowhere.
    let nowhere =
        matches!(host, Host::Name(name) if name.to_ascii_lowercase().trim_end_matches('.').ends_with(".invalid"));
    nowhere || UNTOLD.iter().any(|untold| user.eq_ignore_ascii_case(untold))
}

/// As many characters, without controls and marks that change the direction of the text around them.
fn bounded(text: &str, most: usize) -> String {
    let shown = |character: &char| !character.is_control() && !is_mark(*character);
    let text: String = text.trim().chars().filter(shown).take(most).collect();
    text.trim().to_owned()
}

const fn is_mark(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(from: &[u8], more: &str) -> Message {
        let head = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\n";
        let mut text = format!("{head}CSeq: 1 INVITE\r\n{more}From: ").into_bytes();
        text.extend_from_slice(from);
        text.extend_from_slice(b";tag=1\r\n\r\n");
        Message::parse_datagram(text).expect("SIP")
    }

    fn told(from: &[u8]) -> (Option<String>, String) {
        let Caller { name, number } = caller_of(&invite(from, "")).expect("a caller");
        (name, number)
    }

    #[test]
    fn a_number_is_one_that_an_address_book_has() {
        for (uri, number) in [
            ("tel:+4930123456;phone-context=example.com", "+4930123456"),
            ("TEL:+49-30-123.456", "+4930123456"),
            ("tel:7042;phone-context=example.com", "7042"),
            ("sip:%2B4930%23@x.example", "+4930#"),
            ("sip:+1555;phone-context=y@x.example", "+1555"),
            ("sip:+1555;phone-context=y;isub=12@x.example;user=phone", "+1555"),
            ("sips:+1(555)123-4567@x.example", "+15551234567"),
            ("sip:*21%23@x.example", "*21#"),
            ("sip:0049%2030%20123@x.example", "004930123"),
            ("sip:1001:secret@x.example", "1001"),
            ("sip:carol@x.example", "carol"),
            ("sip:carol.smith-1@x.example", "carol.smith-1"),
            ("sip:J%C3%BCrgen@x.example", "J\u{fc}rgen"),
            ("sip:J%FCrgen@x.example", "J\u{fc}rgen"),
            ("sip:4930+1@x.example", "4930+1"),
            ("sip:%00%0D%0A123%1b@x.example", "123"),
        ] {
            assert_eq!(told(format!("<{uri}>").as_bytes()), (None, number.to_owned()), "{uri}");
        }
        let long = "1".repeat(500);
        assert_eq!(told(format!("<sip:{long}@x.example>").as_bytes()).1.len(), NUMBER_MAX);
    }

    #[test]
    fn what_stands_for_no_number_is_none() {
        for uri in [
            "sip:anonymous@anonymous.invalid",
            "sip:Anonymous@192.0.2.1",
            "sip:Restricted@pbx.example.com;user=phone",
            "sip:unavailable@unknown.invalid",
            "sip:unknown@x.example",
            "sip:c8oqz84zk7z@Anonymous.Invalid.",
            "sip:anonymous%40x@anonymous.invalid",
            "sip:192.0.2.1",
            "sip:gateway.example.com;transport=tcp",
            "urn:service:sos",
            "tel:anonymous",
        ] {
            assert_eq!(
                told(format!("\"Anonymous\" <{uri}>").as_bytes()),
                (Some("Anonymous".to_owned()), String::new()),
                "{uri}"
            );
        }
    }

    #[test]
    fn a_caller_that_asks_for_privacy_is_not_told() {
        for privacy in ["id", "user", "header;ID;critical", "critical; user"] {
            let caller = caller_of(&invite(b"\"Carol\" <sip:+1555@x.example>", &format!("Privacy: {privacy}\r\n")));
            assert!(caller == Some(Caller::default()), "{privacy}");
        }
        for privacy in ["none", "header", "identity"] {
            let caller = caller_of(&invite(b"\"Carol\" <sip:+1555@x.example>", &format!("Privacy: {privacy}\r\n")));
            assert_eq!(caller.expect("a caller").number, "+1555", "{privacy}");
        }
    }

    #[test]
    fn a_name_is_read_in_latin_1_as_well_and_holds_nothing_that_disturbs() {
        for (from, name) in [
            (&b"\"J\xfcrgen\" <sip:1@b>"[..], Some("J\u{fc}rgen")),
            (b"J\xfcrgen M\xf6ller <sip:1@b>", Some("J\u{fc}rgen M\u{f6}ller")),
            ("\"J\u{fc}rgen\" <sip:1@b>".as_bytes(), Some("J\u{fc}rgen")),
            ("\" \u{202e}Car\u{7}o\u{61c}l \" <sip:1@b>".as_bytes(), Some("Carol")),
            (b"\"\" <sip:1@b>", None),
            (b"\"  \" <sip:1@b>", None),
            (b"<sip:1@b>", None),
        ] {
            assert_eq!(told(from).0.as_deref(), name);
        }
        let long = format!("\"{}\" <sip:1@b>", "\u{fc}".repeat(900));
        assert_eq!(told(long.as_bytes()).0.map(|name| name.chars().count()), Some(NAME_MAX));
    }
}
