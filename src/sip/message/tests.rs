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

/// A request with these lines, each ended by CRLF, and no body.
fn request(lines: &str) -> Message {
    datagram(&format!("OPTIONS sip:a SIP/2.0\r\n{lines}\r\n")).expect("a message")
}

fn datagram(text: &str) -> Result<Message, ParseError> {
    Message::parse_datagram(text.into())
}

fn frame(text: &str) -> Result<Message, ParseError> {
    Message::parse_frame(text.into())
}

#[test]
fn an_invite_is_read_field_by_field() {
    let message = datagram(INVITE).expect("a message");
    assert_eq!(message.method(), Some(Method::Invite));
    assert_eq!(message.request_uri(), Some(&b"sip:bob@biloxi.example.com"[..]));
    assert_eq!((message.status(), message.reason_phrase()), (None, &b""[..]));
    let vias: Vec<_> = message.vias().map(|via| via.expect("a Via")).collect();
    let sent_by: Vec<_> = vias.iter().map(Via::sent_by).collect();
    assert_eq!(sent_by, ["pc33.atlanta.example.com", "[2001:db8::1]", "c.example.com"]);
    assert!(vias[0].wants_rport() && vias[0].branch() == Some("z9hG4bK776asdhds"));
    assert_eq!((vias[1].transport(), vias[1].sent_by_port()), (Some(Transport::Tls), Some(5061)));
    let from = message.from().expect("an address");
    assert_eq!((from.display().as_deref(), from.tag()), (Some("A \"B\", C"), Some("1928301774")));
    assert_eq!(from.uri().param("USER"), Some(Some("phone")));
    assert_eq!(message.to().expect("an address").tag(), None);
    assert_eq!(message.cseq(), Ok(CSeq { number: 314_159, method: Method::Invite }));
    assert_eq!(message.max_forwards(), Ok(Some(68)));
    let contacts: Vec<_> = message.contacts().map(|contact| contact.expect("an address")).collect();
    assert_eq!(contacts.len(), 2);
    assert_eq!(contacts[0].param("+sip.instance"), Some(Some("<urn:uuid:1>")));
    assert_eq!(contacts[0].uri().headers(), b"a=b,c");
    assert_eq!((contacts[1].param("q"), contacts[1].uri().raw()), (Some(Some("0.1")), &b"sip:b@c"[..]));
    assert_eq!(message.extension("x-odd"), Some("\u{e9}".as_bytes()));
    assert_eq!(message.body(), b"a\r\n\0");
}

#[test]
fn header_fields_come_in_order_with_their_raw_names() {
    let message = datagram(INVITE).expect("a message");
    let names: Vec<_> = message.headers().map(|header| (header.raw_name, header.name)).collect();
    assert_eq!(names.len(), 10);
    assert_eq!(names[1], (&b"v"[..], HeaderName::Via));
    assert_eq!(names[8], (&b"X-Odd"[..], HeaderName::Other));
    assert_eq!(message.header(HeaderName::CSeq), Some(&b"314159  \t INVITE"[..]));
    assert_eq!(message.header(HeaderName::Expires), None);
    assert_eq!(message.values(HeaderName::Via).count(), 2);
    assert_eq!(message.list(HeaderName::Via).count(), 3);
}

#[test]
fn responses_are_read() {
    let message = datagram("sip/2.0 404 Not  Found here\r\nCSeq: 1 BYE\r\n\r\n").expect("a message");
    assert_eq!((message.method(), message.request_uri()), (None, None));
    assert_eq!((message.status(), message.reason_phrase()), (Some(StatusCode::NOT_FOUND), &b"Not  Found here"[..]));
    for silent in ["SIP/2.0 200 \r\n\r\n", "SIP/2.0 200\r\n\r\n"] {
        let message = datagram(silent).expect("a message");
        assert_eq!((message.status(), message.reason_phrase()), (Some(StatusCode::OK), &b""[..]));
    }
}

#[test]
fn malformed_start_lines_are_refused() {
    let malformed = [
        "",
        "\r\n",
        "\r\n\r\n",
        "INVITE\r\n\r\n",
        "INVITE sip:a\r\n\r\n",
        "INVITE sip:a SIP/2.0 \r\n\r\n",
        "INVITE  sip:a SIP/2.0\r\n\r\n",
        "INVITE sip:a  SIP/2.0\r\n\r\n",
        "INVITE sip:a b SIP/2.0\r\n\r\n",
        " INVITE sip:a SIP/2.0\r\n\r\n",
        "INV(TE sip:a SIP/2.0\r\n\r\n",
        "INVITE sip:a HTTP/1.1\r\n\r\n",
        "INVITE sip:a SIP/\r\n\r\n",
        "INVITE sip:a SIP/x.0\r\n\r\n",
        "INVITE sip:a SIP/2.0\n\n",
        "INVITE sip:a\rSIP/2.0\r\n\r\n",
        "INVITE sip:a\0 SIP/2.0\r\n\r\n",
        "INVITE sip:a\tb SIP/2.0\r\n\r\n",
        "SIP/2.0\r\n\r\n",
        "SIP/2.0 20\r\n\r\n",
        "SIP/2.0 099 x\r\n\r\n",
        "SIP/2.0 700 x\r\n\r\n",
        "SIP/2.0 2000 x\r\n\r\n",
        "SIP/2.0 +20 x\r\n\r\n",
        "SIP/2.0  200 x\r\n\r\n",
        "SIP/2.0\t200 x\r\n\r\n",
    ];
    for text in malformed {
        assert_eq!(datagram(text).err(), Some(ParseError::StartLine), "{text:?}");
    }
    for text in ["INVITE sip:a SIP/3.0\r\n\r\n", "INVITE sip:a SIP/2.10\r\n\r\n", "SIP/1.0 200 OK\r\n\r\n"] {
        assert_eq!(datagram(text).err(), Some(ParseError::Version), "{text:?}");
    }
}

#[test]
fn malformed_header_fields_are_refused() {
    let refused = |lines: &str| datagram(&format!("OPTIONS sip:a SIP/2.0\r\n{lines}")).err();
    for lines in [
        "X\r\n\r\n",
        ": x\r\n\r\n",
        "X Y: z\r\n\r\n",
        " X: y\r\n\r\n",
        "X: a\rb\r\n\r\n",
        "X: a\nTo: b\r\n\r\n",
        "X\r\n : y\r\n\r\n",
        "X: y\r\r\n\r\n",
    ] {
        assert_eq!(refused(lines), Some(ParseError::HeaderField), "{lines:?}");
    }
    for lines in ["", "X", "X: y", "X: y\r", "X: y\r\n", "X: y\r\n ", "X: y\r\n z"] {
        assert_eq!(refused(lines), Some(ParseError::Truncated), "{lines:?}");
    }
}

#[test]
fn folds_become_spaces_and_empty_values_stay_empty() {
    let message = request("Subject :\r\n  \r\n\tone\r\n two  \r\nX:\r\nY: \r\n \r\n");
    assert_eq!(message.extension("subject"), Some(&b"one   two"[..]));
    assert_eq!((message.extension("x"), message.extension("y")), (Some(&b""[..]), Some(&b""[..])));
    assert!(!message.bytes().windows(3).any(|three| three == b"\r\n " || three == b"\r\n\t"));
}

#[test]
fn content_length_is_obeyed_on_datagrams() {
    let body = |lines: &str| {
        datagram(&format!("OPTIONS sip:a SIP/2.0\r\n{lines}\r\nbody")).map(|message| message.body().to_vec())
    };
    assert_eq!(body(""), Ok(b"body".to_vec()));
    assert_eq!(body("l: 2\r\n"), Ok(b"bo".to_vec()));
    assert_eq!(body("Content-Length:\r\n 004\r\n"), Ok(b"body".to_vec()));
    let lies = [
        "l: 5\r\n",
        "l: 4\r\nl: 4\r\n",
        "l: 4\r\nContent-Length: 3\r\n",
        "l: -4\r\n",
        "l: +4\r\n",
        "l: 4,4\r\n",
        "l: 4 4\r\n",
        "l:\r\n",
        "l: four\r\n",
        "l: 18446744073709551620\r\n",
    ];
    for lie in lies {
        assert_eq!(body(lie), Err(ParseError::ContentLength), "{lie:?}");
    }
}

#[test]
fn content_length_is_there_and_exact_on_streams() {
    assert_eq!(
        frame("OPTIONS sip:a SIP/2.0\r\nl: 4\r\n\r\nbody").map(|message| message.body().to_vec()),
        Ok(b"body".to_vec())
    );
    for lines in ["", "l: 3\r\n", "l: 5\r\n", "l: 4\r\nl: 4\r\n"] {
        let text = format!("OPTIONS sip:a SIP/2.0\r\n{lines}\r\nbody");
        assert_eq!(frame(&text).err(), Some(ParseError::ContentLength), "{lines:?}");
    }
}

#[test]
fn limits_hold_to_the_field_and_to_the_byte() {
    let fields = |count: usize| format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(count));
    let sized = |size: usize| format!("OPTIONS sip:a SIP/2.0\r\n\r\n{}", "x".repeat(size - 25));
    for bounds in [Bounds::SHORT, Bounds::LONG, Bounds { bytes: 1000, fields: 3 }] {
        let parse = |text: String| Message::parse_datagram_within(text.into_bytes(), bounds);
        let count = |message: Message| message.headers().count();
        assert_eq!(parse(fields(bounds.fields)).map(count), Ok(bounds.fields));
        assert_eq!(parse(fields(bounds.fields + 1)).err(), Some(ParseError::TooManyHeaders));
        assert_eq!(parse(sized(bounds.bytes)).map(|message| message.bytes().len()), Ok(bounds.bytes));
        assert_eq!(parse(sized(bounds.bytes + 1)).err(), Some(ParseError::TooLarge));
    }
}

#[test]
fn the_last_of_many_fields_is_found_as_the_first() {
    let many = "X: y\r\n".repeat(LONG_HEADERS_MAX - 2);
    let text = format!("OPTIONS sip:a SIP/2.0\r\n{many}To: <sip:b>\r\nl: 0\r\n\r\n");
    let message = Message::parse_frame(text.into_bytes()).expect("within the widest bounds");
    assert_eq!(message.to().map(|to| to.raw().to_vec()), Ok(b"<sip:b>".to_vec()));
    assert_eq!(message.values(HeaderName::To).count(), 1);
    assert_eq!(message.headers().last().map(|header| header.name), Some(HeaderName::ContentLength));
}

#[test]
fn a_guard_lives_as_long_as_the_bytes() {
    let guard = Arc::new(());
    let message = datagram("OPTIONS sip:a SIP/2.0\r\n\r\nbody").expect("sound").guarded(Arc::clone(&guard));
    let (copy, bytes) = (message.clone(), message.bytes().slice(..7));
    message.wipe();
    drop(copy);
    assert_eq!((&bytes[..], Arc::strong_count(&guard)), (&b"OPTIONS"[..], 2));
    drop(bytes);
    assert_eq!(Arc::strong_count(&guard), 1);
}

#[test]
fn a_final_response_to_register_that_cannot_be_read_stands_for_a_failure() {
    let response = |start: &str, cseq: &str, contacts: usize| {
        let contacts = "m: <sip:x@y>\r\n".repeat(contacts);
        format!(
            "{start}\r\nv: SIP/2.0/UDP a;branch=b\r\nf: <sip:a>;tag=1\r\nt: <sip:a>;tag=2\r\ni: c\r\nCSeq: {cseq}\r\n{contacts}l: 0\r\n\r\n"
        )
    };
    for start in ["SIP/2.0 200 OK", "SIP/2.0 401 Unauthorized", "sip/2.0 603 No"] {
        let text = response(start, "1 REGISTER", 300);
        let salvaged = Message::salvage_registered(text.as_bytes()).expect("an exchange waits for it");
        assert_eq!(salvaged.status().map(StatusCode::code), Some(502));
        assert_eq!(salvaged.top_via().map(|via| via.branch()), Ok(Some("b")));
        assert_eq!((salvaged.contacts().count(), salvaged.challenges().count()), (0, 0));
    }
    for text in [
        response("SIP/2.0 100 Trying", "1 REGISTER", 1),
        response("SIP/2.0 200 OK", "1 INVITE", 1),
        response("REGISTER sip:a SIP/2.0", "1 REGISTER", 1),
        response("SIP/2.0 200 OK", "1 REGISTER", 1).replace("v:", "x:"),
    ] {
        assert!(Message::salvage_registered(text.as_bytes()).is_none(), "{text}");
    }
}

#[test]
fn the_request_uri_of_a_malformed_request_is_kept_where_it_can_be_read() {
    let salvaged = |line: &str| {
        let text = format!("{line}\r\nv: SIP/2.0/UDP a;branch=b\r\nf: Smith, Carol <sip:a>\r\n\r\n");
        Message::salvage(text.as_bytes()).and_then(|message| message.request_uri().map(<[u8]>::to_vec))
    };
    assert_eq!(salvaged("INVITE sip:me@b;cap=x SIP/2.0"), Some(b"sip:me@b;cap=x".to_vec()));
    assert_eq!(salvaged("INVITE  sip:me@b  SIP/2.0"), Some(b"sip:me@b".to_vec()));
    assert_eq!(salvaged("INVITE sip:me @b SIP/2.0"), Some(b"sip:malformed.invalid".to_vec()));
    assert_eq!(salvaged("INVITE SIP/2.0"), Some(b"sip:malformed.invalid".to_vec()));
}

#[test]
fn what_is_long_is_salvaged_too() {
    let long = "x".repeat(20_000);
    let text =
        format!("BYE sip:a SIP/2.0\r\nX: {long}\r\nv: SIP/2.0/UDP a;branch=b\r\nX: {long}\r\nl: 99999\r\n\r\n{long}");
    assert!(Message::salvage(text.as_bytes()).is_some());
}

#[test]
fn a_single_valued_field_that_comes_twice_is_no_field() {
    let twice = request(
        "To: sip:a@b\r\nt: sip:a@b\r\nFrom: sip:a@b, sip:c@d\r\nCall-ID: 1\r\ni: 1\r\nCSeq: 1 BYE\r\nCSeq: 1 BYE\r\nMax-Forwards: 1\r\nMax-Forwards: 1\r\nExpires: 1\r\nExpires: 1\r\n",
    );
    assert!(twice.to().is_err() && twice.from().is_err() && twice.call_id().is_err() && twice.cseq().is_err());
    assert!(twice.max_forwards().is_err() && twice.expires().is_err());
}

#[test]
fn missing_fields_are_errors_or_none() {
    let bare = request("");
    let missing = |name| Some(FieldError { name });
    assert_eq!(bare.top_via().err(), missing(HeaderName::Via));
    assert_eq!(bare.to().err(), missing(HeaderName::To));
    assert_eq!(bare.from().err(), missing(HeaderName::From));
    assert_eq!(bare.call_id().err(), missing(HeaderName::CallId));
    assert_eq!(bare.cseq().err(), missing(HeaderName::CSeq));
    assert_eq!((bare.max_forwards(), bare.expires(), bare.min_expires()), (Ok(None), Ok(None), Ok(None)));
    assert_eq!((bare.contacts().count(), bare.routes().count(), bare.retry_after()), (0, 0, None));
    assert!(!bare.contact_is_star());
}

#[test]
fn cseq_is_a_number_and_a_method() {
    let cseq = |value: &str| request(&format!("CSeq: {value}\r\n")).cseq().map(|cseq| cseq.number).ok();
    assert_eq!(cseq("0009\t INVITE"), Some(9));
    assert_eq!(cseq("4294967295 X"), Some(u32::MAX));
    for value in ["", "1", "1INVITE", "INVITE", "-1 INVITE", "1 IN VITE", "4294967296 INVITE", "1 INVITE;x"] {
        assert_eq!(cseq(value), None, "{value}");
    }
}

#[test]
fn call_ids_hold_no_white_space() {
    for (value, is_sound) in [("a@b", true), ("\"<>{}\\", true), ("a b", false), ("", false), ("a\0", false)] {
        assert_eq!(request(&format!("i: {value}\r\n")).call_id().is_ok(), is_sound, "{value:?}");
    }
}

#[test]
fn numbers_saturate_or_fail_as_their_rfc_wants() {
    let large = request("Expires: 4294967296\r\nMin-Expires: 99999999999999999999999\r\nMax-Forwards: 256\r\n");
    assert_eq!((large.expires(), large.min_expires()), (Ok(Some(u32::MAX)), Ok(Some(u32::MAX))));
    assert!(large.max_forwards().is_err());
    let malformed = request("Expires: Thu, 01 Dec 1994 16:00:00 GMT\r\nMin-Expires: -1\r\nMax-Forwards: 7 0\r\n");
    assert!(malformed.expires().is_err() && malformed.min_expires().is_err() && malformed.max_forwards().is_err());
}

#[test]
fn retry_after_is_read_past_its_comment() {
    let seconds =
        |value: &str| request(&format!("Retry-After: {value}\r\n")).retry_after().map(|pause| pause.as_secs());
    assert_eq!(seconds("120"), Some(120));
    assert_eq!(seconds("18000;duration=3600"), Some(18_000));
    assert_eq!(seconds("120 (I'm in a meeting)"), Some(120));
    assert_eq!((seconds("soon"), seconds("12x"), seconds("")), (None, None, None));
}

#[test]
fn a_star_contact_stands_alone() {
    assert!(request("Contact: *\r\n").contact_is_star());
    assert_eq!(request("m:*\r\n").contacts().count(), 0);
    for mixed in ["Contact: *\r\nContact: *\r\n", "Contact: *, <sip:a@b>\r\n", "Contact: \"*\" <sip:a@b>\r\n"] {
        assert!(!request(mixed).contact_is_star(), "{mixed:?}");
    }
    assert!(request("Contact: *, <sip:a@b>\r\n").contacts().any(|contact| contact.is_err()));
}

#[test]
fn lists_go_over_all_fields_of_a_name() {
    let message = request(
        "Route: <sip:a;lr>, <sip:b;lr>\r\nX: y\r\nRoute:\r\nRoute: <sip:c;lr>\r\nRecord-Route: <sip:d>\r\nrecord-route: bad\r\n",
    );
    let hosts: Vec<_> = message.routes().map(|route| route.expect("an address").uri().raw()).collect();
    assert_eq!(hosts, [b"sip:a;lr", b"sip:b;lr", b"sip:c;lr"]);
    assert_eq!(message.record_routes().map(|route| route.is_ok()).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn option_tags_are_found_in_any_case() {
    let message = request("Require: 100rel, , Timer\r\nk: path\r\nSupported: Outbound,gruu\r\n");
    assert!(message.requires("timer") && message.requires("100REL") && !message.requires("path"));
    assert!(message.supports("outbound") && message.supports("path") && !message.supports("out"));
}

#[test]
fn challenges_of_both_kinds_are_gathered() {
    let message = datagram(
        "SIP/2.0 401 Unauthorized\r\nProxy-Authenticate: Digest realm=\"p\",nonce=\"1\"\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
         WWW-Authenticate: Digest realm=\"a\",nonce=\"1\",algorithm=SHA-256, Digest realm=\"a\",nonce=\"1\"\r\n\r\n",
    )
    .expect("a message");
    let found: Vec<_> = message.challenges().map(|challenge| (challenge.proxy, challenge.realm.into_owned())).collect();
    assert_eq!(found, [(false, b"a".to_vec()), (false, b"a".to_vec()), (true, b"p".to_vec())]);
}

#[test]
fn credentials_are_found_by_realm() {
    let field = |realm: &str| {
        format!("Authorization: Digest username=\"u\",realm=\"{realm}\",nonce=\"n\",uri=\"sip:a\",response=\"r\"\r\n")
    };
    let message = request(&format!("Authorization: Basic eA==\r\n{}{}", field("one"), field("two")));
    let found = |realm| message.credentials(HeaderName::Authorization, realm).map(|found| found.realm.into_owned());
    assert_eq!((found("two"), found("three")), (Some("two".into()), None));
    assert!(message.credentials(HeaderName::ProxyAuthorization, "two").is_none());
}

#[test]
fn reasons_are_read() {
    let message =
        request("Reason: SIP ;cause=200 ;text=\"Call completed, elsewhere\", Q.850;cause=16, ;bad\r\nReason: X\r\n");
    let found: Vec<_> = message.reasons().map(|reason| (reason.protocol, reason.cause, reason.text)).collect();
    assert_eq!(
        found,
        [("SIP", Some(200), Some("Call completed, elsewhere")), ("Q.850", Some(16), None), ("X", None, None)]
    );
}

#[test]
fn known_names_map_both_ways_and_compact_forms_to_their_long_ones() {
    for (compact, long) in [
        ("i", "Call-ID"),
        ("m", "Contact"),
        ("l", "Content-Length"),
        ("c", "Content-Type"),
        ("f", "From"),
        ("k", "Supported"),
        ("t", "To"),
        ("v", "Via"),
        ("r", "Refer-To"),
        ("o", "Event"),
        ("u", "Allow-Events"),
        ("x", "Session-Expires"),
    ] {
        let name = HeaderName::parse(compact.to_ascii_uppercase().as_bytes());
        assert_eq!((name, name.as_str()), (HeaderName::parse(long.as_bytes()), long));
    }
    for unknown in ["", "Subject", "s", "Viaa", "WWW-Authenticatex", "An-Uncommonly-Long-Header-Name"] {
        assert_eq!(HeaderName::parse(unknown.as_bytes()), HeaderName::Other);
    }
    assert_eq!(HeaderName::parse(b"wWw-AUTHENTICATE").as_str(), "WWW-Authenticate");
}

#[test]
fn methods_are_case_sensitive_tokens() {
    assert_eq!(Method::parse(b"INVITE"), Some(Method::Invite));
    assert_eq!(Method::parse(b"invite"), Some(Method::Other("invite")));
    assert_eq!((Method::parse(b""), Method::parse(b"IN VITE"), Method::parse(b"\xff")), (None, None, None));
    assert_eq!(Method::Other("X").as_str(), "X");
}

#[test]
fn status_codes_know_their_class_and_reason() {
    assert_eq!((StatusCode::new(99), StatusCode::new(700)), (None, None));
    assert!(StatusCode::SESSION_PROGRESS.is_provisional() && StatusCode::ACCEPTED.is_success());
    assert_eq!(StatusCode::BUSY_HERE.reason(), "Busy Here");
    assert_eq!(StatusCode::new(499).map(StatusCode::reason), Some("Bad Request"));
}

#[test]
fn a_malformed_request_is_salvaged_as_far_as_a_reply_needs() {
    let broken = "INVITE  sip:a SIP/2.0 \nVia: SIP/2.0/TCP a;branch=b;;\r\n\tjunk\r\nnonsense\r\nTo: \"open\r\nTo: second\r\nf: sip:x@y\r\n ;tag=1\r\n\
        X-Evil: y\r\nCSeq: 1 INVITE\r\nContent-Length: lie\r\nCall-ID: c\r\n\r\nVia: SIP/2.0/TCP body\r\n";
    assert_eq!(datagram(broken).err(), Some(ParseError::StartLine));
    let salvaged = Message::salvage(broken.as_bytes()).expect("answerable");
    assert_eq!(salvaged.method(), Some(Method::Invite));
    assert_eq!(salvaged.top_via().map(|via| (via.sent_by(), via.branch())), Ok(("a", Some("b"))));
    assert_eq!(salvaged.values(HeaderName::Via).count(), 1);
    assert_eq!(salvaged.header(HeaderName::To), Some(&b"\"open"[..]));
    assert_eq!(salvaged.from().map(|from| from.tag()), Ok(Some("1")));
    assert_eq!((salvaged.call_id(), salvaged.cseq().map(|cseq| cseq.number)), (Ok(&b"c"[..]), Ok(1)));
    assert_eq!((salvaged.headers().count(), salvaged.body()), (6, &b""[..]));
}

#[test]
fn what_nobody_can_answer_is_not_salvaged() {
    let silent = [
        "",
        "\r\n\r\n",
        "garbage",
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\n\r\n",
        "SIP/2.0 99999 x\r\nVia: SIP/2.0/UDP a\r\n\r\n",
        "ACK sip:a SIP/3.0\r\nVia: SIP/2.0/UDP a\r\n\r\n",
        "INVITE sip:a SIP/2.0\r\nTo: x\r\n\r\n",
        "INVITE sip:a SIP/2.0\r\nVia: nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nVia: SIP/2.0/UDP a\r\n\r\n",
    ];
    for text in silent {
        assert!(Message::salvage(text.as_bytes()).is_none(), "{text:?}");
    }
}

#[test]
fn cloning_shares_the_buffer() {
    let message = datagram(INVITE).expect("a message");
    assert_eq!(message.clone().bytes().as_ptr(), message.bytes().as_ptr());
}

#[test]
fn debug_output_names_nobody() {
    let message = datagram(INVITE).expect("a message");
    let from = message.from().expect("an address");
    let shown = format!("{message:?} {from:?} {:?} {:?}", from.uri(), message.top_via());
    assert!(["alice", "bob", "atlanta", "biloxi"].iter().all(|name| !shown.contains(name)), "{shown}");
    assert!(shown.starts_with("Message { method: Some(Invite), bytes: "), "{shown}");
}
