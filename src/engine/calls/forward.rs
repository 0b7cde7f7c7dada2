//! Forwarding: requests out, responses back (RFC 3261 §16.6 and §16.7).

use super::held::{Progress, Wake};
use super::relay::{Client, Leg};
use super::*;
use crate::engine::ids::ListenerId;
use crate::sip::proxy::{Forward, OwnVia};
use crate::sip::transaction::Verdict;
use crate::sip::{HeaderName, Method, Transport};

use super::dialogs::Dialog;

/// Phones behind one flow that may all answer a call nobody waits for.
const FORKS_MAX: usize = 8;

/// Where a request leaves to.
pub(super) struct Way {
    pub(super) hop: Hop,
    pub(super) listener: ListenerId,
    pub(super) transport: Transport,
    pub(super) to_device: bool,
}

/// What a forwarded request carries besides.
pub(super) struct Carried {
    pub(super) request_uri: Vec<u8>,
    pub(super) routes_dropped: usize,
    pub(super) record_routes: Vec<String>,
    pub(super) extra: Vec<(&'static str, String)>,
}

impl Calls {
    /// Sends the held INVITE to its device: as the same transaction, if it went out before.
    pub(super) fn forward_call(&mut self, id: RelayId, device: &Device, desk: &mut Desk<'_>, now: Instant) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if let Some(leg) = relay.leg.take() {
            held.sent_as = Some((leg.branch, leg.listener));
        }
        let again = held.sent_as;
        if held.stage == Progress::Waiting {
            held.stage = Progress::Forwarded;
        }
        let uuid = held.uuid;
        if again.is_none() {
            desk.tally.stage(Stage::Forwarded, now.saturating_since(held.invited));
        }
        let Some(dialog) = self.dialog_of(id, desk, now) else { return };
        let record_routes = self.record_routes(id, dialog, device, desk);
        let way = Way {
            hop: device.hop.clone(),
            listener: again.map_or(device.listener, |(_, listener)| listener),
            transport: device.transport,
            to_device: true,
        };
        let carried = Carried {
            request_uri: device.contact.clone(),
            routes_dropped: 0,
            record_routes,
            extra: vec![("Reveille-Call", uuid.to_string())],
        };
        self.send_on(id, &way, &carried, again.map(|(branch, _)| branch), desk, now);
        if self.relays.get(&id).is_some_and(Relay::is_answered) {
            self.finish(id, CallOutcome::Failed, "failed", desk, now);
        }
    }

    /// Forwards a relay's request and starts its client transaction.
    pub(super) fn send_on(
        &mut self,
        id: RelayId,
        way: &Way,
        carried: &Carried,
        branch: Option<BranchId>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let branch = branch.unwrap_or_else(|| BranchId::mint(desk.shard, desk.random.bytes()));
        let sent_by = desk.policy.listener(way.listener).map_or("", |listener| listener.advertise.as_str());
        let change = Forward {
            request_uri: &carried.request_uri,
            via: OwnVia { transport: way.transport, sent_by, branch: &branch.branch() },
            routes_dropped: carried.routes_dropped,
            record_routes: &carried.record_routes,
            extra: &carried.extra,
        };
        let mut out = Vec::with_capacity(relay.request.bytes().len() + 512);
        proxy::write_forward(&relay.request, Some((relay.source, relay.transport)), &change, &mut out);
        let Ok(request) = Message::parse_datagram(out) else {
            // What we add can push a request over the limits of a message.
            return self.refuse(id, StatusCode::MESSAGE_TOO_LARGE, now);
        };
        let bytes = request.bytes().clone();
        relay.leg = Some(Leg {
            branch,
            client: Client::new(&request, bytes.clone(), way.transport.is_reliable(), now),
            hop: way.hop.clone(),
            request,
            listener: way.listener,
            cancel: Cancel::No,
            own_routes: carried.record_routes.len(),
            to_device: way.to_device,
        });
        relay.branch = Some(branch);
        if relay.request.method() == Some(Method::Invite) {
            self.schedule.set((id, Timer::C), Some(now + TIMER_C));
        }
        self.by_branch.insert(branch, id);
        self.events.push_back(Event::Send(way.hop.clone(), bytes));
        self.reschedule(id);
    }

    /// A response whose branch may be ours. `false`: it is not.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(&id) = self.by_branch.get(&branch) else {
            return response.status().is_some_and(|code| self.farewells.handle_response(branch, code));
        };
        let (Some(relay), Some(code), Ok(cseq)) = (self.relays.get_mut(&id), response.status(), response.cseq()) else {
            return true;
        };
        let Some(leg) = &mut relay.leg else { return true };
        if leg.request.call_id().ok() != response.call_id().ok() {
            return true;
        }
        if cseq.method == Method::Cancel {
            if let Cancel::Sent(cancel) = &mut leg.cancel {
                let _ = cancel.handle_response(code, now);
            }
            self.settle(id, now);
            return true;
        }
        // The same INVITE reached the phone twice, on the old flow and the new one: it rings for the first.
        let again = self.held.get(&id).is_some_and(|held| held.sent_as.is_some());
        if again && code == StatusCode::LOOP_DETECTED {
            // No final, but a sign of life: nothing more is repeated towards it.
            let _ = leg.client.handle_response(StatusCode::TRYING, now);
            self.acknowledge(id, response);
            self.settle(id, now);
            return true;
        }
        match leg.client.handle_response(code, now) {
            Verdict::Absorb => {}
            Verdict::Ack => self.acknowledge(id, response),
            Verdict::DeliverAndAck => {
                self.acknowledge(id, response);
                self.deliver(id, response, code, desk, now);
            }
            Verdict::Deliver => self.deliver(id, response, code, desk, now),
        }
        self.settle(id, now);
        true
    }

    fn deliver(&mut self, id: RelayId, response: &Message, code: StatusCode, desk: &mut Desk<'_>, now: Instant) {
        if code.is_provisional() {
            self.deliver_provisional(id, response, code, desk, now);
        } else if code.is_success() {
            self.deliver_success(id, response, code, desk, now);
        } else {
            self.deliver_failure(id, response, code, desk, now);
        }
    }

    fn deliver_provisional(
        &mut self,
        id: RelayId,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        self.schedule.remove((id, Timer::Silence));
        if matches!(relay.leg.as_ref().map(|leg| &leg.cancel), Some(Cancel::Wanted(_))) {
            self.send_cancel(id, now);
        }
        let Some(relay) = self.relays.get_mut(&id) else { return };
        if code == StatusCode::TRYING || relay.is_answered() {
            return;
        }
        let bytes = relay.pass(response, code, now);
        self.events.extend(bytes.map(|bytes| Event::Send(relay.back.clone(), bytes)));
        if relay.request.method() == Some(Method::Invite) {
            self.schedule.set((id, Timer::C), Some(now + TIMER_C));
        }
        if let Some(held) = self.held.get_mut(&id)
            && held.stage == Progress::Forwarded
        {
            held.stage = Progress::Ringing;
            desk.tally.stage(Stage::Ringing, now.saturating_since(held.invited));
        }
    }

    fn deliver_success(
        &mut self,
        id: RelayId,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let refused = relay.server.final_code().is_some_and(|code| !code.is_success());
        let invite = matches!(relay.request.method(), Some(Method::Invite));
        if invite && refused {
            return self.hang_up(id, response, desk, now);
        }
        let bye = matches!(relay.request.method(), Some(Method::Bye));
        let dialog = relay.dialog;
        let bytes = relay.pass(response, code, now);
        self.events.extend(bytes.map(|bytes| Event::Send(relay.back.clone(), bytes)));
        if let (true, Some(dialog)) = (bye, dialog) {
            self.end_dialog(dialog, now);
        }
        self.prolong_outgoing(id, response, desk, now);
        if let Some(held) = self.held.get_mut(&id) {
            held.stage = Progress::Answered;
            self.finish(id, CallOutcome::Answered, "", desk, now);
        }
    }

    fn deliver_failure(
        &mut self,
        id: RelayId,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let to_device = relay.leg.as_ref().is_some_and(|leg| leg.to_device);
        let bye = matches!(relay.request.method(), Some(Method::Bye));
        let dialog = relay.dialog;
        if !relay.is_answered() {
            // A phone's 503 speaks of the phone, not of us: upstream it would take the whole process for full.
            let shown = if to_device && code == StatusCode::SERVICE_UNAVAILABLE {
                StatusCode::SERVER_INTERNAL_ERROR
            } else {
                code
            };
            let bytes = relay.pass(response, shown, now);
            self.events.extend(bytes.map(|bytes| Event::Send(relay.back.clone(), bytes)));
        }
        if let (true, Some(dialog)) = (bye, dialog) {
            self.end_dialog(dialog, now);
        }
        let Some(held) = self.held.get(&id) else { return };
        let (outcome, reason) = match (code.code(), held.cancelled) {
            (_, Some(reason)) => (CallOutcome::Cancelled, reason),
            (486 | 600 | 603, None) => (CallOutcome::Declined, "declined"),
            (480, None) => (CallOutcome::NoDevice, "no-answer"),
            _ => (CallOutcome::Failed, "failed"),
        };
        self.finish(id, outcome, reason, desk, now);
    }

    /// RFC 3261 §16.7 step 5 and §13.2.2.4: a 2xx nobody upstream will hear of is acknowledged and ended by us. Repeated,
    /// it gets the ACK again; the BYE repeats itself.
    fn hang_up(&mut self, id: RelayId, response: &Message, desk: &mut Desk<'_>, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let Some(leg) = relay.leg.as_ref() else { return };
        let tag = response.to().ok().and_then(|to| to.tag()).unwrap_or_default();
        let first = !relay.hung_up.iter().any(|known| known == tag);
        if first && relay.hung_up.len() < FORKS_MAX {
            relay.hung_up.push(tag.to_owned());
        }
        let sent_by = desk.policy.listener(leg.listener).map_or("", |listener| listener.advertise.as_str());
        let transport = leg.request.top_via().ok().and_then(|via| via.transport()).unwrap_or(Transport::Udp);
        let methods = if first { &[Method::Ack, Method::Bye][..] } else { &[Method::Ack] };
        for &method in methods {
            let branch = BranchId::mint(desk.shard, desk.random.bytes());
            let via = OwnVia { transport, sent_by, branch: &branch.branch() };
            let mut out = Vec::with_capacity(384);
            if proxy::write_in_dialog(method, &leg.request, response, via, leg.own_routes, &mut out).is_err() {
                continue;
            }
            let bytes = Bytes::from(out);
            if method == Method::Bye {
                self.farewells.add(branch, bytes.clone(), leg.hop.clone(), now);
            }
            self.events.push_back(Event::Send(leg.hop.clone(), bytes));
        }
    }

    fn acknowledge(&mut self, id: RelayId, response: &Message) {
        let Some(leg) = self.relays.get(&id).and_then(|relay| relay.leg.as_ref()) else { return };
        let mut out = Vec::with_capacity(384);
        if proxy::write_ack(&leg.request, response, &mut out).is_ok() {
            self.events.push_back(Event::Send(leg.hop.clone(), Bytes::from(out)));
        }
    }

    /// The dialog a call will have, remembered once.
    fn dialog_of(&mut self, id: RelayId, desk: &Desk<'_>, now: Instant) -> Option<super::super::route_token::DialogId> {
        let relay = self.relays.get_mut(&id)?;
        if let Some(dialog) = relay.dialog {
            return Some(dialog);
        }
        let request = &relay.request;
        let dialog = Dialog {
            instance: relay.instance,
            call_id: request.call_id().ok()?.to_vec(),
            caller_tag: request.from().ok()?.tag().unwrap_or_default().to_owned(),
            trunk: in_dialog::trunk_hop(request, &relay.back, relay.source, relay.listener, desk.policy),
            trunk_listener: relay.listener,
            trunk_lost: false,
            outgoing: false,
        };
        let opened = self.dialogs.open(dialog, desk.policy.limits.dialog_max, now);
        relay.dialog = Some(opened);
        Some(opened)
    }

    /// Our Record-Route values, topmost first: facing the device, and facing the trunk where transport, address or family
    /// differ (RFC 5658).
    fn record_routes(
        &self,
        id: RelayId,
        dialog: super::super::route_token::DialogId,
        device: &Device,
        desk: &Desk<'_>,
    ) -> Vec<String> {
        let (Some(token), Some(relay)) = (self.dialogs.token(dialog), self.relays.get(&id)) else { return Vec::new() };
        let uri = |listener: ListenerId, transport: Transport| {
            let advertise = desk.policy.listener(listener).map_or("", |listener| listener.advertise.as_str());
            format!("<sip:{token}@{advertise};transport={};lr>", transport.as_param())
        };
        let facing_device = uri(device.listener, device.transport);
        let facing_trunk = uri(relay.listener, relay.transport);
        if facing_device == facing_trunk { vec![facing_device] } else { vec![facing_device, facing_trunk] }
    }

    /// The silent device gets a wake beside the INVITE that is on its way.
    pub(super) fn wake_beside(&mut self, id: RelayId) {
        let wanted = self.held.get(&id).is_some_and(|held| held.wake == Wake::No && !held.is_answered());
        if wanted {
            self.want_wake(id);
        }
    }

    /// A fresh Request-URI for a request that keeps its own.
    pub(super) fn kept_uri(request: &Message) -> Vec<u8> {
        request.request_uri().unwrap_or_default().to_vec()
    }

    /// Whether a request has a Record-Route of its own.
    pub(super) fn is_record_routed(request: &Message) -> bool {
        request.header(HeaderName::RecordRoute).is_some()
    }
}
