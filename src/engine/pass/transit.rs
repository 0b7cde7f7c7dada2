//! One REGISTER on its way to its registrar and back, and those of a shard.

use super::*;
use crate::engine::edge_registrar::EdgeRegistrar;
use crate::engine::policy::Provider;
use crate::sip::transaction::{NonInviteClient, NonInviteServer, ServerKey};

/// REGISTERs under way at once in a shard; above it a further one gets 503.
pub(super) const TRANSITS_MAX: usize = 16_384;
/// Those from one address (a carrier's NAT may have many phones behind it); above it its next one gets 503.
pub(super) const TRANSITS_PER_SOURCE_MAX: usize = 1_024;
/// Addresses that did not answer lately and are tried last; above it the first due is forgotten.
const SHUNNED_MAX: usize = 64;
/// For how long.
const SHUNNED: Duration = Duration::from_secs(60);
/// Where a REGISTER went is where its second one goes: only that server knows its nonce.
const SETTLED: Duration = Duration::from_secs(32);
/// REGISTERs whose server is remembered; above it the first due is forgotten.
const SETTLED_MAX: usize = 4_096;
/// Queries of this room: their numbers never meet those of `bindings`.
const QUERY: u64 = 1 << 63;

/// Names a transit in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TransitId(u64);

impl TransitId {
    pub(super) fn query(self) -> QueryId {
        QueryId(QUERY | self.0)
    }

    fn of_query(query: QueryId) -> Option<Self> {
        (query.0 & QUERY != 0).then_some(Self(query.0 & !QUERY))
    }
}

/// A REGISTER on its way.
pub(super) struct Transit {
    pub(super) arrival: Arrival,
    pub(super) back: Hop,
    pub(super) server: NonInviteServer,
    pub(super) key: ServerKey,
    pub(super) asked: Asked,
    /// The connection it came by is gone.
    pub(super) flow_lost: bool,
    /// `None` once it has its final answer: nothing of the request is kept then.
    pub(super) under_way: Option<UnderWay>,
}

/// What a REGISTER asks for.
pub(super) struct Asked {
    pub(super) aor: Aor,
    pub(super) registrar: EdgeRegistrar,
    pub(super) contacts: Vec<Named>,
    /// `Contact: *`.
    pub(super) star: bool,
    /// Providers to tell of in the 200.
    pub(super) providers: Vec<Provider>,
    pub(super) made_by: (Vec<u8>, u32),
}

/// A REGISTER without a final answer.
pub(super) struct UnderWay {
    pub(super) request: Message,
    pub(super) candidates: VecDeque<Target>,
    pub(super) leg: Option<Leg>,
}

/// As what it went out.
pub(super) struct Leg {
    pub(super) branch: BranchId,
    pub(super) client: NonInviteClient,
    pub(super) target: Target,
}

impl Transit {
    /// Whether the phone is where it says: over a stream, or in the registrar's or our own experience.
    pub(super) fn is_proven(&self) -> bool {
        let confirmed = self.server.final_code().is_some_and(crate::sip::StatusCode::is_success);
        confirmed || self.arrival.is_reachable()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let leg = self.under_way.as_ref().and_then(|under_way| under_way.leg.as_ref());
        [self.server.poll_timeout(), leg.and_then(|leg| leg.client.poll_timeout())].into_iter().flatten().min()
    }
}

/// All of a shard.
#[derive(Default)]
pub(super) struct Transits {
    next: u64,
    transits: HashMap<TransitId, Transit>,
    by_key: HashMap<ServerKey, TransitId>,
    by_branch: HashMap<BranchId, TransitId>,
    /// How many came from each address.
    by_source: HashMap<IpAddr, usize>,
    schedule: Schedule<TransitId>,
    shunned: Schedule<SocketAddr>,
    settled: HashMap<InstanceId, SocketAddr>,
    settled_until: Schedule<InstanceId>,
}

impl Transits {
    pub(super) fn len(&self) -> usize {
        self.transits.len()
    }

    pub(super) fn add(&mut self, transit: Transit) -> TransitId {
        self.next += 1;
        let id = TransitId(self.next);
        self.by_key.insert(transit.key.clone(), id);
        *self.by_source.entry(transit.arrival.peer.ip()).or_default() += 1;
        self.transits.insert(id, transit);
        self.reschedule(id);
        id
    }

    pub(super) fn by_key(&self, key: &ServerKey) -> Option<TransitId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn by_branch(&self, branch: BranchId) -> Option<TransitId> {
        self.by_branch.get(&branch).copied()
    }

    pub(super) fn by_query(&self, query: QueryId) -> Option<TransitId> {
        TransitId::of_query(query).filter(|id| self.transits.contains_key(id))
    }

    pub(super) fn get(&self, id: TransitId) -> Option<&Transit> {
        self.transits.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: TransitId) -> Option<&mut Transit> {
        self.transits.get_mut(&id)
    }

    /// It went out as this.
    pub(super) fn send(&mut self, id: TransitId, leg: Leg) {
        self.by_branch.insert(leg.branch, id);
        if let Some(under_way) = self.transits.get_mut(&id).and_then(|transit| transit.under_way.as_mut()) {
            under_way.leg = Some(leg);
        }
        self.reschedule(id);
    }

    /// The leg is over, and with it the way it went.
    pub(super) fn take_leg(&mut self, id: TransitId) -> Option<Leg> {
        let leg = self.transits.get_mut(&id)?.under_way.as_mut()?.leg.take()?;
        self.by_branch.remove(&leg.branch);
        Some(leg)
    }

    /// It has its final answer: what it carried is let go.
    pub(super) fn close(&mut self, id: TransitId) {
        let _ = self.take_leg(id);
        if let Some(transit) = self.transits.get_mut(&id) {
            transit.under_way = None;
            transit.asked.contacts = Vec::new();
        }
        self.settle(id);
    }

    /// Forgets a transit that has nothing left to absorb, or sets its next deadline.
    pub(super) fn settle(&mut self, id: TransitId) {
        let over = self.transits.get(&id).is_some_and(|it| it.under_way.is_none() && it.server.is_terminated());
        if over {
            self.remove(id);
        } else {
            self.reschedule(id);
        }
    }

    /// Forgets a transit.
    pub(super) fn remove(&mut self, id: TransitId) {
        let _ = self.take_leg(id);
        self.schedule.remove(id);
        if let Some(transit) = self.transits.remove(&id) {
            self.by_key.remove(&transit.key);
            let source = transit.arrival.peer.ip();
            if let Some(count) = self.by_source.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    self.by_source.remove(&source);
                }
            }
        }
    }

    /// How many came from an address.
    pub(super) fn of_source(&self, source: IpAddr) -> usize {
        self.by_source.get(&source).copied().unwrap_or_default()
    }

    pub(super) fn lose_flow(&mut self, flow: FlowId) {
        for transit in self.transits.values_mut().filter(|transit| transit.arrival.flow == Some(flow)) {
            transit.flow_lost = true;
        }
    }

    /// Those that went out by a trunk, in the order they came.
    pub(super) fn on_trunk(&self, hop: &Hop) -> BTreeSet<TransitId> {
        let is_there = |transit: &Transit| {
            let leg = transit.under_way.as_ref().and_then(|under_way| under_way.leg.as_ref());
            leg.is_some_and(|leg| leg.target.hop == *hop)
        };
        self.transits.iter().filter(|(_, transit)| is_there(transit)).map(|(id, _)| *id).collect()
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<TransitId> {
        while self.shunned.pop_due(now).is_some() {}
        while let Some(id) = self.settled_until.pop_due(now) {
            self.settled.remove(&id);
        }
        self.schedule.pop_due(now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.schedule.next(), self.shunned.next(), self.settled_until.next()].into_iter().flatten().min()
    }

    /// The address did not answer.
    pub(super) fn shun(&mut self, address: SocketAddr, now: Instant) {
        self.shunned.set(address, Some(now + SHUNNED));
        if self.shunned.len() > SHUNNED_MAX {
            let _ = self.shunned.pop_due(Instant::from_nanos(u64::MAX));
        }
    }

    pub(super) fn is_shunned(&self, address: SocketAddr) -> bool {
        self.shunned.has(address)
    }

    /// The address has asked this registration for credentials.
    pub(super) fn stay(&mut self, id: InstanceId, address: SocketAddr, now: Instant) {
        self.settled.insert(id, address);
        self.settled_until.set(id, Some(now + SETTLED));
        if self.settled.len() > SETTLED_MAX
            && let Some(oldest) = self.settled_until.pop_due(Instant::from_nanos(u64::MAX))
        {
            self.settled.remove(&oldest);
        }
    }

    pub(super) fn stays_at(&self, id: InstanceId) -> Option<SocketAddr> {
        self.settled.get(&id).copied()
    }

    fn reschedule(&mut self, id: TransitId) {
        let due = self.transits.get(&id).and_then(Transit::poll_timeout);
        self.schedule.set(id, due);
    }
}
