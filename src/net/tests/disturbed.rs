//! Callers that send what is too large or malformed through a connection that others use.

use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// Every kind of message that has an end and is no sound request, by its name.
pub(super) fn malformed_kinds() -> Vec<(&'static str, String)> {
    let sound = String::from_utf8(request("bad")).expect("text");
    let with = |from: &str, to: &str| sound.replace(from, to);
    let many = "X-A: 1\r\n".repeat(260);
    vec![
        ("a bare comma in From", with("From: <sip:a@edge.test>", "From: Smith, Carol <sip:a@edge.test>")),
        ("no Call-ID", with("Call-ID", "X-Other")),
        ("no Via", with("Via", "X-Other")),
        ("no From", with("From", "X-Other")),
        ("two To", with("To:", "To: <sip:c@edge.test>\r\nTo:")),
        ("a CSeq of another method", with("1 OPTIONS", "1 INVITE")),
        ("a CSeq without a number", with("1 OPTIONS", "OPTIONS")),
        ("a line without a colon", with("Max-Forwards:", "no colon")),
        ("a line without a colon that begins like Content-Length", with("Max-Forwards: 70", "Content 70")),
        ("a bare LF in a value", with("Max-Forwards: 70", "X-A: one\nX-B: two")),
        ("a bare CR in a value", with("Max-Forwards: 70", "X-A: one\rtwo")),
        ("more fields than anybody needs", with("Max-Forwards: 70\r\n", &many)),
        ("another version", with("SIP/2.0\r\nVia", "SIP/3.0\r\nVia")),
        ("no start line", with("OPTIONS sip:edge.test SIP/2.0", "nonsense")),
        ("a start line with a space in front", with("OPTIONS sip", " OPTIONS sip")),
        ("a response without Via", "SIP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nbody".to_owned()),
    ]
}

/// A request with a body of `length` bytes.
pub(super) fn request_of(name: &str, length: usize) -> Vec<u8> {
    let head = String::from_utf8(request(name)).expect("text").replace("Content-Length: 4\r\n\r\nbody", "");
    [format!("{head}Content-Length: {length}\r\n\r\n").into_bytes(), vec![b'x'; length]].concat()
}

#[tokio::test]
async fn what_fits_comes_up_from_a_registrar_and_no_malformed_message_ends_its_connection() {
    let mut world = World::start(Wishes::none());
    let mut pbx = trunk(&mut world).await;
    write(&mut pbx, &request_of("large", 20 * 1024)).await;
    let (message, _) = world.message().await;
    assert_eq!((call_id(&message), message.body().len()), ("large", 20 * 1024));
    let fields = String::from_utf8(request("many")).expect("text").replace("CSeq", &("X-A: 1\r\n".repeat(70) + "CSeq"));
    write(&mut pbx, fields.as_bytes()).await;
    assert_eq!(call_id(&world.message().await.0), "many");
    for (kind, message) in malformed_kinds() {
        for _ in 0..3 {
            write(&mut pbx, message.as_bytes()).await;
        }
        write(&mut pbx, &request("sound")).await;
        assert_eq!(call_id(&world.message().await.0), "sound", "after {kind}");
    }
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_next_one_rings() {
    let mut world = World::start(Wishes::none());
    let mut pbx = trunk(&mut world).await;
    for length in [64 * 1024, 100 * 1024, 256 * 1024] {
        write(&mut pbx, &[request_of("huge", length), request("next")].concat()).await;
        assert_eq!(call_id(&world.message().await.0), "next", "{length}");
        let answer = read_response(&mut pbx).await;
        assert!(answer.starts_with("SIP/2.0 513 ") && answer.contains("Call-ID: huge\r\n"), "{answer}");
    }
    write(&mut pbx, &request_of("beyond", 256 * 1024 + 1)).await;
    let answer = String::from_utf8_lossy(&read_to_end(&mut pbx).await).into_owned();
    assert!(answer.starts_with("SIP/2.0 513 "), "{answer}");
    world.flow_closed().await;
    assert_eq!(world.trunk_down().await.2, TrunkFault::Closed);
}

#[tokio::test]
async fn a_connection_that_a_registrar_opened_is_treated_alike() {
    let mut world = World::start(Wishes::none());
    world.handle().remember_registrar("127.0.0.1".parse().expect("a literal"), Duration::from_secs(60));
    let mut pbx = connect(world.tcp()).await;
    write(&mut pbx, &request_of("large", 30 * 1024)).await;
    assert_eq!(call_id(&world.message().await.0), "large");
    for (kind, message) in malformed_kinds() {
        write(&mut pbx, &[message.as_bytes(), &request_of("huge", 200 * 1024), &request("sound")].concat()).await;
        assert_eq!(call_id(&world.message().await.0), "sound", "after {kind}");
    }
}

#[tokio::test]
async fn an_attached_flow_keeps_its_limits_and_survives_what_is_above_them() {
    let mut world = World::start(Wishes::none());
    let mut phone = connect(world.tcp()).await;
    write(&mut phone, &request("one")).await;
    let flow = world.message().await.1.flow.expect("a flow");
    world.handle().send(&Hop::Flow(flow), b"SIP/2.0 200 OK\r\n\r\n", SHARD).expect("it is up");
    read_response(&mut phone).await;
    let many = String::from_utf8(request("many")).expect("text").replace("CSeq", &("X-A: 1\r\n".repeat(64) + "CSeq"));
    let cases = malformed_kinds().into_iter().map(|(kind, text)| (kind, text.into_bytes()));
    for (kind, message) in cases.chain([("too large", request_of("huge", 17_000)), ("too many", many.into_bytes())]) {
        for _ in 0..3 {
            write(&mut phone, &message).await;
        }
        write(&mut phone, &request("sound")).await;
        assert_eq!(call_id(&world.message().await.0), "sound", "after {kind}");
    }
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_stranger_stays_under_the_strict_rules() {
    let mut world = World::start(Wishes::none());
    let mut large = connect(world.tcp()).await;
    write(&mut large, &[request_of("huge", 17_000), request("next")].concat()).await;
    assert!(read_to_end(&mut large).await.starts_with(b"SIP/2.0 513 "));
    let mut malformed = connect(world.tcp()).await;
    let comma = malformed_kinds().swap_remove(0).1;
    write(&mut malformed, comma.repeat(3).as_bytes()).await;
    let answers = String::from_utf8(read_to_end(&mut malformed).await).expect("text");
    assert_eq!(answers.matches("SIP/2.0 400 ").count(), 3);
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_length_that_lies_ends_the_connection_within_the_deadline_of_a_message() {
    let mut world = World::start(Wishes::timings(|timings| timings.message = Duration::from_millis(200)));
    let mut pbx = trunk(&mut world).await;
    let lying =
        String::from_utf8(request("lying")).expect("text").replace("Content-Length: 4", "Content-Length: 200000");
    write(&mut pbx, &[lying.as_bytes(), &request("swallowed")].concat()).await;
    assert_eq!(world.trunk_down().await.2, TrunkFault::Closed);
    assert_eq!(world.total(Incident::MessageSlow), 1);
    world.assert_nothing_came();
}

#[tokio::test]
async fn what_does_not_fit_a_devices_queue_is_refused_and_its_flow_stays() {
    let mut world = World::start(Wishes::none());
    let mut phone = connect(world.tcp()).await;
    write(&mut phone, &request("one")).await;
    let flow = world.message().await.1.flow.expect("a flow");
    let hop = Hop::Flow(flow);
    let sent = world.handle().send(&hop, &vec![b'x'; bounds::FLOW_QUEUE_BYTES + 1], SHARD);
    assert_eq!(sent, Err(Unsent::TooLarge));
    world.handle().send(&hop, b"next", SHARD).expect("it is up");
    assert_eq!(read_exactly(&mut phone, 4).await, b"next");
    let datagram = Hop::Datagram { listener: ListenerId(0), peer: world.udp() };
    assert_eq!(world.handle().send(&datagram, &[b'x'; 65_508], SHARD), Err(Unsent::TooLarge));

    let response = unsent_response(&request("large")).expect("something waits for it");
    assert_eq!((response.status(), call_id(&response)), (Some(crate::sip::StatusCode::MESSAGE_TOO_LARGE), "large"));
    let ack = String::from_utf8(request("ack")).expect("text").replace("OPTIONS", "ACK");
    assert!(unsent_response(ack.as_bytes()).is_none() && unsent_response(b"SIP/2.0 200 OK\r\n\r\n").is_none());
}

#[tokio::test]
async fn long_messages_share_a_memory_and_what_is_above_it_is_refused() {
    let mut world = World::start(Wishes::none());
    let mut pbx = trunk(&mut world).await;
    let mut held = Vec::new();
    let refused = loop {
        write(&mut pbx, &[request_of("long", 60_000), request("next")].concat()).await;
        let (message, _) = world.message().await;
        if call_id(&message) == "next" {
            break message;
        }
        held.push(message);
        assert_eq!(call_id(&world.message().await.0), "next");
    };
    assert!((200..300).contains(&held.len()), "{}", held.len());
    assert!(read_response(&mut pbx).await.starts_with("SIP/2.0 513 "));
    drop((held, refused));
    write(&mut pbx, &request_of("again", 60_000)).await;
    assert_eq!(call_id(&world.message().await.0), "again", "room came back");
}

#[tokio::test]
async fn a_stranger_that_sends_nothing_but_responses_leaves() {
    let mut world = World::start(Wishes::timings(|timings| timings.message = Duration::from_millis(300)));
    let mut stranger = connect(world.tcp()).await;
    let response =
        String::from_utf8(request("r")).expect("text").replace("OPTIONS sip:edge.test SIP/2.0", "SIP/2.0 200 OK");
    let sending = async {
        while stranger.write_all(response.as_bytes()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let draining = async {
        loop {
            if let Event::FlowClosed(..) = world.next().await {
                break;
            }
        }
    };
    within(futures_util::future::join(sending, draining)).await;
    assert_eq!(world.total(Incident::MessageSlow), 1);
}

#[tokio::test]
async fn datagrams_of_a_registrar_are_read_as_far_as_sip_goes_and_malformed_ones_go_up() {
    let mut world = World::start(Wishes::none());
    world.handle().remember_registrar("127.0.0.1".parse().expect("a literal"), Duration::from_secs(60));
    let pbx = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let many = String::from_utf8(request("many")).expect("text").replace("CSeq", &("X-A: 1\r\n".repeat(70) + "CSeq"));
    let ahead = [b"\r\n\r\n", &request("ahead")[..]].concat();
    for (name, datagram) in [("large", request_of("large", 20_000)), ("many", many.into_bytes()), ("ahead", ahead)] {
        pbx.send_to(&datagram, world.udp()).await.expect("sent");
        assert_eq!(call_id(&world.message().await.0), name);
    }
    let lying = String::from_utf8(request("bad")).expect("text").replace("Content-Length: 4", "Content-Length: 5");
    let comma = malformed_kinds().swap_remove(0).1;
    for datagram in [&lying, &comma] {
        pbx.send_to(datagram.as_bytes(), world.udp()).await.expect("sent");
        let Event::Malformed(malformed, arrival) = world.next().await else { panic!("a malformed request") };
        assert_eq!((malformed.code, malformed.paid), (crate::sip::StatusCode::BAD_REQUEST, datagram.len()));
        assert_eq!(malformed.request.request_uri(), Some(&b"sip:edge.test"[..]));
        assert!(arrival.registrar);
    }
    for unanswerable in [comma.replace("OPTIONS", "ACK"), comma.replace("To:", "X-To:"), "noise".to_owned()] {
        pbx.send_to(unanswerable.as_bytes(), world.udp()).await.expect("sent");
    }
    for _ in 0..20 {
        pbx.send_to(comma.as_bytes(), world.udp()).await.expect("sent");
    }
    pbx.send_to(&request("last"), world.udp()).await.expect("sent");
    let mut went_up = 2;
    while let Event::Malformed(..) = world.next().await {
        went_up += 1;
    }
    assert!((2..=2 * bounds::REFUSALS_PER_SECOND).contains(&went_up), "{went_up}");
}

#[tokio::test]
async fn the_first_response_of_a_registrar_may_be_long_and_one_that_cannot_be_read_stands_for_a_failure() {
    let mut world = World::start(Wishes::none());
    let pbx = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let response = |contacts: usize| {
        let text = String::from_utf8(request("first"))
            .expect("text")
            .replace("OPTIONS sip:edge.test SIP/2.0", "SIP/2.0 200 OK");
        text.replace("1 OPTIONS", "1 REGISTER")
            .replace("Content", &("Contact: <sip:a@b>\r\n".repeat(contacts) + "Content"))
    };
    pbx.send_to(response(65).as_bytes(), world.udp()).await.expect("sent");
    pbx.send_to(&request("stranger"), world.udp()).await.expect("sent");
    assert_eq!(call_id(&world.message().await.0), "stranger", "nothing was asked there");

    let peer = pbx.local_addr().expect("bound");
    let hop = Hop::Datagram { listener: ListenerId(0), peer };
    world.handle().send(&hop, b"REGISTER sip:pbx.test SIP/2.0\r\n\r\n", SHARD).expect("sent");
    pbx.send_to(response(200).as_bytes(), world.udp()).await.expect("sent");
    assert_eq!(world.message().await.0.contacts().count(), 200);
    pbx.send_to(response(300).as_bytes(), world.udp()).await.expect("sent");
    assert_eq!(world.message().await.0.status().map(crate::sip::StatusCode::code), Some(502));
    let many = String::from_utf8(request("many")).expect("text").replace("CSeq", &("X-A: 1\r\n".repeat(70) + "CSeq"));
    pbx.send_to(many.as_bytes(), world.udp()).await.expect("sent");
    pbx.send_to(&request("last"), world.udp()).await.expect("sent");
    assert_eq!(call_id(&world.message().await.0), "last", "its requests are a stranger's");
}

/// The PBX's end of a connection that we opened.
async fn trunk(world: &mut World) -> TcpStream {
    let pbx = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let remote = pbx.local_addr().expect("bound");
    let key = TrunkKey { transport: Transport::Tcp, remote, listener: ListenerId(1), identity: None };
    world.handle().send(&Hop::Trunk(Arc::new(key)), b"hello", SHARD).expect("room");
    let (mut connection, _) = within(pbx.accept()).await.expect("we connect");
    assert_eq!(read_exactly(&mut connection, 5).await, b"hello");
    connection
}

/// Reads one response without a body.
pub(super) async fn read_response(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.extend(read_exactly(stream, 1).await);
    }
    String::from_utf8(bytes).expect("text")
}
