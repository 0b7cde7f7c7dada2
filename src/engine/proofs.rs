//! Proofs of push tokens: whether the device that handed a token over is the one that gets its pushes.
//!
//! Without it, whoever has an account and somebody else's push token could wake that phone at will. Where a tenant asks for
//! proof, a challenge goes through the token, and until it comes back nothing else does. The token of calls on APNs cannot
//! carry one (a VoIP push must show a call); it goes with the proven one, if no other device came with it before. Who holds
//! a token, and how often it may be challenged, its home shard knows (`homes`). This room sends no push itself.

mod homes;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;

use super::account::TenantId;
use super::ids::{InstanceId, ReplyTo, ShardId};
use super::input::PushTarget;
use super::output::{Unsent, WakeKind};
use super::placement::Placement;
use super::proof::{Challenge, ProofState, TokenKey, TokenMessage, TokenWord};
use crate::clock::Instant;
use homes::Homes;

/// A challenge is good for so long.
pub(crate) const CHALLENGE_LIFE: Duration = Duration::from_secs(300);
/// Wrong answers to one challenge; then another one has to be asked for.
const TRIES: u8 = 5;
/// Between two challenges of an instance.
const PAUSE: Duration = Duration::from_secs(30);
/// How far ahead of that pace another token may be challenged at once: apps get a new one right after the first. Whoever
/// names one token after another makes nobody push at that speed.
const AHEAD: Duration = Duration::from_secs(60);

/// What this room asks of the engine.
pub(crate) enum Event {
    /// Tell a shard, maybe this one.
    Peer(ShardId, TokenMessage),
    /// Push a challenge, and tell `challenged`.
    Challenge(InstanceId),
    /// Answer with the state as it is.
    Settled(InstanceId, ReplyTo),
    /// The instance's push token is proven, and its own.
    Proven(InstanceId),
    /// Answer that it is to be asked later.
    Later(ReplyTo, Duration),
}

/// What came of an app's word.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is answered by an event.
    Waits,
    /// This is how it stands.
    State(ProofState),
    /// It is not the challenge that was pushed; so many tries are left.
    Wrong(u8),
    /// Too early.
    Later(Duration),
}

/// The tokens an instance is woken by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// The one that carries the challenge, and all wakes but calls.
    other: TokenKey,
    /// The one for calls; often the same.
    call: TokenKey,
}

impl Tokens {
    pub(crate) fn new(tenant: &TenantId, other: &PushTarget, call: &PushTarget) -> Self {
        Self { other: TokenKey::of(tenant, other), call: TokenKey::of(tenant, call) }
    }

    /// Each once.
    fn each(&self) -> impl Iterator<Item = TokenKey> + use<> {
        let call = (self.call != self.other).then_some(self.call);
        std::iter::once(self.other).chain(call)
    }
}

/// Whether a proven instance may use a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    No,
    Asked,
    Granted,
    Refused,
}

struct Open {
    challenge: Challenge,
    until: Instant,
    tries: u8,
}

/// The proof of one instance.
struct Proof {
    device: String,
    tokens: Tokens,
    open: Option<Open>,
    /// When another challenge may be asked for.
    next: Instant,
    proven: bool,
    other: Claim,
    call: Claim,
    /// The app that waits for the home shards.
    waiting: Option<ReplyTo>,
}

/// The room.
pub(crate) struct Proofs {
    placement: Placement,
    proofs: HashMap<InstanceId, Proof>,
    homes: Homes,
    events: VecDeque<Event>,
}

impl Proofs {
    /// `burst`: challenges that one token may get at once.
    pub(crate) fn new(placement: Placement, burst: u32) -> Self {
        Self { placement, proofs: HashMap::default(), homes: Homes::new(burst), events: VecDeque::new() }
    }

    /// An instance was handed over, or has other tokens now. What is proven stays so; what is not gets a challenge.
    pub(crate) fn review(&mut self, id: InstanceId, device: &str, tokens: Tokens, now: Instant) {
        let former = self.proofs.get(&id).map(|proof| proof.tokens);
        match former {
            Some(former) if former.other == tokens.other => {
                if former.call != tokens.call {
                    self.change_call(id, tokens);
                }
            }
            Some(_) => {
                let next = self.proofs.get(&id).map(|proof| proof.next).unwrap_or_default();
                // Whoever waits for the former token's proof is told how the new one stands.
                let waiting = self.forget(id);
                self.begin(id, device, tokens, next);
                self.events.extend(waiting.map(|reply| Event::Settled(id, reply)));
                return self.challenge(id, AHEAD, now);
            }
            None => self.begin(id, device, tokens, Instant::default()),
        }
        self.challenge(id, Duration::ZERO, now);
    }

    /// The instance is gone, or needs no proof any more. Given back: who still waits for an answer.
    pub(crate) fn forget(&mut self, id: InstanceId) -> Option<ReplyTo> {
        let proof = self.proofs.remove(&id)?;
        if proof.proven {
            for token in proof.tokens.each() {
                self.tell_home(token, id, TokenWord::LaidDown);
            }
        }
        proof.waiting
    }

    /// Its push has left, or could not be sent (`None`).
    pub(crate) fn challenged(&mut self, id: InstanceId, challenge: Option<Challenge>, now: Instant) {
        let Some(proof) = self.proofs.get_mut(&id) else { return };
        proof.open = challenge.map(|challenge| Open { challenge, until: now + CHALLENGE_LIFE, tries: TRIES });
        self.settle(id);
    }

    /// The app returns a challenge, as far as it can be one.
    pub(crate) fn answer(&mut self, id: InstanceId, said: Option<Challenge>, reply: ReplyTo, now: Instant) -> Said {
        let Some(proof) = self.proofs.get_mut(&id) else { return Said::State(ProofState::NotRequired) };
        if proof.waiting.is_some() {
            return Said::Later(Duration::from_secs(1));
        }
        if proof.proven {
            return Said::State(proof.state());
        }
        let Some(open) = proof.open.as_mut().filter(|open| open.until > now) else {
            proof.open = None;
            return Said::Wrong(0);
        };
        if said != Some(open.challenge) {
            open.tries -= 1;
            let left = open.tries;
            if left == 0 {
                proof.open = None;
            }
            return Said::Wrong(left);
        }
        (proof.open, proof.proven, proof.waiting) = (None, true, Some(reply));
        self.claim(id);
        Said::Waits
    }

    /// The app asks for another challenge, or whether a contested token is free by now.
    pub(crate) fn ask(&mut self, id: InstanceId, reply: ReplyTo, now: Instant) -> Said {
        let Some(proof) = self.proofs.get_mut(&id) else { return Said::State(ProofState::NotRequired) };
        let wait = proof.next.saturating_since(now);
        match proof.state() {
            ProofState::Proven | ProofState::NotRequired => return Said::State(ProofState::Proven),
            _ if proof.waiting.is_some() => return Said::Later(Duration::from_secs(1)),
            _ if !wait.is_zero() => return Said::Later(wait),
            ProofState::Contested | ProofState::Pending => {}
        }
        (proof.waiting, proof.next) = (Some(reply), now + PAUSE);
        if proof.proven {
            self.claim(id);
        } else {
            proof.open = None;
            let token = proof.tokens.other;
            self.tell_home(token, id, TokenWord::ChallengeWanted);
        }
        Said::Waits
    }

    /// Why a wake of this kind may not be sent, if it may not.
    pub(crate) fn hindrance(&self, id: InstanceId, kind: WakeKind) -> Option<Unsent> {
        let proof = self.proofs.get(&id)?;
        let claim = if kind == WakeKind::Call { proof.call } else { proof.other };
        match claim {
            _ if kind == WakeKind::Proof => None,
            Claim::Granted => None,
            Claim::Refused => Some(Unsent::Contested),
            Claim::No | Claim::Asked => Some(Unsent::Unproven),
        }
    }

    pub(crate) fn state(&self, id: InstanceId) -> ProofState {
        self.proofs.get(&id).map_or(ProofState::NotRequired, Proof::state)
    }

    /// Another shard speaks.
    pub(crate) fn handle_peer(&mut self, message: TokenMessage, now: Instant) {
        let TokenMessage { token, instance, word } = message;
        if word.is_for_home() {
            for (to, word) in self.homes.handle(token, instance, word, now) {
                self.events.push_back(Event::Peer(to.shard(), TokenMessage { token, instance: to, word }));
            }
            return;
        }
        match word {
            // Word of a token that the device has replaced meanwhile sends nothing.
            TokenWord::ChallengeAnswered(None) => {
                let known = self.proofs.get(&instance).filter(|proof| proof.tokens.other == token);
                self.events.extend(known.map(|_| Event::Challenge(instance)));
            }
            TokenWord::ChallengeAnswered(Some(after)) => {
                let waiting = self.proofs.get_mut(&instance).and_then(|proof| proof.waiting.take());
                self.events.extend(waiting.map(|reply| Event::Later(reply, after)));
            }
            TokenWord::ClaimAnswered(granted) => self.handle_claim_answered(token, instance, granted),
            TokenWord::Lost => self.handle_lost(token, instance),
            TokenWord::ChallengeWanted | TokenWord::Claimed { .. } | TokenWord::LaidDown => {}
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.homes.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.homes.poll_timeout()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.push(("proofs", self.proofs.len()));
        self.homes.tables(out);
    }

    fn begin(&mut self, id: InstanceId, device: &str, tokens: Tokens, next: Instant) {
        let proof = Proof {
            device: device.to_owned(),
            tokens,
            open: None,
            next,
            proven: false,
            other: Claim::No,
            call: Claim::No,
            waiting: None,
        };
        self.proofs.insert(id, proof);
    }

    /// Another token for calls beside the proven one.
    fn change_call(&mut self, id: InstanceId, tokens: Tokens) {
        let Some(proof) = self.proofs.get_mut(&id) else { return };
        let former = std::mem::replace(&mut proof.tokens, tokens);
        if !proof.proven {
            return;
        }
        if former.call != former.other {
            self.tell_home(former.call, id, TokenWord::LaidDown);
        }
        self.claim(id);
    }

    /// Asks for a challenge, or for a contested token, unless there is one or it is earlier than so far ahead.
    fn challenge(&mut self, id: InstanceId, ahead: Duration, now: Instant) {
        let Some(proof) = self.proofs.get_mut(&id) else { return };
        let open = proof.open.as_ref().is_some_and(|open| open.until > now);
        if open || proof.next > now + ahead || proof.waiting.is_some() {
            return;
        }
        let (token, state) = (proof.tokens.other, proof.state());
        match state {
            ProofState::Pending if !proof.proven => {
                proof.next = proof.next.max(now) + PAUSE;
                self.tell_home(token, id, TokenWord::ChallengeWanted);
            }
            ProofState::Contested => {
                proof.next = now + PAUSE;
                self.claim(id);
            }
            ProofState::Pending | ProofState::Proven | ProofState::NotRequired => {}
        }
    }

    /// Claims every token at its home.
    fn claim(&mut self, id: InstanceId) {
        let Some(proof) = self.proofs.get_mut(&id) else { return };
        (proof.other, proof.call) = (Claim::Asked, Claim::Asked);
        let (tokens, device) = (proof.tokens, proof.device.clone());
        for token in tokens.each() {
            let word = TokenWord::Claimed { proven: tokens.other, device: device.clone() };
            self.tell_home(token, id, word);
        }
    }

    fn handle_claim_answered(&mut self, token: TokenKey, id: InstanceId, granted: bool) {
        let Some(proof) = self.proofs.get_mut(&id).filter(|proof| proof.proven) else {
            // Proven no more since it asked.
            return self.tell_home(token, id, TokenWord::LaidDown);
        };
        let claim = if granted { Claim::Granted } else { Claim::Refused };
        let tokens = proof.tokens;
        if token == tokens.other {
            proof.other = claim;
        }
        if token == tokens.call {
            proof.call = claim;
        }
        if token != tokens.other && token != tokens.call {
            return self.tell_home(token, id, TokenWord::LaidDown);
        }
        self.settle(id);
    }

    /// Another device has proven a token since. One that is claimed anew has its answer on the way.
    fn handle_lost(&mut self, token: TokenKey, id: InstanceId) {
        let Some(proof) = self.proofs.get_mut(&id) else { return };
        let tokens = proof.tokens;
        if token == tokens.other && proof.other == Claim::Granted {
            (proof.proven, proof.other, proof.call) = (false, Claim::No, Claim::No);
            for token in tokens.each().filter(|other| *other != token) {
                self.tell_home(token, id, TokenWord::LaidDown);
            }
        } else if token == tokens.call && proof.call == Claim::Granted {
            proof.call = Claim::Refused;
        }
        self.settle(id);
    }

    /// Answers who waits, once nothing is asked any more.
    fn settle(&mut self, id: InstanceId) {
        let Some(proof) = self.proofs.get_mut(&id) else { return };
        if proof.other == Claim::Asked || proof.call == Claim::Asked {
            return;
        }
        let is_proven = proof.state() == ProofState::Proven;
        let waiting = proof.waiting.take();
        self.events.extend(waiting.map(|reply| Event::Settled(id, reply)));
        self.events.extend(is_proven.then_some(Event::Proven(id)));
    }

    fn tell_home(&mut self, token: TokenKey, instance: InstanceId, word: TokenWord) {
        let home = self.placement.token(&token);
        self.events.push_back(Event::Peer(home, TokenMessage { token, instance, word }));
    }
}

impl Proof {
    fn state(&self) -> ProofState {
        let claims = [self.other, self.call];
        if !self.proven || claims.contains(&Claim::Asked) {
            ProofState::Pending
        } else if claims.contains(&Claim::Refused) {
            ProofState::Contested
        } else {
            ProofState::Proven
        }
    }
}
