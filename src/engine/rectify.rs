//! Rectifying: changes of an instance we hold. A changed destination or user takes the instance out of its binding into
//! another one, and the devices that shared it stay where they are.

use super::account::Account;
use super::audit::LifeEvent;
use super::caller_key::CallerKey;
use super::engine::Engine;
use super::hand_over::{Change, Kind, leads_elsewhere};
use super::ids::{InstanceId, ReplyTo};
use super::input::{Preferences, PushTarget, Rectification, TokenHash};
use super::output::{Answer, Refusal};
use crate::clock::Now;
use crate::vault::{Keep, Material};

/// What changes once the credentials are accepted.
pub(super) struct Amendment {
    account: Account,
    wishes: Wishes,
}

/// What needs no credentials.
struct Wishes {
    push: Option<Vec<PushTarget>>,
    caller_key: Option<Option<CallerKey>>,
    preferences: Option<Preferences>,
}

impl Engine {
    pub(super) fn rectify(
        &mut self,
        id: InstanceId,
        token: &TokenHash,
        change: Rectification,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(()) = self.check(id, token, reply) else { return };
        let Some(()) = self.may_be_recorded(id, reply, now) else { return };
        if change.material.is_some() {
            if let Err(refusal) = self.may_admit() {
                return self.reply(reply, Answer::Refused(refusal));
            }
            return self.ask_to_rectify(id, *token, Box::new(change), reply, now);
        }
        self.rectify_now(id, token, change, reply, now);
    }

    /// The account may be guessed at, where there are other credentials.
    pub(super) fn rectify_now(
        &mut self,
        id: InstanceId,
        token: &TokenHash,
        change: Rectification,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(()) = self.check(id, token, reply) else { return };
        let Rectification { push, caller_key, account, material, preferences } = change;
        // Meanwhile the disk may have failed, or the end of the process have come.
        if let Some(Err(refusal)) = material.as_ref().map(|_| self.may_admit()) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        let Some(instance) = self.leases.get(id) else { return };
        let (present, binding, keep) = (instance.account.clone(), instance.binding, self.policy.keep(&instance.tenant));
        if instance.restricted.is_some() && (account.is_some() || material.is_some()) {
            return self.reply(reply, Answer::Refused(Refusal::Restricted));
        }
        if self.hand_overs.is_busy(instance) {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        if let Some(Err(refusal)) = account.as_ref().map(|account| self.may_register(&instance.tenant, account)) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        let account = account.unwrap_or_else(|| present.clone());
        let elsewhere = leads_elsewhere(&present, &account)
            || present.aor != account.aor
            || present.auth_username != account.auth_username;
        let empty = instance.foreground.is_some() && self.must_move(id, &account);
        if self.leases.is_held_otherwise(id, &account) {
            let twice = "account: this device has handed it over as another instance; delete one of the two".to_owned();
            return self.reply(reply, Answer::Refused(Refusal::InvalidAccount(twice)));
        }
        let amendment = Amendment { account, wishes: Wishes { push, caller_key, preferences } };
        match material {
            None if elsewhere || empty => {
                let needed = "account: another destination or user needs the credentials again".to_owned();
                self.reply(reply, Answer::Refused(Refusal::InvalidAccount(needed)));
            }
            None => self.amend(id, amendment, reply, now),
            Some(material) if elsewhere => self.resettle(id, amendment, (material, keep), reply, now),
            Some(material) => {
                let username = amendment.account.auth_username.clone();
                let credential = self.vault.admit(material, keep);
                let change = Change::Rectify(id, Box::new(amendment));
                self.begin_trial(binding, credential, &username, change, reply, now);
            }
        }
    }

    /// Changes what needs no other credentials than those that are held.
    pub(super) fn amend(&mut self, id: InstanceId, amendment: Amendment, reply: ReplyTo, now: Now) {
        let Amendment { account, wishes } = amendment;
        self.set_wishes(id, wishes, now);
        if self.must_move(id, &account) {
            let Some(credential) = self.unseat(id, now) else { return };
            self.seat(id, &account, credential, Some(reply), now);
            self.leases.rectify(id, account);
            return self.wait_for_seat(id, reply, Kind::Rectify, now);
        }
        self.leases.rectify(id, account);
        self.finish_rectify(id, reply, now);
    }

    /// Another destination or user: the secret for the former one is wiped before anything else happens.
    fn resettle(
        &mut self,
        id: InstanceId,
        amendment: Amendment,
        (material, keep): (Material, Keep),
        reply: ReplyTo,
        now: Now,
    ) {
        let Amendment { account, wishes } = amendment;
        self.set_wishes(id, wishes, now);
        if let Some(former) = self.unseat(id, now) {
            let _ = self.vault.wipe(former);
        }
        let credential = self.vault.admit(material, keep);
        self.seat(id, &account, credential, Some(reply), now);
        self.leases.rectify(id, account);
        self.wait_for_seat(id, reply, Kind::Rectify, now);
    }

    fn set_wishes(&mut self, id: InstanceId, wishes: Wishes, now: Now) {
        let Wishes { push, caller_key, preferences } = wishes;
        if let Some(key) = caller_key {
            self.leases.reseal(id, key);
        }
        if let Some(push) = push {
            self.leases.retarget(id, push, now);
            self.review_proof(id, now);
        }
        if let Some(preferences) = preferences {
            self.leases.prefer(id, preferences);
            self.review_mailbox(id, now);
        }
    }

    pub(super) fn finish_rectify(&mut self, id: InstanceId, reply: ReplyTo, now: Now) {
        if let Some(binding) = self.leases.get(id).map(|instance| instance.binding) {
            self.adjust_binding(binding, now);
        }
        self.record(id, LifeEvent::Rectified, now);
        self.claim_place(id, now);
        self.reply_instance(id, reply, now);
    }
}
