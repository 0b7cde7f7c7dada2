//! Which instances belong to one phone, which of them is the newest, and which device of an account has been idle longest.

use std::time::Duration;

use super::{Leases, aor_hash};
use crate::clock::{Instant, Now};
use crate::engine::account::{Account, TenantId};
use crate::engine::ids::{BindingId, InstanceId};
use crate::engine::input::{PushPurpose, PushTarget};
use crate::engine::instance::Instance;

impl Leases {
    /// The instance was changed by its app: it is the newest of its phone's.
    pub(crate) fn claim(&mut self, id: InstanceId) {
        let order = self.next_order();
        if let Some(instance) = self.instances.get_mut(&id) {
            (instance.order, instance.heir) = (order, true);
        }
    }

    /// The instance has taken every place it may take.
    pub(crate) fn settle_heir(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.heir = false;
        }
    }

    /// The app gave a sign of life.
    pub(crate) fn hear(&mut self, id: InstanceId, now: Instant) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.heard = now;
        }
    }

    /// Older instances of the same tenant, account and push target for calls, in the order of their bindings and ids: the
    /// same phone's. Accounts reached through another proxy or with another certificate are not the same, since the answer of
    /// one registrar says nothing about credentials for the other.
    pub(crate) fn forerunners(&self, id: InstanceId) -> Vec<InstanceId> {
        let Some(newest) = self.get(id) else { return Vec::new() };
        let Some(target) = call_target(&newest.push) else { return Vec::new() };
        let is_forerunner = |older: &&Instance| {
            older.id != id
                && older.order < newest.order
                && older.tenant == newest.tenant
                && is_same(&older.account, &newest.account)
                && call_target(&older.push) == Some(target)
        };
        let bindings = self.of_aor(&newest.tenant, &newest.account);
        bindings.flat_map(|binding| self.members(binding)).filter(is_forerunner).map(|older| older.id).collect()
    }

    /// The member of a binding that is not attached and whose app has given no sign of life for `span`; the longest idle one.
    pub(crate) fn idlest(
        &self,
        binding: BindingId,
        span: Duration,
        is_attached: impl Fn(InstanceId) -> bool,
        now: Instant,
    ) -> Option<InstanceId> {
        let is_idle = |member: &&Instance| now.saturating_since(member.heard) >= span && !is_attached(member.id);
        let idle = self.members(binding).filter(is_idle).min_by_key(|member| (member.heard, member.order));
        idle.map(|member| member.id)
    }

    /// How many members of a binding are other phones than the one with these push targets.
    pub(crate) fn others(&self, binding: BindingId, push: &[PushTarget]) -> usize {
        let target = call_target(push);
        self.members(binding).filter(|member| call_target(&member.push) != target).count()
    }

    /// How long until the first lease of a binding's members ends, by whichever clock is first.
    pub(crate) fn first_end(&self, binding: BindingId, now: Now) -> Option<Duration> {
        let left = |member: &Instance| {
            let ends = member.lease_ends();
            let by_wall = ends.wall.unix_millis().saturating_sub(now.wall.unix_millis());
            ends.boot.saturating_since(now.boot).min(Duration::from_millis(by_wall))
        };
        self.members(binding).map(left).min()
    }

    /// The bindings of a tenant's address of record at a registrar, the oldest first; others with the same hash among them.
    pub(super) fn of_aor(&self, tenant: &TenantId, account: &Account) -> impl Iterator<Item = BindingId> {
        self.by_aor.get(&self.aor_hash(tenant, account)).into_iter().flatten().copied()
    }

    pub(super) fn aor_hash(&self, tenant: &TenantId, account: &Account) -> u64 {
        aor_hash(&self.hasher, tenant, account)
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }
}

/// Where calls are pushed to: what tells one phone from another.
fn call_target(push: &[PushTarget]) -> Option<&PushTarget> {
    push.iter().find(|target| target.purpose == PushPurpose::Call)
}

fn is_same(a: &Account, b: &Account) -> bool {
    a.aor == b.aor
        && a.registrar == b.registrar
        && a.outbound_proxy == b.outbound_proxy
        && a.tls_spki_sha256 == b.tls_spki_sha256
}
