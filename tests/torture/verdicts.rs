//! Each message gets the verdict of its RFC, and what is valid is read as meant.

use std::net::IpAddr;

use reveille::sip::framing::{Frame, Framer};
use reveille::sip::uri::{Host, Uri, unescape};
use reveille::sip::{CSeq, HeaderName, Message, Method, StatusCode, Transport};

use crate::corpus::{self, RFC_4475, RFC_5118, Verdict};

#[test]
fn the_corpus_is_whole() {
    assert_eq!((RFC_4475.len(), RFC_5118.len()), (49, 12));
}

#[test]
fn every_message_gets_the_verdict_of_its_rfc() {
    for case in RFC_4475.iter().chain(RFC_5118) {
        assert_eq!(verdict(case.bytes), case.verdict, "{} {}", case.section, case.name);
    }
}

#[test]
fn a_short_tortuous_invite_is_read_whole() {
    let message = parse("wsinv");
    assert_eq!(message.method(), Some(Method::Invite));
    let uri = Uri::parse(message.request_uri().expect("a request")).expect("valid");
    assert_eq!(uri.param("unknownparam"), Some(None));
    let to = message.to().expect("valid");
    assert_eq!((to.uri().raw(), to.tag()), (&b"sip:vivekg@chair-dnrc.example.com"[..], Some("1918181833n")));
    let from = message.from().expect("valid");
    assert_eq!((from.display().as_deref(), from.tag()), (Some("J Rosenberg \\\""), Some("98asjd8")));
    assert_eq!(message.max_forwards(), Ok(Some(68)));
    assert_eq!(message.cseq(), Ok(CSeq { number: 9, method: Method::Invite }));
    let vias: Vec<_> = message.vias().map(|via| via.expect("valid")).collect();
    let hops: Vec<_> = vias.iter().map(|via| (via.transport(), via.sent_by(), via.branch())).collect();
    assert_eq!(
        hops,
        [
            (Some(Transport::Udp), "192.0.2.2", Some("390skdjuw")),
            (Some(Transport::Tcp), "spindle.example.com", Some("z9hG4bK9ikj8")),
            (Some(Transport::Udp), "192.168.255.111", Some("z9hG4bK30239")),
        ]
    );
    let contact = message.contacts().next().expect("one").expect("valid");
    assert_eq!(contact.display().as_deref(), Some("Quoted string \"\""));
    assert_eq!((contact.param("newparam"), contact.param("secondparam")), (Some(Some("newvalue")), Some(None)));
    assert_eq!(contact.param("q"), Some(Some("0.33")));
    let route = message.routes().next().expect("one").expect("valid");
    assert!(route.uri().has_lr() && route.uri().param("unknown-no-value") == Some(None));
    assert_eq!(message.extension("unknownheaderwithunusualvalue"), Some(&b";;,,;;,;"[..]));
    assert_eq!(message.extension("s"), Some(&b""[..]));
    assert_eq!(message.body().len(), 150);
}

#[test]
fn unusual_characters_arrive_unharmed() {
    let message = parse("intmeth");
    assert_eq!(message.method(), Some(Method::Other("!interesting-Method0123456789_*+`.%indeed'~")));
    assert_eq!(message.cseq().map(|cseq| Some(cseq.method)), Ok(message.method()));
    let uri = Uri::parse(message.request_uri().expect("a request")).expect("valid");
    assert_eq!(uri.user(), Some(&b"1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"[..]));
    assert_eq!(uri.password(), Some(&b"&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"[..]));
    assert_eq!(message.to().expect("valid").display().as_deref(), Some("BEL:\u{7} NUL:\0 DEL:\u{7f}"));
    let from = message.from().expect("valid");
    assert_eq!(from.display().as_deref(), Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(from.param("fromParam''~+*_!.-%"), Some(Some("работающий")));
    assert_eq!(from.tag(), Some("_token~1'+`*%!-."));
    assert_eq!(message.call_id(), Ok(&b"intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"[..]));
}

#[test]
fn percent_escapes_are_undone_where_they_are_escapes() {
    let escaped = parse("esc01");
    let uri = Uri::parse(escaped.request_uri().expect("a request")).expect("valid");
    assert_eq!(uri.user().map(unescape), Some(b"sips:user@example.com".to_vec()));
    let contact = escaped.contacts().next().expect("one").expect("valid");
    assert!(contact.uri().has_lr());
    assert_eq!(contact.uri().param("name"), Some(Some("v%61lue%25%34%31")));

    let not_escaped = parse("esc02");
    assert_eq!(not_escaped.method(), Some(Method::Other("RE%47IST%45R")));
    let nulls = parse("escnull");
    assert_eq!(nulls.to().expect("valid").uri().user().map(unescape), Some(b"null-\0-null".to_vec()));
    assert_eq!(nulls.contacts().filter(Result::is_ok).count(), 2);
    let semicolon = parse("semiuri");
    let uri = Uri::parse(semicolon.request_uri().expect("a request")).expect("valid");
    assert_eq!(uri.user().map(unescape), Some(b"user;par=u@example.net".to_vec()));
}

#[test]
fn trailing_octets_of_a_datagram_are_cut() {
    let message = parse("dblreq");
    assert_eq!((message.method(), message.body()), (Some(Method::Register), &b""[..]));
    assert!(message.bytes().len() < corpus::bytes("dblreq").len());
}

#[test]
fn bodies_and_reason_phrases_are_bytes() {
    let whole = corpus::bytes("mpart01");
    assert!(whole.ends_with(parse("mpart01").body()) && parse("mpart01").body().contains(&0));
    let unusual = parse("unreason");
    assert_eq!(unusual.status(), Some(StatusCode::OK));
    assert_eq!(unusual.reason_phrase(), "= 2**3 * 5**2 но сто девяносто девять - простое".as_bytes());
    let empty = parse("noreason");
    assert_eq!((empty.status(), empty.reason_phrase()), (Some(StatusCode::TRYING), &b""[..]));
}

#[test]
fn overlarge_scalars_are_errors_or_saturate() {
    let request = parse("scalar02");
    assert!(request.cseq().is_err() && request.max_forwards().is_err());
    assert_eq!(request.expires(), Ok(Some(u32::MAX)));
    let response = parse("scalarlg");
    assert!(response.cseq().is_err());
    assert_eq!(response.retry_after().map(|pause| pause.as_secs()), Some(u64::from(u32::MAX)));
}

#[test]
fn header_parameters_and_uri_parameters_of_contacts_are_told_apart() {
    let outside = parse("cparam01");
    let outside = outside.contacts().next().expect("one").expect("valid");
    assert_eq!((outside.param("unknownparam"), outside.uri().param("unknownparam")), (Some(None), None));
    let inside = parse("cparam02");
    let inside = inside.contacts().next().expect("one").expect("valid");
    assert_eq!((inside.param("unknownparam"), inside.uri().param("unknownparam")), (None, Some(None)));
    let header = parse("regescrt");
    let header = header.contacts().next().expect("one").expect("valid");
    assert_eq!(header.uri().headers(), b"Route=%3Csip:sip.example.com%3E");
}

#[test]
fn ipv6_references_are_read_as_meant() {
    let uri_of = |name: &str| {
        let message = parse(name);
        let uri = Uri::parse(message.request_uri().expect("a request")).expect("valid");
        (address(uri.host()), uri.port())
    };
    assert_eq!(uri_of("ipv6-good"), (ip("2001:db8::10"), None));
    assert_eq!(uri_of("port-ambiguous"), (ip("2001:db8::10:5070"), None));
    assert_eq!(uri_of("port-unambiguous"), (ip("2001:db8::10"), Some(5070)));
    assert_eq!(uri_of("ipv6-bug-abnf-3-colons"), uri_of("ipv6-correct-abnf-2-colons"));
    for name in ["via-received-param-with-delim", "via-received-param-no-delim"] {
        let message = parse(name);
        let received = message.top_via().expect("valid").param("received").flatten().expect("there");
        assert_eq!(received.trim_matches(['[', ']']), "2001:db8::9:255");
    }
    let hops = parse("mult-ip-in-header");
    let hosts: Vec<_> = hops.vias().map(|via| address(via.expect("valid").host())).collect();
    assert_eq!(hosts, [ip("2001:db8::9:1"), ip("192.0.2.1"), ip("2001:db8::9:255")]);
    assert_eq!(hops.top_via().expect("valid").sent_by_port(), Some(6050));
    assert_eq!(address(parse("ipv4-mapped-ipv6").top_via().expect("valid").host()), ip("::ffff:192.0.2.10"));
}

#[test]
fn a_stream_of_the_whole_corpus_gives_each_message_back_at_every_chunk_size() {
    let framed: Vec<_> = RFC_4475.iter().map(|case| case.bytes).filter(|bytes| is_framed(bytes)).collect();
    assert!(framed.len() > 30, "most of the corpus has a Content-Length");
    let stream = framed.concat();
    for size in [1, 2, 3, 7, 64, 1000, stream.len()] {
        let mut framer = Framer::default();
        let mut messages = Vec::new();
        for chunk in stream.chunks(size) {
            framer.push(chunk);
            while let Some(frame) = framer.next_frame().expect("framed") {
                if let Frame::Message(bytes) = frame {
                    messages.push(bytes);
                }
            }
        }
        assert_eq!(messages, framed, "chunks of {size}");
    }
}

/// Whether the message says on its own where it ends, and ends there.
fn is_framed(bytes: &[u8]) -> bool {
    let mut framer = Framer::default();
    framer.push(bytes);
    matches!(framer.next_frame(), Ok(Some(Frame::Message(message))) if message == bytes)
}

fn parse(name: &str) -> Message {
    Message::parse_datagram(corpus::bytes(name).to_vec()).expect("the message parses")
}

fn verdict(bytes: &[u8]) -> Verdict {
    match Message::parse_datagram(bytes.to_vec()) {
        Err(error) if Message::salvage(bytes).is_some() => Verdict::Refuse(error.status().code()),
        Err(_) => Verdict::Drop,
        Ok(message) => match fault(&message) {
            None => Verdict::Process,
            Some(status) if Message::salvage(bytes).is_some() => Verdict::Refuse(status),
            Some(_) => Verdict::Drop,
        },
    }
}

/// RFC 3261 §16.3 in short, over everything this layer can read.
fn fault(message: &Message) -> Option<u16> {
    let addresses = message.contacts().chain(message.routes()).chain(message.record_routes());
    let is_sound = message.top_via().is_ok()
        && message.vias().all(|via| via.is_ok())
        && addresses.into_iter().all(|address| address.is_ok())
        && message.from().is_ok()
        && message.to().is_ok()
        && message.call_id().is_ok()
        && message.cseq().is_ok()
        && message.max_forwards().is_ok();
    if !is_sound || message.method().is_some_and(|method| message.cseq().map(|cseq| cseq.method) != Ok(method)) {
        return Some(400);
    }
    let uri = match message.request_uri().map(Uri::parse)? {
        Ok(uri) if uri.headers().is_empty() => uri,
        _ => return Some(400),
    };
    if !uri.is_sip() && !uri.is_sips() {
        return Some(416);
    }
    if message.max_forwards() == Ok(Some(0)) {
        return Some(483);
    }
    message.header(HeaderName::ProxyRequire).map(|_| 420)
}

fn address(host: Host<'_>) -> Option<IpAddr> {
    match host {
        Host::Address(address) => Some(address),
        Host::Name(_) => None,
    }
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
