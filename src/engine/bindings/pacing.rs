//! A binding's turn at its registrar's address: how urgent it is, what keeping the binding costs, and what an app is told
//! while it waits.

use std::time::Duration;

use super::binding::{Binding, Phase, destination_of};
use super::{Bindings, Event, Spoken, Timer};
use crate::clock::Instant;
use crate::engine::ids::BindingId;
use crate::engine::output::{DestinationKey, RegistrationReason};
use crate::engine::permits::{Class, PermitOutcome, Want, load_of};
use crate::engine::register::{Desk, Exchange};
use crate::engine::schedule::backoff;
use crate::engine::tally::Shed;

/// A wait that is longer has `pacing` as its reason.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked at whether the reason of a long wait is still the same.
const LONG_WAIT_AGAIN: Duration = Duration::from_secs(30);
/// What a registration is told that there is no room for.
const CROWDED: &str =
    "more accounts are held at the registrar's address than can be refreshed in time; tried again later";

impl Binding {
    /// The turn its next REGISTER wants: refreshes in the order of their ends, then what is over or was never there.
    pub(super) fn want(&self, now: Instant) -> Want {
        let class = if self.dormant || self.trial.is_some() {
            Class::Renewal
        } else if self.is_registered(now) {
            Class::Refresh
        } else if self.ever_registered {
            Class::Renewal
        } else {
            Class::First
        };
        let due = self.registered_until.filter(|_| class == Class::Refresh).unwrap_or(now);
        Want::new(class, self.tenant, due)
    }
}

impl Bindings {
    /// The binding, if it waits for its turn at that address still.
    fn waiting_for(&mut self, id: BindingId, destination: DestinationKey) -> Option<&mut Binding> {
        let binding: &mut Binding = self.bindings.get_mut(&id)?;
        matches!(binding.phase, Phase::Waiting(at) if at == destination).then_some(binding)
    }

    /// No further account can be kept registered at the address it waits for.
    pub(crate) fn handle_crowded(
        &mut self,
        id: BindingId,
        destination: DestinationKey,
        after: Duration,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(binding) = self.waiting_for(id, destination) else { return };
        binding.phase = Phase::Resting;
        binding.judge(RegistrationReason::Pacing, CROWDED.to_owned());
        desk.tally.shed(Shed::Crowded);
        self.schedule.remove((id, Timer::Pacing));
        self.schedule.set((id, Timer::Next), Some(now + desk.random.jitter(after, 100, 200)));
        self.recount(id, None, now);
        self.events.push_back(Event::Spoken(id, Spoken::Crowded(after)));
    }

    /// The address it waits for is silent. It goes on to the next one; where there is none it waits for the probe to be
    /// answered, and meanwhile looks its registrar up again: the registrar may live elsewhere by now.
    pub(crate) fn handle_withheld(
        &mut self,
        id: BindingId,
        destination: DestinationKey,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(binding) = self.waiting_for(id, destination) else { return };
        if !binding.candidates.is_empty() {
            self.cease(id);
            return self.next_target(id, desk, now);
        }
        if !binding.dormant {
            let pause = backoff(binding.looks, desk.random);
            binding.looks += 1;
            self.schedule.set((id, Timer::Next), Some(now + pause));
        }
    }

    /// It has waited for a silent address. What holds is not given up for a resolver's word.
    pub(super) fn look_again(&mut self, id: BindingId, now: Instant) {
        let Some(binding) = self.bindings.get(&id) else { return };
        if binding.is_registered(now) {
            return self.schedule.set((id, Timer::Next), binding.registered_until);
        }
        self.cease(id);
        self.locate(id);
    }

    /// It has waited long: because others go first to its registrar's address (`paced`), or because that is silent.
    pub(crate) fn note_pacing(&mut self, id: BindingId, paced: bool, now: Instant) {
        if let Some(binding) = self.bindings.get_mut(&id)
            && std::mem::replace(&mut binding.paced, paced) != paced
        {
            self.recount(id, None, now);
        }
    }

    /// It begins to wait for its turn.
    pub(super) fn watch_pacing(&mut self, id: BindingId, now: Instant) {
        if let Some(binding) = self.bindings.get_mut(&id) {
            binding.paced = false;
            self.schedule.set((id, Timer::Pacing), Some(now + LONG_WAIT));
        }
    }

    pub(super) fn tell_long_wait(&mut self, id: BindingId, now: Instant) {
        if let Some(Phase::Waiting(destination)) = self.bindings.get(&id).map(|binding| &binding.phase) {
            self.schedule.set((id, Timer::Pacing), Some(now + LONG_WAIT_AGAIN));
            self.events.push_back(Event::Waits(id, *destination));
        }
    }

    /// It was granted: what keeping it costs counts where it is registered.
    pub(super) fn book(&mut self, id: BindingId) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let (Some(target), Some(granted)) = (&binding.target, binding.granted) else { return };
        let (tenant, place) = (binding.tenant, (destination_of(target), load_of(granted)));
        match binding.booked.replace(place) {
            Some(former) if former == place => {}
            Some((at, load)) if at == place.0 => self.change_load(at, tenant, signed(place.1) - signed(load)),
            former => {
                if let Some((at, load)) = former {
                    self.change_load(at, tenant, -signed(load));
                }
                self.change_load(place.0, tenant, signed(place.1));
            }
        }
    }

    /// What it tells of a registrar's address that an exchange there had no answer.
    pub(super) fn silence(&self, id: BindingId, exchange: &Exchange, now: Instant) -> PermitOutcome {
        let booked = self.bindings.get(&id).and_then(|binding| binding.booked);
        match booked {
            Some((at, _)) if at == destination_of(&exchange.target) => {
                PermitOutcome::Silent(now.saturating_since(exchange.asked))
            }
            Some(_) | None => PermitOutcome::SilentToNewcomer,
        }
    }

    /// It is not kept any more.
    pub(super) fn unbook(&mut self, id: BindingId) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let tenant = binding.tenant;
        if let Some((at, load)) = binding.booked.take() {
            self.change_load(at, tenant, -signed(load));
        }
    }

    fn change_load(&mut self, at: DestinationKey, tenant: u16, change: i64) {
        self.events.push_back(Event::Load(at, tenant, change));
    }
}

fn signed(load: u64) -> i64 {
    i64::try_from(load).unwrap_or(i64::MAX)
}
