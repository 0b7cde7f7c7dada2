//! One MESSAGE from its arrival until its copies need no answer any more.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use aws_lc_rs::hmac;
use bytes::Bytes;

use super::{LINGER, PATIENCE};
use crate::clock::{Instant, Now, WallTime};
use crate::engine::ids::{BranchId, InstanceId};
use crate::engine::input::Arrival;
use crate::engine::output::Hop;
use crate::engine::random::Random;
use crate::sip::transaction::{NonInviteClient, ServerKey};
use crate::sip::{HeaderName, Message, StatusCode, Transport};

/// What the copies of one message are known by: capability, Call-ID, From tag and CSeq, as a MAC.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct MergeKey([u8; 16]);

/// A request and the way its answer takes.
pub(super) struct Origin {
    pub(super) request: Message,
    pub(super) back: Hop,
    pub(super) source: SocketAddr,
    pub(super) transport: Transport,
    /// Whether the source has shown that it is where it says.
    pub(super) proven: bool,
}

/// One MESSAGE.
pub(super) struct Transit {
    pub(super) key: ServerKey,
    pub(super) merge: MergeKey,
    /// Whose bound it counts against.
    pub(super) owner: InstanceId,
    /// Until it is answered and nobody is being told any more.
    pub(super) origin: Option<Origin>,
    /// Copies that wait for the same answer.
    pub(super) copies: Vec<Origin>,
    /// The name it has for devices.
    pub(super) name: String,
    pub(super) arrived: WallTime,
    /// When it is worth nothing any more.
    pub(super) until: Instant,
    pub(super) patience: Instant,
    pub(super) legs: BTreeMap<InstanceId, Leg>,
    /// Kept for at least one recipient.
    pub(super) kept: bool,
    /// The first refusal of a device.
    pub(super) refusal: Option<Message>,
    /// What its sender got.
    pub(super) answer: Option<(StatusCode, Bytes)>,
    pub(super) answered_at: Option<Instant>,
}

/// A message on its way to a device over a live flow.
pub(super) struct Leg {
    pub(super) branch: BranchId,
    pub(super) client: NonInviteClient,
    pub(super) hop: Hop,
    /// It was kept meanwhile; a late answer of the device still counts.
    pub(super) kept: bool,
}

impl MergeKey {
    pub(super) fn of(request: &Message, owner: InstanceId, key: &hmac::Key) -> Self {
        let mut context = hmac::Context::with_key(key);
        context.update(owner.as_bytes());
        let tag = request.from().ok().and_then(|from| from.tag().map(str::to_owned)).unwrap_or_default();
        for part in [request.header(HeaderName::CallId).unwrap_or_default(), tag.as_bytes()] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.update(&request.cseq().map_or(0, |cseq| cseq.number).to_be_bytes());
        let mut mac = [0; 16];
        mac.copy_from_slice(&context.sign().as_ref()[..16]);
        Self(mac)
    }
}

impl Origin {
    pub(super) fn new(request: Message, arrival: &Arrival, back: Hop) -> Self {
        Self { request, back, source: arrival.peer, transport: arrival.transport, proven: arrival.is_reachable() }
    }

    /// Whether so many bytes may go back: never more out than in before a source is proven.
    pub(super) fn affords(&self, bytes: usize) -> bool {
        self.proven || bytes <= self.request.bytes().len()
    }
}

impl Transit {
    pub(super) fn new(
        key: ServerKey,
        merge: MergeKey,
        owner: InstanceId,
        origin: Origin,
        until: Instant,
        random: &mut Random,
        now: Now,
    ) -> Self {
        Self {
            key,
            merge,
            owner,
            origin: Some(origin),
            copies: Vec::new(),
            name: uuid::Builder::from_random_bytes(random.bytes()).into_uuid().to_string(),
            arrived: now.wall,
            until,
            patience: now.boot + PATIENCE,
            legs: BTreeMap::new(),
            kept: false,
            refusal: None,
            answer: None,
            answered_at: None,
        }
    }

    /// Whether a device may still answer before the message has to be kept for it.
    pub(super) fn is_undecided(&self) -> bool {
        self.legs.values().any(|leg| !leg.kept)
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let patience = self.is_undecided().then_some(self.patience);
        let legs = self.legs.values().filter_map(|leg| leg.client.poll_timeout()).min();
        let linger = self.answered_at.map(|at| at + LINGER);
        [patience, legs, linger].into_iter().flatten().min()
    }
}
