//! Connections that others open.

use tokio_rustls::TlsConnector;

use super::super::bounds::FLOW_QUEUE_BYTES;
use super::super::envelope::Envelope;
use super::super::queue::Closing;
use super::super::rules::Opened;
use super::super::stream::Connection;
use super::*;

/// A deadline that is meant to pass: long enough for what must come before it on a busy machine, short enough to wait for.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn messages_are_found_wherever_tcp_cuts_them() {
    let mut world = World::start(Wishes::none());
    let both = [request("one"), b"\r\n".to_vec(), request("two")].concat();
    for address in [world.tcp(), world.tcp6()] {
        let mut phone = connect(address).await;
        for byte in &both {
            write(&mut phone, &[*byte]).await;
        }
        let (first, arrival) = world.message().await;
        let (second, same) = world.message().await;
        assert_eq!((call_id(&first), call_id(&second)), ("one", "two"));
        assert_eq!((arrival.transport, arrival.peer), (Transport::Tcp, phone.local_addr().expect("connected")));
        assert_eq!((arrival.flow, arrival.listener), (same.flow, same.listener));

        let flow = arrival.flow.expect("a stream has a flow");
        world.handle().send(&Hop::Flow(flow), b"down", SHARD).expect("it is up");
        assert_eq!(read_exactly(&mut phone, 4).await, b"down");

        drop(phone);
        assert_eq!(world.flow_closed().await, (flow, SHARD));
        let gone = world.handle().send(&Hop::Flow(flow), b"late", SHARD);
        assert_eq!(gone, Err(Unsent::Flow(flow)));
    }
    world.assert_nothing_came();
}

#[tokio::test]
async fn who_does_not_finish_a_message_in_time_is_closed() {
    let mut world = World::start(Wishes::timings(|timings| timings.message = SOON));
    let mut silent = connect(world.tcp()).await;
    let mut pinging = connect(world.tcp()).await;
    write(&mut pinging, b"\r\n\r\n").await;
    let mut dribbling = connect(world.tcp()).await;
    write(&mut dribbling, &[&request("one")[..], &request("two")[..20]].concat()).await;
    assert_eq!(call_id(&world.message().await.0), "one");

    assert_eq!(read_to_end(&mut silent).await, b"");
    assert_eq!(read_to_end(&mut pinging).await, b"\r\n", "a ping is answered, and no message");
    assert_eq!(read_to_end(&mut dribbling).await, b"");
    world.flow_closed().await;
    assert_eq!(world.total(Incident::MessageSlow), 3);
    assert_eq!(world.handle().flows(), 0);
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_pong_answers_two_crlfs_and_nothing_else() {
    let mut world = World::start(Wishes::none());
    let mut phone = connect(world.tcp()).await;
    write(&mut phone, &[b"\0jaK", &request("one")[..], b"\r\n"].concat()).await;
    let flow = world.message().await.1.flow.expect("a flow");
    write(&mut phone, &request("two")).await;
    world.message().await;
    world.handle().send(&Hop::Flow(flow), b"mark", SHARD).expect("it is up");
    assert_eq!(read_exactly(&mut phone, 4).await, b"mark", "a lone CRLF got no answer");

    write(&mut phone, b"\r\n\r\n").await;
    assert_eq!(read_exactly(&mut phone, 2).await, b"\r\n");
}

#[tokio::test]
async fn an_idle_stream_is_pinged_and_closed_once_it_stops_to_answer() {
    let wishes = Wishes::timings(|timings| (timings.ping, timings.pong) = (SOON, SOON));
    let mut world = World::start(wishes);
    let mut phone = connect(world.tcp()).await;
    write(&mut phone, &request("one")).await;
    let flow = world.message().await.1.flow.expect("a flow");
    world.handle().send(&Hop::Flow(flow), b"SIP/2.0 200 OK\r\n", SHARD).expect("it is up");
    read_exactly(&mut phone, 16).await;

    for _ in 0..2 {
        assert_eq!(read_exactly(&mut phone, 4).await, b"\r\n\r\n", "silence is borne while no pong was seen");
    }
    write(&mut phone, b"\r\n").await;
    let rest = read_to_end(&mut phone).await;
    assert!(rest.ends_with(b"\r\n\r\n"), "pinged at least once more");
    assert_eq!(world.flow_closed().await.0, flow);
    assert_eq!(world.total(Incident::PongMissing), 1);
}

#[tokio::test]
async fn malformed_messages_are_answered_and_the_third_closes() {
    let mut world = World::start(Wishes::none());
    let mut phone = connect(world.tcp()).await;
    let malformed = String::from_utf8(request("bad")).expect("text").replace("Max-Forwards:", "no colon");
    for _ in 0..2 {
        write(&mut phone, malformed.as_bytes()).await;
    }
    write(&mut phone, &request("good")).await;
    assert_eq!(call_id(&world.message().await.0), "good", "two are borne");
    write(&mut phone, malformed.as_bytes()).await;

    let answers = String::from_utf8(read_to_end(&mut phone).await).expect("text");
    assert_eq!(answers.matches("SIP/2.0 400 ").count(), 3, "{answers}");
    assert_eq!(answers.matches("Call-ID: bad\r\n").count(), 3);
    world.flow_closed().await;
    assert_eq!((world.total(Incident::Malformed), world.total(Incident::MalformedFlow)), (3, 1));
}

#[tokio::test]
async fn a_stream_that_cannot_be_framed_is_answered_and_closed() {
    let mut world = World::start(Wishes::none());
    for length in ["Content-Length: 4\r\nContent-Length: 9", "X-Other: 4", "Content-Length: 99999999999999999999"] {
        let mut phone = connect(world.tcp()).await;
        let lying = String::from_utf8(request("lying")).expect("text").replace("Content-Length: 4", length);
        write(&mut phone, lying.as_bytes()).await;
        let answer = String::from_utf8(read_to_end(&mut phone).await).expect("text");
        assert!(answer.starts_with("SIP/2.0 4") || answer.starts_with("SIP/2.0 513"), "{length}: {answer}");
    }
    assert_eq!(world.total(Incident::FramingLost), 3);
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_source_gets_so_many_connections_and_no_more() {
    let mut wishes = Wishes::none();
    wishes.flows_per_source_max = 2;
    let mut world = World::start(wishes);
    let mut first = connect(world.tcp()).await;
    write(&mut first, &request("one")).await;
    world.message().await;
    let mut second = connect(world.tcp()).await;
    write(&mut second, &request("two")).await;
    world.message().await;

    let mut third = connect(world.tcp()).await;
    assert_eq!(read_to_end(&mut third).await, b"");
    assert_eq!(world.total(Incident::SourceFull), 1);
    let mut elsewhere = connect(world.tcp6()).await;
    write(&mut elsewhere, &request("three")).await;
    assert_eq!(call_id(&world.message().await.0), "three", "another source is not concerned");

    drop(first);
    world.flow_closed().await;
    // The place is given back when the task is gone, a moment after the shard was told.
    within(async {
        loop {
            let mut again = connect(world.tcp()).await;
            let _ = again.write_all(&request("four")).await;
            let mut byte = [0];
            tokio::select! {
                event = world.next() => break matches!(event, Event::Message(..)).then_some(()).expect("a message"),
                _ = again.read(&mut byte) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stranger_that_proves_nothing_leaves_and_others_stay() {
    let mut world = World::start(Wishes::timings(|timings| timings.stranger_idle = SOON));
    let mut known = connect(world.tcp()).await;
    write(&mut known, &request("known")).await;
    let flow = world.message().await.1.flow.expect("a flow");
    world.handle().send(&Hop::Flow(flow), b"SIP/2.0 100 Trying\r\n", SHARD).expect("it is up");

    let mut stranger = connect(world.tcp()).await;
    write(&mut stranger, &request("stranger")).await;
    let flow = world.message().await.1.flow.expect("a flow");
    world.handle().send(&Hop::Flow(flow), b"SIP/2.0 401 Unauthorized\r\n", SHARD).expect("it is up");

    assert_eq!(read_to_end(&mut stranger).await, b"SIP/2.0 401 Unauthorized\r\n");
    assert_eq!(world.flow_closed().await.0, flow);
    assert_eq!(world.total(Incident::StrangerIdle), 1);
    read_exactly(&mut known, b"SIP/2.0 100 Trying\r\n".len()).await;
    write(&mut known, b"\r\n\r\n").await;
    assert_eq!(read_exactly(&mut known, 2).await, b"\r\n", "it is still served");
}

#[tokio::test]
async fn a_flow_closed_by_the_engine_sends_first_what_waits() {
    let mut world = World::start(Wishes::none());
    let mut stranger = connect(world.tcp()).await;
    write(&mut stranger, &request("one")).await;
    let flow = world.message().await.1.flow.expect("a flow");
    let answer = vec![b'x'; FLOW_QUEUE_BYTES];
    world.handle().send(&Hop::Flow(flow), &answer, SHARD).expect("it is up");
    world.handle().close_flow(flow);
    assert_eq!(read_to_end(&mut stranger).await, answer);
    assert_eq!(world.flow_closed().await, (flow, SHARD));
}

#[tokio::test]
async fn a_peer_that_does_not_read_keeps_its_flow_until_a_write_makes_no_progress() {
    let mut world = World::start(Wishes::timings(|timings| timings.write_stall = SOON));
    let mut phone = connect(world.tcp()).await;
    write(&mut phone, &request("one")).await;
    let flow = world.message().await.1.flow.expect("a flow");
    let handle = world.handle();
    within(async {
        while handle.send(&Hop::Flow(flow), &[b'x'; 15_000], SHARD).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(handle.send(&Hop::Flow(flow), b"SIP/2.0 200 OK\r\n", SHARD), Ok(()), "it is open");
    assert_eq!(world.flow_closed().await, (flow, SHARD));
    assert_eq!((world.total(Incident::QueueFull), world.total(Incident::WriteStalled)), (1, 1));
}

#[tokio::test]
async fn a_write_without_progress_ends_the_connection() {
    let world = World::start(Wishes::timings(|timings| timings.write_stall = SOON));
    let (shared, upward) = (&world.net.handle.0.shared, Upstream(mpsc::channel(1).0));
    let enrolment = shared.flows.enrol(Envelope::Bare);
    let arrival = Arrival {
        listener: ListenerId(1),
        transport: Transport::Tcp,
        peer: world.tcp(),
        flow: Some(enrolment.id),
        trunk: None,
        registrar: false,
        device: false,
    };
    let (near, _far) = tokio::io::duplex(64);
    enrolment.flow.send(&[b'x'; 65]).expect("room");
    let connection = Connection { shared, upward: &upward, enrolment: &enrolment, arrival, opened: Opened::ByPeer };
    let closing = within(stream::run(tokio::io::split(near), connection)).await;
    assert_eq!(closing, Closing::WriteStalled);
    assert_eq!(world.total(Incident::WriteStalled), 1);
}

#[tokio::test]
async fn a_full_shard_holds_up_what_comes_but_not_what_goes() {
    let mut wishes = Wishes::none();
    wishes.events = 1;
    let mut world = World::start(wishes);
    let mut phone = connect(world.tcp()).await;
    write(&mut phone, &[request("one"), request("two"), request("three")].concat()).await;
    let flow = world.message().await.1.flow.expect("a flow");
    // "two" fills the only place, and "three" waits for it.
    world.handle().send(&Hop::Flow(flow), b"down", SHARD).expect("it is up");
    assert_eq!(read_exactly(&mut phone, 4).await, b"down");
    assert_eq!(call_id(&world.message().await.0), "two");
    assert_eq!(call_id(&world.message().await.0), "three");
}

#[tokio::test]
async fn tls_serves_with_the_latest_certificate() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut wishes = Wishes::timings(|timings| timings.handshake = 3 * SOON);
    let shown = ServerTls::new(old.server("edge.test"));
    wishes.server_tls = Some(shown.clone());
    let mut world = World::start(wishes);

    assert!(speak_tls(&world, &old, "one").await);
    let (message, arrival) = world.message().await;
    assert_eq!((call_id(&message), arrival.transport, arrival.listener), ("one", Transport::Tls, ListenerId(4)));
    world.flow_closed().await;
    assert!(!speak_tls(&world, &new, "two").await);

    shown.replace(new.server("edge.test"));
    assert!(speak_tls(&world, &new, "three").await);
    assert_eq!(call_id(&world.message().await.0), "three");
    assert_eq!(world.total(Incident::HandshakeFailed), 1);

    let mut silent = connect(world.tls()).await;
    assert_eq!(read_to_end(&mut silent).await, b"");
    assert_eq!(world.total(Incident::HandshakeSlow), 1);
}

/// Sends a request over TLS as a phone that believes `authority`; whether it got that far.
async fn speak_tls(world: &World, authority: &Authority, name: &str) -> bool {
    let phone = ClientTls::new(Some(authority.pem.as_bytes())).expect("a certificate");
    let identity = crate::engine::output::TlsIdentity { host: "edge.test".to_owned(), spki_sha256: None };
    let (config, server) = phone.config(&identity).expect("a name");
    let stream = connect(world.tls()).await;
    match within(TlsConnector::from(config).connect(server, stream)).await {
        Ok(mut stream) => {
            within(stream.write_all(&request(name))).await.expect("it is open");
            within(stream.shutdown()).await.is_ok()
        }
        Err(_) => false,
    }
}
