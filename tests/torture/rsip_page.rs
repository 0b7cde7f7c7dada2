//! Which of the valid messages of RFC 4475 the crate `rsip` refuses or garbles, as a test that runs: the day one of these
//! lines fails, the decision against it deserves another look.

use reveille::sip::Message;
use rsip::prelude::{HeadersExt, ToTypedHeader};

use crate::corpus::{RFC_4475, Verdict};

/// What `rsip` makes of a valid message.
#[derive(Debug, PartialEq)]
enum Fate {
    Right,
    Refused,
    Garbled(&'static str),
}

use Fate::{Garbled, Refused, Right};

#[test]
fn rsip_still_refuses() {
    let expected = [
        // Folded header fields.
        ("wsinv", Refused),
        // Methods beyond those it knows, and most characters a URI may hold.
        ("intmeth", Refused),
        // Escapes in the user part.
        ("esc01", Refused),
        ("escnull", Right),
        ("esc02", Refused),
        ("lwsdisp", Right),
        // Long folded values.
        ("longreq", Refused),
        // Octets beyond Content-Length become the body; the compact form of Call-ID is not found.
        ("dblreq", Garbled("body, Call-ID")),
        // A semicolon in the user part.
        ("semiuri", Refused),
        ("transports", Garbled("Via")),
        // Bytes that are no UTF-8 are replaced when the message is written.
        ("mpart01", Garbled("body")),
        ("unreason", Garbled("reason phrase")),
        ("noreason", Garbled("reason phrase")),
    ];
    let valid = RFC_4475.iter().filter(|case| case.section.starts_with("3.1.1."));
    let fates: Vec<_> = valid.clone().map(|case| (case.name, fate(case.bytes))).collect();
    assert_eq!(fates, expected);
    assert!(valid.into_iter().all(|case| case.verdict == Verdict::Process), "and we read every one");
}

#[test]
fn rsip_still_reads_neither_ipv6_nor_an_instance_nor_several_contacts() {
    assert!(rsip::Uri::try_from("sip:a@[2001:db8::1]:5060").is_err());
    for contact in ["<sip:a@b>;+sip.instance=\"<urn:uuid:0>\"", "<sip:a@b>, <sip:c@d>"] {
        let read = rsip::headers::Contact::from(contact).typed().map(|read| read.to_string());
        assert_ne!(read.as_deref(), Ok(contact));
    }
}

fn fate(bytes: &[u8]) -> Fate {
    let ours = Message::parse_datagram(bytes.to_vec()).expect("the message is valid");
    let Ok(theirs) = rsip::SipMessage::try_from(bytes) else { return Refused };
    let written: Vec<u8> = theirs.clone().into();
    let via_is_read = rsip::prelude::HasHeaders::headers(&theirs).iter().all(|header| match header {
        rsip::Header::Via(via) => via.typed().is_ok(),
        _ => true,
    });
    let first_line = written.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let body = written.windows(4).position(|four| four == b"\r\n\r\n").map_or(&[][..], |end| &written[end + 4..]);
    let losses = [
        (body != ours.body(), "body"),
        (!via_is_read, "Via"),
        (theirs.call_id_header().is_err(), "Call-ID"),
        (!bytes.starts_with(first_line), "reason phrase"),
    ];
    match losses.iter().filter(|(is_lost, _)| *is_lost).map(|(_, what)| *what).collect::<Vec<_>>()[..] {
        [] => Right,
        ["body", "Call-ID"] => Garbled("body, Call-ID"),
        [what] => Garbled(what),
        _ => Garbled("more than the page says"),
    }
}
