//! Calls: INVITEs that wait for a sleeping phone, and everything that follows inside their dialogs.
//!
//! A call enters when an INVITE reaches a capability, and leaves with exactly one final response. This room decides when
//! and with what to answer and where to forward; it does not know how a phone is woken (`wakes`), where it reappears
//! (`edge`) or what an account is. SDP is bytes it never reads.

mod allowance;
mod dialogs;
mod farewells;
mod forward;
mod held;
mod in_dialog;
mod outgoing;
mod relay;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;

use allowance::Allowance;
use dialogs::Dialogs;
use farewells::Farewells;
pub(crate) use held::Incoming;
use held::{Ended, Held, MergeKey};
pub(crate) use in_dialog::Passing;
pub(crate) use outgoing::{Outside, Towards};
use relay::{Cancel, Relay, RelayId};

use super::device::Device;
use super::ids::{BranchId, CallUuid, Capability, FlowId, InstanceId, ShardId, WakeId};
use super::input::{Arrival, Decline, DeclineReason};
use super::limits::{Limits, share};
use super::output::{CallOutcome, CallState, CallView, Caller, Hop, Note, Step, WakeDetail, WakeKind};
use super::policy::Policy;
use super::random::Random;
use super::route_token::Mint;
use super::schedule::Schedule;
use super::tags::Tags;
use super::tally::{Stage, Tally};
use crate::clock::Instant;
use crate::sip::proxy::{self, Reply};
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::transaction::{ServerKey, cancels};
use crate::sip::{Message, StatusCode};

/// How long an ended call is remembered, for a phone that attaches late.
const ENDED_KEPT: Duration = Duration::from_secs(120);
/// Ended calls remembered for one instance; the oldest is forgotten first.
const ENDED_PER_INSTANCE_MAX: usize = 16;
/// RFC 3261 §16.6 step 11: Timer C must be larger than three minutes.
const TIMER_C: Duration = Duration::from_secs(181);

/// What this room asks of the engine.
pub(crate) enum Event {
    Send(Hop, Bytes),
    /// Send this wake; the answer comes through `handle_wake_sent`.
    Wake(WakeWanted),
    /// The device does not answer on its flow.
    Silent(InstanceId),
    /// The instance has no dialog any more.
    LastDialog(InstanceId),
    /// A step of a call's story.
    #[expect(dead_code, reason = "told by the next change")]
    Step(InstanceId, CallUuid, Step),
    Note(Note),
}

/// A wake for a call.
pub(crate) struct WakeWanted {
    pub(crate) call: RelayId,
    pub(crate) instance: InstanceId,
    pub(crate) kind: WakeKind,
    pub(crate) uuid: CallUuid,
    pub(crate) caller: Option<Caller>,
    pub(crate) until: Instant,
    pub(crate) detail: WakeDetail,
}

/// What this room borrows from its shard.
pub(crate) struct Desk<'a> {
    pub(crate) shard: ShardId,
    pub(crate) policy: &'a Policy,
    pub(crate) random: &'a mut Random,
    pub(crate) tally: &'a mut Tally,
    pub(crate) tags: &'a Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// A transaction of the relay.
    Transaction,
    /// `calls.hold`.
    Hold,
    /// `calls.silence`.
    Silence,
    /// RFC 3261 §16.8.
    C,
    /// 64·T1 after a CANCEL (RFC 3261 §9.1).
    Cancel,
}

/// The room.
pub(crate) struct Calls {
    next: u64,
    relays: HashMap<RelayId, Relay>,
    held: HashMap<RelayId, Held>,
    by_key: HashMap<ServerKey, RelayId>,
    by_branch: HashMap<BranchId, RelayId>,
    by_merge: HashMap<MergeKey, RelayId>,
    by_instance: HashMap<InstanceId, BTreeSet<RelayId>>,
    by_wake: HashMap<WakeId, RelayId>,
    by_early_contact: HashMap<Capability, RelayId>,
    ended: BTreeMap<(InstanceId, CallUuid), Ended>,
    ended_until: Schedule<(InstanceId, CallUuid)>,
    dialogs: Dialogs,
    farewells: Farewells,
    /// This shard's share of `limits.held_calls`.
    held_max: usize,
    /// Requests on their way at once: this shard's share of `limits.held_calls` and `limits.dialogs`; above it the process
    /// is full.
    relays_max: usize,
    schedule: Schedule<(RelayId, Timer)>,
    events: VecDeque<Event>,
}

impl Calls {
    pub(crate) fn new(mint: Mint, limits: &Limits, shards: u16) -> Self {
        Self {
            next: 0,
            relays: HashMap::default(),
            held: HashMap::default(),
            by_key: HashMap::default(),
            by_branch: HashMap::default(),
            by_merge: HashMap::default(),
            by_instance: HashMap::default(),
            by_wake: HashMap::default(),
            by_early_contact: HashMap::default(),
            ended: BTreeMap::new(),
            ended_until: Schedule::default(),
            dialogs: Dialogs::new(mint, share(limits.dialogs, shards)),
            farewells: Farewells::default(),
            held_max: share(limits.held_calls, shards),
            relays_max: share(limits.held_calls.saturating_add(limits.dialogs), shards),
            schedule: Schedule::default(),
            events: VecDeque::new(),
        }
    }

    /// A request that belongs to a server transaction we have: a retransmission, an ACK to our final, a CANCEL. `false`:
    /// it belongs to none.
    pub(crate) fn handle_known(&mut self, request: &Message, arrival: &Arrival, back: &Hop, now: Instant) -> bool {
        use crate::sip::Method;
        let key = match request.method() {
            Some(Method::Cancel) => ServerKey::of_cancelled(request),
            _ => ServerKey::of(request),
        };
        let Some(&id) = key.ok().and_then(|key| self.by_key.get(&key)) else { return false };
        let Some(relay) = self.relays.get_mut(&id) else { return false };
        match request.method() {
            Some(Method::Ack) => {
                let relay::Server::Invite(server) = &mut relay.server else { return false };
                if !server.handle_ack(now) {
                    return false;
                }
                // It bears the tag of our answer: the source is where it says.
                relay.allowance = Allowance::PROVEN;
                self.settle(id, now);
            }
            Some(Method::Cancel) => {
                self.handle_cancel(id, request, arrival, back, now);
            }
            _ => {
                let again = relay.answer_again(request, now);
                let back = relay.back.clone();
                self.events.extend(again.map(|bytes| Event::Send(back, bytes)));
            }
        }
        true
    }

    /// The instance is being erased: held calls end, dialogs go on.
    pub(crate) fn end_instance(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        for id in self.of_instance(instance) {
            let waiting = self.held.get(&id).is_some_and(|held| !held.is_answered());
            if waiting {
                self.cancel_leg(id, None, now);
                self.refuse(id, StatusCode::TEMPORARILY_UNAVAILABLE, now);
                self.finish(id, CallOutcome::Erased, "erased", desk, now);
            }
        }
    }

    /// The device declines over HTTPS. `false`: no such call, or it is over.
    pub(crate) fn decline(
        &mut self,
        instance: InstanceId,
        uuid: CallUuid,
        decline: Decline,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(id) = self.find_call(instance, uuid) else { return false };
        if self.held.get(&id).is_none_or(Held::is_answered) || self.relays.get(&id).is_none_or(Relay::is_answered) {
            return false;
        }
        let code = match decline.reason {
            DeclineReason::Busy | DeclineReason::Decline if decline.everywhere => StatusCode::DECLINE,
            DeclineReason::Busy | DeclineReason::Decline => StatusCode::BUSY_HERE,
            DeclineReason::Unavailable => StatusCode::TEMPORARILY_UNAVAILABLE,
        };
        self.cancel_leg(id, None, now);
        self.refuse(id, code, now);
        self.finish(id, CallOutcome::Declined, "declined", desk, now);
        true
    }

    /// A call as its device may see it.
    pub(crate) fn view(&self, instance: InstanceId, uuid: CallUuid) -> Option<CallView> {
        if let Some(ended) = self.ended.get(&(instance, uuid)) {
            return Some(CallView {
                state: ended.state,
                reason: Some(ended.reason).filter(|reason| !reason.is_empty()),
            });
        }
        let held = self.held.get(&self.find_call(instance, uuid)?)?;
        Some(CallView { state: held.state(), reason: None })
    }

    /// What an attaching device should hear of calls it was woken for: `UUID;state=ended;reason=…`.
    pub(crate) fn news(&self, instance: InstanceId) -> Vec<String> {
        let first = (instance, CallUuid(uuid::Uuid::nil()));
        self.ended
            .range(first..)
            .take_while(|((of, _), _)| *of == instance)
            .filter(|(_, ended)| ended.woken && ended.state == CallState::Ended)
            .map(|((_, uuid), ended)| format!("{uuid};state=ended;reason={}", ended.reason))
            .collect()
    }

    pub(crate) fn handle_flow_closed(&mut self, flow: FlowId) {
        self.dialogs.handle_flow_closed(flow);
    }

    /// Calls held now.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether requests inside calls of the instance may still come.
    pub(crate) fn has_dialogs(&self, instance: InstanceId) -> bool {
        self.dialogs.has_any(instance)
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.dialogs.pop_emptied().map(Event::LastDialog))
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.schedule.next(), self.dialogs.poll_timeout(), self.farewells.poll_timeout(), self.ended_until.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("calls.relays", self.relays.len()),
            ("calls.held", self.held.len()),
            ("calls.keys", self.by_key.len()),
            ("calls.branches", self.by_branch.len()),
            ("calls.merges", self.by_merge.len()),
            ("calls.instances", self.by_instance.len()),
            ("calls.wakes", self.by_wake.len()),
            ("calls.early_contacts", self.by_early_contact.len()),
            ("calls.ended", self.ended.len()),
            ("calls.dialogs", self.dialogs.len()),
            ("calls.farewells", self.farewells.len()),
        ]);
    }

    fn find_call(&self, instance: InstanceId, uuid: CallUuid) -> Option<RelayId> {
        let ids = self.by_instance.get(&instance)?;
        ids.iter().copied().find(|id| self.held.get(id).is_some_and(|held| held.uuid == uuid))
    }

    fn of_instance(&self, instance: InstanceId) -> Vec<RelayId> {
        self.by_instance.get(&instance).map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }

    fn mint_relay(&mut self) -> RelayId {
        self.next += 1;
        RelayId(self.next)
    }

    /// Answers upstream with a final of our own, unless there is one already.
    fn refuse(&mut self, id: RelayId, code: StatusCode, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if relay.is_answered() {
            return;
        }
        if let Some(bytes) = relay.answer(code, false, &[], now) {
            let back = relay.back.clone();
            self.events.push_back(Event::Send(back, bytes));
        }
        self.settle(id, now);
    }

    fn handle_cancel(&mut self, id: RelayId, cancel: &Message, arrival: &Arrival, back: &Hop, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let meant = cancels(cancel, &relay.request);
        let code = if meant { StatusCode::OK } else { StatusCode::CALL_DOES_NOT_EXIST };
        let mut out = Vec::with_capacity(256);
        let reply =
            Reply { code, to_tag: Some(&relay.tag), source: Some(arrival.peer), record_route: false, extra: &[] };
        relay.allowance.earn(cancel);
        if proxy::write_reply(cancel, &reply, &mut out).is_ok() && relay.allowance.spend(out.len()) {
            self.events.push_back(Event::Send(back.clone(), Bytes::from(out)));
        }
        if !meant || relay.is_answered() {
            return;
        }
        let reason =
            cancel.header(crate::sip::HeaderName::Reason).map(|value| String::from_utf8_lossy(value).into_owned());
        if let Some(held) = self.held.get_mut(&id) {
            held.cancelled = Some(held::cancel_reason(reason.as_deref()));
        }
        if self.relays.get(&id).is_some_and(|relay| relay.leg.is_some()) {
            self.cancel_leg(id, reason, now);
        } else {
            // Due at once: the final is given where a tally is at hand.
            self.schedule.set((id, Timer::Cancel), Some(now));
        }
    }

    /// Cancels what was forwarded: now if the device has answered provisionally, else when it does.
    fn cancel_leg(&mut self, id: RelayId, reason: Option<String>, now: Instant) {
        let Some(leg) = self.relays.get_mut(&id).and_then(|relay| relay.leg.as_mut()) else { return };
        if leg.client.is_over() || !matches!(leg.cancel, Cancel::No) {
            return;
        }
        leg.cancel = Cancel::Wanted(reason);
        self.schedule.set((id, Timer::Cancel), Some(now + TRANSACTION_TIMEOUT));
        if matches!(&leg.client, relay::Client::Invite(client) if client.is_proceeding()) {
            self.send_cancel(id, now);
        }
    }

    /// Sends the CANCEL that was wanted.
    fn send_cancel(&mut self, id: RelayId, now: Instant) {
        let Some(leg) = self.relays.get_mut(&id).and_then(|relay| relay.leg.as_mut()) else { return };
        let Cancel::Wanted(reason) = &leg.cancel else { return };
        let mut out = Vec::with_capacity(384);
        if proxy::write_cancel(&leg.request, reason.as_deref(), &mut out).is_err() {
            return;
        }
        let bytes = Bytes::from(out);
        let reliable = !matches!(leg.hop, Hop::Datagram { .. });
        let client = crate::sip::transaction::NonInviteClient::new(bytes.clone(), reliable, None, now);
        leg.cancel = Cancel::Sent(Box::new(client));
        self.schedule.set((id, Timer::Cancel), Some(now + TRANSACTION_TIMEOUT));
        let hop = leg.hop.clone();
        self.events.push_back(Event::Send(hop, bytes));
        self.reschedule(id);
    }

    /// The call has its final: counted, told, remembered for late phones.
    fn finish(&mut self, id: RelayId, outcome: CallOutcome, reason: &'static str, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.remove(&id) else { return };
        let Some(relay) = self.relays.get(&id) else { return };
        let instance = relay.instance;
        let dialog = relay.dialog;
        if let Some(ids) = self.by_instance.get_mut(&instance) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_instance.remove(&instance);
            }
        }
        for timer in [Timer::Hold, Timer::Silence, Timer::C] {
            self.schedule.remove((id, timer));
        }
        if let Some(wake) = held.wake_id {
            self.by_wake.remove(&wake);
        }
        desk.tally.call(outcome);
        self.events.push_back(Event::Note(Note::CallEnded(held.uuid, instance, outcome)));
        let answered = outcome == CallOutcome::Answered;
        if let (false, Some(dialog)) = (answered, dialog) {
            self.dialogs.end(dialog, now);
        }
        let woken = held.was_woken();
        let reached = relay.leg.as_ref().is_some_and(|leg| leg.client.is_heard());
        if woken && !reached && outcome == CallOutcome::Cancelled {
            self.events.push_back(Event::Wake(WakeWanted {
                call: id,
                instance,
                kind: WakeKind::CallEnded,
                uuid: held.uuid,
                caller: None,
                until: now + ENDED_KEPT,
                detail: WakeDetail::Ended(reason),
            }));
        }
        let state = if answered { CallState::Answered } else { CallState::Ended };
        self.remember(instance, held.uuid, Ended { state, reason, woken }, now);
        desk_stage(desk, answered, held.invited, now);
    }

    fn remember(&mut self, instance: InstanceId, uuid: CallUuid, ended: Ended, now: Instant) {
        let first = (instance, CallUuid(uuid::Uuid::nil()));
        let known: Vec<_> =
            self.ended.range(first..).map(|(key, _)| *key).take_while(|(of, _)| *of == instance).collect();
        if known.len() >= ENDED_PER_INSTANCE_MAX
            && let Some(oldest) = known.into_iter().min_by_key(|key| self.ended_until.at(*key))
        {
            self.ended.remove(&oldest);
            self.ended_until.remove(oldest);
        }
        self.ended.insert((instance, uuid), ended);
        self.ended_until.set((instance, uuid), Some(now + ENDED_KEPT));
    }

    /// Removes a relay that has nothing left to absorb, or sets its next deadline.
    fn settle(&mut self, id: RelayId, now: Instant) {
        let over = self.relays.get(&id).is_some_and(Relay::is_over) && !self.held.contains_key(&id);
        if over {
            self.remove(id);
        } else {
            let _ = now;
            self.reschedule(id);
        }
    }

    fn reschedule(&mut self, id: RelayId) {
        let due = self.relays.get(&id).and_then(Relay::poll_timeout);
        self.schedule.set((id, Timer::Transaction), due);
    }

    fn remove(&mut self, id: RelayId) {
        let Some(relay) = self.relays.remove(&id) else { return };
        for timer in [Timer::Transaction, Timer::Hold, Timer::Silence, Timer::C, Timer::Cancel] {
            self.schedule.remove((id, timer));
        }
        if let Ok(key) = ServerKey::of(&relay.request) {
            self.by_key.remove(&key);
        }
        if let Some(branch) = &relay.branch {
            self.by_branch.remove(branch);
        }
        if let Some(merge) = &relay.merge {
            self.by_merge.remove(merge);
        }
        if let Some(contact) = &relay.early_contact {
            self.by_early_contact.remove(contact);
        }
    }
}

fn desk_stage(desk: &mut Desk<'_>, answered: bool, invited: Instant, now: Instant) {
    if answered {
        desk.tally.stage(Stage::Answered, now.saturating_since(invited));
    }
}
