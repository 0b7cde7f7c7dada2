//! Telling a device that attached what waits for it: one message after the other, in the order of their arrival.

use super::inbox::Delivery;
use super::*;
use crate::sip::transaction::{NonInviteClient, Timeout, Verdict};

impl Texts {
    /// The device is reachable from now on, or said so again.
    pub(crate) fn handle_attached(&mut self, instance: InstanceId, device: &Device, desk: &mut Desk<'_>, now: Instant) {
        let Some(inbox) = self.inboxes.get_mut(&instance) else { return };
        inbox.woken = false;
        // What went out on another flow than this one is not answered any more.
        let elsewhere = inbox.delivery.as_ref().is_some_and(|delivery| delivery.device.hop != device.hop);
        if elsewhere {
            self.stop_delivery(instance);
        }
        self.keep_legs(instance, Some(&device.hop), true, desk, now);
        self.deliver(instance, device, desk, now);
    }

    /// The device's flow ended.
    pub(crate) fn handle_detached(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        self.stop_delivery(instance);
        self.keep_legs(instance, None, false, desk, now);
        self.wake(instance);
    }

    /// Keeps what is being passed on over any flow but `hop`, and waits for no late answer any more. `attached`: the device is just being told, not woken.
    fn keep_legs(
        &mut self,
        instance: InstanceId,
        hop: Option<&Hop>,
        attached: bool,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(inbox) = self.inboxes.get_mut(&instance) else { return };
        let legs: Vec<TextId> = inbox.legs.iter().copied().collect();
        let woken = inbox.woken;
        inbox.woken |= attached;
        for id in legs {
            let leg = self.transits.get(&id).and_then(|transit| transit.legs.get(&instance));
            let Some(kept) = leg.filter(|leg| leg.kept || Some(&leg.hop) != hop).map(|leg| leg.kept) else { continue };
            if !kept {
                self.keep(id, instance, desk, now);
            }
            self.drop_leg(id, instance);
            self.conclude(id, desk, now);
        }
        if attached && let Some(inbox) = self.inboxes.get_mut(&instance) {
            inbox.woken = woken;
        }
    }

    /// Sends the first message that waits, unless one is on its way.
    pub(super) fn deliver(&mut self, instance: InstanceId, device: &Device, desk: &mut Desk<'_>, now: Instant) {
        self.expire(instance, desk, now);
        let Some(inbox) = self.inboxes.get_mut(&instance) else { return };
        while inbox.delivery.is_none()
            && let Some(text) = inbox.waiting.front()
        {
            let (id, branch) = (text.id, BranchId::mint(desk.shard, desk.random.bytes()));
            let policy = desk.policy;
            let opened = desk.vault.lend_sealed(&text.sealed, instance.as_bytes(), |plain| {
                let request = Message::parse_datagram(plain.to_vec()).ok()?;
                let bytes = passing::write(&request, None, device, branch, &text.name, policy);
                request.wipe();
                bytes
            });
            let Some(bytes) = opened.flatten() else {
                // What cannot be told is not kept for ever: too large for a message, by what we add.
                if let Some(text) = inbox.waiting.pop_front() {
                    desk.vault.discard(text.sealed);
                    desk.tally.text(TextOutcome::Refused);
                    self.held -= 1;
                }
                continue;
            };
            let client = NonInviteClient::new(bytes.clone(), device.transport.is_reliable(), None, now);
            inbox.delivery = Some(Delivery { branch, client, device: device.clone() });
            self.by_branch.insert(branch, Awaited::Delivery(instance));
            self.events.push_back(Event::Send(device.hop.clone(), bytes));
            // An earlier attempt that is still unanswered would only say the same twice.
            self.drop_leg(id, instance);
            self.conclude(id, desk, now);
            break;
        }
        self.reschedule_inbox(instance);
        self.tidy(instance);
    }

    pub(super) fn handle_delivery_response(
        &mut self,
        instance: InstanceId,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(inbox) = self.inboxes.get_mut(&instance) else { return };
        let Some(delivery) = &mut inbox.delivery else { return };
        if delivery.client.handle_response(code, now) != Verdict::Deliver || code.is_provisional() {
            return self.reschedule_inbox(instance);
        }
        // "It has it already" (RFC 3261 §8.2.2.2) is as good as yes: it is the sender's own message, name for name.
        let fate = if code == StatusCode::LOOP_DETECTED { Fate::Taken } else { fate(code) };
        let first = inbox.waiting.front().map(|text| text.id);
        let device = delivery.device.clone();
        self.stop_delivery(instance);
        match fate {
            // The others wait too: they are told in order, at the next attach.
            Fate::Later => return,
            Fate::Taken => desk.tally.text(TextOutcome::Delivered),
            Fate::Refused => desk.tally.text(TextOutcome::Refused),
        }
        if let Some(id) = first {
            self.discard(id, instance, desk);
        }
        self.deliver(instance, &device, desk, now);
    }

    pub(super) fn handle_inbox_timeout(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        if let Some(delivery) = self.inboxes.get_mut(&instance).and_then(|inbox| inbox.delivery.as_mut()) {
            match delivery.client.handle_timeout(now) {
                Timeout::Retransmit => {
                    let again = Event::Send(delivery.device.hop.clone(), delivery.client.request().clone());
                    self.events.push_back(again);
                }
                Timeout::TimedOut => {
                    let hop = delivery.device.hop.clone();
                    self.stop_delivery(instance);
                    self.events.push_back(Event::Silent(instance, hop));
                }
                Timeout::Idle | Timeout::Terminated => {}
            }
        }
        self.expire(instance, desk, now);
        self.reschedule_inbox(instance);
        self.tidy(instance);
    }

    /// What was on its way waits again.
    pub(super) fn stop_delivery(&mut self, instance: InstanceId) {
        let Some(delivery) = self.inboxes.get_mut(&instance).and_then(|inbox| inbox.delivery.take()) else { return };
        self.by_branch.remove(&delivery.branch);
        passing::wipe(delivery.client.into_request());
        self.reschedule_inbox(instance);
    }
}
