//! Registrations that pass through us (RFC 8599): a phone registers at its own registrar with us as outbound proxy.
//!
//! A phone's REGISTER goes to the registrar its tenant lists, its Contact standing for us, and comes back with the phone's
//! own; what the registrar confirms is a binding, by which calls find the phone and pushes wake it. This room decides what
//! may pass and whom to wake; it forwards no call (`calls`) and sends no push (`wakes`). It keeps no credential: a REGISTER
//! is held as long as its transaction, and forgotten with its answer.

mod binding;
mod contacts;
mod inside;
mod register;
mod select;
mod transit;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ahash::HashMap;
use aws_lc_rs::hmac;
use bytes::Bytes;

use binding::{Awake, Binding, Lingering, Named, Table};
use inside::Inside;
pub(crate) use inside::Waiting;
pub(crate) use register::Incoming;
use transit::{Transit, TransitId, Transits};

use super::account::{TenantId, TrunkHost, TrunkUri};
use super::aor::Aor;
use super::device::Device;
use super::edge_registrar;
use super::ids::{BranchId, Capability, FlowId, InstanceId, QueryId, ShardId};
use super::input::{Arrival, PushTarget};
use super::limits::{Limits, share};
use super::output::Hop;
use super::policy::Policy;
use super::random::Random;
use super::register::Target;
use super::schedule::Schedule;
use super::tags::Tags;
use crate::clock::Instant;
use crate::sip::uri::Uri;
use crate::sip::{Message, Method};

/// A registration is renewed by a push so long before it ends, at least (RFC 8599 §5.5 asks for more than two minutes)…
const LEAD_MIN: Duration = Duration::from_secs(120);
/// … and at most, so that many that came together part; a phone that wakes by itself is told to come before that.
const LEAD_MAX: Duration = Duration::from_secs(180);

/// What this room asks of the engine.
pub(crate) enum Event {
    Send(Hop, Bytes),
    /// Find the registrar; the answer comes through `handle_located`.
    Locate(QueryId, TrunkUri),
    /// The registrar confirmed the registration, and the phone listens.
    Attached(InstanceId),
    /// The phone listens no more.
    Detached(InstanceId),
    /// The registration is over.
    Ended(InstanceId),
    /// Wake the phone so that it renews its registration; worth sending until then.
    Refresh(InstanceId, Instant),
    /// The address has proven itself for this long.
    Registrar(IpAddr, Duration),
    /// A phone registered from there.
    Device(SocketAddr, Duration),
    /// A request inside a call that waited for its phone goes on.
    Release(Box<Waiting>),
}

/// What this room borrows from its shard.
pub(crate) struct Desk<'a> {
    /// No new registrations: the process drains.
    pub(crate) draining: bool,
    pub(crate) shard: ShardId,
    pub(crate) policy: &'a Policy,
    pub(crate) random: &'a mut Random,
    pub(crate) tags: &'a Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// The registrar's grant is over.
    Expiry,
    /// The phone should renew it.
    Refresh,
}

/// Whom a call or request to a handle is for.
#[derive(Clone, Copy)]
pub(crate) struct Callee {
    pub(crate) instance: InstanceId,
    pub(crate) handle: Capability,
}

/// The room.
pub(crate) struct Pass {
    /// Makes handles and ids: the same registration has the same ones until the process ends, though none is stored before
    /// the registrar confirms it.
    key: hmac::Key,
    table: Table,
    lingering: HashMap<InstanceId, Lingering>,
    transits: Transits,
    inside: Inside,
    schedule: Schedule<(InstanceId, Timer)>,
    events: VecDeque<Event>,
    /// This shard's share of `limits.edge_bindings`.
    bindings_max: usize,
}

impl Pass {
    pub(crate) fn new(key: [u8; 32], limits: &Limits, shards: u16) -> Self {
        let bindings_max = share(limits.edge_bindings, shards);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            table: Table::default(),
            lingering: HashMap::default(),
            transits: Transits::default(),
            inside: Inside::default(),
            schedule: Schedule::default(),
            events: VecDeque::new(),
            bindings_max,
        }
    }

    /// A stream connection is gone.
    pub(crate) fn handle_flow_closed(&mut self, flow: FlowId, now: Instant) {
        self.transits.lose_flow(flow);
        for id in self.table.lose_flow(flow, now) {
            self.events.push_back(Event::Detached(id));
        }
        for lingering in self.lingering.values_mut() {
            if lingering.device.as_ref().is_some_and(|device| device.hop == Hop::Flow(flow)) {
                lingering.device = None;
            }
        }
    }

    /// The phone does not answer.
    pub(crate) fn handle_silence(&mut self, id: InstanceId, now: Instant) {
        let Some(binding) = self.table.get_mut(id) else { return };
        binding.awake = Awake::Gone(now);
        self.events.push_back(Event::Detached(id));
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, timer)) = self.schedule.pop_due(now) {
            match timer {
                Timer::Expiry => self.end(id),
                Timer::Refresh => {
                    if let Some(binding) = self.table.get(id) {
                        self.events.push_back(Event::Refresh(id, binding.expires));
                    }
                }
            }
        }
        self.time_transits(now);
        let overdue = self.inside.pop_due(now);
        self.events.extend(overdue.into_iter().map(|waiting| Event::Release(Box::new(waiting))));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.schedule.next(), self.transits.poll_timeout(), self.inside.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("pass.bindings", self.table.len()),
            ("pass.lingering", self.lingering.len()),
            ("pass.transits", self.transits.len()),
            ("pass.inside", self.inside.len()),
        ]);
    }

    /// Whom a request names: by the handle in the Request-URI, or in the Route that our Path became.
    pub(crate) fn callee(&self, request: &Message) -> Option<Callee> {
        let in_uri = request.request_uri().and_then(|uri| Uri::parse(uri).ok()).and_then(|uri| uri.user());
        let in_route = request.routes().next().and_then(Result::ok).and_then(|route| route.uri().user());
        let handles = [in_route, in_uri].into_iter().flatten().filter_map(Capability::parse);
        handles
            .filter_map(|handle| self.table.by_handle(&handle))
            .next()
            .map(|binding| Callee { instance: binding.named.id, handle: binding.named.handle })
    }

    /// The registration of the phone that sends a request of its own: From is its address of record, and it comes from
    /// where it registered.
    pub(crate) fn sender(&mut self, request: &Message, arrival: &Arrival, now: Instant) -> Option<InstanceId> {
        let aor = Aor::of_sender(request)?;
        let mut own = self.table.of_aor(&aor).filter(|binding| binding.is_from(arrival)).peekable();
        let first = own.peek()?.registrar.clone();
        let ids: Vec<(&TrunkHost, InstanceId)> = own.map(|binding| (&binding.registrar, binding.named.id)).collect();
        // Registered at several: only the Request-URI tells which one is meant, and a guess could be another's registrar.
        let meant = if ids.iter().all(|(registrar, _)| **registrar == first) {
            first
        } else {
            edge_registrar::host(Uri::parse(request.request_uri()?).ok()?.host())
        };
        let id = ids.iter().find(|(registrar, _)| **registrar == meant)?.1;
        self.table.get_mut(id)?.stir(now);
        Some(id)
    }

    /// Where the phone is, if it listens: a new call goes there at once.
    pub(crate) fn device(&self, id: InstanceId, now: Instant) -> Option<&Device> {
        self.table.get(id).filter(|binding| binding.is_awake(now)).map(|binding| &binding.device)
    }

    /// Until when a phone that listens no more may come back by itself.
    pub(crate) fn returns_until(&self, id: InstanceId) -> Option<Instant> {
        self.table.get(id).and_then(Binding::returns_until)
    }

    /// Where requests inside its calls go: a phone in a call keeps its datagrams' way open.
    pub(crate) fn device_in_call(&self, id: InstanceId, now: Instant) -> Option<&Device> {
        match self.table.get(id) {
            Some(binding) => {
                let datagrams = matches!(binding.device.hop, Hop::Datagram { .. });
                (datagrams || binding.is_awake(now)).then_some(&binding.device)
            }
            None => self.lingering.get(&id)?.device.as_ref(),
        }
    }

    /// Where its registrar is.
    pub(crate) fn target(&self, id: InstanceId) -> Option<&Target> {
        let bound = self.table.get(id).map(|binding| &binding.target);
        bound.or_else(|| self.lingering.get(&id).map(|lingering| &lingering.target))
    }

    /// Whose app the phone runs, and where its pushes go; `None` once the registration is over.
    pub(crate) fn push(&self, id: InstanceId) -> Option<(&TenantId, &[PushTarget])> {
        self.table.get(id).map(|binding| (&binding.named.tenant, binding.named.push.as_slice()))
    }

    /// When the registrar last confirmed the registration, and with it the push token.
    pub(crate) fn confirmed(&self, id: InstanceId) -> Option<Instant> {
        self.table.get(id).map(|binding| binding.confirmed)
    }

    /// Whether a flow belongs to a registration.
    pub(crate) fn knows(&self, id: InstanceId) -> bool {
        self.table.get(id).is_some()
    }

    /// The registration is over, by whatever cause. The phone is still reached inside its calls until `release`.
    pub(crate) fn end(&mut self, id: InstanceId) {
        let Some(binding) = self.table.remove(id) else { return };
        for timer in [Timer::Expiry, Timer::Refresh] {
            self.schedule.remove((id, timer));
        }
        let Binding { device, target, awake, .. } = binding;
        let reached = !matches!(awake, Awake::Gone(_)) || matches!(device.hop, Hop::Datagram { .. });
        self.lingering.insert(id, Lingering { device: reached.then_some(device), target });
        self.events.push_back(Event::Ended(id));
        self.let_go(id);
    }

    /// All registrations, in the order of their ids.
    pub(crate) fn all(&self) -> BTreeSet<InstanceId> {
        self.table.all()
    }

    /// No call of the phone is left.
    pub(crate) fn release(&mut self, id: InstanceId) {
        self.lingering.remove(&id);
    }
}
