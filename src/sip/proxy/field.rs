//! Changes inside one header field: its first value, and what a receiver adds to a Via.

use std::net::SocketAddr;

use super::super::grammar::{self, Elements};
use super::super::uri::Host;
use super::super::via::Via;

/// The first value of a comma-separated field, and the others as they stand.
pub(super) fn split_first(field: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut elements = Elements::of_addresses(field);
    (elements.next().unwrap_or_default(), elements.rest())
}

/// A Via with what the receiver of the message adds: `received` where the source is not the literal sent-by (RFC 3261
/// §18.2.1), and both `received` and `rport` where `rport` was asked for (RFC 3581 §4). What the sender claimed in their
/// place is dropped. A Via that is malformed stays as it is.
pub(super) fn received_via(value: &[u8], source: SocketAddr) -> Vec<u8> {
    let Ok(via) = Via::parse(value) else { return value.to_vec() };
    let address = source.ip().to_canonical();
    let is_literal = matches!(via.host(), Host::Address(literal) if literal.to_canonical() == address);
    let wants_rport = via.wants_rport();

    let mut out = Vec::with_capacity(value.len() + 64);
    for (index, segment) in segments(value).enumerate() {
        let name = segment.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        let replaced = name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport");
        match index {
            0 => out.extend_from_slice(segment),
            _ if replaced => {}
            _ => {
                out.push(b';');
                out.extend_from_slice(segment);
            }
        }
    }
    if wants_rport || !is_literal {
        out.extend_from_slice(format!(";received={address}").as_bytes());
    }
    if wants_rport {
        out.extend_from_slice(format!(";rport={}", source.port()).as_bytes());
    }
    out
}

/// The parts of a Via: sent-protocol and sent-by, then each parameter, as they stand. A semicolon in a quoted string
/// parts nothing.
fn segments(via: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(via);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            match byte {
                b'"' => at = grammar::quoted(&text[at..]).map_or(text.len(), |(_, rest)| text.len() - rest.len()),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_value_ends_at_the_first_bare_comma() {
        let split = |field: &'static str| {
            let (first, rest) = split_first(field.as_bytes());
            (std::str::from_utf8(first).expect("ASCII"), rest.map(|rest| std::str::from_utf8(rest).expect("ASCII")))
        };
        assert_eq!(split("<sip:a,b@c;lr> , <sip:d>,<sip:e>"), ("<sip:a,b@c;lr>", Some("<sip:d>,<sip:e>")));
        assert_eq!(split(r#""x\", <" <sip:a>, b"#), (r#""x\", <" <sip:a>"#, Some("b")));
        assert_eq!(split("<sip:a>"), ("<sip:a>", None));
        assert_eq!(split("\"open, string"), ("\"open, string", None));
        assert_eq!(split(""), ("", None));
    }

    #[test]
    fn a_literal_sent_by_that_is_the_source_needs_no_received() {
        assert_eq!(
            received("SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKa", "192.0.2.1:9"),
            "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bKa"
        );
        assert_eq!(
            received("SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bKa", "[2001:db8::1]:9"),
            "SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bKa"
        );
        assert_eq!(
            received("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa", "[::ffff:192.0.2.1]:9"),
            "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa"
        );
    }

    #[test]
    fn another_source_or_a_name_gets_received() {
        assert_eq!(
            received("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa", "192.0.2.2:9"),
            "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa;received=192.0.2.2"
        );
        assert_eq!(
            received("SIP/2.0/TCP pc.example.com;branch=z9hG4bKa", "[2001:db8::1]:9"),
            "SIP/2.0/TCP pc.example.com;branch=z9hG4bKa;received=2001:db8::1"
        );
    }

    #[test]
    fn rport_is_filled_and_always_with_received() {
        assert_eq!(
            received("SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKa", "192.0.2.1:40000"),
            "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;received=192.0.2.1;rport=40000"
        );
    }

    #[test]
    fn what_the_sender_claims_is_replaced_and_the_rest_kept_byte_for_byte() {
        assert_eq!(
            received("SIP/2.0/UDP h ;RPort=1; x=\"a;rport=2\" ;received=10.0.0.1;branch=z9hG4bKa ;Foo", "192.0.2.1:7"),
            "SIP/2.0/UDP h ; x=\"a;rport=2\" ;branch=z9hG4bKa ;Foo;received=192.0.2.1;rport=7"
        );
    }

    proptest! {
        #[test]
        fn values_put_together_come_apart_again(values in proptest::collection::vec("<sip:[a-z0-9,;]{1,8}>(;[a-z]{1,3}=\"[a-z,;]{0,4}\")?", 1..5)) {
            let field = values.join(", ");
            let mut rest = Some(field.as_bytes());
            for value in &values {
                let (first, others) = split_first(rest.expect("one value more"));
                prop_assert_eq!(first, value.as_bytes());
                rest = others;
            }
            prop_assert_eq!(rest, None);
        }

        #[test]
        fn no_bytes_disturb_it(field in proptest::collection::vec(any::<u8>(), 0..80)) {
            let (first, rest) = split_first(&field);
            prop_assert!(first.len() + rest.map_or(0, <[u8]>::len) <= field.len());
            let _ = received_via(&field, SocketAddr::from(([192, 0, 2, 1], 5060)));
        }
    }

    fn received(via: &str, source: &str) -> String {
        String::from_utf8(received_via(via.as_bytes(), source.parse().expect("an address"))).expect("ASCII")
    }
}
