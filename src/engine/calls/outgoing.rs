//! Requests outside a dialog that are forwarded without being held: those a phone sends through us to its own registrar,
//! and those for a phone that listens.

use super::dialogs::Dialog;
use super::forward::{Carried, Way};
use super::relay::Came;
use super::*;
use crate::engine::ids::ListenerId;
use crate::engine::register::Target;
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::{Method, Transport};

/// How long a dialog may take to come about: longer than any phone rings.
const OPENING: Duration = Duration::from_secs(15 * 60);

/// Requests of one phone, and for it, that may be on their way at once; above it a further one gets 503.
const REQUESTS_PER_PHONE_MAX: usize = 32;

/// A request to forward, with what the engine knows of its way.
pub(crate) struct Outside<'a> {
    pub(crate) request: Message,
    pub(crate) arrival: &'a Arrival,
    pub(crate) back: Hop,
    pub(crate) instance: InstanceId,
    pub(crate) to: Towards,
}

/// Where it goes.
pub(crate) enum Towards {
    /// To the registrar of the phone that sent it, with its own Request-URI and none of its Routes.
    Registrar(Target),
    /// To the phone.
    Phone(Device),
}

impl Calls {
    /// Forwards it, Record-Routed if it may begin a dialog.
    pub(crate) fn handle_outside(&mut self, outside: Outside<'_>, desk: &mut Desk<'_>, now: Instant) {
        let Outside { request, arrival, back, instance, to } = outside;
        let Ok(key) = ServerKey::of(&request) else { return };
        let (way, request_uri, allowance) = match to {
            Towards::Registrar(Target { hop, listener, transport, .. }) => {
                let way = Way { hop, listener, transport, to_device: false, instance };
                (way, Self::kept_uri(&request), Allowance::PROVEN)
            }
            Towards::Phone(Device { hop, listener, transport, contact, .. }) => {
                let way = Way { hop, listener, transport, to_device: true, instance };
                (way, contact, Allowance::of(&request, arrival))
            }
        };
        let came = Came { request, arrival, back, allowance };
        if self.relays.len() >= self.relays_max || self.related(instance).count() >= REQUESTS_PER_PHONE_MAX {
            return self.refuse_when_full(&came, desk);
        }
        let id = self.mint_relay();
        let mut relay = Relay::new(came, desk.random.text::<8>(), now);
        if let Some(Method::Invite) = relay.request.method()
            && let Some(trying) = relay.answer(StatusCode::TRYING, false, &[], now)
        {
            self.events.push_back(Event::Send(relay.back.clone(), trying));
        }
        let record_routes = self.open_outside(&mut relay, &way, desk, now);
        let routes_dropped = relay.request.routes().count();
        self.by_key.insert(key, id);
        if relay.inside.is_some() {
            self.by_instance.insert((instance, id));
        }
        self.relays.insert(id, relay);
        let carried = Carried { request_uri, routes_dropped, record_routes, extra: Vec::new() };
        if !self.send_on(id, &way, &carried, None, desk, now) {
            self.refuse(id, StatusCode::MESSAGE_TOO_LARGE, now);
        }
        self.settle(id);
    }

    /// Remembers the dialog that may begin. Our Record-Routes, topmost first: facing the next hop, and facing the sender
    /// where transport, address or family differ (RFC 5658).
    fn open_outside(&mut self, relay: &mut Relay, way: &Way, desk: &Desk<'_>, now: Instant) -> Vec<String> {
        let begins = matches!(relay.request.method(), Some(Method::Invite | Method::Subscribe | Method::Refer));
        let (Ok(call_id), Ok(from)) = (relay.request.call_id(), relay.request.from()) else { return Vec::new() };
        if !begins {
            return Vec::new();
        }
        let outgoing = !way.to_device;
        let (trunk, trunk_listener) =
            if outgoing { (way.hop.clone(), way.listener) } else { (relay.back.clone(), relay.listener) };
        let dialog = Dialog {
            instance: way.instance,
            call: None,
            call_id: call_id.to_vec(),
            caller_tag: from.tag().unwrap_or_default().to_owned(),
            trunk,
            trunk_listener,
            trunk_lost: false,
            outgoing,
        };
        let opened = self.dialogs.open(dialog, OPENING, now);
        relay.inside = Some(Inside { instance: way.instance, dialog: opened, own_routes: 0 });
        let Some(token) = self.dialogs.token(opened) else { return Vec::new() };
        let uri = |listener: ListenerId, transport: Transport| {
            let advertise = desk.policy.listener(listener).map_or("", |listener| listener.advertise.as_str());
            format!("<sip:{token}@{advertise};transport={};lr>", transport.as_uri_param())
        };
        let (facing, behind) = (uri(way.listener, way.transport), uri(relay.listener, relay.transport));
        if facing == behind { vec![facing] } else { vec![facing, behind] }
    }

    /// A 2xx: a dialog begun outside lives as long as a call may, a subscription as long as it was granted.
    pub(super) fn prolong_outgoing(&mut self, id: RelayId, response: &Message, desk: &Desk<'_>, now: Instant) {
        let Some(relay) = self.relays.get(&id) else { return };
        let (Some(Inside { dialog, .. }), Some(method)) = (relay.inside, relay.request.method()) else { return };
        let longest = desk.policy.limits.dialog_max;
        let life = match method {
            Method::Invite => longest,
            Method::Subscribe | Method::Refer => {
                let granted = response.expires().ok().flatten().map(u64::from).map(Duration::from_secs);
                granted.unwrap_or(OPENING).saturating_add(TRANSACTION_TIMEOUT).max(TRANSACTION_TIMEOUT * 2).min(longest)
            }
            _ => return,
        };
        self.dialogs.prolong(dialog, life, now);
    }
}
