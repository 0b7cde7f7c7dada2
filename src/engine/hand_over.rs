//! Handing over: a new instance, a further device of an account, and a newer hand-over of one we hold; each may have to
//! wait for the registrar before its app is answered.

mod candidates;
mod leave;
mod renewals;
mod seats;
mod successors;
mod trials;

use std::time::Duration;

use ahash::HashMap;
use zeroize::Zeroizing;

use candidates::Candidates;
use seats::Compared;

use super::account::{Account, TenantId};
use super::audit::{Cause, LifeEvent};
use super::bindings::Spoken;
use super::engine::{Drain, Engine};
use super::filter::account_allowed;
use super::ids::{BindingId, Capability, InstanceId, ReplyTo, base32};
use super::input::{HandOver, TokenHash};
use super::instance::Instance;
use super::leases::Minted;
use super::limits::share;
use super::output::{Answer, HandedOver, MoveView, Note, Output, Refusal};
use super::rectify::Amendment;
use super::register::Unsigned;
use super::schedule::Schedule;
use super::token::Token;
use crate::clock::{Instant, Now};
use crate::sip::auth::Algorithm;
use crate::sip::digest;
use crate::vault::{CredentialId, Material};

/// When a refused hand-over may come again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Hand-overs and rectifications that wait for the registrar.
pub(super) struct HandOvers {
    shards: u16,
    /// What waits for other shards' leave, by its ticket.
    asking: HashMap<u64, leave::Asking>,
    tickets: u64,
    /// Guesses that are paid for, until their answer tells what became of them.
    guesses: HashMap<ReplyTo, leave::Guess>,
    /// The same of instances whose registrar had not spoken when the hand-over was answered.
    unjudged: HashMap<InstanceId, leave::Guess>,
    waiting: HashMap<InstanceId, Waiting>,
    /// One at a time for a binding.
    trials: HashMap<BindingId, Trial>,
    /// The binding on which other credentials of an instance are tried: its own, or one of its account's other devices.
    tried_on: HashMap<InstanceId, BindingId>,
    /// Other places that are tried.
    candidates: Candidates,
    schedule: Schedule<Wait>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Wait {
    /// An instance's first registration.
    First(InstanceId),
    /// A trial on a binding.
    Trial(BindingId),
    /// Another place for an instance.
    Candidate(BindingId),
}

/// A first registration that somebody waits for.
struct Waiting {
    reply: ReplyTo,
    kind: Kind,
    unreachable: bool,
    refusal: Option<Refusal>,
}

pub(super) enum Kind {
    HandOver { token: Zeroizing<String>, replaced: bool },
    Rectify,
}

/// Other credentials for a binding we hold, until they have registered by themselves.
struct Trial {
    reply: ReplyTo,
    change: Change,
    verdict: Option<Refusal>,
}

pub(super) enum Change {
    /// A newer hand-over of this instance.
    Renew(InstanceId, Box<HandOver>),
    /// A changed account of this instance.
    Rectify(InstanceId, Box<Amendment>),
    /// A further device of the account.
    Join(Box<HandOver>),
}

impl Change {
    /// The instance it changes.
    fn instance(&self) -> Option<InstanceId> {
        match self {
            Self::Renew(id, _) | Self::Rectify(id, _) => Some(*id),
            Self::Join(_) => None,
        }
    }
}

impl HandOvers {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards,
            asking: HashMap::default(),
            tickets: 0,
            guesses: HashMap::default(),
            unjudged: HashMap::default(),
            waiting: HashMap::default(),
            trials: HashMap::default(),
            tried_on: HashMap::default(),
            candidates: Candidates::default(),
            schedule: Schedule::default(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// How full each table is.
    pub(super) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("hand_overs.asking", self.asking.len()),
            ("hand_overs.guesses", self.guesses.len()),
            ("hand_overs.unjudged", self.unjudged.len()),
            ("hand_overs.waiting", self.waiting.len()),
            ("hand_overs.trials", self.trials.len()),
            ("hand_overs.tried_on", self.tried_on.len()),
        ]);
        self.candidates.tables(out);
    }

    pub(super) fn is_waiting(&self, instance: InstanceId) -> bool {
        self.waiting.get(&instance).is_some_and(|waiting| matches!(waiting.kind, Kind::HandOver { .. }))
    }

    /// Whether the registrar is being asked about this instance, or its binding.
    pub(super) fn is_busy(&self, instance: &Instance) -> bool {
        self.trials.contains_key(&instance.binding)
            || self.waiting.contains_key(&instance.id)
            || self.tried_on.contains_key(&instance.id)
            || self.candidates.is_asked(instance.id)
    }

    /// What the app may know of a change of place.
    pub(super) fn move_view(&self, instance: InstanceId) -> Option<MoveView> {
        self.candidates.view(instance)
    }
}

impl Engine {
    fn may_hand_over(&self, hand_over: &HandOver) -> Result<(), Refusal> {
        self.may_admit()?;
        self.may_register(&hand_over.tenant, &hand_over.account)?;
        if self.leases.predecessor(hand_over).is_some() {
            return Ok(());
        }
        if self.leases.len() >= share(self.policy.limits.instances, self.hand_overs.shards) {
            return Err(Refusal::Busy { after: RETRY_AFTER });
        }
        Ok(())
    }

    /// Credentials are taken as long as it can be recorded what becomes of them, and the end has not come.
    pub(super) fn may_admit(&self) -> Result<(), Refusal> {
        let may = self.draining == Drain::No && self.audit_writable;
        if may { Ok(()) } else { Err(Refusal::Busy { after: RETRY_AFTER }) }
    }

    pub(super) fn may_register(&self, tenant: &TenantId, account: &Account) -> Result<(), Refusal> {
        account_allowed(&self.policy, tenant, account)
            .map_err(|problem| Refusal::RegistrarNotAllowed(problem.to_owned()))
    }

    /// A hand-over that had its places is refused.
    fn turn_away(&mut self, hand_over: &HandOver, refusal: Refusal, reply: ReplyTo, now: Now) {
        self.give_places_back(&hand_over.tenant, &hand_over.device, now);
        self.reply(reply, Answer::Refused(refusal));
    }

    /// An account this device has not handed over before: it shares the binding of another device if its credentials are
    /// those in use, or register by themselves; else it gets a binding of its own.
    ///
    /// Who does not have the credentials is told by the registrar alone, as for an account that nobody holds.
    fn take_in(&mut self, mut hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        let username = hand_over.account.auth_username.clone();
        let credential = self.admit(&mut hand_over);
        let compared = self.compare(&hand_over.tenant, &hand_over.account, &credential);
        if let Compared::Same(binding) = compared {
            let idle = match self.room_in(binding, &hand_over, now) {
                Ok(idle) => idle,
                Err(refusal) => {
                    let _ = self.vault.wipe(credential);
                    return self.turn_away(&hand_over, refusal, reply, now);
                }
            };
            let (id, token) = self.open_instance(&hand_over, binding, now);
            let asked = self.join_binding(binding, id, credential, &username, now);
            self.take_place_of(idle, id, now);
            return self.welcome(id, token, asked, reply, now);
        }
        self.doubt(&compared, Some(reply));
        let alike = self.leases.alike(&hand_over.tenant, &hand_over.account);
        let free = |id: &BindingId| self.bindings.may_try(*id, now.boot) && !self.hand_overs.trials.contains_key(id);
        match alike.into_iter().find(free) {
            Some(binding) => {
                self.begin_trial(binding, credential, &username, Change::Join(hand_over), reply, now);
            }
            None if self.is_crowded(&hand_over.tenant, &hand_over.account) => {
                let _ = self.vault.wipe(credential);
                self.turn_away(&hand_over, Refusal::RateLimited { after: RETRY_AFTER }, reply, now);
            }
            None => self.found(&hand_over, credential, reply, now.boot + self.policy.register_wait, now),
        }
    }

    /// A new instance with a binding of its own; answered when the registrar has spoken, or at `until`.
    fn found(&mut self, hand_over: &HandOver, credential: CredentialId, reply: ReplyTo, until: Instant, now: Now) {
        let HandOver { tenant, account, .. } = hand_over;
        let capability = Capability::mint(self.shard, self.random.bytes());
        let binding = self.leases.found(tenant, account, capability);
        let (id, token) = self.open_instance(hand_over, binding, now);
        self.open_binding(binding, id, account, credential, now);
        self.wait_for(id, reply, Kind::HandOver { token, replaced: false }, until);
    }

    /// A further device shares a binding: answered at once, if the registrar has spoken to it before and is not being asked
    /// on its account (`asked`).
    fn welcome(&mut self, id: InstanceId, token: Zeroizing<String>, asked: bool, reply: ReplyTo, now: Now) {
        let Some(binding) = self.leases.get(id).map(|instance| instance.binding) else { return };
        self.adjust_binding(binding, now);
        self.succeed(id, now);
        if !asked && self.bindings.has_spoken(binding, now.boot) {
            self.reply_handed_over(id, token, false, reply, now);
        } else {
            let kind = Kind::HandOver { token, replaced: false };
            self.wait_for(id, reply, kind, now.boot + self.policy.register_wait);
        }
    }

    fn open_instance(&mut self, hand_over: &HandOver, binding: BindingId, now: Now) -> (InstanceId, Zeroizing<String>) {
        let id = InstanceId::mint(self.shard, self.random.bytes());
        let (token, kept) = self.mint_token(id);
        let minted = Minted { salt: self.random.bytes(), token: kept };
        self.leases.open(id, hand_over, binding, minted, now);
        self.review_proof(id, now);
        self.watch_lease(id, now);
        self.record(id, LifeEvent::HandedOver, now);
        self.emit(Output::Note(Note::HandedOver(id)));
        (id, token)
    }

    /// Somebody waits for the first verdict on an instance's binding.
    pub(super) fn wait_for(&mut self, id: InstanceId, reply: ReplyTo, kind: Kind, until: Instant) {
        let waiting = Waiting { reply, kind, unreachable: false, refusal: None };
        self.hand_overs.waiting.insert(id, waiting);
        self.hand_overs.schedule.set(Wait::First(id), Some(until));
    }

    /// Puts the credentials of a hand-over into the vault.
    fn admit(&mut self, hand_over: &mut HandOver) -> CredentialId {
        let keep = self.policy.keep(&hand_over.tenant);
        self.vault.admit(std::mem::replace(&mut hand_over.material, Material::Ha1(Vec::new())), keep)
    }

    /// Waits for the verdict on a binding an instance was moved to; not at all where there is one.
    pub(super) fn wait_for_seat(&mut self, id: InstanceId, reply: ReplyTo, kind: Kind, now: Now) {
        let spoken = self.leases.get(id).is_some_and(|it| self.bindings.has_spoken(it.binding, now.boot));
        self.wait_for(id, reply, kind, now.boot + self.policy.register_wait);
        if spoken {
            self.release(id, now);
            self.succeed(id, now);
        }
    }

    /// The registrar has spoken: to all who share the binding.
    pub(super) fn handle_spoken(&mut self, binding: BindingId, spoken: &Spoken, now: Now) {
        if self.handle_candidate_spoken(binding, spoken, now) {
            return;
        }
        for member in self.members_of(binding) {
            self.review_mailbox(member, now);
            if !self.hand_overs.candidates.is_moving(member) {
                self.settle_late(member, spoken, now);
            }
            if !self.answer_hand_over(member, spoken, now)
                && let Spoken::Refused(_) = spoken
            {
                self.erase(member, Cause::Refused, None, now);
            }
        }
    }

    /// Answers who waits for an instance's first verdict. `false`: nobody does.
    pub(super) fn answer_hand_over(&mut self, id: InstanceId, spoken: &Spoken, now: Now) -> bool {
        let Some(waiting) = self.hand_overs.waiting.get_mut(&id) else { return false };
        match spoken {
            Spoken::Verdict => self.release(id, now),
            Spoken::Refused(verdict) => {
                waiting.refusal = Some(Refusal::RegistrarRefused(verdict.clone()));
                self.erase(id, Cause::Refused, None, now);
            }
            Spoken::Unsignable(unsigned) if waiting.kind.is_new() => {
                waiting.refusal = Some(unsigned.clone().into());
                self.erase(id, Cause::Unregistrable, None, now);
            }
            Spoken::Unsignable(_) => self.release(id, now),
            Spoken::Unreachable => waiting.unreachable = true,
            Spoken::Crowded(after) if waiting.kind.is_new() => {
                waiting.refusal = Some(Refusal::Busy { after: *after });
                self.erase(id, Cause::Unregistrable, None, now);
            }
            Spoken::Crowded(_) => self.release(id, now),
        }
        true
    }

    /// The instance is gone while somebody still waits for it.
    pub(super) fn abandon_hand_over(&mut self, instance: &Instance, cause: Cause, now: Now) {
        self.settle_gone(instance.id, cause);
        self.hand_overs.schedule.remove(Wait::First(instance.id));
        if let Some(Waiting { reply, refusal, .. }) = self.hand_overs.waiting.remove(&instance.id) {
            let refusal = refusal.unwrap_or_else(|| unfinished(cause));
            self.reply(reply, Answer::Refused(refusal));
        }
        if let Some(reply) = self.take_own_trial(instance.id, now) {
            self.reply(reply, Answer::Refused(unfinished(cause)));
        }
        self.drop_candidate(instance.id, Some(cause), now);
    }

    pub(super) fn handle_hand_over_timeouts(&mut self, now: Now) {
        while let Some(wait) = self.hand_overs.schedule.pop_due(now.boot) {
            match wait {
                Wait::Trial(id) => {
                    let verdict = self.hand_overs.trials.get(&id).and_then(|trial| trial.verdict.clone());
                    let Some(refusal) = verdict else {
                        self.bindings.end_trial(id, now.boot);
                        continue;
                    };
                    let Some(Trial { reply, .. }) = self.end_wait(id) else { continue };
                    self.reply(reply, Answer::Refused(refusal));
                }
                Wait::Candidate(id) => self.handle_candidate_timeout(id, now),
                Wait::First(id) => {
                    let Some(waiting) = self.hand_overs.waiting.get_mut(&id) else { continue };
                    if waiting.unreachable && waiting.kind.is_new() {
                        waiting.refusal = Some(Refusal::RegistrarUnreachable);
                        self.erase(id, Cause::Unregistrable, None, now);
                    } else {
                        self.release(id, now);
                    }
                }
            }
        }
    }

    /// Who waits for the first verdict gets the state as it is.
    pub(super) fn release(&mut self, id: InstanceId, now: Now) {
        self.hand_overs.schedule.remove(Wait::First(id));
        let Some(Waiting { reply, kind, .. }) = self.hand_overs.waiting.remove(&id) else { return };
        match kind {
            Kind::HandOver { token, replaced } => self.reply_handed_over(id, token, replaced, reply, now),
            Kind::Rectify => self.finish_rectify(id, reply, now),
        }
    }

    fn reply_handed_over(
        &mut self,
        id: InstanceId,
        token: Zeroizing<String>,
        replaced: bool,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(instance) = self.leases.get(id) else { return };
        let handed_over = HandedOver {
            instance: id,
            token,
            lease_ends: instance.lease_ends_on(now),
            registration: self.registration_view(instance, now),
            attach: self.attach_view(id),
            caller_in_push: self.caller_in_push(instance),
            push_proof: self.push_proof(id),
            replaced,
            tenant: instance.tenant.clone(),
        };
        self.reply(reply, Answer::HandedOver(Box::new(handed_over)));
    }

    /// A bearer token of 256 bits: its text once, its hash and its digest HA1 for keeping.
    fn mint_token(&mut self, id: InstanceId) -> (Zeroizing<String>, Token) {
        let random = Zeroizing::new(self.random.bytes::<32>());
        let mut token = Zeroizing::new(String::with_capacity(52));
        base32(&random[..], &mut token);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        let ha1 = digest::ha1(Algorithm::Md5, &id.to_string(), &self.policy.domain, token.as_bytes());
        (token, Token::new(TokenHash(hash), ha1))
    }
}

impl From<Unsigned> for Refusal {
    fn from(Unsigned { words, reason }: Unsigned) -> Self {
        Self::ChallengeUnsignable { verdict: words, reason }
    }
}

impl Kind {
    /// Whether the instance came with it: one that was held before is kept, whatever becomes of the wish.
    fn is_new(&self) -> bool {
        matches!(self, Self::HandOver { replaced: false, .. })
    }
}

/// What a hand-over is told whose instance was erased before the registrar spoke.
fn unfinished(cause: Cause) -> Refusal {
    match cause {
        Cause::Shutdown => Refusal::Busy { after: RETRY_AFTER },
        Cause::Unregistrable | Cause::LeaseEnded => Refusal::RegistrarUnreachable,
        Cause::Refused
        | Cause::Deleted
        | Cause::DeadToken
        | Cause::Administrator
        | Cause::OffBoarded
        | Cause::Foreground
        | Cause::Replaced => Refusal::Gone { cause, receipt: None },
    }
}
