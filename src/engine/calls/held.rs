//! A call from its INVITE until its final: held, woken for, forwarded, answered or over.

use std::time::Duration;

use super::relay::Came;
use super::*;
use crate::engine::output::CallState;
use crate::sip::{HeaderName, Method};

/// RFC 8141 name-based UUIDs: the namespace of call ids, itself a random UUID.
const CALL_NAMESPACE: uuid::Uuid = uuid::uuid!("6d1a7c1e-52a5-4b8f-9a6e-3c0e2f7b9d41");
/// Retry-After when the process is full.
pub(super) const FULL_RETRY_SECONDS: u32 = 10;

/// Which INVITEs are the same (RFC 3261 §8.2.2.2): forked copies of it reach us with other branches.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct MergeKey {
    capability: Capability,
    call_id: Vec<u8>,
    from_tag: String,
    cseq: u32,
}

/// An INVITE with what the engine knows of its callee.
pub(crate) struct Incoming<'a> {
    pub(crate) request: Message,
    pub(crate) arrival: &'a Arrival,
    pub(crate) back: Hop,
    pub(crate) instance: InstanceId,
    pub(crate) capability: Capability,
    /// Our own provisional answer, after the account's wish.
    pub(crate) early: Option<StatusCode>,
    /// The caller, if the tenant wants it in the push.
    pub(crate) caller: Option<Caller>,
    /// The device, if one is attached.
    pub(crate) device: Option<Device>,
    /// No new calls: the process drains.
    pub(crate) draining: bool,
}

/// A call without a final response.
pub(super) struct Held {
    pub(super) uuid: CallUuid,
    pub(super) invited: Instant,
    pub(super) deadline: Instant,
    pub(super) stage: Progress,
    pub(super) wake: Wake,
    pub(super) wake_id: Option<WakeId>,
    /// A device came for it at least once.
    pub(super) attached: bool,
    /// A second wake was sent, after the flow died.
    pub(super) rewoken: bool,
    /// A second wake is due, but the provider has not answered the first one yet.
    pub(super) rewake_due: bool,
    pub(super) early: Option<StatusCode>,
    pub(super) early_sent: bool,
    pub(super) caller: Option<Caller>,
    /// Why the caller cancelled.
    pub(super) cancelled: Option<&'static str>,
    /// As what it was forwarded before its flow died: sent again, it is the same transaction.
    pub(super) sent_as: Option<(BranchId, super::super::ids::ListenerId)>,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    Forwarded,
    Ringing,
    Answered,
}

/// How far its wake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    No,
    Sent,
    Accepted,
    Failed,
}

/// A call that is over, as far as its device may ask.
pub(super) struct Ended {
    pub(super) state: CallState,
    pub(super) reason: &'static str,
    pub(super) woken: bool,
}

impl Held {
    pub(super) fn is_answered(&self) -> bool {
        self.stage == Progress::Answered
    }

    pub(super) fn was_woken(&self) -> bool {
        matches!(self.wake, Wake::Sent | Wake::Accepted)
    }

    pub(super) fn state(&self) -> CallState {
        match self.stage {
            // Forwarded is not ringing: the device has not said a word yet.
            Progress::Waiting | Progress::Forwarded => CallState::Waking,
            Progress::Ringing => CallState::Ringing,
            Progress::Answered => CallState::Answered,
        }
    }
}

/// RFC 3326: what the caller's side says of its CANCEL.
pub(super) fn cancel_reason(reason: Option<&str>) -> &'static str {
    let Some(reason) = reason else { return "cancelled" };
    let elsewhere = reason.split(';').any(|part| part.trim().eq_ignore_ascii_case("cause=200"))
        || reason.to_ascii_lowercase().contains("completed elsewhere");
    if elsewhere { "answered-elsewhere" } else { "cancelled" }
}

impl Calls {
    /// An INVITE to a capability we hold, outside a dialog.
    pub(crate) fn handle_invite(&mut self, incoming: Incoming<'_>, desk: &mut Desk<'_>, now: Instant) {
        let Some(merge) = merge_key(&incoming) else {
            return self.refuse_once(&incoming, StatusCode::BAD_REQUEST, &[], desk);
        };
        if self.by_merge.contains_key(&merge) {
            return self.refuse_once(&incoming, StatusCode::LOOP_DETECTED, &[], desk);
        }
        if let Some((code, extra)) = self.over_limit(&incoming, desk) {
            desk.tally.call(CallOutcome::Limited);
            return self.refuse_once(&incoming, code, &extra, desk);
        }
        let Ok(key) = ServerKey::of(&incoming.request) else {
            return self.refuse_once(&incoming, StatusCode::BAD_REQUEST, &[], desk);
        };
        let id = self.mint_relay();
        let Incoming { request, arrival, back, instance, early, caller, device, .. } = incoming;
        let held = Held {
            uuid: call_uuid(request.call_id().unwrap_or_default()),
            invited: now,
            deadline: now + ring_time(&request, desk.policy.hold),
            stage: Progress::Waiting,
            wake: Wake::No,
            wake_id: None,
            attached: false,
            rewoken: false,
            rewake_due: false,
            early: early.filter(|_| !request.requires("100rel")),
            early_sent: false,
            caller,
            cancelled: None,
            sent_as: None,
        };
        let allowance = Allowance::of(&request, arrival);
        let came = Came { request, arrival, back, allowance };
        let mut relay = Relay::new(instance, came, desk.random.text::<8>(), now);
        if let Some(trying) = relay.answer(StatusCode::TRYING, false, &[], now) {
            self.events.push_back(Event::Send(relay.back.clone(), trying));
        }
        self.schedule.set((id, Timer::Hold), Some(held.deadline));
        self.by_key.insert(key, id);
        relay.merge = Some(merge.clone());
        self.by_merge.insert(merge, id);
        self.by_instance.entry(instance).or_default().insert(id);
        self.relays.insert(id, relay);
        self.held.insert(id, held);
        match device {
            Some(device) => {
                self.forward_call(id, &device, desk, now);
                self.schedule.set((id, Timer::Silence), Some(now + desk.policy.silence));
            }
            None => self.want_wake(id),
        }
    }

    /// What became of a wake that was asked for.
    pub(crate) fn handle_wake_sent(
        &mut self,
        id: RelayId,
        sent: Result<WakeId, crate::engine::output::Unsent>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        use crate::engine::output::Unsent;
        let Some(held) = self.held.get_mut(&id) else { return };
        match sent {
            Ok(wake) => {
                held.wake = Wake::Sent;
                held.wake_id = Some(wake);
                self.by_wake.insert(wake, id);
            }
            Err(Unsent::OverBudget) if held.stage == Progress::Waiting => {
                self.refuse(id, StatusCode::TEMPORARILY_UNAVAILABLE, now);
                self.finish(id, CallOutcome::Limited, "limited", desk, now);
                self.settle(id, now);
            }
            Err(Unsent::OverBudget | Unsent::NoTarget | Unsent::Off | Unsent::Told) => held.wake = Wake::Failed,
        }
    }

    /// The provider's answer to a call wake.
    pub(crate) fn handle_wake_outcome(&mut self, wake: WakeId, accepted: bool, desk: &mut Desk<'_>, now: Instant) {
        let Some(id) = self.by_wake.remove(&wake) else { return };
        let Some(held) = self.held.get_mut(&id) else { return };
        if !accepted {
            // The device may still come by itself; else the call ends at its deadline.
            held.wake = Wake::Failed;
        } else {
            held.wake = Wake::Accepted;
            desk.tally.stage(Stage::PushAccepted, now.saturating_since(held.invited));
            self.send_early(id, desk, now);
        }
        if let Some(held) = self.held.get_mut(&id)
            && std::mem::take(&mut held.rewake_due)
            && held.stage == Progress::Waiting
        {
            self.want_wake(id);
        }
    }

    /// The device is reachable (again): its held calls go to it.
    pub(crate) fn handle_attached(&mut self, instance: InstanceId, device: &Device, desk: &mut Desk<'_>, now: Instant) {
        for id in self.of_instance(instance) {
            let Some(held) = self.held.get_mut(&id) else { continue };
            if held.is_answered() || held.cancelled.is_some() {
                continue;
            }
            if !std::mem::replace(&mut held.attached, true) {
                desk.tally.stage(Stage::Attached, now.saturating_since(held.invited));
            }
            let same_flow =
                self.relays.get(&id).and_then(|relay| relay.leg.as_ref()).is_some_and(|leg| leg.hop == device.hop);
            if !same_flow {
                self.forward_call(id, device, desk, now);
            }
        }
    }

    /// The device's flow is gone: calls it had not answered wait for it again.
    pub(crate) fn handle_detached(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        for id in self.of_instance(instance) {
            let Some(held) = self.held.get_mut(&id) else { continue };
            if held.is_answered() || self.relays.get(&id).is_none_or(|relay| relay.leg.is_none()) {
                continue;
            }
            if let Some(relay) = self.relays.get_mut(&id)
                && let Some(leg) = relay.leg.take()
            {
                held.sent_as = Some((leg.branch, leg.listener));
            }
            held.stage = Progress::Waiting;
            if held.cancelled.is_some() {
                self.end_cancelled(id, desk, now);
            } else if held.deadline <= now {
                self.refuse(id, StatusCode::TEMPORARILY_UNAVAILABLE, now);
                self.finish(id, CallOutcome::NoDevice, "no-device", desk, now);
                self.settle(id, now);
            } else {
                self.schedule.set((id, Timer::Hold), Some(held.deadline));
                self.schedule.remove((id, Timer::C));
                self.reschedule(id);
                self.want_wake(id);
            }
        }
    }

    /// Whether a request's Request-URI is the one-call Contact of an early answer of ours.
    pub(crate) fn is_early_contact(&self, user: &Capability) -> bool {
        self.by_early_contact.contains_key(user)
    }

    /// Asks for a wake: the first one, or the second and last if the flow died after attaching.
    pub(super) fn want_wake(&mut self, id: RelayId) {
        let Some(held) = self.held.get_mut(&id) else { return };
        match held.wake {
            Wake::No => {}
            Wake::Sent if held.attached && !held.rewoken => {
                held.rewake_due = true;
                return;
            }
            Wake::Accepted | Wake::Failed if held.attached && !held.rewoken => held.rewoken = true,
            Wake::Sent | Wake::Accepted | Wake::Failed => return,
        }
        let Some(relay) = self.relays.get(&id) else { return };
        self.events.push_back(Event::Wake(WakeWanted {
            call: id,
            instance: relay.instance,
            kind: WakeKind::Call,
            uuid: held.uuid,
            caller: held.caller.clone(),
            until: held.deadline,
            detail: WakeDetail::None,
        }));
    }

    /// The caller's CANCEL, with nothing forwarded any more.
    pub(super) fn end_cancelled(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let reason = self.held.get(&id).and_then(|held| held.cancelled).unwrap_or("cancelled");
        self.refuse(id, StatusCode::REQUEST_TERMINATED, now);
        self.finish(id, CallOutcome::Cancelled, reason, desk, now);
        self.settle(id, now);
    }

    /// Our own provisional answer: own To tag, one-call Contact, Record-Route copied, no SDP.
    fn send_early(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        // A device that was sent the INVITE and says nothing counts as asleep; one that rings speaks for itself.
        let silent = matches!(held.stage, Progress::Waiting | Progress::Forwarded);
        let (Some(code), false, true) = (held.early, held.early_sent, silent) else { return };
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let contact = Capability::mint(desk.shard, desk.random.bytes());
        let advertise = desk.policy.listener(relay.listener).map_or("", |listener| listener.advertise.as_str());
        let uri = format!("<sip:{contact}@{advertise};transport={}>", relay.transport.as_uri_param());
        if let Some(bytes) = relay.answer(code, true, &[("Contact", uri)], now) {
            held.early_sent = true;
            relay.early_contact = Some(contact);
            self.by_early_contact.insert(contact, id);
            self.events.push_back(Event::Send(relay.back.clone(), bytes));
        }
        self.reschedule(id);
    }

    /// Answers an INVITE that never becomes a call. Its ACK is absorbed with the transaction.
    fn refuse_once(
        &mut self,
        incoming: &Incoming<'_>,
        code: StatusCode,
        extra: &[(&str, String)],
        desk: &mut Desk<'_>,
    ) {
        let mut out = Vec::with_capacity(384);
        let tag = desk.tags.of(&incoming.request);
        let reply = Reply { code, to_tag: Some(&tag), source: Some(incoming.arrival.peer), record_route: false, extra };
        let mut allowance = Allowance::of(&incoming.request, incoming.arrival);
        if proxy::write_reply(&incoming.request, &reply, &mut out).is_ok() && allowance.spend(out.len()) {
            self.events.push_back(Event::Send(incoming.back.clone(), Bytes::from(out)));
        }
    }

    fn over_limit(
        &self,
        incoming: &Incoming<'_>,
        desk: &Desk<'_>,
    ) -> Option<(StatusCode, Vec<(&'static str, String)>)> {
        let limits = &desk.policy.limits;
        if incoming.draining || self.held.len() >= self.held_max || self.relays.len() >= self.relays_max {
            let later = vec![("Retry-After", FULL_RETRY_SECONDS.to_string())];
            return Some((StatusCode::SERVICE_UNAVAILABLE, later));
        }
        let own = self.by_instance.get(&incoming.instance).map_or(0, BTreeSet::len);
        (own >= limits.held_calls_per_instance as usize).then_some((StatusCode::TEMPORARILY_UNAVAILABLE, Vec::new()))
    }
}

/// The `call` id of a Call-ID.
pub(super) fn call_uuid(call_id: &[u8]) -> CallUuid {
    CallUuid(uuid::Uuid::new_v5(&CALL_NAMESPACE, call_id))
}

/// `calls.hold`, or less where the INVITE itself expires sooner (RFC 3261 §13.2.1).
fn ring_time(request: &Message, hold: Duration) -> Duration {
    match request.expires() {
        Ok(Some(seconds)) if seconds > 0 => hold.min(Duration::from_secs(u64::from(seconds))),
        _ => hold,
    }
}

fn merge_key(incoming: &Incoming<'_>) -> Option<MergeKey> {
    let request = &incoming.request;
    if request.method() != Some(Method::Invite) || request.header(HeaderName::Via).is_none() {
        return None;
    }
    Some(MergeKey {
        capability: incoming.capability,
        call_id: request.call_id().ok()?.to_vec(),
        from_tag: request.from().ok()?.tag().unwrap_or_default().to_owned(),
        cseq: request.cseq().ok()?.number,
    })
}
