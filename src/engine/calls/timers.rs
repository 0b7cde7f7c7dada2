//! What time does to calls.

use super::callee::Progress;
use super::leg::Due;
use super::*;
use crate::sip::transaction::Timeout;

impl Calls {
    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, desk: &mut Desk<'_>, now: Instant) {
        while let Some(id) = self.schedule.pop_due(now) {
            self.handle_server_timeout(id, now);
            self.handle_legs_timeout(id, desk, now);
            self.handle_hold_timeout(id, desk, now);
            self.wake_silent(id, now);
            self.wake_again(id, now);
            self.handle_no_return(id, desk, now);
            self.settle(id);
        }
        let again = self.farewells.handle_timeout(now);
        self.events.extend(again.into_iter().map(|(hop, bytes)| Event::Send(hop, bytes)));
        self.orphans.handle_timeout(&mut self.events, now);
        self.dialogs.handle_timeout(now);
        self.refused.handle_timeout(now);
        self.ended.handle_timeout(now);
    }

    fn handle_server_timeout(&mut self, id: RelayId, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if relay.server.handle_timeout(now) == Timeout::Retransmit
            && let Some(bytes) = relay.server.last().cloned()
            && relay.allowance.spend(bytes.len())
        {
            self.events.push_back(Event::Send(relay.back.clone(), bytes));
        }
    }

    fn handle_legs_timeout(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let events = &mut self.events;
        let due: Vec<(InstanceId, Due)> = relay
            .legs
            .iter_mut()
            .map(|leg| (leg.instance, leg.handle_timeout(events, now)))
            .filter(|(_, due)| *due != Due::default())
            .collect();
        for (instance, due) in due {
            match self.held.get(&id).map(|held| held.place_of(instance)) {
                Some(Some(place)) => self.handle_callee_timeout(id, place, due, desk, now),
                Some(None) => {}
                None => self.handle_inside_timeout(id, due, now),
            }
        }
    }

    /// A device that was sent the INVITE let time pass.
    fn handle_callee_timeout(&mut self, id: RelayId, place: usize, due: Due, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get(&id) else { return };
        let (instance, cancelled) = (held.callees[place].instance, held.cancelled);
        if due.unanswered {
            // The flow is dead without having been closed: its calls wait for the device again.
            self.events.push_back(Event::Silent(instance));
            return self.handle_detached(instance, desk, now);
        }
        let why = match cancelled {
            Some(why) => why,
            // It rings for ever: end it, on both sides.
            None => {
                self.offer(id, Best::own(StatusCode::REQUEST_TIMEOUT, Why::NoAnswer));
                Why::NoAnswer
            }
        };
        self.end_callee(id, place, why, now);
        self.conclude(id, desk, now);
    }

    /// A request inside a dialog whose next hop let time pass.
    fn handle_inside_timeout(&mut self, id: RelayId, due: Due, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if relay.request.method() != Some(Method::Invite) {
            // RFC 4320 §4.1: no 408 for anything but INVITE; the other side has timed out as well.
            return self.remove(id);
        }
        let code = if due.given_up { StatusCode::REQUEST_TERMINATED } else { StatusCode::REQUEST_TIMEOUT };
        for mut leg in std::mem::take(&mut relay.legs) {
            self.by_branch.remove(&leg.branch);
            leg.cancel(None, &mut self.events, now);
            self.orphans.add(leg, now);
        }
        self.refuse(id, code, now);
    }

    fn handle_hold_timeout(&mut self, id: RelayId, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get_mut(&id).filter(|held| !held.overdue && held.deadline <= now) else { return };
        held.overdue = true;
        // Who rings may go on ringing; nobody else is waited for.
        if held.callees.iter().any(|called| called.stage == Progress::Waiting) {
            self.conclude(id, desk, now);
        }
    }
}
