//! What comes of an exchange: rest until the refresh, back off, try the next address, or give up.

use std::time::Duration;

use super::binding::{Phase, destination_of};
use super::{
    Bindings, Event, REFUSAL_PAUSE, REFUSAL_SPAN, REFUSALS_LATER, Spoken, Timer, UNPROVEN_ATTEMPTS_MAX,
    UNREGISTERED_MAX,
};
use crate::clock::Instant;
use crate::engine::audit::Cause;
use crate::engine::ids::InstanceId;
use crate::engine::input::PermitOutcome;
use crate::engine::random::Random;
use crate::engine::register::{Desk, End};
use crate::engine::schedule::backoff;
use crate::engine::tally::RegisterOutcome;

/// A registration that ends less than this before the lease need not be refreshed: registrars count whole seconds.
const LEASE_SLACK: Duration = Duration::from_secs(2);

impl Bindings {
    pub(super) fn finish(&mut self, instance: InstanceId, end: End, desk: &mut Desk<'_>, now: Instant) {
        let outcome = match &end {
            End::Granted { .. } | End::Refused { .. } => PermitOutcome::Answered,
            End::Failed { code: 500 | 503, retry_after: Some(span), .. } => PermitOutcome::RetryAfter(*span),
            End::Failed { .. } => PermitOutcome::Answered,
            End::Silent => PermitOutcome::Silent,
        };
        self.report_current(instance, outcome);
        if let Some(binding) = self.bindings.get_mut(&instance) {
            binding.phase = Phase::Resting;
        }
        match end {
            End::Granted { expires, verdict } => {
                desk.tally.register(RegisterOutcome::Granted);
                self.granted(instance, expires, verdict, desk, now);
            }
            End::Refused { verdict } => {
                desk.tally.register(RegisterOutcome::Refused);
                self.refused(instance, verdict, desk, now);
            }
            End::Failed { code, verdict, retry_after } => {
                desk.tally.register(RegisterOutcome::Failed);
                self.failed(instance, code, verdict, retry_after.unwrap_or_default(), desk, now);
            }
            End::Silent => {
                desk.tally.register(RegisterOutcome::Silent);
                self.silent(instance, desk, now);
            }
        }
        self.follow_move(instance);
        self.resume_trial(instance);
    }

    pub(super) fn granted(
        &mut self,
        instance: InstanceId,
        expires: Duration,
        verdict: String,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.identity.distill(desk.vault);
        binding.bound_at.clone_from(&binding.target);
        binding.registered_at = Some(now);
        binding.registered_until = Some(now + expires);
        binding.granted = Some(expires);
        binding.verdict = Some(verdict);
        binding.cut_off = false;
        binding.backoff_step = 0;
        binding.refusals = 0;
        binding.first_refusal = None;
        binding.ever_registered = true;
        if let Some(target) = &binding.target {
            self.events.push_back(Event::Proven(target.address.ip(), expires));
        }
        self.schedule.set((instance, Timer::Lapse), Some(now + expires));
        self.schedule.set((instance, Timer::GiveUp), Some(now + expires + UNREGISTERED_MAX));
        self.schedule_refresh(instance, desk, now);
        self.recount(instance, Some(200), now);
        self.events.push_back(Event::Spoken(instance, Spoken::Verdict));
    }

    /// When the registration is to be refreshed; not at all where it holds until the lease ends.
    pub(super) fn schedule_refresh(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get(&instance) else { return };
        let Some(until) = binding.registered_until.filter(|until| *until > now) else { return };
        let needed = binding.lease_ends > until + LEASE_SLACK;
        let due = needed.then(|| now + refresh_after(until.saturating_since(now), desk.random));
        self.schedule.set((instance, Timer::Next), due);
    }

    fn refused(&mut self, instance: InstanceId, verdict: String, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.verdict = Some(verdict.clone());
        if !binding.ever_registered {
            binding.bound_at = None;
            self.recount(instance, Some(401), now);
            self.events.push_back(Event::Spoken(instance, Spoken::Refused(verdict)));
            return;
        }
        binding.refusals += 1;
        let first = *binding.first_refusal.get_or_insert(now);
        if binding.refusals >= REFUSALS_LATER && now.saturating_since(first) >= REFUSAL_SPAN {
            self.events.push_back(Event::GiveUp(instance, Cause::Refused));
            return;
        }
        let pause = desk.random.jitter(REFUSAL_PAUSE, 100, 110);
        self.schedule.set((instance, Timer::Next), Some(now + pause));
        self.recount(instance, Some(401), now);
    }

    fn failed(
        &mut self,
        instance: InstanceId,
        code: u16,
        verdict: String,
        at_least: Duration,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.verdict = Some(verdict);
        let pause = backoff(binding.backoff_step, desk.random).max(at_least);
        binding.backoff_step += 1;
        self.schedule.set((instance, Timer::Next), Some(now + pause));
        self.recount(instance, Some(code), now);
        self.events.push_back(Event::Spoken(instance, Spoken::Verdict));
    }

    fn silent(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        if !binding.permit_proven && !binding.ever_registered {
            binding.unproven_attempts += 1;
            if binding.unproven_attempts >= UNPROVEN_ATTEMPTS_MAX {
                self.events.push_back(Event::GiveUp(instance, Cause::Unregistrable));
                return;
            }
        }
        self.next_target(instance, desk, now);
    }

    /// No address is left: say so, and look again after a pause.
    pub(super) fn unreachable(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.phase = Phase::Resting;
        binding.verdict = Some("the registrar cannot be reached".to_owned());
        let pause = backoff(binding.backoff_step, desk.random);
        binding.backoff_step += 1;
        self.schedule.set((instance, Timer::Next), Some(now + pause));
        self.events.push_back(Event::Spoken(instance, Spoken::Unreachable));
        self.recount(instance, None, now);
    }

    /// Counts the binding as what it is now, and says so if that is news.
    pub(super) fn recount(&mut self, instance: InstanceId, code: Option<u16>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let present = binding.state(now);
        let former = std::mem::replace(&mut binding.counted, present);
        if former != present {
            self.census[former as usize] -= 1;
            self.census[present as usize] += 1;
            self.events.push_back(Event::Changed(instance, present, code));
        }
    }

    pub(super) fn report_current(&mut self, instance: InstanceId, outcome: PermitOutcome) {
        if let Some(target) = self.bindings.get(&instance).and_then(|binding| binding.target.as_ref()) {
            self.events.push_back(Event::Report(destination_of(target), outcome));
        }
    }

    /// The way there changed during the exchange that just ended.
    fn follow_move(&mut self, instance: InstanceId) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        if std::mem::take(&mut binding.moved) {
            self.cease(instance);
            self.locate(instance);
        }
    }
}

/// When to refresh: at three quarters to nine tenths of the granted expiry, but at least a second before its end, since
/// registrars count whole seconds; a very short one at half.
fn refresh_after(expires: Duration, random: &mut Random) -> Duration {
    if expires <= Duration::from_secs(10) {
        return expires / 2;
    }
    random.jitter(expires, 75, 90).min(expires.saturating_sub(Duration::from_secs(1)))
}
