//! Connections that we open to registrars and PBXs, one for all bindings that may share it.
//!
//! Opened by the first message for it; what comes meanwhile waits in its queue. Most PBXs send their INVITEs down the
//! connection that registered, so a trunk is a flow like any other, with its key besides. Whoever sent on it learns of its
//! end, exactly once for everything sent before. Refuses to reconnect, to retry and to fall back: the engine decides that.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::accept::{note_panic, tune};
use super::bounds::{TRUNK_QUEUE_BYTES, TRUNKS_MAX, TRUNKS_OPENING};
use super::envelope::Envelope;
use super::flows::Flow;
use super::queue::{Closing, Untaken};
use super::rules::Opened;
use super::stream::{self, Connection, Halves};
use super::tls::ClientTls;
use super::{Shared, Upward, stopped};
use crate::engine::ids::ShardId;
use crate::engine::input::{Arrival, TrunkFault};
use crate::engine::output::{TlsIdentity, TrunkKey};
use crate::engine::policy::Listener;
use crate::sip::Transport;

type Table = DashMap<Arc<TrunkKey>, Arc<Trunk>, ahash::RandomState>;

/// The sending side of all trunks.
pub(super) struct Trunks {
    table: Arc<Table>,
    opening: mpsc::Sender<Arc<Trunk>>,
}

/// One trunk, from its first message to the last notice of its end.
struct Trunk {
    key: Arc<TrunkKey>,
    flow: Arc<Flow>,
    /// Who sent on it and has to learn of its end.
    senders: Mutex<Vec<ShardId>>,
}

/// Opens trunks and serves them.
pub(super) struct Opener<U> {
    table: Arc<Table>,
    wanted: mpsc::Receiver<Arc<Trunk>>,
    context: Arc<Context<U>>,
}

struct Context<U> {
    table: Arc<Table>,
    tls: ClientTls,
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    upward: U,
}

/// Makes both sides.
pub(super) fn trunks<U: Upward>(
    tls: ClientTls,
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
    upward: U,
) -> (Trunks, Opener<U>) {
    let table = Arc::new(Table::default());
    let (opening, wanted) = mpsc::channel(TRUNKS_OPENING);
    let context = Arc::new(Context { table: Arc::clone(&table), tls, listeners, shared, upward });
    (Trunks { table: Arc::clone(&table), opening }, Opener { table, wanted, context })
}

impl Trunks {
    /// Queues a message of `sender`. After `Ok`, the sender will hear of the trunk's end; an error is all it hears.
    pub(super) fn send(&self, key: &Arc<TrunkKey>, bytes: &[u8], sender: ShardId) -> Result<(), TrunkFault> {
        if let Some(trunk) = self.table.get(key) {
            trunk.send(bytes, sender);
            return Ok(());
        }
        if self.table.len() >= TRUNKS_MAX {
            return Err(TrunkFault::Congested);
        }
        match self.table.entry(Arc::clone(key)) {
            Entry::Occupied(trunk) => trunk.get().send(bytes, sender),
            Entry::Vacant(place) => {
                let trunk = Arc::new(Trunk {
                    key: Arc::clone(key),
                    flow: Arc::new(Flow::new(TRUNK_QUEUE_BYTES, Envelope::Bare, true)),
                    senders: Mutex::default(),
                });
                trunk.send(bytes, sender);
                self.opening.try_send(Arc::clone(&trunk)).map_err(|_| TrunkFault::Congested)?;
                place.insert(trunk);
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Trunk {
    /// The sender enlists before its bytes are queued: if the trunk is closing, the notice of its end is still to come.
    fn send(&self, bytes: &[u8], sender: ShardId) {
        {
            let mut senders = self.senders();
            if !senders.contains(&sender) {
                senders.push(sender);
            }
        }
        // Full closes the trunk, as a registrar that does not read is as good as gone; closed is about to be told. Either way
        // the sender hears of it.
        if self.flow.send(bytes) == Err(Untaken::Full) {
            self.flow.queue().close(Closing::QueueFull);
        }
    }

    fn senders(&self) -> MutexGuard<'_, Vec<ShardId>> {
        // Nothing in here can panic half-way.
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<U: Upward> Opener<U> {
    /// Opens what is wanted until told to stop, then closes all.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut served: HashMap<Id, Arc<Trunk>> = HashMap::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(trunk) = self.wanted.recv() => {
                    let task = connections.spawn(Arc::clone(&self.context).serve(Arc::clone(&trunk)));
                    served.insert(task.id(), trunk);
                }
                Some(ended) = connections.join_next_with_id() => {
                    let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
                    let trunk = served.remove(&id);
                    if note_panic(&self.context.shared, &ended) && let Some(trunk) = trunk {
                        // Its senders still have to hear of the end.
                        connections.spawn(Arc::clone(&self.context).give_up(trunk, TrunkFault::Closed));
                    }
                }
            }
        }
        for trunk in self.table.iter() {
            trunk.flow.queue().close(Closing::Stopping);
        }
        let ends = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(self.context.shared.timings.stop, ends).await;
        connections.shutdown().await;
    }
}

impl<U: Upward> Context<U> {
    async fn serve(self: Arc<Self>, trunk: Arc<Trunk>) {
        let fault = match self.open_and_converse(&trunk).await {
            Ok(Closing::QueueFull) => TrunkFault::Congested,
            Ok(_) => TrunkFault::Closed,
            Err(fault) => fault,
        };
        self.give_up(trunk, fault).await;
    }

    async fn open_and_converse(&self, trunk: &Trunk) -> Result<Closing, TrunkFault> {
        let stream = self.connect(&trunk.key).await.map_err(|_| TrunkFault::Connect)?;
        match (trunk.key.transport, &trunk.key.identity) {
            (Transport::Tcp, _) => Ok(self.converse(split(stream), trunk).await),
            (Transport::Tls, Some(identity)) => {
                let stream = self.handshake(stream, identity).await.ok_or(TrunkFault::Tls)?;
                Ok(self.converse(split(stream), trunk).await)
            }
            // Nobody to verify is nobody to trust.
            (Transport::Tls, None) => Err(TrunkFault::Tls),
            (Transport::Udp | Transport::Ws | Transport::Wss, _) => Err(TrunkFault::Connect),
        }
    }

    async fn connect(&self, key: &TrunkKey) -> io::Result<TcpStream> {
        let socket = if key.remote.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        let local = self.listeners.get(usize::from(key.listener.0)).map(|listener| listener.local.ip());
        // Where the operator chose an address for the listener, the registrar sees the same one.
        if let Some(local) = local.filter(|ip| !ip.is_unspecified() && ip.is_ipv6() == key.remote.is_ipv6()) {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        let stream = timeout(self.shared.timings.connect, socket.connect(key.remote)).await??;
        tune(&stream, &self.shared.timings);
        Ok(stream)
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        identity: &TlsIdentity,
    ) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
        let (config, name) = self.tls.config(identity)?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        timeout(self.shared.timings.handshake, handshake).await.ok()?.ok()
    }

    async fn converse<S: AsyncRead + AsyncWrite + Send>(&self, stream: Halves<S>, trunk: &Trunk) -> Closing {
        let enrolment = self.shared.flows.enrol_flow(Arc::clone(&trunk.flow));
        let arrival = Arrival {
            listener: trunk.key.listener,
            transport: trunk.key.transport,
            peer: trunk.key.remote,
            flow: Some(enrolment.id),
            trunk: Some(Arc::clone(&trunk.key)),
            registrar: false,
            device: false,
        };
        let connection = Connection {
            shared: &self.shared,
            upward: &self.upward,
            enrolment: &enrolment,
            arrival,
            opened: Opened::ByUs,
        };
        stream::run(stream, connection).await
    }

    /// Tells everyone who sent, also those who send while we tell, and only then frees the key for a new trunk.
    async fn give_up(self: Arc<Self>, trunk: Arc<Trunk>, fault: TrunkFault) {
        /// Between two notices to a shard that keeps sending: it learns of the first before it gets the second.
        const PAUSE: Duration = Duration::from_millis(1);
        self.shared.counters.count_fault(fault);
        trunk.flow.queue().close(Closing::Peer);
        loop {
            let senders = std::mem::take(&mut *trunk.senders());
            for sender in senders {
                self.upward.trunk_down(sender, Arc::clone(&trunk.key), fault).await;
            }
            let removed =
                self.table.remove_if(&trunk.key, |_, known| Arc::ptr_eq(known, &trunk) && known.senders().is_empty());
            if removed.is_some() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
