//! BYEs of our own: for an answer that nobody upstream will hear of, repeated until the phone has one.

use ahash::HashMap;
use bytes::Bytes;

use crate::clock::Instant;
use crate::engine::ids::BranchId;
use crate::engine::output::Hop;
use crate::engine::schedule::Schedule;
use crate::sip::StatusCode;
use crate::sip::transaction::{NonInviteClient, Timeout};

/// BYEs under way at once; above it a BYE is sent once and not repeated.
const FAREWELLS_MAX: usize = 10_000;

struct Farewell {
    client: NonInviteClient,
    hop: Hop,
}

/// The BYEs of one shard.
#[derive(Default)]
pub(super) struct Farewells {
    by_branch: HashMap<BranchId, Farewell>,
    schedule: Schedule<BranchId>,
}

impl Farewells {
    /// A BYE goes out now.
    pub(super) fn add(&mut self, branch: BranchId, bye: Bytes, hop: Hop, now: Instant) {
        if self.by_branch.len() >= FAREWELLS_MAX {
            return;
        }
        let reliable = !matches!(hop, Hop::Datagram { .. });
        let client = NonInviteClient::new(bye, reliable, None, now);
        self.schedule.set(branch, client.poll_timeout());
        self.by_branch.insert(branch, Farewell { client, hop });
    }

    /// `false`: the branch is not one of a BYE of ours.
    pub(super) fn handle_response(&mut self, branch: BranchId, code: StatusCode) -> bool {
        if !code.is_provisional() && self.by_branch.remove(&branch).is_some() {
            self.schedule.remove(branch);
            return true;
        }
        self.by_branch.contains_key(&branch)
    }

    /// What is to be sent again.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<(Hop, Bytes)> {
        let mut again = Vec::new();
        while let Some(branch) = self.schedule.pop_due(now) {
            let Some(farewell) = self.by_branch.get_mut(&branch) else { continue };
            match farewell.client.handle_timeout(now) {
                Timeout::Retransmit => again.push((farewell.hop.clone(), farewell.client.request().clone())),
                Timeout::TimedOut | Timeout::Terminated => {
                    self.by_branch.remove(&branch);
                    continue;
                }
                Timeout::Idle => {}
            }
            self.schedule.set(branch, farewell.client.poll_timeout());
        }
        again
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(super) fn len(&self) -> usize {
        self.by_branch.len()
    }
}
