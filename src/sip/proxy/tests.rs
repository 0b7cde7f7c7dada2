//! Whole messages before and after, byte for byte.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

const INVITE: &str = "INVITE sip:cap@203.0.113.5 SIP/2.0\r\n\
    Via: SIP/2.0/UDP pbx.example.com;rport;branch=z9hG4bKp2 , SIP/2.0/TCP 10.0.0.9:5070;branch=z9hG4bKp1\r\n\
    v: SIP/2.0/TLS far.example.com;branch=z9hG4bKp0\r\n\
    Record-Route: <sip:pbx.example.com;lr>\r\n\
    f: \"A, \\\"B\\\"\"  <sip:a@example.com>;tag=f1\r\n\
    Route: <sip:ours1;lr>, <sip:ours2;lr> , <sip:next.example.com;lr>;x=\"a,b\"\r\n\
    Route: <sip:last.example.com;lr>\r\n\
    To: <sip:cap@203.0.113.5>\r\n\
    i: c1@pbx\r\n\
    CSeq: 314159 INVITE\r\n\
    Max-Forwards: 7\r\n\
    Contact: <sip:pbx@192.0.2.1>\r\n\
    P-Odd:  a ;; b\t \"\r\n\
    Reveille-Call: forged\r\n\
    l: 4\r\n\
    Subject: last\r\n\
    \r\n\
    \0\x01\r\n";

#[test]
fn a_forwarded_request_changes_only_what_a_proxy_may_change() {
    let change = Forward {
        request_uri: b"sip:alice@192.0.2.77:50000;transport=tcp",
        routes_dropped: 2,
        record_routes: &["<sip:t1@203.0.113.5;transport=tcp;lr>".into(), "<sip:t2@203.0.113.5;lr>".into()],
        extra: &[("reveille-call", "ID".into())],
        ..forward()
    };
    let source = Some((address("192.0.2.1:5065"), Transport::Udp));
    let expected = "INVITE sip:alice@192.0.2.77:50000;transport=tcp SIP/2.0\r\n\
        Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n\
        Record-Route: <sip:t1@203.0.113.5;transport=tcp;lr>\r\n\
        Record-Route: <sip:t2@203.0.113.5;lr>\r\n\
        Via: SIP/2.0/UDP pbx.example.com;branch=z9hG4bKp2;received=192.0.2.1;rport=5065, SIP/2.0/TCP 10.0.0.9:5070;branch=z9hG4bKp1\r\n\
        v: SIP/2.0/TLS far.example.com;branch=z9hG4bKp0\r\n\
        Record-Route: <sip:pbx.example.com;lr>\r\n\
        f: \"A, \\\"B\\\"\"  <sip:a@example.com>;tag=f1\r\n\
        Route: <sip:next.example.com;lr>;x=\"a,b\"\r\n\
        Route: <sip:last.example.com;lr>\r\n\
        To: <sip:cap@203.0.113.5>\r\n\
        i: c1@pbx\r\n\
        CSeq: 314159 INVITE\r\n\
        Max-Forwards: 6\r\n\
        Contact: <sip:pbx@192.0.2.1>\r\n\
        P-Odd: a ;; b\t \"\r\n\
        Subject: last\r\n\
        reveille-call: ID\r\n\
        Content-Length: 4\r\n\
        \r\n\
        \0\x01\r\n";
    assert_eq!(forwarded(INVITE, source, &change), expected);
}

#[test]
fn routes_are_dropped_across_fields() {
    for (dropped, left) in [
        (0, vec!["<sip:ours1;lr>, <sip:ours2;lr> , <sip:next.example.com;lr>;x=\"a,b\"", "<sip:last.example.com;lr>"]),
        (1, vec!["<sip:ours2;lr> , <sip:next.example.com;lr>;x=\"a,b\"", "<sip:last.example.com;lr>"]),
        (3, vec!["<sip:last.example.com;lr>"]),
        (4, vec![]),
        (9, vec![]),
    ] {
        let text = forwarded(INVITE, None, &Forward { routes_dropped: dropped, ..forward() });
        let routes: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("Route: ")).collect();
        assert_eq!(routes, left, "{dropped} dropped");
    }
}

#[test]
fn a_request_without_max_forwards_gets_one_and_two_become_one() {
    let hops = |text: &str| {
        let text = forwarded(text, None, &forward());
        text.lines().filter(|line| line.starts_with("Max-Forwards")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(hops(&INVITE.replace("Max-Forwards: 7\r\n", "")), ["Max-Forwards: 70"]);
    assert_eq!(hops(&INVITE.replace("Max-Forwards: 7", "Max-Forwards: 0")), ["Max-Forwards: 0"]);
    assert_eq!(hops(&INVITE.replace("l: 4", "Max-Forwards: 200\r\nl: 4")).len(), 1);
}

#[test]
fn without_a_source_the_previous_via_stays_as_it_is() {
    let text = forwarded(INVITE, None, &forward());
    assert!(
        text.contains("\r\nVia: SIP/2.0/UDP pbx.example.com;rport;branch=z9hG4bKp2 , SIP/2.0/TCP 10.0.0.9:5070"),
        "{text}"
    );
}

#[test]
fn a_forwarded_response_loses_our_via_and_nothing_else() {
    let response = "SIP/2.0 183 Bitte  warten\r\n\
        Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n\
        Via: SIP/2.0/UDP pbx.example.com;branch=z9hG4bKp2\r\n\
        To: <sip:a@b>;tag=t1\r\n\
        X: y\r\n\
        Content-Length: 3\r\n\r\n\0\x01\x02";
    let expected = response.replace("Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n", "");
    assert_eq!(passed_on(response, None), expected);

    let joined = response.replace("ours\r\nVia: ", "ours , ");
    assert_eq!(passed_on(&joined, None), expected);
}

#[test]
fn a_503_goes_on_as_500_with_its_own_phrase() {
    let response = "SIP/2.0 503 Odd Phrase\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKo\r\nContent-Length: 0\r\n\r\n";
    let as_500 = passed_on(response, Some(StatusCode::SERVER_INTERNAL_ERROR));
    assert!(as_500.starts_with("SIP/2.0 500 Server Internal Error\r\n"), "{as_500}");
    let same = passed_on(response, Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(same.starts_with("SIP/2.0 503 Odd Phrase\r\n"), "{same}");
}

#[test]
fn a_reply_copies_what_a_response_needs_and_adds_the_tag() {
    let reply = Reply {
        to_tag: Some("t1"),
        source: Some(address("192.0.2.1:5065")),
        record_route: true,
        extra: &[("Contact", "<sip:once@203.0.113.5>".into())],
        ..reply(StatusCode::RINGING)
    };
    let expected = "SIP/2.0 180 Ringing\r\n\
        Via: SIP/2.0/UDP pbx.example.com;branch=z9hG4bKp2;received=192.0.2.1;rport=5065, SIP/2.0/TCP 10.0.0.9:5070;branch=z9hG4bKp1\r\n\
        v: SIP/2.0/TLS far.example.com;branch=z9hG4bKp0\r\n\
        Record-Route: <sip:pbx.example.com;lr>\r\n\
        f: \"A, \\\"B\\\"\"  <sip:a@example.com>;tag=f1\r\n\
        To: <sip:cap@203.0.113.5>;tag=t1\r\n\
        i: c1@pbx\r\n\
        CSeq: 314159 INVITE\r\n\
        Contact: <sip:once@203.0.113.5>\r\n\
        Content-Length: 0\r\n\r\n";
    assert_eq!(replied(INVITE, &reply), expected);
    assert!(!replied(INVITE, &Reply { record_route: false, ..reply }).contains("Record-Route"));
}

#[test]
fn a_tag_is_added_only_where_missing_and_never_to_a_100() {
    let tagged = |to: &str, code| {
        let request = INVITE.replace("To: <sip:cap@203.0.113.5>", &format!("To: {to}"));
        let text = replied(&request, &Reply { to_tag: Some("new"), ..reply(code) });
        text.lines().find_map(|line| line.strip_prefix("To: ").map(str::to_owned)).expect("a To")
    };
    assert_eq!(tagged("<sip:c@d>", StatusCode::OK), "<sip:c@d>;tag=new");
    assert_eq!(tagged("sip:c@d", StatusCode::OK), "sip:c@d;tag=new");
    assert_eq!(tagged("<sip:c@d;tag=uri>;x=1", StatusCode::OK), "<sip:c@d;tag=uri>;x=1;tag=new");
    assert_eq!(tagged("<sip:c@d>;TAG=old", StatusCode::OK), "<sip:c@d>;TAG=old");
    assert_eq!(tagged("<sip:c@d>", StatusCode::TRYING), "<sip:c@d>");
    assert_eq!(tagged("<sip:c@d", StatusCode::BAD_REQUEST), "<sip:c@d", "malformed: returned as it came");
}

#[test]
fn only_a_100_returns_the_timestamp() {
    let request = INVITE.replace("CSeq", "Timestamp: 54.2\r\nCSeq");
    assert!(replied(&request, &reply(StatusCode::TRYING)).contains("Timestamp: 54.2\r\n"));
    assert!(!replied(&request, &reply(StatusCode::RINGING)).contains("Timestamp"));
}

#[test]
fn bytes_that_are_no_text_come_back_as_they_were() {
    let latin1 = |text: &str| -> Vec<u8> { text.bytes().map(|byte| if byte == b'~' { 0xfc } else { byte }).collect() };
    let request = INVITE.replace("To: <sip:cap@203.0.113.5>", "To: \"B~ro\" <sip:c@d>");
    let request = Message::parse_datagram(latin1(&request)).expect("a request");
    let mut out = Vec::new();
    write_reply(&request, &Reply { to_tag: Some("t"), ..reply(StatusCode::OK) }, &mut out)
        .expect("all fields are there");
    let expected = latin1("\r\nTo: \"B~ro\" <sip:c@d>;tag=t\r\n");
    assert!(out.windows(expected.len()).any(|window| window == expected), "{}", String::from_utf8_lossy(&out));
}

#[test]
fn without_a_mandatory_field_there_is_nobody_to_answer() {
    for (field, name) in
        [("To: ", HeaderName::To), ("f: ", HeaderName::From), ("i: ", HeaderName::CallId), ("CSeq: ", HeaderName::CSeq)]
    {
        let request = parse(&INVITE.replace(&format!("\r\n{field}"), "\r\nX-Gone: "));
        let mut out = Vec::new();
        assert_eq!(write_reply(&request, &reply(StatusCode::OK), &mut out), Err(FieldError { name }));
        assert!(out.is_empty());
    }
}

#[test]
fn nothing_added_can_become_a_header_of_its_own() {
    let evil = || vec![("X-Note", "a\r\nEvil: 1\r\n\r\nbody".to_owned())];
    let text = replied(INVITE, &Reply { extra: &evil(), to_tag: Some("t\r\nEvil: 2"), ..reply(StatusCode::OK) });
    assert!(!text.lines().any(|line| line.starts_with("Evil")), "{text}");
    let text = forwarded(INVITE, None, &Forward { extra: &evil(), request_uri: b"sip:a\r\nEvil: 3", ..forward() });
    assert!(!text.lines().any(|line| line.starts_with("Evil")), "{text}");
}

#[test]
fn an_ack_is_written_as_rfc_3261_17_1_1_3_says() {
    let sent = forwarded(INVITE, None, &Forward { routes_dropped: 2, ..forward() });
    let refusal = "SIP/2.0 486 Busy Here\r\nTo: <sip:cap@203.0.113.5>;tag=t9\r\nContent-Length: 0\r\n\r\n";
    let mut out = Vec::new();
    write_ack(&parse(&sent), &parse(refusal), &mut out).expect("all fields are there");
    let expected = "ACK sip:alice@192.0.2.77 SIP/2.0\r\n\
        Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n\
        Route: <sip:next.example.com;lr>;x=\"a,b\"\r\n\
        Route: <sip:last.example.com;lr>\r\n\
        Max-Forwards: 70\r\n\
        From: \"A, \\\"B\\\"\"  <sip:a@example.com>;tag=f1\r\n\
        To: <sip:cap@203.0.113.5>;tag=t9\r\n\
        Call-ID: c1@pbx\r\n\
        CSeq: 314159 ACK\r\n\
        Content-Length: 0\r\n\r\n";
    assert_eq!(text(out), expected);
}

#[test]
fn a_cancel_is_written_as_rfc_3261_9_1_says_and_matches_its_invite() {
    let sent = parse(&forwarded(INVITE, None, &Forward { routes_dropped: 2, ..forward() }));
    let mut out = Vec::new();
    write_cancel(&sent, Some("SIP;cause=200;text=\"Call completed elsewhere\""), &mut out)
        .expect("all fields are there");
    let expected = "CANCEL sip:alice@192.0.2.77 SIP/2.0\r\n\
        Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n\
        Route: <sip:next.example.com;lr>;x=\"a,b\"\r\n\
        Route: <sip:last.example.com;lr>\r\n\
        Max-Forwards: 70\r\n\
        From: \"A, \\\"B\\\"\"  <sip:a@example.com>;tag=f1\r\n\
        To: <sip:cap@203.0.113.5>\r\n\
        Call-ID: c1@pbx\r\n\
        CSeq: 314159 CANCEL\r\n\
        Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n\
        Content-Length: 0\r\n\r\n";
    assert_eq!(text(out.clone()), expected);
    assert!(crate::sip::transaction::cancels(&parse(&text(out)), &sent));
}

#[test]
fn own_requests_in_a_dialog_leave_the_callers_side_behind() {
    let ours = "<sip:t1@203.0.113.5;transport=tcp;lr>, <sip:t2@203.0.113.5;lr>, <sip:pbx.example.com;lr>";
    let accepted = |record_route: &str| {
        format!(
            "SIP/2.0 200 OK\r\nRecord-Route: {record_route}\r\nTo: <sip:cap@203.0.113.5>;tag=t9\r\n\
             Contact: \"Al\" <sip:alice@192.0.2.88;ob>;q=1\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let direct = "ACK sip:alice@192.0.2.88;ob SIP/2.0\r\n\
        Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n\
        Max-Forwards: 70\r\n\
        From: \"A, \\\"B\\\"\"  <sip:a@example.com>;tag=f1\r\n\
        To: <sip:cap@203.0.113.5>;tag=t9\r\n\
        Call-ID: c1@pbx\r\n\
        CSeq: 314159 ACK\r\n\
        Content-Length: 0\r\n\r\n";
    assert_eq!(in_dialog(Method::Ack, &accepted(ours)), direct);

    let beyond = in_dialog(Method::Bye, &accepted(&format!("<sip:p2;lr>, <sip:p1;lr>, {ours}")));
    let head = "BYE sip:alice@192.0.2.88;ob SIP/2.0\r\n\
        Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n\
        Route: <sip:p1;lr>\r\n\
        Route: <sip:p2;lr>\r\n\
        Max-Forwards: 70\r\n";
    assert!(beyond.starts_with(head), "{beyond}");
    assert!(beyond.contains("\r\nCSeq: 314160 BYE\r\n"), "{beyond}");

    let mangled = ours.replace(", <sip:pbx.example.com;lr>", "");
    let shortened = in_dialog(Method::Bye, &accepted(&format!("<sip:p1;lr>, {mangled}")));
    assert!(shortened.contains("\r\nRoute: <sip:p1;lr>\r\nMax-Forwards"), "{shortened}");

    let strict = in_dialog(Method::Bye, &accepted(&format!("<sip:p2;lr>, <sip:p1>, {ours}")));
    let head = "BYE sip:p1 SIP/2.0\r\n\
        Via: SIP/2.0/TCP 203.0.113.5:5060;branch=z9hG4bKours\r\n\
        Route: <sip:p2;lr>\r\n\
        Route: <sip:alice@192.0.2.88;ob>\r\n";
    assert!(strict.starts_with(head), "{strict}");
}

#[test]
fn a_phone_that_mirrors_no_record_route_is_reached_directly() {
    let text = in_dialog(
        Method::Bye,
        "SIP/2.0 200 OK\r\nTo: <sip:c@d>;tag=t9\r\nContact: sip:alice@192.0.2.88\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(text.starts_with("BYE sip:alice@192.0.2.88 SIP/2.0\r\n") && !text.contains("Route"), "{text}");
}

#[test]
fn a_dialog_without_a_contact_cannot_be_spoken_in() {
    let response = parse("SIP/2.0 200 OK\r\nTo: <sip:c@d>;tag=t9\r\nContent-Length: 0\r\n\r\n");
    let mut out = Vec::new();
    let refused = write_in_dialog(Method::Bye, &parse(INVITE), &response, forward().via, 2, &mut out);
    assert_eq!(refused, Err(FieldError { name: HeaderName::Contact }));
    assert!(out.is_empty());
}

#[test]
fn a_sound_request_may_be_forwarded() {
    assert_eq!(validate(&parse(INVITE)), Ok(()));
    assert_eq!(validate(&parse(&INVITE.replace("Max-Forwards: 7\r\n", ""))), Ok(()));
}

#[test]
fn each_reason_against_forwarding_has_its_status() {
    let status = |from: &str, to: &str| {
        assert!(INVITE.contains(from));
        validate(&parse(&INVITE.replace(from, to))).map_err(|reason| reason.status().code())
    };
    assert_eq!(status("Max-Forwards: 7", "Max-Forwards: 0"), Err(483));
    assert_eq!(status("Max-Forwards: 7", "Max-Forwards: many"), Err(400));
    assert_eq!(status("CSeq: 314159 INVITE", "CSeq: 314159 BYE"), Err(400));
    assert_eq!(status("\r\nTo: ", "\r\nX: "), Err(400));
    assert_eq!(status("\r\nf: ", "\r\nX: "), Err(400));
    assert_eq!(status("\r\ni: ", "\r\nX: "), Err(400));
    assert_eq!(status("SIP/2.0/UDP pbx.example.com", "SIP/2.0 pbx.example.com"), Err(400));
    assert_eq!(status("P-Odd: ", "Proxy-Require: sec-agree, \"; "), Err(420));
    assert_eq!(Unforwardable::Loop.status().code(), 482);
}

#[test]
fn what_is_required_of_us_is_listed_but_not_for_an_ack() {
    let request = INVITE.replace("P-Odd:  a ;; b\t \"", "Proxy-Require: foo\r\nProxy-Require: bar , baz");
    assert_eq!(unsupported(&parse(&request)), "foo, bar, baz");
    assert_eq!(validate(&parse(&request.replace("INVITE", "ACK"))), Ok(()));
    assert_eq!(validate(&parse(&request.replace("INVITE", "CANCEL"))), Ok(()));
}

#[test]
fn a_response_goes_where_the_top_via_says_but_never_to_a_third_party() {
    let source = address("192.0.2.1:40000");
    let target = |via: &str| {
        let request = parse(&format!("OPTIONS sip:x SIP/2.0\r\nVia: {via}\r\nContent-Length: 0\r\n\r\n"));
        response_target(&request, source).to_string()
    };
    assert_eq!(target("SIP/2.0/UDP 10.0.0.1:5070;rport;branch=z9hG4bKa"), "192.0.2.1:40000");
    assert_eq!(target("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bKa"), "192.0.2.1:5070");
    assert_eq!(target("SIP/2.0/UDP pbx.example.com;branch=z9hG4bKa"), "192.0.2.1:5060");
    assert_eq!(
        target("SIP/2.0/UDP 10.0.0.1;maddr=198.51.100.1;received=198.51.100.2;branch=z9hG4bKa"),
        "192.0.2.1:5060"
    );
    assert_eq!(target("SIP/2.0/TCP 10.0.0.1:5070;branch=z9hG4bKa"), "192.0.2.1:40000");
    assert_eq!(target("nonsense"), "192.0.2.1:40000");
}

proptest! {
    /// Whatever a request carries, forwarding keeps each field we have no business with, and the body.
    #[test]
    fn forwarding_keeps_every_other_field_and_the_body(
        fields in proptest::collection::vec(("X-[A-Za-z]{1,8}", "[!-~]([ -~]{0,30}[!-~])?"), 0..12),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = INVITE.split_once("l: 4").expect("the fixture has it").0.as_bytes().to_vec();
        for (name, value) in &fields {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        let request = Message::parse_datagram(bytes).expect("a request");
        let mut out = Vec::new();
        write_forward(&request, None, &forward(), &mut out);
        let sent = Message::parse_datagram(out).expect("what we write, we read");

        let extensions = |message: &Message| -> Vec<(Vec<u8>, Vec<u8>)> {
            let headers = message.headers().filter(|header| header.name == HeaderName::Other);
            headers.map(|header| (header.raw_name.to_vec(), header.value.to_vec())).collect()
        };
        prop_assert_eq!(extensions(&sent), extensions(&request));
        prop_assert_eq!(sent.body(), body.as_slice());
        prop_assert_eq!(sent.headers().count(), request.headers().count() + 1, "our Via, and nothing else");
        let response: Vec<_> = sent.list(HeaderName::Via).skip(1).map(<[u8]>::to_vec).collect();
        let before: Vec<_> = request.list(HeaderName::Via).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(response, before);
    }
}

fn forward() -> Forward<'static> {
    Forward {
        request_uri: b"sip:alice@192.0.2.77",
        via: OwnVia { transport: Transport::Tcp, sent_by: "203.0.113.5:5060", branch: "z9hG4bKours" },
        routes_dropped: 0,
        record_routes: &[],
        extra: &[],
    }
}

fn reply(code: StatusCode) -> Reply<'static> {
    Reply { code, to_tag: None, source: None, record_route: false, extra: &[] }
}

fn forwarded(request: &str, received: Option<(SocketAddr, Transport)>, change: &Forward<'_>) -> String {
    let mut out = Vec::new();
    write_forward(&parse(request), received, change, &mut out);
    text(out)
}

fn passed_on(response: &str, code: Option<StatusCode>) -> String {
    let mut out = Vec::new();
    write_forward_response(&parse(response), code, &mut out);
    text(out)
}

fn replied(request: &str, reply: &Reply<'_>) -> String {
    let mut out = Vec::new();
    write_reply(&parse(request), reply, &mut out).expect("all fields are there");
    text(out)
}

fn in_dialog(method: Method<'_>, response: &str) -> String {
    let record_routes = ["<sip:t1@203.0.113.5;transport=tcp;lr>".into(), "<sip:t2@203.0.113.5;lr>".into()];
    let sent = parse(&forwarded(INVITE, None, &Forward { record_routes: &record_routes, ..forward() }));
    let mut out = Vec::new();
    write_in_dialog(method, &sent, &parse(response), forward().via, 2, &mut out).expect("all fields are there");
    text(out)
}

fn parse(text: &str) -> Message {
    Message::parse_datagram(text.as_bytes().to_vec()).expect("a message")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("ASCII")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
