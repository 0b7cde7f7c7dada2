//! The edge: where woken devices attach.
//!
//! A device registers here with its instance id and token; that opens a flow, on which held calls and dialogs reach it.
//! A flow holds no secret and outlives the erasure of its instance until it ends by itself. This room forwards nothing.

mod attempts;
mod challenge;
mod short;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ahash::HashMap;
use aws_lc_rs::hmac;
use bytes::Bytes;

use attempts::Attempts;

use super::device::{Device, reply_hop};
use super::ids::{FlowId, InstanceId};
use super::input::Arrival;
use super::output::Hop;
use super::policy::Policy;
use super::schedule::Schedule;
use super::token::{Tokens, Which};
use crate::clock::Instant;
use crate::sip::proxy::{self, Reply};
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::{HeaderName, Message, StatusCode};

/// Longest registration at the edge, for a device that keeps its flow alive.
const EXPIRES_MAX: u32 = 3600;
/// Expiry where the device asks for none.
const EXPIRES_DEFAULT: u32 = 600;
/// A device whose flow died may come back by itself for so long: as long as its own transactions live.
const RETURN: Duration = TRANSACTION_TIMEOUT;

/// What this room asks of the engine.
pub(crate) enum Event {
    Send(Hop, Bytes),
    /// The device is reachable on this flow from now on.
    Attached(InstanceId),
    /// The device's flow ended.
    Detached(InstanceId),
    /// The socket address has proven itself for this long.
    Proven(SocketAddr, Duration),
}

struct Attachment {
    device: Device,
    until: Instant,
    /// Call-ID and CSeq of the REGISTER that made it.
    call_id: Vec<u8>,
    cseq: u32,
}

impl Attachment {
    /// RFC 3261 §10.3 step 7: a REGISTER that was overtaken by a later one changes nothing.
    fn is_newer_than(&self, request: &Message) -> bool {
        let (Ok(call_id), Ok(cseq)) = (request.call_id(), request.cseq()) else { return false };
        self.call_id == call_id && self.cseq >= cseq.number
    }
}

/// What became of an instance. Told to nobody without its token.
#[derive(Clone, Copy)]
pub(crate) enum Standing {
    /// It may attach.
    Held,
    /// Its processing is restricted.
    Restricted,
    /// Only a tombstone is left.
    Erased,
}

/// Why a device was not let in.
pub(crate) enum Refusal {
    /// As every device is that has yet to show its token; or there are no calls to tell of it.
    Challenged,
    /// For this reason, in the words of a call's story.
    Told(&'static str),
    /// Its source tries too many wrong tokens: not even answered.
    Slowed,
}

/// What the edge must know of an instance to let it attach.
pub(crate) struct Known<'a> {
    pub(crate) instance: InstanceId,
    /// Those it has, or had at last.
    pub(crate) tokens: &'a Tokens,
    pub(crate) standing: Standing,
    /// `Reveille-Call` values for the 200.
    pub(crate) calls: Vec<String>,
    /// Whose hosts are ours.
    pub(crate) policy: &'a Policy,
}

/// The room.
pub(crate) struct Edge {
    realm: String,
    nonce_key: hmac::Key,
    attached: HashMap<InstanceId, Attachment>,
    by_flow: HashMap<FlowId, BTreeSet<InstanceId>>,
    schedule: Schedule<InstanceId>,
    /// Devices whose flow died, and until when they may come back. Each was attached, so `flows` bounds them.
    returning: Schedule<InstanceId>,
    events: VecDeque<Event>,
    attempts: Attempts,
}

impl Edge {
    pub(crate) fn new(realm: String, nonce_key: [u8; 32]) -> Self {
        Self {
            realm,
            nonce_key: hmac::Key::new(hmac::HMAC_SHA256, &nonce_key),
            attached: HashMap::default(),
            by_flow: HashMap::default(),
            schedule: Schedule::default(),
            returning: Schedule::default(),
            events: VecDeque::new(),
            attempts: Attempts::default(),
        }
    }

    /// A REGISTER that names an instance: attached, refreshed, detached or asked. Tells which token it showed.
    ///
    /// # Errors
    /// Why it was not let in.
    pub(crate) fn handle_register(
        &mut self,
        request: &Message,
        arrival: &Arrival,
        known: Known<'_>,
        tag: &str,
        now: Instant,
    ) -> Result<Which, Refusal> {
        // Before the credentials are looked at (RFC 3261 §10.3): no extension of REGISTER changes what we do.
        if proxy::requires_anything(request) {
            let extra = [("Unsupported", proxy::unsupported(request))];
            self.reply(request, arrival, StatusCode::BAD_EXTENSION, tag, &extra);
            return Err(Refusal::Challenged);
        }
        match (self.check(request, arrival, known.instance, known.tokens, now), known.standing) {
            (Ok(_), _) if !challenge::is_meant_for_us(request, &self.realm, known.policy) => {
                self.reply(request, arrival, StatusCode::BAD_REQUEST, tag, &[]);
                Err(Refusal::Told("wrong-uri"))
            }
            (Ok(which), Standing::Held) => {
                self.register(request, arrival, known, tag, now);
                Ok(which)
            }
            (Ok(_), Standing::Restricted) => {
                self.reply(request, arrival, StatusCode::FORBIDDEN, tag, &[]);
                Err(Refusal::Challenged)
            }
            (Ok(_), Standing::Erased) => {
                self.reply(request, arrival, StatusCode::NOT_FOUND, tag, &[]);
                Err(Refusal::Told("erased"))
            }
            (Err(stale), _) => {
                let is_wrong = !stale && request.credentials(HeaderName::Authorization, &self.realm).is_some();
                if is_wrong && !self.attempts.admit(arrival.peer.ip(), now) {
                    return Err(Refusal::Slowed);
                }
                self.challenge(request, arrival, known.instance, stale, tag, now);
                Err(if is_wrong { Refusal::Told("wrong-token") } else { Refusal::Challenged })
            }
        }
    }

    /// A stream connection is gone.
    pub(crate) fn handle_flow_closed(&mut self, flow: FlowId, now: Instant) {
        for instance in self.by_flow.remove(&flow).unwrap_or_default() {
            self.lose(instance, now);
        }
    }

    /// The device does not answer on its flow.
    pub(crate) fn handle_silence(&mut self, instance: InstanceId, now: Instant) {
        self.lose(instance, now);
    }

    /// The instance is erased while it is in a call: its device cannot refresh any more, and is kept until the call ends.
    pub(crate) fn keep(&mut self, instance: InstanceId, until: Instant) {
        if let Some(attachment) = self.attached.get_mut(&instance) {
            attachment.until = until;
            self.schedule.set(instance, Some(until));
        }
    }

    /// The instance is erased, and nothing needs its device any more.
    pub(crate) fn release(&mut self, instance: InstanceId) {
        self.detach(instance);
        self.returning.remove(instance);
    }

    /// Forgets devices whose registration ran out.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(instance) = self.schedule.pop_due(now) {
            self.detach(instance);
        }
        while self.returning.pop_due(now).is_some() {}
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.schedule.next(), self.returning.next()].into_iter().flatten().min()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How the instance's device is reached now.
    pub(crate) fn device(&self, instance: InstanceId) -> Option<&Device> {
        self.attached.get(&instance).map(|attachment| &attachment.device)
    }

    /// Until when the instance's device may come back by itself, since its flow died.
    pub(crate) fn returns_until(&self, instance: InstanceId) -> Option<Instant> {
        self.returning.at(instance)
    }

    /// Whether a device of ours is on this flow.
    pub(crate) fn has_flow(&self, flow: FlowId) -> bool {
        self.by_flow.contains_key(&flow)
    }

    /// Whether at most one instance is reached this way.
    pub(crate) fn is_alone_on(&self, hop: &Hop) -> bool {
        match hop {
            Hop::Flow(flow) => self.by_flow.get(flow).is_none_or(|instances| instances.len() <= 1),
            Hop::Datagram { .. } | Hop::Trunk(_) => {
                self.attached.values().filter(|attachment| attachment.device.hop == *hop).nth(1).is_none()
            }
        }
    }

    /// Devices attached.
    pub(crate) fn len(&self) -> usize {
        self.attached.len()
    }

    /// Devices that may come back.
    pub(crate) fn returning(&self) -> usize {
        self.returning.len()
    }

    fn register(&mut self, request: &Message, arrival: &Arrival, known: Known<'_>, tag: &str, now: Instant) {
        let instance = known.instance;
        let default = request.expires().ok().flatten().unwrap_or(EXPIRES_DEFAULT);
        let mut extra: Vec<(&str, String)> = Vec::new();
        let contact = request.contacts().find_map(Result::ok);
        let asked = contact.and_then(|contact| contact.param("expires").flatten()?.parse().ok()).unwrap_or(default);
        let overtaken = self.attached.get(&instance).is_some_and(|attachment| attachment.is_newer_than(request));
        if overtaken {
            // Answered with what holds now.
        } else if request.contact_is_star() || (contact.is_some() && asked == 0) {
            self.detach(instance);
        } else if let Some(contact) = contact {
            let expires = asked.min(EXPIRES_MAX);
            let uri = contact.uri().raw().to_vec();
            let hop = match arrival.flow {
                Some(flow) => Hop::Flow(flow),
                None => Hop::Datagram { listener: arrival.listener, peer: arrival.peer },
            };
            let device = Device {
                hop,
                listener: arrival.listener,
                transport: arrival.transport,
                peer: arrival.peer,
                contact: uri,
            };
            let until = now + Duration::from_secs(u64::from(expires));
            let call_id = request.call_id().unwrap_or_default().to_vec();
            let cseq = request.cseq().map_or(0, |cseq| cseq.number);
            self.attach(instance, Attachment { device, until, call_id, cseq }, now);
        }
        if let Some(attachment) = self.attached.get(&instance) {
            let left = attachment.until.saturating_since(now).as_secs();
            let uri = String::from_utf8_lossy(&attachment.device.contact);
            extra.push(("Contact", format!("<{uri}>;expires={left}")));
        }
        extra.extend(known.calls.into_iter().map(|call| ("Reveille-Call", call)));
        self.reply(request, arrival, StatusCode::OK, tag, &extra);
        if self.attached.contains_key(&instance) {
            self.events.push_back(Event::Attached(instance));
        }
    }

    fn attach(&mut self, instance: InstanceId, attachment: Attachment, now: Instant) {
        self.unlink(instance);
        if let Hop::Flow(flow) = attachment.device.hop {
            self.by_flow.entry(flow).or_default().insert(instance);
        }
        let expires = attachment.until.saturating_since(now);
        self.events.push_back(Event::Proven(attachment.device.peer, expires));
        self.schedule.set(instance, Some(attachment.until));
        self.returning.remove(instance);
        self.attached.insert(instance, attachment);
    }

    /// Its flow died without its doing.
    fn lose(&mut self, instance: InstanceId, now: Instant) {
        if self.attached.contains_key(&instance) {
            self.returning.set(instance, Some(now + RETURN));
        }
        self.detach(instance);
    }

    fn detach(&mut self, instance: InstanceId) {
        self.unlink(instance);
        self.schedule.remove(instance);
        if self.attached.remove(&instance).is_some() {
            self.events.push_back(Event::Detached(instance));
        }
    }

    fn unlink(&mut self, instance: InstanceId) {
        let Some(Hop::Flow(flow)) = self.attached.get(&instance).map(|attachment| &attachment.device.hop) else {
            return;
        };
        if let Some(instances) = self.by_flow.get_mut(flow) {
            instances.remove(&instance);
            if instances.is_empty() {
                self.by_flow.remove(flow);
            }
        }
    }

    fn reply(&mut self, request: &Message, arrival: &Arrival, code: StatusCode, tag: &str, extra: &[(&str, String)]) {
        let reply = Reply { code, to_tag: Some(tag), source: Some(arrival.peer), record_route: false, extra };
        let proven = code == StatusCode::OK || arrival.is_reachable();
        // Never more bytes out than in before a source is proven: a forged source address is not worth an answer.
        let most = if proven { usize::MAX } else { request.bytes().len() };
        let answer = short::Form::ALL.into_iter().find_map(|form| short::write(request, &reply, form, most));
        self.events.extend(answer.map(|answer| Event::Send(reply_hop(request, arrival), answer)));
    }
}
