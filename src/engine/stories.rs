//! Stories: what happened to each call at each instance, step by step, for a short time.
//!
//! Its own room because steps are told by `calls` and asked for by people: the
//! device, the operator, the log. It decides nothing about a call, and it holds nothing personal: ids, steps and times.
//! Its memory is shared out by instance (`memory`), and calls that end alike one after the other are counted instead of told
//! one by one (`episodes`): a caller that calls again and again fills neither the memory nor the log.

mod episodes;
mod memory;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ahash::HashMap;

use super::ids::{CallUuid, InstanceId};
use super::limits::{Limits, share};
use super::output::{CallOutcome, Step};
use super::schedule::Schedule;
use super::story::{Moment, Story};
use super::tally::{Stage, Tally};
use crate::clock::{Instant, Now};
use episodes::Episodes;
pub(crate) use episodes::Repeated;
use memory::Shares;

/// How long a story is kept after its end: as long as `calls` remembers the call.
const ENDED_KEPT: Duration = Duration::from_secs(120);
/// How long a story without an end is kept after its last step. No call rings for so long; it bounds what a lost end costs.
const UNENDED_KEPT: Duration = Duration::from_secs(3600);
/// Steps of one story. An ordinary call has eight, and each broken flow adds four; the middle of a longer one is left out.
const STEPS_MAX: usize = 32;
/// How many of them, from the first, are never left out.
const FIRST_STEPS_KEPT: usize = STEPS_MAX / 2;
/// Room a story takes for its steps at first.
const STEPS_USUAL: usize = 8;

type Key = (InstanceId, CallUuid);

struct Kept {
    story: Story,
    began: Instant,
    over: bool,
    /// It was handed out for the log.
    told: bool,
}

/// The room.
pub(crate) struct Stories {
    next: u64,
    /// In the order in which they began.
    stories: BTreeMap<u64, Kept>,
    by_call: HashMap<Key, u64>,
    shares: Shares,
    episodes: Episodes,
    /// Until when each is kept. One that is over has minutes, any other an hour: the first that is due is the first to go.
    until: Schedule<u64>,
    /// Over since they were last asked for.
    ended: VecDeque<u64>,
    /// Instances that were offered media on a private address since they were handed over.
    private_media: BTreeSet<InstanceId>,
    /// This shard's share of `limits.stories`.
    stories_max: usize,
}

impl Stories {
    pub(crate) fn new(limits: &Limits, shards: u16) -> Self {
        Self {
            next: 0,
            stories: BTreeMap::new(),
            by_call: HashMap::default(),
            shares: Shares::default(),
            episodes: Episodes::default(),
            until: Schedule::default(),
            ended: VecDeque::new(),
            private_media: BTreeSet::new(),
            stories_max: share(limits.stories, shards),
        }
    }

    /// A step of a call. The first one begins its story, and so does an INVITE after the end of one with the same id.
    pub(crate) fn note(&mut self, instance: InstanceId, call: CallUuid, step: Step, tally: &mut Tally, now: Now) {
        let key = (instance, call);
        let known = self.by_call.get(&key).copied();
        let again = |id: &u64| step == Step::Invited && self.stories.get(id).is_some_and(|kept| kept.over);
        let id = match known {
            Some(id) if again(&id) => {
                // One that was told and stands for others stays.
                let is_told = self.stories.get(&id).is_some_and(|kept| kept.told);
                if !is_told || !self.episodes.is_led_by(id) {
                    self.forget_story(id);
                }
                self.begin(key, now)
            }
            Some(id) => id,
            None => self.begin(key, now),
        };
        let Some(kept) = self.stories.get_mut(&id) else { return };
        let after = now.boot.saturating_since(kept.began);
        if step == Step::WakeSent && !kept.story.moments.iter().any(|moment| moment.step == Step::WakeSent) {
            tally.stage(Stage::PushSent, after);
        }
        kept.add(Moment { step, after });
        if matches!(step, Step::Answered | Step::Ended(_)) && !kept.over {
            kept.over = true;
            self.end(id, step, now);
        } else if !kept.over {
            self.until.set(id, Some(now.boot + UNENDED_KEPT));
        }
    }

    /// A phone of this instance, which is held, was offered media on a private address.
    pub(crate) fn note_private_media(&mut self, instance: InstanceId) {
        self.private_media.insert(instance);
    }

    /// How the call was counted.
    pub(crate) fn note_outcome(&mut self, instance: InstanceId, call: CallUuid, outcome: CallOutcome) {
        let id = self.by_call.get(&(instance, call));
        if let Some(kept) = id.and_then(|id| self.stories.get_mut(id)) {
            kept.story.outcome = Some(outcome);
        }
    }

    /// The instance is erased. Its stories go in their own time: they name no one.
    pub(crate) fn forget(&mut self, instance: InstanceId) {
        self.private_media.remove(&instance);
    }

    /// Forgets what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.until.pop_due(now) {
            self.forget_story(id);
        }
        self.episodes.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.until.next(), self.episodes.poll_timeout()].into_iter().flatten().min()
    }

    /// Calls that were counted instead of told.
    pub(crate) fn poll_repeated(&mut self) -> Option<Repeated> {
        self.episodes.poll_repeated()
    }

    /// A story that is over and was not handed out before, once everything of the same moment is in it.
    pub(crate) fn poll_ended(&mut self) -> Option<Story> {
        loop {
            let id = self.ended.pop_front()?;
            if let Some(kept) = self.stories.get_mut(&id)
                && !std::mem::replace(&mut kept.told, true)
            {
                return Some(kept.story.clone());
            }
        }
    }

    /// The story of a call at an instance.
    pub(crate) fn of(&self, instance: InstanceId, call: CallUuid) -> Option<&Story> {
        self.by_call.get(&(instance, call)).and_then(|id| self.stories.get(id)).map(|kept| &kept.story)
    }

    /// The calls of an instance that have a story.
    pub(crate) fn calls_of(&self, instance: InstanceId) -> Vec<CallUuid> {
        self.shares.of(instance).filter_map(|id| self.stories.get(&id)).map(|kept| kept.story.call).collect()
    }

    /// The newest stories first, `most` of them; with `call`, only that call's.
    pub(crate) fn newest(&self, call: Option<CallUuid>, most: usize) -> Vec<Story> {
        let stories = self.stories.values().rev().map(|kept| &kept.story);
        stories.filter(|story| call.is_none_or(|call| story.call == call)).take(most).cloned().collect()
    }

    /// Whether a phone of the instance was offered media on a private address.
    pub(crate) fn private_media(&self, instance: InstanceId) -> bool {
        self.private_media.contains(&instance)
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("stories", self.stories.len()),
            ("stories.ended", self.ended.len()),
            ("stories.episodes", self.episodes.len()),
            ("stories.private_media", self.private_media.len()),
        ]);
    }

    fn begin(&mut self, key: Key, now: Now) -> u64 {
        let (instance, call) = key;
        while let Some(crowded) = self.shares.to_shrink(instance, self.stories.len(), self.stories_max) {
            // One that is over goes first, and among those the one that has been over longest.
            let Some(first) = self.shares.of(crowded).min_by_key(|id| (self.until.at(*id), *id)) else { break };
            self.forget_story(first);
        }
        self.next += 1;
        let id = self.next;
        let moments = Vec::with_capacity(STEPS_USUAL);
        let story = Story { instance, call, began: now.wall, moments, omitted: 0, outcome: None, repeated: 0 };
        self.stories.insert(id, Kept { story, began: now.boot, over: false, told: false });
        self.shares.add(instance, id);
        self.by_call.insert(key, id);
        id
    }

    /// A story is over: told, or counted with those before it that ended alike.
    fn end(&mut self, id: u64, step: Step, now: Now) {
        let Some(Kept { story, .. }) = self.stories.get(&id) else { return };
        let (instance, call) = (story.instance, story.call);
        let leader = match step {
            Step::Ended(reason) => self.episodes.add((instance, reason), call, id, story.is_untouched(), now.boot),
            _ => None,
        };
        let Some(leader) = leader else {
            self.ended.push_back(id);
            return self.until.set(id, Some(now.boot + ENDED_KEPT));
        };
        self.forget_story(id);
        self.until.set(leader, Some(now.boot + ENDED_KEPT));
        let Some(kept) = self.stories.get_mut(&leader) else { return };
        kept.story.repeated = kept.story.repeated.saturating_add(1);
        if kept.story.call == call {
            self.by_call.insert((instance, call), leader);
        }
    }

    fn forget_story(&mut self, id: u64) {
        self.until.remove(id);
        self.episodes.end_of(id);
        let Some(kept) = self.stories.remove(&id) else { return };
        self.shares.remove(kept.story.instance, id);
        let key = (kept.story.instance, kept.story.call);
        if self.by_call.get(&key) == Some(&id) {
            self.by_call.remove(&key);
        }
    }
}

impl Kept {
    fn add(&mut self, moment: Moment) {
        let moments = &mut self.story.moments;
        // A phone that is refused tries again and again; once is enough to know.
        if moments.last().is_some_and(|last| last.step == moment.step) {
            self.story.omitted = self.story.omitted.saturating_add(1);
            return;
        }
        if moments.len() >= STEPS_MAX {
            moments.remove(FIRST_STEPS_KEPT);
            self.story.omitted = self.story.omitted.saturating_add(1);
        }
        moments.push(moment);
    }
}

#[cfg(test)]
mod tests;
