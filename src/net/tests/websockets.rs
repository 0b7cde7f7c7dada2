//! WebSocket connections: a real client where it behaves, bytes written by hand where it does not.

use futures_util::{SinkExt, StreamExt};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message as Sent};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;
use crate::sip::message::MESSAGE_MAX;

/// A deadline that is meant to pass: long enough for what must come before it on a busy machine, short enough to wait for.
const SOON: Duration = Duration::from_secs(1);
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const PING: u8 = 9;
const FIN: u8 = 0x80;

#[tokio::test]
async fn messages_come_and_go_in_frames_over_plain_and_tls() {
    let authority = Authority::new();
    let mut wishes = Wishes::none();
    wishes.server_tls = Some(ServerTls::new(authority.server("edge.test")));
    let mut world = World::start(wishes);
    let plain = connect(world.speaks(Transport::Ws)).await;
    converse(&mut world, plain, Transport::Ws).await;

    let client = ClientTls::new(Some(authority.pem.as_bytes())).expect("a certificate");
    let identity = crate::engine::output::TlsIdentity { host: "edge.test".to_owned(), spki_sha256: None };
    let (config, name) = client.config(&identity).expect("a name");
    let stream = connect(world.speaks(Transport::Wss)).await;
    let tls = within(TlsConnector::from(config).connect(name, stream)).await.expect("trusted");
    converse(&mut world, tls, Transport::Wss).await;
    world.assert_nothing_came();
}

/// Both kinds of frames both ways, then the close handshake.
async fn converse<S: AsyncRead + tokio::io::AsyncWrite + Unpin>(world: &mut World, stream: S, transport: Transport) {
    let mut phone = open(stream).await;
    send(&mut phone, Sent::text(without_length("one"))).await;
    let (first, arrival) = world.message().await;
    assert_eq!((call_id(&first), first.body(), arrival.transport), ("one", &b"body"[..], transport));
    send(&mut phone, Sent::binary(request("two"))).await;
    let (second, same) = world.message().await;
    assert_eq!((call_id(&second), arrival.flow), ("two", same.flow));

    let flow = arrival.flow.expect("a stream has a flow");
    world.handle().send(&Hop::Flow(flow), b"down", SHARD).expect("it is up");
    world.handle().send(&Hop::Flow(flow), b"latin \xe9", SHARD).expect("it is up");
    assert_eq!(receive(&mut phone).await, Sent::text("down"));
    assert_eq!(receive(&mut phone).await, Sent::binary(&b"latin \xe9"[..]));

    within(phone.close(None)).await.expect("it is open");
    assert_eq!(receive(&mut phone).await, Sent::Close(None), "a goodbye is answered");
    assert_eq!(world.flow_closed().await, (flow, SHARD));
}

#[tokio::test]
async fn what_asks_for_something_else_is_told_so_and_closed() {
    let world = World::start(Wishes::none());
    let good = upgrade_request("sip");
    let cases = [
        (good.replace("Protocol: sip", "Protocol: mqtt, sipx"), "400 "),
        (good.replace("Sec-WebSocket-Protocol: sip\r\n", ""), "400 "),
        (good.replace("Version: 13", "Version: 8"), "426 "),
        (good.replace("Upgrade: websocket\r\n", ""), "426 "),
        (good.replace("GET ", "POST "), "405 "),
        (good.replace("HTTP/1.1", "HTTP/1.0"), "400 "),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400 "),
        (good.replace("Host: edge.test", "Host edge.test"), "400 "),
        (good.replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"), "400 "),
        (format!("{good}early"), "400 "),
        (good.replace("/any/path", &"x".repeat(9000)), "431 "),
        (String::from_utf8(request("one")).expect("text"), "400 "),
    ];
    let count = cases.len();
    for (head, status) in cases {
        let mut phone = connect(world.speaks(Transport::Ws)).await;
        write(&mut phone, head.as_bytes()).await;
        let answer = String::from_utf8(read_to_end(&mut phone).await).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {head}\n{answer}");
        assert!(answer.contains("close\r\n") && !answer.contains("101 "), "{answer}");
    }
    within(async {
        while world.total(Incident::HandshakeFailed) < count as u64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_that_dribbles_is_closed_and_one_in_pieces_is_served() {
    let mut world = World::start(Wishes::timings(|timings| timings.handshake = 3 * SOON));
    let mut silent = connect(world.speaks(Transport::Ws)).await;
    write(&mut silent, b"GET / HTTP/1.1\r\n").await;
    let mut phone = connect(world.speaks(Transport::Ws)).await;
    for byte in upgrade_request("chat, sip").bytes() {
        write(&mut phone, &[byte]).await;
    }
    let answer = read_head(&mut phone).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // The example of RFC 6455 §1.3.
    assert!(answer.contains(": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("sec-websocket-protocol: sip\r\n"), "{answer}");
    write(&mut phone, &framed(FIN | TEXT, &request("one"))).await;
    assert_eq!(call_id(&world.message().await.0), "one");

    assert_eq!(read_to_end(&mut silent).await, b"");
    assert_eq!(world.total(Incident::HandshakeSlow), 1);
}

#[tokio::test]
async fn fragments_are_joined_and_a_ping_between_them_is_answered() {
    let mut world = World::start(Wishes::none());
    let mut phone = upgraded(&world).await;
    let message = request("one");
    let (head, tail) = message.split_at(100);
    let frames = [framed(BINARY, head), framed(FIN | PING, b"hello"), framed(0, b""), framed(FIN, tail)].concat();
    for byte in &frames {
        write(&mut phone, &[*byte]).await;
    }
    assert_eq!(call_id(&world.message().await.0), "one");
    assert_eq!(read_exactly(&mut phone, 7).await, b"\x8a\x05hello");

    write(&mut phone, &[framed(FIN | TEXT, &request("two")), framed(FIN | TEXT, &request("three"))].concat()).await;
    assert_eq!(call_id(&world.message().await.0), "two");
    assert_eq!(call_id(&world.message().await.0), "three");
}

#[tokio::test]
async fn what_is_malformed_or_too_large_does_not_end_the_flow_of_an_attached_device() {
    let mut world = World::start(Wishes::none());
    let mut phone = upgraded(&world).await;
    write(&mut phone, &framed(FIN | TEXT, &request("one"))).await;
    let flow = world.message().await.1.flow.expect("a flow");
    world.handle().send(&Hop::Flow(flow), b"SIP/2.0 200 OK\r\n", SHARD).expect("it is up");
    read_exactly(&mut phone, 18).await;

    let kinds: Vec<Vec<u8>> = disturbed::malformed_kinds().into_iter().map(|(_, text)| text.into_bytes()).collect();
    let half = disturbed::request_of("huge", 10_000);
    let frames = kinds.iter().map(|message| framed(FIN | TEXT, message)).chain([
        framed(FIN | BINARY, &disturbed::request_of("huge", 17_000)),
        framed(FIN | BINARY, &disturbed::request_of("huge", 200_000)),
        [framed(TEXT, &half), framed(FIN | PING, b"p"), framed(0, &half), framed(FIN, &half)].concat(),
        [framed(TEXT, &disturbed::request_of("huge", 20_000)), framed(FIN | PING, b"p"), framed(FIN, b"x")].concat(),
    ]);
    for (number, frame) in frames.enumerate() {
        write(&mut phone, &[frame, framed(FIN | TEXT, &request("next"))].concat()).await;
        assert_eq!(call_id(&world.message().await.0), "next", "after the {number}th");
    }
    assert_eq!(world.total(Incident::MessageTooLarge), 4);
    write(&mut phone, &[&[FIN | BINARY, 0xff][..], &300_000u64.to_be_bytes(), &[0; 4]].concat()).await;
    world.flow_closed().await;
    world.assert_nothing_came();
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_how_and_closed() {
    let mut world = World::start(Wishes::none());
    let half = vec![b'x'; MESSAGE_MAX / 2 + 1];
    let cases: Vec<(Vec<u8>, CloseCode)> = vec![
        (framed(FIN | TEXT, &vec![b'x'; MESSAGE_MAX + 1]), CloseCode::Size),
        // Refused by its header alone.
        ([&[FIN | BINARY, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat(), CloseCode::Size),
        ([framed(TEXT, &half), framed(FIN, &half)].concat(), CloseCode::Size),
        (framed(FIN | TEXT, b"\xff\xfe"), CloseCode::Invalid),
        (vec![FIN | TEXT, 2, b'h', b'i'], CloseCode::Protocol),
        (framed(FIN | 0x40 | TEXT, b"hi"), CloseCode::Protocol),
        (framed(FIN, b"hi"), CloseCode::Protocol),
        ([framed(TEXT, b"hi"), framed(FIN | TEXT, b"hi")].concat(), CloseCode::Protocol),
        (framed(PING, b"hi"), CloseCode::Protocol),
        (framed(FIN | PING, &[0; 126]), CloseCode::Protocol),
        (framed(FIN | 3, b"hi"), CloseCode::Protocol),
        (framed(FIN | 8, b"x"), CloseCode::Protocol),
    ];
    let count = cases.len() as u64;
    for (bytes, code) in cases {
        let mut phone = upgraded(&world).await;
        write(&mut phone, &framed(FIN | TEXT, &request("first"))).await;
        world.message().await;
        let _ = phone.write_all(&bytes).await;
        let last = read_to_end(&mut phone).await;
        let told = [&[FIN | 8, 2][..], &u16::from(code).to_be_bytes()].concat();
        assert_eq!(last, told, "{code:?}");
        drop(phone);
        world.flow_closed().await;
    }
    assert_eq!(world.total(Incident::FramingLost), count);
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_message_in_endless_fragments_is_closed_in_spite_of_pings() {
    let mut world = World::start(Wishes::timings(|timings| timings.message = SOON));
    let mut phone = upgraded(&world).await;
    write(&mut phone, &[framed(FIN | TEXT, &request("one")), framed(TEXT, b"OPTIONS")].concat()).await;
    world.message().await;
    let flow_closed = async { world.flow_closed().await };
    let dribble = async {
        loop {
            let _ = phone.write_all(&[framed(0, b""), framed(FIN | PING, b"")].concat()).await;
            tokio::task::yield_now().await;
        }
    };
    within(async {
        tokio::select! {
            _ = flow_closed => {}
            () = dribble => {}
        }
    })
    .await;
    assert_eq!(world.total(Incident::MessageSlow), 1);
}

#[tokio::test]
async fn an_idle_websocket_is_pinged_and_closed_once_it_stops_to_answer() {
    let mut world = World::start(Wishes::timings(|timings| (timings.ping, timings.pong) = (SOON, SOON)));
    let mut phone = upgraded(&world).await;
    write(&mut phone, &framed(FIN | TEXT, &request("one"))).await;
    let flow = world.message().await.1.flow.expect("a flow");
    world.handle().send(&Hop::Flow(flow), b"SIP/2.0 200 OK\r\n", SHARD).expect("it is up");
    assert_eq!(read_exactly(&mut phone, 18).await, b"\x81\x10SIP/2.0 200 OK\r\n");

    for _ in 0..2 {
        assert_eq!(read_exactly(&mut phone, 2).await, [FIN | PING, 0], "silence is borne while no pong was seen");
    }
    write(&mut phone, &framed(FIN | 10, b"")).await;
    let rest = read_to_end(&mut phone).await;
    assert!(rest.starts_with(&[FIN | PING, 0]), "pinged at least once more");
    assert!(rest.ends_with(&[FIN | 8, 2, 0x03, 0xe9]), "told that we went away: {rest:x?}");
    assert_eq!(world.flow_closed().await.0, flow);
    assert_eq!(world.total(Incident::PongMissing), 1);
}

#[tokio::test]
async fn keep_alives_of_other_transports_are_borne_in_frames() {
    let mut world = World::start(Wishes::none());
    let mut phone = open(connect(world.speaks(Transport::Ws)).await).await;
    for filler in ["", "\r\n", "\0", "jaK", "\r\n\r\n"] {
        send(&mut phone, Sent::text(filler)).await;
    }
    assert_eq!(receive(&mut phone).await, Sent::text("\r\n"), "two CRLFs are answered, nothing else is");
    send(&mut phone, Sent::Ping(Bytes::from_static(b"x"))).await;
    assert_eq!(receive(&mut phone).await, Sent::Pong(Bytes::from_static(b"x")));
    send(&mut phone, Sent::text(without_length("one"))).await;
    assert_eq!(call_id(&world.message().await.0), "one");
}

#[tokio::test]
async fn malformed_messages_in_frames_are_answered_and_the_third_closes() {
    let mut world = World::start(Wishes::none());
    let mut phone = open(connect(world.speaks(Transport::Ws)).await).await;
    let two_in_one = [request("bad"), request("worse")].concat();
    let colonless = String::from_utf8(request("bad")).expect("text").replace("Max-Forwards:", "no colon");
    let longer = String::from_utf8(request("bad")).expect("text").replace("Length: 4", "Length: 5");
    for malformed in [two_in_one, colonless.into_bytes(), longer.into_bytes()] {
        send(&mut phone, Sent::binary(malformed)).await;
        let answer = receive(&mut phone).await.into_text().expect("text");
        assert!(answer.starts_with("SIP/2.0 400 ") && answer.contains("Call-ID: bad\r\n"), "{answer}");
    }
    let Sent::Close(Some(close)) = receive(&mut phone).await else { unreachable!("a goodbye") };
    assert_eq!(close.code, CloseCode::Policy);
    assert_eq!((world.total(Incident::Malformed), world.total(Incident::MalformedFlow)), (3, 1));
    world.assert_nothing_came();
}

#[tokio::test]
async fn websockets_count_against_the_caps_and_hear_of_our_end() {
    let mut wishes = Wishes::none();
    wishes.flows_per_source_max = 1;
    let mut world = World::start(wishes);
    let mut phone = open(connect(world.speaks(Transport::Ws)).await).await;
    send(&mut phone, Sent::binary(request("one"))).await;
    world.message().await;
    let mut second = connect(world.speaks(Transport::Ws)).await;
    assert_eq!(read_to_end(&mut second).await, b"");
    assert_eq!(world.total(Incident::SourceFull), 1);

    let stopping = world.net.stop();
    let (last, ()) = tokio::join!(receive(&mut phone), stopping);
    let Sent::Close(Some(close)) = last else { unreachable!("a goodbye") };
    assert_eq!(close.code, CloseCode::Away);
}

#[tokio::test]
async fn a_flow_that_we_close_gets_its_last_message_and_a_goodbye() {
    let mut world = World::start(Wishes::none());
    let mut phone = open(connect(world.speaks(Transport::Ws)).await).await;
    send(&mut phone, Sent::binary(request("one"))).await;
    let flow = world.message().await.1.flow.expect("a flow");
    world.handle().send(&Hop::Flow(flow), b"SIP/2.0 404 Not Found\r\n", SHARD).expect("it is up");
    world.handle().close_flow(flow);
    assert_eq!(receive(&mut phone).await, Sent::text("SIP/2.0 404 Not Found\r\n"));
    let Sent::Close(Some(close)) = receive(&mut phone).await else { unreachable!("a goodbye") };
    assert_eq!(close.code, CloseCode::Normal);
}

/// Upgrades as a phone does that knows RFC 7118.
async fn open<S: AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let mut request = "ws://edge.test/ws".into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", http::HeaderValue::from_static("sip"));
    request.headers_mut().insert("Origin", http::HeaderValue::from_static("https://phone.example"));
    let (phone, response) = within(client_async(request, stream)).await.expect("an upgrade");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "sip");
    phone
}

async fn send<S: AsyncRead + tokio::io::AsyncWrite + Unpin>(phone: &mut WebSocketStream<S>, message: Sent) {
    within(phone.send(message)).await.expect("it is open");
}

async fn receive<S: AsyncRead + tokio::io::AsyncWrite + Unpin>(phone: &mut WebSocketStream<S>) -> Sent {
    within(phone.next()).await.expect("more comes").expect("a frame")
}

/// A connection after its upgrade, for bytes no client writes.
async fn upgraded(world: &World) -> TcpStream {
    let mut phone = connect(world.speaks(Transport::Ws)).await;
    write(&mut phone, upgrade_request("sip").as_bytes()).await;
    assert!(read_head(&mut phone).await.starts_with("HTTP/1.1 101 "));
    phone
}

fn upgrade_request(protocols: &str) -> String {
    format!(
        "GET /any/path HTTP/1.1\r\nHost: edge.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {protocols}\r\n\r\n"
    )
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(stream, 1).await);
    }
    String::from_utf8(head).expect("text")
}

/// A frame with the mask a client must set; with a mask of zeros the payload stands as it is.
fn framed(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => out.push(0x80 | u8::try_from(short).expect("below 126")),
        Ok(length) => {
            out.push(0x80 | 126);
            out.extend(length.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend_from_slice(payload);
    out
}

/// A request as JsSIP and SIP.js send it: a host of no address, and no Content-Length.
fn without_length(name: &str) -> String {
    let text = String::from_utf8(request(name)).expect("text");
    text.replace("Content-Length: 4\r\n", "").replace("TCP 127.0.0.1:9", "WSS df7jal23ls0d.invalid")
}
