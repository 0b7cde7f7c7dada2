//! A REGISTER from the phone to its registrar, and the answer back.

use super::binding::awake_by;
use super::contacts::Naming;
use super::select::{feature_caps, listings};
use super::transit::{Asked, Leg, TRANSITS_MAX, TRANSITS_PER_SOURCE_MAX, UnderWay};
use super::*;
use crate::engine::edge_registrar::EdgeRegistrar;
use crate::engine::filter::{is_encrypted, target_allowed};
use crate::engine::input::{LocateFault, Located, TrunkFault};
use crate::engine::output::TrunkKey;
use crate::sip::proxy::{self, Forward, OwnVia, Reply};
use crate::sip::push_params::asked_provider;
use crate::sip::rewrite::{Rewrite, rewritten};
use crate::sip::transaction::{NonInviteClient, NonInviteServer, ServerKey, Timeout, Verdict};
use crate::sip::{HeaderName, StatusCode};

/// Addresses of one registrar that are tried.
const CANDIDATES_MAX: usize = 8;
/// Registrations of one address of record; above it a further one gets 503. Phones that change their ports pile some up.
const BINDINGS_PER_ADDRESS_MAX: usize = 32;
/// Bytes of a REGISTER that is passed through: it is kept until it has its answer, and whoever sent it has proven nothing.
/// Real ones have about one thousand, with several credentials and tokens three.
const REGISTER_BYTES_MAX: usize = 8 * 1024;
/// Retry-After where there is no room.
const FULL_RETRY_SECONDS: u32 = 30;

/// A REGISTER as it came in.
pub(crate) struct Incoming<'a> {
    pub(crate) request: Message,
    pub(crate) arrival: &'a Arrival,
    pub(crate) back: Hop,
}

impl Pass {
    /// Whether a REGISTER is one to pass through: to a registrar that a tenant lists, from a phone that speaks of pushes or
    /// is registered through us.
    pub(crate) fn concerns(&self, request: &Message, policy: &Policy) -> bool {
        if request.method() != Some(Method::Register) {
            return false;
        }
        let listed = request
            .request_uri()
            .and_then(|uri| Uri::parse(uri).ok())
            .is_some_and(|uri| !listings(policy, &uri).is_empty());
        let asks = || request.contacts().flatten().any(|contact| asked_provider(&contact).is_some());
        let known = || Aor::of_sender(request).is_some_and(|aor| self.table.of_aor(&aor).next().is_some());
        listed && (asks() || known())
    }

    /// The same REGISTER, or a request inside a call that waits, once more.
    pub(crate) fn handle_known(&mut self, request: &Message) -> bool {
        if self.is_waiting(request) {
            return true;
        }
        let Some(id) = ServerKey::of(request).ok().and_then(|key| self.transits.by_key(&key)) else { return false };
        let Some(transit) = self.transits.get(id) else { return false };
        // A short copy of a long request is not worth the long one's answer.
        let affords = |bytes: &Bytes| transit.is_proven() || bytes.len() <= request.bytes().len();
        if let Some(bytes) = transit.server.handle_retransmission().filter(|bytes| affords(bytes)).cloned() {
            self.events.push_back(Event::Send(transit.back.clone(), bytes));
        }
        true
    }

    /// Takes a REGISTER that `concerns` us.
    pub(crate) fn handle_register(&mut self, incoming: Incoming<'_>, desk: &mut Desk<'_>, now: Instant) {
        match self.admit(&incoming, desk) {
            Ok((asked, key, next_hop)) => {
                let Incoming { request, arrival, back } = incoming;
                let server = NonInviteServer::new(arrival.transport.is_reliable(), now);
                let under_way = Some(UnderWay { request, candidates: VecDeque::new(), leg: None });
                let arrival = arrival.clone();
                let id = self.transits.add(Transit { arrival, back, server, key, asked, flow_lost: false, under_way });
                self.events.push_back(Event::Locate(id.query(), next_hop));
            }
            Err(code) => {
                let later = [("Retry-After", FULL_RETRY_SECONDS.to_string())];
                let extra = if code == StatusCode::SERVICE_UNAVAILABLE { &later[..] } else { &[] };
                self.refuse(&incoming, code, extra, desk);
            }
        }
    }

    fn admit(&self, incoming: &Incoming<'_>, desk: &Desk<'_>) -> Result<(Asked, ServerKey, TrunkUri), StatusCode> {
        let request = &incoming.request;
        let bad = StatusCode::BAD_REQUEST;
        if request.bytes().len() > REGISTER_BYTES_MAX {
            return Err(StatusCode::MESSAGE_TOO_LARGE);
        }
        let uri = request.request_uri().and_then(|uri| Uri::parse(uri).ok()).ok_or(bad)?;
        let listings = listings(desk.policy, &uri);
        let aor = Aor::of_sender(request).ok_or(bad)?;
        // Nobody registers for somebody else through us: the phone is known by From afterwards.
        if request.to().ok().and_then(|to| Aor::of(&to.uri())).as_ref() != Some(&aor) {
            return Err(StatusCode::FORBIDDEN);
        }
        let Naming { contacts, providers } = self.name_contacts(request, &aor, &listings, desk.shard)?;
        let fresh = contacts.iter().filter(|it| !it.asked.is_zero() && !self.knows(it.id)).count();
        let full = self.transits.len() >= TRANSITS_MAX || self.table.len() + fresh > self.bindings_max;
        let greedy = self.transits.of_source(incoming.arrival.peer.ip()) >= TRANSITS_PER_SOURCE_MAX
            || fresh > 0 && self.table.of_aor(&aor).count() + fresh > BINDINGS_PER_ADDRESS_MAX;
        if full || greedy || desk.draining {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        let owner = contacts.iter().find(|it| !it.push.is_empty()).map(|it| &it.tenant);
        let listing = listings.iter().find(|it| owner.is_none_or(|owner| it.tenant.id == *owner));
        let listing = listing.ok_or(StatusCode::FORBIDDEN)?;
        let registrar: EdgeRegistrar = listing.registrar.clone();
        let next_hop = registrar.next_hop(&uri);
        if !is_encrypted(listing.tenant, &next_hop) {
            return Err(StatusCode::FORBIDDEN);
        }
        let call_id = request.call_id().map_err(|_| bad)?.to_vec();
        let number = request.cseq().map_err(|_| bad)?.number;
        let star = request.contact_is_star();
        let asked = Asked { aor, registrar, contacts, star, providers, made_by: (call_id, number) };
        Ok((asked, ServerKey::of(request).map_err(|_| bad)?, next_hop))
    }

    /// The resolver's answer. `false`: the question was not this room's.
    pub(crate) fn handle_located(
        &mut self,
        query: QueryId,
        answer: &Result<Vec<Located>, LocateFault>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(id) = self.transits.by_query(query) else { return false };
        let Some(transit) = self.transits.get(id) else { return true };
        let EdgeRegistrar { host, transport, .. } = transit.asked.registrar.clone();
        let found = answer.as_ref().map(Vec::as_slice).unwrap_or_default();
        let allowed = found.iter().filter(|located| target_allowed(desk.policy, transport, located));
        let mut candidates: Vec<Target> =
            allowed.filter_map(|located| Target::at(*located, &host, None, desk.policy)).take(CANDIDATES_MAX).collect();
        // Where it has registered or was asked for credentials first, those that were silent lately last.
        let first = transit.asked.contacts.first();
        let home = first.and_then(|it| self.transits.stays_at(it.id));
        let home = home.or_else(|| first.and_then(|it| self.table.get(it.id)).map(|it| it.target.address));
        candidates.sort_by_key(|it| (self.transits.is_shunned(it.address), Some(it.address) != home));
        if let Some(under_way) = self.transits.get_mut(id).and_then(|transit| transit.under_way.as_mut()) {
            under_way.candidates = candidates.into();
        }
        self.send_on(id, desk, now);
        true
    }

    /// A trunk connection could not be opened, or is gone: what went by it goes to the next address.
    pub(crate) fn handle_trunk_down(
        &mut self,
        trunk: &std::sync::Arc<TrunkKey>,
        _fault: TrunkFault,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let hop = Hop::Trunk(std::sync::Arc::clone(trunk));
        for id in self.transits.on_trunk(&hop) {
            self.transits.shun(trunk.remote, now);
            let _ = self.transits.take_leg(id);
            self.send_on(id, desk, now);
        }
    }

    /// A response whose branch may be this room's. `false`: it is not.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(id) = self.transits.by_branch(branch) else { return false };
        let Some(transit) = self.transits.get_mut(id) else { return true };
        let Some(code) = response.status() else { return true };
        let same = response.call_id().ok() == Some(transit.asked.made_by.0.as_slice())
            && response.cseq().is_ok_and(|cseq| cseq.number == transit.asked.made_by.1);
        let Some(leg) = transit.under_way.as_mut().and_then(|under_way| under_way.leg.as_mut()).filter(|_| same) else {
            return true;
        };
        let verdict = leg.client.handle_response(code, now);
        if code.is_provisional() || verdict != Verdict::Deliver {
            // A 100 is for us alone (RFC 3261 §16.7 step 2), and nothing else provisional is said to a REGISTER.
            self.transits.settle(id);
            return true;
        }
        self.conclude(id, response, code, desk, now);
        true
    }

    /// Transactions that are due.
    pub(super) fn time_transits(&mut self, now: Instant) {
        while let Some(id) = self.transits.pop_due(now) {
            let Some(transit) = self.transits.get_mut(id) else { continue };
            let _ = transit.server.handle_timeout(now);
            let mut silent = None;
            if let Some(leg) = transit.under_way.as_mut().and_then(|under_way| under_way.leg.as_mut()) {
                match leg.client.handle_timeout(now) {
                    Timeout::Retransmit => {
                        let bytes = leg.client.request().clone();
                        self.events.push_back(Event::Send(leg.target.hop.clone(), bytes));
                    }
                    Timeout::TimedOut => silent = Some(leg.target.address),
                    Timeout::Idle | Timeout::Terminated => {}
                }
            }
            match silent {
                // The phone has timed out as well: no 408 (RFC 4320 §4.1). Its next one goes elsewhere, where it can.
                Some(address) => {
                    self.transits.shun(address, now);
                    self.transits.remove(id);
                }
                None => self.transits.settle(id),
            }
        }
    }

    /// Sends the REGISTER to the next address, or gives it up.
    fn send_on(&mut self, id: TransitId, desk: &mut Desk<'_>, now: Instant) {
        let Some(transit) = self.transits.get_mut(id) else { return };
        let Some(under_way) = transit.under_way.as_mut() else { return };
        let Some(target) = under_way.candidates.pop_front() else {
            return self.answer(id, StatusCode::SERVER_TIME_OUT, desk, now);
        };
        let branch = BranchId::mint(desk.shard, desk.random.bytes());
        let Some(bytes) = outward(transit, &target, branch, desk.policy) else {
            return self.answer(id, StatusCode::MESSAGE_TOO_LARGE, desk, now);
        };
        let client = NonInviteClient::new(bytes.clone(), target.transport.is_reliable(), None, now);
        self.events.push_back(Event::Send(target.hop.clone(), bytes));
        self.transits.send(id, Leg { branch, client, target });
    }

    /// The registrar has spoken: its answer goes to the phone, and what it confirms is kept.
    fn conclude(&mut self, id: TransitId, response: &Message, code: StatusCode, desk: &mut Desk<'_>, now: Instant) {
        let Some(leg) = self.transits.take_leg(id) else { return };
        let Some(transit) = self.transits.get_mut(id) else { return };
        let named = std::mem::take(&mut transit.asked.contacts);
        let granted: Vec<Option<Duration>> =
            named.iter().map(|it| if code.is_success() { it.granted(response) } else { None }).collect();
        if matches!(code.code(), 401 | 407)
            && let Some(first) = named.first()
        {
            self.transits.stay(first.id, leg.target.address, now);
        }
        self.pass_back(id, response, code, &named, &granted, now);
        if code.is_success() {
            self.take_over(id, named, &granted, &leg.target, desk, now);
        }
        self.transits.close(id);
    }

    fn pass_back(
        &mut self,
        id: TransitId,
        response: &Message,
        code: StatusCode,
        named: &[Named],
        granted: &[Option<Duration>],
        now: Instant,
    ) {
        let Some(transit) = self.transits.get(id) else { return };
        let contacts = self.turned_back(response, &transit.asked.aor, &transit.asked.registrar.host, named);
        let confirmed = named.iter().zip(granted).find(|(it, granted)| granted.is_some() && !it.push.is_empty());
        let lead = confirmed.and_then(|(_, granted)| *granted).map(|granted| told_lead(granted).as_secs());
        let purr = confirmed.map(|(it, _)| it.purr.to_string());
        let caps = feature_caps(&transit.asked.providers, lead, purr).filter(|_| code.is_success());
        let extra: Vec<(&str, String)> = caps.map(|caps| ("Feature-Caps", caps)).into_iter().collect();
        let change = Rewrite { contacts: contacts.as_deref(), extra: &extra, ..Rewrite::default() };
        let Some(turned) = rewritten(response, &change) else { return };
        let mut out = Vec::with_capacity(turned.bytes().len());
        proxy::write_forward_response(&turned, None, &mut out);
        self.give_back(id, code, out, now);
    }

    /// Sends a final answer to the phone. A source that has not proven itself gets no more bytes than it sent, unless the
    /// registrar took it for its own.
    fn give_back(&mut self, id: TransitId, code: StatusCode, mut out: Vec<u8>, now: Instant) {
        let Some(transit) = self.transits.get_mut(id) else { return };
        let arrival = &transit.arrival;
        let proven = code.is_success() || arrival.is_reachable();
        let paid = transit.under_way.as_ref().map_or(0, |under_way| under_way.request.bytes().len());
        if !proven && out.len() > paid {
            let Some(short) = essential(&out) else { return };
            if short.len() > paid {
                return;
            }
            out = short;
        }
        let bytes = Bytes::from(out);
        if transit.server.respond(code, bytes.clone(), now) && !transit.flow_lost {
            self.events.push_back(Event::Send(transit.back.clone(), bytes));
        }
    }

    /// Keeps what a 2xx confirms, and lets go what it does not.
    fn take_over(
        &mut self,
        id: TransitId,
        named: Vec<Named>,
        granted: &[Option<Duration>],
        target: &Target,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(transit) = self.transits.get(id) else { return };
        let host = transit.asked.registrar.host.clone();
        if transit.asked.star {
            let aor = transit.asked.aor.clone();
            let all: Vec<InstanceId> = self.table.of_account(&aor, &host).map(|it| it.named.id).collect();
            return all.into_iter().for_each(|id| self.end(id));
        }
        for (named, granted) in named.into_iter().zip(granted) {
            match granted {
                Some(granted) => self.confirm(id, named, *granted, target, desk, now),
                None => self.end(named.id),
            }
        }
    }

    fn confirm(
        &mut self,
        id: TransitId,
        named: Named,
        granted: Duration,
        target: &Target,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(Transit { arrival, asked, flow_lost, .. }) = self.transits.get(id) else { return };
        let (instance, wakes) = (named.id, !named.push.is_empty());
        let overtaken = self.table.get(instance).is_some_and(|it| {
            // RFC 3261 §10.3 step 7: what was overtaken by a later one changes nothing.
            it.made_by.0 == asked.made_by.0 && it.made_by.1 > asked.made_by.1
        });
        if overtaken {
            return;
        }
        let device = device_at(arrival, &named);
        let (peer, flow_lost) = (arrival.peer, *flow_lost);
        let awake = if flow_lost { Awake::Gone(now) } else { awake_by(&device, now) };
        let (aor, made_by) = (asked.aor.clone(), asked.made_by.clone());
        let (registrar, expires) = (asked.registrar.host.clone(), now + granted);
        self.supersede(&aor, &registrar, &named);
        let target = target.clone();
        self.events.push_back(Event::Device(peer, granted));
        self.events.push_back(Event::Registrar(target.address.ip(), granted));
        self.table.insert(Binding { named, aor, registrar, device, awake, target, expires, confirmed: now, made_by });
        self.lingering.remove(&instance);
        self.schedule.set((instance, Timer::Expiry), Some(expires));
        let renewal = wakes.then(|| now + granted.saturating_sub(lead(granted, desk.random)));
        self.schedule.set((instance, Timer::Refresh), renewal);
        if !flow_lost {
            self.events.push_back(Event::Attached(instance));
            self.let_go(instance);
        }
    }

    /// The same app with another token, or the same Contact: its former registration is not worth a second ring.
    fn supersede(&mut self, aor: &Aor, registrar: &TrunkHost, named: &Named) {
        let is_same = |other: &Named| {
            let same_app = other.urn.is_some() && other.urn == named.urn;
            other.id != named.id && (same_app || other.stripped == named.stripped)
        };
        let former: Vec<InstanceId> =
            self.table.of_account(aor, registrar).filter(|it| is_same(&it.named)).map(|it| it.named.id).collect();
        former.into_iter().for_each(|id| self.end(id));
    }

    /// A final answer of our own.
    fn answer(&mut self, id: TransitId, code: StatusCode, desk: &Desk<'_>, now: Instant) {
        let Some(Transit { arrival, under_way: Some(under_way), .. }) = self.transits.get(id) else { return };
        let tag = desk.tags.of(&under_way.request);
        let reply = Reply { code, to_tag: Some(&tag), source: Some(arrival.peer), record_route: false, extra: &[] };
        let mut out = Vec::with_capacity(384);
        if proxy::write_reply(&under_way.request, &reply, &mut out).is_ok() {
            self.give_back(id, code, out, now);
        }
        self.transits.close(id);
    }

    /// Answers a REGISTER that goes nowhere, without a transaction.
    fn refuse(&mut self, incoming: &Incoming<'_>, code: StatusCode, extra: &[(&str, String)], desk: &Desk<'_>) {
        let Incoming { request, arrival, back } = incoming;
        let tag = desk.tags.of(request);
        let reply = Reply { code, to_tag: Some(&tag), source: Some(arrival.peer), record_route: false, extra };
        let mut out = Vec::with_capacity(384);
        if proxy::write_reply(request, &reply, &mut out).is_err() {
            return;
        }
        let proven = arrival.is_reachable();
        if proven || out.len() <= request.bytes().len() {
            self.events.push_back(Event::Send(back.clone(), Bytes::from(out)));
        }
    }
}

/// Where the phone is that a REGISTER came from.
fn device_at(arrival: &Arrival, named: &Named) -> Device {
    let hop = match arrival.flow {
        Some(flow) => Hop::Flow(flow),
        None => Hop::Datagram { listener: arrival.listener, peer: arrival.peer },
    };
    let (listener, transport, peer) = (arrival.listener, arrival.transport, arrival.peer);
    Device { hop, listener, transport, peer, contact: named.uri.clone() }
}

/// The REGISTER as its registrar gets it: our Contacts or our Path, our Via, no Route, no push parameters. The phone's
/// credentials pass untouched.
fn outward(transit: &Transit, target: &Target, branch: BranchId, policy: &Policy) -> Option<Bytes> {
    let request = &transit.under_way.as_ref()?.request;
    let named = &transit.asked.contacts;
    let contacts: Vec<Vec<u8>> = named.iter().map(|it| it.outward(target, policy)).collect();
    let path = named.iter().find(|it| it.path).map(|it| ("Path", format!("<{};lr>", it.here(target, policy))));
    let extra: Vec<(&str, String)> = path.into_iter().collect();
    let contacts = (!transit.asked.star && !contacts.is_empty()).then_some(contacts.as_slice());
    let change = Rewrite { contacts, routes_dropped: usize::MAX, extra: &extra, ..Rewrite::default() };
    let changed = rewritten(request, &change)?;
    let sent_by = policy.listener(target.listener).map_or("", |listener| listener.advertise.as_str());
    let forward = Forward {
        request_uri: changed.request_uri().unwrap_or_default(),
        via: OwnVia { transport: target.transport, sent_by, branch: &branch.branch() },
        routes_dropped: 0,
        record_routes: &[],
        extra: &[],
    };
    let mut out = Vec::with_capacity(changed.bytes().len() + 256);
    proxy::write_forward(&changed, Some((transit.arrival.peer, transit.arrival.transport)), &forward, &mut out);
    (out.len() <= crate::sip::message::LONG_MESSAGE_MAX).then(|| Bytes::from(out))
}

/// A refusal cut to what the phone needs to try again.
fn essential(response: &[u8]) -> Option<Vec<u8>> {
    let response = Message::parse_datagram(response.to_vec()).ok()?;
    let mut out = Vec::with_capacity(response.bytes().len());
    let mut message = crate::sip::encode::Encoder::response(&mut out, response.status()?, b"");
    for header in response.headers() {
        let needed = matches!(
            header.name,
            HeaderName::Via
                | HeaderName::From
                | HeaderName::To
                | HeaderName::CallId
                | HeaderName::CSeq
                | HeaderName::WwwAuthenticate
                | HeaderName::ProxyAuthenticate
                | HeaderName::MinExpires
                | HeaderName::RetryAfter
        );
        if needed {
            message.copy(header);
        }
    }
    message.finish(b"");
    Some(out)
}

/// How long before its end a registration is renewed: a third of a short one.
fn lead(granted: Duration, random: &mut Random) -> Duration {
    let most = LEAD_MAX.min(granted / 3);
    let least = LEAD_MIN.min(granted / 4);
    least + random.jitter(most.saturating_sub(least), 0, 100)
}

/// What a phone that wakes by itself is told: it should come before our push does.
fn told_lead(granted: Duration) -> Duration {
    (LEAD_MAX + Duration::from_secs(10)).min(granted / 2)
}
