use super::*;

fn uri(text: &str) -> Uri<'_> {
    Uri::parse(text.as_bytes()).expect("a URI")
}

#[test]
fn parts_are_cut_where_the_grammar_cuts_them() {
    let full = uri("sips:alice:secret@Example.COM:5061;transport=tcp;lr?subject=x&priority=urgent");
    assert!(full.is_sips() && !full.is_sip());
    assert_eq!((full.user(), full.password()), (Some(&b"alice"[..]), Some(&b"secret"[..])));
    assert_eq!((full.host(), full.port()), (Host::Name("Example.COM"), Some(5061)));
    assert_eq!((full.param("Transport"), full.param("lr")), (Some(Some("tcp")), Some(None)));
    assert_eq!((full.param("ttl"), full.has_lr()), (None, true));
    assert_eq!(full.headers(), b"subject=x&priority=urgent");
}

#[test]
fn a_user_part_may_look_like_parameters() {
    let odd = uri("sip:+1-212;ext=5?x/y@h");
    assert_eq!((odd.user(), odd.host()), (Some(&b"+1-212;ext=5?x/y"[..]), Host::Name("h")));
    assert_eq!((odd.param("ext"), odd.headers()), (None, &b""[..]));
}

#[test]
fn bytes_beyond_ascii_in_the_user_part_are_kept() {
    let latin = Uri::parse(b"sip:J\xfcrgen#1@h").expect("a URI");
    assert_eq!(latin.user(), Some(&b"J\xfcrgen#1"[..]));
}

#[test]
fn other_schemes_parse_and_have_no_parts() {
    for text in ["tel:+15551234;phone-context=x", "urn:service:sos", "soap.beep://192.0.2.103:3002", "a:b"] {
        let other = uri(text);
        assert_eq!((other.user(), other.host(), other.port()), (None, Host::Name(""), None), "{text}");
        assert!(!other.is_sip() && other.param("phone-context").is_none());
    }
}

#[test]
fn addresses_are_told_from_names() {
    let address = |text: &'static str| uri(text).host();
    assert_eq!(address("sip:192.0.2.1"), Host::Address("192.0.2.1".parse().expect("an address")));
    assert_eq!(address("sip:a@[2001:DB8::1]:5060"), Host::Address("2001:db8::1".parse().expect("an address")));
    assert_eq!(address("sip:a@[::ffff:192.0.2.1]"), Host::Address("::ffff:192.0.2.1".parse().expect("an address")));
    assert_eq!(address("sip:host_1.example."), Host::Name("host_1.example."));
    assert_eq!(address("sip:5a3f9e.internal"), Host::Name("5a3f9e.internal"));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let doubtful = [
        "",
        ":",
        "sip",
        "sip:",
        "1sip:a@b",
        "sip:a@",
        "sip:a@b:",
        "sip:a@b:x",
        "sip:a@b:65536",
        "sip:a@b:50 60",
        "sip:a b@c",
        "<sip:a@b>",
        "sip:a@b\"",
        "sip:a@b\r\n",
        "sip:a@2001:db8::1",
        "sip:a@[2001:db8::1",
        "sip:a@[fe80::1%25eth0]",
        "sip:a@[192.0.2.1]",
        "sip:a@0177.0.0.1",
        "sip:a@0x7f.1",
        "sip:a@256.1.1.1",
        "sip:a@127.1",
        "sip:a@2130706433",
        "sip:a@b..c",
        "sip:a@.b",
        "sip:a@b;;lr",
        "sip:a@b;=x",
        "sip:a@b@c",
        "sip:a@b?",
        "sip:a@b?x=1&",
        "sip:a@b?=1",
        "tel:",
    ];
    for text in doubtful {
        assert!(Uri::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn three_colons_are_tolerated_as_rfc_5118_asks() {
    assert_eq!(uri("sip:a@[2001:db8:::192.0.2.1]").host(), uri("sip:a@[2001:db8::192.0.2.1]").host());
    for text in ["sip:a@[2001:db8:::1]", "sip:a@[1::2:::192.0.2.1]", "sip:a@[::::192.0.2.1]"] {
        assert!(Uri::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn equivalence_follows_the_examples_of_rfc_3261() {
    let same = [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("tel:+1", "TEL:+1"),
    ];
    let different = [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:a@h", "sips:a@h"),
        ("sip:a@h", "sip:h"),
        ("sip:a@h;maddr=192.0.2.1", "sip:a@h"),
        ("sip:a@h?x=1&x=1", "sip:a@h?x=1&x=2"),
        ("tel:+1", "tel:+2"),
    ];
    for (a, b) in same {
        assert!(equivalent(&uri(a), &uri(b)) && equivalent(&uri(b), &uri(a)), "{a} {b}");
    }
    for (a, b) in different {
        assert!(!equivalent(&uri(a), &uri(b)) && !equivalent(&uri(b), &uri(a)), "{a} {b}");
    }
}

#[test]
fn a_repeated_parameter_does_not_make_a_uri_differ_from_itself() {
    assert!(equivalent(&uri("sip:a@b;x=1;x=2"), &uri("sip:a@b;x=1;x=2")));
}

#[test]
fn absurdly_long_uris_are_compared_as_they_stand() {
    let long = format!("sip:a@b{}", ";x=1".repeat(COMPARED_MAX + 1));
    let upper = long.replace('x', "X");
    assert!(equivalent(&uri(&long), &uri(&long)) && !equivalent(&uri(&long), &uri(&upper)));
}

#[test]
fn escapes_are_undone_only_where_they_are_escapes() {
    assert_eq!(unescape(b"a%40b%2"), b"a@b%2");
    assert_eq!(unescape(b"%%41%zz%00%"), b"%A%zz\0%");
}
