//! Passing a message straight on to a device that listens, and answering its sender.

use zeroize::Zeroize;

use super::transit::{Leg, Origin};
use super::*;
use crate::sip::message::LONG_MESSAGE_MAX;
use crate::sip::proxy::{self, Forward, OwnVia, Reply};
use crate::sip::transaction::{NonInviteClient, Timeout, Verdict};

impl Texts {
    /// Forwards a message to a device (RFC 3261 §16.6), statefully.
    pub(super) fn pass(
        &mut self,
        id: TextId,
        instance: InstanceId,
        device: &Device,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        let Some(origin) = &transit.origin else { return };
        let branch = BranchId::mint(desk.shard, desk.random.bytes());
        let received = Some((origin.source, origin.transport));
        let Some(bytes) = write(&origin.request, received, device, branch, &transit.name, desk.policy) else {
            // Too large with what we add: a device that comes back may be told over a stream.
            return self.keep(id, instance, desk, now);
        };
        let client = NonInviteClient::new(bytes.clone(), device.transport.is_reliable(), None, now);
        transit.legs.insert(instance, Leg { branch, client, hop: device.hop.clone(), kept: false });
        self.by_branch.insert(branch, Awaited::Leg(id, instance));
        let inbox = self.inboxes.entry(instance).or_default();
        inbox.legs.insert(id);
        inbox.open += 1;
        self.held += 1;
        self.events.push_back(Event::Send(device.hop.clone(), bytes));
    }

    pub(super) fn handle_leg_response(
        &mut self,
        id: TextId,
        instance: InstanceId,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        let Some(leg) = transit.legs.get_mut(&instance) else { return };
        if leg.client.handle_response(code, now) != Verdict::Deliver || code.is_provisional() {
            return self.reschedule_transit(id);
        }
        let kept = leg.kept;
        let fate = fate(code);
        if fate == Fate::Refused && transit.refusal.is_none() {
            transit.refusal = Some(response.clone());
        }
        match fate {
            Fate::Taken if transit.answer.is_none() => self.pass_answer(id, response, desk, now),
            Fate::Later if !kept => self.keep(id, instance, desk, now),
            _ => {}
        }
        match fate {
            Fate::Later => {}
            Fate::Taken => desk.tally.text(if kept { TextOutcome::Delivered } else { TextOutcome::Passed }),
            Fate::Refused => desk.tally.text(TextOutcome::Refused),
        }
        if kept && fate != Fate::Later {
            self.discard(id, instance, desk);
        }
        self.drop_leg(id, instance);
        self.conclude(id, desk, now);
    }

    /// Patience is over, a transaction wants its timer, or the message is forgotten.
    pub(super) fn handle_transit_timeout(&mut self, id: TextId, desk: &mut Desk<'_>, now: Instant) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        let mut silent = Vec::new();
        let mut impatient = Vec::new();
        for (&instance, leg) in &mut transit.legs {
            match leg.client.handle_timeout(now) {
                Timeout::Retransmit => {
                    self.events.push_back(Event::Send(leg.hop.clone(), leg.client.request().clone()));
                }
                Timeout::TimedOut | Timeout::Terminated => silent.push((instance, leg.hop.clone())),
                Timeout::Idle => {}
            }
            if !leg.kept && transit.patience <= now {
                impatient.push(instance);
            }
        }
        for instance in impatient {
            self.keep(id, instance, desk, now);
        }
        for (instance, hop) in silent {
            self.drop_leg(id, instance);
            self.events.push_back(Event::Silent(instance, hop));
        }
        self.conclude(id, desk, now);
        let over = self.transits.get(&id).and_then(|transit| transit.answered_at).is_some_and(|at| at + LINGER <= now);
        if over {
            self.end_legs(id);
            self.remove_transit(id);
        }
    }

    /// Answers the sender, if everything is decided that has to be: 202 where the message is kept for somebody, else the
    /// refusal of a device, else 480.
    pub(super) fn conclude(&mut self, id: TextId, desk: &mut Desk<'_>, now: Instant) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        if transit.answer.is_none() && !transit.is_undecided() {
            match transit.refusal.take() {
                _ if transit.kept => self.answer(id, StatusCode::ACCEPTED, desk, now),
                Some(refusal) => self.pass_answer(id, &refusal, desk, now),
                None => self.answer(id, StatusCode::TEMPORARILY_UNAVAILABLE, desk, now),
            }
        }
        let Some(transit) = self.transits.get_mut(&id) else { return };
        if transit.answer.is_some() && !transit.is_undecided() {
            // Whoever sleeps has a sealed copy: the open one is not needed any more.
            if let Some(origin) = transit.origin.take() {
                origin.request.wipe();
            }
            if transit.legs.is_empty() {
                self.idle.insert(id);
            }
        }
        self.reschedule_transit(id);
    }

    /// The message is not awaited on this leg any more.
    pub(super) fn drop_leg(&mut self, id: TextId, instance: InstanceId) {
        let Some(leg) = self.transits.get_mut(&id).and_then(|transit| transit.legs.remove(&instance)) else { return };
        self.by_branch.remove(&leg.branch);
        if let Some(inbox) = self.inboxes.get_mut(&instance) {
            inbox.legs.remove(&id);
            if !leg.kept {
                inbox.open -= 1;
                self.held -= 1;
            }
        }
        wipe(leg.client.into_request());
        self.tidy(instance);
    }

    fn end_legs(&mut self, id: TextId) {
        let Some(transit) = self.transits.get(&id) else { return };
        let instances: Vec<InstanceId> = transit.legs.keys().copied().collect();
        for instance in instances {
            self.drop_leg(id, instance);
        }
    }

    pub(super) fn reschedule_transit(&mut self, id: TextId) {
        let due = self.transits.get(&id).and_then(Transit::poll_timeout);
        self.schedule.set(Deadline::Transit(id), due);
    }

    /// Gives the sender, and everyone with a copy, an answer of our own.
    fn answer(&mut self, id: TextId, code: StatusCode, desk: &Desk<'_>, now: Instant) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        let Some(origin) = transit.origin.take() else { return };
        let bytes = write_reply(&origin, code, desk);
        self.conclude_with(id, code, bytes, origin, desk, now);
    }

    /// Gives the sender the device's answer; copies get one of ours with the same code.
    fn pass_answer(&mut self, id: TextId, response: &Message, desk: &Desk<'_>, now: Instant) {
        let Some(code) = response.status() else { return };
        let Some(origin) = self.transits.get_mut(&id).and_then(|transit| transit.origin.take()) else { return };
        let mut out = Vec::with_capacity(response.bytes().len());
        proxy::write_forward_response(response, None, &mut out);
        // What the device adds must not be more than the source has paid for; a plain answer is shorter.
        let bytes = if origin.affords(out.len()) { Bytes::from(out) } else { write_reply(&origin, code, desk) };
        self.conclude_with(id, code, bytes, origin, desk, now);
    }

    fn conclude_with(
        &mut self,
        id: TextId,
        code: StatusCode,
        bytes: Bytes,
        origin: Origin,
        desk: &Desk<'_>,
        now: Instant,
    ) {
        let Some(transit) = self.transits.get_mut(&id) else { return };
        transit.answer = Some((code, bytes.clone()));
        transit.answered_at = Some(now);
        let copies = std::mem::take(&mut transit.copies);
        self.send_back(&origin, bytes);
        for copy in &copies {
            self.reply(copy, code, desk);
        }
        if let Some(transit) = self.transits.get_mut(&id) {
            transit.origin = Some(origin);
        }
    }

    /// Answers a request without remembering it.
    pub(super) fn reply(&mut self, origin: &Origin, code: StatusCode, desk: &Desk<'_>) {
        let bytes = write_reply(origin, code, desk);
        self.send_back(origin, bytes);
    }

    pub(super) fn send_back(&mut self, origin: &Origin, bytes: Bytes) {
        if !bytes.is_empty() && origin.affords(bytes.len()) {
            self.events.push_back(Event::Send(origin.back.clone(), bytes));
        }
    }
}

/// Overwrites a message that went out, if it is in nobody's hands any more.
pub(super) fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}

/// An answer of our own; empty where the request cannot be answered.
fn write_reply(origin: &Origin, code: StatusCode, desk: &Desk<'_>) -> Bytes {
    let tag = desk.tags.of(&origin.request);
    let mut out = Vec::with_capacity(384);
    let reply = Reply { code, to_tag: Some(&tag), source: Some(origin.source), record_route: false, extra: &[] };
    match proxy::write_reply(&origin.request, &reply, &mut out) {
        Ok(()) => Bytes::from(out),
        Err(_) => Bytes::new(),
    }
}

/// A message as its device gets it: the sender's own, with the name we gave it. `None`: too large.
pub(super) fn write(
    request: &Message,
    received: Option<(std::net::SocketAddr, crate::sip::Transport)>,
    device: &Device,
    branch: BranchId,
    name: &str,
    policy: &Policy,
) -> Option<Bytes> {
    let sent_by = policy.listener(device.listener).map_or("", |listener| listener.advertise.as_str());
    let change = Forward {
        request_uri: &device.contact,
        via: OwnVia { transport: device.transport, sent_by, branch: &branch.branch() },
        routes_dropped: 0,
        record_routes: &[],
        extra: &[("Reveille-Message", name.to_owned())],
    };
    let mut out = Vec::with_capacity(request.bytes().len() + 512);
    proxy::write_forward(request, received, &change, &mut out);
    (out.len() <= LONG_MESSAGE_MAX).then(|| Bytes::from(out))
}
