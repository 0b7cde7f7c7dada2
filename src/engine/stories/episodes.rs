//! Episodes: calls to one instance that end for the same reason, one soon after the other.
//!
//! A caller can repeat most refusals at will, so only the first calls of an episode keep a story: one where the device was not
//! involved, `OWN_STORIES_MAX` where it was. The others are counted in the first one's story, and a note with their number goes
//! out once a minute at most. Each episode belongs to a story that is kept, so there are never more episodes than stories. This
//! part keeps no stories and writes no log.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;

use crate::clock::Instant;
use crate::engine::ids::{CallUuid, InstanceId};
use crate::engine::schedule::Schedule;

/// Calls of one episode with stories of their own, where the device was woken for them or got their INVITEs.
const OWN_STORIES_MAX: u32 = 10;
/// The pause between two notes of one episode. An episode without a counted call for so long is over.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Whose calls, and for which reason they ended.
type Key = (InstanceId, &'static str);

/// Calls that were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated {
    pub(crate) instance: InstanceId,
    /// The first of the episode: its story counts them all.
    pub(crate) call: CallUuid,
    pub(crate) reason: &'static str,
    /// How many since the last word of them.
    pub(crate) count: u32,
}

struct Episode {
    /// The story that stands for those that have none.
    leader: u64,
    call: CallUuid,
    own: u32,
    /// Counted since the last note.
    untold: u32,
}

/// The episodes of one shard.
#[derive(Default)]
pub(super) struct Episodes {
    episodes: HashMap<Key, Episode>,
    by_leader: HashMap<u64, Key>,
    schedule: Schedule<Key>,
    repeated: VecDeque<Repeated>,
}

impl Episodes {
    /// A call is over. Given back: the story that counts it, where it gets none of its own.
    pub(super) fn add(&mut self, key: Key, call: CallUuid, story: u64, untouched: bool, now: Instant) -> Option<u64> {
        let Some(episode) = self.episodes.get_mut(&key) else {
            self.episodes.insert(key, Episode { leader: story, call, own: 1, untold: 0 });
            self.by_leader.insert(story, key);
            self.schedule.set(key, Some(now + TOLD_EVERY));
            return None;
        };
        if episode.own < if untouched { 1 } else { OWN_STORIES_MAX } {
            episode.own += 1;
            return None;
        }
        episode.untold = episode.untold.saturating_add(1);
        Some(episode.leader)
    }

    pub(super) fn is_led_by(&self, story: u64) -> bool {
        self.by_leader.contains_key(&story)
    }

    /// A story is forgotten, and the episode it stands for ends with it.
    pub(super) fn end_of(&mut self, story: u64) {
        let Some(key) = self.by_leader.remove(&story) else { return };
        self.schedule.remove(key);
        if let Some(mut episode) = self.episodes.remove(&key) {
            self.repeated.extend(episode.tell(key));
        }
    }

    /// Notes what was counted, and ends episodes in which nothing was.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.schedule.pop_due(now) {
            let Some(episode) = self.episodes.get_mut(&key) else { continue };
            let told = episode.tell(key);
            if told.is_some() {
                self.repeated.extend(told);
                self.schedule.set(key, Some(now + TOLD_EVERY));
            } else if let Some(episode) = self.episodes.remove(&key) {
                self.by_leader.remove(&episode.leader);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(super) fn poll_repeated(&mut self) -> Option<Repeated> {
        self.repeated.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.episodes.len()
    }
}

impl Episode {
    fn tell(&mut self, (instance, reason): Key) -> Option<Repeated> {
        let count = std::mem::take(&mut self.untold);
        (count > 0).then_some(Repeated { instance, call: self.call, reason, count })
    }
}
