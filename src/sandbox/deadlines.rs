//! Who is due next, without looking at all of them, and the wait for it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::clock::{self, Instant};

/// At most one deadline for each key, in order.
pub(crate) struct Deadlines<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: HashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Deadlines<K> {
    pub(crate) fn new() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }

    /// Replaces the key's deadline; `None` takes it away.
    pub(crate) fn set(&mut self, key: K, due: Option<Instant>) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
        if let Some(due) = due {
            self.by_key.insert(key, due);
            self.by_time.insert((due, key));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Takes out one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (due, key) = *self.by_time.first()?;
        if due > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_key.remove(&key);
        Some(key)
    }
}

/// The earlier of two deadlines, each of which may be "never".
pub(crate) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Sleeps until then; for ever if there is no deadline.
pub(crate) async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_since(clock::now().boot)).await,
        None => std::future::pending().await,
    }
}
