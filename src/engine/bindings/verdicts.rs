//! What comes of an exchange: rest until the refresh, back off, try the next address, or give up.

use std::time::Duration;

use super::binding::{Phase, REFRESH_PAUSE_MIN, REFRESH_ROUND, destination_of};
use super::refusals::Refusals;
use super::{Bindings, Borne, Event, Spoken, Timer, UNPROVEN_ATTEMPTS_MAX, UNREGISTERED_MAX};
use crate::clock::Instant;
use crate::engine::audit::Cause;
use crate::engine::ids::BindingId;
use crate::engine::output::{RegistrationReason, RegistrationState};
use crate::engine::permits::{PermitOutcome, Used};
use crate::engine::random::Random;
use crate::engine::register::{Desk, End, Grant};
use crate::engine::schedule::backoff;
use crate::engine::tally::RegisterOutcome;

/// A shorter grant is told as too short: one refresh that gets lost ends the registration.
const EXPIRY_SHORT: Duration = Duration::from_secs(30);
/// A refresh comes so long before the end where it can: a datagram that gets lost is sent again three times within it.
const REFRESH_MARGIN: Duration = Duration::from_secs(4);
/// What a registrar in reload, or one with a list of addresses that it refuses, says without a challenge.
const FORBIDDEN: u16 = 403;

impl Bindings {
    pub(super) fn finish(&mut self, id: BindingId, end: End, desk: &mut Desk<'_>, now: Instant) {
        if self.is_restricted(id) {
            return self.parted(id, &end);
        }
        self.report_current(id, &end, now);
        if let Some(binding) = self.bindings.get_mut(&id) {
            binding.phase = Phase::Resting;
        }
        match end {
            End::Granted(grant) => {
                desk.tally.register(RegisterOutcome::Granted);
                self.granted(id, grant, desk, now);
            }
            End::Refused { verdict } => {
                desk.tally.register(RegisterOutcome::Refused);
                self.refused(id, verdict, desk, now);
            }
            End::Unsignable(unsigned) => {
                desk.tally.register(RegisterOutcome::Unsignable);
                self.unsignable(id, unsigned, desk, now);
            }
            End::Failed { code, reason, verdict, retry_after } => {
                desk.tally.register(RegisterOutcome::Failed);
                if let Some(binding) = self.bindings.get_mut(&id) {
                    binding.judge(reason, verdict);
                }
                self.failed(id, code, retry_after.unwrap_or_default(), desk, now);
            }
            End::Silent => {
                desk.tally.register(RegisterOutcome::Silent);
                self.silent(id, desk, now);
            }
        }
        self.resume_trial(id, now);
    }

    pub(super) fn granted(&mut self, id: BindingId, grant: Grant, desk: &mut Desk<'_>, now: Instant) {
        let Grant { expires, verdict, rewritten } = grant;
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.distill(desk.vault);
        binding.bound_at.clone_from(&binding.target);
        binding.registered_at = Some(now);
        binding.registered_until = Some(now + expires);
        binding.granted = Some(expires);
        let short = expires < EXPIRY_SHORT && binding.needs_refresh();
        let reason = if short {
            Some(RegistrationReason::ExpiryTooShort)
        } else {
            rewritten.then_some(RegistrationReason::ContactRewritten)
        };
        binding.judge(reason, verdict);
        (binding.cut_off, binding.disconnected) = (false, false);
        (binding.backoff_step, binding.looks) = (0, 0);
        binding.refusals = Refusals::default();
        binding.cure.end();
        binding.ever_registered = true;
        (binding.dormant, binding.restricted, binding.parts) = (false, false, false);
        if let Some(target) = &binding.target {
            let address = target.address.ip();
            self.events.push_back(Event::Proven(address, expires));
            if let Some(user) = binding.identity.called() {
                let trunk = target.hop.trunk().cloned();
                self.events.push_back(Event::Borne(id, Some(Borne { user, address, trunk })));
            }
        }
        self.schedule.set((id, Timer::Lapse), Some(now + expires));
        self.schedule.set((id, Timer::GiveUp), Some(now + expires + UNREGISTERED_MAX));
        self.book(id);
        self.schedule_refresh(id, desk, now);
        self.recount(id, Some(200), now);
        self.events.push_back(Event::Spoken(id, Spoken::Verdict));
    }

    /// When the registration is to be refreshed; not at all where it holds until the lease ends.
    pub(super) fn schedule_refresh(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get(&id) else { return };
        let Some(until) = binding.registered_until.filter(|until| *until > now && !binding.dormant) else { return };
        let needed = binding.needs_refresh();
        let earliest = binding.registered_at.map_or(now, |at| at + REFRESH_PAUSE_MIN);
        let due = needed.then(|| (now + refresh_after(until.saturating_since(now), desk.random)).max(earliest));
        self.schedule.set((id, Timer::Next), due);
    }

    fn refused(&mut self, id: BindingId, verdict: String, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.judge(RegistrationReason::Refused, verdict.clone());
        if !binding.ever_registered {
            binding.bound_at = None;
            self.events.push_back(Event::Refused(id));
            self.recount(id, Some(401), now);
            self.events.push_back(Event::Spoken(id, Spoken::Refused(verdict)));
            return;
        }
        let left = binding.left(now);
        let (pause, is_new) = binding.refusals.pause(left, desk.random, now);
        if is_new {
            self.events.push_back(Event::Refused(id));
        }
        if is_new && binding.refusals.count(now) {
            self.events.push_back(Event::GiveUp(id, Cause::Refused));
            return;
        }
        self.schedule.set((id, Timer::Next), Some(now + pause));
        self.recount(id, Some(401), now);
        self.events.push_back(Event::Spoken(id, Spoken::Verdict));
    }

    fn failed(&mut self, id: BindingId, code: u16, at_least: Duration, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        // A registration that once worked and is forbidden is asked for as one whose credentials are refused, but counts as none.
        let pause = if code == FORBIDDEN && binding.ever_registered {
            let left = binding.left(now);
            binding.refusals.pause(left, desk.random, now).0
        } else {
            backoff(binding.backoff_step, desk.random)
        };
        let pause = pause.max(at_least);
        binding.backoff_step += 1;
        binding.not_before = now + at_least;
        self.schedule.set((id, Timer::Next), Some(now + pause));
        self.recount(id, Some(code), now);
        self.events.push_back(Event::Spoken(id, Spoken::Verdict));
    }

    fn silent(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        if self.may_go_on(id) {
            self.next_target(id, desk, now);
        }
    }

    /// Counts an exchange that an unproven destination got nothing from. `false`: it was the last one.
    pub(super) fn may_go_on(&mut self, id: BindingId) -> bool {
        let Some(binding) = self.bindings.get_mut(&id) else { return false };
        if binding.permit_proven || binding.ever_registered {
            return true;
        }
        binding.unproven_attempts += 1;
        let may = binding.unproven_attempts < UNPROVEN_ATTEMPTS_MAX;
        if !may {
            self.events.push_back(Event::GiveUp(id, Cause::Unregistrable));
        }
        may
    }

    /// No address is left: say so, and look again after a pause.
    pub(super) fn unreachable(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.phase = Phase::Resting;
        if binding.dormant {
            return self.finish_trial(id, End::Silent, desk, now);
        }
        binding.judge(RegistrationReason::Unreachable, "the registrar cannot be reached".to_owned());
        let pause = backoff(binding.backoff_step, desk.random);
        binding.backoff_step += 1;
        self.schedule.set((id, Timer::Next), Some(now + pause));
        self.events.push_back(Event::Spoken(id, Spoken::Unreachable));
        self.recount(id, None, now);
    }

    /// Counts the binding as what it is now, and says so if that is news.
    pub(super) fn recount(&mut self, id: BindingId, code: Option<u16>, now: Instant) {
        self.count(id, now);
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        // One that holds on and off is told as failing, and once: each change would be a line in the log.
        let on_and_off = binding.is_intermittent() && binding.counted == RegistrationState::Registered;
        let present = if on_and_off { RegistrationState::Failing } else { binding.counted };
        if std::mem::replace(&mut binding.told, present) != present {
            let reason = binding.counted_reason;
            self.events.push_back(Event::Changed(id, present, reason, code));
        }
    }

    fn report_current(&mut self, id: BindingId, end: &End, now: Instant) {
        let Some(binding) = self.bindings.get(&id) else { return };
        let Phase::Exchanging(exchange) = &binding.phase else { return };
        let outcome = match end {
            // Of 503 alone RFC 3261 §21.5.4 says: "It SHOULD NOT forward any other requests to that server for the duration
            // specified in the Retry-After header field". That of a 500 (§21.5.1) is about one request.
            End::Failed { code: 503, retry_after: Some(span), .. } => PermitOutcome::RetryAfter(*span),
            End::Granted { .. } | End::Refused { .. } | End::Unsignable(_) | End::Failed { .. } => {
                PermitOutcome::Answered
            }
            End::Silent => self.silence(id, exchange, now),
        };
        let used = Used { class: binding.permit_class, outcome, requests: exchange.requests };
        self.events.push_back(Event::Report(destination_of(&exchange.target), used));
    }
}

/// When to refresh: at three quarters to nine tenths of the granted expiry, but `REFRESH_MARGIN` before its end, or what is possible
/// of that after `REFRESH_PAUSE_MIN`.
fn refresh_after(expires: Duration, random: &mut Random) -> Duration {
    let usual = random.jitter(expires, 75, 90).min(expires.saturating_sub(REFRESH_MARGIN));
    let latest = expires.saturating_sub(REFRESH_ROUND);
    usual.max(REFRESH_PAUSE_MIN.min(latest))
}
