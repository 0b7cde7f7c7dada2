//! Rectifying: changes of an instance we hold. A changed destination or user is tried beside the one that is held; the
//! instance leaves its binding when the new one is granted, and the devices that share it stay where they are.

use super::account::Account;
use super::audit::LifeEvent;
use super::caller_key::CallerKey;
use super::engine::Engine;
use super::hand_over::{Change, Kind};
use super::ids::{InstanceId, ReplyTo};
use super::input::{Preferences, PushTarget, Rectification, TokenHash};
use super::output::{Answer, Refusal};
use crate::clock::Now;
use crate::vault::CredentialId;

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
        let (present, keep) = (instance.account.clone(), self.policy.keep(&instance.tenant));
        if instance.restricted.is_some() && (account.is_some() || material.is_some()) {
            return self.reply(reply, Answer::Refused(Refusal::Restricted));
        }
        if self.hand_overs.is_busy(instance) {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        if let Some(Err(refusal)) = account.as_ref().map(|account| self.may_register(&instance.tenant, account)) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        let same_account = account.is_none();
        let account = account.unwrap_or_else(|| present.clone());
        let moves = !self.leases.stays(id, &account);
        if self.leases.is_held_otherwise(id, &account) {
            return self.reply(reply, Answer::Refused(held_twice()));
        }
        let unsigned = needs_credentials(&present, &account) || (moves && instance.foreground.is_some());
        let amendment = Amendment { account, wishes: Wishes { push, caller_key, preferences } };
        match material.map(|material| self.vault.admit(material, keep)) {
            None if unsigned => {
                let needed = "account: another destination or user needs the credentials again".to_owned();
                self.reply(reply, Answer::Refused(Refusal::InvalidAccount(needed)));
            }
            None if moves => {
                let Some(copy) = self.copy_credentials(id) else { return };
                self.rectify_elsewhere(id, amendment, copy, reply, now);
            }
            None => {
                if !same_account {
                    self.drop_candidate(id, None, now);
                }
                self.amend(id, amendment, reply, now);
            }
            Some(credential) if moves => self.rectify_elsewhere(id, amendment, credential, reply, now),
            Some(credential) => self.rectify_here(id, amendment, credential, reply, now),
        }
    }

    /// Other credentials for the place the instance is registered at, or the same ones once more.
    fn rectify_here(
        &mut self,
        id: InstanceId,
        amendment: Amendment,
        credential: CredentialId,
        reply: ReplyTo,
        now: Now,
    ) {
        if self.holds_equal(id, &amendment.account.auth_username, &credential) {
            self.drop_candidate(id, None, now);
            self.set_wishes(id, amendment.wishes, now);
            self.leases.rectify(id, amendment.account);
            if self.renew_means(id, credential, now) {
                return self.wait_for(id, reply, Kind::Rectify, now.boot + self.policy.register_wait);
            }
            return self.finish_rectify(id, reply, now);
        }
        let Some(binding) = self.leases.get(id).map(|instance| instance.binding) else { return };
        if !self.bindings.has_way(binding, now.boot) {
            return self.rectify_elsewhere(id, amendment, credential, reply, now);
        }
        let username = amendment.account.auth_username.clone();
        self.begin_trial(binding, credential, &username, Change::Rectify(id, Box::new(amendment)), reply, now);
    }

    fn rectify_elsewhere(
        &mut self,
        id: InstanceId,
        amendment: Amendment,
        credential: CredentialId,
        reply: ReplyTo,
        now: Now,
    ) {
        let account = amendment.account.clone();
        self.change_place(id, account, credential, Change::Rectify(id, Box::new(amendment)), reply, now);
    }

    /// Changes what needs no other credentials than those that are held.
    pub(super) fn amend(&mut self, id: InstanceId, amendment: Amendment, reply: ReplyTo, now: Now) {
        let Amendment { account, wishes } = amendment;
        self.set_wishes(id, wishes, now);
        self.leases.rectify(id, account);
        self.finish_rectify(id, reply, now);
    }

    /// What an amendment changes beside the account.
    pub(super) fn fulfil(&mut self, id: InstanceId, amendment: Amendment, now: Now) {
        self.set_wishes(id, amendment.wishes, now);
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
            self.bindings.remind(binding, now.boot);
        }
        self.record(id, LifeEvent::Rectified, now);
        self.claim_place(id, now);
        self.reply_instance(id, reply, now);
    }
}

/// Whether REGISTERs of the two accounts go to different places.
pub(super) fn leads_elsewhere(a: &Account, b: &Account) -> bool {
    a.registrar != b.registrar || a.outbound_proxy != b.outbound_proxy || a.tls_spki_sha256 != b.tls_spki_sha256
}

/// Whether the change leads to a destination or user that the credentials held are not for: all of a way but how it is
/// presented.
fn needs_credentials(present: &Account, wanted: &Account) -> bool {
    leads_elsewhere(present, wanted) || present.aor != wanted.aor || present.auth_username != wanted.auth_username
}

/// What an app is told whose device has another instance for the account already.
pub(super) fn held_twice() -> Refusal {
    let twice = "account: this device has handed it over as another instance; delete one of the two".to_owned();
    Refusal::InvalidAccount(twice)
}
