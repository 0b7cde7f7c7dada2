//! Where text messages and mailboxes meet the other rooms: who is behind a capability, where its device is, and the wake.

use super::edge;
use super::engine::{Drain, Effect, Engine};
use super::ids::{BranchId, InstanceId};
use super::input::Arrival;
use super::mailboxes::{self, Audience, Mailboxes};
use super::output::{Hop, PushOutcome, Unsent, WakeDetail, WakeKind};
use super::permits::{Class, Want};
use super::register;
use super::texts::{self, Incoming, Recipient, Texts};
use super::wakes;
use crate::clock::Now;
use crate::sip::mailbox::EVENT;
use crate::sip::{HeaderName, Message, StatusCode};

impl Engine {
    /// A MESSAGE to a capability, outside a dialog: for each device that shares the account.
    pub(super) fn handle_text(
        &mut self,
        request: Message,
        arrival: &Arrival,
        back: Hop,
        callees: &[InstanceId],
        now: Now,
    ) {
        let recipient = |&instance: &InstanceId| Recipient { instance, device: self.edge.device(instance).cloned() };
        let recipients = callees.iter().map(recipient).collect();
        let draining = self.draining != Drain::No;
        let incoming = Incoming { request, arrival, back, recipients, draining };
        let (texts, mut desk) = self.for_texts();
        texts.handle_message(incoming, &mut desk, now);
    }

    /// Tells the rooms of this part what the edge says of a device.
    pub(super) fn tell_texts(&mut self, event: &edge::Event, now: Now) {
        match *event {
            edge::Event::Attached(instance) => {
                let Some(device) = self.edge.device(instance).cloned() else { return };
                let (texts, mut desk) = self.for_texts();
                texts.handle_attached(instance, &device, &mut desk, now.boot);
            }
            edge::Event::Detached(instance) => {
                let (texts, mut desk) = self.for_texts();
                texts.handle_detached(instance, &mut desk, now.boot);
            }
            edge::Event::Send(..) | edge::Event::Proven(..) => {}
        }
    }

    pub(super) fn route_texts(&mut self, now: Now) -> bool {
        use texts::Event;
        let Some(event) = self.texts.poll_event() else { return false };
        match event {
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Wake(instance) => {
                let sent = self.wake_about(instance, WakeKind::Message, WakeDetail::None, now);
                self.texts.handle_wake(instance, sent);
            }
            // Where the device has come by another flow meanwhile, that one counts.
            Event::Silent(instance, hop) => {
                if self.edge.device(instance).is_some_and(|device| device.hop == hop) {
                    self.edge.handle_silence(instance, now.boot);
                } else if self.pass.device(instance, now.boot).is_some_and(|device| device.hop == hop) {
                    self.pass.handle_silence(instance, now.boot);
                }
            }
        }
        true
    }

    /// What became of a wake that this part asked for.
    pub(super) fn handle_text_pushed(&mut self, instance: InstanceId, kind: WakeKind, outcome: &PushOutcome) {
        if kind == WakeKind::Message {
            self.texts.handle_wake(instance, *outcome == PushOutcome::Accepted);
        }
    }

    /// A NOTIFY about a mailbox, to a capability. `None`: it is about something else.
    ///
    /// Inside a subscription it is for the device that asked for it; unsolicited, for each that shares the account.
    pub(super) fn handle_mailbox_notify(
        &mut self,
        request: &Message,
        callees: &[InstanceId],
        now: Now,
    ) -> Option<StatusCode> {
        if !event_package(request).eq_ignore_ascii_case(EVENT.as_bytes()) {
            return None;
        }
        let inside = request.to().is_ok_and(|to| to.tag().is_some());
        for &id in callees {
            let device = self.edge.device(id).cloned();
            let Self { shard, policy, random, vault, tally, leases, mailboxes, .. } = self;
            let mut desk = register::Desk { shard: *shard, policy, random, vault, tally };
            let Some(instance) = leases.get(id) else { continue };
            let audience = Audience { instance: id, aor: &instance.account.aor, device };
            if !inside {
                mailboxes.handle_unsolicited(audience, request, &mut desk, now.boot);
                continue;
            }
            let code = mailboxes.handle_notify(audience, request, &mut desk, now.boot);
            if code != StatusCode::CALL_DOES_NOT_EXIST {
                return Some(code);
            }
        }
        Some(if inside { StatusCode::CALL_DOES_NOT_EXIST } else { StatusCode::OK })
    }

    /// Subscribes to the instance's mailbox where it wants that, and is registered.
    pub(super) fn review_mailbox(&mut self, id: InstanceId, now: Now) {
        let wanted = self.leases.get(id).is_some_and(|instance| instance.preferences.voicemail_subscribe);
        self.at_mailbox(id, now, |mailboxes, registered, desk| {
            mailboxes.review(id, wanted, registered, desk, now.boot);
        });
    }

    /// The instance is about to leave its binding, and is still registered by it: its subscription ends there.
    pub(super) fn leave_mailbox(&mut self, id: InstanceId, now: Now) {
        self.at_mailbox(id, now, |mailboxes, registered, desk| {
            mailboxes.review(id, false, registered, desk, now.boot);
        });
    }

    /// The instance is being erased; its binding is still there.
    pub(super) fn forget_mailbox(&mut self, id: InstanceId, now: Now) {
        self.at_mailbox(id, now, |mailboxes, registered, desk| mailboxes.forget(id, registered, desk, now.boot));
    }

    pub(super) fn handle_mailbox_timeouts(&mut self, now: Now) {
        while let Some(due) = self.mailboxes.pop_due(now.boot) {
            self.at_mailbox(due.0, now, |mailboxes, registered, desk| {
                mailboxes.handle_due(due, registered, desk, now.boot);
            });
        }
    }

    /// A response whose branch may be of this part. `false`: it is not.
    pub(super) fn handle_text_response(&mut self, branch: BranchId, response: &Message, now: Now) -> bool {
        let (texts, mut desk) = self.for_texts();
        if texts.handle_response(branch, response, &mut desk, now.boot) {
            return true;
        }
        let Some(id) = self.mailboxes.whose(branch) else { return false };
        let binding = self.leases.get(id).map(|instance| instance.binding);
        let Self { shard, policy, random, vault, tally, bindings, erasures, mailboxes, .. } = self;
        let mut desk = register::Desk { shard: *shard, policy, random, vault, tally };
        let registered = binding.and_then(|binding| bindings.registered(binding, now.boot));
        let registered = registered.map(|registered| registered.identity);
        // What was asked at a place the instance has left is signed by what it was there.
        let known = [registered, erasures.departing(id), erasures.identity(id)];
        let identity = known.into_iter().flatten().find(|identity| mailboxes.speaks_for(branch, identity));
        mailboxes.handle_response(branch, response, identity, &mut desk, now.boot);
        true
    }

    pub(super) fn route_mailboxes(&mut self, now: Now) -> bool {
        use mailboxes::Event;
        let Some(event) = self.mailboxes.poll_event() else { return false };
        match event {
            Event::Want(destination, asker) => {
                let want = Want::new(Class::Subscription, 0, now.boot);
                self.destinations.want(destination, asker, want, &mut self.random, now.boot);
            }
            Event::Withdraw(destination, asker) => {
                self.destinations.withdraw(destination, asker, &mut self.random, now.boot);
            }
            Event::Report(destination, used) => {
                self.destinations.report(destination, used, &mut self.random, now.boot);
            }
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Wake(instance, summary) => {
                let detail = WakeDetail::Voicemail { new: summary.new, old: summary.old };
                // No target for it is no fault: the app asks its mailbox when it is used.
                let _ = self.wake_about(instance, WakeKind::Voicemail, detail, now);
            }
        }
        true
    }

    pub(super) fn at_mailbox(
        &mut self,
        id: InstanceId,
        now: Now,
        act: impl FnOnce(&mut Mailboxes, Option<register::Registered<'_>>, &mut register::Desk<'_>),
    ) {
        let binding = self.leases.get(id).map(|instance| instance.binding);
        let Self { shard, policy, random, vault, tally, bindings, mailboxes, .. } = self;
        let mut desk = register::Desk { shard: *shard, policy, random, vault, tally };
        act(mailboxes, binding.and_then(|binding| bindings.registered(binding, now.boot)), &mut desk);
    }

    /// Sends a wake that is about no call. `false`: the device has no target for it, or its tenant does not want it.
    fn wake_about(&mut self, instance: InstanceId, kind: WakeKind, detail: WakeDetail, now: Now) -> bool {
        let sent = self.send_wake(instance, wakes::Reason::plain(kind, detail), now);
        matches!(sent, Ok(_) | Err(Unsent::Told))
    }

    pub(super) fn for_texts(&mut self) -> (&mut Texts, texts::Desk<'_>) {
        let Self { shard, policy, random, vault, tally, tags, texts, .. } = self;
        (texts, texts::Desk { shard: *shard, policy, random, vault, tally, tags })
    }
}

/// The package of Event, parameters cut off.
pub(super) fn event_package(request: &Message) -> &[u8] {
    let event = request.header(HeaderName::Event).unwrap_or_default();
    event.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}
