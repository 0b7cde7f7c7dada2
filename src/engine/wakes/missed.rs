//! Missed calls: which of them are told one by one, and which by one push that sums them up.
//!
//! A caller can cause missed calls without end, so only the first are told at once and those that follow are counted: the
//! device learns of all of them, and its user is not disturbed by each. There is one sum for an instance at most. This part
//! sends nothing.

use std::time::Duration;

use ahash::HashMap;

use crate::clock::Instant;
use crate::engine::ids::{CallUuid, InstanceId};
use crate::engine::output::Caller;
use crate::engine::schedule::Schedule;

/// Missed calls that are told by a push of their own before further ones are summed up.
pub(super) const AT_ONCE_MAX: u32 = 3;
/// How long a sum grows before its push goes out, at least.
const SUMMED_FOR: Duration = Duration::from_secs(10);

/// Calls that were missed.
pub(crate) struct Missed {
    /// How many.
    pub(crate) count: u32,
    /// The last of them.
    pub(crate) call: CallUuid,
    /// Who called last, if the tenant wants it told.
    pub(crate) caller: Option<Caller>,
}

/// The sums of one shard.
#[derive(Default)]
pub(super) struct Sums {
    sums: HashMap<InstanceId, Missed>,
    due: Schedule<InstanceId>,
}

impl Sums {
    pub(super) fn has(&self, instance: InstanceId) -> bool {
        self.sums.contains_key(&instance)
    }

    /// Counts a missed call in. `allowed`: when the instance's budget has room for a push.
    pub(super) fn add(&mut self, instance: InstanceId, missed: Missed, allowed: Instant, now: Instant) {
        let count = self.sums.get(&instance).map_or(0, |sum| sum.count).saturating_add(missed.count);
        if self.sums.insert(instance, Missed { count, ..missed }).is_none() {
            self.due.set(instance, Some(allowed.max(now + SUMMED_FOR)));
        }
    }

    /// Takes a sum that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(InstanceId, Missed)> {
        let instance = self.due.pop_due(now)?;
        Some((instance, self.sums.remove(&instance)?))
    }

    pub(super) fn forget(&mut self, instance: InstanceId) {
        self.sums.remove(&instance);
        self.due.remove(instance);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.next()
    }

    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::ShardId;

    #[test]
    fn a_sum_tells_how_many_and_the_last_and_waits_for_the_budget() {
        let (mut sums, start) = (Sums::default(), Instant::from_nanos(0));
        let instance = |number: u8| InstanceId::mint(ShardId(0), [number; 16]);
        let missed = |number: u128| Missed {
            count: 1,
            call: CallUuid(uuid::Uuid::from_u128(number)),
            caller: Some(Caller { name: None, number: number.to_string() }),
        };
        let second = Duration::from_secs(1);
        for number in 1..=3 {
            sums.add(instance(1), missed(number), start, start + second);
        }
        sums.add(instance(2), missed(9), start + second * 60, start + second);
        assert_eq!((sums.len(), sums.poll_timeout()), (2, Some(start + second * 11)));
        assert!(sums.pop(start + second * 10).is_none());
        let (whose, sum) = sums.pop(start + second * 11).expect("a sum");
        assert_eq!((whose, sum.count, sum.call), (instance(1), 3, missed(3).call));
        assert!(sum.caller == missed(3).caller, "the last caller");
        assert_eq!(sums.poll_timeout(), Some(start + second * 60), "as the budget says");
        sums.forget(instance(2));
        assert_eq!((sums.len(), sums.poll_timeout()), (0, None));
    }
}
