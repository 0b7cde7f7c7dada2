//! Waking the callees of a held call: one wake each, a second one only if the flow died after attaching; and our own
//! provisional answer once a provider has taken one.

use super::callee::{Progress, Wake};
use super::*;
use crate::engine::output::Unsent;

impl Calls {
    /// Asks for a wake: the first one, or the second and last if the flow died after attaching.
    pub(super) fn want_wake(&mut self, id: RelayId, place: usize) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(called) = held.callees.get_mut(place).filter(|called| !called.is_out()) else { return };
        match called.wake {
            Wake::No => {}
            Wake::Sent | Wake::Wanted if called.attached && !called.rewoken => {
                called.rewake_due = true;
                return;
            }
            Wake::Accepted | Wake::Failed if called.attached && !called.rewoken => called.rewoken = true,
            Wake::Wanted | Wake::Sent | Wake::Accepted | Wake::Failed => return,
        }
        called.wake = Wake::Wanted;
        self.events.push_back(Event::Wake(WakeWanted {
            call: id,
            instance: called.instance,
            kind: WakeKind::Call,
            uuid: held.uuid,
            caller: called.caller.clone(),
            until: held.deadline,
            detail: WakeDetail::None,
        }));
    }

    /// Whether a wake is still wanted when its turn has come: never a call wake without an INVITE that waits.
    pub(crate) fn is_wanted(&self, wanted: &WakeWanted) -> bool {
        if wanted.kind != WakeKind::Call {
            return true;
        }
        let Some(held) = self.held.get(&wanted.call) else { return false };
        let called = held.place_of(wanted.instance).and_then(|place| held.callees.get(place));
        held.cancelled.is_none() && called.is_some_and(|called| called.wake == Wake::Wanted)
    }

    /// What became of a call wake that was asked for.
    pub(crate) fn handle_wake_sent(
        &mut self,
        id: RelayId,
        instance: InstanceId,
        sent: Result<WakeId, Unsent>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let (uuid, Some(place)) = (held.uuid, held.place_of(instance)) else { return };
        let Some(called) = held.callees.get_mut(place) else { return };
        let step = match sent {
            Ok(wake) => {
                called.wake = Wake::Sent;
                called.wake_id = Some(wake);
                called.woken = true;
                self.by_wake.insert(wake, (id, instance));
                Step::WakeSent
            }
            Err(unsent) => {
                called.wake = Wake::Failed;
                Step::WakeFailed(unsent.as_str())
            }
        };
        let waiting = called.stage == Progress::Waiting;
        self.events.push_back(Event::Step(instance, uuid, step));
        let hopeless = match sent {
            Err(Unsent::OverBudget) => Some(Why::Limited),
            Err(Unsent::Unproven | Unsent::Contested) => Some(Why::Unproven),
            Ok(_) | Err(Unsent::NoTarget | Unsent::Off | Unsent::Restricted | Unsent::Told) => None,
        };
        if let Some(why) = hopeless.filter(|_| waiting) {
            self.offer(id, Best::own(StatusCode::TEMPORARILY_UNAVAILABLE, why));
            self.end_callee(id, place, why, now);
            self.conclude(id, desk, now);
        }
        self.settle(id);
    }

    /// The provider's answer to a call wake: taken, or why not.
    pub(crate) fn handle_wake_outcome(
        &mut self,
        wake: WakeId,
        outcome: Result<(), &'static str>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some((id, instance)) = self.by_wake.remove(&wake) else { return };
        let Some(held) = self.held.get_mut(&id) else { return };
        let (uuid, Some(place)) = (held.uuid, held.place_of(instance)) else { return };
        let Some(called) = held.callees.get_mut(place) else { return };
        called.wake_id = None;
        let again = std::mem::take(&mut called.rewake_due) && called.stage == Progress::Waiting;
        let step = match outcome {
            Ok(()) => {
                called.wake = Wake::Accepted;
                held.pass(Stage::PushAccepted, desk.tally, now);
                Step::WakeAccepted
            }
            // The device may still come by itself; else the call ends at its deadline.
            Err(why) => {
                called.wake = Wake::Failed;
                Step::WakeFailed(why)
            }
        };
        self.events.push_back(Event::Step(instance, uuid, step));
        if outcome.is_ok() {
            self.send_early(id, desk, now);
        }
        if again {
            self.want_wake(id, place);
        }
        self.settle(id);
    }

    /// A device that was sent the INVITE and says nothing gets a wake beside it.
    pub(super) fn wake_silent(&mut self, id: RelayId, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let mut silent = Vec::new();
        for (place, called) in held.callees.iter_mut().enumerate() {
            if called.silence.take_if(|at| *at <= now).is_some() && called.wake == Wake::No {
                silent.push(place);
            }
        }
        for place in silent {
            self.want_wake(id, place);
        }
    }

    /// Our own provisional answer: own To tag, one-call Contact, Record-Route copied, no SDP.
    fn send_early(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        // A device that was sent the INVITE and says nothing counts as asleep; one that rings speaks for itself.
        let ringing = held.callees.iter().any(|called| called.stage == Progress::Ringing);
        let spoken = held.early_sent || ringing || held.cancelled.is_some();
        let (Some(code), false) = (held.early, spoken) else { return };
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let contact = Capability::mint(desk.shard, desk.random.bytes());
        let advertise = desk.policy.listener(relay.listener).map_or("", |listener| listener.advertise.as_str());
        let uri = format!("<sip:{contact}@{advertise};transport={}>", relay.transport.as_param());
        if let Some(bytes) = relay.answer(code, true, &[("Contact", uri)], now) {
            held.early_sent = true;
            relay.early_contact = Some(contact);
            self.by_early_contact.insert(contact, id);
            self.events.push_back(Event::Send(relay.back.clone(), bytes));
        }
    }
}
