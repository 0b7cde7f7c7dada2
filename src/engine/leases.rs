//! Leases: which instances we hold, whose they are, until when.
//!
//! Finds an instance by its id, its capability or its account, checks tokens, and tells when a lease ends by either clock.
//! Holds no credential, sends nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use ahash::HashMap;
use zeroize::Zeroizing;

use super::account::{Account, TenantId};
use super::ids::{Capability, InstanceId};
use super::input::{HandOver, PushTarget, TokenHash};
use super::instance::{Instance, tokens_equal};
use super::schedule::Schedule;
use crate::clock::{Instant, Now, WallTime};

/// What an app's hand-over adds to the account: minted secrets.
pub(crate) struct Minted {
    pub(crate) capability: Capability,
    pub(crate) salt: [u8; 32],
    pub(crate) token: TokenHash,
    pub(crate) edge_ha1: Zeroizing<String>,
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct AccountKey {
    tenant: TenantId,
    device: String,
    aor: String,
    registrar: String,
}

/// The room.
#[derive(Default)]
pub(crate) struct Leases {
    /// Boxed, so that a table that grows moves pointers.
    instances: HashMap<InstanceId, Box<Instance>>,
    by_capability: HashMap<Capability, InstanceId>,
    by_account: HashMap<AccountKey, InstanceId>,
    ends: Schedule<InstanceId>,
    ends_by_wall: BTreeSet<(WallTime, InstanceId)>,
}

impl Leases {
    /// Takes an instance in.
    pub(crate) fn open(&mut self, id: InstanceId, hand_over: &HandOver, minted: Minted, now: Now) {
        let instance = Instance {
            id,
            tenant: hand_over.tenant.clone(),
            device: hand_over.device.clone(),
            platform: hand_over.platform.clone(),
            account: hand_over.account.clone(),
            push: hand_over.push.clone(),
            preferences: hand_over.preferences,
            push_since: now.wall,
            capability: minted.capability,
            salt: minted.salt,
            edge_ha1: minted.edge_ha1,
            handed_over: now.wall,
            trunk_drops: 0,
            lease: hand_over.lease,
            lease_ends: ends(hand_over.lease, now),
            token: minted.token,
        };
        self.by_capability.insert(instance.capability, id);
        self.by_account.insert(key(&instance.tenant, &instance.device, &instance.account), id);
        self.schedule(id, instance.lease_ends);
        self.instances.insert(id, Box::new(instance));
    }

    /// Takes a newer hand-over of the same account and device in: new token, targets, preferences and lease.
    pub(crate) fn renew(
        &mut self,
        id: InstanceId,
        hand_over: &HandOver,
        token: TokenHash,
        edge_ha1: Zeroizing<String>,
        now: Now,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.platform.clone_from(&hand_over.platform);
        instance.account.clone_from(&hand_over.account);
        instance.push.clone_from(&hand_over.push);
        instance.preferences = hand_over.preferences;
        instance.push_since = now.wall;
        instance.lease = hand_over.lease;
        instance.token = token;
        instance.edge_ha1 = edge_ha1;
        self.extend(id, now);
    }

    /// The lease starts anew from now.
    pub(crate) fn extend(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let former = instance.lease_ends;
        let ends = ends(instance.lease, now);
        instance.lease_ends = ends;
        self.ends_by_wall.remove(&(former.wall, id));
        self.schedule(id, ends);
    }

    /// The account's new form.
    pub(crate) fn rectify(&mut self, id: InstanceId, account: Account) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let former = key(&instance.tenant, &instance.device, &instance.account);
        instance.account = account;
        let present = key(&instance.tenant, &instance.device, &instance.account);
        if former != present {
            self.by_account.remove(&former);
            self.by_account.insert(present, id);
        }
    }

    /// The instance is found by another capability from now on.
    pub(crate) fn replace_capability(&mut self, id: InstanceId, capability: Capability) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        self.by_capability.remove(&instance.capability);
        instance.capability = capability;
        self.by_capability.insert(capability, id);
    }

    /// New push targets.
    pub(crate) fn retarget(&mut self, id: InstanceId, push: Vec<PushTarget>, now: Now) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.push = push;
            instance.push_since = now.wall;
        }
    }

    /// Counts a request to the capability that was dropped for its source.
    pub(crate) fn count_drop(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.trunk_drops += 1;
        }
    }

    /// Takes an instance out, by value.
    pub(crate) fn take(&mut self, id: InstanceId) -> Option<Instance> {
        let instance = *self.instances.remove(&id)?;
        self.by_capability.remove(&instance.capability);
        self.by_account.remove(&key(&instance.tenant, &instance.device, &instance.account));
        self.ends.remove(id);
        self.ends_by_wall.remove(&(instance.lease_ends.wall, id));
        Some(instance)
    }

    /// An instance whose lease is over by either clock.
    pub(crate) fn pop_ended(&mut self, now: Now) -> Option<InstanceId> {
        if let Some(id) = self.ends.pop_due(now.boot) {
            return Some(id);
        }
        let &(at, id) = self.ends_by_wall.first()?;
        (at <= now.wall).then(|| {
            self.ends_by_wall.pop_first();
            id
        })
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.ends.next()
    }

    /// The instance this account already has on this device.
    pub(crate) fn predecessor(&self, hand_over: &HandOver) -> Option<InstanceId> {
        self.by_account.get(&key(&hand_over.tenant, &hand_over.device, &hand_over.account)).copied()
    }

    /// All instances of a tenant, or of one device of it, in the order of their ids.
    pub(crate) fn of_tenant(&self, tenant: &TenantId, device: Option<&str>) -> BTreeSet<InstanceId> {
        let of_device = |instance: &&Instance| device.is_none_or(|device| instance.device == device);
        let instances = self.instances.values().map(Box::as_ref);
        let ids = instances.filter(|instance| instance.tenant == *tenant).filter(of_device);
        ids.map(|instance| instance.id).collect()
    }

    /// All instances, in the order of their ids.
    pub(crate) fn all(&self) -> BTreeSet<InstanceId> {
        self.instances.keys().copied().collect()
    }

    /// The instance, if the token is its own. Constant time in the token.
    pub(crate) fn authorized(&self, id: InstanceId, token: &TokenHash) -> Option<&Instance> {
        self.get(id).filter(|instance| tokens_equal(&instance.token, token))
    }

    pub(crate) fn get(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id).map(Box::as_ref)
    }

    pub(crate) fn by_capability(&self, capability: &Capability) -> Option<&Instance> {
        self.by_capability.get(capability).and_then(|id| self.get(*id))
    }

    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }

    fn schedule(&mut self, id: InstanceId, ends: Now) {
        self.ends.set(id, Some(ends.boot));
        self.ends_by_wall.insert((ends.wall, id));
    }
}

fn ends(lease: Duration, now: Now) -> Now {
    let lease = lease.min(super::limits::LEASE_CEILING);
    Now { boot: now.boot + lease, wall: now.wall + lease }
}

fn key(tenant: &TenantId, device: &str, account: &Account) -> AccountKey {
    AccountKey {
        tenant: tenant.clone(),
        device: device.to_owned(),
        aor: account.aor.clone(),
        registrar: account.registrar.text.clone(),
    }
}
