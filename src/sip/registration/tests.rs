//! What is written byte for byte, and what PBXs are known to answer.

use proptest::prelude::*;

use super::*;
use crate::sip::Transport;

const HOUR: Duration = Duration::from_secs(3600);
const ASKED: Duration = Duration::from_secs(600);

#[test]
fn a_register_is_written_byte_for_byte() {
    let mut out = Vec::new();
    write_register(&register(), &mut out);
    let expected = "REGISTER sip:example.com;transport=tls SIP/2.0\r\n\
        Via: SIP/2.0/UDP 203.0.113.5:5060;rport;branch=z9hG4bKb1\r\n\
        Max-Forwards: 70\r\n\
        From: <sip:alice@example.com>;tag=f1\r\n\
        To: <sip:alice@example.com>\r\n\
        Call-ID: c1\r\n\
        CSeq: 4294967295 REGISTER\r\n\
        Contact: <sip:cap@203.0.113.5:5060>;+sip.instance=\"<urn:uuid:1>\"\r\n\
        Expires: 600\r\n\
        Supported: path\r\n\
        Content-Length: 0\r\n\r\n";
    assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
}

#[test]
fn route_and_credentials_are_written_where_given() {
    let mut out = Vec::new();
    let register = Register {
        route: Some("<sip:proxy.example.com;lr>"),
        authorizations: &[
            (HeaderName::ProxyAuthorization, b"Digest realm=\"r\"".to_vec()),
            (HeaderName::Authorization, b"Digest realm=\"\xfc\"".to_vec()),
        ],
        ..register()
    };
    write_register(&register, &mut out);
    let message = Message::parse_datagram(out).expect("what we write, we read");
    assert_eq!(message.header(HeaderName::Route), Some(b"<sip:proxy.example.com;lr>".as_slice()));
    assert_eq!(message.header(HeaderName::ProxyAuthorization), Some(b"Digest realm=\"r\"".as_slice()));
    assert_eq!(message.header(HeaderName::Authorization), Some(b"Digest realm=\"\xfc\"".as_slice()));
}

#[test]
fn nothing_that_is_given_can_become_a_header_of_its_own() {
    let evil = "x\r\nEvil: 1";
    let mut out = Vec::new();
    let register = Register {
        request_uri: "sip:x\r\nEvil:1",
        aor: evil,
        from_tag: evil,
        call_id: evil,
        contact: evil,
        authorizations: &[(HeaderName::Authorization, evil.as_bytes().to_vec())],
        route: Some(evil),
        ..register()
    };
    write_register(&register, &mut out);
    let lines = out.split(|byte| *byte == b'\n');
    assert!(lines.into_iter().all(|line| !line.starts_with(b"Evil")), "{}", String::from_utf8_lossy(&out));
}

#[test]
fn our_contact_is_found_by_its_user_part_alone() {
    let granted = |contacts: &str| granted_expiry(&ok(contacts), "cap", ASKED);
    let rewritten = "Contact: <sip:CAP@10.0.0.1:61234;transport=tcp;x=y>;q=0.5;expires=120\r\n";
    assert_eq!(granted(rewritten), Some(Duration::from_secs(120)));
    let several =
        "Contact: <sip:desk@192.0.2.1>;expires=50, \"x, y\" <sip:c%61p@192.0.2.2>;expires=70\r\nm: <sip:other@h>\r\n";
    assert_eq!(granted(several), Some(Duration::from_secs(70)));
    assert_eq!(granted("Contact: <sip:desk@192.0.2.1>;expires=50, <tel:+15550100>\r\n"), None);
}

#[test]
fn of_two_bindings_that_are_ours_the_fresh_one_counts() {
    let contacts = "Contact: <sip:cap@h:1>;expires=3\r\nContact: <sip:cap@h:2>;expires=590\r\n";
    assert_eq!(granted_expiry(&ok(contacts), "cap", ASKED), Some(Duration::from_secs(590)));
    let turned = "Contact: <sip:cap@h:2>;expires=590, <sip:cap@h:1>;expires=3\r\n";
    assert_eq!(granted_expiry(&ok(turned), "cap", ASKED), Some(Duration::from_secs(590)));
}

#[test]
fn the_expiry_is_the_parameter_else_the_header_else_what_we_asked() {
    let granted = |fields: &str| granted_expiry(&ok(fields), "cap", ASKED);
    assert_eq!(granted("Contact: <sip:cap@h>;expires=60\r\nExpires: 90\r\n"), Some(Duration::from_secs(60)));
    assert_eq!(granted("Contact: <sip:cap@h>\r\nExpires: 90\r\n"), Some(Duration::from_secs(90)));
    assert_eq!(granted("Contact: <sip:cap@h>;expires=soon\r\nExpires: 90\r\n"), Some(Duration::from_secs(90)));
    assert_eq!(granted("Contact: <sip:cap@h>\r\n"), Some(ASKED));
    assert_eq!(granted("Contact: <sip:cap@h>\r\nExpires: soon\r\n"), Some(ASKED));
    assert_eq!(granted("Contact: <sip:cap@h>;expires=\"60\"\r\n"), Some(Duration::from_secs(60)));
    assert_eq!(granted("Expires: 90\r\n"), Some(Duration::from_secs(90)), "a registrar that lists nothing");
    assert_eq!(granted(""), Some(ASKED));
}

#[test]
fn a_grant_of_nothing_is_no_registration_but_ends_one() {
    let none = ok("Contact: <sip:cap@h>;expires=0\r\n");
    assert_eq!(granted_expiry(&none, "cap", ASKED), None);
    assert_eq!(granted_expiry(&none, "cap", Duration::ZERO), Some(Duration::ZERO));
    assert_eq!(granted_expiry(&ok(""), "cap", Duration::ZERO), Some(Duration::ZERO));
    assert_eq!(granted_expiry(&ok("Contact: <sip:desk@h>;expires=9\r\n"), "cap", Duration::ZERO), None);
}

#[test]
fn a_grant_beyond_belief_is_cut() {
    for endless in ["86401", "4294967295", "99999999999999999999999999"] {
        let response = ok(&format!("Contact: <sip:cap@h>;expires={endless}\r\n"));
        assert_eq!(granted_expiry(&response, "cap", HOUR), Some(GRANTED_MAX));
    }
}

#[test]
fn the_verdict_is_the_registrars_own_phrase() {
    assert_eq!(verdict(&response("403 Too many contacts")), "403 Too many contacts");
    assert_eq!(verdict(&response("403 ")), "403 Forbidden");
    assert_eq!(verdict(&response("404 Kein Anschluß")), "404 Kein Anschluß");
}

#[test]
fn the_verdict_is_short_and_disturbs_no_terminal() {
    assert_eq!(verdict(&response("403 a\u{1b}[31mb\u{202e}c\u{feff}\u{7f}")), "403 a[31mbc");
    let long = verdict(&response(&format!("403 {}", "ß".repeat(500))));
    assert!(long.len() <= VERDICT_MAX && long.ends_with('ß'), "{long}");
}

proptest! {
    #[test]
    fn no_answer_disturbs_it(contact in "[ -~]{0,60}", expires in "[ -~]{0,12}", phrase in any::<String>()) {
        let text = format!(
            "SIP/2.0 200 {}\r\nContact: {contact}\r\nExpires: {expires}\r\nContent-Length: 0\r\n\r\n",
            phrase.replace(['\r', '\n'], " ")
        );
        if let Ok(response) = Message::parse_datagram(text.into_bytes()) {
            prop_assert!(granted_expiry(&response, "cap", HOUR).is_none_or(|granted| granted <= GRANTED_MAX && !granted.is_zero()));
            let sent = Uri::parse(b"sip:cap@203.0.113.5").expect("a URI");
            let taken = rewritten(&response, &sent, b"alice", HOUR).map(|(_, expires)| expires);
            prop_assert!(taken.is_none_or(|expires| expires <= GRANTED_MAX && !expires.is_zero()));
            let words = verdict(&response);
            prop_assert!(words.len() <= VERDICT_MAX && words.starts_with("200"));
            prop_assert!(!words.chars().any(char::is_control));
        }
    }
}

fn register() -> Register<'static> {
    Register {
        request_uri: "sip:example.com;transport=tls",
        aor: "sip:alice@example.com",
        from_tag: "f1",
        call_id: "c1",
        cseq: u32::MAX,
        via: OwnVia { transport: Transport::Udp, sent_by: "203.0.113.5:5060", branch: "z9hG4bKb1" },
        contact: "<sip:cap@203.0.113.5:5060>;+sip.instance=\"<urn:uuid:1>\"",
        expires: 600,
        authorizations: &[],
        route: None,
    }
}

fn ok(fields: &str) -> Message {
    let text = format!("SIP/2.0 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
    Message::parse_datagram(text.into_bytes()).expect("a response")
}

fn response(status: &str) -> Message {
    let text = format!("SIP/2.0 {status}\r\nContent-Length: 0\r\n\r\n");
    Message::parse_datagram(text.into_bytes()).expect("a response")
}

#[test]
fn a_parameter_without_a_value_is_as_good_as_none() {
    let own = OwnContact { unguessable: "cap", named: None, instance: "urn:uuid:1" };
    for contact in [
        "<sip:cap@203.0.113.5>;expires=",
        "<sip:cap@203.0.113.5>;expires= ;q=",
        "<sip:cap@203.0.113.5>;q=;expires",
        "<sip:cap@203.0.113.5>;expires=\"\"",
        "<sip:cap@203.0.113.5>;expires=soon;x=",
        "<sip:else@203.0.113.5>;+sip.instance=\"<urn:uuid:1>\";expires=;reg-id=",
    ] {
        for (expires, expected) in
            [("Expires: 300\r\n", Duration::from_secs(300)), ("Expires: \r\n", ASKED), ("", ASKED)]
        {
            let text = format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n\
                 Call-ID: 1\r\nCSeq: 1 REGISTER\r\nContact: {contact}\r\n{expires}\r\n"
            );
            let response = Message::parse_datagram(text.into_bytes()).expect("a response");
            assert_eq!(granted(&response, &own, ASKED), Some(expected), "{contact} {expires}");
        }
    }
}
