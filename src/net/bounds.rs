//! Every bound of the network side, by name.
//!
//! The ones that are spans of time are fields of [`Timings`], so that a test can shorten them; the daemon runs with the
//! default. Refuses to hold behaviour: what happens at a bound is said where it is kept.

use std::time::Duration;

use crate::sip::framing::FrameLimits;
use crate::sip::message::Bounds;
use crate::sip::outbound::{PING_INTERVAL, PONG_TIMEOUT};

/// What a registrar's messages may take: all that SIP knows, for what its callers send is not its choice.
pub(super) const REGISTRAR_MESSAGE: Bounds = Bounds::LONG;
/// What messages of attached devices and of strangers may take.
pub(super) const EDGE_MESSAGE: Bounds = Bounds::SHORT;
/// Longest body of a message that is too large and whose end is still waited for, on a connection of a registrar or an attached
/// device; above it the connection is closed.
pub(super) const SKIP_MAX: usize = 256 * 1024;
/// Bytes that all messages longer than [`EDGE_MESSAGE`] take, from their head until nothing holds them any more; above it, or
/// above a source's share, a long message is answered 513.
pub(super) const LONG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The share of one source.
pub(super) const LONG_BYTES_PER_SOURCE_MAX: usize = 16 * 1024 * 1024;
/// Malformed datagrams of one registrar that are answered within a second; the others get silence.
pub(super) const REFUSALS_PER_SECOND: u8 = 5;
/// Registrars whose answers are counted at once; above it a further one gets silence.
pub(super) const REFUSAL_SOURCES_MAX: usize = 4_096;
/// Largest message that a datagram carries, over IPv4.
pub(super) const DATAGRAM_MAX: usize = 65_507;

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
/// Bytes waiting for a device's connection. What does not fit is not sent, and a request answered 513; the flow stays, since a
/// caller chooses the size of its messages. A device that reads nothing is gone by `Timings::write_stall`.
pub(super) const FLOW_QUEUE_BYTES: usize = 128 * 1024;
/// Bytes waiting for a trunk, also while it connects; above it the trunk counts as congested and is closed.
pub(super) const TRUNK_QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// Malformed messages on a stranger's connection until it is closed.
pub(super) const MALFORMED_MAX: u8 = 3;
/// Connections we opened, live at once; above it a new destination is answered with `TrunkFault::Congested`.
pub(super) const TRUNKS_MAX: usize = 20_000;
/// Trunks that wait to be opened; above it the same answer.
pub(super) const TRUNKS_OPENING: usize = 1_024;
/// Addresses of registrars remembered; above it a new one is not, and counts as a stranger.
pub(super) const REGISTRARS_MAX: usize = 200_000;
/// Socket addresses of attached devices remembered; above it a new one is not, and its device gets no more bytes than it sends.
pub(super) const DEVICES_MAX: usize = 200_000;
/// Addresses that were just asked; above it a new one is not, and its responses may be as long as a stranger's.
pub(super) const ASKED_MAX: usize = 20_000;
/// How long a response to a REGISTER may take: as long as its transaction (RFC 3261 §17.1.2.2) and a moment.
pub(super) const ASKED_SPAN: Duration = Duration::from_secs(40);
/// Questions of RFC 3263 answered at once.
pub(super) const LOCATES_AT_ONCE: usize = 64;
/// Questions that wait for their turn; above it they are answered with `LocateFault::Unanswered`.
pub(super) const LOCATES_QUEUED: usize = 4_096;
/// Free ports tried until one is found that is free for UDP and TCP alike.
pub(super) const PORT_TRIES: usize = 32;

/// How a registrar's stream is cut.
pub(super) const REGISTRAR_FRAMES: FrameLimits = FrameLimits { message: REGISTRAR_MESSAGE.bytes, skip: SKIP_MAX };
/// How an attached device's stream is cut.
pub(super) const DEVICE_FRAMES: FrameLimits = FrameLimits { message: EDGE_MESSAGE.bytes, skip: SKIP_MAX };
/// How a stranger's stream is cut.
pub(super) const STRANGER_FRAMES: FrameLimits = FrameLimits { message: EDGE_MESSAGE.bytes, skip: 0 };

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
    /// How long a stranger's connection stays at all, whatever it sends: attaching and calling take two round trips.
    pub stranger: Duration,
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
            stranger: Duration::from_secs(128),
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
