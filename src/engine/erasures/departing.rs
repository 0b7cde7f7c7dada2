//! Departures: bindings that an instance has left for another place. Each is removed at its registrar with its own
//! credentials, which are wiped then, or when the grace of an erasure is over.
//!
//! The instance lives on, so there is no record; an erasure of the instance meanwhile wipes these credentials first, so
//! that its receipt is true.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::HashMap;

use super::{Erasures, Event, Removal, start};
use crate::clock::Instant;
use crate::engine::ids::{BindingId, BranchId, InstanceId};
use crate::engine::output::{Hop, TrunkKey};
use crate::engine::permits::Asker;
use crate::engine::register::{Desk, Identity, Leaving, Step};
use crate::engine::schedule::Schedule;
use crate::sip::Message;

/// A binding on its way out.
struct Departure {
    instance: InstanceId,
    identity: Identity,
    removal: Removal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    Exchange,
    Grace,
}

/// The bindings that were left. At most one begins for each change of place, and none lives longer than the grace.
#[derive(Default)]
pub(super) struct Departures {
    /// In the order of their numbers, so that the hash order does not show.
    departures: HashMap<BindingId, Departure>,
    by_branch: HashMap<BranchId, BindingId>,
    of_instance: BTreeSet<(InstanceId, BindingId)>,
    schedule: Schedule<(BindingId, Timer)>,
}

impl Departures {
    pub(super) fn len(&self) -> usize {
        self.departures.len()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(super) fn waits(&self, id: BindingId) -> bool {
        self.departures.get(&id).is_some_and(|departure| matches!(departure.removal, Removal::Waiting(_)))
    }

    fn of(&self, instance: InstanceId) -> Option<BindingId> {
        let from = (instance, BindingId(0));
        self.of_instance.range(from..).next().filter(|(of, _)| *of == instance).map(|(_, id)| *id)
    }
}

impl Erasures {
    /// An instance has left this binding, which no other device shares.
    pub(crate) fn depart(
        &mut self,
        instance: InstanceId,
        id: BindingId,
        leaving: Leaving,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Leaving { identity, bound_at } = leaving;
        let grace = desk.policy.erasure_grace;
        let Some(target) = bound_at else {
            let _ = desk.vault.wipe(identity.credential);
            return;
        };
        let destination = target.destination();
        let departure = Departure { instance, identity, removal: Removal::Waiting(target) };
        self.departures.departures.insert(id, departure);
        self.departures.of_instance.insert((instance, id));
        self.departures.schedule.set((id, Timer::Exchange), Some(now + grace / 2));
        self.departures.schedule.set((id, Timer::Grace), Some(now + grace));
        self.events.push_back(Event::Want(destination, Asker::Departure(id)));
    }

    /// Its turn did not come in time for the credentials: it goes without them.
    fn put_off_departure(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        let is_full = self.put_off.is_full();
        let Some(departure) = self.departures.departures.get_mut(&id) else { return };
        if !is_full && let Removal::Waiting(target) = &departure.removal {
            let (destination, target) = (target.destination(), target.clone());
            departure.removal = Removal::Needless;
            let (exchange, request) = start(&mut departure.identity, target, desk, now);
            self.put_off.put(Asker::Departure(id), destination, exchange.target.hop, request, now);
        }
        self.departed(id, desk);
    }

    /// The instance is being erased, or its app wants its credentials wiped: what it has left is wiped now.
    pub(crate) fn forget_departures(&mut self, instance: InstanceId, desk: &mut Desk<'_>) {
        while let Some(id) = self.departures.of(instance) {
            self.departed(id, desk);
        }
    }

    /// What an instance still is at the place it has left.
    pub(crate) fn departing(&self, instance: InstanceId) -> Option<&Identity> {
        let id = self.departures.of(instance)?;
        self.departures.departures.get(&id).map(|departure| &departure.identity)
    }

    /// A response whose branch may be of a departure. `false`: it is not.
    pub(super) fn handle_departure_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(&id) = self.departures.by_branch.get(&branch) else { return false };
        let Some(departure) = self.departures.departures.get_mut(&id) else { return true };
        let Removal::Asked(exchange) = &mut departure.removal else { return true };
        let step = exchange.handle_response(response, &mut departure.identity, desk, now);
        self.advance_departure(id, branch, step, desk);
        true
    }

    /// A connection is gone: what was asked over it will not be answered.
    pub(super) fn handle_departures_cut(&mut self, trunk: &Arc<TrunkKey>, desk: &mut Desk<'_>) {
        let over = |departure: &Departure| match &departure.removal {
            Removal::Asked(exchange) => exchange.target.hop == Hop::Trunk(Arc::clone(trunk)),
            Removal::Needless | Removal::Waiting(_) => false,
        };
        let concerned: BTreeSet<BindingId> =
            self.departures.departures.iter().filter(|(_, it)| over(it)).map(|(id, _)| *id).collect();
        for id in concerned {
            self.departed(id, desk);
        }
    }

    pub(super) fn handle_departures_due(&mut self, desk: &mut Desk<'_>, now: Instant) {
        while let Some((id, timer)) = self.departures.schedule.pop_due(now) {
            match (timer, self.departures.departures.get_mut(&id).map(|departure| &mut departure.removal)) {
                (Timer::Grace, _) => self.departed(id, desk),
                (Timer::Exchange, Some(Removal::Asked(exchange))) => {
                    let (branch, step) = (exchange.branch, exchange.handle_timeout(now));
                    self.advance_departure(id, branch, step, desk);
                }
                (Timer::Exchange, Some(Removal::Waiting(_))) => self.put_off_departure(id, desk, now),
                (Timer::Exchange, Some(Removal::Needless) | None) => {}
            }
        }
    }

    pub(super) fn ask_to_depart(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        let Some(departure) = self.departures.departures.get_mut(&id) else { return };
        let Removal::Waiting(target) = std::mem::replace(&mut departure.removal, Removal::Needless) else { return };
        let hop = target.hop.clone();
        let (exchange, request) = start(&mut departure.identity, target, desk, now);
        self.departures.by_branch.insert(exchange.branch, id);
        self.departures.schedule.set((id, Timer::Exchange), exchange.poll_timeout());
        departure.removal = Removal::Asked(exchange);
        self.events.push_back(Event::Send(hop, request));
    }

    fn advance_departure(&mut self, id: BindingId, branch: BranchId, step: Step, desk: &mut Desk<'_>) {
        let Some(departure) = self.departures.departures.get(&id) else { return };
        let Removal::Asked(exchange) = &departure.removal else { return };
        let (current, due, hop) = (exchange.branch, exchange.poll_timeout(), exchange.target.hop.clone());
        match step {
            Step::Wait => self.departures.schedule.set((id, Timer::Exchange), due),
            Step::Send(request) => {
                self.departures.by_branch.remove(&branch);
                self.departures.by_branch.insert(current, id);
                self.departures.schedule.set((id, Timer::Exchange), due);
                self.events.push_back(Event::Send(hop, request));
            }
            // Removed, refused or unanswered: the credentials are of no more use.
            Step::Done(_) => self.departed(id, desk),
        }
    }

    fn departed(&mut self, id: BindingId, desk: &mut Desk<'_>) {
        for timer in [Timer::Exchange, Timer::Grace] {
            self.departures.schedule.remove((id, timer));
        }
        let Some(Departure { instance, identity, removal }) = self.departures.departures.remove(&id) else { return };
        self.departures.of_instance.remove(&(instance, id));
        if let Removal::Asked(exchange) = &removal {
            self.departures.by_branch.remove(&exchange.branch);
        }
        self.settle(Asker::Departure(id), removal);
        let _ = desk.vault.wipe(identity.credential);
    }
}
