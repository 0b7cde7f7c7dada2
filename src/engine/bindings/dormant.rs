//! Dormant bindings: the app is in the foreground, the credentials are wiped. What stays is what a later hand-over needs to
//! go on as the same registrant: Call-ID, Contact and CSeq.

use std::time::Duration;

use super::binding::Binding;
use super::{Bindings, Event, Opening, Timer};
use crate::clock::Instant;
use crate::engine::audit::Unregister;
use crate::engine::ids::BindingId;
use crate::engine::input::Parting;
use crate::engine::output::{KeptContact, RegistrationState};
use crate::engine::register::{Desk, Exchange, Identity, Terms};
use crate::vault::CredentialId;

/// What is left when a binding goes dormant.
pub(crate) struct Rested {
    /// Comes back to be wiped.
    pub(crate) credential: CredentialId,
    pub(crate) unregister: Unregister,
    pub(crate) kept: Option<KeptContact>,
}

impl Bindings {
    /// A binding that waits for credentials, with an empty slot in their place.
    pub(crate) fn open_dormant(&mut self, opening: Opening<'_>, desk: &mut Desk<'_>) {
        let Opening { id, holder, tenant, capability, credential, account, takeover: _, lease_ends } = opening;
        let identity = Identity::new(capability, credential, account, desk.random);
        let mut binding = Binding::new(identity, holder, tenant, account, lease_ends);
        binding.dormant = true;
        binding.counted = RegistrationState::Foreground;
        binding.told = binding.counted;
        self.census[RegistrationState::Foreground as usize] += 1;
        self.bindings.insert(id, Box::new(binding));
    }

    /// Puts an empty slot in the place of the credentials, at once. The Contact stays until its granted expiry, or is removed
    /// with the nonce at hand: a challenge to that finds nobody who could answer it.
    pub(crate) fn rest(
        &mut self,
        id: BindingId,
        parting: Parting,
        empty: CredentialId,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> Option<Rested> {
        self.end_trial(id, now);
        self.cease(id);
        self.unbook(id);
        for timer in [Timer::Next, Timer::GiveUp] {
            self.schedule.remove((id, timer));
        }
        let kept = self.kept(id, now).filter(|_| parting == Parting::Keep);
        let unregister = match &kept {
            Some(_) => Unregister::Kept,
            None => self.remove_once(id, desk, now),
        };
        let binding = self.bindings.get_mut(&id)?;
        (binding.dormant, binding.parts) = (true, false);
        let username = binding.identity.username().to_owned();
        let (credential, _) = binding.identity.exchange_credential(empty, username);
        self.recount(id, None, now);
        Some(Rested { credential, unregister, kept })
    }

    /// Whether it asks the registrar nothing: its app is in the foreground, or its processing restricted.
    pub(crate) fn is_dormant(&self, id: BindingId) -> bool {
        self.bindings.get(&id).is_some_and(|binding| binding.dormant)
    }

    /// Our Contact at the registrar, and how long it holds.
    pub(crate) fn kept(&self, id: BindingId, now: Instant) -> Option<KeptContact> {
        let binding = self.bindings.get(&id)?;
        let expires = binding.registered_until?.saturating_since(now);
        let contact = binding.identity.contact_uri()?.to_owned();
        (expires > Duration::ZERO).then_some(KeptContact { contact, expires })
    }

    fn remove_once(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) -> Unregister {
        let Some(binding) = self.bindings.get_mut(&id) else { return Unregister::NotNeeded };
        (binding.registered_until, binding.granted) = (None, None);
        self.schedule.remove((id, Timer::Lapse));
        self.events.push_back(Event::Borne(id, None));
        let Some(target) = binding.bound_at.take() else { return Unregister::NotNeeded };
        let terms = Terms { expires: Duration::ZERO, refusals_max: 1, datagrams_max: Some(1) };
        binding.farewell = true;
        let (exchange, request) = Exchange::start(&mut binding.identity, target, terms, desk, now);
        self.events.push_back(Event::Farewell(id, Box::new(exchange.target), request));
        Unregister::Unanswered
    }
}
