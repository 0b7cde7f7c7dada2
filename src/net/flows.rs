//! Live stream connections, and who may have how many.
//!
//! The table that shards and connection tasks share: a shard finds a flow by its number, a connection enters and leaves
//! it through guards, so that a panic or a cancelled task leaves nothing behind. All of it O(1). Refuses to know what is
//! spoken on a flow.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::bounds::FLOW_QUEUE_BYTES;
use super::counters::Incident;
use super::envelope::Envelope;
use super::queue::{Closing, Untaken, WriteQueue};
use crate::engine::ids::FlowId;

/// The sending side of one stream connection.
pub(super) struct Flow {
    queue: WriteQueue,
    proven: AtomicBool,
}

/// All live stream connections.
pub(super) struct Flows {
    table: DashMap<FlowId, Arc<Flow>, ahash::RandomState>,
    sources: DashMap<Source, u32, ahash::RandomState>,
    next: AtomicU64,
    admitted: AtomicU64,
    flows_max: u64,
    per_source_max: u32,
}

/// What shares a cap: one IPv4 address, or one IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(IpAddr);

/// A connection's place under the caps; gives it back when dropped.
pub(super) struct Admission {
    flows: Arc<Flows>,
    source: Source,
}

/// A connection's place in the table; leaves it when dropped.
pub(super) struct Enrolment {
    flows: Arc<Flows>,
    pub(super) id: FlowId,
    pub(super) flow: Arc<Flow>,
}

impl Flow {
    pub(super) fn new(queue_bytes: usize, envelope: Envelope, proven: bool) -> Self {
        Self { queue: WriteQueue::new(queue_bytes, envelope), proven: AtomicBool::new(proven) }
    }

    /// Queues a message of the engine's, if it fits.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), Untaken> {
        if !self.is_proven() && is_proof(bytes) {
            self.proven.store(true, Ordering::Relaxed);
        }
        self.queue.push(bytes)
    }

    /// Whether its peer is more than a stranger.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    pub(super) fn queue(&self) -> &WriteQueue {
        &self.queue
    }
}

impl Flows {
    pub(super) fn new(flows_max: u32, per_source_max: u32) -> Self {
        Self {
            table: DashMap::default(),
            sources: DashMap::default(),
            next: AtomicU64::new(1),
            admitted: AtomicU64::new(0),
            flows_max: u64::from(flows_max),
            per_source_max,
        }
    }

    /// Takes a place under the caps for a connection from `peer`.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Admission, Incident> {
        if self.admitted.fetch_add(1, Ordering::Relaxed) >= self.flows_max {
            self.admitted.fetch_sub(1, Ordering::Relaxed);
            return Err(Incident::FlowsFull);
        }
        let source = Source::of(peer);
        let mut count = self.sources.entry(source).or_insert(0);
        if *count >= self.per_source_max {
            drop(count);
            self.admitted.fetch_sub(1, Ordering::Relaxed);
            return Err(Incident::SourceFull);
        }
        *count += 1;
        drop(count);
        Ok(Admission { flows: Arc::clone(self), source })
    }

    /// Enters a new accepted connection.
    pub(super) fn enrol(self: &Arc<Self>, envelope: Envelope) -> Enrolment {
        self.enrol_flow(Arc::new(Flow::new(FLOW_QUEUE_BYTES, envelope, false)))
    }

    /// Enters a connection whose sending side is there already.
    pub(super) fn enrol_flow(self: &Arc<Self>, flow: Arc<Flow>) -> Enrolment {
        let id = FlowId(self.next.fetch_add(1, Ordering::Relaxed));
        self.table.insert(id, Arc::clone(&flow));
        Enrolment { flows: Arc::clone(self), id, flow }
    }

    /// Queues a message; a flow that is gone is closed.
    pub(super) fn send(&self, id: FlowId, bytes: &[u8]) -> Result<(), Untaken> {
        self.table.get(&id).ok_or(Untaken::Closed)?.send(bytes)
    }

    /// Begins to close a flow, if it is there.
    pub(super) fn close(&self, id: FlowId) {
        if let Some(flow) = self.table.get(&id) {
            flow.queue.close(Closing::Asked);
        }
    }

    /// Begins to close all flows.
    pub(super) fn close_all(&self) {
        for flow in &self.table {
            flow.queue.close(Closing::Stopping);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Source {
    pub(super) fn of(peer: IpAddr) -> Self {
        const HOST_BITS: u32 = 64;
        Self(match peer.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS)),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.flows.admitted.fetch_sub(1, Ordering::Relaxed);
        if let Entry::Occupied(mut count) = self.flows.sources.entry(self.source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        self.flows.table.remove(&self.id);
    }
}

/// Whether the engine shows with this message that it knows the peer: strangers get refusals and challenges only, so a
/// request, a provisional response or a success goes to someone who named a capability or answered a challenge.
fn is_proof(message: &[u8]) -> bool {
    match message.strip_prefix(b"SIP/2.0 ") {
        Some(status) => matches!(status.first(), Some(b'1' | b'2')),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows() -> Arc<Flows> {
        Arc::new(Flows::new(3, 2))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal")
    }

    #[test]
    fn a_source_gets_its_places_back_and_leaves_no_trace() {
        let flows = flows();
        let first = flows.admit(ip("192.0.2.1")).expect("first");
        let second = flows.admit(ip("::ffff:192.0.2.1")).expect("the same address in IPv6 clothes");
        assert_eq!(flows.admit(ip("192.0.2.1")).err(), Some(Incident::SourceFull));

        drop(first);
        let third = flows.admit(ip("192.0.2.1")).expect("a place came back");
        drop((second, third));
        assert!(flows.sources.is_empty());
        assert_eq!(flows.admitted.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_source() {
        let flows = flows();
        let _one = flows.admit(ip("2001:db8::1")).expect("first");
        let _two = flows.admit(ip("2001:db8::ffff:0:0:2")).expect("second");
        assert_eq!(flows.admit(ip("2001:db8::3")).err(), Some(Incident::SourceFull));
        let _other = flows.admit(ip("2001:db8:0:1::1")).expect("another network");
        assert_eq!(flows.admit(ip("192.0.2.1")).err(), Some(Incident::FlowsFull));
    }

    #[test]
    fn only_requests_and_kind_answers_prove_a_peer() {
        let flows = flows();
        let enrolment = flows.enrol(Envelope::Bare);
        assert_eq!(flows.send(enrolment.id, b"SIP/2.0 401 Unauthorized\r\n"), Ok(()));
        assert!(!enrolment.flow.is_proven());
        assert_eq!(flows.send(enrolment.id, b"SIP/2.0 200 OK\r\n"), Ok(()));
        assert!(enrolment.flow.is_proven());

        let id = enrolment.id;
        drop(enrolment);
        assert_eq!(flows.send(id, b"SIP/2.0 200 OK\r\n"), Err(Untaken::Closed));
        assert_eq!(flows.len(), 0);
    }

    #[test]
    fn what_does_not_fit_a_queue_leaves_its_flow_as_it_is() {
        let flows = flows();
        let enrolment = flows.enrol(Envelope::Bare);
        assert_eq!(flows.send(enrolment.id, &[b'x'; FLOW_QUEUE_BYTES + 1]), Err(Untaken::Full));
        assert_eq!(flows.send(enrolment.id, &[b'x'; FLOW_QUEUE_BYTES]), Ok(()));
        assert_eq!(flows.send(enrolment.id, b"x"), Err(Untaken::Full));
        assert_eq!(enrolment.flow.queue().push(b""), Ok(()), "it is open");
    }
}
