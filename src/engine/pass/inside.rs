//! Requests inside a call that wait until their phone has registered again (RFC 8599 §6), or has attached again after its
//! connection broke.

use super::*;
use crate::sip::proxy::{self, Reply};
use crate::sip::transaction::{ServerKey, cancels};
use crate::sip::{StatusCode, push_params};

/// Requests that wait at once in a shard; above it a further one is answered as if its phone were gone.
const INSIDE_MAX: usize = 2_048;
/// Of these, requests that wait for one phone, so that one caller cannot take the room of all.
const INSIDE_PHONE_MAX: usize = 16;
/// A request other than INVITE must have its answer before its sender's timer F (32 s); the phone needs some of that.
const NON_INVITE_HOLD: Duration = Duration::from_secs(20);

/// A request that waits for its phone.
pub(crate) struct Waiting {
    pub(crate) instance: InstanceId,
    pub(crate) request: Message,
    pub(crate) arrival: Arrival,
    pub(crate) back: Hop,
}

/// Those of a shard, in the order in which they came.
#[derive(Default)]
pub(super) struct Inside {
    next: u64,
    waiting: HashMap<u64, Waiting>,
    by_key: HashMap<ServerKey, u64>,
    by_instance: HashMap<InstanceId, BTreeSet<u64>>,
    schedule: Schedule<u64>,
}

impl Inside {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Vec<Waiting> {
        let mut due = Vec::new();
        while let Some(number) = self.schedule.pop_due(now) {
            due.extend(self.take(number));
        }
        due
    }

    fn add(&mut self, key: ServerKey, waiting: Waiting, until: Instant) {
        self.next += 1;
        self.by_key.insert(key, self.next);
        self.by_instance.entry(waiting.instance).or_default().insert(self.next);
        self.schedule.set(self.next, Some(until));
        self.waiting.insert(self.next, waiting);
    }

    fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.schedule.remove(number);
        if let Ok(key) = ServerKey::of(&waiting.request) {
            self.by_key.remove(&key);
        }
        if let Some(numbers) = self.by_instance.get_mut(&waiting.instance) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_instance.remove(&waiting.instance);
            }
        }
        Some(waiting)
    }

    fn take_all(&mut self, instance: InstanceId) -> Vec<Waiting> {
        let numbers = self.by_instance.get(&instance).cloned().unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.take(number)).collect()
    }
}

impl Pass {
    /// Whether a request inside a call has to wait: its phone sleeps, and asked by `pn-purr` in its Contact to be woken for
    /// such a request.
    pub(crate) fn must_wait(&self, instance: InstanceId, request: &Message, now: Instant) -> bool {
        let Some(binding) = self.table.get(instance) else { return false };
        let named = request.request_uri().and_then(|uri| Uri::parse(uri).ok());
        let purr = named.as_ref().and_then(push_params::purr).and_then(|purr| Capability::parse(purr.as_bytes()));
        purr == Some(binding.named.purr) && !binding.is_awake(now) && !binding.named.push.is_empty()
    }

    /// Whether there is room for a request to wait, and it may. No phone is woken for an ACK, but one that attaches by itself gets it: without the
    /// ACK it ends a call that it answered just before its connection broke.
    pub(crate) fn may_wait(&self, instance: InstanceId, request: &Message, returns: Option<Instant>) -> bool {
        let of_phone = self.inside.by_instance.get(&instance).map_or(0, BTreeSet::len);
        (returns.is_some() || request.method() != Some(Method::Ack))
            && of_phone < INSIDE_PHONE_MAX
            && self.inside.len() < INSIDE_MAX
    }

    /// Lets it wait. A phone whose connection broke attaches by itself until `returns`; any other one is woken, unless
    /// another request waits for it already.
    pub(crate) fn let_wait(&mut self, waiting: Waiting, returns: Option<Instant>, desk: &mut Desk<'_>, now: Instant) {
        let Ok(key) = ServerKey::of(&waiting.request) else { return };
        let invite = waiting.request.method() == Some(Method::Invite);
        let longest = now + if invite { desk.policy.hold } else { NON_INVITE_HOLD };
        let until = returns.map_or(longest, |returns| returns.min(longest));
        if invite {
            self.say_trying(&waiting);
        }
        if returns.is_none() && !self.inside.by_instance.contains_key(&waiting.instance) {
            self.events.push_back(Event::Refresh(waiting.instance, until));
        }
        self.inside.add(key, waiting, until);
    }

    /// The same request again. `false`: it does not wait here.
    pub(super) fn is_waiting(&mut self, request: &Message) -> bool {
        let number = ServerKey::of(request).ok().and_then(|key| self.inside.by_key.get(&key));
        let Some(waiting) = number.and_then(|number| self.inside.waiting.get(number)) else { return false };
        if let (Some(Method::Invite), Some(bytes)) = (request.method(), trying(waiting)) {
            self.events.push_back(Event::Send(waiting.back.clone(), bytes));
        }
        true
    }

    /// The request that a CANCEL ends the waiting of: it is to be answered at once, by whoever answers it.
    pub(crate) fn take_cancelled(&mut self, cancel: &Message) -> Option<Waiting> {
        if cancel.method() != Some(Method::Cancel) {
            return None;
        }
        let number = *self.inside.by_key.get(&ServerKey::of_cancelled(cancel).ok()?)?;
        let meant = self.inside.waiting.get(&number).is_some_and(|waiting| cancels(cancel, &waiting.request));
        if meant { self.inside.take(number) } else { None }
    }

    /// The phone has registered or attached, or will not any more: what waits for it goes on.
    pub(crate) fn let_go(&mut self, instance: InstanceId) {
        let waiting = self.inside.take_all(instance);
        self.events.extend(waiting.into_iter().map(|waiting| Event::Release(Box::new(waiting))));
    }

    fn say_trying(&mut self, waiting: &Waiting) {
        if let Some(bytes) = trying(waiting) {
            self.events.push_back(Event::Send(waiting.back.clone(), bytes));
        }
    }
}

fn trying(waiting: &Waiting) -> Option<Bytes> {
    let mut out = Vec::with_capacity(256);
    let source = Some(waiting.arrival.peer);
    let reply = Reply { code: StatusCode::TRYING, to_tag: None, source, record_route: false, extra: &[] };
    proxy::write_reply(&waiting.request, &reply, &mut out).ok()?;
    Some(Bytes::from(out))
}
