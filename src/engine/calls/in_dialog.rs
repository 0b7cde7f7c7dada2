//! Requests inside a dialog: they come with our route token and go to the trunk or the device.

use std::net::SocketAddr;

use super::forward::{Carried, Way};
use super::relay::Came;
use super::*;
use crate::engine::filter::range_allowed;
use crate::engine::ids::ListenerId;
use crate::engine::register::Target;
use crate::engine::route_token::DialogId;
use crate::sip::uri::Host;
use crate::sip::{Method, Transport};

/// A request with a valid token, and whom it belongs to.
pub(crate) struct Inside {
    pub(crate) instance: InstanceId,
    dialog: DialogId,
    own_routes: usize,
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
            })
        } else {
            self.way_to_trunk(inside.dialog, trunk.as_ref(), desk.policy)
        };
        let carried = Carried {
            request_uri: Self::kept_uri(&request),
            routes_dropped: inside.own_routes,
            record_routes: Vec::new(),
            extra: Vec::new(),
        };
        if request.method() == Some(Method::Ack) {
            if let Some(way) = way {
                self.pass_ack(&request, arrival, &way, &carried, desk);
            }
            return;
        }
        let Ok(key) = ServerKey::of(&request) else { return };
        if self.relays.len() >= self.relays_max {
            return self.refuse_inside(&request, arrival, back, desk);
        }
        let id = self.mint_relay();
        let came = Came { request, arrival, back, allowance: Allowance::PROVEN };
        let mut relay = Relay::new(inside.instance, came, desk.random.text::<8>(), now);
        relay.dialog = Some(inside.dialog);
        if let Some(Method::Invite) = relay.request.method()
            && let Some(trying) = relay.answer(StatusCode::TRYING, false, &[], now)
        {
            self.events.push_back(Event::Send(relay.back.clone(), trying));
        }
        let bye = relay.request.method() == Some(Method::Bye);
        self.by_key.insert(key, id);
        self.relays.insert(id, relay);
        match way {
            Some(way) => self.send_on(id, &way, &carried, None, desk, now),
            None => {
                self.refuse(id, StatusCode::TEMPORARILY_UNAVAILABLE, now);
                if bye {
                    self.end_dialog(inside.dialog, now);
                }
            }
        }
    }

    /// The process is full: the request gets its answer without a transaction.
    pub(super) fn refuse_inside(&mut self, request: &Message, arrival: &Arrival, back: Hop, desk: &mut Desk<'_>) {
        let later = [("Retry-After", held::FULL_RETRY_SECONDS.to_string())];
        let tag = desk.tags.of(request);
        let reply = Reply {
            code: StatusCode::SERVICE_UNAVAILABLE,
            to_tag: Some(&tag),
            source: Some(arrival.peer),
            record_route: false,
            extra: &later,
        };
        let mut out = Vec::with_capacity(384);
        if proxy::write_reply(request, &reply, &mut out).is_ok() {
            self.events.push_back(Event::Send(back, Bytes::from(out)));
        }
    }

    /// BYE was answered: the call is over for its device as well.
    pub(super) fn end_dialog(&mut self, dialog: DialogId, now: Instant) {
        if let Some(known) = self.dialogs.get(dialog) {
            let uuid = held::call_uuid(&known.call_id);
            let ended = Ended { state: CallState::Ended, reason: "hung-up", woken: false };
            self.remember(known.instance, uuid, ended, now);
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
    fn way_to_trunk(&self, dialog: DialogId, trunk: Option<&Target>, policy: &Policy) -> Option<Way> {
        let dialog = self.dialogs.get(dialog)?;
        if dialog.trunk_lost {
            let Target { hop, transport, listener, .. } = trunk?.clone();
            return Some(Way { hop, listener, transport, to_device: false });
        }
        let transport = match &dialog.trunk {
            Hop::Datagram { .. } => Transport::Udp,
            Hop::Trunk(key) => key.transport,
            Hop::Flow(_) => policy.listener(dialog.trunk_listener)?.transport,
        };
        Some(Way { hop: dialog.trunk.clone(), listener: dialog.trunk_listener, transport, to_device: false })
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
