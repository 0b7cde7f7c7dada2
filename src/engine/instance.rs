//! An instance as the rooms hand it to one another: `leases` holds it, `wakes` looks at it, `erasures` takes it over.

use std::time::Duration;

use super::account::{Account, TenantId};
use super::allowance::Allowance;
use super::caller_key::CallerKey;
use super::ids::{BindingId, InstanceId};
use super::input::{Preferences, PushTarget};
use super::token::Tokens;
use crate::clock::{Instant, Now, WallTime};

/// One account on one device, held under a lease.
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) tenant: TenantId,
    pub(crate) device: String,
    pub(crate) platform: String,
    pub(crate) account: Account,
    pub(crate) push: Vec<PushTarget>,
    /// What the caller is sealed to.
    pub(crate) caller_key: Option<CallerKey>,
    /// How the app wants it kept.
    pub(crate) preferences: Preferences,
    /// When the push targets were last handed to us: older news of a dead token is no news.
    pub(crate) push_since: WallTime,
    /// The registration it is reached by; other devices of the account may share it.
    pub(crate) binding: BindingId,
    /// Whether its app is in the foreground and the credentials are wiped.
    pub(crate) foreground: Option<Foreground>,
    /// Since when it is held and nothing else.
    pub(crate) restricted: Option<WallTime>,
    /// Links the id to its records; dies with the instance.
    pub(crate) salt: [u8; 32],
    pub(crate) handed_over: WallTime,
    pub(crate) trunk_drops: u64,
    /// Calls with its token that write a record.
    pub(super) recorded: Allowance,
    /// Readings of its trace, which are recorded too: by its device, and by its tenant.
    pub(super) trace_reads: (Allowance, Allowance),
    /// How long the lease is whenever it starts anew.
    pub(super) lease: Duration,
    pub(super) lease_ends: Now,
    pub(super) tokens: Tokens,
    /// Grows with each hand-over and change of the shard's instances: the newest speaks for its push token.
    pub(super) order: u64,
    /// It may take the place of older instances of its phone, and its account or its push token is not proven yet.
    pub(super) heir: bool,
    /// When its app was last heard of: by a call that is recorded, or attached.
    pub(super) heard: Instant,
}

impl Instance {
    /// When the lease ends, by both clocks.
    pub(crate) fn lease_ends(&self) -> Now {
        self.lease_ends
    }

    /// The date of the lease's end, by whichever clock is first. A wall clock that was set back makes it no later.
    pub(crate) fn lease_ends_on(&self, now: Now) -> WallTime {
        ends_on(self.lease_ends, now)
    }
}

/// What became of the binding when the app came to the foreground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreground {
    /// Removed at the registrar, or left to the devices that share it: calls are not this instance's any more.
    Released,
    /// Left at the registrar until its granted expiry: calls go on reaching it.
    Kept,
}

/// The date of an end that either clock may bring.
pub(crate) fn ends_on(ends: Now, now: Now) -> WallTime {
    ends.wall.min(now.wall + ends.boot.saturating_since(now.boot))
}
