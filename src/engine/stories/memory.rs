//! How the memory of calls is shared out: no instance has more than its own part, and where all is taken the one that has most
//! gives way.

use std::collections::BTreeSet;

use ahash::HashMap;

use crate::engine::ids::InstanceId;

/// Calls of one instance with a story of their own; above it the one that is forgotten first anyway gives way.
pub(super) const PER_INSTANCE_MAX: usize = 64;

/// How many stories each instance has.
#[derive(Default)]
pub(super) struct Shares {
    of_instance: HashMap<InstanceId, BTreeSet<u64>>,
    /// By how many they have.
    by_size: BTreeSet<(usize, InstanceId)>,
}

impl Shares {
    pub(super) fn add(&mut self, instance: InstanceId, story: u64) {
        let stories = self.of_instance.entry(instance).or_default();
        let before = stories.len();
        stories.insert(story);
        self.by_size.remove(&(before, instance));
        self.by_size.insert((stories.len(), instance));
    }

    pub(super) fn remove(&mut self, instance: InstanceId, story: u64) {
        let Some(stories) = self.of_instance.get_mut(&instance) else { return };
        self.by_size.remove(&(stories.len(), instance));
        stories.remove(&story);
        if stories.is_empty() {
            self.of_instance.remove(&instance);
        } else {
            self.by_size.insert((stories.len(), instance));
        }
    }

    /// The stories of an instance, the oldest first.
    pub(super) fn of(&self, instance: InstanceId) -> impl Iterator<Item = u64> {
        self.of_instance.get(&instance).into_iter().flatten().copied()
    }

    /// The instance that loses a story before `newcomer` gets one more: `newcomer` itself where no other has more, so that
    /// calls to one instance never push out those of a quieter one.
    pub(super) fn to_shrink(&self, newcomer: InstanceId, held: usize, most: usize) -> Option<InstanceId> {
        let own = self.of_instance.get(&newcomer).map_or(0, BTreeSet::len);
        if own >= PER_INSTANCE_MAX {
            return Some(newcomer);
        }
        if held < most {
            return None;
        }
        let &(size, largest) = self.by_size.last()?;
        Some(if own == size { newcomer } else { largest })
    }
}
