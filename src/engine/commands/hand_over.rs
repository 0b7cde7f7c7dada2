//! Hand-overs: an account comes into our hands, or a newer hand-over takes its predecessor's place.
//!
//! Each waits for the registrar's verdict as long as `api.register_wait` says; what the registrar said decides the answer.

use std::time::Duration;

use ahash::HashMap;
use zeroize::Zeroizing;

use super::rectify::leads_elsewhere;
use crate::clock::{Instant, Now};
use crate::engine::account::Account;
use crate::engine::audit::{Cause, LifeEvent};
use crate::engine::bindings::{Opening, Spoken, Tried};
use crate::engine::engine::{Drain, Engine};
use crate::engine::filter::registrar_allowed;
use crate::engine::ids::{Capability, InstanceId, ReplyTo, base32};
use crate::engine::input::{HandOver, PushTarget, TokenHash};
use crate::engine::leases::Minted;
use crate::engine::limits::share;
use crate::engine::output::{Answer, HandedOver, Note, Output, Refusal};
use crate::engine::register::ha1_of;
use crate::engine::schedule::Schedule;
use crate::sip::auth::Algorithm;
use crate::sip::digest;
use crate::vault::{CredentialId, Material};

/// When a refused hand-over may come again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Hand-overs and rectifications that wait for the registrar.
pub(in crate::engine) struct HandOvers {
    shards: u16,
    waiting: HashMap<InstanceId, Waiting>,
    trials: HashMap<InstanceId, Trial>,
    schedule: Schedule<InstanceId>,
}

/// A first registration that somebody waits for.
struct Waiting {
    reply: ReplyTo,
    kind: Kind,
    unreachable: bool,
    refusal: Option<Refusal>,
}

pub(super) enum Kind {
    HandOver { token: Zeroizing<String> },
    Rectify,
}

/// Other credentials for an instance we hold, until they have registered by themselves.
struct Trial {
    reply: ReplyTo,
    change: Change,
    verdict: Option<Refusal>,
}

pub(super) enum Change {
    Renew(Box<HandOver>),
    Rectify(Box<Account>, Option<Vec<PushTarget>>),
}

impl HandOvers {
    pub(in crate::engine) fn new(shards: u16) -> Self {
        Self { shards, waiting: HashMap::default(), trials: HashMap::default(), schedule: Schedule::default() }
    }

    pub(in crate::engine) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// How full each table is.
    pub(in crate::engine) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([("hand_overs.waiting", self.waiting.len()), ("hand_overs.trials", self.trials.len())]);
    }

    pub(in crate::engine) fn is_waiting(&self, instance: InstanceId) -> bool {
        self.waiting.get(&instance).is_some_and(|waiting| matches!(waiting.kind, Kind::HandOver { .. }))
    }
}

impl HandOvers {
    /// Whether a verdict on the instance is still awaited.
    pub(super) fn concerns(&self, instance: InstanceId) -> bool {
        self.trials.contains_key(&instance) || self.waiting.contains_key(&instance)
    }
}

impl Engine {
    pub(super) fn hand_over(&mut self, hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        if let Err(refusal) = self.may_hand_over(&hand_over) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        match self.leases.predecessor(&hand_over) {
            Some(id) => self.replace(id, hand_over, reply, now),
            None => self.take_in(hand_over, reply, now),
        }
    }

    fn may_hand_over(&self, hand_over: &HandOver) -> Result<(), Refusal> {
        let busy = Refusal::Busy { after: RETRY_AFTER };
        if self.draining != Drain::No || !self.audit_writable {
            return Err(busy);
        }
        self.may_register(&hand_over.account)?;
        if self.leases.predecessor(hand_over).is_some() {
            return Ok(());
        }
        if self.leases.len() >= share(self.policy.limits.instances, self.hand_overs.shards) {
            return Err(busy);
        }
        let held = self.leases.count_of_device(&hand_over.tenant, &hand_over.device);
        if held >= self.policy.limits.instances_per_device {
            return Err(Refusal::RateLimited { after: RETRY_AFTER });
        }
        Ok(())
    }

    pub(super) fn may_register(&self, account: &Account) -> Result<(), Refusal> {
        let hops = [Some(&account.registrar), account.outbound_proxy.as_ref()];
        for hop in hops.into_iter().flatten() {
            registrar_allowed(&self.policy.registrars, hop)
                .map_err(|problem| Refusal::RegistrarNotAllowed(problem.to_owned()))?;
        }
        Ok(())
    }

    fn take_in(&mut self, hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        let id = InstanceId::mint(self.shard, self.random.bytes());
        let (token, hash, edge_ha1) = self.mint_token(id);
        let capability = Capability::mint(self.shard, self.random.bytes());
        let minted = Minted { capability, salt: self.random.bytes(), token: hash, edge_ha1 };
        self.leases.open(id, &hand_over, minted, now);
        let HandOver { account, material, .. } = *hand_over;
        self.open_binding(id, capability, &account, material, now);
        self.record(id, LifeEvent::HandedOver, now);
        self.emit(Output::Note(Note::HandedOver(id)));
        self.wait_for(id, reply, Kind::HandOver { token }, now);
    }

    pub(super) fn open_binding(
        &mut self,
        id: InstanceId,
        capability: Capability,
        account: &Account,
        material: Material,
        now: Now,
    ) {
        let credential = self.vault.admit(material);
        let lease_ends = self.leases.get(id).map_or(now.boot, |instance| instance.lease_ends().boot);
        let opening = Opening { instance: id, capability, credential, account, lease_ends };
        let (bindings, mut desk) = self.for_bindings();
        bindings.open(opening, &mut desk, now.boot);
    }

    pub(super) fn wait_for(&mut self, id: InstanceId, reply: ReplyTo, kind: Kind, now: Now) {
        let waiting = Waiting { reply, kind, unreachable: false, refusal: None };
        self.hand_overs.waiting.insert(id, waiting);
        self.hand_overs.schedule.set(id, Some(now.boot + self.policy.register_wait));
    }

    /// A hand-over of an account this device has handed over before: at once if the credentials are the same, else when
    /// they have registered by themselves. Until then the predecessor stays as it is.
    fn replace(&mut self, id: InstanceId, mut hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        if self.hand_overs.concerns(id) {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        let empty = Material::Ha1(Vec::new());
        let material = std::mem::replace(&mut hand_over.material, empty);
        let username = hand_over.account.auth_username.clone();
        let present = self.leases.get(id).map(|instance| instance.account.auth_username.clone());
        let credential = self.vault.admit(material);
        let same = present.as_deref() == Some(username.as_str())
            && self
                .bindings
                .credential(id)
                .is_some_and(|held| self.vault.matches(held, &credential, ha1_of(&username)));
        if same {
            let _ = self.vault.wipe(credential);
            self.renew(id, &hand_over, reply, now);
        } else {
            let change = Change::Renew(hand_over);
            self.begin_trial(id, credential, &username, change, reply, now);
        }
    }

    pub(super) fn begin_trial(
        &mut self,
        id: InstanceId,
        credential: CredentialId,
        username: &str,
        change: Change,
        reply: ReplyTo,
        now: Now,
    ) {
        self.hand_overs.trials.insert(id, Trial { reply, change, verdict: None });
        self.hand_overs.schedule.set(id, Some(now.boot + self.policy.register_wait));
        self.bindings.try_credential(id, credential, username);
    }

    /// The newer hand-over takes its predecessor's place: same instance, Call-ID and Contact; new token.
    fn renew(&mut self, id: InstanceId, hand_over: &HandOver, reply: ReplyTo, now: Now) {
        let former = self.leases.get(id).map(|instance| instance.account.clone());
        let (token, hash, edge_ha1) = self.mint_token(id);
        self.leases.renew(id, hand_over, hash, edge_ha1, now);
        self.adjust_binding(id, now);
        if former.is_some_and(|former| leads_elsewhere(&former, &hand_over.account)) {
            self.bindings.redirect(id, &hand_over.account);
        }
        self.record(id, LifeEvent::HandedOver, now);
        self.reply_handed_over(id, token, true, reply, now);
    }

    /// How a trial of other credentials ended.
    pub(in crate::engine) fn handle_tried(&mut self, id: InstanceId, tried: Tried, now: Now) {
        let (credential, refusal) = match tried {
            Tried::Accepted(former) => (former, None),
            Tried::Refused(credential, verdict) => (credential, Some(Refusal::RegistrarRefused(verdict))),
            Tried::Unreachable(credential) => (credential, Some(Refusal::RegistrarUnreachable)),
        };
        let _ = self.vault.wipe(credential);
        let Some(trial) = self.hand_overs.trials.get_mut(&id) else { return };
        if refusal == Some(Refusal::RegistrarUnreachable) && self.hand_overs.schedule.has(id) {
            // Told when the wait is over, like every registrar that cannot be reached.
            trial.verdict = refusal;
            return;
        }
        self.hand_overs.schedule.remove(id);
        let Some(Trial { reply, change, .. }) = self.hand_overs.trials.remove(&id) else { return };
        match (refusal, change) {
            (Some(refusal), _) => self.reply(reply, Answer::Refused(refusal)),
            (None, Change::Renew(hand_over)) => self.renew(id, &hand_over, reply, now),
            (None, Change::Rectify(account, push)) => {
                self.retarget(id, push, now);
                self.leases.rectify(id, *account);
                self.finish_rectify(id, reply, now);
            }
        }
    }

    /// Answers who waits for an instance's first verdict. `false`: nobody does.
    pub(in crate::engine) fn answer_hand_over(&mut self, id: InstanceId, spoken: &Spoken, now: Now) -> bool {
        let Some(waiting) = self.hand_overs.waiting.get_mut(&id) else { return false };
        match spoken {
            Spoken::Verdict => self.release(id, now),
            Spoken::Refused(verdict) => {
                waiting.refusal = Some(Refusal::RegistrarRefused(verdict.clone()));
                self.erase(id, Cause::Refused, None, now);
            }
            Spoken::Unreachable => waiting.unreachable = true,
        }
        true
    }

    /// The instance is gone while somebody still waits for it.
    pub(in crate::engine) fn abandon_hand_over(&mut self, id: InstanceId, cause: Cause) {
        self.hand_overs.schedule.remove(id);
        if let Some(Waiting { reply, refusal, .. }) = self.hand_overs.waiting.remove(&id) {
            let refusal = refusal.unwrap_or_else(|| unfinished(cause));
            self.reply(reply, Answer::Refused(refusal));
        }
        if let Some(Trial { reply, .. }) = self.hand_overs.trials.remove(&id) {
            self.reply(reply, Answer::Refused(unfinished(cause)));
        }
    }

    pub(in crate::engine) fn handle_hand_over_timeouts(&mut self, now: Now) {
        while let Some(id) = self.hand_overs.schedule.pop_due(now.boot) {
            if let Some(trial) = self.hand_overs.trials.get_mut(&id) {
                if trial.verdict.is_some() {
                    let Some(Trial { reply, verdict, .. }) = self.hand_overs.trials.remove(&id) else { continue };
                    let refusal = verdict.unwrap_or(Refusal::RegistrarUnreachable);
                    self.reply(reply, Answer::Refused(refusal));
                } else {
                    self.bindings.end_trial(id);
                }
                continue;
            }
            let Some(waiting) = self.hand_overs.waiting.get_mut(&id) else { continue };
            if waiting.unreachable {
                waiting.refusal = Some(Refusal::RegistrarUnreachable);
                self.erase(id, Cause::Unregistrable, None, now);
            } else {
                self.release(id, now);
            }
        }
    }

    fn release(&mut self, id: InstanceId, now: Now) {
        self.hand_overs.schedule.remove(id);
        let Some(Waiting { reply, kind, .. }) = self.hand_overs.waiting.remove(&id) else { return };
        match kind {
            Kind::HandOver { token } => self.reply_handed_over(id, token, false, reply, now),
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
            lease_ends: instance.lease_ends().wall,
            registration: self.bindings.view(id, now.boot),
            attach: self.attach_view(id),
            replaced,
        };
        self.reply(reply, Answer::HandedOver(Box::new(handed_over)));
    }

    /// A bearer token of 256 bits: its text once, its hash and its digest HA1 for keeping.
    fn mint_token(&mut self, id: InstanceId) -> (Zeroizing<String>, TokenHash, Zeroizing<String>) {
        let random = Zeroizing::new(self.random.bytes::<32>());
        let mut token = Zeroizing::new(String::with_capacity(52));
        base32(&random[..], &mut token);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        let ha1 = digest::ha1(Algorithm::Md5, &id.to_string(), &self.policy.domain, token.as_bytes());
        (token, TokenHash(hash), ha1)
    }
}

/// What a hand-over is told whose instance was erased before the registrar spoke.
fn unfinished(cause: Cause) -> Refusal {
    match cause {
        Cause::Shutdown => Refusal::Busy { after: RETRY_AFTER },
        Cause::Unregistrable | Cause::LeaseEnded => Refusal::RegistrarUnreachable,
        Cause::Refused | Cause::Deleted | Cause::DeadToken | Cause::Administrator | Cause::OffBoarded => {
            Refusal::Gone { cause, receipt: None }
        }
    }
}
