//! A token's home: which device holds it, and how often it is challenged.

use std::collections::BTreeSet;
use std::time::Duration;

use ahash::HashMap;

use crate::clock::Instant;
use crate::engine::ids::InstanceId;
use crate::engine::proof::{TokenKey, TokenWord};
use crate::engine::schedule::Schedule;

/// Challenges follow one another at this pace once a token has had its burst: whoever hands a stranger's token over may
/// make that phone look up, but not often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Tokens of one shard that are being challenged; above it a challenge has to wait.
const CHALLENGED_MAX: usize = 100_000;

/// Who holds a token.
struct Holder {
    device: String,
    /// The token its device has proven: this one, or the one it goes with.
    proven: TokenKey,
    /// At most one entry for each instance there is.
    instances: BTreeSet<InstanceId>,
}

/// The tokens whose home this shard is.
pub(super) struct Homes {
    burst: u32,
    holders: HashMap<TokenKey, Holder>,
    /// When the next challenge would be due if they went out evenly; forgotten then.
    challenged: Schedule<TokenKey>,
}

impl Homes {
    pub(super) fn new(burst: u32) -> Self {
        Self { burst: burst.max(1), holders: HashMap::default(), challenged: Schedule::default() }
    }

    /// Takes a word and gives back what is to be said, to whom.
    pub(super) fn handle(
        &mut self,
        token: TokenKey,
        from: InstanceId,
        word: TokenWord,
        now: Instant,
    ) -> Vec<(InstanceId, TokenWord)> {
        match word {
            TokenWord::ChallengeWanted => vec![(from, TokenWord::ChallengeAnswered(self.pace(token, now)))],
            TokenWord::Claimed { proven, device } => self.claim(token, from, proven, device),
            TokenWord::LaidDown => {
                self.lay_down(token, from);
                Vec::new()
            }
            TokenWord::ChallengeAnswered(_) | TokenWord::ClaimAnswered(_) | TokenWord::Lost => Vec::new(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while self.challenged.pop_due(now).is_some() {}
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.challenged.next()
    }

    pub(super) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        let claims = self.holders.values().map(|holder| holder.instances.len()).sum();
        out.extend([("proofs.claims", claims), ("proofs.challenged", self.challenged.len())]);
    }

    /// How long a challenge has to wait, if it has to.
    fn pace(&mut self, token: TokenKey, now: Instant) -> Option<Duration> {
        let due = self.challenged.at(token);
        if due.is_none() && self.challenged.len() >= CHALLENGED_MAX {
            return Some(INTERVAL);
        }
        let due = due.unwrap_or(now).max(now);
        let early = due.saturating_since(now).saturating_sub(INTERVAL * (self.burst - 1));
        if !early.is_zero() {
            return Some(early);
        }
        self.challenged.set(token, Some(due + INTERVAL));
        None
    }

    /// The newest who has proven a token holds it. One that cannot be proven by itself goes with the token it came with:
    /// its former holder keeps it, unless the newcomer is the same device, or has proven the very same token.
    fn claim(
        &mut self,
        token: TokenKey,
        from: InstanceId,
        proven: TokenKey,
        device: String,
    ) -> Vec<(InstanceId, TokenWord)> {
        let granted = (from, TokenWord::ClaimAnswered(true));
        let fresh = |device| Holder { device, proven, instances: BTreeSet::from([from]) };
        let Some(holder) = self.holders.get_mut(&token) else {
            self.holders.insert(token, fresh(device));
            return vec![granted];
        };
        if holder.device == device {
            holder.proven = proven;
            holder.instances.insert(from);
            return vec![granted];
        }
        if token != proven && holder.proven != proven {
            return vec![(from, TokenWord::ClaimAnswered(false))];
        }
        let former = std::mem::replace(holder, fresh(device));
        let losers = former.instances.into_iter().filter(|id| *id != from);
        losers.map(|id| (id, TokenWord::Lost)).chain([granted]).collect()
    }

    fn lay_down(&mut self, token: TokenKey, from: InstanceId) {
        let Some(holder) = self.holders.get_mut(&token) else { return };
        holder.instances.remove(&from);
        if holder.instances.is_empty() {
            self.holders.remove(&token);
        }
    }
}
