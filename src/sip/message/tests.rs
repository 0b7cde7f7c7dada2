use super::*;
use crate::sip::via::{Transport, Via};

const INVITE: &str = "INVITE sip:bob@biloxi.example.com SIP/2.0\r\n\
    Via: SIP/2.0/UDP pc33.atlanta.example.com;branch=z9hG4bK776asdhds;rport\r\n\
    v: SIP / 2.0 / TLS [2001:db8::1] : 5061 ;branch=z9hG4bKb, SIP/2.0/SCTP c.example.com\r\n\
    Max-Forwards: 0068\r\n\
    To: Bob <sip:bob@biloxi.example.com>\r\n\
    f: \"A \\\"B\\\", C\" <sip:alice@atlanta.example.com;user=phone>\r\n ;tag=1928301774\r\n\
    i: a84b4c76e66710@pc33\r\n\
    CSeq: 314159\r\n\t INVITE\r\n\
    m: <sip:alice@pc33.atlanta.example.com?a=b,c>;expires=5;+sip.instance=\"<urn:uuid:1>\",\r\n sip:b@c;q=0.1\r\n\
    X-Odd: \u{e9}\r\n\
    Content-Length: 4\r\n\
    \r\n\
    a\r\n\0";

#[test]
fn an_invite_is_read_field_by_field() {
    let message = Message::parse_datagram(INVITE.into()).unwrap();
    assert_eq!(message.method(), Some(Method::Invite));
    assert_eq!(message.request_uri(), Some(&b"sip:bob@biloxi.example.com"[..]));
    assert_eq!(message.status(), None);
    let vias: Vec<_> = message.vias().map(Result::unwrap).collect();
    assert_eq!(
        vias.iter().map(Via::sent_by).collect::<Vec<_>>(),
        ["pc33.atlanta.example.com", "[2001:db8::1]", "c.example.com"]
    );
    assert!(vias[0].wants_rport() && vias[0].branch() == Some("z9hG4bK776asdhds"));
    assert_eq!((vias[1].transport(), vias[1].sent_by_port()), (Some(Transport::Tls), Some(5061)));
    assert_eq!(vias[2].transport(), None);
    let from = message.from().unwrap();
    assert_eq!((from.display().as_deref(), from.tag()), (Some("A \"B\", C"), Some("1928301774")));
    assert_eq!(from.uri().param("USER"), Some(Some("phone")));
    assert_eq!(message.to().unwrap().tag(), None);
    assert_eq!(message.cseq(), Ok(CSeq { number: 314_159, method: Method::Invite }));
    assert_eq!(message.max_forwards(), Ok(Some(68)));
    let contacts: Vec<_> = message.contacts().map(Result::unwrap).collect();
    assert_eq!(contacts.len(), 2);
    assert_eq!(contacts[0].param("+sip.instance"), Some(Some("<urn:uuid:1>")));
    assert_eq!(contacts[0].uri().headers(), b"a=b,c");
    assert_eq!((contacts[1].param("q"), contacts[1].uri().raw()), (Some(Some("0.1")), &b"sip:b@c"[..]));
    assert_eq!(message.extension("x-odd"), Some("\u{e9}".as_bytes()));
    assert_eq!(message.body(), b"a\r\n\0");
}
