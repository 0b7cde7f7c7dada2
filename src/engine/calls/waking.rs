//! Waking the callees of a held call: one wake each, a second one only if the flow died after attaching; sent again where the
//! provider did not take it; and our own provisional answer once a provider has taken one.

use super::callee::{Called, Progress, Wake};
use super::*;
use crate::engine::output::{PushOutcome, Remedy, Unsent};

/// Pushes that go out to one device for one call, all in all. Above it the call waits for what was sent, or is answered.
const WAKE_SENDS_MAX: u8 = 3;
/// The pause before a wake goes out again, where the provider names none; it doubles with each send, and 50 to 100 % of it
/// are waited, so that calls that failed together do not come back together.
const WAKE_PAUSE: Duration = Duration::from_secs(1);

impl Calls {
    /// Asks for a wake: the first one, or the second and last if the flow died after attaching.
    pub(super) fn want_wake(&mut self, id: RelayId, place: usize) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(called) = held.callees.get_mut(place).filter(|called| !called.is_out()) else { return };
        let may_rewake = called.attached && !called.rewoken && called.wake_sends < WAKE_SENDS_MAX;
        match called.wake {
            Wake::No => {}
            Wake::Sent | Wake::Wanted if may_rewake => {
                called.rewake_due = true;
                return;
            }
            Wake::Accepted | Wake::Failed if may_rewake => called.rewoken = true,
            Wake::Wanted | Wake::Sent | Wake::Accepted | Wake::Failed => return,
        }
        self.ask_for_wake(id, place, false);
    }

    fn ask_for_wake(&mut self, id: RelayId, place: usize, again: bool) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(called) = held.callees.get_mut(place) else { return };
        (called.wake, called.wake_again) = (Wake::Wanted, None);
        self.events.push_back(Event::Wake(WakeWanted {
            call: id,
            instance: called.instance,
            kind: WakeKind::Call,
            uuid: called.uuid,
            caller: called.caller.clone(),
            until: held.deadline,
            detail: WakeDetail::None,
            again,
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
        let Some(place) = held.place_of(instance) else { return };
        let Some(called) = held.callees.get_mut(place) else { return };
        let uuid = called.uuid;
        let step = match sent {
            Ok(wake) => {
                called.wake = Wake::Sent;
                called.wake_id = Some(wake);
                called.woken = true;
                called.wake_sends = called.wake_sends.saturating_add(1);
                self.by_wake.insert(wake, (id, instance));
                Step::WakeSent
            }
            Err(unsent) => {
                called.wake = Wake::Failed;
                Step::WakeFailed(unsent.as_str())
            }
        };
        let alone = called.stage == Progress::Waiting && !called.in_doubt;
        self.events.push_back(Event::Step(instance, uuid, step));
        let hopeless = match sent {
            Err(Unsent::OverBudget) => Some(Why::Limited),
            Err(Unsent::Unproven | Unsent::Contested) => Some(Why::Unproven),
            Ok(_) | Err(Unsent::NoTarget | Unsent::Off | Unsent::Restricted | Unsent::Told) => None,
        };
        if let Some(why) = hopeless.filter(|_| alone) {
            self.offer(id, Best::own(StatusCode::TEMPORARILY_UNAVAILABLE, why));
            self.end_callee(id, place, why, now);
        }
        if sent.is_err() {
            self.conclude(id, desk, now);
        }
        self.settle(id);
    }

    /// The provider's answer to a call wake. `replaced`: it speaks of a token that the device has changed since. Returns
    /// whether another send follows.
    pub(crate) fn handle_wake_outcome(
        &mut self,
        wake: WakeId,
        outcome: &PushOutcome,
        replaced: bool,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some((id, instance)) = self.by_wake.remove(&wake) else { return false };
        let Some(held) = self.held.get_mut(&id) else { return false };
        let (deadline, Some(place)) = (held.deadline, held.place_of(instance)) else { return false };
        let Some(called) = held.callees.get_mut(place) else { return false };
        let uuid = called.uuid;
        called.wake_id = None;
        let rewake = std::mem::take(&mut called.rewake_due) && called.stage == Progress::Waiting;
        let step = match outcome.fault() {
            None => {
                (called.wake, called.in_doubt) = (Wake::Accepted, true);
                held.pass(Stage::PushAccepted, desk.tally, now);
                Step::WakeAccepted
            }
            Some(why) => {
                let remedy = if replaced { Remedy::FreshToken } else { outcome.remedy() };
                called.wake_again = called.next_send(remedy, desk.random, now).filter(|at| *at < deadline);
                // FCM and APNs deliver nothing before the time they name.
                let beyond = matches!(remedy, Remedy::Pause(Some(after)) if now + after >= deadline);
                called.in_doubt |= !outcome.is_refusal() && !beyond;
                called.wake = Wake::Failed;
                Step::WakeFailed(why)
            }
        };
        self.events.push_back(Event::Step(instance, uuid, step));
        if rewake {
            self.want_wake(id, place);
        }
        if outcome.fault().is_none() {
            self.send_early(id, desk, now);
        } else {
            self.wake_again(id, now);
            self.conclude(id, desk, now);
        }
        self.settle(id);
        self.held.get(&id).and_then(|held| held.callees.get(place)).is_some_and(Called::is_sent_again)
    }

    /// Wakes that were not taken go out again, where their time has come and their device is still waited for.
    pub(super) fn wake_again(&mut self, id: RelayId, now: Instant) {
        let (Some(held), Some(relay)) = (self.held.get_mut(&id), self.relays.get(&id)) else { return };
        let heard =
            |called: &Called| relay.legs.iter().any(|leg| leg.instance == called.instance && leg.client.is_heard());
        let over = held.cancelled.is_some() || held.overdue;
        let mut due = Vec::new();
        for (place, called) in held.callees.iter_mut().enumerate() {
            let asleep = match called.stage {
                Progress::Waiting => true,
                Progress::Forwarded => !called.attached && !heard(called),
                Progress::Ringing | Progress::Answered | Progress::Out => false,
            };
            if over || !asleep {
                called.wake_again = None;
            } else if called.wake_again.is_some_and(|at| at <= now) {
                due.push(place);
            }
        }
        for place in due {
            self.ask_for_wake(id, place, true);
        }
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

impl Called {
    /// When a push that was not taken goes out again.
    fn next_send(&mut self, remedy: Remedy, random: &mut Random, now: Instant) -> Option<Instant> {
        if self.wake_sends >= WAKE_SENDS_MAX {
            return None;
        }
        match remedy {
            Remedy::None => None,
            Remedy::FreshToken => Some(now),
            // One that is not taken either is not stale.
            Remedy::FreshIdentity => (!std::mem::replace(&mut self.renewed, true)).then_some(now),
            Remedy::Pause(Some(after)) if !after.is_zero() => Some(now + after),
            Remedy::Pause(_) => {
                let pause = WAKE_PAUSE * 2u32.pow(u32::from(self.wake_sends.saturating_sub(1)));
                Some(now + random.jitter(pause, 50, 100))
            }
        }
    }

    fn is_sent_again(&self) -> bool {
        self.wake_again.is_some() || self.wake == Wake::Wanted
    }
}
