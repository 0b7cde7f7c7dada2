//! Calls: INVITEs that wait for a sleeping phone, and everything that follows inside their dialogs.
//!
//! A call enters when an INVITE reaches a capability, and leaves with exactly one final response. This room decides when
//! and with what to answer and where to forward; it does not know how a phone is woken (`wakes`), where it reappears
//! (`edge`) or what an account is. SDP is bytes it never reads.

mod allowance;
mod best;
mod callee;
mod dialogs;
mod ended;
mod farewells;
mod fork;
mod forward;
mod held;
mod in_dialog;
mod leg;
mod media_address;
mod naming;
mod orphans;
mod outgoing;
mod refused;
mod relay;
mod succession;
#[cfg(test)]
mod tests;
mod timers;
mod waking;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;

use allowance::Allowance;
use best::Best;
pub(crate) use callee::Callee;
use callee::Why;
use dialogs::Dialogs;
use ended::{Ended, EndedCalls};
use farewells::Farewells;
pub(crate) use held::Incoming;
use held::{Held, MergeKey};
pub(crate) use in_dialog::{Inside, Passing};
use naming::Naming;
use orphans::Orphans;
pub(crate) use outgoing::{Outside, Towards};
use refused::Refused;
use relay::{Relay, RelayId};

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
use crate::sip::transaction::{ServerKey, cancels};
use crate::sip::{HeaderName, Message, Method, StatusCode};

/// What this room asks of the engine.
pub(crate) enum Event {
    Send(Hop, Bytes),
    /// Send this wake; the answer comes through `handle_wake_sent`.
    Wake(WakeWanted),
    /// The device does not answer on its flow.
    Silent(InstanceId),
    /// The instance has no dialog any more.
    LastDialog(InstanceId),
    /// A step of a call's story, for one of its devices.
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
    /// It was sent before, and not taken.
    pub(crate) again: bool,
}

impl WakeWanted {
    /// For a call that was missed and is no more.
    fn missed(instance: InstanceId, uuid: CallUuid, caller: Option<Caller>) -> Self {
        let (kind, detail) = (WakeKind::MissedCall, WakeDetail::Missed(1));
        Self { call: RelayId(0), instance, kind, uuid, caller, until: Instant::default(), detail, again: false }
    }
}

/// What this room borrows from its shard.
pub(crate) struct Desk<'a> {
    pub(crate) shard: ShardId,
    pub(crate) policy: &'a Policy,
    pub(crate) random: &'a mut Random,
    pub(crate) tally: &'a mut Tally,
    pub(crate) tags: &'a Tags,
}

/// The room.
pub(crate) struct Calls {
    next: u64,
    relays: HashMap<RelayId, Relay>,
    held: HashMap<RelayId, Held>,
    by_key: HashMap<ServerKey, RelayId>,
    by_branch: HashMap<BranchId, RelayId>,
    by_merge: HashMap<MergeKey, RelayId>,
    /// The calls an instance is called by, and requests inside its calls.
    by_instance: BTreeSet<(InstanceId, RelayId)>,
    by_wake: HashMap<WakeId, (RelayId, InstanceId)>,
    by_early_contact: HashMap<Capability, RelayId>,
    refused: Refused,
    ended: EndedCalls,
    dialogs: Dialogs,
    orphans: Orphans,
    farewells: Farewells,
    /// This shard's share of `limits.held_calls`.
    held_max: usize,
    /// Requests on their way at once: this shard's share of `limits.held_calls` and `limits.dialogs`; above it the process
    /// is full.
    relays_max: usize,
    schedule: Schedule<RelayId>,
    events: VecDeque<Event>,
}

impl Calls {
    pub(crate) fn new(mint: Mint, limits: &Limits, shards: u16) -> Self {
        let held_max = share(limits.held_calls, shards);
        let devices = limits.devices_per_account.max(1) as usize;
        Self {
            next: 0,
            relays: HashMap::default(),
            held: HashMap::default(),
            by_key: HashMap::default(),
            by_branch: HashMap::default(),
            by_merge: HashMap::default(),
            by_instance: BTreeSet::new(),
            by_wake: HashMap::default(),
            by_early_contact: HashMap::default(),
            refused: Refused::new(held_max),
            ended: EndedCalls::new(held_max),
            dialogs: Dialogs::new(mint, share(limits.dialogs, shards)),
            orphans: Orphans::new(held_max.saturating_mul(devices)),
            farewells: Farewells::default(),
            held_max,
            relays_max: share(limits.held_calls.saturating_add(limits.dialogs), shards),
            schedule: Schedule::default(),
            events: VecDeque::new(),
        }
    }

    /// A request that belongs to a server transaction we have or had: a retransmission, an ACK to our final, a CANCEL.
    /// `false`: it belongs to none.
    pub(crate) fn handle_known(
        &mut self,
        request: &Message,
        arrival: &Arrival,
        back: &Hop,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let key = match request.method() {
            Some(Method::Cancel) => ServerKey::of_cancelled(request),
            _ => ServerKey::of(request),
        };
        let Ok(key) = key else { return false };
        let Some(&id) = self.by_key.get(&key) else { return self.handle_refused(&key, request, arrival, back, desk) };
        let Some(relay) = self.relays.get_mut(&id) else { return false };
        match request.method() {
            Some(Method::Ack) => {
                let relay::Server::Invite(server) = &mut relay.server else { return false };
                if !server.handle_ack(now) {
                    return false;
                }
                // It bears the tag of our answer: the source is where it says.
                relay.allowance = Allowance::PROVEN;
                // The attempt is over for its sender: one with the same names from now on is another attempt (a proxy that
                // hunts), and no copy of this one.
                if let Some(merge) = relay.merge.take() {
                    self.by_merge.remove(&merge);
                }
            }
            Some(Method::Cancel) => self.handle_cancel(id, request, arrival, back, desk, now),
            _ => {
                let again = relay.answer_again(request, now);
                let back = relay.back.clone();
                self.events.extend(again.map(|bytes| Event::Send(back, bytes)));
            }
        }
        self.settle(id);
        true
    }

    /// The instance is being erased: it takes no part in held calls any more, dialogs go on.
    pub(crate) fn end_instance(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let held: Vec<RelayId> = self.held_of(instance).collect();
        for id in held {
            let Some(place) = self.held.get(&id).and_then(|held| held.place_of(instance)) else { continue };
            self.offer(id, Best::own(StatusCode::TEMPORARILY_UNAVAILABLE, Why::Erased));
            self.end_callee(id, place, Why::Erased, now);
            self.conclude(id, desk, now);
            self.settle(id);
        }
    }

    /// The device declines over HTTPS; once more, it changes nothing. `false`: no such call, or it is over otherwise.
    pub(crate) fn decline(
        &mut self,
        instance: InstanceId,
        uuid: CallUuid,
        decline: Decline,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(id) = self.find_call(instance, uuid) else { return self.ended.is_declined((instance, uuid)) };
        let Some(place) = self.held.get(&id).and_then(|held| held.place_of(instance)) else { return false };
        let code = match decline.reason {
            DeclineReason::Busy | DeclineReason::Decline if decline.everywhere => StatusCode::DECLINE,
            DeclineReason::Busy | DeclineReason::Decline => StatusCode::BUSY_HERE,
            DeclineReason::Unavailable => StatusCode::TEMPORARILY_UNAVAILABLE,
        };
        self.offer(id, Best::own(code, Why::Declined));
        self.end_callee(id, place, Why::Declined, now);
        self.conclude(id, desk, now);
        self.settle(id);
        true
    }

    /// A call as its device may see it.
    pub(crate) fn view(&self, instance: InstanceId, uuid: CallUuid) -> Option<CallView> {
        if let Some(view) = self.ended.view((instance, uuid)) {
            return Some(view);
        }
        let held = self.held.get(&self.find_call(instance, uuid)?)?;
        let called = held.callees.get(held.place_of(instance)?)?;
        Some(CallView::new(called.state(), None))
    }

    /// The edge did not let somebody in who spoke for the instance: calls that wait for its device tell of it.
    pub(crate) fn handle_attach_refused(&mut self, instance: InstanceId, reason: &'static str) {
        let held: Vec<CallUuid> = self.names_at(instance).collect();
        let steps = held.into_iter().map(|uuid| Event::Step(instance, uuid, Step::AttachRefused(reason)));
        self.events.extend(steps);
    }

    /// What an attaching device should hear of calls it was woken for: `UUID;state=ended;reason=…`.
    pub(crate) fn news(&self, instance: InstanceId) -> Vec<String> {
        self.ended.news(instance)
    }

    pub(crate) fn handle_flow_closed(&mut self, flow: FlowId) {
        self.dialogs.handle_flow_closed(flow);
    }

    /// The calls of an instance: those it is called by, and those that ended lately.
    pub(crate) fn uuids(&self, instance: InstanceId) -> Vec<CallUuid> {
        self.names_at(instance).chain(self.ended.uuids(instance)).collect()
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
        [
            self.schedule.next(),
            self.dialogs.poll_timeout(),
            self.farewells.poll_timeout(),
            self.orphans.poll_timeout(),
            self.refused.poll_timeout(),
            self.ended.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        let (ended, late) = self.ended.len();
        out.extend([
            ("calls.relays", self.relays.len()),
            ("calls.held", self.held.len()),
            ("calls.keys", self.by_key.len()),
            ("calls.branches", self.by_branch.len()),
            ("calls.merges", self.by_merge.len()),
            ("calls.instances", self.by_instance.len()),
            ("calls.wakes", self.by_wake.len()),
            ("calls.early_contacts", self.by_early_contact.len()),
            ("calls.refused", self.refused.len()),
            ("calls.ended", ended),
            ("calls.late", late),
            ("calls.orphans", self.orphans.len()),
            ("calls.dialogs", self.dialogs.len()),
            ("calls.farewells", self.farewells.len()),
        ]);
    }

    /// The held call of that name, while the instance takes part in it.
    fn find_call(&self, instance: InstanceId, uuid: CallUuid) -> Option<RelayId> {
        self.held_of(instance).find(|id| self.name_at(*id, instance) == Some(uuid))
    }

    /// What a held call is called at a device that takes part in it.
    fn name_at(&self, id: RelayId, instance: InstanceId) -> Option<CallUuid> {
        let held = self.held.get(&id)?;
        Some(held.callees.get(held.place_of(instance)?)?.uuid)
    }

    fn names_at(&self, instance: InstanceId) -> impl Iterator<Item = CallUuid> {
        self.held_of(instance).filter_map(move |id| self.name_at(id, instance))
    }

    fn of_instance(&self, instance: InstanceId) -> Vec<RelayId> {
        self.related(instance).collect()
    }

    fn held_of(&self, instance: InstanceId) -> impl Iterator<Item = RelayId> {
        self.related(instance).filter(|id| self.held.contains_key(id))
    }

    fn related(&self, instance: InstanceId) -> impl Iterator<Item = RelayId> {
        let all = (instance, RelayId(0))..=(instance, RelayId(u64::MAX));
        self.by_instance.range(all).map(|(_, id)| *id)
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
    }

    fn handle_cancel(
        &mut self,
        id: RelayId,
        cancel: &Message,
        arrival: &Arrival,
        back: &Hop,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
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
        let reason = cancel.header(HeaderName::Reason).map(|value| String::from_utf8_lossy(value).into_owned());
        if self.held.contains_key(&id) {
            return self.cancel_call(id, reason.as_deref(), desk, now);
        }
        let Some(relay) = self.relays.get_mut(&id) else { return };
        for leg in &mut relay.legs {
            leg.cancel(reason.as_deref(), &mut self.events, now);
        }
        if relay.legs.is_empty() {
            self.refuse(id, StatusCode::REQUEST_TERMINATED, now);
        }
    }

    /// Removes a relay that has nothing left to absorb, or sets its next deadline.
    fn settle(&mut self, id: RelayId) {
        let Some(relay) = self.relays.get(&id) else { return };
        let held = self.held.get(&id);
        if held.is_none() && relay.is_over() {
            return self.remove(id);
        }
        let due = relay.poll_timeout().into_iter().chain(held.and_then(Held::poll_timeout)).min();
        self.schedule.set(id, due);
    }

    fn remove(&mut self, id: RelayId) {
        let Some(relay) = self.relays.remove(&id) else { return };
        self.schedule.remove(id);
        if let Ok(key) = ServerKey::of(&relay.request) {
            self.by_key.remove(&key);
        }
        for leg in &relay.legs {
            self.by_branch.remove(&leg.branch);
        }
        if let Some(inside) = &relay.inside {
            self.by_instance.remove(&(inside.instance, id));
        }
        if let Some(merge) = &relay.merge {
            self.by_merge.remove(merge);
        }
        if let Some(contact) = &relay.early_contact {
            self.by_early_contact.remove(contact);
        }
    }
}
