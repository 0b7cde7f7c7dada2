//! Bindings that cannot go on by themselves, and what renews their means: credentials that an app brings once more.
//!
//! A challenge that nothing held here can sign says nothing about the password: it counts as no refusal. Where other credentials
//! would sign it (another realm, a weaker algorithm than before), only the app can help, and its device is asked to come, once
//! for each such time. Where nothing would (an algorithm we do not know), the device is left alone.

use std::time::Duration;

use super::binding::{Binding, Phase, Spare};
use super::{Bindings, Event, Spoken, Timer};
use crate::clock::Instant;
use crate::engine::ids::{BindingId, InstanceId};
use crate::engine::output::RegistrationReason;
use crate::engine::register::{Desk, Unsigned};
use crate::engine::schedule::backoff;
use crate::vault::CredentialId;

/// The least pause after a challenge that cannot be signed; the second one after it shows that no reload was its cause.
const UNSIGNABLE_PAUSE: Duration = Duration::from_secs(300);
/// Apps are asked to come for one binding at most this often, however often its registrar changes.
const CALL_PAUSE: Duration = Duration::from_secs(3600);
/// The least pause between REGISTERs that hand-overs bring forward, for one binding, once `EARLY_SLACK` is used up.
const EARLY_PAUSE: Duration = Duration::from_secs(30);
/// What may be used of it beforehand: three in a row, since a registrar's administrator changes realm, algorithm and password in
/// one sitting.
const EARLY_SLACK: Duration = Duration::from_secs(2 * 30);

/// Since when nothing here signs what the registrar wants, and whether the app was asked to come.
#[derive(Clone, Copy, Default)]
pub(super) struct Cure {
    since: Option<Instant>,
    called: bool,
    called_at: Option<Instant>,
}

impl Cure {
    /// Registered: there is nothing to be cured.
    pub(super) fn end(&mut self) {
        (self.since, self.called) = (None, false);
    }

    /// Another challenge that cannot be signed. `true`: the app is to be asked now.
    fn is_due(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let rested = self.called_at.is_none_or(|at| now.saturating_since(at) >= CALL_PAUSE);
        let due = !self.called && rested && now.saturating_since(since) >= UNSIGNABLE_PAUSE;
        if due {
            (self.called, self.called_at) = (true, Some(now));
        }
        due
    }
}

impl Binding {
    fn is_remindable(&self, now: Instant) -> bool {
        let waits = !self.dormant && matches!(self.phase, Phase::Resting) && !self.is_content(now);
        waits && !self.refuses_credentials() && self.early_from.max(self.not_before) <= now
    }

    /// Puts `credential` in the place of the member's own copy and has the binding speak with it; what the member had until
    /// now comes back to be wiped. `None`: the member had nothing here.
    fn renew(&mut self, member: InstanceId, credential: CredentialId, username: String) -> Option<CredentialId> {
        let (former, former_username) = self.identity.exchange_credential(credential, username);
        let holder = std::mem::replace(&mut self.holder, member);
        if holder == member {
            return Some(former);
        }
        self.spare.insert(holder, Spare { credential: former, username: former_username });
        self.spare.remove(&member).map(|own| own.credential)
    }
}

impl Bindings {
    /// A member, or a further one, brings credentials that equal those in use: the binding speaks with them from now on. The
    /// member's former copy comes back to be wiped.
    pub(crate) fn renew(
        &mut self,
        id: BindingId,
        member: InstanceId,
        credential: CredentialId,
        username: &str,
    ) -> Option<CredentialId> {
        let Some(binding) = self.bindings.get_mut(&id) else { return Some(credential) };
        let before = binding.members();
        let stale = binding.renew(member, credential, username.to_owned());
        self.census[binding.counted as usize] += binding.members() - before;
        stale
    }

    /// Has the binding register before its time: at once, or as soon as it may after the last such haste, or after what the
    /// registrar asked for; not at all where it refused the credentials that came once more. `false`: not at once.
    pub(crate) fn hasten(&mut self, id: BindingId, now: Instant) -> bool {
        let Some(binding) = self.bindings.get_mut(&id).filter(|binding| !binding.dormant) else { return false };
        if !matches!(binding.phase, Phase::Resting) {
            return true;
        }
        if binding.refuses_credentials() {
            return false;
        }
        let earliest = (now + binding.early_from.saturating_since(now + EARLY_SLACK)).max(binding.not_before);
        if earliest > now {
            let due = self.schedule.at((id, Timer::Next)).map_or(earliest, |due| due.min(earliest));
            self.schedule.set((id, Timer::Next), Some(due));
            return false;
        }
        self.register_early(id, now);
        true
    }

    /// Its app shows that it is there, and brings no credentials: a binding that waits in back-off is tried at once, but not before
    /// its registrar wants that, nor sooner after the last early try than `EARLY_PAUSE`, nor with credentials that were refused.
    pub(crate) fn remind(&mut self, id: BindingId, now: Instant) {
        if self.bindings.get(&id).is_some_and(|binding| binding.is_remindable(now)) {
            self.register_early(id, now);
        }
    }

    fn register_early(&mut self, id: BindingId, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.early_from = binding.early_from.max(now) + EARLY_PAUSE;
        let lapsed = binding.ever_registered && !binding.is_registered(now);
        if lapsed || binding.target.is_none() {
            self.locate(id);
        } else {
            self.register_again(id, now);
        }
    }

    /// Whether it is registered, and nothing stood in the way lately.
    pub(crate) fn is_content(&self, id: BindingId, now: Instant) -> bool {
        self.bindings.get(&id).is_some_and(|binding| binding.is_content(now))
    }

    /// A challenge that nothing held here can sign.
    pub(super) fn unsignable(&mut self, id: BindingId, unsigned: Unsigned, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.judge(unsigned.reason, unsigned.words.clone());
        let first = !binding.ever_registered;
        if first {
            // Nothing was signed, so nothing can have been bound.
            binding.bound_at = None;
        }
        let least = desk.random.jitter(UNSIGNABLE_PAUSE, 100, 110);
        let pause = backoff(binding.backoff_step, desk.random).max(least);
        binding.backoff_step += 1;
        if unsigned.reason == RegistrationReason::NoMatchingHa1 && binding.cure.is_due(now) {
            self.events.push_back(Event::Incurable(id));
        }
        self.schedule.set((id, Timer::Next), Some(now + pause));
        self.recount(id, Some(401), now);
        if self.may_go_on(id) {
            let spoken = if first { Spoken::Unsignable(unsigned) } else { Spoken::Verdict };
            self.events.push_back(Event::Spoken(id, spoken));
        }
    }
}
