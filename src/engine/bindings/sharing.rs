//! Several devices, one binding: who joins, who leaves, and whose copy of the credentials the binding speaks with.
//!
//! Each device has a copy of its own, so that what is wiped when it leaves is all that was held of it.

use super::Bindings;
use super::binding::{Binding, Spare};
use crate::clock::Instant;
use crate::engine::ids::{BindingId, InstanceId};
use crate::engine::output::RegistrationState;
use crate::engine::register::Desk;
use crate::vault::{CredentialId, Vault};

impl Binding {
    /// Puts HA1 in the place of the password, in every copy.
    pub(super) fn distill(&self, vault: &mut Vault) {
        self.identity.distill(vault);
        for spare in self.spare.values() {
            self.identity.distill_copy(&spare.credential, &spare.username, vault);
        }
    }
}

impl Bindings {
    /// A further device shares the binding, with its own copy of the credentials that are in use.
    pub(crate) fn join(
        &mut self,
        id: BindingId,
        member: InstanceId,
        credential: CredentialId,
        username: &str,
        desk: &mut Desk<'_>,
    ) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        if binding.ever_registered {
            binding.identity.distill_copy(&credential, username, desk.vault);
        }
        binding.spare.insert(member, Spare { credential, username: username.to_owned() });
        self.census[binding.counted as usize] += 1;
    }

    /// The credentials that have just registered are those of `member`; `former` were in use before. Whatever the member
    /// had until now comes back to be wiped.
    pub(crate) fn adopt(
        &mut self,
        id: BindingId,
        member: InstanceId,
        former: CredentialId,
        username: &str,
        vault: &mut Vault,
    ) -> Option<CredentialId> {
        let Some(binding) = self.bindings.get_mut(&id) else { return Some(former) };
        let holder = std::mem::replace(&mut binding.holder, member);
        if holder == member {
            return Some(former);
        }
        let before = binding.members();
        // It was not among the copies when the registration distilled them.
        if binding.ever_registered {
            binding.identity.distill_copy(&former, username, vault);
        }
        binding.spare.insert(holder, Spare { credential: former, username: username.to_owned() });
        let own = binding.spare.remove(&member);
        self.census[binding.counted as usize] += binding.members() - before;
        own.map(|own| own.credential)
    }

    /// A device leaves a binding that others go on sharing; its own copy comes back to be wiped. `None`: it is the last one,
    /// or none of them.
    pub(crate) fn leave(&mut self, id: BindingId, member: InstanceId) -> Option<CredentialId> {
        let binding = self.bindings.get_mut(&id)?;
        let credential = if binding.holder == member {
            let (heir, Spare { credential, username }) = binding.spare.pop_first()?;
            binding.holder = heir;
            binding.identity.exchange_credential(credential, username).0
        } else {
            binding.spare.remove(&member)?.credential
        };
        self.census[binding.counted as usize] -= 1;
        Some(credential)
    }

    /// The device's own copy of the credentials.
    pub(crate) fn copy_of(&self, id: BindingId, member: InstanceId) -> Option<&CredentialId> {
        let binding = self.bindings.get(&id)?;
        if binding.holder == member {
            return Some(&binding.identity.credential);
        }
        binding.spare.get(&member).map(|spare| &spare.credential)
    }

    /// Whether the binding speaks with this member's credentials.
    pub(crate) fn is_holder(&self, id: BindingId, member: InstanceId) -> bool {
        self.bindings.get(&id).is_some_and(|binding| binding.holder == member)
    }

    /// The credential a binding registers with, for comparing.
    pub(crate) fn credential(&self, id: BindingId) -> Option<&CredentialId> {
        self.bindings.get(&id).map(|binding| &binding.identity.credential)
    }

    /// Whether other credentials may be tried on the binding for a further device: it is registered, and no trial is under
    /// way or has just been. Who keeps guessing must not keep the binding from its refresh.
    pub(crate) fn may_try(&self, id: BindingId, now: Instant) -> bool {
        self.bindings.get(&id).is_some_and(|binding| {
            !binding.dormant && binding.is_registered(now) && binding.trial.is_none() && binding.trial_rest <= now
        })
    }

    /// Whether the registrar has said anything yet.
    pub(crate) fn has_spoken(&self, id: BindingId, now: Instant) -> bool {
        self.bindings.get(&id).is_some_and(|binding| binding.state(now) != RegistrationState::Registering)
    }
}
