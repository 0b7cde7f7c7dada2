//! The network side against real sockets on loopback, with a channel in the router's place.

mod datagrams;
mod disturbed;
mod streams;
mod trunks;
mod websockets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::clock::PATIENCE;
use crate::engine::ids::ShardId;

/// The shard that every message goes to.
const SHARD: ShardId = ShardId(3);

/// What came up.
enum Event {
    Message(Message, Arrival),
    Malformed(Malformed, Arrival),
    FlowClosed(FlowId, ShardId),
    TrunkDown(ShardId, Arc<TrunkKey>, TrunkFault),
}

#[derive(Clone)]
struct Upstream(mpsc::Sender<Event>);

impl Upward for Upstream {
    async fn deliver(&self, message: Message, arrival: Arrival) -> Option<ShardId> {
        self.0.send(Event::Message(message, arrival)).await.ok().map(|()| SHARD)
    }

    fn deliver_malformed(&self, malformed: Malformed, arrival: Arrival) {
        let _ = self.0.try_send(Event::Malformed(malformed, arrival));
    }

    async fn flow_closed(&self, flow: FlowId, shard: ShardId) {
        let _ = self.0.send(Event::FlowClosed(flow, shard)).await;
    }

    async fn trunk_down(&self, shard: ShardId, key: Arc<TrunkKey>, fault: TrunkFault) {
        let _ = self.0.send(Event::TrunkDown(shard, key, fault)).await;
    }
}

/// A running network side and what comes up from it.
struct World {
    net: Net,
    listeners: Vec<Listener>,
    events: mpsc::Receiver<Event>,
}

/// What a test wants otherwise.
struct Wishes {
    timings: Timings,
    flows_per_source_max: u32,
    events: usize,
    server_tls: Option<ServerTls>,
    client_tls: ClientTls,
}

impl Wishes {
    fn none() -> Self {
        Self {
            timings: Timings::default(),
            flows_per_source_max: 100,
            events: 100,
            server_tls: None,
            client_tls: ClientTls::new(None).expect("the public roots"),
        }
    }

    fn timings(change: impl FnOnce(&mut Timings)) -> Self {
        let mut wishes = Self::none();
        change(&mut wishes.timings);
        wishes
    }
}

impl World {
    /// Listens on UDP and its TCP twin, over IPv4 and IPv6, on WebSocket, and on both with TLS if there is a certificate.
    fn start(wishes: Wishes) -> Self {
        let entry = |transport, address: &str| ListenEntry {
            transport,
            address: address.parse().expect("a literal"),
            advertise: None,
        };
        let mut entries = vec![entry(Transport::Udp, "127.0.0.1:0"), entry(Transport::Udp, "[::1]:0")];
        if wishes.server_tls.is_some() {
            entries.extend([Transport::Tls, Transport::Wss].map(|transport| entry(transport, "127.0.0.1:0")));
        }
        entries.push(entry(Transport::Ws, "127.0.0.1:0"));
        let plan = plan_listeners(&entries).expect("free ports");
        let listeners = plan.listeners();
        let (sender, events) = mpsc::channel(wishes.events);
        let settings = Settings {
            server_tls: wishes.server_tls,
            client_tls: wishes.client_tls,
            flows_max: 1000,
            flows_per_source_max: wishes.flows_per_source_max,
            timings: wishes.timings,
            names: Arc::default(),
        };
        let net = Net::start(plan, settings, Upstream(sender)).expect("a runtime");
        Self { net, listeners, events }
    }

    fn handle(&self) -> Handle {
        self.net.handle()
    }

    fn total(&self, incident: Incident) -> u64 {
        self.handle().counters().total(incident)
    }

    fn udp(&self) -> SocketAddr {
        self.listeners[0].local
    }

    fn tcp(&self) -> SocketAddr {
        self.listeners[1].local
    }

    fn udp6(&self) -> SocketAddr {
        self.listeners[2].local
    }

    fn tcp6(&self) -> SocketAddr {
        self.listeners[3].local
    }

    fn tls(&self) -> SocketAddr {
        self.listeners[4].local
    }

    fn speaks(&self, transport: Transport) -> SocketAddr {
        self.listeners.iter().find(|listener| listener.transport == transport).expect("it is served").local
    }

    async fn next(&mut self) -> Event {
        within(self.events.recv()).await.expect("the network side is up")
    }

    async fn message(&mut self) -> (Message, Arrival) {
        match self.next().await {
            Event::Message(message, arrival) => Some((message, arrival)),
            _ => None,
        }
        .expect("a message")
    }

    async fn flow_closed(&mut self) -> (FlowId, ShardId) {
        match self.next().await {
            Event::FlowClosed(flow, shard) => Some((flow, shard)),
            _ => None,
        }
        .expect("the end of a flow")
    }

    async fn trunk_down(&mut self) -> (ShardId, Arc<TrunkKey>, TrunkFault) {
        match self.next().await {
            Event::TrunkDown(shard, key, fault) => Some((shard, key, fault)),
            _ => None,
        }
        .expect("the end of a trunk")
    }

    fn assert_nothing_came(&mut self) {
        assert!(self.events.try_recv().is_err(), "nothing else comes up");
    }
}

async fn within<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("it happens in time")
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = within(TcpStream::connect(address)).await.expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    within(stream.write_all(bytes)).await.expect("it is open");
}

async fn read_exactly<R: AsyncRead + Unpin>(stream: &mut R, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within(stream.read_exact(&mut bytes)).await.expect("so many bytes");
    bytes
}

/// Reads to the end, which may be a reset.
async fn read_to_end<R: AsyncRead + Unpin>(stream: &mut R) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = within(stream.read_to_end(&mut bytes)).await;
    bytes
}

/// A request as any phone sends it; `name` becomes its Call-ID.
fn request(name: &str) -> Vec<u8> {
    format!(
        "OPTIONS sip:edge.test SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK{name}\r\nMax-Forwards: 70\r\n\
         From: <sip:a@edge.test>;tag=1\r\nTo: <sip:b@edge.test>\r\nCall-ID: {name}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 4\r\n\r\nbody"
    )
    .into_bytes()
}

fn call_id(message: &Message) -> &str {
    std::str::from_utf8(message.call_id().expect("a Call-ID")).expect("text")
}

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new([]).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// What a server called `name` shows.
    fn server(&self, name: &str) -> Arc<rustls::ServerConfig> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        server_config(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("a pair")
    }
}

/// A key of its own.
struct Leaf(rcgen::KeyPair);

impl Leaf {
    fn new() -> Self {
        Self(rcgen::KeyPair::generate().expect("a key"))
    }

    fn pin(&self) -> [u8; 32] {
        let key = rcgen::PublicKeyData::subject_public_key_info(&self.0);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key);
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn self_signed(&self, name: &str) -> Arc<rustls::ServerConfig> {
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&self.0).expect("a certificate");
        server_config(certificate.pem().as_bytes(), self.0.serialize_pem().as_bytes()).expect("a pair")
    }
}
