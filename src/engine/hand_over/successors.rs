//! Phones whose app was installed anew, and accounts with as many devices as they may have: which instance takes the place of which.
//!
//! A reinstalled app hands its account over under another device id. The newer instance takes the place of the older ones with
//! the same account and the same push target for calls, once its credentials are known to be right: they equal those of the
//! older one, or the registrar has granted them; and once its push token is proven, where its tenant asks for that. Neither an
//! app key nor a push token is enough.

use std::time::Duration;

use super::RETRY_AFTER;
use super::seats::Compared;
use crate::clock::Now;
use crate::engine::audit::Cause;
use crate::engine::calls::Callee;
use crate::engine::engine::Engine;
use crate::engine::ids::{BindingId, InstanceId, ReplyTo};
use crate::engine::input::{HandOver, Holder};
use crate::engine::limits::SUCCESSORS_MAX;
use crate::engine::output::{Answer, Refusal};
use crate::engine::proof::ProofState;
use crate::engine::register::ha1_of;

/// A device of an account that has as many as it may gives way to a further one if its app was neither attached nor heard of
/// for so long.
const IDLE_AFTER: Duration = Duration::from_secs(24 * 3600);

impl Engine {
    /// The app of an instance has changed it: it is the newest of its phone's.
    pub(in crate::engine) fn claim_place(&mut self, id: InstanceId, now: Now) {
        self.leases.claim(id);
        self.succeed(id, now);
    }

    /// The registrar has spoken, or credentials were accepted: members of the binding take the places they may take.
    pub(in crate::engine) fn review_heirs(&mut self, binding: BindingId, now: Now) {
        let heirs: Vec<InstanceId> =
            self.leases.members(binding).filter(|member| member.heir).map(|member| member.id).collect();
        for heir in heirs {
            self.succeed(heir, now);
        }
    }

    /// Takes the places of older instances of the same phone, as far as the instance's account and push token are proven.
    pub(in crate::engine) fn succeed(&mut self, id: InstanceId, now: Now) {
        let Some(heir) = self.leases.get(id).filter(|instance| instance.heir) else { return };
        if !matches!(self.proofs.state(id), ProofState::NotRequired | ProofState::Proven) {
            return;
        }
        let binding = heir.binding;
        let vouched_for = self.is_vouched_for(id, binding, now);
        for older in self.leases.forerunners(id) {
            // The members of a binding have the same credentials, or the registrar has accepted those of the newest.
            let shares = self.leases.get(older).is_some_and(|older| older.binding == binding);
            if vouched_for || shares {
                self.replace_by(older, id, now);
            }
        }
        if vouched_for {
            self.leases.settle_heir(id);
        }
    }

    /// The tenant has no place left. An app that was installed anew gets that of its older instance, if it has the credentials
    /// in use; any other hand-over is refused.
    pub(super) fn take_over(&mut self, mut hand_over: Box<HandOver>, after: Duration, reply: ReplyTo, now: Now) {
        let username = hand_over.account.auth_username.clone();
        let place = self.may_take_over(&hand_over).then(|| {
            let credential = self.admit(&mut hand_over);
            let compared = self.compare(&hand_over.tenant, &hand_over.account, &credential);
            self.doubt(&compared, Some(reply));
            (credential, compared)
        });
        match place {
            Some((credential, Compared::Same(binding))) if self.has_forerunner(binding, &hand_over) => {
                self.places.take(Holder::Tenant(hand_over.tenant.clone()), now.boot);
                let (id, token) = self.open_instance(&hand_over, binding, now);
                let asked = self.join_binding(binding, id, credential, &username, now);
                return self.welcome(id, token, asked, reply, now);
            }
            Some((credential, _)) => _ = self.vault.wipe(credential),
            None => {}
        }
        let device = Holder::Device(hand_over.tenant.clone(), hand_over.device.clone());
        self.places.give_back(device, now.boot);
        self.reply(reply, Answer::Refused(Refusal::RateLimited { after }));
    }

    /// Where push tokens are to be proven, the older instance stays until then, and so does its place.
    fn may_take_over(&self, hand_over: &HandOver) -> bool {
        let proves = self.policy.tenant(&hand_over.tenant).is_some_and(|tenant| tenant.prove_push_token);
        let alike = self.leases.alike(&hand_over.tenant, &hand_over.account);
        !proves
            && self.may_hand_over(hand_over).is_ok()
            && self.leases.predecessor(hand_over).is_none()
            && alike.into_iter().any(|binding| self.has_forerunner(binding, hand_over))
    }

    /// Whether an older instance of the same phone is a member of the binding.
    fn has_forerunner(&self, binding: BindingId, hand_over: &HandOver) -> bool {
        self.leases.others(binding, &hand_over.push) < self.leases.members(binding).count()
    }

    /// Whether the registrar has granted the instance's own credentials and holds to that.
    fn is_vouched_for(&self, id: InstanceId, binding: BindingId, now: Now) -> bool {
        let (Some(own), Some(used)) = (self.bindings.copy_of(binding, id), self.bindings.credential(binding)) else {
            return false;
        };
        let username = self.leases.get(id).map(|instance| instance.account.auth_username.clone()).unwrap_or_default();
        self.bindings.is_content(binding, now.boot)
            && (self.bindings.is_holder(binding, id) || self.vault.matches(used, own, ha1_of(&username)))
    }

    /// The newer instance of a phone gets what waits for the older one, which is erased.
    fn replace_by(&mut self, older: InstanceId, heir: InstanceId, now: Now) {
        self.pass_on_calls(older, heir, now);
        let device = self.edge.device(heir).cloned();
        let (texts, mut desk) = self.for_texts();
        texts.pass_on(older, heir, device.as_ref(), &mut desk, now.boot);
        self.erase(older, Cause::Replaced, None, now);
    }

    fn pass_on_calls(&mut self, older: InstanceId, heir: InstanceId, now: Now) {
        let Some(instance) = self.leases.get(heir) else { return };
        let callee = Callee {
            instance: heir,
            platform_ios: instance.platform.eq_ignore_ascii_case("ios"),
            hand_over: instance.preferences.hand_over,
            caller: None,
            device: self.edge.device(heir).cloned(),
            returns_until: self.edge.returns_until(heir),
        };
        let (calls, mut desk) = self.for_calls();
        calls.pass_on(older, &callee, &mut desk, now.boot);
    }

    /// Whether there is room for a further device in a binding whose credentials it has, and which idle device it replaces
    /// where there is none besides.
    pub(super) fn room_in(
        &self,
        binding: BindingId,
        hand_over: &HandOver,
        now: Now,
    ) -> Result<Option<InstanceId>, Refusal> {
        let most = self.policy.limits.devices_per_account as usize;
        let members = self.leases.members(binding).count();
        if members < most || (self.leases.others(binding, &hand_over.push) < most && members < most + SUCCESSORS_MAX) {
            return Ok(None);
        }
        let is_attached = |member| self.edge.device(member).is_some();
        let idle = self.leases.idlest(binding, IDLE_AFTER, is_attached, now.boot);
        if idle.is_some() {
            return Ok(idle);
        }
        let after = self.leases.first_end(binding, now).unwrap_or(RETRY_AFTER);
        Err(Refusal::TooManyDevices { after })
    }

    /// An idle device gives way to a newcomer. Its app is told, unless it is the newcomer's own.
    pub(super) fn take_place_of(&mut self, idle: Option<InstanceId>, newcomer: InstanceId, now: Now) {
        let Some(idle) = idle else { return };
        let target = |id| self.leases.get(id).map(|instance| &instance.push);
        if target(idle) != target(newcomer) {
            self.ask_to_reprovision(idle, now);
        }
        self.erase(idle, Cause::Replaced, None, now);
    }
}
