//! A call from its INVITE until its final: whose it is, for how long it may ring, and what it is refused for.

use std::time::Duration;

use super::callee::{Called, Callee};
use super::relay::Came;
use super::*;
use crate::sip::{HeaderName, Method};

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

/// An INVITE with what the engine knows of its callees.
pub(crate) struct Incoming<'a> {
    pub(crate) request: Message,
    pub(crate) arrival: &'a Arrival,
    pub(crate) back: Hop,
    pub(crate) capability: Capability,
    /// Our own provisional answer, after the account's wish.
    pub(crate) early: Option<StatusCode>,
    /// The devices it is for.
    pub(crate) callees: Vec<Callee>,
    /// No new calls: the process drains.
    pub(crate) draining: bool,
}

/// A call without a final response.
pub(super) struct Held {
    pub(super) invited: Instant,
    pub(super) deadline: Instant,
    /// `deadline` has passed: who has not come by now is not waited for.
    pub(super) overdue: bool,
    pub(super) early: Option<StatusCode>,
    pub(super) early_sent: bool,
    /// Why the caller cancelled.
    pub(super) cancelled: Option<Why>,
    /// In the order of their legs' numbers. Never empty, and no instance twice.
    pub(super) callees: Vec<Called>,
    /// What the caller gets when nobody can answer any more.
    pub(super) best: Option<Best>,
    /// Milestones that some callee has passed, by their bits.
    stages: u8,
}

impl Held {
    /// Times a milestone if it is the first callee that passes it.
    pub(super) fn pass(&mut self, stage: Stage, tally: &mut Tally, now: Instant) {
        let bit = 1 << (stage as u8);
        if self.stages & bit == 0 {
            self.stages |= bit;
            tally.stage(stage, now.saturating_since(self.invited));
        }
    }

    /// When the hold ends, a device counts as silent, a wake goes out again, or a device is not expected back any more.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let hold = (!self.overdue).then_some(self.deadline);
        let of = |called: &Called| {
            let returns_until = called.returns_until.filter(|_| called.is_unreachable());
            [called.silence, called.wake_again, returns_until].into_iter().flatten().min()
        };
        self.callees.iter().filter(|called| !called.is_out()).filter_map(of).chain(hold).min()
    }

    /// The callee that this instance is, unless its part is over.
    pub(super) fn place_of(&self, instance: InstanceId) -> Option<usize> {
        self.callees.iter().position(|called| called.instance == instance && !called.is_out())
    }
}

/// RFC 3326: what the caller's side says of its CANCEL.
pub(super) fn why_cancelled(reason: Option<&str>) -> Why {
    let Some(reason) = reason else { return Why::Cancelled };
    let elsewhere = reason.split(';').any(|part| part.trim().eq_ignore_ascii_case("cause=200"))
        || reason.to_ascii_lowercase().contains("completed elsewhere");
    if elsewhere { Why::Elsewhere } else { Why::Cancelled }
}

impl Calls {
    /// An INVITE to a capability we hold, outside a dialog.
    pub(crate) fn handle_invite(&mut self, mut incoming: Incoming<'_>, desk: &mut Desk<'_>, now: Instant) {
        let key = ServerKey::of(&incoming.request).ok();
        let (Some(merge), Some(key)) = (merge_key(&incoming), key) else {
            return self.turn_away(&incoming, StatusCode::BAD_REQUEST, &[], desk, now);
        };
        if self.by_merge.contains_key(&merge) {
            return self.turn_away(&incoming, StatusCode::LOOP_DETECTED, &[], desk, now);
        }
        if self.replaces_early_answer(&incoming) {
            return self.turn_away(&incoming, StatusCode::CALL_DOES_NOT_EXIST, &[], desk, now);
        }
        let names = Naming::of(&incoming.request);
        if self.is_called_already(&mut incoming, &names) {
            return self.turn_away(&incoming, StatusCode::LOOP_DETECTED, &[], desk, now);
        }
        let refused = self.over_limit(&mut incoming, &names, desk);
        if let Some((code, extra)) = refused {
            desk.tally.call(CallOutcome::Limited);
            return self.turn_away(&incoming, code, &extra, desk, now);
        }
        let id = self.mint_relay();
        let Incoming { request, arrival, back, early, callees, .. } = incoming;
        let devices: Vec<Option<Device>> = callees.iter().map(|callee| callee.device.clone()).collect();
        let held = Held {
            invited: now,
            deadline: now + ring_time(&request, desk.policy.hold),
            overdue: false,
            early: early.filter(|_| !request.requires("100rel")),
            early_sent: false,
            cancelled: None,
            callees: callees.into_iter().map(|callee| names.called(callee)).collect(),
            best: None,
            stages: 0,
        };
        let private = media_address::is_private(request.body(), arrival.peer.ip());
        let allowance = Allowance::of(&request, arrival);
        let came = Came { request, arrival, back, allowance };
        let mut relay = Relay::new(came, desk.random.text::<8>(), now);
        if let Some(trying) = relay.answer(StatusCode::TRYING, false, &[], now) {
            self.events.push_back(Event::Send(relay.back.clone(), trying));
        }
        let call_id = relay.request.call_id().unwrap_or_default();
        for called in &held.callees {
            self.ended.forget_late(called.instance, call_id);
            self.admit(id, (called.instance, called.uuid), private);
        }
        self.by_key.insert(key, id);
        relay.merge = Some(merge.clone());
        self.by_merge.insert(merge, id);
        self.relays.insert(id, relay);
        self.held.insert(id, held);
        for (place, device) in devices.into_iter().enumerate() {
            match device {
                Some(device) => self.forward_first(id, place, &device, desk, now),
                None => self.want_wake(id, place),
            }
        }
        self.conclude(id, desk, now);
        self.settle(id);
    }

    /// A device takes part in a call from now on.
    pub(super) fn admit(&mut self, id: RelayId, (instance, uuid): (InstanceId, CallUuid), private: bool) {
        self.ended.forget((instance, uuid));
        self.by_instance.insert((instance, id));
        self.events.push_back(Event::Step(instance, uuid, Step::Invited));
        if private {
            self.events.push_back(Event::Step(instance, uuid, Step::PrivateMediaAddress));
        }
    }

    /// A device that is attached gets the call at once, and a wake beside it if it stays silent.
    pub(super) fn forward_first(
        &mut self,
        id: RelayId,
        place: usize,
        device: &Device,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        if let Some(called) = self.called(id, place) {
            called.silence = Some(now + desk.policy.silence);
        }
        self.forward_call(id, place, device, desk, now);
    }

    /// Whether a request's Request-URI is the one-call Contact of an early answer of ours.
    pub(crate) fn is_early_contact(&self, user: &Capability) -> bool {
        self.by_early_contact.contains_key(user)
    }

    /// RFC 3891 §3: an early dialog may be replaced only at the end that initiated it, and the one of our own provisional
    /// answer was not. Dialogs of the devices are theirs to judge.
    fn replaces_early_answer(&self, incoming: &Incoming<'_>) -> bool {
        let Some(replaces) = incoming.request.header(HeaderName::Replaces) else { return false };
        let replaces = String::from_utf8_lossy(replaces);
        let mut parts = replaces.split(';').map(str::trim);
        let call_id = parts.next().unwrap_or_default().as_bytes();
        let tags: Vec<&str> =
            parts.filter_map(|part| part.strip_prefix("to-tag=").or_else(|| part.strip_prefix("from-tag="))).collect();
        let calls = incoming.callees.iter().flat_map(|callee| self.held_of(callee.instance));
        let relays = calls.filter_map(|id| self.relays.get(&id));
        relays
            .filter(|relay| relay.request.call_id().ok() == Some(call_id))
            .any(|relay| tags.contains(&relay.tag.as_str()))
    }

    /// Takes out the callees that have a call of that name already: a device that can be called by two capabilities, and
    /// an INVITE that was copied with its branch. Returns whether there were such and none is left.
    fn is_called_already(&self, incoming: &mut Incoming<'_>, names: &Naming) -> bool {
        let before = incoming.callees.len();
        incoming.callees.retain(|callee| self.find_call(callee.instance, names.at(callee.instance)).is_none());
        incoming.callees.is_empty() && before > 0
    }

    fn turn_away(
        &mut self,
        incoming: &Incoming<'_>,
        code: StatusCode,
        extra: &[(&str, String)],
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        self.refuse_outright(&incoming.request, incoming.arrival, &incoming.back, (code, extra), desk, now);
    }

    /// Takes out the callees that have calls enough; the refusal if none is left, or nothing can be held at all.
    fn over_limit(
        &mut self,
        incoming: &mut Incoming<'_>,
        names: &Naming,
        desk: &Desk<'_>,
    ) -> Option<(StatusCode, Vec<(&'static str, String)>)> {
        let limits = &desk.policy.limits;
        if incoming.draining {
            // RFC 3261 §16.7 has a proxy pass a 503 on as 500; a 480 reaches the caller, and voicemail takes the call.
            return Some((StatusCode::TEMPORARILY_UNAVAILABLE, Vec::new()));
        }
        if self.held.len() >= self.held_max || self.relays.len() >= self.relays_max {
            let later = vec![("Retry-After", FULL_RETRY_SECONDS.to_string())];
            return Some((StatusCode::SERVICE_UNAVAILABLE, later));
        }
        let most = limits.held_calls_per_instance as usize;
        let (taking, full): (Vec<_>, Vec<_>) = std::mem::take(&mut incoming.callees)
            .into_iter()
            .partition(|callee| self.held_of(callee.instance).count() < most);
        incoming.callees = taking;
        self.tell_full(&full, names);
        incoming.callees.truncate(limits.devices_per_account as usize);
        incoming.callees.is_empty().then_some((StatusCode::TEMPORARILY_UNAVAILABLE, Vec::new()))
    }

    /// Devices that have calls enough do not hear of a further one; the story of it says so.
    fn tell_full(&mut self, full: &[Callee], names: &Naming) {
        for Callee { instance, caller, .. } in full {
            let uuid = names.at(*instance);
            let steps = [Step::Invited, Step::Ended(Why::Limited.as_str())];
            self.events.extend(steps.map(|step| Event::Step(*instance, uuid, step)));
            self.events.push_back(Event::Wake(WakeWanted::missed(*instance, uuid, caller.clone())));
        }
    }
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
        // A tag is a token, and has no case (RFC 3261 §7.3.1).
        from_tag: request.from().ok()?.tag().unwrap_or_default().to_ascii_lowercase(),
        cseq: request.cseq().ok()?.number,
    })
}
