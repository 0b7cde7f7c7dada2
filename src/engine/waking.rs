//! The engine's one way to a wake, and what wakes of its own accord: leases that end, and self-tests.

use uuid::Uuid;

use super::audit::Cause;
use super::engine::Engine;
use super::ids::{BindingId, InstanceId, ReplyTo, WakeId};
use super::input::TokenHash;
use super::instance::{Instance, ends_on};
use super::output::{
    Answer, Caller, Note, Output, PushOutcome, Refusal, TestView, ToldCaller, Unsent, WakeDetail, WakeKind,
};
use super::policy::CallerInPush;
use super::wakes::{Addressee, Missed, Notice, Reason, Verdict};
use crate::clock::{Now, WallTime};

/// How many devices are told in one turn that their leases end, or of missed calls; leases that began together end together.
const NOTICES_MAX: usize = 256;

impl Engine {
    /// Sends a wake to the device of an instance, or to a phone that registers through us, if its tenant wants wakes of this kind and the budget allows it.
    pub(super) fn send_wake(&mut self, id: InstanceId, reason: Reason, now: Now) -> Result<WakeId, Unsent> {
        let (attach, kind) = (self.policy.attach_uri(), reason.kind.as_str());
        let held = self.leases.get(id).map(Addressee::from);
        let passed = || self.pass.push(id).map(|(tenant, push)| Addressee { id, tenant, push });
        let sent = match held.or_else(passed) {
            None => Err(Unsent::NoTarget),
            Some(_) if self.is_restricted(id) => Err(Unsent::Restricted),
            Some(whom) if self.policy.is_off(whom.tenant, reason.kind) => Err(Unsent::Off),
            Some(whom) => match self.proofs.hindrance(id, reason.kind) {
                Some(why) => Err(why),
                None => self.wakes.send(whom, reason, &attach, &self.policy.limits, now),
            },
        };
        if let Err(why) = sent {
            self.tally.unsent(why);
        }
        self.traces.decide(id, || format!("wake {kind}: {}", sent.map_or_else(Unsent::as_str, |_| "sent")));
        sent
    }

    /// A provider's answer.
    pub(super) fn handle_pushed(&mut self, wake: WakeId, outcome: PushOutcome, now: Now) {
        let Some(verdict) = self.wakes.handle_outcome(wake, outcome, now) else { return };
        self.traces.decide(verdict.instance, || {
            format!("push {}: {}", verdict.kind.as_str(), verdict.outcome.fault().unwrap_or("accepted"))
        });
        let again = verdict.kind == WakeKind::Call && self.handle_call_pushed(wake, &verdict, now);
        self.handle_text_pushed(verdict.instance, verdict.kind, &verdict.outcome);
        match verdict.outcome.clone() {
            PushOutcome::TokenDead { since } => {
                self.handle_token_dead(&verdict, since, now);
            }
            PushOutcome::TokenRejected(_) => self.handle_token_rejected(&verdict, now),
            PushOutcome::OurFault(reason) => {
                self.emit(Output::Note(Note::PushMisconfigured(verdict.provider, reason)));
            }
            // Said of a token that has run out; the fresh one of the next send is judged by itself.
            PushOutcome::Unauthenticated(_) if again => {}
            PushOutcome::Unauthenticated(reason) => {
                self.emit(Output::Note(Note::PushMisconfigured(verdict.provider, reason)));
            }
            PushOutcome::Accepted
            | PushOutcome::Theirs(_)
            | PushOutcome::Unavailable { .. }
            | PushOutcome::Later { .. }
            | PushOutcome::NotSent => {}
        }
    }

    /// The provider's answer to a call wake. Returns whether another send follows.
    fn handle_call_pushed(&mut self, wake: WakeId, verdict: &Verdict, now: Now) -> bool {
        let about_token = matches!(verdict.outcome, PushOutcome::TokenDead { .. } | PushOutcome::TokenRejected(_));
        let held = self.leases.get(verdict.instance).map(|instance| instance.push.as_slice());
        let present = held.or_else(|| self.pass.push(verdict.instance).map(|(_, push)| push));
        let replaced = about_token && present.is_some_and(|push| !verdict.is_about(push));
        let (calls, mut desk) = self.for_calls();
        calls.handle_wake_outcome(wake, &verdict.outcome, replaced, &mut desk, now.boot)
    }

    /// How much the pushes of an instance tell of the caller: what its tenant wants, as far as its device gave a key.
    pub(super) fn caller_in_push(&self, instance: &Instance) -> CallerInPush {
        match self.policy.tenant(&instance.tenant).map(|tenant| tenant.caller_in_push).unwrap_or_default() {
            CallerInPush::Sealed if instance.caller_key.is_none() => CallerInPush::None,
            wanted => wanted,
        }
    }

    /// The caller as a push may tell it: of a call, or of one that was missed.
    pub(super) fn told_caller(&self, id: InstanceId, kind: WakeKind, caller: Option<Caller>) -> Option<ToldCaller> {
        if !matches!(kind, WakeKind::Call | WakeKind::MissedCall) {
            return None;
        }
        // A phone that registers through us has no key: its caller came here only if it goes out in clear.
        let Some(instance) = self.leases.get(id) else { return caller.map(ToldCaller::Clear) };
        match (self.caller_in_push(instance), instance.caller_key) {
            (CallerInPush::Clear, _) => caller.map(ToldCaller::Clear),
            // One who is not known is sealed too: all pushes look alike.
            (CallerInPush::Sealed, Some(key)) => Some(ToldCaller::Sealed(key, caller.unwrap_or_default())),
            (CallerInPush::Sealed, None) | (CallerInPush::None, _) => None,
        }
    }

    /// A lease has begun, or begun anew: its device is told before it ends.
    pub(super) fn watch_lease(&mut self, id: InstanceId, now: Now) {
        if let Some(instance) = self.leases.get(id) {
            self.wakes.watch_lease(id, instance.lease, instance.lease_ends(), now);
        }
    }

    /// Tells a device of a missed call, at once or with those that follow. Nothing is kept for a device that is gone.
    pub(super) fn tell_missed(&mut self, id: InstanceId, missed: Missed, now: Now) {
        if self.leases.get(id).is_none() && self.pass.push(id).is_none() {
            return;
        }
        if let Some(missed) = self.wakes.miss(id, missed, &self.policy.limits, now.boot) {
            self.send_missed(id, missed, now);
        }
    }

    /// Tells devices of missed calls that were summed up, so many in a turn.
    pub(super) fn send_sums(&mut self, now: Now) {
        for _ in 0..NOTICES_MAX {
            let Some((id, missed)) = self.wakes.pop_missed(now.boot) else { return };
            self.send_missed(id, missed, now);
        }
    }

    fn send_missed(&mut self, id: InstanceId, missed: Missed, now: Now) {
        let Missed { count, call, caller } = missed;
        let caller = self.told_caller(id, WakeKind::MissedCall, caller);
        let plain = Reason::plain(WakeKind::MissedCall, WakeDetail::Missed(count));
        // No target for it is no fault: the phone has its own list of calls.
        let _ = self.send_wake(id, Reason { call: Some(call), caller, ..plain }, now);
    }

    /// Tells devices whose leases end soon, so many in a turn.
    pub(super) fn send_notices(&mut self, now: Now) {
        for _ in 0..NOTICES_MAX {
            let Some(Notice { instance, ends, visible }) = self.wakes.pop_notice(now) else { return };
            let detail = WakeDetail::Expiring { lease_ends: ends_on(ends, now), visible };
            // At the lease's end another wake tells the rest.
            let reason = Reason { until: Some(ends.boot), ..Reason::plain(WakeKind::Expiring, detail) };
            // No target for it is no fault: the app knows when its lease ends.
            let _ = self.send_wake(instance, reason, now);
        }
    }

    /// Only the apps can cure a binding: their devices are asked to hand over again.
    pub(super) fn call_for_credentials(&mut self, binding: BindingId, now: Now) {
        for member in self.members_of(binding) {
            // No target for it is no fault: the app finds out when it asks.
            let _ = self.send_wake(member, Reason::plain(WakeKind::Reprovision, WakeDetail::None), now);
        }
    }

    /// A dead token ends its instance, if it is the one the device uses now and did not come to us after it died.
    pub(super) fn handle_token_dead(&mut self, verdict: &Verdict, since: Option<WallTime>, now: Now) {
        let id = verdict.instance;
        // A provider that does not say since when speaks of the moment it was asked.
        if let Some(instance) = self.leases.get(id) {
            let died = since.map_or(verdict.sent.wall >= instance.push_since, |since| since > instance.push_since);
            if died && verdict.is_about(&instance.push) {
                self.erase(id, Cause::DeadToken, None, now);
            }
        } else if let Some(confirmed) = self.pass.confirmed(id) {
            let age = now.boot.saturating_since(confirmed);
            let died = since.map_or(verdict.sent.boot >= confirmed, |since| since + age > now.wall);
            if died {
                self.pass.end(id);
            }
        }
    }

    /// A token that the provider does not know: the operator is told at once, the instance ends only if it is certain
    /// whose fault it is.
    pub(super) fn handle_token_rejected(&mut self, verdict: &Verdict, now: Now) {
        let PushOutcome::TokenRejected(reason) = &verdict.outcome else { return };
        self.emit(Output::Note(Note::PushMisconfigured(verdict.provider, reason.clone())));
        let Some(instance) = self.leases.get(verdict.instance) else { return };
        let known_since = instance.push_since;
        // Word of a token that the device has replaced meanwhile, or given to us once more.
        if !verdict.is_about(&instance.push) || verdict.sent.wall < known_since {
            return;
        }
        if self.wakes.is_dead_after(verdict, known_since, now.boot) {
            self.erase(verdict.instance, Cause::DeadToken, None, now);
        }
    }

    /// `POST /v1/instances/{id}/test`.
    pub(super) fn begin_test(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        let answer = match self.wakes.test_wait(id, now.boot) {
            Some(after) => Answer::Refused(Refusal::RateLimited { after }),
            None => self.send_test(id, now).map_or_else(Answer::Refused, Answer::TestBegun),
        };
        self.reply(reply, answer);
    }

    fn send_test(&mut self, id: InstanceId, now: Now) -> Result<TestView, Refusal> {
        let test = uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid();
        let reason = Reason::plain(WakeKind::Test, WakeDetail::Test(test));
        let wake = self.send_wake(id, reason, now).map_err(|why| match why {
            Unsent::NoTarget => Refusal::NoPushTarget,
            Unsent::Off => Refusal::SwitchedOff,
            Unsent::Restricted => Refusal::Restricted,
            // Self-tests have no budget but the pause between them.
            Unsent::Unproven | Unsent::Contested => Refusal::Unproven,
            Unsent::OverBudget | Unsent::Told => Refusal::RateLimited { after: super::wakes::TEST_LIFE },
        })?;
        Ok(self.wakes.begin_test(id, test, wake, now))
    }

    /// `GET /v1/instances/{id}/test/{test}`.
    pub(super) fn show_test(&mut self, id: InstanceId, token: &TokenHash, test: Uuid, reply: ReplyTo) {
        let Some(()) = self.check(id, token, reply) else { return };
        let view = self.wakes.test(id, test);
        self.reply_test(view, reply);
    }

    /// `POST /v1/instances/{id}/test/{test}`.
    pub(super) fn test_arrived(&mut self, id: InstanceId, token: &TokenHash, test: Uuid, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        let view = self.wakes.test_arrived(id, test, now);
        self.reply_test(view, reply);
    }

    fn reply_test(&mut self, view: Option<TestView>, reply: ReplyTo) {
        self.reply(reply, view.map_or(Answer::Refused(Refusal::TestOver), Answer::Test));
    }
}
