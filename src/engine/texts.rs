//! Text messages: SIP MESSAGE outside a dialog (RFC 3428), passed straight on to an attached device, kept sealed for one
//! that sleeps.
//!
//! A MESSAGE enters when it reaches a capability, and its sender gets one answer: the device's own, where a live flow
//! answers in time, else 202 once it is kept. What is kept waits in the order of its arrival until its device attaches,
//! its time is over or its instance is erased. This room does not know how a device is woken (`wakes`) or where it
//! reappears (`edge`); it opens what it kept only while the device is being told.

mod delivery;
mod inbox;
mod keeping;
mod passing;
mod succession;
mod transit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ahash::HashMap;
use aws_lc_rs::hmac;
use bytes::Bytes;

use inbox::Inbox;
use transit::{MergeKey, Origin, Transit};

use super::device::Device;
use super::ids::{BranchId, InstanceId, ShardId};
use super::input::Arrival;
use super::limits::{Limits, share};
use super::output::Hop;
use super::policy::Policy;
use super::random::Random;
use super::schedule::Schedule;
use super::tags::Tags;
use super::tally::{Tally, TextOutcome};
use crate::clock::{Instant, Now};
use crate::sip::instant::{Content, content};
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::transaction::ServerKey;
use crate::sip::{Message, StatusCode};
use crate::vault::Vault;

/// How long a live flow may be silent before the sender gets 202 and the device a wake: two retransmissions, and well
/// before the sender's timer F.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an answered message is remembered, so that its copies are not taken for new ones (timer J).
const LINGER: Duration = TRANSACTION_TIMEOUT;
/// Copies of one message (same Call-ID, CSeq and From tag, another branch) that wait for its answer; more get 482.
const COPIES_MAX: usize = 4;
/// Header fields of a message that is kept, in bytes, beside `limits.message_bytes` of body; above it 413.
const HEAD_BYTES_MAX: usize = 4096;

/// What this room asks of the engine.
pub(crate) enum Event {
    Send(Hop, Bytes),
    /// Wake the device: something waits for it. What became of it comes through `handle_wake`.
    Wake(InstanceId),
    /// The device does not answer on this flow.
    Silent(InstanceId, Hop),
}

/// What this room borrows from its shard.
pub(crate) struct Desk<'a> {
    pub(crate) shard: ShardId,
    pub(crate) policy: &'a Policy,
    pub(crate) random: &'a mut Random,
    pub(crate) vault: &'a mut Vault,
    pub(crate) tally: &'a mut Tally,
    pub(crate) tags: &'a Tags,
}

/// A MESSAGE to a capability, and everyone it is for.
pub(crate) struct Incoming<'a> {
    pub(crate) request: Message,
    pub(crate) arrival: &'a Arrival,
    pub(crate) back: Hop,
    /// The instances behind the capability: each gets it.
    pub(crate) recipients: Vec<Recipient>,
    /// The process is about to end: nothing is taken any more.
    pub(crate) draining: bool,
}

/// One instance a MESSAGE is for.
pub(crate) struct Recipient {
    pub(crate) instance: InstanceId,
    /// Where its device is now, if it is attached.
    pub(crate) device: Option<Device>,
}

/// Names a message in its shard; grows with each one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct TextId(u64);

/// What a response is for.
#[derive(Clone, Copy)]
enum Awaited {
    /// A message that is being passed on to this instance.
    Leg(TextId, InstanceId),
    /// One that was kept.
    Delivery(InstanceId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Deadline {
    Transit(TextId),
    Inbox(InstanceId),
}

/// The room.
pub(crate) struct Texts {
    next: u64,
    merge_key: hmac::Key,
    transits: BTreeMap<TextId, Transit>,
    /// Answered, with nothing under way: the oldest gives way to a new one.
    idle: BTreeSet<TextId>,
    by_merge: HashMap<MergeKey, TextId>,
    inboxes: HashMap<InstanceId, Inbox>,
    by_branch: HashMap<BranchId, Awaited>,
    /// Messages kept, or on their way to a device that may yet be silent.
    held: usize,
    /// This shard's share of `limits.messages`.
    held_max: usize,
    schedule: Schedule<Deadline>,
    events: VecDeque<Event>,
}

impl Texts {
    pub(crate) fn new(merge_key: [u8; 32], limits: &Limits, shards: u16) -> Self {
        Self {
            next: 0,
            merge_key: hmac::Key::new(hmac::HMAC_SHA256, &merge_key),
            transits: BTreeMap::new(),
            idle: BTreeSet::new(),
            by_merge: HashMap::default(),
            inboxes: HashMap::default(),
            by_branch: HashMap::default(),
            held: 0,
            held_max: share(limits.messages, shards),
            schedule: Schedule::default(),
            events: VecDeque::new(),
        }
    }

    /// A MESSAGE outside a dialog.
    pub(crate) fn handle_message(&mut self, incoming: Incoming<'_>, desk: &mut Desk<'_>, now: Now) {
        let Incoming { request, arrival, back, recipients, draining } = incoming;
        let (Ok(key), Some(first)) = (ServerKey::of(&request), recipients.first()) else { return };
        let merge = MergeKey::of(&request, first.instance, &self.merge_key);
        let owner = first.instance;
        let origin = Origin::new(request, arrival, back);
        if let Some(&known) = self.by_merge.get(&merge) {
            return self.handle_again(known, &key, origin, desk);
        }
        if let Err((code, outcome)) = judge(&origin.request, draining, desk) {
            desk.tally.text(outcome);
            return self.reply(&origin, code, desk);
        }
        if !self.make_room(owner, desk.policy) {
            desk.tally.text(TextOutcome::Limited);
            return self.reply(&origin, StatusCode::TEMPORARILY_UNAVAILABLE, desk);
        }
        self.next += 1;
        let id = TextId(self.next);
        let until = now.boot + life(&origin.request, desk.policy);
        let transit = Transit::new(key, merge, owner, origin, until, desk.random, now);
        self.by_merge.insert(transit.merge, id);
        self.transits.insert(id, transit);
        self.inboxes.entry(owner).or_default().transits.insert(id);
        for recipient in recipients {
            self.take_on(id, recipient, desk, now.boot);
        }
        self.conclude(id, desk, now.boot);
    }

    /// One recipient of a new message: passed on where its device listens and nothing waits before it, else kept.
    fn take_on(&mut self, id: TextId, recipient: Recipient, desk: &mut Desk<'_>, now: Instant) {
        let Recipient { instance, device } = recipient;
        let inbox = self.inboxes.entry(instance).or_default();
        let is_full = inbox.held() >= per_instance(desk.policy) || self.held >= self.held_max;
        match device.filter(|_| inbox.waiting.is_empty()) {
            _ if is_full => desk.tally.text(TextOutcome::Limited),
            Some(device) => self.pass(id, instance, &device, desk, now),
            None => self.keep(id, instance, desk, now),
        }
        self.tidy(instance);
    }

    /// The same message again: a retransmission, or a copy that came by another way.
    fn handle_again(&mut self, id: TextId, key: &ServerKey, origin: Origin, desk: &mut Desk<'_>) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        let same = transit.key == *key;
        match &transit.answer {
            Some((_, bytes)) if same => {
                let bytes = bytes.clone();
                self.send_back(&origin, bytes);
            }
            Some((code, _)) => {
                let code = *code;
                self.reply(&origin, code, desk);
            }
            // Its answer is on its way.
            None if same => {}
            None if transit.copies.len() < COPIES_MAX => transit.copies.push(origin),
            None => self.reply(&origin, StatusCode::LOOP_DETECTED, desk),
        }
    }

    /// A response whose branch may be ours. `false`: it is not.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(&awaited) = self.by_branch.get(&branch) else { return false };
        let Some(code) = response.status() else { return true };
        match awaited {
            Awaited::Leg(id, instance) => self.handle_leg_response(id, instance, response, code, desk, now),
            Awaited::Delivery(instance) => self.handle_delivery_response(instance, code, desk, now),
        }
        true
    }

    /// The instance is being erased: what waits for it is wiped, whoever is just telling it something hears 480.
    pub(crate) fn forget(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(inbox) = self.inboxes.get_mut(&instance) else { return };
        let legs: Vec<TextId> = inbox.legs.iter().copied().collect();
        let delivery = inbox.delivery.take();
        let waiting = std::mem::take(&mut inbox.waiting);
        if let Some(delivery) = delivery {
            self.by_branch.remove(&delivery.branch);
            passing::wipe(delivery.client.into_request());
        }
        self.held -= waiting.len();
        for text in waiting {
            desk.vault.discard(text.sealed);
            desk.tally.text(TextOutcome::Erased);
        }
        for id in legs {
            self.drop_leg(id, instance);
            self.conclude(id, desk, now);
        }
        self.reschedule_inbox(instance);
        self.tidy(instance);
    }

    /// What became of the wake we asked for: one that did not go out, or did not arrive, is asked for again with the next
    /// message.
    pub(crate) fn handle_wake(&mut self, instance: InstanceId, accepted: bool) {
        if let Some(inbox) = self.inboxes.get_mut(&instance)
            && !accepted
        {
            inbox.woken = false;
        }
        self.tidy(instance);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, desk: &mut Desk<'_>, now: Instant) {
        while let Some(deadline) = self.schedule.pop_due(now) {
            match deadline {
                Deadline::Transit(id) => self.handle_transit_timeout(id, desk, now),
                Deadline::Inbox(instance) => self.handle_inbox_timeout(instance, desk, now),
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Messages that wait for an instance's device.
    pub(crate) fn waiting(&self, instance: InstanceId) -> usize {
        self.inboxes.get(&instance).map_or(0, |inbox| inbox.waiting.len())
    }

    /// Messages kept, or on their way to a device that may yet be silent.
    pub(crate) fn len(&self) -> usize {
        self.held
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("texts.held", self.held),
            ("texts.inboxes", self.inboxes.len()),
            ("texts.transits", self.transits.len()),
            ("texts.merges", self.by_merge.len()),
            ("texts.branches", self.by_branch.len()),
        ]);
    }

    /// Whether one more message may be under way for `owner`; those that are only remembered give way, the oldest first.
    fn make_room(&mut self, owner: InstanceId, policy: &Policy) -> bool {
        let own = self.inboxes.get(&owner).map(|inbox| &inbox.transits);
        if own.is_some_and(|own| own.len() >= per_instance(policy).saturating_mul(2)) {
            let oldest = own.and_then(|own| own.iter().copied().find(|id| self.idle.contains(id)));
            let Some(oldest) = oldest else { return false };
            self.remove_transit(oldest);
        }
        if self.transits.len() >= self.held_max.saturating_mul(2) {
            let Some(oldest) = self.idle.pop_first() else { return false };
            self.remove_transit(oldest);
        }
        true
    }

    fn remove_transit(&mut self, id: TextId) {
        self.idle.remove(&id);
        self.schedule.remove(Deadline::Transit(id));
        let Some(transit) = self.transits.remove(&id) else { return };
        self.by_merge.remove(&transit.merge);
        let owner = transit.owner;
        for leg in transit.legs.values() {
            self.by_branch.remove(&leg.branch);
        }
        if let Some(inbox) = self.inboxes.get_mut(&owner) {
            inbox.transits.remove(&id);
        }
        self.tidy(owner);
    }

    /// Forgets an inbox that holds nothing.
    fn tidy(&mut self, instance: InstanceId) {
        if self.inboxes.get(&instance).is_some_and(Inbox::is_empty) {
            self.inboxes.remove(&instance);
        }
    }

    fn wake(&mut self, instance: InstanceId) {
        let Some(inbox) = self.inboxes.get_mut(&instance) else { return };
        if inbox.wants_wake() {
            inbox.woken = true;
            self.events.push_back(Event::Wake(instance));
        }
    }
}

/// Whether a message may be taken at all.
fn judge(request: &Message, draining: bool, desk: &Desk<'_>) -> Result<(), (StatusCode, TextOutcome)> {
    let body_max = usize::try_from(desk.policy.limits.message_bytes).unwrap_or(usize::MAX);
    let head = request.bytes().len() - request.body().len();
    if request.body().len() > body_max || head > HEAD_BYTES_MAX {
        return Err((StatusCode::REQUEST_ENTITY_TOO_LARGE, TextOutcome::TooLarge));
    }
    if draining {
        return Err((StatusCode::TEMPORARILY_UNAVAILABLE, TextOutcome::Limited));
    }
    Ok(())
}

/// How long a message may wait: as long as its sender and the operator want it to.
fn life(request: &Message, policy: &Policy) -> Duration {
    let wanted = request.expires().ok().flatten().map(|seconds| Duration::from_secs(u64::from(seconds)));
    policy.messages_keep.min(wanted.unwrap_or(policy.messages_keep))
}

fn per_instance(policy: &Policy) -> usize {
    usize::try_from(policy.limits.messages_per_instance).unwrap_or(usize::MAX)
}

/// What a device's final answer means for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It has it.
    Taken,
    /// It never wants it.
    Refused,
    /// Not now.
    Later,
}

fn fate(code: StatusCode) -> Fate {
    match code.code() {
        200..=299 => Fate::Taken,
        // A time-out, a failed flow (RFC 5626 §11.6) and a fault of the device are no verdict.
        408 | 430 | 500..=599 => Fate::Later,
        _ => Fate::Refused,
    }
}

/// Whether nobody is to be woken for it.
fn is_quiet(request: &Message) -> bool {
    content(request) != Content::Text
}

#[cfg(test)]
mod tests;
