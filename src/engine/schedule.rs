//! An ordered index of deadlines: the next one is read, never searched for.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Duration;

use ahash::HashMap;

use super::random::Random;
use crate::clock::Instant;

/// RFC 5626 §4.5: the first pause after a failure; each further one doubles it.
const BACKOFF_FIRST: Duration = Duration::from_secs(30);
/// RFC 5626 §4.5: no pause is longer.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1800);

/// At most one deadline for each key.
pub(crate) struct Schedule<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: HashMap<K, Instant>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::default() }
    }
}

impl<K: Copy + Ord + Hash> Schedule<K> {
    /// Moves the deadline of `key`; `None` takes it away.
    pub(crate) fn set(&mut self, key: K, at: Option<Instant>) {
        if self.by_key.get(&key).copied() == at {
            return;
        }
        self.remove(key);
        if let Some(at) = at {
            self.by_key.insert(key, at);
            self.by_time.insert((at, key));
        }
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// Takes the earliest key that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_key.remove(&key);
        Some(key)
    }

    /// Takes the earliest key, due or not.
    pub(crate) fn pop_first(&mut self) -> Option<K> {
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// The deadline of `key`.
    pub(crate) fn at(&self, key: K) -> Option<Instant> {
        self.by_key.get(&key).copied()
    }

    /// Whether `key` has a deadline.
    pub(crate) fn has(&self, key: K) -> bool {
        self.by_key.contains_key(&key)
    }

    /// How many deadlines there are.
    pub(crate) fn len(&self) -> usize {
        self.by_time.len()
    }
}

/// The pause before try number `step` (from 0): capped, doubled, 50–100 % of it by chance.
pub(crate) fn backoff(step: u32, random: &mut Random) -> Duration {
    let full = BACKOFF_FIRST.saturating_mul(1 << step.min(10)).min(BACKOFF_MAX);
    random.jitter(full, 50, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_deadline_fires_once_at_its_new_time() {
        let mut schedule = Schedule::default();
        schedule.set(7, Some(Instant::from_nanos(10)));
        schedule.set(8, Some(Instant::from_nanos(30)));
        schedule.set(7, Some(Instant::from_nanos(20)));

        assert_eq!(schedule.next(), Some(Instant::from_nanos(20)));
        assert_eq!(schedule.pop_due(Instant::from_nanos(19)), None);
        assert_eq!(schedule.pop_due(Instant::from_nanos(25)), Some(7));
        assert_eq!(schedule.pop_due(Instant::from_nanos(25)), None);
        assert_eq!(schedule.len(), 1);
    }
}
