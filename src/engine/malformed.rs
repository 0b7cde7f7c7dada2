//! Requests of a registrar's that cannot be read: whether what is left of one is worth an answer.
//!
//! Its own room because nothing of such a request may reach a call. A caller that waits 32 seconds for a 400 takes it for a
//! dead line; a stranger that knows no capability gets silence, as ever. Refuses to send more bytes than came.

use bytes::Bytes;

use super::device::reply_hop;
use super::engine::{Effect, Engine};
use super::input::{Arrival, Malformed};
use super::placement::capability_of;
use super::tally::Shed;
use crate::clock::Now;
use crate::sip::proxy::{self, Reply};

impl Engine {
    /// Answers a request that names a capability held for its source.
    pub(super) fn handle_malformed(&mut self, malformed: &Malformed, arrival: &Arrival, now: Now) {
        let Malformed { request, code, paid } = malformed;
        let known = capability_of(request).and_then(|callee| self.leases.by_capability(&callee));
        let is_called = known.is_some_and(|binding| self.callees_of(binding, arrival, now).is_some());
        if !is_called || !arrival.registrar {
            return self.tally.shed(Shed::Stranger);
        }
        self.tally.shed(Shed::Malformed);
        let tag = self.tags.of(request);
        let mut out = Vec::new();
        let reply =
            Reply { code: *code, to_tag: Some(&tag), source: Some(arrival.peer), record_route: false, extra: &[] };
        if proxy::write_reply(request, &reply, &mut out).is_ok() && out.len() <= *paid {
            self.outputs.push_back(Effect::Send(reply_hop(request, arrival), Bytes::from(out)));
        }
    }
}
