//! Requests inside a dialog: they come with our route token and go to the trunk or the device.

use std::net::SocketAddr;

use super::forward::{Carried, Way};
use super::relay::Came;
use super::*;
use crate::engine::filter::range_allowed;
use crate::engine::ids::ListenerId;
use crate::engine::register::Target;
use crate::engine::route_token::DialogId;
use crate::sip::Transport;
use crate::sip::uri::Host;

/// A request with a valid token, and whom it belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Inside {
    pub(crate) instance: InstanceId,
    pub(super) dialog: DialogId,
    pub(super) own_routes: usize,
}

/// A request on its way through us, with what the engine knows of both ends.
pub(crate) struct Passing<'a> {
    pub(crate) request: Message,
    pub(crate) arrival: &'a Arrival,
    pub(crate) back: Hop,
    /// Where the device is now.
    pub(crate) device: Option<Device>,
    /// Where the binding is registered now.
    pub(crate) trunk: Option<Target>,
}

impl Inside {
    /// Whether the request goes to the device.
    pub(crate) fn is_to_device(&self, calls: &Calls, request: &Message) -> bool {
        let dialog = calls.dialogs.get(self.dialog);
        dialog.is_some_and(|dialog| dialog.is_from_trunk(request.from().ok().and_then(|from| from.tag())))
    }
}

impl Calls {
    /// Reads the token on top of the Routes; `None`: there is none, or it is not worth anything here.
    pub(crate) fn inside(&self, request: &Message) -> Option<Inside> {
        let (dialog, own_routes) = self.dialogs.find(request)?;
        let instance = self.dialogs.get(dialog)?.instance;
        Some(Inside { instance, dialog, own_routes })
    }

    /// Forwards a request inside a dialog.
    pub(crate) fn handle_inside(&mut self, inside: &Inside, passing: Passing<'_>, desk: &mut Desk<'_>, now: Instant) {
        let Passing { request, arrival, back, device, trunk } = passing;
        let Some(dialog) = self.dialogs.get(inside.dialog) else { return };
        let from_trunk = dialog.is_from_trunk(request.from().ok().and_then(|from| from.tag()));
        let way = if from_trunk {
            device.map(|device| Way {
                hop: device.hop,
                listener: device.listener,
                transport: device.transport,
                to_device: true,
                instance: inside.instance,
            })
        } else {
            self.way_to_trunk(inside, trunk.as_ref(), desk.policy)
        };
        let carried = Carried {
            request_uri: Self::kept_uri(&request),
            routes_dropped: inside.own_routes,
            record_routes: Vec::new(),
            extra: Vec::new(),
        };
        if request.method() == Some(Method::Ack) {
            // The ACK to an answer that we gave without a transaction has the tag of that answer, and is for us.
            let own = request.to().is_ok_and(|to| to.tag() == Some(desk.tags.of(&request).as_str()));
            if let (Some(way), false) = (way, own) {
                self.pass_ack(&request, arrival, &way, &carried, desk);
            }
            return;
        }
        let came = Came { request, arrival, back, allowance: Allowance::PROVEN };
        let Some(id) = self.open_inside(inside, came, desk, now) else { return };
        let sent = match way {
            Some(way) => self.send_on(id, &way, &carried, None, desk, now),
            None => {
                self.refuse(id, StatusCode::TEMPORARILY_UNAVAILABLE, now);
                self.end_if_bye(id, now);
                true
            }
        };
        if !sent {
            self.refuse(id, StatusCode::MESSAGE_TOO_LARGE, now);
        }
        self.settle(id);
    }

    /// A request inside a dialog that cannot be forwarded. It gets a transaction all the same, so that the ACK to a refused
    /// INVITE ends here and not at the other end of the dialog.
    pub(crate) fn refuse_inside(
        &mut self,
        inside: &Inside,
        passing: Passing<'_>,
        code: StatusCode,
        extra: &[(&str, String)],
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Passing { request, arrival, back, .. } = passing;
        if request.method() == Some(Method::Ack) {
            return;
        }
        let came = Came { request, arrival, back, allowance: Allowance::PROVEN };
        let Some(id) = self.open_inside(inside, came, desk, now) else { return };
        if let Some(relay) = self.relays.get_mut(&id)
            && let Some(bytes) = relay.answer(code, false, extra, now)
        {
            self.events.push_back(Event::Send(relay.back.clone(), bytes));
        }
        self.settle(id);
    }

    /// Opens the server transaction of a request inside a dialog. `None`: there is no room for it, and it has its answer.
    fn open_inside(&mut self, inside: &Inside, came: Came<'_>, desk: &mut Desk<'_>, now: Instant) -> Option<RelayId> {
        let key = ServerKey::of(&came.request).ok()?;
        if self.relays.len() >= self.relays_max {
            self.refuse_when_full(&came, desk);
            return None;
        }
        let id = self.mint_relay();
        let mut relay = Relay::new(came, desk.random.text::<8>(), now);
        relay.inside = Some(*inside);
        if let Some(Method::Invite) = relay.request.method()
            && let Some(trying) = relay.answer(StatusCode::TRYING, false, &[], now)
        {
            self.events.push_back(Event::Send(relay.back.clone(), trying));
        }
        self.by_key.insert(key, id);
        self.by_instance.insert((inside.instance, id));
        self.relays.insert(id, relay);
        Some(id)
    }

    /// The device is on another flow: a request it has not answered is sent there, and the answer to one of its own too.
    pub(super) fn move_inside(&mut self, id: RelayId, device: &Device, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else { return };
        for leg in relay.legs.iter_mut().filter(|leg| leg.to_device) {
            if !leg.client.is_over() && leg.hop != device.hop {
                leg.move_to(device, &mut self.events, now);
            }
        }
        let from_device = relay.legs.iter().any(|leg| !leg.to_device);
        if from_device && matches!(relay.back, Hop::Flow(_)) {
            relay.back = device.hop.clone();
        }
    }

    /// The process is full: the request gets its answer without a transaction.
    pub(super) fn refuse_when_full(&mut self, came: &Came<'_>, desk: &mut Desk<'_>) {
        let later = [("Retry-After", held::FULL_RETRY_SECONDS.to_string())];
        let tag = desk.tags.of(&came.request);
        let reply = Reply {
            code: StatusCode::SERVICE_UNAVAILABLE,
            to_tag: Some(&tag),
            source: Some(came.arrival.peer),
            record_route: false,
            extra: &later,
        };
        let mut out = Vec::with_capacity(384);
        if proxy::write_reply(&came.request, &reply, &mut out).is_ok() {
            self.events.push_back(Event::Send(came.back.clone(), Bytes::from(out)));
        }
    }

    /// A BYE was answered: the call is over for its device as well.
    pub(super) fn end_if_bye(&mut self, id: RelayId, now: Instant) {
        let Some(relay) = self.relays.get(&id).filter(|relay| relay.request.method() == Some(Method::Bye)) else {
            return;
        };
        let Some(Inside { dialog, .. }) = relay.inside else { return };
        if let Some(known) = self.dialogs.get(dialog)
            && let Some(call) = known.call
        {
            let key = (known.instance, call);
            let ended = Ended { state: CallState::Ended, reason: "hung-up", woken: false, declined: false };
            self.ended.add(key, ended, None, now);
        }
        self.dialogs.end(dialog, now);
    }

    /// ACK to a 2xx: forwarded without a transaction (RFC 3261 §16.11).
    fn pass_ack(&mut self, request: &Message, arrival: &Arrival, way: &Way, carried: &Carried, desk: &mut Desk<'_>) {
        let branch = BranchId::mint(desk.shard, desk.random.bytes());
        let sent_by = desk.policy.listener(way.listener).map_or("", |listener| listener.advertise.as_str());
        let change = proxy::Forward {
            request_uri: &carried.request_uri,
            via: proxy::OwnVia { transport: way.transport, sent_by, branch: &branch.branch() },
            routes_dropped: carried.routes_dropped,
            record_routes: &[],
            extra: &[],
        };
        let mut out = Vec::with_capacity(request.bytes().len() + 256);
        proxy::write_forward(request, Some((arrival.peer, arrival.transport)), &change, &mut out);
        self.events.push_back(Event::Send(way.hop.clone(), Bytes::from(out)));
    }

    /// The trunk's side: the next hop of the token, or the connection the binding uses now where that one is gone.
    fn way_to_trunk(&self, inside: &Inside, trunk: Option<&Target>, policy: &Policy) -> Option<Way> {
        let instance = inside.instance;
        let dialog = self.dialogs.get(inside.dialog)?;
        if dialog.trunk_lost {
            let Target { hop, transport, listener, .. } = trunk?.clone();
            return Some(Way { hop, listener, transport, to_device: false, instance });
        }
        let transport = match &dialog.trunk {
            Hop::Datagram { .. } => Transport::Udp,
            Hop::Trunk(key) => key.transport,
            Hop::Flow(_) => policy.listener(dialog.trunk_listener)?.transport,
        };
        let (hop, listener) = (dialog.trunk.clone(), dialog.trunk_listener);
        Some(Way { hop, listener, transport, to_device: false, instance })
    }
}

/// Where requests of the device go: back where the INVITE came from; or to its Contact, where it came over UDP without
/// Record-Route and the Contact names an address we may send to.
pub(super) fn trunk_hop(
    request: &Message,
    back: &Hop,
    source: SocketAddr,
    listener: ListenerId,
    policy: &Policy,
) -> Hop {
    let Hop::Datagram { .. } = back else { return back.clone() };
    let from_source = Hop::Datagram { listener, peer: source };
    if Calls::is_record_routed(request) {
        return from_source;
    }
    let Some(contact) = request.contacts().find_map(Result::ok) else { return from_source };
    let uri = contact.uri();
    let Host::Address(address) = uri.host() else { return from_source };
    let udp = uri.param("transport").flatten().is_none_or(|transport| transport.eq_ignore_ascii_case("udp"));
    let same_family = address.is_ipv6() == source.is_ipv6();
    // The source has shown that it is there; another address must be one a trunk may have.
    if udp && same_family && (address == source.ip() || range_allowed(&policy.registrars, address)) {
        return Hop::Datagram { listener, peer: SocketAddr::new(address, uri.port().unwrap_or(5060)) };
    }
    from_source
}
