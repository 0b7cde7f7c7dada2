//! Connections that we open.

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::engine::output::TlsIdentity;

const OTHER_SHARD: ShardId = ShardId(5);

#[tokio::test]
async fn a_trunk_is_shared_carries_requests_back_and_tells_everyone_of_its_end() {
    let mut world = World::start(Wishes::none());
    let pbx = listen().await;
    let hop = Hop::Trunk(tcp_key(&pbx));
    world.handle().send(&hop, b"first ", SHARD).expect("room");
    world.handle().send(&hop, b"second", OTHER_SHARD).expect("room");
    let (mut connection, _) = within(pbx.accept()).await.expect("we connect");
    assert_eq!(read_exactly(&mut connection, 12).await, b"first second");
    assert_eq!(world.handle().trunks(), 1);

    world.handle().send(&hop, b"third", SHARD).expect("room");
    assert_eq!(read_exactly(&mut connection, 5).await, b"third");
    write(&mut connection, &request("call")).await;
    let (message, arrival) = world.message().await;
    assert_eq!(call_id(&message), "call");
    assert_eq!((arrival.trunk, arrival.transport), (Some(tcp_key(&pbx)), Transport::Tcp));
    assert_eq!((arrival.peer, arrival.listener), (pbx.local_addr().expect("bound"), ListenerId(1)));
    let flow = arrival.flow.expect("a trunk is a flow too");
    world.handle().send(&Hop::Flow(flow), b"answer", SHARD).expect("it is up");
    assert_eq!(read_exactly(&mut connection, 6).await, b"answer");

    drop(connection);
    assert_eq!(world.flow_closed().await, (flow, SHARD));
    for shard in [SHARD, OTHER_SHARD] {
        assert_eq!(world.trunk_down().await, (shard, tcp_key(&pbx), TrunkFault::Closed));
    }
    until_no_trunks(&world).await;
    world.assert_nothing_came();

    world.handle().send(&hop, b"again", SHARD).expect("room");
    let (mut connection, _) = within(pbx.accept()).await.expect("we connect anew");
    assert_eq!(read_exactly(&mut connection, 5).await, b"again");
}

#[tokio::test]
async fn a_trunk_that_cannot_be_opened_is_reported_to_each_sender_once() {
    let mut world = World::start(Wishes::none());
    let pbx = listen().await;
    let key = tcp_key(&pbx);
    drop(pbx);
    world.handle().send(&Hop::Trunk(Arc::clone(&key)), b"lost", SHARD).expect("room");
    world.handle().send(&Hop::Trunk(Arc::clone(&key)), b"lost", SHARD).expect("room");
    assert_eq!(world.trunk_down().await, (SHARD, key, TrunkFault::Connect));
    until_no_trunks(&world).await;
    assert_eq!(world.total(Incident::TrunkUnreachable), 1);
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_trunk_over_ipv6_leaves_from_the_listeners_address() {
    let mut world = World::start(Wishes::none());
    let pbx = TcpListener::bind("[::1]:0").await.expect("a free port");
    let remote = pbx.local_addr().expect("bound");
    let key = TrunkKey { transport: Transport::Tcp, remote, listener: ListenerId(3), identity: None };
    world.handle().send(&Hop::Trunk(Arc::new(key)), b"hello", SHARD).expect("room");
    let (mut connection, peer) = within(pbx.accept()).await.expect("we connect");
    assert_eq!(peer.ip(), world.tcp6().ip());
    assert_eq!(read_exactly(&mut connection, 5).await, b"hello");
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_trunk_nobody_drains_is_congested() {
    let mut world = World::start(Wishes::none());
    let pbx = listen().await;
    let hop = Hop::Trunk(tcp_key(&pbx));
    let (handle, bytes) = (world.handle(), [b'x'; 16 * 1024]);
    let down = within(async {
        loop {
            handle.send(&hop, &bytes, SHARD).expect("room");
            tokio::task::yield_now().await;
            if let Ok(event) = world.events.try_recv() {
                break event;
            }
        }
    })
    .await;
    assert!(matches!(down, Event::TrunkDown(SHARD, _, TrunkFault::Congested)));
}

#[tokio::test]
async fn a_certificate_of_a_known_authority_for_the_right_name_is_believed() {
    let authority = Authority::new();
    let mut world = World::start(believing(&authority));
    let mut connections = Vec::new();
    for (host, certificate_for) in [("pbx.test", "pbx.test"), ("127.0.0.1", "127.0.0.1")] {
        let pbx = listen().await;
        world.handle().send(&tls_hop(&pbx, host, None), b"hello", SHARD).expect("room");
        let mut connection = accept_tls(&pbx, &authority, certificate_for).await.expect("we believe it");
        assert_eq!(read_exactly(&mut connection, 5).await, b"hello");
        connections.push(connection);
    }
    world.assert_nothing_came();
}

#[tokio::test]
async fn a_wrong_name_or_an_unknown_authority_is_refused_and_sees_nothing() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let mut world = World::start(believing(&known));
    for (authority, certificate_for) in [(&known, "other.test"), (&unknown, "pbx.test")] {
        let pbx = listen().await;
        world.handle().send(&tls_hop(&pbx, "pbx.test", None), b"secret", SHARD).expect("room");
        if let Some(mut connection) = accept_tls(&pbx, authority, certificate_for).await {
            assert_eq!(read_to_end(&mut connection).await, b"");
        }
        assert_eq!(world.trunk_down().await.2, TrunkFault::Tls);
    }
    assert_eq!(world.total(Incident::TrunkUntrusted), 2);
}

#[tokio::test]
async fn a_pinned_key_is_believed_without_name_or_authority_and_no_other_is() {
    let (authority, pinned) = (Authority::new(), Leaf::new());
    let mut world = World::start(believing(&authority));

    let pbx = listen().await;
    world.handle().send(&tls_hop(&pbx, "pbx.test", Some(pinned.pin())), b"hello", SHARD).expect("room");
    let mut connection = accept_with(&pbx, pinned.self_signed("whatever.test")).await.expect("we believe it");
    assert_eq!(read_exactly(&mut connection, 5).await, b"hello");

    let impostor = listen().await;
    world.handle().send(&tls_hop(&impostor, "pbx.test", Some(pinned.pin())), b"secret", SHARD).expect("room");
    if let Some(mut connection) = accept_tls(&impostor, &authority, "pbx.test").await {
        assert_eq!(read_to_end(&mut connection).await, b"");
    }
    assert_eq!(world.trunk_down().await.2, TrunkFault::Tls);
}

#[tokio::test]
async fn a_tls_trunk_never_falls_back_to_plain_tcp() {
    let mut world = World::start(Wishes::timings(|timings| timings.handshake = Duration::from_millis(100)));
    let pbx = listen().await;
    world.handle().send(&tls_hop(&pbx, "pbx.test", None), b"secret", SHARD).expect("room");
    let (mut connection, _) = within(pbx.accept()).await.expect("we connect");
    let seen = read_to_end(&mut connection).await;
    assert!(!seen.windows(6).any(|window| window == b"secret"));
    assert_eq!(world.trunk_down().await.2, TrunkFault::Tls);

    let nobody = TrunkKey { transport: Transport::Tls, identity: None, ..(*tcp_key(&pbx)).clone() };
    world.handle().send(&Hop::Trunk(Arc::new(nobody)), b"secret", SHARD).expect("room");
    let (mut connection, _) = within(pbx.accept()).await.expect("we connect");
    assert_eq!(read_to_end(&mut connection).await, b"");
    assert_eq!(world.trunk_down().await.2, TrunkFault::Tls);
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

fn tcp_key(pbx: &TcpListener) -> Arc<TrunkKey> {
    let remote = pbx.local_addr().expect("bound");
    Arc::new(TrunkKey { transport: Transport::Tcp, remote, listener: ListenerId(1), identity: None })
}

fn tls_hop(pbx: &TcpListener, host: &str, spki_sha256: Option<[u8; 32]>) -> Hop {
    let identity = Some(TlsIdentity { host: host.to_owned(), spki_sha256 });
    Hop::Trunk(Arc::new(TrunkKey { transport: Transport::Tls, identity, ..(*tcp_key(pbx)).clone() }))
}

fn believing(authority: &Authority) -> Wishes {
    let mut wishes = Wishes::none();
    wishes.client_tls = ClientTls::new(Some(authority.pem.as_bytes())).expect("a certificate");
    wishes
}

async fn accept_tls(pbx: &TcpListener, authority: &Authority, name: &str) -> Option<TlsStream<TcpStream>> {
    accept_with(pbx, authority.server(name)).await
}

async fn accept_with(pbx: &TcpListener, config: Arc<rustls::ServerConfig>) -> Option<TlsStream<TcpStream>> {
    let (stream, _) = within(pbx.accept()).await.expect("we connect");
    within(TlsAcceptor::from(config).accept(stream)).await.ok()
}

/// A trunk leaves the table a moment after its senders were told.
async fn until_no_trunks(world: &World) {
    within(async {
        while world.handle().trunks() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
