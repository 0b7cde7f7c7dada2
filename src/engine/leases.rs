//! Leases: which instances we hold, whose they are, until when.
//!
//! Finds an instance by its id or its account, and those that share a binding by its capability; checks tokens, and tells
//! when a lease ends by either clock.
//! Holds no credential, sends nothing.

mod succession;

use std::collections::BTreeSet;
use std::time::Duration;

use ahash::{HashMap, RandomState};

use super::account::{Account, ContactStyle, TenantId};
use super::allowance::Allowance;
use super::audit::Reader;
use super::caller_key::CallerKey;
use super::ids::{BindingId, Capability, InstanceId};
use super::input::{HandOver, Preferences, PushTarget, TokenHash};
use super::instance::{Foreground, Instance};
use super::schedule::Schedule;
use super::token::{FORMER_LIFE, Token, Tokens, Which, owned_by};
use crate::clock::{Instant, Now, WallTime};

/// What an app's hand-over adds to the account: minted secrets.
pub(crate) struct Minted {
    pub(crate) salt: [u8; 32],
    pub(crate) token: Token,
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct AccountKey {
    tenant: TenantId,
    device: String,
    aor: String,
    registrar: String,
}

/// What two instances must have in common to share a binding: one address of record, reached and presented the same way.
#[derive(PartialEq, Eq)]
struct Way<'a> {
    tenant: &'a str,
    aor: &'a str,
    registrar: &'a str,
    outbound_proxy: Option<&'a str>,
    auth_username: &'a str,
    contact_style: ContactStyle,
    tls_spki_sha256: Option<&'a [u8; 32]>,
}

/// A binding as its members see it.
struct Bench {
    capability: Capability,
    /// In the order of their ids. A vector, because nearly all hold one.
    members: Vec<InstanceId>,
    /// The hash of its tenant, address of record and registrar.
    aor: u64,
}

/// The room.
#[derive(Default)]
pub(crate) struct Leases {
    /// Boxed, so that a table that grows moves pointers.
    instances: HashMap<InstanceId, Box<Instance>>,
    benches: HashMap<BindingId, Bench>,
    by_capability: HashMap<Capability, BindingId>,
    /// By the hash of tenant, address of record and registrar, the oldest first; a look-up compares the values themselves.
    by_aor: HashMap<u64, Vec<BindingId>>,
    hasher: RandomState,
    bindings: u64,
    orders: u64,
    by_account: HashMap<AccountKey, InstanceId>,
    ends: Schedule<InstanceId>,
    /// When the former tokens die: one at most for each instance.
    former_ends: Schedule<InstanceId>,
    ends_by_wall: BTreeSet<(WallTime, InstanceId)>,
}

impl Leases {
    /// Names a new binding for the account, found by `capability`; it needs a first member, or is laid off again.
    pub(crate) fn found(&mut self, tenant: &TenantId, account: &Account, capability: Capability) -> BindingId {
        self.bindings += 1;
        let id = BindingId(self.bindings);
        let aor = self.aor_hash(tenant, account);
        self.by_capability.insert(capability, id);
        self.by_aor.entry(aor).or_default().push(id);
        self.benches.insert(id, Bench { capability, members: Vec::new(), aor });
        id
    }

    /// Takes an instance in, as a member of `binding`.
    pub(crate) fn open(&mut self, id: InstanceId, hand_over: &HandOver, binding: BindingId, minted: Minted, now: Now) {
        let instance = Instance {
            id,
            tenant: hand_over.tenant.clone(),
            device: hand_over.device.clone(),
            platform: hand_over.platform.clone(),
            account: hand_over.account.clone(),
            push: hand_over.push.clone(),
            caller_key: hand_over.caller_key,
            preferences: hand_over.preferences,
            push_since: now.wall,
            binding,
            foreground: None,
            restricted: None,
            salt: minted.salt,
            handed_over: now.wall,
            trunk_drops: 0,
            recorded: Allowance::default(),
            trace_reads: Default::default(),
            lease: hand_over.lease,
            lease_ends: ends(hand_over.lease, now),
            tokens: Tokens::new(minted.token),
            order: self.next_order(),
            heir: true,
            heard: now.boot,
        };
        self.sit_down(binding, id);
        self.by_account.insert(key(&instance.tenant, &instance.device, &instance.account), id);
        self.schedule(id, instance.lease_ends);
        self.instances.insert(id, Box::new(instance));
    }

    /// Takes a newer hand-over of the same account and device in: new token, targets, preferences and lease. With `same`
    /// credentials the token used last stays until the new one has arrived; of an instance in the foreground none are held to
    /// compare with.
    pub(crate) fn renew(&mut self, id: InstanceId, hand_over: &HandOver, token: Token, same: bool, now: Now) {
        let order = self.next_order();
        let Some(instance) = self.instances.get_mut(&id) else { return };
        (instance.order, instance.heir) = (order, true);
        instance.platform.clone_from(&hand_over.platform);
        instance.account.clone_from(&hand_over.account);
        instance.preferences = hand_over.preferences;
        let keeps = same && instance.foreground.is_none();
        if !instance.tokens.replace(token, keeps) {
            self.former_ends.remove(id);
        } else if self.former_ends.at(id).is_none() {
            self.former_ends.set(id, Some(now.boot + FORMER_LIFE));
        }
        instance.foreground = None;
        instance.push.clone_from(&hand_over.push);
        instance.caller_key = hand_over.caller_key;
        instance.preferences = hand_over.preferences;
        instance.push_since = now.wall;
        instance.lease = hand_over.lease;
        self.follow_account(id);
        self.extend(id, now);
    }

    /// The lease starts anew from now.
    pub(crate) fn extend(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let former = instance.lease_ends;
        let ends = ends(instance.lease, now);
        instance.lease_ends = ends;
        instance.heard = now.boot;
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
        self.follow_account(id);
    }

    /// The instance is a member of another binding from now on; one that has no member left is forgotten.
    pub(crate) fn reseat(&mut self, id: InstanceId, binding: BindingId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let former = std::mem::replace(&mut instance.binding, binding);
        self.stand_up(former, id);
        self.sit_down(binding, id);
    }

    /// The instance has left its binding and is about to get another one.
    pub(crate) fn stand_aside(&mut self, id: InstanceId) {
        if let Some(binding) = self.get(id).map(|instance| instance.binding) {
            self.stand_up(binding, id);
        }
    }

    /// A binding that got no member after all is forgotten.
    pub(crate) fn lay_off(&mut self, binding: BindingId) {
        if self.benches.get(&binding).is_some_and(|bench| bench.members.is_empty())
            && let Some(bench) = self.benches.remove(&binding)
        {
            self.by_capability.remove(&bench.capability);
            forget_binding(&mut self.by_aor, bench.aor, binding);
        }
    }

    /// The bindings of the account that have no member yet.
    pub(crate) fn vacant(&self, tenant: &TenantId, account: &Account) -> usize {
        self.of_aor(tenant, account)
            .filter(|id| self.benches.get(id).is_some_and(|bench| bench.members.is_empty()))
            .count()
    }

    /// New preferences.
    pub(crate) fn prefer(&mut self, id: InstanceId, preferences: Preferences) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.preferences = preferences;
        }
    }

    /// The app is in the background again.
    pub(crate) fn come_back(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.foreground = None;
        }
    }

    /// The app is in the foreground, and the credentials are wiped.
    pub(crate) fn come_forward(&mut self, id: InstanceId, foreground: Foreground) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.foreground = Some(foreground);
        }
    }

    /// It is held and nothing else from now on.
    pub(crate) fn restrict(&mut self, id: InstanceId, since: WallTime) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.restricted = Some(since);
        }
    }

    /// The restriction is over.
    pub(crate) fn lift(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.restricted = None;
        }
    }

    /// New push targets.
    pub(crate) fn retarget(&mut self, id: InstanceId, push: Vec<PushTarget>, now: Now) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.push = push;
            instance.push_since = now.wall;
        }
    }

    /// Another key for the caller, or none.
    pub(crate) fn reseal(&mut self, id: InstanceId, key: Option<CallerKey>) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.caller_key = key;
        }
    }

    /// Counts a request to the capability that was dropped for its source.
    pub(crate) fn count_drop(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.trunk_drops += 1;
        }
    }

    /// Takes one of the calls an instance may make that write a record.
    ///
    /// # Errors
    /// How long to wait for the next one.
    pub(crate) fn take_allowance(&mut self, id: InstanceId, now: Instant) -> Result<(), Duration> {
        self.instances.get_mut(&id).map_or(Ok(()), |instance| instance.recorded.take(now))
    }

    /// Takes one of the readings of its trace; no reader keeps the other from his, or the device from its other calls.
    ///
    /// # Errors
    /// How long to wait for the next one.
    pub(crate) fn take_reading(&mut self, id: InstanceId, reader: Reader, now: Instant) -> Result<(), Duration> {
        let Some(instance) = self.instances.get_mut(&id) else { return Ok(()) };
        match reader {
            Reader::Device => instance.trace_reads.0.take(now),
            Reader::Tenant => instance.trace_reads.1.take(now),
        }
    }

    /// Takes an instance out, by value.
    pub(crate) fn take(&mut self, id: InstanceId) -> Option<Instance> {
        let instance = *self.instances.remove(&id)?;
        self.stand_up(instance.binding, id);
        self.by_account.remove(&key(&instance.tenant, &instance.device, &instance.account));
        self.ends.remove(id);
        self.former_ends.remove(id);
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
        [self.ends.next(), self.former_ends.next()].into_iter().flatten().min()
    }

    /// The instance this account already has on this device.
    pub(crate) fn predecessor(&self, hand_over: &HandOver) -> Option<InstanceId> {
        self.by_account.get(&key(&hand_over.tenant, &hand_over.device, &hand_over.account)).copied()
    }

    /// Whether the instance's device has another instance for that account.
    pub(crate) fn is_held_otherwise(&self, id: InstanceId, account: &Account) -> bool {
        let Some(instance) = self.get(id) else { return false };
        let holder = self.by_account.get(&key(&instance.tenant, &instance.device, account));
        holder.is_some_and(|holder| *holder != id)
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

    /// Whether the token is one of the instance's; if it is the newest, the former one dies. Takes the same time for an instance
    /// that is not here.
    pub(crate) fn admit(&mut self, id: InstanceId, token: &TokenHash) -> bool {
        let owned = owned_by(self.instances.get_mut(&id), |instance| &instance.tokens, token);
        let which = owned.map(|(_, which)| which);
        if which == Some(Which::Current) {
            self.use_token(id);
        }
        which.is_some()
    }

    /// The instance's newest token was shown.
    pub(crate) fn use_token(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.tokens.use_current();
            self.former_ends.remove(id);
        }
    }

    /// Former tokens whose time is over die.
    pub(crate) fn end_former_tokens(&mut self, now: Instant) {
        while let Some(id) = self.former_ends.pop_due(now) {
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.tokens.forget_former();
            }
        }
    }

    pub(crate) fn get(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id).map(Box::as_ref)
    }

    /// The binding a capability names.
    pub(crate) fn by_capability(&self, capability: &Capability) -> Option<BindingId> {
        self.by_capability.get(capability).copied()
    }

    /// The capability of a binding.
    pub(crate) fn capability(&self, binding: BindingId) -> Option<Capability> {
        self.benches.get(&binding).map(|bench| bench.capability)
    }

    /// The instances that share a binding, in the order of their ids.
    pub(crate) fn members(&self, binding: BindingId) -> impl Iterator<Item = &Instance> {
        self.benches.get(&binding).into_iter().flat_map(|bench| bench.members.iter()).filter_map(|id| self.get(*id))
    }

    /// The bindings a further device of the account could share, the oldest first.
    pub(crate) fn alike(&self, tenant: &TenantId, account: &Account) -> Vec<BindingId> {
        let wanted = way(tenant, account);
        let is_like = |member: &Instance| way(&member.tenant, &member.account) == wanted;
        self.of_aor(tenant, account).filter(|id| self.members(*id).next().is_some_and(is_like)).collect()
    }

    /// Whether an instance may stay in its binding with this form of its account.
    pub(crate) fn stays(&self, id: InstanceId, account: &Account) -> bool {
        self.get(id).is_some_and(|instance| way(&instance.tenant, &instance.account) == way(&instance.tenant, account))
    }

    pub(crate) fn len(&self) -> usize {
        self.instances.len()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("leases", self.instances.len()),
            ("leases.accounts", self.by_account.len()),
            ("leases.benches", self.benches.len()),
            ("leases.capabilities", self.by_capability.len()),
            ("leases.ways", self.by_aor.len()),
        ]);
    }

    /// A binding of one instance is found by the instance's account as it is now.
    fn follow_account(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get(&id) else { return };
        let Some(bench) = self.benches.get_mut(&instance.binding).filter(|bench| bench.members.len() == 1) else {
            return;
        };
        let present = aor_hash(&self.hasher, &instance.tenant, &instance.account);
        let former = std::mem::replace(&mut bench.aor, present);
        if former != present {
            forget_binding(&mut self.by_aor, former, instance.binding);
            let ids = self.by_aor.entry(present).or_default();
            ids.push(instance.binding);
            ids.sort_unstable();
        }
    }

    fn sit_down(&mut self, binding: BindingId, id: InstanceId) {
        let Some(bench) = self.benches.get_mut(&binding) else { return };
        if let Err(place) = bench.members.binary_search(&id) {
            bench.members.insert(place, id);
        }
    }

    /// An instance is no member any more; a binding without members is forgotten.
    fn stand_up(&mut self, binding: BindingId, id: InstanceId) {
        let Some(bench) = self.benches.get_mut(&binding) else { return };
        bench.members.retain(|member| *member != id);
        if bench.members.is_empty()
            && let Some(bench) = self.benches.remove(&binding)
        {
            self.by_capability.remove(&bench.capability);
            forget_binding(&mut self.by_aor, bench.aor, binding);
        }
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

fn forget_binding(by_aor: &mut HashMap<u64, Vec<BindingId>>, aor: u64, binding: BindingId) {
    if let Some(ids) = by_aor.get_mut(&aor) {
        ids.retain(|id| *id != binding);
        if ids.is_empty() {
            by_aor.remove(&aor);
        }
    }
}

fn aor_hash(hasher: &RandomState, tenant: &TenantId, account: &Account) -> u64 {
    hasher.hash_one((tenant, &account.aor, &account.registrar.text))
}

fn way<'a>(tenant: &'a TenantId, account: &'a Account) -> Way<'a> {
    Way {
        tenant,
        aor: &account.aor,
        registrar: &account.registrar.text,
        outbound_proxy: account.outbound_proxy.as_ref().map(|proxy| proxy.text.as_str()),
        auth_username: &account.auth_username,
        contact_style: account.contact_style,
        tls_spki_sha256: account.tls_spki_sha256.as_ref(),
    }
}

fn key(tenant: &TenantId, device: &str, account: &Account) -> AccountKey {
    AccountKey {
        tenant: tenant.clone(),
        device: device.to_owned(),
        aor: account.aor.clone(),
        registrar: account.registrar.text.clone(),
    }
}
