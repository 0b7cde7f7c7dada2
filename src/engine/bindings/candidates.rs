//! Candidates: bindings at another place than the one an instance is registered at, until they have been granted.
//!
//! A candidate is a registrant of its own, with Call-ID, Contact and capability of its own, so that nothing that was made
//! for one place goes to another. It has no member, and counts as none, before it is taken up.

use super::binding::{Binding, Phase};
use super::{Bindings, Opening, Timer, UNREGISTERED_MAX};
use crate::clock::Instant;
use crate::engine::ids::BindingId;
use crate::engine::output::DestinationKey;
use crate::engine::register::{Desk, Identity};

/// How far a candidate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// The registrar granted it.
    Granted,
    /// The registrar refused, in its words, and asking again would not change that.
    Refused(String),
    /// It is being asked, or wants to be asked again.
    Open,
    /// It has not said anything.
    Silent,
}

impl Bindings {
    /// Begins to register at another place.
    pub(crate) fn open_candidate(&mut self, opening: Opening<'_>, desk: &mut Desk<'_>, now: Instant) {
        // Our own Contact at the former place is none whose place is to be taken: that waits until it is gone.
        let Opening { id, holder, tenant, capability, credential, account, takeover: _, lease_ends } = opening;
        let identity = Identity::new(capability, credential, account, desk.random);
        let mut binding = Binding::new(identity, holder, tenant, account, lease_ends);
        binding.candidate = true;
        self.bindings.insert(id, Box::new(binding));
        self.schedule.set((id, Timer::GiveUp), Some(now + UNREGISTERED_MAX));
        self.locate(id);
    }

    /// The candidate has a member from now on.
    pub(crate) fn take_up(&mut self, id: BindingId) {
        let Some(binding) = self.bindings.get_mut(&id).filter(|binding| binding.candidate) else { return };
        binding.candidate = false;
        // What the registrar listed beside it may be our own Contact of before.
        binding.identity.forget_others();
        self.census[binding.counted as usize] += binding.members();
    }

    /// How far a candidate is.
    pub(crate) fn prospect(&self, id: BindingId, now: Instant) -> Prospect {
        let Some(binding) = self.bindings.get(&id) else { return Prospect::Silent };
        if binding.is_registered(now) {
            return Prospect::Granted;
        }
        match &binding.verdict {
            // Its own trouble passes.
            Some(verdict) if verdict.starts_with('5') => Prospect::Open,
            Some(verdict) if binding.target.is_some() => Prospect::Refused(verdict.clone()),
            Some(_) => Prospect::Silent,
            None if binding.bound_at.is_some() || matches!(binding.phase, Phase::Waiting(_)) => Prospect::Open,
            None => Prospect::Silent,
        }
    }

    /// The destination whose permit it waits for.
    pub(crate) fn waits_for(&self, id: BindingId) -> Option<DestinationKey> {
        match self.bindings.get(&id)?.phase {
            Phase::Waiting(destination) => Some(destination),
            Phase::Locating(_) | Phase::Exchanging(_) | Phase::Resting => None,
        }
    }

    /// Whether other credentials can be tried on the binding: there is a way to its registrar, or it looks for one itself.
    /// Not while a registration that is over is asked for: that may take as long as silence does.
    pub(crate) fn has_way(&self, id: BindingId, now: Instant) -> bool {
        self.bindings.get(&id).is_some_and(|binding| {
            let occupied = matches!(binding.phase, Phase::Exchanging(_)) && !binding.is_registered(now);
            binding.dormant || (binding.target.is_some() && !occupied)
        })
    }
}
