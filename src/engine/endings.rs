//! Many ends at once: leases that run out together, a tenant that leaves, a shutdown.
//!
//! Each erasure that begins costs some ten microseconds, so a hundred thousand of them would keep calls waiting for a
//! second or two. A turn begins so many and no more, and the next turn follows at once.

use std::collections::BTreeMap;

use super::audit::Cause;
use super::engine::Engine;
use super::ids::InstanceId;
use crate::clock::{Instant, Now};

/// How many erasures of the kind begin in one turn: a few milliseconds' worth.
const BEGUN_MAX: usize = 256;

/// Instances that are about to be erased.
#[derive(Default)]
pub(super) struct Endings {
    condemned: BTreeMap<InstanceId, Cause>,
    /// More are due: since when.
    due: Option<Instant>,
}

impl Endings {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// How many have not begun.
    pub(super) fn len(&self) -> usize {
        self.condemned.len()
    }
}

impl Engine {
    /// Erases all these, some in each of the next turns. What was condemned before keeps its cause.
    pub(super) fn condemn(&mut self, instances: impl IntoIterator<Item = InstanceId>, cause: Cause, now: Now) {
        for instance in instances {
            self.endings.condemned.entry(instance).or_insert(cause);
        }
        if !self.endings.condemned.is_empty() {
            self.endings.due = Some(now.boot);
        }
    }

    /// Begins the erasures that are due, leases that ended first.
    pub(super) fn begin_endings(&mut self, now: Now) {
        for _ in 0..BEGUN_MAX {
            let ended = self.leases.pop_ended(now).map(|instance| (instance, Cause::LeaseEnded));
            let Some((instance, cause)) = ended.or_else(|| self.endings.condemned.pop_first()) else {
                self.endings.due = None;
                return;
            };
            // It may have ended otherwise meanwhile.
            if self.leases.get(instance).is_some() {
                self.erase(instance, cause, None, now);
            }
        }
        // There may be more, by the wall clock too, which no other deadline knows.
        self.endings.due = Some(now.boot);
    }
}
