//! Permits: turns of requests at a registrar's address. What asks for one, how urgent it is, and what came of it.
//!
//! Shared by the rooms that ask (`bindings`, `erasures`, `mailboxes`) and the one that grants (`destinations`), and part of what
//! shards say to each other. It decides nothing.

use std::time::Duration;

use super::ids::{BindingId, InstanceId};
use super::output::DestinationKey;
use crate::clock::Instant;

/// Why a request wants to go, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// An un-REGISTER.
    Removal,
    /// The refresh of a registration that holds; the one that ends first goes first.
    Refresh,
    /// A registration that is over, or other credentials for one that is held.
    Renewal,
    /// An account's first registration; tenants take turns.
    First,
    /// A SUBSCRIBE, or the end of a subscription.
    Subscription,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Removal, Self::Refresh, Self::Renewal, Self::First, Self::Subscription];
}

/// A turn that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want {
    /// Why.
    pub class: Class,
    /// For first registrations: whose, as the tenant's place in the policy; else 0.
    pub tenant: u16,
    /// By when, in whole seconds of the boot clock.
    pub due: u32,
}

impl Want {
    /// Wanted by then.
    pub(crate) fn new(class: Class, tenant: u16, due: Instant) -> Self {
        let due = u32::try_from(due.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX);
        Self { class, tenant: if class == Class::First { tenant } else { 0 }, due }
    }
}

/// What waits for a turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Asker {
    /// A binding's next REGISTER.
    Binding(BindingId),
    /// Other credentials for a binding.
    Trial(BindingId),
    /// The un-REGISTER of an instance that is being erased.
    Erasure(InstanceId),
    /// The un-REGISTER of a binding that was left.
    Departure(BindingId),
    /// The un-REGISTER of a binding whose credentials are wiped already.
    Farewell(BindingId),
    /// A SUBSCRIBE.
    Subscription(InstanceId),
    /// The end of a subscription.
    Unsubscription(InstanceId),
}

/// What a destination did with one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitOutcome {
    /// It answered validly.
    Answered,
    /// It answered 503, and asked everyone to stay away for a while.
    RetryAfter(Duration),
    /// It did not answer, or could not be reached, for an account that is registered there; this long after the request.
    Silent(Duration),
    /// The same, for an account that is not registered there. The account itself may be the cause: the registrar's
    /// certificate may not bear the name it was looked up by, or the registrar may drop its requests.
    SilentToNewcomer,
    /// Nothing is known: the exchange was not begun, or not ended.
    Unused,
}

/// A turn that was granted.
#[derive(Clone, Copy)]
pub(crate) struct Permit {
    /// Where to.
    pub(crate) destination: DestinationKey,
    /// What for.
    pub(crate) class: Class,
    /// Whether the destination has ever answered validly.
    pub(crate) proven: bool,
}

/// What became of a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What it was for.
    pub class: Class,
    /// What the destination did.
    pub outcome: PermitOutcome,
    /// Requests that were sent on it; retransmissions do not count.
    pub requests: u8,
}

impl Used {
    /// Given back.
    pub(crate) const fn unused(class: Class) -> Self {
        Self { class, outcome: PermitOutcome::Unused, requests: 0 }
    }
}

/// What shards say to each other about turns at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitMessage {
    /// To the home shard: an exchange wants to go there.
    Wanted(Want),
    /// To the home shard: one that waited does not want it any more.
    Unwanted(Want),
    /// From the home shard: that many may go now.
    Granted {
        /// What for.
        class: Class,
        /// Whose, for first registrations.
        tenant: u16,
        /// How many.
        count: u32,
        /// Whether the destination has ever answered validly.
        proven: bool,
    },
    /// From the home shard: no further accounts can be kept registered there.
    Refused {
        /// Whose.
        tenant: u16,
        /// How many that wait.
        count: u32,
        /// When to ask again.
        after: Duration,
    },
    /// From the home shard: the destination is silent, and nothing goes there for a while.
    Withheld,
    /// To the home shard: what became of a permit.
    Used(Used),
    /// To the home shard: so many requests went without a permit, and are to be paid for.
    Sent(u8),
    /// To the home shard: what is kept registered there changed by so many millionths of a refresh a second.
    Load {
        /// Whose.
        tenant: u16,
        /// More, or less.
        change: i64,
    },
}

/// No binding is refreshed more often, however short its expiry.
const REFRESH_LEAST: Duration = Duration::from_secs(15);

/// What keeping a registration costs that is granted for so long: millionths of a refresh a second.
pub(crate) fn load_of(granted: Duration) -> u64 {
    let between = (granted * 4 / 5).max(REFRESH_LEAST);
    1_000_000_000 / u64::try_from(between.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// A destination, as a log may name it: no further accounts can be kept registered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded {
    /// Which.
    pub destination: DestinationKey,
    /// Requests a second that what is held there needs.
    pub need: u32,
    /// The most requests a second it may get.
    pub rate_max: u32,
}
