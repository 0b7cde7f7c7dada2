//! Other credentials for a binding we hold: how a trial of them ends for the app that brought them.

use super::{Change, RETRY_AFTER, Trial, Wait};
use crate::clock::Now;
use crate::engine::bindings::Tried;
use crate::engine::engine::Engine;
use crate::engine::ids::{BindingId, InstanceId, ReplyTo};
use crate::engine::input::HandOver;
use crate::engine::output::{Answer, Refusal};
use crate::vault::CredentialId;

impl Engine {
    pub(in crate::engine) fn begin_trial(
        &mut self,
        id: BindingId,
        credential: CredentialId,
        username: &str,
        change: Change,
        reply: ReplyTo,
        now: Now,
    ) {
        if let Some(instance) = change.instance() {
            self.hand_overs.tried_on.insert(instance, id);
        }
        self.hand_overs.trials.insert(id, Trial { reply, change, verdict: None });
        self.hand_overs.schedule.set(Wait::Trial(id), Some(now.boot + self.policy.register_wait));
        self.bindings.try_credential(id, credential, username, now.boot);
    }

    /// How a trial of other credentials ended.
    pub(in crate::engine) fn handle_tried(&mut self, id: BindingId, tried: Tried, now: Now) {
        let joins = self.hand_overs.trials.get(&id).is_some_and(|trial| matches!(trial.change, Change::Join(_)));
        let (credential, refusal) = match tried {
            Tried::Accepted(former, username) => return self.handle_accepted(id, former, &username, now),
            Tried::Failed(credential, _) | Tried::Unreachable(credential) if joins => {
                return self.found_after_trial(id, credential, now);
            }
            Tried::Refused(credential, verdict) | Tried::Failed(credential, verdict) => {
                (credential, Refusal::RegistrarRefused(verdict))
            }
            Tried::Unsignable(credential, unsigned) => (credential, unsigned.into()),
            Tried::Unreachable(credential) => (credential, Refusal::RegistrarUnreachable),
        };
        let _ = self.vault.wipe(credential);
        let Some(trial) = self.hand_overs.trials.get_mut(&id) else { return };
        if refusal == Refusal::RegistrarUnreachable && self.hand_overs.schedule.has(Wait::Trial(id)) {
            // Told when the wait is over, like every registrar that cannot be reached.
            trial.verdict = Some(refusal);
            return;
        }
        let Some(Trial { reply, change, .. }) = self.end_wait(id) else { return };
        match change {
            Change::Join(hand_over) => self.turn_away(&hand_over, refusal, reply, now),
            Change::Renew(..) | Change::Rectify(..) => self.reply(reply, Answer::Refused(refusal)),
        }
    }

    /// The credentials registered and are in use; `former` were before.
    fn handle_accepted(&mut self, id: BindingId, former: CredentialId, username: &str, now: Now) {
        let Some(Trial { reply, change, .. }) = self.end_wait(id) else {
            let _ = self.vault.wipe(former);
            return;
        };
        self.clear_doubt(reply);
        match change {
            Change::Renew(member, hand_over) => {
                self.adopt(id, member, former, username);
                self.move_in(member, id, now);
                self.renew(member, hand_over, reply, now);
            }
            Change::Rectify(member, amendment) => {
                self.adopt(id, member, former, username);
                self.come_back(member);
                self.drop_candidate(member, None, now);
                self.amend(member, *amendment, reply, now);
            }
            Change::Join(hand_over) => {
                let idle = match self.may_join(id, &hand_over, now) {
                    Ok(idle) => idle,
                    Err(refusal) => {
                        // The binding goes on with the credentials it had.
                        let nobody = InstanceId::mint(self.shard, self.random.bytes());
                        self.adopt(id, nobody, former, username);
                        self.bindings.leave(id, nobody).map(|tried| self.vault.wipe(tried));
                        return self.turn_away(&hand_over, refusal, reply, now);
                    }
                };
                let (member, token) = self.open_instance(&hand_over, id, now);
                self.adopt(id, member, former, username);
                self.take_place_of(idle, member, now);
                self.welcome(member, token, false, reply, now);
            }
        }
    }

    /// Whether a further device may share the binding, and whose place it takes where there is no other.
    fn may_join(&self, binding: BindingId, hand_over: &HandOver, now: Now) -> Result<Option<InstanceId>, Refusal> {
        self.may_hand_over(hand_over)?;
        if self.leases.predecessor(hand_over).is_some() {
            return Err(Refusal::RateLimited { after: RETRY_AFTER });
        }
        self.room_in(binding, hand_over, now)
    }

    /// The registrar neither took nor refused the credentials of a further device: it goes on as if it were the only one.
    fn found_after_trial(&mut self, id: BindingId, credential: CredentialId, now: Now) {
        let until = self.hand_overs.schedule.at(Wait::Trial(id)).unwrap_or(now.boot);
        let ended = self.end_wait(id);
        let Some(Trial { reply, change: Change::Join(hand_over), .. }) = ended else {
            let _ = self.vault.wipe(credential);
            return;
        };
        let no_room =
            self.leases.predecessor(&hand_over).is_some() || self.is_crowded(&hand_over.tenant, &hand_over.account);
        let busy = no_room.then_some(Refusal::RateLimited { after: RETRY_AFTER });
        match self.may_hand_over(&hand_over).err().or(busy) {
            Some(refusal) => {
                let _ = self.vault.wipe(credential);
                self.turn_away(&hand_over, refusal, reply, now);
            }
            None => self.found(&hand_over, credential, reply, until, now),
        }
    }

    pub(super) fn end_wait(&mut self, id: BindingId) -> Option<Trial> {
        self.hand_overs.schedule.remove(Wait::Trial(id));
        let trial = self.hand_overs.trials.remove(&id)?;
        if let Some(instance) = trial.change.instance() {
            self.hand_overs.tried_on.remove(&instance);
        }
        Some(trial)
    }

    /// Gives up trials of this instance's credentials, and changes of its place: they are not wanted any more.
    pub(in crate::engine) fn end_own_trial(&mut self, id: InstanceId, now: Now) {
        self.drop_candidate(id, None, now);
        if let Some(reply) = self.take_own_trial(id, now) {
            self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
    }

    pub(super) fn take_own_trial(&mut self, id: InstanceId, now: Now) -> Option<ReplyTo> {
        let binding = *self.hand_overs.tried_on.get(&id)?;
        self.bindings.end_trial(binding, now.boot);
        self.end_wait(binding).map(|trial| trial.reply)
    }
}
