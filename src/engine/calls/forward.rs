//! Forwarding: requests out, responses back (RFC 3261 §16.6 and §16.7).

use super::callee::Progress;
use super::dialogs::Dialog;
use super::ended::Late;
use super::leg::{Cancel, Client, Leg};
use super::*;
use crate::engine::ids::ListenerId;
use crate::engine::route_token::DialogId;
use crate::sip::Transport;
use crate::sip::proxy::{Forward, OwnVia};
use crate::sip::transaction::Verdict;

/// RFC 3261 §16.6 step 11: Timer C must be larger than three minutes.
const TIMER_C: Duration = Duration::from_secs(181);

/// Where a request leaves to.
pub(super) struct Way {
    pub(super) hop: Hop,
    pub(super) listener: ListenerId,
    pub(super) transport: Transport,
    pub(super) to_device: bool,
    /// Whose device is at one end of it.
    pub(super) instance: InstanceId,
}

/// What a forwarded request carries besides.
pub(super) struct Carried {
    pub(super) request_uri: Vec<u8>,
    pub(super) routes_dropped: usize,
    pub(super) record_routes: Vec<String>,
    pub(super) extra: Vec<(&'static str, String)>,
}

impl Calls {
    /// Sends the held INVITE to a device: as the same transaction, if it went out to it before.
    pub(super) fn forward_call(
        &mut self,
        id: RelayId,
        place: usize,
        device: &Device,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(dialog) = self.dialog_of(id, place, desk, now) else { return };
        let record_routes = self.record_routes(id, dialog, device, desk);
        let (Some(held), Some(relay)) = (self.held.get_mut(&id), self.relays.get_mut(&id)) else { return };
        let called = &mut held.callees[place];
        let (instance, uuid) = (called.instance, called.uuid);
        let known = relay.legs.iter().position(|leg| leg.instance == instance);
        let known = known.map(|place| relay.legs.remove(place)).map(|leg| (leg.branch, leg.listener));
        called.stage = if called.rang { Progress::Ringing } else { Progress::Forwarded };
        called.sends = called.sends.saturating_add(1);
        held.pass(Stage::Forwarded, desk.tally, now);
        self.events.push_back(Event::Step(instance, uuid, Step::Forwarded));
        let way = Way {
            hop: device.hop.clone(),
            listener: known.map_or(device.listener, |(_, listener)| listener),
            transport: device.transport,
            to_device: true,
            instance,
        };
        let carried = Carried {
            request_uri: device.contact.clone(),
            routes_dropped: 0,
            record_routes,
            extra: vec![("Reveille-Call", uuid.to_string())],
        };
        if !self.send_on(id, &way, &carried, known.map(|(branch, _)| branch), desk, now) {
            self.offer(id, Best::own(StatusCode::MESSAGE_TOO_LARGE, Why::Failed));
            self.end_callee(id, place, Why::Failed, now);
        }
    }

    /// Forwards a relay's request and starts its client transaction. `false`: what we add makes it longer than a message
    /// may be.
    pub(super) fn send_on(
        &mut self,
        id: RelayId,
        way: &Way,
        carried: &Carried,
        branch: Option<BranchId>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(relay) = self.relays.get_mut(&id) else { return false };
        let branch = branch.unwrap_or_else(|| BranchId::mint(desk.shard, desk.random.bytes()));
        let received = (relay.source, relay.transport);
        let Some(leg) = build_leg(&relay.request, received, way, carried, branch, desk, now) else { return false };
        self.events.push_back(Event::Send(leg.hop.clone(), leg.request.bytes().clone()));
        self.by_branch.insert(branch, id);
        relay.legs.push(leg);
        true
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
            let Self { orphans, farewells, events, .. } = self;
            return orphans.handle_response(branch, response, farewells, events, desk, now)
                || response.status().is_some_and(|code| farewells.handle_response(branch, code));
        };
        let (Some(relay), Some(code), Ok(cseq)) = (self.relays.get_mut(&id), response.status(), response.cseq()) else {
            return true;
        };
        let Some(place) = relay.legs.iter().position(|leg| leg.branch == branch) else { return true };
        let leg = &mut relay.legs[place];
        if leg.request.call_id().ok() != response.call_id().ok() {
            return true;
        }
        if leg.lost && code.is_provisional() && cseq.method == Method::Invite {
            // The phone signed off while the INVITE was on its way to it, and rings all the same: nobody waits for it, but
            // when the call is over it must hear so.
            let _ = leg.client.handle_response(code, now);
            leg.handle_alive(&mut self.events, now);
            self.settle(id);
            return true;
        }
        if cseq.method == Method::Cancel {
            leg.handle_cancel_response(code, now);
            self.settle(id);
            return true;
        }
        // The same INVITE reached the phone twice, on the old flow and the new one: it rings for the first.
        let held = self.held.get(&id);
        let again = held.is_some_and(|held| held.callees.iter().any(|it| it.instance == leg.instance && it.sends > 1));
        if again && code == StatusCode::LOOP_DETECTED {
            // No final, but a sign of life: nothing more is repeated towards it.
            let _ = leg.client.handle_response(StatusCode::TRYING, now);
            leg.acknowledge(response, &mut self.events);
            leg.handle_alive(&mut self.events, now);
            self.settle(id);
            return true;
        }
        match leg.client.handle_response(code, now) {
            Verdict::Absorb => {}
            Verdict::Ack => leg.acknowledge(response, &mut self.events),
            Verdict::DeliverAndAck => {
                leg.acknowledge(response, &mut self.events);
                self.deliver(id, place, response, code, desk, now);
            }
            Verdict::Deliver => self.deliver(id, place, response, code, desk, now),
        }
        self.settle(id);
        true
    }

    /// A response that is news, by the leg at `place`.
    fn deliver(
        &mut self,
        id: RelayId,
        place: usize,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        if code.is_provisional() {
            self.deliver_provisional(id, place, response, code, desk, now);
        } else if code.is_success() {
            self.deliver_success(id, place, response, code, desk, now);
        } else {
            self.deliver_failure(id, place, response, code, desk, now);
        }
    }

    fn deliver_provisional(
        &mut self,
        id: RelayId,
        place: usize,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let leg = &mut relay.legs[place];
        let instance = leg.instance;
        leg.handle_alive(&mut self.events, now);
        let ringing = code != StatusCode::TRYING;
        if ringing && leg.timer_c.is_some() {
            leg.timer_c = Some(now + TIMER_C);
        }
        if ringing && !relay.is_answered() {
            let bytes = relay.pass(response, code, now);
            self.events.extend(bytes.map(|bytes| Event::Send(relay.back.clone(), bytes)));
        }
        let Some(held) = self.held.get_mut(&id) else { return };
        let Some(called) = held.callees.iter_mut().find(|called| called.instance == instance) else { return };
        called.silence = None;
        if !ringing {
            return;
        }
        called.stage = Progress::Ringing;
        if !std::mem::replace(&mut called.rang, true) {
            self.events.push_back(Event::Step(instance, called.uuid, Step::Ringing));
        }
        held.pass(Stage::Ringing, desk.tally, now);
    }

    fn deliver_success(
        &mut self,
        id: RelayId,
        place: usize,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let refused = relay.server.final_code().is_some_and(|code| !code.is_success());
        if relay.request.method() == Some(Method::Invite) && refused {
            let leg = &mut relay.legs[place];
            return leg.hang_up(response, &mut self.farewells, &mut self.events, desk, now);
        }
        let instance = relay.legs[place].instance;
        let bytes = relay.pass(response, code, now);
        self.events.extend(bytes.map(|bytes| Event::Send(relay.back.clone(), bytes)));
        self.end_if_bye(id, now);
        self.prolong_outgoing(id, response, desk, now);
        let Some(place) = self.held.get(&id).and_then(|held| held.place_of(instance)) else { return };
        self.end_callee(id, place, Why::Answered, now);
        self.finish(id, CallOutcome::Answered, Why::Elsewhere, desk, now);
    }

    fn deliver_failure(
        &mut self,
        id: RelayId,
        place: usize,
        response: &Message,
        code: StatusCode,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        let instance = relay.legs[place].instance;
        let Some(held) = self.held.get(&id) else {
            self.pass_final(id, response, code, now);
            return self.end_if_bye(id, now);
        };
        let Some(callee) = held.place_of(instance) else { return };
        let (outcome, why) = match (code.code(), held.cancelled) {
            (_, Some(why)) => (CallOutcome::Cancelled, why),
            (486 | 600 | 603, None) => (CallOutcome::Declined, Why::Declined),
            (480, None) => (CallOutcome::NoDevice, Why::NoAnswer),
            (408, None) => (CallOutcome::Failed, Why::NoAnswer),
            _ => (CallOutcome::Failed, Why::Failed),
        };
        self.offer(id, Best { code, response: Some(response.clone()), outcome, why });
        self.end_callee(id, callee, why, now);
        self.conclude(id, desk, now);
    }

    /// Gives the caller the final that was chosen.
    pub(super) fn answer_final(&mut self, id: RelayId, best: &Best, now: Instant) {
        match &best.response {
            Some(response) => self.pass_final(id, response, best.code, now),
            None => self.refuse(id, best.code, now),
        }
    }

    fn pass_final(&mut self, id: RelayId, response: &Message, code: StatusCode, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id).filter(|relay| !relay.is_answered()) else { return };
        let from_device = self.held.contains_key(&id) || relay.legs.iter().any(|leg| leg.to_device);
        // A phone's 503 speaks of the phone, not of us: upstream it would take the whole process for full.
        let shown = if from_device && code == StatusCode::SERVICE_UNAVAILABLE {
            StatusCode::SERVER_INTERNAL_ERROR
        } else {
            code
        };
        let bytes = relay.pass(response, shown, now);
        self.events.extend(bytes.map(|bytes| Event::Send(relay.back.clone(), bytes)));
    }

    /// The dialog a call will have with a device, remembered once.
    fn dialog_of(&mut self, id: RelayId, place: usize, desk: &Desk<'_>, now: Instant) -> Option<DialogId> {
        let called = self.held.get_mut(&id)?.callees.get_mut(place)?;
        if let Some(dialog) = called.dialog {
            return Some(dialog);
        }
        let relay = self.relays.get(&id)?;
        let request = &relay.request;
        let dialog = Dialog {
            instance: called.instance,
            call: Some(called.uuid),
            call_id: request.call_id().ok()?.to_vec(),
            caller_tag: request.from().ok()?.tag().unwrap_or_default().to_owned(),
            trunk: in_dialog::trunk_hop(request, &relay.back, relay.source, relay.listener, desk.policy),
            trunk_listener: relay.listener,
            trunk_lost: false,
            outgoing: false,
        };
        let opened = self.dialogs.open(dialog, desk.policy.limits.dialog_max, now);
        called.dialog = Some(opened);
        Some(opened)
    }

    /// Our Record-Route values, topmost first: facing the device, and facing the trunk where transport, address or family
    /// differ (RFC 5658).
    fn record_routes(&self, id: RelayId, dialog: DialogId, device: &Device, desk: &Desk<'_>) -> Vec<String> {
        let (Some(token), Some(relay)) = (self.dialogs.token(dialog), self.relays.get(&id)) else { return Vec::new() };
        let uri = |listener: ListenerId, transport: Transport| {
            let advertise = desk.policy.listener(listener).map_or("", |listener| listener.advertise.as_str());
            format!("<sip:{token}@{advertise};transport={};lr>", transport.as_uri_param())
        };
        let facing_device = uri(device.listener, device.transport);
        let facing_trunk = uri(relay.listener, relay.transport);
        if facing_device == facing_trunk { vec![facing_device] } else { vec![facing_device, facing_trunk] }
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

/// The INVITE of a call that is over, to a device that was woken for it. It opens no dialog: nobody is at the other end.
pub(super) fn late_leg(
    instance: InstanceId,
    uuid: CallUuid,
    late: &Late,
    device: &Device,
    desk: &mut Desk<'_>,
    now: Instant,
) -> Option<Leg> {
    let way = Way {
        hop: device.hop.clone(),
        listener: device.listener,
        transport: device.transport,
        to_device: true,
        instance,
    };
    let carried = Carried {
        request_uri: device.contact.clone(),
        routes_dropped: 0,
        record_routes: Vec::new(),
        extra: vec![("Reveille-Call", uuid.to_string())],
    };
    let branch = BranchId::mint(desk.shard, desk.random.bytes());
    build_leg(&late.request, (late.source, late.transport), &way, &carried, branch, desk, now)
}

/// Writes the request as it leaves, with the client transaction that goes with it. `None`: it is too long.
fn build_leg(
    request: &Message,
    received: (std::net::SocketAddr, Transport),
    way: &Way,
    carried: &Carried,
    branch: BranchId,
    desk: &Desk<'_>,
    now: Instant,
) -> Option<Leg> {
    let sent_by = desk.policy.listener(way.listener).map_or("", |listener| listener.advertise.as_str());
    let change = Forward {
        request_uri: &carried.request_uri,
        via: OwnVia { transport: way.transport, sent_by, branch: &branch.branch() },
        routes_dropped: carried.routes_dropped,
        record_routes: &carried.record_routes,
        extra: &carried.extra,
    };
    let mut out = Vec::with_capacity(request.bytes().len() + 512);
    proxy::write_forward(request, Some(received), &change, &mut out);
    let request = Message::parse_datagram(out).ok()?;
    let invite = request.method() == Some(Method::Invite);
    Some(Leg {
        branch,
        client: Client::new(&request, request.bytes().clone(), way.transport.is_reliable(), now),
        hop: way.hop.clone(),
        request,
        listener: way.listener,
        cancel: Cancel::No,
        own_routes: carried.record_routes.len(),
        to_device: way.to_device,
        instance: way.instance,
        lost: false,
        timer_c: invite.then(|| now + TIMER_C),
        give_up: None,
        hung_up: Vec::new(),
    })
}
