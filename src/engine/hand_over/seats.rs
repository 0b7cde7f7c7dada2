//! Who sits in which binding: several devices of one account share one, and an instance whose account changes leaves it.

use std::time::Duration;

use crate::clock::Now;
use crate::engine::account::{Account, TenantId};
use crate::engine::bindings::Opening;
use crate::engine::engine::Engine;
use crate::engine::erasures::Sentence;
use crate::engine::ids::{BindingId, Capability, InstanceId, ReplyTo};
use crate::engine::input::HandOver;
use crate::engine::instance::Instance;
use crate::engine::register::{Exchange, Leaving, Terms, ha1_of};
use crate::vault::CredentialId;

/// Bindings of one account that credentials are compared with, each at the price of opening a slot. Restrictions that end
/// may bring together more than an account has room for; what is not compared gets a binding of its own.
const COMPARED_MAX: usize = 32;

/// What comparing credentials with those held of the same account tells, and tells whoever brought them: who has them is
/// welcome at once.
pub(super) enum Compared {
    /// They are those this binding registers with.
    Same(BindingId),
    /// They are others than those that are held.
    Other,
    /// Nothing is held to compare them with.
    Nothing,
}

impl Engine {
    /// Opens the binding of one instance.
    pub(super) fn open_binding(
        &mut self,
        id: BindingId,
        holder: InstanceId,
        account: &Account,
        credential: CredentialId,
        now: Now,
    ) {
        let Some(capability) = self.leases.capability(id) else { return };
        let lease_ends = self.binding_ends(id).unwrap_or(now.boot);
        let takeover = self.takes_over(id);
        let tenant = self.leases.get(holder).map_or(0, |instance| self.policy.tenant_place(&instance.tenant));
        let opening = Opening { id, holder, tenant, capability, credential, account, takeover, lease_ends };
        let (bindings, mut desk) = self.for_bindings();
        bindings.open(opening, &mut desk, now.boot);
    }

    /// Whether a holder of these credentials may share a binding.
    pub(super) fn compare(&self, tenant: &TenantId, account: &Account, credential: &CredentialId) -> Compared {
        let same = |id: &BindingId| {
            let held = self.bindings.credential(*id);
            held.is_some_and(|held| self.vault.matches(held, credential, ha1_of(&account.auth_username)))
        };
        let mut kept = self.kept_for(tenant, account).take(COMPARED_MAX).peekable();
        let nothing = kept.peek().is_none();
        match kept.find(same) {
            Some(binding) => Compared::Same(binding),
            None if nothing => Compared::Nothing,
            None => Compared::Other,
        }
    }

    /// Whether the account has no room for a further binding. Each is credentials of their own, which nobody has judged yet.
    pub(super) fn is_crowded(&self, tenant: &TenantId, account: &Account) -> bool {
        let kept = self.kept_for(tenant, account).count() + self.leases.vacant(tenant, account);
        kept >= self.policy.limits.devices_per_account as usize
    }

    /// The bindings of the account that are kept registered, the oldest first: those of apps in the foreground hold nothing
    /// to compare, restricted ones may not be compared.
    fn kept_for(&self, tenant: &TenantId, account: &Account) -> impl Iterator<Item = BindingId> {
        self.leases.alike(tenant, account).into_iter().filter(|id| !self.bindings.is_dormant(*id))
    }

    pub(super) fn is_full(&self, binding: BindingId) -> bool {
        self.leases.members(binding).count() >= self.policy.limits.devices_per_account as usize
    }

    /// Moves an instance that is in no binding any more to one its account and credentials fit: a shared one, or one of its
    /// own.
    /// `reply` is whose answer will tell which, where somebody asked for it.
    pub(in crate::engine) fn seat(
        &mut self,
        id: InstanceId,
        account: &Account,
        credential: CredentialId,
        reply: Option<ReplyTo>,
        now: Now,
    ) {
        self.come_back(id);
        let Some(tenant) = self.leases.get(id).map(|instance| instance.tenant.clone()) else { return };
        let compared = self.compare(&tenant, account, &credential);
        self.doubt(&compared, reply);
        match compared {
            Compared::Same(binding) if !self.is_full(binding) => {
                self.leases.reseat(id, binding);
                self.join_binding(binding, id, credential, &account.auth_username, now);
                self.adjust_binding(binding, now);
            }
            Compared::Same(_) | Compared::Other | Compared::Nothing => {
                let capability = Capability::mint(self.shard, self.random.bytes());
                let binding = self.leases.found(&tenant, account, capability);
                self.leases.reseat(id, binding);
                self.open_binding(binding, id, account, credential, now);
            }
        }
    }

    /// Whether other devices keep a binding that this form of the account could share, with the same credentials.
    pub(in crate::engine) fn has_company(
        &self,
        id: InstanceId,
        account: &Account,
        credential: Option<&CredentialId>,
    ) -> bool {
        let Some(instance) = self.leases.get(id) else { return false };
        let company = || {
            let own = credential.or_else(|| self.bindings.copy_of(instance.binding, id))?;
            let Compared::Same(other) = self.compare(&instance.tenant, account, own) else { return None };
            (other != instance.binding && !self.is_full(other)).then_some(())
        };
        let apart = instance.foreground.is_some() || instance.restricted.is_some();
        (apart || !self.leases.stays(id, account)) && company().is_some()
    }

    /// An instance whose credentials were accepted on another binding than its own is a member of that one.
    pub(super) fn move_in(&mut self, member: InstanceId, id: BindingId, now: Now) {
        let own = self.leases.get(member).map(|instance| instance.binding);
        if let Some(own) = own.filter(|own| *own != id) {
            if let Some(leaving) = self.bindings.take(own, now.boot) {
                let slot = self.let_go(own, leaving, now);
                let _ = self.vault.wipe(slot);
            }
            self.leases.reseat(member, id);
        }
        self.come_back(member);
    }

    /// The app is in the background again: there are credentials.
    pub(in crate::engine) fn come_back(&mut self, id: InstanceId) {
        self.leases.come_back(id);
        self.erasures.forget_foreground(id);
    }

    /// Where the credentials of an app that was in the foreground are tried: on the binding other devices keep, if there is
    /// one they could share.
    pub(super) fn trial_place(&self, id: InstanceId, hand_over: &HandOver, now: Now) -> Option<BindingId> {
        self.leases.get(id)?.foreground?;
        let alike = self.leases.alike(&hand_over.tenant, &hand_over.account);
        let free = |id: &BindingId| {
            self.bindings.may_try(*id, now.boot) && !self.hand_overs.trials.contains_key(id) && !self.is_full(*id)
        };
        alike.into_iter().find(free)
    }

    /// The binding speaks with this member's credentials from now on.
    pub(super) fn adopt(&mut self, id: BindingId, member: InstanceId, former: CredentialId, username: &str) {
        if let Some(stale) = self.bindings.adopt(id, member, former, username, &mut self.vault) {
            let _ = self.vault.wipe(stale);
        }
    }

    /// Takes an instance out of its binding; its credentials come back. Those that share the binding go on with it. Where
    /// there are none the registrar is told with the nonce at hand; a challenge to that finds nobody who could answer it.
    pub(in crate::engine) fn unseat(&mut self, id: InstanceId, now: Now) -> Option<CredentialId> {
        let binding = self.leases.get(id)?.binding;
        if let Some(credential) = self.bindings.leave(binding, id) {
            self.leases.stand_aside(id);
            self.adjust_binding(binding, now);
            return Some(credential);
        }
        let leaving = self.bindings.take(binding, now.boot)?;
        Some(self.let_go(binding, leaving, now))
    }

    /// Removes a binding at the registrar with the nonce at hand, once; the credentials come back.
    pub(in crate::engine) fn let_go(&mut self, id: BindingId, leaving: Leaving, now: Now) -> CredentialId {
        let Leaving { mut identity, bound_at } = leaving;
        if let Some(target) = bound_at {
            let terms = Terms { expires: Duration::ZERO, refusals_max: 1, datagrams_max: Some(1) };
            let (_, mut desk) = self.for_bindings();
            let (exchange, request) = Exchange::start(&mut identity, target, terms, &mut desk, now.boot);
            self.erasures.send_farewell(id, &exchange.target, request, now.boot);
        }
        identity.into_credential().0
    }

    /// The last member of a binding takes it along; one of several leaves with its own copy of the credentials.
    pub(in crate::engine) fn bury(&mut self, instance: Instance, sentence: Sentence, now: Now) {
        let shared = instance.binding;
        if let Some(credential) = self.bindings.leave(shared, instance.id) {
            let (erasures, mut desk) = self.for_erasures();
            erasures.begin_shared(instance, credential, sentence, &mut desk, now);
            self.adjust_binding(shared, now);
        } else if let Some(binding) = self.bindings.take(shared, now.boot) {
            let (erasures, mut desk) = self.for_erasures();
            erasures.begin(instance, binding, sentence, &mut desk, now);
        }
    }

    /// The instances that share a binding, in the order of their ids.
    pub(in crate::engine) fn members_of(&self, binding: BindingId) -> Vec<InstanceId> {
        self.leases.members(binding).map(|member| member.id).collect()
    }
}
