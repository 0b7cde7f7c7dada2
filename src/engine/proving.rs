//! Proof of push tokens, between the room that keeps it and the rest: challenges go out as wakes, apps return them.

use super::engine::Engine;
use super::ids::{InstanceId, ReplyTo};
use super::input::TokenHash;
use super::output::{Answer, Output, Refusal, WakeDetail, WakeKind};
use super::proof::{Challenge, ProofState};
use super::proofs::{CHALLENGE_LIFE, Event, Said, Tokens};
use super::wakes::{Reason, target_of};
use crate::clock::Now;

impl Engine {
    /// An instance was handed over, or has other push targets now: where its tenant asks for it, they are to be proven.
    pub(super) fn review_proof(&mut self, id: InstanceId, now: Now) {
        let Some(instance) = self.leases.get(id) else { return };
        if !self.policy.tenant(&instance.tenant).is_some_and(|tenant| tenant.prove_push_token) {
            return;
        }
        let target = |kind| target_of(&instance.push, kind);
        // A VoIP token alone carries no challenge, and so is never proven.
        let Some(call) = target(WakeKind::Call) else { return };
        let other = target(WakeKind::Proof).unwrap_or(call);
        let tokens = Tokens::new(&instance.tenant, other, call);
        self.proofs.review(id, &instance.device, tokens, now.boot);
    }

    /// The instance is gone.
    pub(super) fn forget_proof(&mut self, id: InstanceId) {
        if let Some(reply) = self.proofs.forget(id) {
            self.reply(reply, Answer::Refused(Refusal::NotFound));
        }
    }

    /// `POST /v1/instances/{id}/push-proof`.
    pub(super) fn prove(
        &mut self,
        id: InstanceId,
        token: &TokenHash,
        challenge: Option<&str>,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(()) = self.check(id, token, reply) else { return };
        let said = match challenge {
            Some(text) => self.proofs.answer(id, Challenge::parse(text), reply, now.boot),
            None => self.proofs.ask(id, reply, now.boot),
        };
        let answer = match said {
            Said::Waits => return,
            Said::State(state) => Answer::PushProof(state),
            Said::Wrong(tries) => Answer::Refused(Refusal::WrongChallenge { tries }),
            Said::Later(after) => Answer::Refused(Refusal::RateLimited { after }),
        };
        self.reply(reply, answer);
    }

    pub(super) fn push_proof(&self, id: InstanceId) -> ProofState {
        self.proofs.state(id)
    }

    pub(super) fn route_proofs(&mut self, now: Now) -> bool {
        let Some(event) = self.proofs.poll_event() else { return false };
        match event {
            Event::Peer(shard, message) if shard == self.shard => self.proofs.handle_peer(message, now.boot),
            Event::Peer(shard, message) => self.emit(Output::Peer(shard, message.into())),
            Event::Challenge(id) => self.send_challenge(id, now),
            Event::Settled(id, reply) => {
                let state = self.proofs.state(id);
                self.reply(reply, Answer::PushProof(state));
            }
            Event::Proven(id) => self.succeed(id, now),
            Event::Later(reply, after) => self.reply(reply, Answer::Refused(Refusal::RateLimited { after })),
        }
        true
    }

    fn send_challenge(&mut self, id: InstanceId, now: Now) {
        let challenge = Challenge::new(self.random.bytes());
        let plain = Reason::plain(WakeKind::Proof, WakeDetail::Proof(challenge));
        let sent = self.send_wake(id, Reason { until: Some(now.boot + CHALLENGE_LIFE), ..plain }, now);
        self.proofs.challenged(id, sent.is_ok().then_some(challenge), now.boot);
    }
}
