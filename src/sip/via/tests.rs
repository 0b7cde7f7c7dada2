use super::*;

fn via(text: &str) -> Via<'_> {
    Via::parse(text.as_bytes()).expect("a Via")
}

#[test]
fn white_space_may_stand_around_each_separator() {
    let spaced =
        via("SIP / 2.0 \t/ UDP   first.example.com : 4000 ; ttl = 16 ;maddr=224.2.0.1 ;branch=z9hG4bKa7c6a8dlze.1");
    assert_eq!(
        (spaced.transport(), spaced.sent_by(), spaced.sent_by_port()),
        (Some(Transport::Udp), "first.example.com", Some(4000))
    );
    assert_eq!((spaced.param("TTL"), spaced.branch()), (Some(Some("16")), Some("z9hG4bKa7c6a8dlze.1")));
}

#[test]
fn rport_counts_with_and_without_a_value() {
    assert!(via("SIP/2.0/UDP a;rport").wants_rport());
    assert!(via("SIP/2.0/UDP a;branch=b;RPORT=5060").wants_rport());
    assert!(!via("SIP/2.0/UDP a;branch=rport").wants_rport());
}

#[test]
fn ipv6_sent_by_keeps_its_brackets_and_loses_its_port() {
    let six = via("SIP/2.0/TLS [2001:db8::9:1]:5061;received=2001:db8::9:255");
    assert_eq!((six.sent_by(), six.sent_by_port()), ("[2001:db8::9:1]", Some(5061)));
    assert_eq!(six.host(), Host::Address("2001:db8::9:1".parse().expect("an address")));
    assert_eq!(six.param("received"), Some(Some("2001:db8::9:255")));
}

#[test]
fn unknown_transports_are_no_error() {
    assert_eq!(via("SIP/2.0/SCTP a").transport(), None);
    assert_eq!(via("SIP/2.0/wss a").transport(), Some(Transport::Wss));
}

#[test]
fn malformed_vias_are_refused() {
    let malformed = [
        "",
        "SIP/2.0 a",
        "SIP/2.0/UDP",
        "SIP/2.0/UDP ",
        "SIP/2.0/UDPa:5060",
        "SIP/2.0/UDP a:",
        "SIP/2.0/UDP a:99999",
        "SIP/2.0/UDP 2001:db8::1",
        "SIP/2.0/UDP a b",
        "SIP/2.0/UDP a;;branch=x",
        "SIP/2.0/UDP a;branch=",
        "SIP/2.0/UDP a, SIP/2.0/UDP b",
        "/2.0/UDP a",
    ];
    for text in malformed {
        assert!(Via::parse(text.as_bytes()).is_err(), "{text:?}");
    }
}

#[test]
fn transports_have_one_name_for_each_place() {
    for transport in Transport::ALL {
        assert_eq!(Transport::from_param(transport.as_via()), Some(transport));
        assert_eq!(transport.as_param().to_ascii_uppercase(), transport.as_via());
    }
    assert_eq!(Transport::from_param("sctp"), None);
    assert!(!Transport::Udp.is_reliable() && Transport::Ws.is_reliable());
    assert_eq!((Transport::Tcp.default_port(), Transport::Tls.default_port()), (5060, 5061));
}
