//! One call, several devices: they come, go, ring and fail each by itself; the first 2xx wins, and when nobody can answer
//! any more the caller gets the best of what was said (RFC 3261 §16.7).

use super::callee::{Called, INVITE_SENDS_MAX, Progress, Wake};
use super::ended::Late;
use super::*;
use crate::sip::Method;
use crate::sip::timers::TRANSACTION_TIMEOUT;

/// A device whose flow died may come back by itself for so long: as long as its own transactions live.
const RETURN: Duration = TRANSACTION_TIMEOUT;

impl Calls {
    /// The device is reachable (again): its calls go to it, and what it has not answered follows it.
    pub(crate) fn handle_attached(&mut self, instance: InstanceId, device: &Device, desk: &mut Desk<'_>, now: Instant) {
        for id in self.of_instance(instance) {
            match self.held.get(&id) {
                Some(held) => {
                    if let Some(place) = held.place_of(instance) {
                        self.call_device(id, place, device, desk, now);
                        self.conclude(id, desk, now);
                    }
                }
                None => self.move_inside(id, device, now),
            }
            self.settle(id);
        }
        self.orphans.handle_attached(instance, device, &mut self.events, now);
        for (uuid, late) in self.ended.take_late(instance) {
            self.show_and_cancel(instance, uuid, &late, device, desk, now);
        }
    }

    /// The device's flow is gone: calls it had not answered wait for it again.
    pub(crate) fn handle_detached(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        self.orphans.handle_detached(instance);
        for id in self.of_instance(instance) {
            let Some(held) = self.held.get_mut(&id) else { continue };
            let Some(place) = held.place_of(instance) else { continue };
            let cancelled = held.cancelled;
            let Some(leg) = self.relays.get_mut(&id).and_then(|relay| relay.leg_to(instance)) else { continue };
            if leg.lost {
                continue;
            }
            leg.rest(now);
            held.callees[place].stage = Progress::Waiting;
            held.callees[place].returns_until = Some(now + RETURN);
            self.events.push_back(Event::Step(instance, held.callees[place].uuid, Step::FlowLost));
            match cancelled {
                Some(why) => self.end_callee(id, place, why, now),
                None if held.overdue => {}
                None => self.want_wake(id, place),
            }
            self.conclude(id, desk, now);
            self.settle(id);
        }
    }

    /// A held call meets its device.
    fn call_device(&mut self, id: RelayId, place: usize, device: &Device, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let called = &mut held.callees[place];
        let instance = called.instance;
        let leg = self.relays.get_mut(&id).and_then(|relay| relay.leg_to(instance));
        if let Some(leg) = leg {
            if !leg.lost && leg.hop == device.hop {
                return;
            }
            if held.cancelled.is_some() || called.sends >= INVITE_SENDS_MAX {
                called.stage = if called.rang { Progress::Ringing } else { Progress::Forwarded };
                if held.cancelled.is_some() {
                    leg.move_to(device, &mut self.events, now);
                } else {
                    leg.lost = false;
                    leg.hop = device.hop.clone();
                }
                return;
            }
        } else if held.cancelled.is_some() {
            return;
        }
        if !std::mem::replace(&mut called.attached, true) {
            self.events.push_back(Event::Step(instance, called.uuid, Step::Attached));
        }
        held.pass(Stage::Attached, desk.tally, now);
        self.forward_call(id, place, device, desk, now);
    }

    /// The call screen of a phone that was woken for a call which is over can only be closed by SIP: it gets the INVITE, and
    /// the CANCEL as soon as it answers.
    fn show_and_cancel(
        &mut self,
        instance: InstanceId,
        uuid: CallUuid,
        late: &Late,
        device: &Device,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(mut leg) = forward::late_leg(instance, uuid, late, device, desk, now) else { return };
        self.events.push_back(Event::Send(leg.hop.clone(), leg.request.bytes().clone()));
        leg.cancel(late.reason, &mut self.events, now);
        self.orphans.add(leg, now);
    }

    /// A final that the caller may get.
    pub(super) fn offer(&mut self, id: RelayId, best: Best) {
        if let Some(held) = self.held.get_mut(&id) {
            best.offer(&mut held.best);
        }
    }

    /// The caller hangs up: who sleeps is out at once, who was called is cancelled and may still answer.
    pub(super) fn cancel_call(&mut self, id: RelayId, reason: Option<&str>, desk: &mut Desk<'_>, now: Instant) {
        let why = held::why_cancelled(reason);
        let Some(held) = self.held.get_mut(&id) else { return };
        held.cancelled = Some(why);
        let asleep = |called: &Called| called.stage == Progress::Waiting;
        let sleeping: Vec<usize> = places(held, asleep).collect();
        if let Some(relay) = self.relays.get_mut(&id) {
            for leg in relay.legs.iter_mut().filter(|leg| !leg.lost) {
                leg.cancel(reason, &mut self.events, now);
            }
        }
        for place in sleeping {
            self.end_callee(id, place, why, now);
        }
        self.conclude(id, desk, now);
    }

    /// Devices whose flow died, and that no push reaches, have had the time to come back.
    pub(super) fn handle_no_return(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let gone = |called: &mut Called| {
            called.is_unreachable() && called.returns_until.take_if(|until| *until <= now).is_some()
        };
        // All of them, not the first alone.
        if held.callees.iter_mut().filter(|called| !called.is_out()).map(gone).fold(false, |any, gone| any | gone) {
            self.conclude(id, desk, now);
        }
    }

    /// Gives the caller the best final if nobody can answer any more.
    pub(super) fn conclude(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let (Some(held), Some(relay)) = (self.held.get_mut(&id), self.relays.get(&id)) else { return };
        let heard =
            |called: &Called| relay.legs.iter().any(|leg| leg.instance == called.instance && leg.client.is_heard());
        let ending = held.best.as_ref().is_some_and(|best| best.code.code() >= 600);
        let may_answer = |called: &Called| match called.stage {
            Progress::Out | Progress::Answered => false,
            Progress::Waiting => held.cancelled.is_none() && !held.overdue && !called.is_out_of_reach(now),
            // A cancelled phone that never said anything is waited for only if nobody else has spoken.
            Progress::Forwarded => held.cancelled.is_none() || held.best.is_none() || heard(called),
            Progress::Ringing => true,
        };
        if !ending && held.callees.iter().any(may_answer) {
            return;
        }
        let best = held.best.take();
        let best = match held.cancelled {
            Some(why) => best
                .filter(|best| best.response.is_some())
                .unwrap_or(Best { outcome: CallOutcome::Cancelled, ..Best::own(StatusCode::REQUEST_TERMINATED, why) }),
            None => best.unwrap_or_else(|| nobody_came(held)),
        };
        let why = match (held.cancelled, best.why) {
            (Some(why), _) => why,
            (None, Why::Declined | Why::DeclinedElsewhere) => Why::DeclinedElsewhere,
            (None, Why::Erased) => Why::Erased,
            (None, _) => Why::NoDevice,
        };
        let outcome = if held.cancelled.is_some() { CallOutcome::Cancelled } else { best.outcome };
        self.answer_final(id, &best, now);
        self.finish(id, outcome, why, desk, now);
    }

    /// The call has its final: counted, told, its other devices called off.
    pub(super) fn finish(&mut self, id: RelayId, outcome: CallOutcome, why: Why, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get(&id) else { return };
        let invited = held.invited;
        let answered = held.callees.iter().find(|called| called.state() == CallState::Answered);
        let told = answered.or(held.callees.first()).map(|called| (called.instance, called.uuid));
        let Some((told, uuid)) = told else { return };
        for place in 0..held.callees.len() {
            self.end_callee(id, place, why, now);
        }
        self.held.remove(&id);
        desk.tally.call(outcome);
        if outcome == CallOutcome::Answered {
            desk.tally.stage(Stage::Answered, now.saturating_since(invited));
        }
        self.events.push_back(Event::Note(Note::CallEnded(uuid, told, outcome)));
    }

    /// A callee's part is over: it is called off where it rings, told where it was woken, and remembered for a late attach.
    pub(super) fn end_callee(&mut self, id: RelayId, place: usize, why: Why, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let declined = held.callees.iter().any(|called| called.declined);
        let Some(called) = held.callees.get_mut(place).filter(|called| !called.is_out()) else { return };
        let why = match why {
            Why::Cancelled | Why::Elsewhere => called.why_cancelled(why),
            why => why,
        };
        let answered = why == Why::Answered;
        called.stage = if answered { Progress::Answered } else { Progress::Out };
        called.declined = why == Why::Declined;
        // Where nothing was delivered, nothing is shown.
        let woken = called.woken && !called.is_unreachable();
        let (instance, uuid, wake) = (called.instance, called.uuid, called.wake);
        let (ios, sends, rang, dialog) = (called.ios, called.sends, called.rang, called.dialog);
        let caller = called.caller.take();
        if let Some(wake) = called.wake_id.take() {
            self.by_wake.remove(&wake);
        }
        self.by_instance.remove(&(instance, id));
        let step = if answered { Step::Answered } else { Step::Ended(why.as_str()) };
        self.events.push_back(Event::Step(instance, uuid, step));
        if answered {
            let ended = Ended { state: CallState::Answered, reason: why.as_str(), woken, declined: false };
            return self.ended.add((instance, uuid), ended, None, now);
        }
        let reached = self.call_off(id, instance, why, now);
        if let Some(dialog) = dialog {
            self.dialogs.end(dialog, now);
        }
        if matches!(wake, Wake::Sent | Wake::Accepted) && !reached && why.is_told() {
            let (kind, detail) = (WakeKind::CallEnded, WakeDetail::Ended(why.as_str()));
            let until = now + ended::ENDED_KEPT;
            let wanted = WakeWanted { call: id, instance, kind, uuid, caller: None, until, detail, again: false };
            self.events.push_back(Event::Wake(wanted));
        }
        if why.is_missed() && !rang && !declined {
            self.events.push_back(Event::Wake(WakeWanted::missed(instance, uuid, caller)));
        }
        let late = (ios && woken && sends == 0 && why.is_shown_late()).then(|| self.late(id, why)).flatten();
        let ended = Ended { state: CallState::Ended, reason: why.as_str(), woken, declined: why == Why::Declined };
        self.ended.add((instance, uuid), ended, late, now);
    }

    /// Cancels the device's leg and leaves it to itself. Returns whether the device had heard of the call.
    fn call_off(&mut self, id: RelayId, instance: InstanceId, why: Why, now: Instant) -> bool {
        let Some(relay) = self.relays.get_mut(&id) else { return false };
        let Some(place) = relay.legs.iter().position(|leg| leg.instance == instance) else { return false };
        let mut leg = relay.legs.remove(place);
        let heard = leg.client.is_heard();
        self.by_branch.remove(&leg.branch);
        leg.cancel(why.cancel_reason(), &mut self.events, now);
        self.orphans.add(leg, now);
        heard
    }

    fn late(&self, id: RelayId, why: Why) -> Option<Late> {
        let relay = self.relays.get(&id).filter(|relay| relay.request.method() == Some(Method::Invite))?;
        Some(Late {
            request: relay.request.clone(),
            source: relay.source,
            transport: relay.transport,
            reason: why.cancel_reason(),
        })
    }

    pub(super) fn called(&mut self, id: RelayId, place: usize) -> Option<&mut Called> {
        self.held.get_mut(&id)?.callees.get_mut(place)
    }
}

fn places(held: &Held, test: impl Fn(&Called) -> bool) -> impl Iterator<Item = usize> {
    held.callees.iter().enumerate().filter(move |(_, called)| test(called)).map(|(place, _)| place)
}

/// The hold is over, or no device can be reached, and none has answered.
fn nobody_came(held: &Held) -> Best {
    let unreached = held.callees.iter().all(|called| called.wake == Wake::Failed);
    let best = Best::own(StatusCode::TEMPORARILY_UNAVAILABLE, Why::NoDevice);
    if unreached { Best { outcome: CallOutcome::NoPush, ..best } } else { best }
}
