//! Handing over again: the same account from the same device. Equal credentials renew the means to answer the registrar;
//! others are tried beside those that are held, and so is another place.

use zeroize::Zeroizing;

use super::seats::Compared;
use super::{Change, Kind};
use crate::clock::Now;
use crate::engine::audit::LifeEvent;
use crate::engine::engine::Engine;
use crate::engine::ids::{BindingId, InstanceId, ReplyTo};
use crate::engine::input::HandOver;
use crate::engine::output::{Answer, Refusal};
use crate::engine::rectify::leads_elsewhere;
use crate::engine::register::ha1_of;
use crate::vault::CredentialId;

impl Engine {
    /// A hand-over of an account this device has handed over before: at once if the credentials are the same, else when
    /// they have registered by themselves. Until then the predecessor stays as it is.
    pub(super) fn replace(&mut self, id: InstanceId, mut hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        let credential = self.admit(&mut hand_over);
        let Some(instance) = self.leases.get(id) else {
            let _ = self.vault.wipe(credential);
            return;
        };
        if !self.leases.stays(id, &hand_over.account) {
            return self.replace_elsewhere(id, hand_over, credential, reply, now);
        }
        let binding = instance.binding;
        let busy = self.hand_overs.is_busy(instance);
        // In the foreground its own slot is empty, and equals nothing; another device's may do.
        let compared = match (instance.foreground, self.holds_equal(id, &hand_over.account.auth_username, &credential))
        {
            (Some(_), _) => self.compare(&instance.tenant, &hand_over.account, &credential),
            (None, true) => Compared::Same(binding),
            (None, false) => Compared::Other,
        };
        let same = matches!(compared, Compared::Same(place) if place == binding || !self.is_full(place));
        let one_under_way = self.hand_overs.waiting.contains_key(&id)
            || self.hand_overs.tried_on.contains_key(&id)
            || self.hand_overs.candidates.is_asked(id);
        if !one_under_way {
            // Else the answer is the same whatever the comparison says: nothing was guessed.
            self.doubt(&compared, Some(reply));
        }
        if one_under_way || (busy && !same) {
            let _ = self.vault.wipe(credential);
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        if same {
            return self.renew_equal(id, &hand_over, credential, reply, now);
        }
        let place = self.trial_place(id, &hand_over, now).unwrap_or(binding);
        if !self.bindings.has_way(place, now.boot) {
            let account = hand_over.account.clone();
            return self.change_place(id, account, credential, Change::Renew(id, hand_over), reply, now);
        }
        let username = hand_over.account.auth_username.clone();
        self.begin_trial(place, credential, &username, Change::Renew(id, hand_over), reply, now);
    }

    /// The same at another place. That is tried at once where the registrar is the same, or the credentials are known to be
    /// right; else they go to the place that is held first, and to the new one when they registered there.
    fn replace_elsewhere(
        &mut self,
        id: InstanceId,
        hand_over: Box<HandOver>,
        credential: CredentialId,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(instance) = self.leases.get(id) else {
            let _ = self.vault.wipe(credential);
            return;
        };
        let (binding, account) = (instance.binding, hand_over.account.clone());
        let elsewhere = leads_elsewhere(&instance.account, &account);
        let other_user = instance.account.auth_username != account.auth_username;
        let busy = self.hand_overs.is_busy(instance);
        if !elsewhere || self.proves(id, &account, &credential) {
            return self.change_place(id, account, credential, Change::Renew(id, hand_over), reply, now);
        }
        if !busy && !self.bindings.is_dormant(binding) {
            // Every answer from here on tells that the credentials are others than those held.
            self.doubt(&Compared::Other, Some(reply));
        }
        let refusal = if busy {
            Some(Refusal::RateLimited { after: self.policy.register_wait })
        } else if other_user {
            let both = "account: another user at another place at once can be changed with PATCH alone".to_owned();
            Some(Refusal::InvalidAccount(both))
        } else if !self.bindings.has_way(binding, now.boot) {
            Some(Refusal::RegistrarUnreachable)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _ = self.vault.wipe(credential);
            return self.reply(reply, Answer::Refused(refusal));
        }
        self.begin_trial(binding, credential, &account.auth_username, Change::Renew(id, hand_over), reply, now);
    }

    /// Equal credentials: they take the place of the member's own, and register at once where that is needed.
    fn renew_equal(
        &mut self,
        id: InstanceId,
        hand_over: &HandOver,
        credential: CredentialId,
        reply: ReplyTo,
        now: Now,
    ) {
        self.drop_candidate(id, None, now);
        let company = self.has_company(id, &hand_over.account, Some(&credential));
        // Its owner wants it processed again, and has the credentials.
        self.lift(id, now);
        let token = self.take_terms(id, hand_over, true, now);
        let kind = Kind::HandOver { token, replaced: true };
        if company {
            self.unseat(id, now).map(|stale| self.vault.wipe(stale));
            self.seat(id, &hand_over.account, credential, Some(reply), now);
            return self.wait_for_seat(id, reply, kind, now);
        }
        let Some(binding) = self.leases.get(id).map(|instance| instance.binding) else { return };
        self.adjust_binding(binding, now);
        self.bindings.resume(binding, true, now.boot);
        let waits = self.renew_means(id, credential, now);
        self.wait_for(id, reply, kind, now.boot + self.policy.register_wait);
        self.succeed(id, now);
        if !waits {
            self.release(id, now);
        }
    }

    /// The newer hand-over takes its predecessor's place, with credentials that have just registered: same instance, Call-ID
    /// and Contact; new token. Where it wants another place, that is tried from now on.
    pub(super) fn renew(&mut self, id: InstanceId, mut hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        self.drop_candidate(id, None, now);
        self.lift(id, now);
        let Some(instance) = self.leases.get(id) else { return };
        let (binding, present) = (instance.binding, instance.account.clone());
        let wanted = if self.leases.stays(id, &hand_over.account) {
            None
        } else {
            Some(std::mem::replace(&mut hand_over.account, present))
        };
        let token = self.take_terms(id, &hand_over, false, now);
        self.adjust_binding(binding, now);
        self.bindings.resume(binding, true, now.boot);
        if let Some(account) = wanted {
            self.move_on(id, account, now);
        }
        self.succeed(id, now);
        self.reply_handed_over(id, token, true, reply, now);
    }

    /// Token, lease, targets and preferences of a newer hand-over; the token's text. `same`: it brought the credentials that
    /// are held.
    pub(super) fn take_terms(
        &mut self,
        id: InstanceId,
        hand_over: &HandOver,
        same: bool,
        now: Now,
    ) -> Zeroizing<String> {
        let (token, kept) = self.mint_token(id);
        self.leases.renew(id, hand_over, kept, same, now);
        self.review_proof(id, now);
        self.watch_lease(id, now);
        self.record(id, LifeEvent::HandedOver, now);
        token
    }

    /// Whether credentials equal those the instance's binding registers with, under the same user name.
    pub(in crate::engine) fn holds_equal(&self, id: InstanceId, username: &str, credential: &CredentialId) -> bool {
        let Some(instance) = self.leases.get(id).filter(|instance| instance.foreground.is_none()) else { return false };
        let equals = |held| self.vault.matches(held, credential, ha1_of(username));
        instance.account.auth_username == username && self.bindings.credential(instance.binding).is_some_and(equals)
    }

    /// Puts equal credentials in the place of the member's own; the binding speaks with them from now on, and registers
    /// before its time. `true`: there is a verdict to wait for.
    pub(in crate::engine) fn renew_means(&mut self, id: InstanceId, credential: CredentialId, now: Now) -> bool {
        let Some(instance) = self.leases.get(id) else {
            let _ = self.vault.wipe(credential);
            return false;
        };
        let (binding, username) = (instance.binding, instance.account.auth_username.clone());
        let content = self.bindings.is_content(binding, now.boot);
        let distils = self.vault.is_undistilled(&credential);
        self.put_in_place(binding, id, credential, &username);
        let asked = (distils || !content) && self.bindings.hasten(binding, now.boot);
        asked && !content
    }

    /// A further device shares a binding. Where that is in trouble it speaks with what has just come, at once. `true`: there
    /// is a verdict to wait for.
    pub(super) fn join_binding(
        &mut self,
        binding: BindingId,
        id: InstanceId,
        credential: CredentialId,
        username: &str,
        now: Now,
    ) -> bool {
        let troubled = self.bindings.has_spoken(binding, now.boot) && !self.bindings.is_content(binding, now.boot);
        if !troubled {
            let (bindings, mut desk) = self.for_bindings();
            bindings.join(binding, id, credential, username, &mut desk);
            return false;
        }
        self.put_in_place(binding, id, credential, username);
        self.bindings.hasten(binding, now.boot)
    }

    /// The binding speaks with this copy of the credentials it has, from now on; the member's former one is wiped.
    fn put_in_place(&mut self, binding: BindingId, id: InstanceId, credential: CredentialId, username: &str) {
        if let Some(held) = self.bindings.credential(binding) {
            self.vault.complete(&credential, held);
        }
        if let Some(stale) = self.bindings.renew(binding, id, credential, username) {
            let _ = self.vault.wipe(stale);
        }
    }

    /// A copy of the instance's own credentials, for another registration of the same account.
    pub(in crate::engine) fn copy_credentials(&mut self, id: InstanceId) -> Option<CredentialId> {
        let binding = self.leases.get(id)?.binding;
        let own = self.bindings.copy_of(binding, id)?;
        Some(self.vault.duplicate(own))
    }
}
