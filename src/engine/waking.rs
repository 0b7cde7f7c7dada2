//! The engine's one way to a wake, and what wakes of its own accord: leases that end, and self-tests.

use uuid::Uuid;

use super::audit::Cause;
use super::engine::Engine;
use super::ids::{InstanceId, ReplyTo, WakeId};
use super::input::TokenHash;
use super::output::{Answer, Note, Output, PushOutcome, Refusal, TestView, Unsent, WakeDetail, WakeKind};
use super::wakes::{Addressee, Notice, Reason, Verdict};
use crate::clock::Now;

impl Engine {
    /// Sends a wake to the device of an instance, or to a phone that registers through us, if its tenant wants wakes of this kind and the budget allows it.
    pub(super) fn send_wake(&mut self, id: InstanceId, reason: Reason, now: Now) -> Result<WakeId, Unsent> {
        let attach = self.policy.attach_uri();
        let held = self.leases.get(id).map(Addressee::from);
        let passed = || self.pass.push(id).map(|(tenant, push)| Addressee { id, tenant, push });
        let sent = match held.or_else(passed) {
            None => Err(Unsent::NoTarget),
            Some(_) if self.is_restricted(id) => Err(Unsent::Restricted),
            Some(whom) if self.policy.is_off(whom.tenant, reason.kind) => Err(Unsent::Off),
            Some(whom) => self.wakes.send(whom, reason, &attach, &self.policy.limits, now),
        };
        if let Err(why) = sent {
            self.tally.unsent(why);
        }
        sent
    }

    /// A lease has begun, or begun anew: its device is told before it ends.
    pub(super) fn watch_lease(&mut self, id: InstanceId, now: Now) {
        if let Some(instance) = self.leases.get(id) {
            self.wakes.watch_lease(id, instance.lease, instance.lease_ends(), now);
        }
    }

    /// Tells devices whose leases end soon.
    pub(super) fn send_notices(&mut self, now: Now) {
        while let Some(Notice { instance, ends, visible }) = self.wakes.pop_notice(now) {
            let detail = WakeDetail::Expiring { lease_ends: ends.wall, visible };
            // At the lease's end another wake tells the rest.
            let reason = Reason { until: Some(ends.boot), ..Reason::plain(WakeKind::Expiring, detail) };
            // No target for it is no fault: the app knows when its lease ends.
            let _ = self.send_wake(instance, reason, now);
        }
    }

    /// A token that the provider does not know: the operator is told at once, the instance ends only if it is certain
    /// whose fault it is.
    pub(super) fn handle_token_rejected(&mut self, verdict: &Verdict, now: Now) {
        let PushOutcome::TokenRejected(reason) = &verdict.outcome else { return };
        self.emit(Output::Note(Note::PushMisconfigured(verdict.provider, reason.clone())));
        let Some(known_since) = self.leases.get(verdict.instance).map(|instance| instance.push_since) else { return };
        // Word of a token that the device has replaced meanwhile.
        if verdict.sent_at < known_since {
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
        self.reply(reply, view.map_or(Answer::Refused(Refusal::NotFound), Answer::Test));
    }
}
