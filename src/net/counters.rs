//! What the network side counts, for `shed_total` and friends.
//!
//! Refuses labels from peers: the reasons are a closed set.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::input::TrunkFault;

/// Why a datagram, message or connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A datagram above the message limit.
    DatagramTooLarge,
    /// A message that is not SIP, or lacks what every message must have.
    Malformed,
    /// A datagram the kernel did not take.
    DatagramUnsent,
    /// A connection above `limits.flows`.
    FlowsFull,
    /// A connection above `limits.flows_per_source`.
    SourceFull,
    /// `accept` failed.
    AcceptFailed,
    /// A TLS handshake that failed, or an upgrade to WebSocket that was refused.
    HandshakeFailed,
    /// A handshake of either kind that took too long.
    HandshakeSlow,
    /// A message that did not come, or not whole, in time.
    MessageSlow,
    /// A connection closed for too many malformed messages.
    MalformedFlow,
    /// A connection closed because its messages could not be told apart.
    FramingLost,
    /// A stranger's connection that proved nothing.
    StrangerIdle,
    /// A connection of ours without traffic.
    TrunkIdle,
    /// A pong that did not come.
    PongMissing,
    /// A message that did not fit what waits for a device, or a trunk closed for what waits for it.
    QueueFull,
    /// A connection that took no bytes for too long.
    WriteStalled,
    /// A trunk that could not be opened for want of room.
    TrunksFull,
    /// A trunk that could not be connected.
    TrunkUnreachable,
    /// A trunk whose handshake failed or whose certificate is not the destination's.
    TrunkUntrusted,
    /// A location that found the queue full.
    LocatesFull,
    /// A message that was answered 513 and skipped: above its sender's limit, or above the memory that long ones share.
    MessageTooLarge,
    /// A bug of ours that ended one connection.
    Panicked,
}

impl Incident {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 22] = [
        Self::DatagramTooLarge,
        Self::Malformed,
        Self::DatagramUnsent,
        Self::FlowsFull,
        Self::SourceFull,
        Self::AcceptFailed,
        Self::HandshakeFailed,
        Self::HandshakeSlow,
        Self::MessageSlow,
        Self::MalformedFlow,
        Self::FramingLost,
        Self::StrangerIdle,
        Self::TrunkIdle,
        Self::PongMissing,
        Self::QueueFull,
        Self::WriteStalled,
        Self::TrunksFull,
        Self::TrunkUnreachable,
        Self::TrunkUntrusted,
        Self::LocatesFull,
        Self::MessageTooLarge,
        Self::Panicked,
    ];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DatagramTooLarge => "datagram-too-large",
            Self::Malformed => "malformed",
            Self::DatagramUnsent => "datagram-unsent",
            Self::FlowsFull => "flows-full",
            Self::SourceFull => "source-full",
            Self::AcceptFailed => "accept-failed",
            Self::HandshakeFailed => "handshake-failed",
            Self::HandshakeSlow => "handshake-slow",
            Self::MessageSlow => "message-slow",
            Self::MalformedFlow => "malformed-flow",
            Self::FramingLost => "framing-lost",
            Self::StrangerIdle => "stranger-idle",
            Self::TrunkIdle => "trunk-idle",
            Self::PongMissing => "pong-missing",
            Self::QueueFull => "queue-full",
            Self::WriteStalled => "write-stalled",
            Self::TrunksFull => "trunks-full",
            Self::TrunkUnreachable => "trunk-unreachable",
            Self::TrunkUntrusted => "trunk-untrusted",
            Self::LocatesFull => "locates-full",
            Self::MessageTooLarge => "message-too-large",
            Self::Panicked => "panicked",
        }
    }
}

/// How often each [`Incident`] happened since the start.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Incident::ALL.len()]);

impl Counters {
    pub(super) fn count(&self, incident: Incident) {
        self.0[incident as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_fault(&self, fault: TrunkFault) {
        match fault {
            TrunkFault::Connect => self.count(Incident::TrunkUnreachable),
            TrunkFault::Tls => self.count(Incident::TrunkUntrusted),
            TrunkFault::Congested | TrunkFault::Closed => {}
        }
    }

    /// How often `incident` happened.
    #[must_use]
    pub fn total(&self, incident: Incident) -> u64 {
        self.0[incident as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_incident_has_the_counter_of_its_place() {
        for (place, incident) in Incident::ALL.into_iter().enumerate() {
            assert_eq!(incident as usize, place, "{}", incident.as_str());
        }
    }
}
