//! Changes of place: the new place is tried beside the one that is held, as a candidate of its own, and takes over on the
//! registrar's 200. A refusal, or a place that says nothing, leaves everything as it was.

use ahash::HashMap;

use super::seats::Compared;
use super::{Change, RETRY_AFTER, Wait, unfinished};
use crate::clock::Now;
use crate::engine::account::{Account, TenantId};
use crate::engine::audit::{Cause, LifeEvent};
use crate::engine::bindings::{Opening, Prospect, Spoken};
use crate::engine::engine::Engine;
use crate::engine::ids::{BindingId, Capability, InstanceId, ReplyTo};
use crate::engine::limits::LEASE_CEILING;
use crate::engine::output::{Answer, MoveView, Refusal};
use crate::engine::rectify::held_twice;
use crate::engine::register::ha1_of;
use crate::vault::CredentialId;

/// The changes of place that are under way: at most one for each instance, and what became of the last one.
#[derive(Default)]
pub(super) struct Candidates {
    by_binding: HashMap<BindingId, Candidate>,
    of_instance: HashMap<InstanceId, BindingId>,
    /// Changes that failed after they had been answered 202, in the registrar's words.
    failed: HashMap<InstanceId, String>,
}

/// A place that an instance is to move to.
struct Candidate {
    instance: InstanceId,
    account: Account,
    /// The app that waits for the answer, and all that is to change with the place. `None`: answered 202, and only the place
    /// is still to change.
    waiting: Option<(ReplyTo, Change)>,
    /// Whether it is known that the credentials are the owner's; else nothing changes before the registrar says so.
    proven: bool,
    /// Whether the change that waits brought the credentials that are held.
    same: bool,
    unreachable: bool,
}

impl Candidates {
    pub(super) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("hand_overs.candidates", self.by_binding.len()),
            ("hand_overs.asked_moves", self.by_binding.values().filter(|it| it.waiting.is_some()).count()),
            ("hand_overs.failed_moves", self.failed.len()),
        ]);
    }

    /// Whether an app waits for the answer to a change of place of this instance.
    pub(super) fn is_asked(&self, instance: InstanceId) -> bool {
        let candidate = self.of_instance.get(&instance).and_then(|id| self.by_binding.get(id));
        candidate.is_some_and(|candidate| candidate.waiting.is_some())
    }

    /// Whether a change of place of this instance is under way.
    pub(super) fn is_moving(&self, instance: InstanceId) -> bool {
        self.of_instance.contains_key(&instance)
    }

    /// What the app may know of it.
    pub(super) fn view(&self, instance: InstanceId) -> Option<MoveView> {
        if self.is_moving(instance) {
            return Some(MoveView::Waiting);
        }
        self.failed.get(&instance).cloned().map(MoveView::Failed)
    }

    fn remove(&mut self, id: BindingId) -> Option<Candidate> {
        let candidate = self.by_binding.remove(&id)?;
        self.of_instance.remove(&candidate.instance);
        Some(candidate)
    }
}

impl Engine {
    /// Tries an account at another place, and carries out `change` when that grants.
    ///
    /// An app key sits in a shipped app and allows hand-overs with any credentials at any place, so a hand-over changes nothing
    /// before it is proven: by credentials that equal those held, or by a registrar that was not brought along.
    pub(in crate::engine) fn change_place(
        &mut self,
        id: InstanceId,
        account: Account,
        credential: CredentialId,
        change: Change,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(instance) = self.leases.get(id) else {
            let _ = self.vault.wipe(credential);
            return;
        };
        let tenant = instance.tenant.clone();
        // What changes by the instance's token is its owner's wish.
        let proven = !matches!(change, Change::Renew(..)) || self.proves(id, &account, &credential);
        let same = self.holds_equal(id, &account.auth_username, &credential);
        if self.hand_overs.is_busy(instance) || (!proven && self.hand_overs.candidates.is_moving(id)) {
            let _ = self.vault.wipe(credential);
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        let Err((credential, change)) = self.go_on_with_candidate(id, &account, credential, change, reply, now) else {
            return;
        };
        let compared = self.compare(&tenant, &account, &credential);
        self.doubt(&compared, Some(reply));
        self.drop_candidate(id, None, now);
        if let Compared::Same(shared) = compared
            && self.leases.get(id).is_some_and(|instance| instance.binding != shared)
            && self.bindings.is_content(shared, now.boot)
            && !self.is_full(shared)
        {
            let (bindings, mut desk) = self.for_bindings();
            bindings.join(shared, id, credential, &account.auth_username, &mut desk);
            self.relocate(id, shared, now);
            return self.carry_out(id, account, change, same, reply, now);
        }
        if self.is_crowded(&tenant, &account) {
            let _ = self.vault.wipe(credential);
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: RETRY_AFTER }));
        }
        let binding = self.open_candidate(id, &tenant, account, credential, now);
        if let Some(candidate) = self.hand_overs.candidates.by_binding.get_mut(&binding) {
            (candidate.waiting, candidate.proven, candidate.same) = (Some((reply, change)), proven, same);
        }
        self.hand_overs.schedule.set(Wait::Candidate(binding), Some(now.boot + self.policy.register_wait));
    }

    /// A hand-over whose credentials the registrar of the held place has just accepted wants another place too: the instance
    /// has been renewed, and moves when the new place grants.
    pub(super) fn move_on(&mut self, id: InstanceId, account: Account, now: Now) {
        let Some(tenant) = self.leases.get(id).map(|instance| instance.tenant.clone()) else { return };
        if self.is_crowded(&tenant, &account) {
            let words = "too many registrations of the account".to_owned();
            self.hand_overs.candidates.failed.insert(id, words);
        } else if let Some(copy) = self.copy_credentials(id) {
            self.open_candidate(id, &tenant, account, copy, now);
        }
    }

    /// Whether credentials for another place equal those that are held: for the present place, or for the very place that is
    /// being tried.
    pub(super) fn proves(&self, id: InstanceId, account: &Account, credential: &CredentialId) -> bool {
        self.holds_equal(id, &account.auth_username, credential) || self.equals_candidate(id, account, credential)
    }

    fn equals_candidate(&self, id: InstanceId, account: &Account, credential: &CredentialId) -> bool {
        let candidates = &self.hand_overs.candidates;
        let Some(binding) = candidates.of_instance.get(&id) else { return false };
        let equals = |held| self.vault.matches(held, credential, ha1_of(&account.auth_username));
        candidates.by_binding.get(binding).is_some_and(|candidate| candidate.account == *account)
            && self.bindings.credential(*binding).is_some_and(equals)
    }

    /// The same change once more: the candidate that waits is what it wants, and is asked now.
    ///
    /// # Errors
    /// Gives back what it took: this is another change, or there was none.
    fn go_on_with_candidate(
        &mut self,
        id: InstanceId,
        account: &Account,
        credential: CredentialId,
        change: Change,
        reply: ReplyTo,
        now: Now,
    ) -> Result<(), (CredentialId, Change)> {
        if !self.equals_candidate(id, account, &credential) {
            return Err((credential, change));
        }
        let Some(&binding) = self.hand_overs.candidates.of_instance.get(&id) else { return Err((credential, change)) };
        let same = self.holds_equal(id, &account.auth_username, &credential);
        if let Some(candidate) = self.hand_overs.candidates.by_binding.get_mut(&binding) {
            (candidate.waiting, candidate.unreachable, candidate.same) = (Some((reply, change)), false, same);
        }
        if let Some(stale) = self.bindings.renew(binding, id, credential, &account.auth_username) {
            let _ = self.vault.wipe(stale);
        }
        self.hand_overs.schedule.set(Wait::Candidate(binding), Some(now.boot + self.policy.register_wait));
        self.bindings.hasten(binding, now.boot);
        Ok(())
    }

    /// Begins to register at another place, which follows the instance's lease once the instance is there.
    fn open_candidate(
        &mut self,
        id: InstanceId,
        tenant: &TenantId,
        account: Account,
        credential: CredentialId,
        now: Now,
    ) -> BindingId {
        let capability = Capability::mint(self.shard, self.random.bytes());
        let binding = self.leases.found(tenant, &account, capability);
        let lease_ends = now.boot + LEASE_CEILING;
        let opening = Opening {
            id: binding,
            holder: id,
            tenant: self.policy.tenant_place(tenant),
            capability,
            credential,
            account: &account,
            takeover: false,
            lease_ends,
        };
        let (bindings, mut desk) = self.for_bindings();
        bindings.open_candidate(opening, &mut desk, now.boot);
        let candidates = &mut self.hand_overs.candidates;
        candidates.failed.remove(&id);
        candidates.of_instance.insert(id, binding);
        let candidate =
            Candidate { instance: id, account, waiting: None, proven: true, same: false, unreachable: false };
        candidates.by_binding.insert(binding, candidate);
        binding
    }

    /// The registrar of a candidate has spoken. `false`: the binding is none.
    pub(super) fn handle_candidate_spoken(&mut self, binding: BindingId, spoken: &Spoken, now: Now) -> bool {
        let Some(candidate) = self.hand_overs.candidates.by_binding.get_mut(&binding) else { return false };
        match spoken {
            Spoken::Refused(verdict) => {
                self.reject_candidate(binding, Refusal::RegistrarRefused(verdict.clone()), now);
            }
            Spoken::Unsignable(unsigned) => self.reject_candidate(binding, unsigned.clone().into(), now),
            Spoken::Unreachable => candidate.unreachable = true,
            Spoken::Crowded(after) => self.reject_candidate(binding, Refusal::Busy { after: *after }, now),
            Spoken::Verdict => match self.bindings.prospect(binding, now.boot) {
                Prospect::Granted => self.accept_candidate(binding, now),
                Prospect::Refused(verdict) => {
                    self.reject_candidate(binding, Refusal::RegistrarRefused(verdict), now);
                }
                Prospect::Open | Prospect::Silent => {}
            },
        }
        true
    }

    /// The candidate is hopeless. `false`: the binding is none.
    pub(in crate::engine) fn handle_candidate_given_up(&mut self, binding: BindingId, now: Now) -> bool {
        let known = self.hand_overs.candidates.by_binding.contains_key(&binding);
        if known {
            self.reject_candidate(binding, Refusal::RegistrarUnreachable, now);
        }
        known
    }

    /// The wait of the app is over.
    pub(super) fn handle_candidate_timeout(&mut self, binding: BindingId, now: Now) {
        let Some(candidate) = self.hand_overs.candidates.by_binding.get(&binding) else { return };
        let withheld = self.bindings.waits_for(binding).is_some_and(|it| self.destinations.is_withheld(&it));
        let silent = withheld || candidate.unreachable || self.bindings.prospect(binding, now.boot) == Prospect::Silent;
        if silent || !candidate.proven {
            self.reject_candidate(binding, Refusal::RegistrarUnreachable, now);
        } else {
            self.put_off(binding, now);
        }
    }

    /// The place granted: the instance moves there.
    fn accept_candidate(&mut self, binding: BindingId, now: Now) {
        let Some(candidate) = self.hand_overs.candidates.by_binding.get(&binding) else { return };
        if self.leases.is_held_otherwise(candidate.instance, &candidate.account) {
            // Meanwhile the device has handed that account over.
            return self.reject_candidate(binding, held_twice(), now);
        }
        let Some(Candidate { instance, account, waiting, same, .. }) = self.hand_overs.candidates.remove(binding)
        else {
            return;
        };
        self.hand_overs.schedule.remove(Wait::Candidate(binding));
        self.bindings.take_up(binding);
        self.relocate(instance, binding, now);
        match waiting {
            Some((reply, change)) => {
                self.clear_doubt(reply);
                self.carry_out(instance, account, change, same, reply, now);
            }
            None => {
                self.leases.rectify(instance, account);
                self.adjust_binding(binding, now);
                self.settle_late(instance, &Spoken::Verdict, now);
                self.record(instance, LifeEvent::Rectified, now);
            }
        }
        self.review_mailbox(instance, now);
    }

    /// All that was to change with the place.
    fn carry_out(&mut self, id: InstanceId, account: Account, change: Change, same: bool, reply: ReplyTo, now: Now) {
        match change {
            Change::Renew(_, hand_over) => {
                let token = self.take_terms(id, &hand_over, same, now);
                if let Some(binding) = self.leases.get(id).map(|instance| instance.binding) {
                    self.adjust_binding(binding, now);
                }
                self.succeed(id, now);
                self.reply_handed_over(id, token, true, reply, now);
            }
            Change::Rectify(_, amendment) => {
                self.leases.rectify(id, account);
                self.fulfil(id, *amendment, now);
                self.finish_rectify(id, reply, now);
            }
            Change::Join(_) => {}
        }
    }

    /// The place has not decided when the app has waited long enough: everything else changes now, and the former place
    /// stays until the new one grants.
    fn put_off(&mut self, binding: BindingId, now: Now) {
        let Some(candidate) = self.hand_overs.candidates.by_binding.get_mut(&binding) else { return };
        let Some((reply, change)) = candidate.waiting.take() else { return };
        let (id, same) = (candidate.instance, candidate.same);
        match change {
            Change::Renew(_, mut hand_over) => {
                let Some(instance) = self.leases.get(id) else { return };
                let (present, foreground) = (instance.binding, instance.foreground);
                hand_over.account = instance.account.clone();
                self.lift(id, now);
                self.bindings.resume(present, foreground.is_none(), now.boot);
                let token = self.take_terms(id, &hand_over, same, now);
                if let Some(foreground) = foreground {
                    self.leases.come_forward(id, foreground);
                    self.wakes.rest_lease(id);
                }
                self.adjust_binding(present, now);
                self.reply_handed_over(id, token, true, reply, now);
            }
            Change::Rectify(_, amendment) => {
                self.fulfil(id, *amendment, now);
                self.finish_rectify(id, reply, now);
            }
            Change::Join(_) => {}
        }
    }

    /// The place refused, or says nothing: everything stays as it was.
    fn reject_candidate(&mut self, binding: BindingId, refusal: Refusal, now: Now) {
        let Some(Candidate { instance, waiting, .. }) = self.hand_overs.candidates.remove(binding) else { return };
        self.close_candidate(binding, instance, now);
        match waiting {
            Some((reply, _)) => self.reply(reply, Answer::Refused(refusal)),
            None => {
                self.settle_move(instance, matches!(refusal, Refusal::RegistrarRefused(_)));
                let words = match refusal {
                    Refusal::RegistrarRefused(verdict)
                    | Refusal::InvalidAccount(verdict)
                    | Refusal::ChallengeUnsignable { verdict, .. } => verdict,
                    _ => "the registrar cannot be reached".to_owned(),
                };
                self.hand_overs.candidates.failed.insert(instance, words);
            }
        }
    }

    /// A change of place that is under way is not wanted any more: something newer is, or the instance ends (`cause`).
    pub(in crate::engine) fn drop_candidate(&mut self, id: InstanceId, cause: Option<Cause>, now: Now) {
        self.hand_overs.candidates.failed.remove(&id);
        let Some(&binding) = self.hand_overs.candidates.of_instance.get(&id) else { return };
        let Some(Candidate { waiting, .. }) = self.hand_overs.candidates.remove(binding) else { return };
        self.close_candidate(binding, id, now);
        match waiting {
            Some((reply, _)) => {
                let refusal = cause.map_or(Refusal::RateLimited { after: self.policy.register_wait }, unfinished);
                self.reply(reply, Answer::Refused(refusal));
            }
            None => self.settle_move(id, false),
        }
    }

    /// What an instance has left is wiped now.
    pub(in crate::engine) fn forget_departures(&mut self, id: InstanceId) {
        let (erasures, mut desk) = self.for_erasures();
        erasures.forget_departures(id, &mut desk);
    }

    /// Wipes what is held for a candidate; the place is asked to forget it, if it may know it.
    fn close_candidate(&mut self, binding: BindingId, instance: InstanceId, now: Now) {
        self.hand_overs.schedule.remove(Wait::Candidate(binding));
        self.leases.lay_off(binding);
        let Some(leaving) = self.bindings.take(binding, now.boot) else { return };
        let (erasures, mut desk) = self.for_erasures();
        erasures.depart(instance, binding, leaving, &mut desk, now.boot);
    }

    /// The instance is a member of `to` from now on. What it leaves is removed at the registrar with its own credentials;
    /// those that share it go on with it.
    fn relocate(&mut self, id: InstanceId, to: BindingId, now: Now) {
        let Some(instance) = self.leases.get(id) else { return };
        let (from, from_foreground) = (instance.binding, instance.foreground.is_some());
        self.leave_mailbox(id, now);
        if let Some(own) = self.bindings.leave(from, id) {
            let _ = self.vault.wipe(own);
            self.leases.reseat(id, to);
            self.adjust_binding(from, now);
        } else {
            self.leases.reseat(id, to);
            match self.bindings.take(from, now.boot) {
                // An empty slot cannot answer a challenge.
                Some(leaving) if from_foreground => {
                    let slot = self.let_go(from, leaving, now);
                    let _ = self.vault.wipe(slot);
                }
                Some(leaving) => {
                    let (erasures, mut desk) = self.for_erasures();
                    erasures.depart(id, from, leaving, &mut desk, now.boot);
                }
                None => {}
            }
        }
        self.come_back(id);
        self.lift(id, now);
        if from_foreground {
            self.watch_lease(id, now);
        }
    }
}
