//! Destinations: how fast, in which order, and whether at all, requests of ours may go to one registrar's address.
//!
//! What must be global about a destination (its budget, what is held there, proof that it ever answered, failure state) lives in
//! its home shard; every shard, the home one included, asks it for permits and reports what came of them. So one probe serves a
//! hundred thousand bindings, and un-REGISTERs, refreshes, first registrations and SUBSCRIBEs share one rate. This room sends
//! nothing and knows no account.

mod budget;
mod home;
mod load;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ahash::HashMap;

use super::ids::{BindingId, ShardId};
use super::output::DestinationKey;
use super::permits::{Asker, Class, Crowded, Permit, PermitMessage, Used, Want};
use super::placement::Placement;
use super::policy::Policy;
use super::random::Random;
use super::schedule::Schedule;
use crate::clock::Instant;
use home::{CROWDED_RETRY, Home};
use load::Rates;
use queue::Queue;

/// Destinations one shard is the home of. Above it the one that would be forgotten first goes, of those that never answered
/// and that are not used; whatever is in use is bounded by the bindings that use it.
const HOMES_MAX: usize = 65_536;
/// What this room asks of the engine.
pub(crate) enum Event {
    /// Tell another shard.
    Peer(ShardId, DestinationKey, PermitMessage),
    /// One exchange may go there.
    Permit(Asker, Permit),
    /// No further account can be kept registered there; ask again after so long.
    Refused(DestinationKey, BindingId, Duration),
    /// The destination that the binding waits for is silent.
    Withheld(DestinationKey, BindingId),
    /// An operator is to know that a destination is full.
    Crowded(Crowded),
}

/// The room.
pub(crate) struct Destinations {
    shard: ShardId,
    placement: Placement,
    rates: Rates,
    draining: bool,
    homes: HashMap<DestinationKey, Home>,
    /// Those that never answered and that are not used, by when they are forgotten.
    idle_unproven: Schedule<DestinationKey>,
    waiting: HashMap<DestinationKey, Queue>,
    numbers: u64,
    schedule: Schedule<DestinationKey>,
    events: VecDeque<Event>,
}

impl Destinations {
    pub(crate) fn new(shard: ShardId, placement: Placement, policy: &Policy) -> Self {
        let registrars = &policy.registrars;
        let tenants = u16::try_from(policy.tenants.len()).unwrap_or(u16::MAX);
        let (rate, rate_max) = (registrars.rate.max(1), registrars.rate_max.max(1));
        let rates = Rates { rate, rate_max, drain_rate: registrars.drain_rate.max(1), tenants };
        Self {
            shard,
            placement,
            rates,
            draining: false,
            homes: HashMap::default(),
            idle_unproven: Schedule::default(),
            waiting: HashMap::default(),
            numbers: 0,
            schedule: Schedule::default(),
            events: VecDeque::new(),
        }
    }

    /// Something wants to send an exchange; `Event::Permit` follows when it may.
    pub(crate) fn want(
        &mut self,
        destination: DestinationKey,
        asker: Asker,
        want: Want,
        random: &mut Random,
        now: Instant,
    ) {
        self.numbers += 1;
        if self.waiting.entry(destination).or_default().push(asker, want, self.numbers) {
            self.tell_home(destination, PermitMessage::Wanted(want), random, now);
        }
    }

    /// It does not want it any more. A permit that is on its way is given back.
    pub(crate) fn withdraw(&mut self, destination: DestinationKey, asker: Asker, random: &mut Random, now: Instant) {
        let Some(queue) = self.waiting.get_mut(&destination) else { return };
        let Some(want) = queue.remove(asker) else { return };
        if queue.is_empty() {
            self.waiting.remove(&destination);
        }
        self.tell_home(destination, PermitMessage::Unwanted(want), random, now);
    }

    /// What came of a permit.
    pub(crate) fn report(&mut self, destination: DestinationKey, used: Used, random: &mut Random, now: Instant) {
        self.tell_home(destination, PermitMessage::Used(used), random, now);
    }

    /// So many requests went that could not wait for a permit.
    pub(crate) fn charge(&mut self, destination: DestinationKey, requests: u8, random: &mut Random, now: Instant) {
        self.tell_home(destination, PermitMessage::Sent(requests), random, now);
    }

    /// What is kept registered there changed by so much.
    pub(crate) fn load(
        &mut self,
        destination: DestinationKey,
        tenant: u16,
        change: i64,
        random: &mut Random,
        now: Instant,
    ) {
        self.tell_home(destination, PermitMessage::Load { tenant, change }, random, now);
    }

    /// The process ends: from now on un-REGISTERs alone go, at a rate of their own.
    pub(crate) fn drain(&mut self, random: &mut Random, now: Instant) {
        self.draining = true;
        // In the order of their keys: the hash order must not show.
        let homes: BTreeSet<DestinationKey> = self.homes.keys().copied().collect();
        for destination in homes {
            self.grant(destination, random, now);
        }
    }

    /// Another shard speaks.
    pub(crate) fn handle_peer(
        &mut self,
        from: ShardId,
        destination: DestinationKey,
        message: PermitMessage,
        random: &mut Random,
        now: Instant,
    ) {
        match message {
            PermitMessage::Wanted(want) => {
                self.home(destination).want(want, from);
                self.grant(destination, random, now);
                if self.homes.get(&destination).is_some_and(Home::is_silent) {
                    self.tell(from, destination, PermitMessage::Withheld, random, now);
                }
            }
            PermitMessage::Unwanted(want) => {
                if let Some(home) = self.homes.get_mut(&destination) {
                    home.forgo(want, from);
                    self.grant(destination, random, now);
                }
            }
            PermitMessage::Used(used) => {
                let (rates, draining) = (self.rates, self.draining);
                let home = self.home(destination);
                home.settle(used, home.rate(&rates, draining), random, now);
                self.grant(destination, random, now);
            }
            PermitMessage::Sent(requests) => {
                let (rates, draining) = (self.rates, self.draining);
                let home = self.home(destination);
                home.budget.charge(requests.into(), home.rate(&rates, draining), now);
                self.grant(destination, random, now);
            }
            PermitMessage::Load { tenant, change } => {
                self.home(destination).load.change(tenant, change);
                self.grant(destination, random, now);
            }
            PermitMessage::Granted { class, tenant, count, proven } => {
                self.hand_out(destination, (class, tenant), count, proven, random, now);
            }
            PermitMessage::Refused { tenant, count, after } => self.refuse(destination, tenant, count, after),
            PermitMessage::Withheld => self.withhold(destination),
        }
    }

    /// Hands out permits that are due.
    pub(crate) fn handle_timeout(&mut self, random: &mut Random, now: Instant) {
        while let Some(destination) = self.schedule.pop_due(now) {
            if self.homes.get(&destination).is_some_and(|home| home.is_forgettable(now)) {
                self.homes.remove(&destination);
                self.idle_unproven.remove(destination);
            } else {
                self.grant(destination, random, now);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// Whether those that wait for a permit wait for a destination that says nothing, rather than for their turn.
    pub(crate) fn is_withheld(&self, destination: &DestinationKey) -> bool {
        self.waiting.get(destination).is_some_and(|queue| queue.withheld)
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        let outstanding: u32 = self.homes.values().map(|home| home.outstanding).sum();
        out.extend([
            ("destinations", self.homes.len()),
            ("destinations.waiting", self.waiting.len()),
            ("destinations.outstanding", usize::try_from(outstanding).unwrap_or(usize::MAX)),
            ("destinations.loaded", self.homes.values().filter(|home| !home.load.is_empty()).count()),
        ]);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn hand_out(
        &mut self,
        destination: DestinationKey,
        (class, tenant): (Class, u16),
        count: u32,
        proven: bool,
        random: &mut Random,
        now: Instant,
    ) {
        let mut unused = count;
        if let Some(queue) = self.waiting.get_mut(&destination) {
            queue.withheld = false;
            while unused > 0
                && let Some(asker) = queue.pop(class, tenant)
            {
                self.events.push_back(Event::Permit(asker, Permit { destination, class, proven }));
                unused -= 1;
            }
            if queue.is_empty() {
                self.waiting.remove(&destination);
            }
        }
        for _ in 0..unused {
            self.report(destination, Used::unused(class), random, now);
        }
    }

    /// The destination is silent: bindings that wait for it may know another way.
    fn withhold(&mut self, destination: DestinationKey) {
        let Some(queue) = self.waiting.get_mut(&destination) else { return };
        for asker in queue.withhold() {
            if let Asker::Binding(binding) = asker {
                self.events.push_back(Event::Withheld(destination, binding));
            }
        }
    }

    /// First registrations that find no room.
    fn refuse(&mut self, destination: DestinationKey, tenant: u16, count: u32, after: Duration) {
        let Some(queue) = self.waiting.get_mut(&destination) else { return };
        for _ in 0..count {
            let Some(asker) = queue.pop(Class::First, tenant) else { break };
            if let Asker::Binding(binding) = asker {
                self.events.push_back(Event::Refused(destination, binding, after));
            }
        }
        if queue.is_empty() {
            self.waiting.remove(&destination);
        }
    }

    fn tell_home(&mut self, destination: DestinationKey, message: PermitMessage, random: &mut Random, now: Instant) {
        let home = self.placement.destination(&destination);
        self.tell(home, destination, message, random, now);
    }

    fn tell(
        &mut self,
        to: ShardId,
        destination: DestinationKey,
        message: PermitMessage,
        random: &mut Random,
        now: Instant,
    ) {
        if to == self.shard {
            self.handle_peer(to, destination, message, random, now);
        } else {
            self.events.push_back(Event::Peer(to, destination, message));
        }
    }

    /// What is known of a destination; where that is nothing, there is room for it.
    fn home(&mut self, destination: DestinationKey) -> &mut Home {
        if self.homes.len() >= HOMES_MAX
            && !self.homes.contains_key(&destination)
            && let Some(stale) = self.idle_unproven.pop_first()
        {
            self.homes.remove(&stale);
            self.schedule.remove(stale);
        }
        self.homes.entry(destination).or_default()
    }

    /// Grants what may go now, turns away what there is no room for, and schedules the next look.
    fn grant(&mut self, destination: DestinationKey, random: &mut Random, now: Instant) {
        let (rates, draining) = (self.rates, self.draining);
        let Some(home) = self.homes.get_mut(&destination) else { return };
        let refused = home.turn_away(&rates);
        let warned = (!refused.is_empty() && home.warns(now)).then(|| home.load.need());
        let mut granted: Vec<(ShardId, Class, u16, u32)> = Vec::new();
        let look = loop {
            match home.permit(&rates, draining, now) {
                Ok((Want { class, tenant, .. }, shard)) => match granted.last_mut() {
                    Some((last, of, whose, count)) if (*last, *of, *whose) == (shard, class, tenant) => *count += 1,
                    _ => granted.push((shard, class, tenant, 1)),
                },
                Err(look) => break look,
            }
        };
        let (proven, withheld) = (home.proven, home.untold());
        self.idle_unproven.set(destination, look.filter(|_| !proven && home.is_idle()));
        self.schedule.set(destination, look);
        if let Some(need) = warned {
            self.events.push_back(Event::Crowded(Crowded { destination, need, rate_max: rates.rate_max }));
        }
        for (Want { tenant, .. }, shard, count) in refused {
            let message = PermitMessage::Refused { tenant, count, after: CROWDED_RETRY };
            self.tell(shard, destination, message, random, now);
        }
        for (shard, class, tenant, count) in granted {
            self.tell(shard, destination, PermitMessage::Granted { class, tenant, count, proven }, random, now);
        }
        for shard in withheld {
            self.tell(shard, destination, PermitMessage::Withheld, random, now);
        }
    }
}
