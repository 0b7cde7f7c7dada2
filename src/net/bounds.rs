//! Every bound of the network side, by name.
//!
//! The ones that are spans of time are fields of [`Timings`], so that a test can shorten them; the daemon runs with the
//! default. Refuses to hold behaviour: what happens at a bound is said where it is kept.

use std::time::Duration;

use crate::sip::outbound::{PING_INTERVAL, PONG_TIMEOUT};

/// Largest UDP payload there is. A smaller buffer would cut an oversized datagram and make it look whole.
pub(super) const DATAGRAM_BUFFER: usize = 64 * 1024;
/// Socket buffer asked for on UDP, in bytes: a burst of re-registrations arrives faster than shards take it.
pub(super) const UDP_SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Bytes read from a stream at once. One such buffer a thread, not a connection.
pub(super) const READ_CHUNK: usize = 16 * 1024;
/// Longest HTTP request that asks for a WebSocket, in bytes: browsers send their cookies along.
pub(super) const UPGRADE_HEAD_MAX: usize = 8 * 1024;
/// Connections the kernel completes before we accept them.
pub(super) const LISTEN_BACKLOG: i32 = 1024;
/// Bytes waiting for a device's connection; above it the flow is closed. Several whole messages, no more: a device that
/// does not read them is gone.
pub(super) const FLOW_QUEUE_BYTES: usize = 128 * 1024;
/// Bytes waiting for a trunk, also while it connects; above it the trunk counts as congested and is closed.
pub(super) const TRUNK_QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// Malformed messages on one connection until it is closed.
pub(super) const MALFORMED_MAX: u8 = 3;
/// Connections we opened, live at once; above it a new destination is answered with `TrunkFault::Congested`.
pub(super) const TRUNKS_MAX: usize = 20_000;
/// Trunks that wait to be opened; above it the same answer.
pub(super) const TRUNKS_OPENING: usize = 1_024;
/// Proven addresses remembered; above it a new one is not, and counts as a stranger.
pub(super) const PROVEN_MAX: usize = 200_000;
/// Questions of RFC 3263 answered at once.
pub(super) const LOCATES_AT_ONCE: usize = 64;
/// Questions that wait for their turn; above it they are answered with `LocateFault::Unanswered`.
pub(super) const LOCATES_QUEUED: usize = 4_096;
/// Free ports tried until one is found that is free for UDP and TCP alike.
pub(super) const PORT_TRIES: usize = 32;

/// Every span of time the network side waits.
#[derive(Clone, Debug)]
pub struct Timings {
    /// From the accepted connection to its first message, and from the first byte of a message to its last.
    pub message: Duration,
    /// A TLS handshake, on either side, with the upgrade to WebSocket that may follow.
    pub handshake: Duration,
    /// Connecting to a registrar.
    pub connect: Duration,
    /// Silence after which a stream is pinged.
    pub ping: Duration,
    /// How long a pong may take, where one was ever seen.
    pub pong: Duration,
    /// How long a stranger's connection stays without a message. As long as a transaction of RFC 3261 §17, so that no
    /// answer of ours comes too late for it.
    pub stranger_idle: Duration,
    /// How long a connection we opened stays without a message. Twice the longest expiry registrars usually grant: a
    /// trunk whose last binding was erased goes, one in use stays.
    pub trunk_idle: Duration,
    /// How long one write may make no progress.
    pub write_stall: Duration,
    /// How long a connection that is being closed may take to send what waits for it.
    pub flush: Duration,
    /// How long a sent byte may stay unacknowledged (`TCP_USER_TIMEOUT`): finds dead peers that never send a pong.
    pub unacknowledged: Duration,
    /// One location of RFC 3263, with all its questions.
    pub locate: Duration,
    /// How long connections may take to end when we stop.
    pub stop: Duration,
    /// Pause after `accept` failed for want of descriptors or memory.
    pub accept_pause: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            message: Duration::from_secs(5),
            handshake: Duration::from_secs(15),
            connect: Duration::from_secs(5),
            ping: PING_INTERVAL,
            pong: PONG_TIMEOUT,
            stranger_idle: Duration::from_secs(32),
            trunk_idle: Duration::from_secs(2 * 3600),
            write_stall: Duration::from_secs(30),
            flush: Duration::from_secs(2),
            unacknowledged: Duration::from_secs(30),
            locate: Duration::from_secs(10),
            stop: Duration::from_secs(3),
            accept_pause: Duration::from_millis(100),
        }
    }
}
