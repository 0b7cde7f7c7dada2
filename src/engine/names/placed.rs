//! Requests that were passed on by a called name: what follows in their transactions goes where they went.
//!
//! Who bears a name may change while a call rings. RFC 3261 §17.2.3 and §9.2 match a repetition, an ACK and a CANCEL to
//! their INVITE by branch and sent-by, not by whom they call.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;

use crate::clock::Instant;
use crate::engine::ids::{BindingId, ShardId};
use crate::sip::transaction::ServerKey;

/// How long a request is remembered: more than a call rings, since a proxy's Timer C is three minutes after the phone's last
/// word (RFC 3261 §16.6 step 11). After it the name is looked up anew.
const PLACED_KEPT: Duration = Duration::from_secs(600);

/// The requests of one home shard.
pub(super) struct Placed {
    places: HashMap<ServerKey, (ShardId, BindingId)>,
    /// The oldest first: all are kept for the same time.
    order: VecDeque<(Instant, ServerKey)>,
    most: usize,
}

impl Placed {
    /// Remembers at most `most` requests; above it the oldest is forgotten.
    pub(super) fn new(most: usize) -> Self {
        Self { places: HashMap::default(), order: VecDeque::new(), most: most.max(1) }
    }

    pub(super) fn add(&mut self, key: ServerKey, place: (ShardId, BindingId), now: Instant) {
        if self.places.contains_key(&key) {
            return;
        }
        if self.places.len() >= self.most
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        self.places.insert(key.clone(), place);
        self.order.push_back((now + PLACED_KEPT, key));
    }

    pub(super) fn of(&self, key: &ServerKey) -> Option<(ShardId, BindingId)> {
        self.places.get(key).copied()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, key)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            self.places.remove(&key);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.order.front().map(|(until, _)| *until)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}
