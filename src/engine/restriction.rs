//! Restriction (GDPR Art. 18): the instance is held and nothing else. No registration, no call, no text and no wake; what is
//! kept for it stays as it is, but for a trace, which ends; its lease goes on, and ends as ever.

use super::audit::LifeEvent;
use super::engine::Engine;
use super::ids::{InstanceId, ReplyTo};
use super::input::TokenHash;
use crate::clock::Now;

impl Engine {
    /// `POST /v1/instances/{id}/restrict`. Asked again it changes nothing.
    pub(super) fn restrict(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        if !self.is_restricted(id) {
            self.hold_everything(id, now);
            self.record(id, LifeEvent::Restricted, now);
        }
        self.reply_instance(id, reply, now);
    }

    /// `DELETE /v1/instances/{id}/restrict`. Asked again it changes nothing.
    pub(super) fn resume(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo, now: Now) {
        let Some(()) = self.check(id, token, reply) else { return };
        if self.is_restricted(id) {
            let Some(()) = self.may_be_recorded(id, reply, now) else { return };
            self.go_on_registered(id, now);
            self.lift(id, now);
        }
        self.reply_instance(id, reply, now);
    }

    /// The restriction is over, by whatever its owner did; what becomes of the binding is the caller's.
    pub(super) fn lift(&mut self, id: InstanceId, now: Now) {
        if self.is_restricted(id) {
            self.leases.lift(id);
            self.record(id, LifeEvent::Resumed, now);
        }
    }

    pub(super) fn is_restricted(&self, id: InstanceId) -> bool {
        self.leases.get(id).is_some_and(|instance| instance.restricted.is_some())
    }

    fn hold_everything(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.leases.get(id) else { return };
        let (binding, account) = (instance.binding, instance.account.clone());
        self.end_own_trial(id, now);
        self.end_trace(id, now);
        self.forget_mailbox(id, now);
        match self.bindings.leave(binding, id) {
            Some(credential) => self.step_aside(id, binding, &account, Some(credential), now),
            None => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.restrict(binding, &mut desk, now.boot);
            }
        }
        self.leases.restrict(id, now.wall);
        self.wakes.rest_lease(id);
        let (calls, mut desk) = self.for_calls();
        calls.end_instance(id, &mut desk, now.boot);
        let (texts, mut desk) = self.for_texts();
        texts.handle_detached(id, &mut desk, now.boot);
        // A call that is up goes on to its end, and its device is reached until then.
        if self.calls.has_dialogs(id) {
            self.edge.keep(id, now.boot + self.policy.limits.dialog_max);
        } else {
            self.edge.release(id);
        }
        self.release(id, now);
    }

    /// Registers again: with the others of the account where they keep a binding, else as before.
    fn go_on_registered(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.leases.get(id) else { return };
        let (binding, account) = (instance.binding, instance.account.clone());
        if instance.foreground.is_some() {
            return self.bindings.resume(binding, false, now.boot);
        }
        self.watch_lease(id, now);
        if self.has_company(id, &account, None) {
            let Some(credential) = self.unseat(id, now) else { return };
            return self.seat(id, &account, credential, None, now);
        }
        self.bindings.resume(binding, true, now.boot);
    }
}
