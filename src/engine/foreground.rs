//! To the foreground: the app speaks with its registrar itself for a while. The credentials are wiped at once, the instance
//! stays, and a later hand-over brings it back.

use super::account::Account;
use super::audit::Unregister;
use super::bindings::{Opening, Rested};
use super::engine::Engine;
use super::erasures::Wiped;
use super::ids::{BindingId, Capability, InstanceId, ReplyTo};
use super::input::{Mode, Parting, TokenHash};
use super::instance::{Foreground, Instance};
use super::output::{Answer, Refusal};
use crate::clock::Now;
use crate::vault::{CredentialId, Keep, Material};

impl Engine {
    pub(super) fn come_forward(
        &mut self,
        id: InstanceId,
        token: &TokenHash,
        parting: Parting,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(()) = self.check(id, token, reply) else { return };
        let Some(instance) = self.leases.get(id) else { return };
        if instance.foreground.is_some() && self.erasures.foreground_again(id, reply).is_some() {
            return;
        }
        if instance.preferences.mode == Mode::Always {
            return self.reply(reply, Answer::Refused(Refusal::WrongMode));
        }
        let (tenant, salt) = (instance.tenant.clone(), instance.salt);
        let (binding, account) = (instance.binding, instance.account.clone());
        self.end_own_trial(id, now);
        self.forget_departures(id);
        self.forget_mailbox(id, now);
        let kept = self.bindings.kept(binding, now.boot);
        let rested = match self.bindings.leave(binding, id) {
            Some(credential) => {
                self.step_aside(id, binding, &account, None, now);
                let kept = kept.filter(|_| parting == Parting::Keep);
                Some(Rested { credential, unregister: Unregister::Shared, kept })
            }
            None => {
                let empty = self.empty_slot();
                let (bindings, mut desk) = self.for_bindings();
                bindings.rest(binding, parting, empty, &mut desk, now.boot)
            }
        };
        let Some(Rested { credential, unregister, kept }) = rested else { return };
        let alone = unregister != Unregister::Shared;
        let foreground = if alone && kept.is_some() { Foreground::Kept } else { Foreground::Released };
        self.leases.come_forward(id, foreground);
        self.wakes.rest_lease(id);
        self.release(id, now);
        let wiped = Wiped { instance: id, tenant, salt, wakes: self.wakes.counts(id), unregister, kept };
        self.enter_foreground(wiped, credential, reply, now);
    }

    fn enter_foreground(&mut self, wiped: Wiped, credential: CredentialId, reply: ReplyTo, now: Now) {
        let (erasures, mut desk) = self.for_erasures();
        erasures.wipe_for_foreground(wiped, credential, reply, &mut desk, now);
    }

    /// The others go on with the binding; this one waits in one of its own, which the registrar does not hear of: without
    /// credentials in the foreground, with its own copy where it is restricted.
    pub(super) fn step_aside(
        &mut self,
        id: InstanceId,
        shared: BindingId,
        account: &Account,
        held: Option<CredentialId>,
        now: Now,
    ) {
        let Some(tenant) = self.leases.get(id).map(|instance| instance.tenant.clone()) else { return };
        self.leases.stand_aside(id);
        self.adjust_binding(shared, now);
        let capability = Capability::mint(self.shard, self.random.bytes());
        let own = self.leases.found(&tenant, account, capability);
        self.leases.reseat(id, own);
        let restricted = held.is_some();
        let credential = held.unwrap_or_else(|| self.empty_slot());
        let takeover = restricted && self.takes_over(own);
        let lease_ends = self.binding_ends(own).unwrap_or(now.boot);
        let tenant = self.policy.tenant_place(&tenant);
        let opening = Opening { id: own, holder: id, tenant, capability, credential, account, takeover, lease_ends };
        let (bindings, mut desk) = self.for_bindings();
        if restricted {
            bindings.open_restricted(opening, &mut desk);
        } else {
            bindings.open_dormant(opening, &mut desk);
        }
    }

    fn empty_slot(&mut self) -> CredentialId {
        self.vault.admit(Material::Ha1(Vec::new()), Keep::UntilAccepted)
    }
}

/// Whether calls to the binding are this instance's: not while its app has taken them over, or it is restricted.
pub(super) fn takes_calls(instance: &Instance) -> bool {
    instance.foreground != Some(Foreground::Released) && instance.restricted.is_none()
}
