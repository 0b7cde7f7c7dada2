//! Datagrams: one socket, one loop for what comes; what goes is sent by the shards themselves without waiting.
//!
//! Refuses to answer what it drops: nobody learns from silence that a server is here.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use zeroize::Zeroize;

use super::bounds::DATAGRAM_BUFFER;
use super::counters::Incident;
use super::malformed;
use super::{Shared, Upward, stopped};
use crate::clock;
use crate::engine::ids::ListenerId;
use crate::engine::input::Arrival;
use crate::sip::message::MESSAGE_MAX;
use crate::sip::{Message, Transport};

/// Receives until told to stop.
pub(super) async fn receive<U: Upward>(
    socket: UdpSocket,
    listener: ListenerId,
    shared: Arc<Shared>,
    upward: U,
    mut stop: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; DATAGRAM_BUFFER];
    loop {
        let received = tokio::select! {
            () = stopped(&mut stop) => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error here is an ICMP answer to an earlier datagram of ours, or want of memory: the socket lives on.
        let Ok((length, peer)) = received else { continue };
        // The cheapest attack there is: a bug in parsing must cost one datagram, not every registration we hold.
        let parsed = catch_unwind(AssertUnwindSafe(|| parse(&buffer[..length], &shared)));
        // The buffer outlives every datagram.
        buffer[..length].zeroize();
        let Ok(Some(message)) = parsed.inspect_err(|_| shared.counters.count(Incident::Panicked)) else { continue };
        let arrival = Arrival {
            listener,
            transport: Transport::Udp,
            peer,
            flow: None,
            trunk: None,
            registrar: shared.proven.contains(peer.ip(), clock::now().boot),
        };
        upward.deliver(message, arrival).await;
    }
}

/// Sends one datagram now or not at all: SIP repeats over UDP what gets lost.
pub(super) fn send(socket: &std::net::UdpSocket, bytes: &[u8], peer: SocketAddr) -> io::Result<()> {
    loop {
        match socket.send_to(bytes, peer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent.map(|_| ()),
        }
    }
}

fn parse(datagram: &[u8], shared: &Shared) -> Option<Message> {
    if datagram.len() > MESSAGE_MAX {
        shared.counters.count(Incident::DatagramTooLarge);
        return None;
    }
    if is_keepalive(datagram) {
        return None;
    }
    match Message::parse_datagram(datagram.to_vec()) {
        Ok(message) if malformed::is_wellformed(&message) => Some(message),
        _ => {
            shared.counters.count(Incident::Malformed);
            None
        }
    }
}

/// What phones send to keep a NAT binding open: CRLFs, NULs, or `jaK`.
fn is_keepalive(datagram: &[u8]) -> bool {
    datagram == b"jaK" || datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}
