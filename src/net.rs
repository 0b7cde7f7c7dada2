//! The network side of SIP: listeners, live flows, trunks, and where registrars are.
//!
//! Its own room because everything that touches a socket for SIP is here and nothing else is: bytes become messages on the
//! way up, effects become bytes on the way down. Every listener serves devices and registrars alike. It keeps the rules of
//! streams (times, pings, caps, malformed messages) and the bounds of [`bounds`]; it refuses to look into a message
//! further than to see that it is one, and decides nothing that an account or a call depends on.

mod accept;
mod believing;
mod bounds;
mod counters;
mod dns;
mod envelope;
mod flows;
mod known;
mod listeners;
mod long;
mod malformed;
mod names;
mod queue;
mod refusals;
mod rules;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod trunks;
mod udp;
mod websocket;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::interval;

pub(crate) use believing::Believing;
use bounds::DATAGRAM_MAX;
pub use bounds::Timings;
pub use counters::{Counters, Incident};
pub use dns::LocateDone;
pub(crate) use listeners::bind_stream;
pub use listeners::{ListenEntry, ListenError, Plan, plan_listeners};
pub use names::Names;
pub use tls::{ClientTls, ServerTls, TlsError, server_config};

use accept::Acceptor;
use dns::{Locates, Reach};
use flows::Flows;
use known::Sources;
use listeners::BoundSocket;
use long::LongBytes;
use queue::Untaken;
use refusals::Refusals;
use trunks::Trunks;

use crate::clock;
use crate::engine::account::TrunkUri;
use crate::engine::ids::{FlowId, ListenerId, ShardId};
use crate::engine::input::{Arrival, Malformed, TrunkFault};
use crate::engine::output::{Hop, TrunkKey};
use crate::engine::policy::Listener;
use crate::sip::{Message, Transport};

/// How often sources that nothing is known of any more are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Where messages and endings go. The router is one; a test is another.
pub trait Upward: Clone + Send + Sync + 'static {
    /// Hands up a message. For a datagram it never waits; for a stream it waits for room, and so the peer waits. Says
    /// which shard got it.
    fn deliver(&self, message: Message, arrival: Arrival) -> impl Future<Output = Option<ShardId>> + Send;

    /// Hands up a malformed request of a registrar's that came as a datagram. Never waits.
    fn deliver_malformed(&self, malformed: Malformed, arrival: Arrival);

    /// Tells a shard that a flow it has messages of is gone, behind those messages.
    fn flow_closed(&self, flow: FlowId, shard: ShardId) -> impl Future<Output = ()> + Send;

    /// Tells a shard that a trunk it sent on could not be opened or is gone.
    fn trunk_down(&self, shard: ShardId, key: Arc<TrunkKey>, fault: TrunkFault) -> impl Future<Output = ()> + Send;
}

/// What the network side needs besides its sockets.
pub struct Settings {
    /// What TLS listeners show.
    pub server_tls: Option<ServerTls>,
    /// Whom TLS trunks believe.
    pub client_tls: ClientTls,
    /// `limits.flows`.
    pub flows_max: u32,
    /// `limits.flows_per_source`.
    pub flows_per_source_max: u32,
    /// Times of the stream rules.
    pub timings: Timings,
    /// Who is asked for names.
    pub names: Arc<Names>,
}

/// What stands for the response of a peer that cannot be sent a request for its size ([`Unsent::TooLarge`]); `None` where
/// nothing waits for one.
pub(crate) fn unsent_response(request: &[u8]) -> Option<Message> {
    malformed::unsent(request)
}

/// The running network side: owns its tasks.
pub struct Net {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    handle: Handle,
}

/// What effects are carried out with. Never waits.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// By listener; `None` for streams.
    datagrams: Vec<Option<std::net::UdpSocket>>,
    trunks: Trunks,
    locates: Locates,
}

/// What all tasks share.
struct Shared {
    flows: Arc<Flows>,
    sources: Sources,
    long: Arc<LongBytes>,
    refusals: Refusals,
    counters: Counters,
    timings: Timings,
}

/// Why bytes could not be sent; the engine has to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The flow is gone.
    Flow(FlowId),
    /// The way there is up and does not take these bytes, now or ever.
    TooLarge,
    /// There is no room for another trunk.
    Trunk(Arc<TrunkKey>, TrunkFault),
}

impl Net {
    /// Serves the planned listeners, handing everything to `upward`. Needs a tokio runtime.
    ///
    /// # Errors
    /// A TLS listener without a certificate, or a socket that cannot be registered.
    pub fn start<U: Upward>(plan: Plan, settings: Settings, upward: U) -> Result<Self, StartError> {
        let listeners = plan.listeners();
        if listeners.iter().any(|listener| listener.transport.is_tls()) && settings.server_tls.is_none() {
            return Err(StartError::Listen(ListenError::CertificateMissing));
        }
        let shared = Arc::new(Shared {
            flows: Arc::new(Flows::new(settings.flows_max, settings.flows_per_source_max)),
            sources: Sources::default(),
            long: Arc::default(),
            refusals: Refusals::default(),
            counters: Counters::default(),
            timings: settings.timings,
        });
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut datagrams = Vec::with_capacity(listeners.len());
        let starter = Starter { shared: &shared, upward: &upward, stopping: &stopping, tls: settings.server_tls };
        for ((place, socket), listener) in (0..).zip(plan.sockets).zip(&listeners) {
            datagrams.push(starter.serve(socket, ListenerId(place), listener.transport, &mut tasks)?);
        }
        let reach = reach(&listeners);
        let (trunks, opener) = trunks::trunks(settings.client_tls, listeners, Arc::clone(&shared), upward);
        tasks.spawn(opener.run(stopping.clone()));
        let (locates, answering) = dns::locates(settings.names, reach, shared.timings.locate);
        tasks.spawn(answering.run(stopping.clone()));
        tasks.spawn(sweep(Arc::clone(&shared), stopping));
        Ok(Self { tasks, stop, handle: Handle(Arc::new(Inner { shared, datagrams, trunks, locates })) })
    }

    /// What effects are carried out with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until one of the tasks ends although nobody stopped it: a bug of ours.
    pub async fn failed(&mut self) -> Option<JoinError> {
        self.tasks.join_next().await.and_then(Result::err)
    }

    /// Closes the listeners, then the flows, each after what waits for it is sent.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.handle.0.shared.flows.close_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Why the network side does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener that cannot serve.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A socket that cannot be registered with the runtime.
    #[error("cannot serve a socket: {0}")]
    Socket(#[from] io::Error),
}

impl Handle {
    /// Sends bytes on behalf of `shard`. A datagram that the kernel does not take is lost, as datagrams are.
    ///
    /// # Errors
    /// The flow is gone or a trunk cannot be had; nothing else will tell the shard.
    pub fn send(&self, hop: &Hop, bytes: &[u8], shard: ShardId) -> Result<(), Unsent> {
        match hop {
            Hop::Datagram { .. } if bytes.len() > DATAGRAM_MAX => Err(Unsent::TooLarge),
            Hop::Datagram { listener, peer } => {
                if bytes.starts_with(b"REGISTER ") {
                    self.0.shared.sources.remember_asked(peer.ip(), clock::now().boot);
                }
                let socket = self.0.datagrams.get(usize::from(listener.0)).and_then(Option::as_ref);
                if socket.is_none_or(|socket| udp::send(socket, bytes, *peer).is_err()) {
                    self.0.shared.counters.count(Incident::DatagramUnsent);
                }
                Ok(())
            }
            Hop::Flow(flow) => self.0.shared.flows.send(*flow, bytes).map_err(|untaken| match untaken {
                Untaken::Closed => Unsent::Flow(*flow),
                Untaken::Full => {
                    self.0.shared.counters.count(Incident::QueueFull);
                    Unsent::TooLarge
                }
            }),
            Hop::Trunk(key) => self.0.trunks.send(key, bytes, shard).map_err(|fault| {
                self.0.shared.counters.count(Incident::TrunksFull);
                Unsent::Trunk(Arc::clone(key), fault)
            }),
        }
    }

    /// Closes a flow once what waits for it is sent.
    pub fn close_flow(&self, flow: FlowId) {
        self.0.shared.flows.close(flow);
    }

    /// Remembers that `address` granted a REGISTER.
    pub fn remember_registrar(&self, address: IpAddr, span: Duration) {
        self.0.shared.sources.remember_registrar(address, span, clock::now().boot);
    }

    /// Remembers that a device attached from `peer`.
    pub fn remember_device(&self, peer: SocketAddr, span: Duration) {
        self.0.shared.sources.remember_device(peer, span, clock::now().boot);
    }

    /// Locates a registrar; `done` is called exactly once, perhaps before this returns.
    pub fn locate(&self, uri: TrunkUri, done: LocateDone) {
        if !self.0.locates.ask(uri, done) {
            self.0.shared.counters.count(Incident::LocatesFull);
        }
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.shared.counters
    }

    /// Live stream connections, trunks included.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.0.shared.flows.len()
    }

    /// Trunks, opening ones included.
    #[must_use]
    pub fn trunks(&self) -> usize {
        self.0.trunks.len()
    }
}

/// What serving one socket needs.
struct Starter<'a, U> {
    shared: &'a Arc<Shared>,
    upward: &'a U,
    stopping: &'a watch::Receiver<bool>,
    tls: Option<ServerTls>,
}

impl<U: Upward> Starter<'_, U> {
    /// Spawns the task of one socket; returns the sending side of a UDP one.
    fn serve(
        &self,
        socket: BoundSocket,
        id: ListenerId,
        transport: Transport,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Option<std::net::UdpSocket>> {
        let (shared, upward) = (Arc::clone(self.shared), self.upward.clone());
        match socket {
            BoundSocket::Datagram(socket) => {
                let sending = socket.try_clone()?;
                let socket = UdpSocket::from_std(socket)?;
                tasks.spawn(udp::receive(socket, id, shared, upward, self.stopping.clone()));
                Ok(Some(sending))
            }
            BoundSocket::Stream(socket) => {
                let listener = TcpListener::from_std(socket)?;
                let tls = self.tls.clone().filter(|_| transport.is_tls());
                let acceptor = Acceptor { id, transport, tls, shared, upward };
                tasks.spawn(acceptor.run(listener, self.stopping.clone()));
                Ok(None)
            }
        }
    }
}

/// What trunks can use: UDP leaves from a listener's socket, streams from any; a family counts if a listener that is not
/// for devices alone has it.
fn reach(listeners: &[Listener]) -> Reach {
    let has_udp = listeners.iter().any(|listener| listener.transport == Transport::Udp);
    let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
    let has = |ipv6| listeners.iter().any(|own| !own.transport.is_websocket() && own.local.is_ipv6() == ipv6);
    Reach {
        ipv4: has(false),
        ipv6: has(true),
        transports: transports.into_iter().filter(|transport| *transport != Transport::Udp || has_udp).collect(),
    }
}

async fn sweep(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            _ = ticks.tick() => {
                let now = clock::now().boot;
                shared.sources.sweep(now);
                shared.refusals.sweep(now);
            }
        }
    }
}

/// Waits until we are told to stop, or nobody is left who could tell.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
