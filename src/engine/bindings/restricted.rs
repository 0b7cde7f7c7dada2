//! Restricted bindings: the credentials stay sealed, the Contact is removed at the registrar, and nothing is asked any more
//! until the restriction ends. Call-ID, Contact and CSeq stay, so that the binding goes on as the same registrant.

use std::time::Duration;

use super::binding::{Binding, Phase, destination_of};
use super::{Bindings, Event, Opening, Timer, UNREGISTERED_MAX};
use crate::clock::Instant;
use crate::engine::ids::BindingId;
use crate::engine::output::RegistrationState;
use crate::engine::register::{Desk, End, Identity, Terms};

/// A registrar hears of restrictions of one binding at most this often: who restricts and resumes without end must not make
/// us ask it without end.
const PARTING_PAUSE: Duration = Duration::from_secs(30);

impl Bindings {
    /// A binding of a device's own that the registrar does not hear of before its restriction ends.
    pub(crate) fn open_restricted(&mut self, opening: Opening<'_>, desk: &mut Desk<'_>) {
        let Opening { id, holder, tenant, capability, credential, account, takeover, lease_ends } = opening;
        let mut identity = Identity::new(capability, credential, account, desk.random);
        identity.set_takeover(takeover);
        let mut binding = Binding::new(identity, holder, tenant, account, lease_ends);
        (binding.dormant, binding.restricted) = (true, true);
        binding.counted = RegistrationState::Restricted;
        binding.told = binding.counted;
        self.census[RegistrationState::Restricted as usize] += 1;
        self.bindings.insert(id, Box::new(binding));
    }

    /// Ends the registration, and asks the registrar nothing any more. One challenge to the un-REGISTER is answered, as at an
    /// erasure; a Contact that nobody confirms gone stands until its expiry.
    pub(crate) fn restrict(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        self.end_trial(id, now);
        self.cease(id);
        for timer in [Timer::Next, Timer::GiveUp] {
            self.schedule.remove((id, timer));
        }
        self.unbook(id);
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.restricted = true;
        (binding.registered_until, binding.granted) = (None, None);
        self.events.push_back(Event::Borne(id, None));
        // Without credentials there is nobody who could sign for it.
        binding.parts = !std::mem::replace(&mut binding.dormant, true);
        self.part(id, desk, now);
        self.recount(id, None, now);
    }

    /// Sends the un-REGISTER of a restriction, if there is one to send and the last one is long enough ago.
    pub(super) fn part(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id).filter(|binding| binding.parts) else { return };
        let Some(target) = binding.bound_at.clone() else { return };
        if binding.parts_from > now {
            return self.schedule.set((id, Timer::Next), Some(binding.parts_from));
        }
        binding.parts_from = now + PARTING_PAUSE;
        self.events.push_back(Event::Unpaced(destination_of(&target)));
        let terms = Terms { expires: Duration::ZERO, refusals_max: 1, datagrams_max: None };
        self.start_exchange(id, target, terms, desk, now);
    }

    /// What stood in the way of an un-REGISTER is over.
    pub(super) fn part_later(&mut self, id: BindingId, now: Instant) {
        if self.bindings.get(&id).is_some_and(|binding| binding.parts) {
            self.schedule.set((id, Timer::Next), Some(now));
        }
    }

    /// The restriction is over: registers again, unless there are no credentials (`held`).
    pub(crate) fn resume(&mut self, id: BindingId, held: bool, now: Instant) {
        let Some(binding) = self.bindings.get(&id).filter(|binding| binding.restricted) else { return };
        let trying = binding.trial.is_some();
        if !trying {
            self.cease(id);
        }
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        (binding.restricted, binding.parts) = (false, false);
        self.schedule.remove((id, Timer::Next));
        if held && !trying {
            binding.dormant = false;
            (binding.judged, binding.verdict) = (None, None);
            self.schedule.set((id, Timer::GiveUp), Some(now + UNREGISTERED_MAX));
            self.locate(id);
        }
        self.recount(id, None, now);
    }

    /// Whether its processing is restricted.
    pub(super) fn is_restricted(&self, id: BindingId) -> bool {
        self.bindings.get(&id).is_some_and(|binding| binding.restricted)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// The Call-ID of its REGISTERs.
    pub(crate) fn call_id(&self, id: BindingId) -> Option<&str> {
        self.bindings.get(&id).map(|binding| binding.identity.call_id())
    }

    /// The un-REGISTER of a restriction is answered, or given up.
    pub(super) fn parted(&mut self, id: BindingId, end: &End) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        (binding.phase, binding.parts) = (Phase::Resting, false);
        if matches!(end, End::Granted { .. }) {
            binding.bound_at = None;
            self.schedule.remove((id, Timer::Lapse));
        }
    }
}
