//! Calls that are over, as far as their devices may still ask: what became of each, and for phones whose call screen only
//! SIP can close, the INVITE they never got.
//!
//! Everything here lives for `ENDED_KEPT` at most and is bounded by instance and by shard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Instant;
use crate::engine::ids::{CallUuid, InstanceId};
use crate::engine::output::{CallState, CallView};
use crate::engine::schedule::Schedule;
use crate::sip::{Message, Transport};

/// How long an ended call is remembered, for a phone that attaches late.
pub(super) const ENDED_KEPT: Duration = Duration::from_secs(120);
/// Ended calls remembered for one instance; the oldest is forgotten first.
const ENDED_PER_INSTANCE_MAX: usize = 16;

type Key = (InstanceId, CallUuid);

/// A call that is over, as far as its device may ask.
pub(super) struct Ended {
    pub(super) state: CallState,
    pub(super) reason: &'static str,
    /// The device was woken for it.
    pub(super) woken: bool,
    /// Its user declined there.
    pub(super) declined: bool,
}

/// An INVITE for a device that was woken and never got it.
pub(super) struct Late {
    pub(super) request: Message,
    pub(super) source: SocketAddr,
    pub(super) transport: Transport,
    /// The Reason of the CANCEL that follows it.
    pub(super) reason: Option<&'static str>,
}

/// The ended calls of one shard.
pub(super) struct EndedCalls {
    calls: BTreeMap<Key, Ended>,
    until: Schedule<Key>,
    late: BTreeMap<Key, Late>,
    /// INVITEs kept at most; above it a phone only hears that its call is over.
    late_max: usize,
}

impl EndedCalls {
    pub(super) fn new(late_max: usize) -> Self {
        Self { calls: BTreeMap::new(), until: Schedule::default(), late: BTreeMap::new(), late_max }
    }

    /// Remembers a call, in the place of what was known of it.
    pub(super) fn add(&mut self, key: Key, ended: Ended, late: Option<Late>, now: Instant) {
        self.forget(key);
        let known: Vec<Key> = self.of_instance(key.0).map(|(key, _)| *key).collect();
        if known.len() >= ENDED_PER_INSTANCE_MAX
            && let Some(oldest) = known.into_iter().min_by_key(|key| self.until.at(*key))
        {
            self.forget(oldest);
        }
        self.calls.insert(key, ended);
        self.until.set(key, Some(now + ENDED_KEPT));
        if let Some(late) = late.filter(|_| self.late.len() < self.late_max) {
            self.late.insert(key, late);
        }
    }

    /// The call goes on, or a new one has its name.
    pub(super) fn forget(&mut self, key: Key) {
        self.calls.remove(&key);
        self.until.remove(key);
        self.late.remove(&key);
    }

    /// Takes the INVITEs that wait for a device: each is sent once.
    pub(super) fn take_late(&mut self, instance: InstanceId) -> Vec<(CallUuid, Late)> {
        let keys: Vec<Key> = range(&self.late, instance).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| Some((key.1, self.late.remove(&key)?))).collect()
    }

    /// Drops the late INVITEs of earlier attempts of this call. A phone takes one of those and the INVITE of the new attempt
    /// for copies (RFC 3261 §8.2.2.2) and refuses one of them. The 200 to its REGISTER says that the earlier attempt is over.
    pub(super) fn forget_late(&mut self, instance: InstanceId, call_id: &[u8]) {
        let same = |late: &Late| late.request.call_id().ok() == Some(call_id);
        let keys: Vec<Key> = range(&self.late, instance).filter(|(_, late)| same(late)).map(|(key, _)| *key).collect();
        for key in keys {
            self.late.remove(&key);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.until.pop_due(now) {
            self.forget(key);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until.next()
    }

    /// Whether its user declined the call.
    pub(super) fn is_declined(&self, key: Key) -> bool {
        self.calls.get(&key).is_some_and(|ended| ended.declined)
    }

    pub(super) fn view(&self, key: Key) -> Option<CallView> {
        let ended = self.calls.get(&key)?;
        Some(CallView::new(ended.state, Some(ended.reason).filter(|reason| !reason.is_empty())))
    }

    /// What an attaching device should hear of calls it was woken for: `UUID;state=ended;reason=…`.
    pub(super) fn news(&self, instance: InstanceId) -> Vec<String> {
        self.of_instance(instance)
            .filter(|(_, ended)| ended.woken && ended.state == CallState::Ended)
            .map(|((_, uuid), ended)| format!("{uuid};state=ended;reason={}", ended.reason))
            .collect()
    }

    /// The calls an instance may still ask for.
    pub(super) fn uuids(&self, instance: InstanceId) -> impl Iterator<Item = CallUuid> {
        self.of_instance(instance).map(|(key, _)| key.1)
    }

    /// Calls remembered, and INVITEs kept for late phones.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.calls.len(), self.late.len())
    }

    fn of_instance(&self, instance: InstanceId) -> impl Iterator<Item = (&Key, &Ended)> {
        range(&self.calls, instance)
    }
}

fn range<T>(map: &BTreeMap<Key, T>, instance: InstanceId) -> impl Iterator<Item = (&Key, &T)> {
    let first = (instance, CallUuid(uuid::Uuid::nil()));
    let last = (instance, CallUuid(uuid::Uuid::max()));
    map.range(first..=last)
}
