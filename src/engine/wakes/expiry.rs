//! When a device is told that its lease ends: its app in silence first, then the user twice.
//!
//! Both clocks count, as they do for the lease itself. A notice whose time has passed because of a jump is not caught up
//! with: of those that are due at once only the last one goes out.

use std::collections::BTreeSet;
use std::time::Duration;

use ahash::HashMap;

use super::super::ids::InstanceId;
use crate::clock::{Instant, Now, WallTime};

const HOUR: Duration = Duration::from_secs(3600);

/// How long before the lease's end, and whether the user sees it. The last must come last.
const STEPS: [Step; 3] = [
    // The app can refresh the lease by itself, if the system lets it run.
    Step { before: HOUR.saturating_mul(24), visible: false },
    Step { before: HOUR.saturating_mul(12), visible: true },
    Step { before: HOUR, visible: true },
];

struct Step {
    before: Duration,
    visible: bool,
}

/// A device is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) instance: InstanceId,
    pub(crate) ends: Now,
    pub(crate) visible: bool,
}

/// The leases whose devices are still to be told.
#[derive(Default)]
pub(super) struct Expiry {
    leases: HashMap<InstanceId, Lease>,
    by_boot: BTreeSet<(Instant, InstanceId)>,
    by_wall: BTreeSet<(WallTime, InstanceId)>,
}

#[derive(Clone, Copy)]
struct Lease {
    ends: Now,
    /// The place in [`STEPS`] of the next notice.
    next: usize,
}

impl Expiry {
    /// Tells before `ends`, which a lease of this length has. A step counts only in the second half of a lease: nobody
    /// is reminded of what was just done, and a lease under two hours passes without a word.
    pub(super) fn watch(&mut self, instance: InstanceId, lease: Duration, ends: Now, now: Now) {
        self.forget(instance);
        let ahead = |step: &Step| {
            let at = ahead_of(ends, step.before);
            step.before.saturating_mul(2) <= lease && at.boot > now.boot && at.wall > now.wall
        };
        if let Some(next) = STEPS.iter().position(ahead) {
            self.insert(instance, Lease { ends, next });
        }
    }

    pub(super) fn forget(&mut self, instance: InstanceId) {
        if let Some(lease) = self.leases.remove(&instance) {
            let at = lease.at();
            self.by_boot.remove(&(at.boot, instance));
            self.by_wall.remove(&(at.wall, instance));
        }
    }

    /// A notice that is due by either clock.
    pub(super) fn pop(&mut self, now: Now) -> Option<Notice> {
        let by_boot = self.by_boot.first().filter(|(at, _)| *at <= now.boot).map(|(_, id)| *id);
        let by_wall = || self.by_wall.first().filter(|(at, _)| *at <= now.wall).map(|(_, id)| *id);
        let instance = by_boot.or_else(by_wall)?;
        let mut lease = *self.leases.get(&instance)?;
        self.forget(instance);
        let mut step = &STEPS[lease.next];
        loop {
            lease.next += 1;
            let Some(later) = STEPS.get(lease.next) else { break };
            let at = lease.at();
            if at.boot > now.boot && at.wall > now.wall {
                self.insert(instance, lease);
                break;
            }
            step = later;
        }
        Some(Notice { instance, ends: lease.ends, visible: step.visible })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.by_boot.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    fn insert(&mut self, instance: InstanceId, lease: Lease) {
        let at = lease.at();
        self.by_boot.insert((at.boot, instance));
        self.by_wall.insert((at.wall, instance));
        self.leases.insert(instance, lease);
    }
}

impl Lease {
    /// When its next notice is due.
    fn at(&self) -> Now {
        ahead_of(self.ends, STEPS[self.next].before)
    }
}

/// So long before a moment, by both clocks.
fn ahead_of(moment: Now, span: Duration) -> Now {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Now {
        boot: Instant::from_nanos(moment.boot.as_nanos().saturating_sub(nanos)),
        wall: WallTime::from_unix_millis(moment.wall.unix_millis().saturating_sub(millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ids::ShardId;
    use super::*;

    const START: Now = Now { boot: Instant::from_nanos(7), wall: WallTime::from_unix_millis(1_795_291_200_000) };
    const MINUTE: Duration = Duration::from_secs(60);

    fn later(span: Duration) -> Now {
        Now { boot: START.boot + span, wall: START.wall + span }
    }

    fn instance() -> InstanceId {
        InstanceId::mint(ShardId(0), [1; 16])
    }

    fn watched(lease: Duration) -> Expiry {
        let mut expiry = Expiry::default();
        expiry.watch(instance(), lease, later(lease), START);
        expiry
    }

    /// How long before the end each notice comes, and whether it is seen.
    fn notices(lease: Duration) -> Vec<(Duration, bool)> {
        let mut expiry = watched(lease);
        let mut told = Vec::new();
        while let Some(at) = expiry.poll_timeout() {
            let now = later(at.saturating_since(START.boot));
            let notice = expiry.pop(now).expect("it is due");
            told.push((notice.ends.boot.saturating_since(now.boot), notice.visible));
        }
        assert_eq!((expiry.by_boot.len(), expiry.by_wall.len(), expiry.len()), (0, 0, 0));
        told
    }

    #[test]
    fn the_app_is_told_a_day_ahead_and_the_user_twelve_hours_and_one_hour_ahead() {
        assert_eq!(notices(HOUR * 72), [(HOUR * 24, false), (HOUR * 12, true), (HOUR, true)]);
    }

    #[test]
    fn a_short_lease_is_told_of_in_its_second_half_only() {
        assert_eq!(notices(HOUR * 47), [(HOUR * 12, true), (HOUR, true)]);
        assert_eq!(notices(HOUR * 23), [(HOUR, true)]);
        assert_eq!(notices(HOUR * 2), [(HOUR, true)]);
        assert_eq!(notices(HOUR * 2 - MINUTE), []);
    }

    #[test]
    fn of_notices_that_are_due_at_once_the_last_one_goes_out() {
        let mut expiry = watched(HOUR * 72);
        let jumped = Now { wall: START.wall + HOUR * 61, ..later(MINUTE) };
        let notice = expiry.pop(jumped).expect("by the wall clock");
        assert!(notice.visible);
        assert_eq!(expiry.pop(jumped), None);
        assert_eq!(expiry.poll_timeout(), Some(START.boot + HOUR * 71));
    }

    #[test]
    fn a_lease_that_starts_anew_is_told_of_by_its_new_end_alone() {
        let mut expiry = watched(HOUR * 72);
        let renewed = later(HOUR * 40);
        expiry.watch(instance(), HOUR * 72, later(HOUR * 112), renewed);
        assert_eq!(expiry.pop(later(HOUR * 87)), None);
        assert!(expiry.pop(later(HOUR * 88)).is_some_and(|notice| !notice.visible));
        expiry.forget(instance());
        assert_eq!((expiry.pop(later(HOUR * 111)), expiry.len()), (None, 0));
    }

    #[test]
    fn a_lease_watched_again_late_is_told_of_what_is_still_ahead() {
        let mut expiry = Expiry::default();
        expiry.watch(instance(), HOUR * 72, later(HOUR * 72), later(HOUR * 59));
        assert_eq!(expiry.poll_timeout(), Some(START.boot + HOUR * 60));
    }
}
