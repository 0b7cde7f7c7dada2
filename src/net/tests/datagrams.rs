//! UDP.

use tokio::net::UdpSocket;

use super::*;

#[tokio::test]
async fn a_datagram_comes_up_and_its_answer_leaves_from_the_same_port() {
    let mut world = World::start(Wishes::none());
    for (listener, address) in [(0, world.udp()), (2, world.udp6())] {
        let phone = UdpSocket::bind((address.ip(), 0)).await.expect("a free port");
        phone.send_to(&request("one"), address).await.expect("sent");

        let (message, arrival) = world.message().await;
        assert_eq!((call_id(&message), message.body()), ("one", &b"body"[..]));
        assert_eq!((arrival.listener, arrival.transport), (ListenerId(listener), Transport::Udp));
        assert_eq!(arrival.peer, phone.local_addr().expect("bound"));
        assert_eq!((arrival.flow, arrival.trunk, arrival.registrar), (None, None, false));

        let hop = Hop::Datagram { listener: ListenerId(listener), peer: arrival.peer };
        world.handle().send(&hop, b"answer", SHARD).expect("sent");
        let mut buffer = [0; 64];
        let (length, from) = within(phone.recv_from(&mut buffer)).await.expect("an answer");
        assert_eq!((&buffer[..length], from), (&b"answer"[..], address));
    }
    assert_eq!(world.total(Incident::DatagramUnsent), 0);
}

#[tokio::test]
async fn what_is_not_sip_gets_silence() {
    let mut world = World::start(Wishes::none());
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let mut too_large = request("large");
    too_large.resize(17_000, b'x');
    let without_call_id = String::from_utf8(request("two")).expect("text").replace("Call-ID", "X-Other");
    for datagram in [&b"noise"[..], b"\r\n\r\n", b"\0", b"jaK", b"", &too_large, without_call_id.as_bytes()] {
        stranger.send_to(datagram, world.udp()).await.expect("sent");
    }
    stranger.send_to(&request("last"), world.udp()).await.expect("sent");

    assert_eq!(call_id(&world.message().await.0), "last", "the others were dropped before it");
    assert_eq!((world.total(Incident::Malformed), world.total(Incident::DatagramTooLarge)), (2, 1));
    assert!(stranger.try_recv(&mut [0; 64]).is_err(), "no answer to any of them");
    world.assert_nothing_came();
}

#[tokio::test]
async fn an_address_that_granted_a_registration_is_a_registrar_on_any_port() {
    let mut world = World::start(Wishes::none());
    world.handle().remember_registrar("127.0.0.1".parse().expect("a literal"), Duration::from_secs(60));
    let registrar = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    registrar.send_to(&request("one"), world.udp()).await.expect("sent");
    assert!(world.message().await.1.registrar);

    let mut stream = connect(world.tcp()).await;
    write(&mut stream, &request("two")).await;
    assert!(world.message().await.1.registrar);

    let stranger = UdpSocket::bind("[::1]:0").await.expect("a free port");
    stranger.send_to(&request("three"), world.udp6()).await.expect("sent");
    assert!(!world.message().await.1.registrar);
}

#[tokio::test]
async fn a_stopped_network_side_gives_its_ports_back() {
    let world = World::start(Wishes::none());
    let (address, mut phone) = (world.tcp(), connect(world.tcp()).await);
    world.net.stop().await;
    assert_eq!(read_to_end(&mut phone).await, b"");
    std::net::UdpSocket::bind(address).expect("free again");
    std::net::TcpListener::bind(address).expect("free again");
}
