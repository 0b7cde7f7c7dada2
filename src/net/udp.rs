//! Datagrams: one socket, one loop for what comes; what goes is sent by the shards themselves without waiting.
//!
//! Refuses to answer what it drops: silence does not tell a stranger that a server is here. What is left of a registrar's
//! malformed request goes up, for the engine to answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use zeroize::Zeroize;

use super::bounds::{DATAGRAM_BUFFER, EDGE_MESSAGE, REGISTRAR_MESSAGE};
use super::counters::Incident;
use super::flows::Source;
use super::malformed;
use super::{Shared, Upward, stopped};
use crate::clock::{self, Instant};
use crate::engine::ids::ListenerId;
use crate::engine::input::{Arrival, Malformed};
use crate::sip::message::Bounds;
use crate::sip::{Message, StatusCode, Transport};

/// What a datagram turned out to be.
enum Datagram {
    Message(Message),
    /// A request of a registrar's that cannot be read.
    Malformed(Malformed),
}

/// One socket, and what it needs.
struct Receiver<U> {
    listener: ListenerId,
    shared: Arc<Shared>,
    upward: U,
}

/// Receives until told to stop.
pub(super) async fn receive<U: Upward>(
    socket: UdpSocket,
    listener: ListenerId,
    shared: Arc<Shared>,
    upward: U,
    mut stop: watch::Receiver<bool>,
) {
    let receiver = Receiver { listener, shared, upward };
    let mut buffer = vec![0; DATAGRAM_BUFFER];
    loop {
        let received = tokio::select! {
            () = stopped(&mut stop) => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error here is an ICMP answer to an earlier datagram of ours, or want of memory: the socket lives on.
        let Ok((length, peer)) = received else { continue };
        receiver.take(&mut buffer[..length], peer).await;
    }
}

impl<U: Upward> Receiver<U> {
    async fn take(&self, bytes: &mut [u8], peer: SocketAddr) {
        let now = clock::now().boot;
        let arrival = Arrival {
            listener: self.listener,
            transport: Transport::Udp,
            peer,
            flow: None,
            trunk: None,
            registrar: self.shared.sources.is_registrar(peer.ip(), now),
            device: self.shared.sources.is_device(peer, now),
        };
        // The cheapest attack there is: a bug in parsing must cost one datagram, not every registration we hold.
        let parsed = catch_unwind(AssertUnwindSafe(|| self.parse(bytes, &arrival, now)));
        // The buffer outlives every datagram.
        bytes.zeroize();
        match parsed {
            Ok(Some(Datagram::Message(message))) => drop(self.upward.deliver(message, arrival).await),
            Ok(Some(Datagram::Malformed(malformed))) => self.upward.deliver_malformed(malformed, arrival),
            Ok(None) => {}
            Err(_) => self.shared.counters.count(Incident::Panicked),
        }
    }

    fn parse(&self, datagram: &[u8], arrival: &Arrival, now: Instant) -> Option<Datagram> {
        if is_keepalive(datagram) {
            return None;
        }
        // RFC 3261 §7.5 wants it of streams; some send it in datagrams, too.
        let datagram = trimmed(datagram);
        let address = arrival.peer.ip();
        let is_response = datagram.starts_with(b"SIP/");
        let is_known = arrival.registrar || (is_response && self.shared.sources.is_asked(address, now));
        let bounds = if is_known { REGISTRAR_MESSAGE } else { EDGE_MESSAGE };
        let fault = match self.read(datagram, bounds, address) {
            Ok(message) => return Some(Datagram::Message(message)),
            Err(fault) => fault,
        };
        if !is_known {
            None
        } else if is_response {
            // The exchange that waits for it shall not wait for ever.
            Message::salvage_registered(datagram).map(Datagram::Message)
        } else {
            let remains = malformed::remains(datagram, fault)?;
            self.shared.refusals.take(address, now).then_some(Datagram::Malformed(remains))
        }
    }

    /// Reads a datagram; the fault of one that cannot be read is counted.
    fn read(&self, datagram: &[u8], bounds: Bounds, address: IpAddr) -> Result<Message, StatusCode> {
        let counters = &self.shared.counters;
        let too_large = || counters.count(Incident::DatagramTooLarge);
        if datagram.len() > bounds.bytes {
            too_large();
            return Err(StatusCode::MESSAGE_TOO_LARGE);
        }
        let malformed = |code| {
            counters.count(Incident::Malformed);
            code
        };
        let message = Message::parse_datagram_within(datagram.to_vec(), bounds);
        let message = message.map_err(|error| malformed(error.status()))?;
        if !malformed::is_wellformed(&message) {
            return Err(malformed(StatusCode::BAD_REQUEST));
        }
        if datagram.len() <= EDGE_MESSAGE.bytes {
            return Ok(message);
        }
        let reserved = self.shared.long.reserve(Source::of(address), datagram.len());
        let reserved = reserved.ok_or(StatusCode::MESSAGE_TOO_LARGE).inspect_err(|_| too_large())?;
        Ok(message.guarded(reserved))
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

/// Without the line ends in front.
fn trimmed(datagram: &[u8]) -> &[u8] {
    let start = datagram.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(datagram.len());
    &datagram[start..]
}

/// What phones send to keep a NAT binding open: CRLFs, NULs, or `jaK`.
fn is_keepalive(datagram: &[u8]) -> bool {
    datagram == b"jaK" || datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}
