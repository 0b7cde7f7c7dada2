//! Restricted bindings: the credentials stay sealed, the Contact is removed at the registrar, and nothing is asked any more
//! until the restriction ends. Call-ID, Contact and CSeq stay, so that the binding goes on as the same registrant.

use std::time::Duration;

use super::binding::{Binding, Phase};
use super::{Bindings, Event, Opening, Timer, UNREGISTERED_MAX};
use crate::clock::Instant;
use crate::engine::ids::BindingId;
use crate::engine::output::RegistrationState;
use crate::engine::register::{Desk, End, Exchange, Identity, Terms};

impl Bindings {
    /// A binding of a device's own that the registrar does not hear of before its restriction ends.
    pub(crate) fn open_restricted(&mut self, opening: Opening<'_>, desk: &mut Desk<'_>) {
        let Opening { id, holder, capability, credential, account, takeover, lease_ends } = opening;
        let mut identity = Identity::new(capability, credential, account, desk.random);
        identity.set_takeover(takeover);
        let mut binding = Binding::new(identity, holder, account, lease_ends);
        (binding.dormant, binding.restricted) = (true, true);
        binding.counted = RegistrationState::Restricted;
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
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.restricted = true;
        (binding.registered_until, binding.granted) = (None, None);
        self.events.push_back(Event::Borne(id, None));
        // Without credentials there is nobody who could sign for it.
        let signs = !std::mem::replace(&mut binding.dormant, true);
        if let Some(target) = binding.bound_at.clone().filter(|_| signs) {
            let terms =
                Terms { expires: Duration::ZERO, expires_max: Duration::ZERO, refusals_max: 1, datagrams_max: None };
            let hop = target.hop.clone();
            let (exchange, request) = Exchange::start(&mut binding.identity, target, terms, desk, now);
            self.by_branch.insert(exchange.branch, id);
            self.schedule.set((id, Timer::Exchange), exchange.poll_timeout());
            binding.phase = Phase::Exchanging(exchange);
            self.events.push_back(Event::Send(hop, request));
        }
        self.recount(id, None, now);
    }

    /// The restriction is over: registers again, unless there are no credentials (`held`).
    pub(crate) fn resume(&mut self, id: BindingId, held: bool, now: Instant) {
        let Some(binding) = self.bindings.get(&id).filter(|binding| binding.restricted) else { return };
        let trying = binding.trial.is_some();
        if !trying {
            self.cease(id);
        }
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.restricted = false;
        if held && !trying {
            binding.dormant = false;
            binding.verdict = None;
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
        binding.phase = Phase::Resting;
        if matches!(end, End::Granted { .. }) {
            binding.bound_at = None;
            self.schedule.remove((id, Timer::Lapse));
        }
    }
}
