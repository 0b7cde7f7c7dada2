//! One branch of a request: the client transaction it left by, where it leads, and how far its cancelling went.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Desk, Event, Farewells};
use crate::clock::Instant;
use crate::engine::device::Device;
use crate::engine::ids::{BranchId, InstanceId, ListenerId};
use crate::engine::output::Hop;
use crate::sip::proxy::{self, OwnVia};
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::transaction::{InviteClient, NonInviteClient, Timeout, Verdict};
use crate::sip::{Message, Method, StatusCode, Transport};

/// Phones behind one flow that may all answer a call nobody waits for.
const FORKS_MAX: usize = 8;

/// The side a request left by.
pub(super) enum Client {
    Invite(InviteClient),
    Other(NonInviteClient),
}

/// A request forwarded, and how.
pub(super) struct Leg {
    pub(super) branch: BranchId,
    pub(super) client: Client,
    pub(super) hop: Hop,
    pub(super) request: Message,
    /// Where our Via says responses go: kept when the request is sent again on another flow.
    pub(super) listener: ListenerId,
    pub(super) cancel: Cancel,
    /// Route values of ours on top of the forwarded request's Record-Route.
    pub(super) own_routes: usize,
    /// Whether the leg leads to the device (else to the trunk).
    pub(super) to_device: bool,
    /// Whose device it is.
    pub(super) instance: InstanceId,
    /// The flow is gone: nothing is repeated until the device is back.
    pub(super) lost: bool,
    /// RFC 3261 §16.8: how long an INVITE may ring.
    pub(super) timer_c: Option<Instant>,
    /// 64·T1 after a CANCEL (RFC 3261 §9.1).
    pub(super) give_up: Option<Instant>,
    /// The phones (by their tags) whose late answers we have ended.
    pub(super) hung_up: Vec<String>,
}

/// How far the cancelling of a leg went.
pub(super) enum Cancel {
    No,
    /// To be sent at the first provisional response (RFC 3261 §9.1), with this Reason.
    Wanted(Option<String>),
    Sent(Box<NonInviteClient>, Option<String>),
}

/// What a leg's timers had to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Nobody said anything until timer B or F.
    pub(super) unanswered: bool,
    /// Timer C.
    pub(super) rang_out: bool,
    /// Cancelled, and no final since.
    pub(super) given_up: bool,
}

impl Leg {
    /// Whether nothing is left to say on it or to absorb.
    pub(super) fn is_over(&self) -> bool {
        self.client.is_over() && self.poll_timeout().is_none()
    }

    /// The next deadline.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let cancel = match &self.cancel {
            Cancel::Sent(client, _) => client.poll_timeout(),
            Cancel::No | Cancel::Wanted(_) => None,
        };
        let of_invite = (!self.client.is_over()).then_some([self.timer_c, self.give_up]).into_iter().flatten();
        let own = [self.client.poll_timeout(), cancel].into_iter().chain(of_invite).flatten().min();
        own.filter(|_| !self.lost)
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, events: &mut VecDeque<Event>, now: Instant) -> Due {
        let mut due = Due::default();
        if self.lost {
            return due;
        }
        if let Cancel::Sent(cancel, _) = &mut self.cancel
            && cancel.handle_timeout(now) == Timeout::Retransmit
        {
            events.push_back(Event::Send(self.hop.clone(), cancel.request().clone()));
        }
        match self.client.handle_timeout(now) {
            Timeout::Retransmit => events.push_back(Event::Send(self.hop.clone(), self.client.request().clone())),
            Timeout::TimedOut => due.unanswered = true,
            Timeout::Idle | Timeout::Terminated => {}
        }
        if !self.client.is_over() {
            due.rang_out = self.timer_c.take_if(|at| *at <= now).is_some();
            due.given_up = self.give_up.take_if(|at| *at <= now).is_some();
        }
        due
    }

    /// Cancels it: now if the device has answered provisionally, else when it does.
    pub(super) fn cancel(&mut self, reason: Option<&str>, events: &mut VecDeque<Event>, now: Instant) {
        if self.client.is_over() || !matches!(self.cancel, Cancel::No) {
            return;
        }
        self.cancel = Cancel::Wanted(reason.map(str::to_owned));
        self.give_up = Some(now + TRANSACTION_TIMEOUT);
        self.timer_c = None;
        self.handle_alive(events, now);
    }

    /// The device let time pass, and may still come: nothing is repeated until it speaks or is back.
    pub(super) fn rest(&mut self, now: Instant) {
        self.lost = true;
        if let Client::Invite(client) = &mut self.client
            && client.is_over()
            && client.final_code().is_none()
        {
            *client = InviteClient::new(client.request().clone(), true, now);
        }
    }

    /// The device answered our CANCEL.
    pub(super) fn handle_cancel_response(&mut self, code: StatusCode, now: Instant) {
        if let Cancel::Sent(cancel, _) = &mut self.cancel {
            let _ = cancel.handle_response(code, now);
        }
    }

    /// The device has spoken, now or before: a CANCEL that waited for it goes out.
    pub(super) fn handle_alive(&mut self, events: &mut VecDeque<Event>, now: Instant) {
        let proceeding = matches!(&self.client, Client::Invite(client) if client.is_proceeding());
        // Where it was last, too: a phone that only seemed gone, or that signed off on a connection that still stands, stops
        // ringing, and one that is gone hears when it is back.
        if let (true, Cancel::Wanted(reason)) = (proceeding, &self.cancel) {
            let reason = reason.clone();
            self.send_cancel(reason, events, now);
        }
    }

    /// The device is on another flow now: what it has not answered is sent there, as the same transaction.
    pub(super) fn move_to(&mut self, device: &Device, events: &mut VecDeque<Event>, now: Instant) {
        self.hop = device.hop.clone();
        self.lost = false;
        self.hung_up.clear();
        if self.client.is_over() {
            return;
        }
        if !matches!(self.cancel, Cancel::No) {
            self.give_up = Some(now + TRANSACTION_TIMEOUT);
        }
        let bytes = self.client.request().clone();
        let reliable = device.transport.is_reliable();
        let heard = self.client.is_heard();
        if heard && let Cancel::Sent(_, reason) | Cancel::Wanted(reason) = &self.cancel {
            let reason = reason.clone();
            self.client = Client::heard(InviteClient::new(bytes, reliable, now), now);
            return self.send_cancel(reason, events, now);
        }
        self.client = Client::new(&self.request, bytes.clone(), reliable, now);
        events.push_back(Event::Send(self.hop.clone(), bytes));
    }

    /// Acknowledges a final other than 2xx.
    pub(super) fn acknowledge(&self, response: &Message, events: &mut VecDeque<Event>) {
        let mut out = Vec::with_capacity(384);
        if proxy::write_ack(&self.request, response, &mut out).is_ok() {
            events.push_back(Event::Send(self.hop.clone(), Bytes::from(out)));
        }
    }

    /// RFC 3261 §16.7 step 5 and §13.2.2.4: a 2xx nobody upstream will hear of is acknowledged and ended by us. Repeated,
    /// it gets the ACK again; the BYE repeats itself.
    pub(super) fn hang_up(
        &mut self,
        response: &Message,
        farewells: &mut Farewells,
        events: &mut VecDeque<Event>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let tag = response.to().ok().and_then(|to| to.tag()).unwrap_or_default();
        let first = !self.hung_up.iter().any(|known| known == tag);
        if first && self.hung_up.len() < FORKS_MAX {
            self.hung_up.push(tag.to_owned());
        }
        let sent_by = desk.policy.listener(self.listener).map_or("", |listener| listener.advertise.as_str());
        let transport = self.request.top_via().ok().and_then(|via| via.transport()).unwrap_or(Transport::Udp);
        let methods = if first { &[Method::Ack, Method::Bye][..] } else { &[Method::Ack] };
        for &method in methods {
            let branch = BranchId::mint(desk.shard, desk.random.bytes());
            let via = OwnVia { transport, sent_by, branch: &branch.branch() };
            let mut out = Vec::with_capacity(384);
            if proxy::write_in_dialog(method, &self.request, response, via, self.own_routes, &mut out).is_err() {
                continue;
            }
            let bytes = Bytes::from(out);
            if method == Method::Bye {
                farewells.add(branch, bytes.clone(), self.hop.clone(), now);
            }
            events.push_back(Event::Send(self.hop.clone(), bytes));
        }
    }

    fn send_cancel(&mut self, reason: Option<String>, events: &mut VecDeque<Event>, now: Instant) {
        let mut out = Vec::with_capacity(384);
        if proxy::write_cancel(&self.request, reason.as_deref(), &mut out).is_err() {
            return;
        }
        let bytes = Bytes::from(out);
        let reliable = !matches!(self.hop, Hop::Datagram { .. });
        let client = NonInviteClient::new(bytes.clone(), reliable, None, now);
        self.cancel = Cancel::Sent(Box::new(client), reason);
        self.give_up = Some(now + TRANSACTION_TIMEOUT);
        events.push_back(Event::Send(self.hop.clone(), bytes));
    }
}

impl Client {
    /// A client transaction of the right kind for a request about to be sent.
    pub(super) fn new(request: &Message, bytes: Bytes, reliable: bool, now: Instant) -> Self {
        match request.method() {
            Some(Method::Invite) => Self::Invite(InviteClient::new(bytes, reliable, now)),
            _ => Self::Other(NonInviteClient::new(bytes, reliable, None, now)),
        }
    }

    /// The client of an INVITE that was answered provisionally before it moved here.
    fn heard(mut client: InviteClient, now: Instant) -> Self {
        let _ = client.handle_response(StatusCode::TRYING, now);
        Self::Invite(client)
    }

    pub(super) fn handle_response(&mut self, code: StatusCode, now: Instant) -> Verdict {
        match self {
            Self::Invite(client) => client.handle_response(code, now),
            Self::Other(client) => client.handle_response(code, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match self {
            Self::Invite(client) => client.handle_timeout(now),
            Self::Other(client) => client.handle_timeout(now),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Invite(client) => client.poll_timeout(),
            Self::Other(client) => client.poll_timeout(),
        }
    }

    fn request(&self) -> &Bytes {
        match self {
            Self::Invite(client) => client.request(),
            Self::Other(client) => client.request(),
        }
    }

    /// Whether the other side has said anything.
    pub(super) fn is_heard(&self) -> bool {
        match self {
            Self::Invite(client) => client.is_proceeding() || client.is_over(),
            Self::Other(client) => client.is_over(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Invite(client) => client.is_over(),
            Self::Other(client) => client.is_over(),
        }
    }
}
