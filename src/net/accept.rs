//! Connections that others open: caps first, then TLS and the WebSocket upgrade where they are spoken, then the stream itself.
//!
//! The caps stand before the handshake, because a handshake is the most expensive thing a stranger can ask of us. Each
//! listener owns the tasks of its connections. Refuses nothing for what is said on a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::bounds::Timings;
use super::counters::Incident;
use super::envelope::Envelope;
use super::flows::Admission;
use super::rules::Opened;
use super::stream::{self, Connection, Halves};
use super::tls::ServerTls;
use super::{Shared, Upward, stopped, websocket};
use crate::engine::ids::ListenerId;
use crate::engine::input::Arrival;
use crate::sip::Transport;

/// One listening socket for streams.
pub(super) struct Acceptor<U> {
    pub(super) id: ListenerId,
    pub(super) transport: Transport,
    /// There for TLS, also beneath WebSocket.
    pub(super) tls: Option<ServerTls>,
    pub(super) shared: Arc<Shared>,
    pub(super) upward: U,
}

impl<U: Upward> Acceptor<U> {
    /// Accepts until told to stop, then waits a while for the connections to end.
    pub(super) async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => Arc::clone(&this).admit(stream, peer, &mut connections),
                    Err(_) => {
                        // Out of descriptors or memory, as a rule: accepting again at once would spin.
                        this.shared.counters.count(Incident::AcceptFailed);
                        sleep(this.shared.timings.accept_pause).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    note_panic(&this.shared, &ended);
                }
            }
        }
        drop(listener);
        let ends = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(this.shared.timings.stop, ends).await;
        connections.shutdown().await;
    }

    fn admit(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        match self.shared.flows.admit(peer.ip()) {
            Ok(admission) => {
                connections.spawn(self.serve(stream, peer, admission));
            }
            Err(incident) => self.shared.counters.count(incident),
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, _admission: Admission) {
        tune(&stream, &self.shared.timings);
        // Boxed: what a handshake needs is given back when it is over, not kept as long as the connection.
        match &self.tls {
            None if !self.transport.is_websocket() => self.converse(split(stream), peer).await,
            None => {
                let shaken = timeout(self.shared.timings.handshake, Box::pin(self.upgrade(stream))).await;
                if let Some(stream) = self.judge(shaken) {
                    self.converse(split(stream), peer).await;
                }
            }
            Some(tls) => {
                let acceptor = TlsAcceptor::from(tls.current());
                let handshake = Box::pin(async { self.upgrade(acceptor.accept(stream).await?).await });
                let shaken = timeout(self.shared.timings.handshake, handshake).await;
                if let Some(stream) = self.judge(shaken) {
                    self.converse(split(stream), peer).await;
                }
            }
        }
    }

    /// What is said before the first message: nothing, or the upgrade to WebSocket.
    async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> io::Result<S> {
        if self.transport.is_websocket() {
            websocket::upgrade(&mut stream).await?;
        }
        Ok(stream)
    }

    fn judge<S>(&self, shaken: Result<io::Result<S>, Elapsed>) -> Option<S> {
        match shaken {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(_)) => self.shared.counters.count(Incident::HandshakeFailed),
            Err(_) => self.shared.counters.count(Incident::HandshakeSlow),
        }
        None
    }

    async fn converse<S>(&self, stream: Halves<S>, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let enrolment = self.shared.flows.enrol(Envelope::of(self.transport));
        let arrival = Arrival {
            listener: self.id,
            transport: self.transport,
            peer,
            flow: Some(enrolment.id),
            trunk: None,
            registrar: false,
            device: false,
        };
        let connection = Connection {
            shared: &self.shared,
            upward: &self.upward,
            enrolment: &enrolment,
            arrival,
            opened: Opened::ByPeer,
        };
        stream::run(stream, connection).await;
    }
}

/// What every TCP connection of ours is set to: small messages leave at once, and a peer that is gone is found out.
/// A kernel that refuses an option leaves the connection usable.
pub(super) fn tune(stream: &TcpStream, timings: &Timings) {
    const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(timings.unacknowledged));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER));
}

/// A panic is a bug of ours; it ends the one connection whose bytes found it, not the calls of everyone else.
/// Says whether there was one.
pub(super) fn note_panic<T>(shared: &Shared, ended: &Result<T, JoinError>) -> bool {
    let panicked = ended.as_ref().is_err_and(JoinError::is_panic);
    if panicked {
        shared.counters.count(Incident::Panicked);
        tracing::error!("a connection's task panicked");
    }
    panicked
}
