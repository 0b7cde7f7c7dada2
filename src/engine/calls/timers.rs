//! What time does to calls.

use super::held::{Progress, Wake};
use super::*;
use crate::sip::Method;
use crate::sip::transaction::Timeout;

impl Calls {
    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, desk: &mut Desk<'_>, now: Instant) {
        while let Some((id, timer)) = self.schedule.pop_due(now) {
            match timer {
                Timer::Transaction => self.handle_transaction_timeout(id, desk, now),
                Timer::Hold => self.handle_hold_timeout(id, desk, now),
                Timer::Silence => self.wake_beside(id),
                Timer::C => self.handle_timer_c(id, desk, now),
                Timer::Cancel => self.handle_cancel_timeout(id, desk, now),
            }
        }
        let again = self.farewells.handle_timeout(now);
        self.events.extend(again.into_iter().map(|(hop, bytes)| Event::Send(hop, bytes)));
        self.dialogs.handle_timeout(now);
        while let Some(key) = self.ended_until.pop_due(now) {
            self.ended.remove(&key);
        }
    }

    fn handle_transaction_timeout(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if relay.server.handle_timeout(now) == Timeout::Retransmit
            && let Some(bytes) = relay.server.last().cloned()
            && relay.allowance.spend(bytes.len())
        {
            self.events.push_back(Event::Send(relay.back.clone(), bytes));
        }
        let mut unanswered = false;
        if let Some(leg) = &mut relay.leg {
            if let Cancel::Sent(cancel) = &mut leg.cancel
                && cancel.handle_timeout(now) == Timeout::Retransmit
            {
                self.events.push_back(Event::Send(leg.hop.clone(), cancel.request().clone()));
            }
            match leg.client.handle_timeout(now) {
                Timeout::Retransmit => {
                    self.events.push_back(Event::Send(leg.hop.clone(), leg.client.request().clone()));
                }
                Timeout::TimedOut => unanswered = true,
                Timeout::Idle | Timeout::Terminated => {}
            }
        }
        if unanswered {
            self.handle_unanswered(id, desk, now);
        }
        self.settle(id, now);
    }

    /// The next hop said nothing at all until timer B or F.
    fn handle_unanswered(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(relay) = self.relays.get(&id) else { return };
        let instance = relay.instance;
        if self.held.contains_key(&id) {
            // The flow is dead without having been closed: the call waits for the device again.
            self.events.push_back(Event::Silent(instance));
            self.handle_detached(instance, desk, now);
        } else if relay.request.method() == Some(Method::Invite) {
            self.refuse(id, StatusCode::REQUEST_TIMEOUT, now);
        } else {
            // RFC 4320 §4.1: no 408 for anything but INVITE; the other side has timed out as well.
            self.remove(id);
        }
    }

    fn handle_hold_timeout(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get(&id) else { return };
        if held.stage != Progress::Waiting {
            return;
        }
        let outcome = if held.wake == Wake::Failed { CallOutcome::NoPush } else { CallOutcome::NoDevice };
        self.refuse(id, StatusCode::TEMPORARILY_UNAVAILABLE, now);
        self.finish(id, outcome, "no-device", desk, now);
        self.settle(id, now);
    }

    /// The device rings for ever: end it, on both sides.
    fn handle_timer_c(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        self.cancel_leg(id, None, now);
        self.refuse(id, StatusCode::REQUEST_TIMEOUT, now);
        self.finish(id, CallOutcome::Failed, "no-answer", desk, now);
        self.settle(id, now);
    }

    /// A cancelled call whose device gave no final in time (RFC 3261 §9.1), or that was never forwarded.
    fn handle_cancel_timeout(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        if self.relays.get(&id).is_some_and(|relay| !relay.is_answered()) {
            self.end_cancelled(id, desk, now);
        }
        if let Some(relay) = self.relays.get_mut(&id)
            && relay.leg.as_ref().is_some_and(|leg| !leg.client.is_over())
        {
            relay.leg = None;
        }
        self.settle(id, now);
    }
}
