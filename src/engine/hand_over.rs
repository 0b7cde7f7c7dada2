//! Handing over: a new instance, a newer hand-over of one we hold, and a rectified account; each may have to wait for the
//! registrar before its app is answered.

use std::time::Duration;

use ahash::HashMap;
use zeroize::Zeroizing;

use super::account::Account;
use super::audit::{Cause, LifeEvent};
use super::bindings::{Opening, Spoken, Tried};
use super::devices;
use super::engine::{Drain, Engine};
use super::filter::registrar_allowed;
use super::ids::{Capability, InstanceId, ReplyTo, base32};
use super::input::{HandOver, PushTarget, Rectification, TokenHash};
use super::leases::Minted;
use super::limits::share;
use super::output::{Answer, HandedOver, Note, Output, Refusal};
use super::register::{self, ha1_of};
use super::schedule::Schedule;
use crate::clock::{Instant, Now};
use crate::sip::auth::Algorithm;
use crate::sip::digest;

/// When a refused hand-over may come again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Hand-overs and rectifications that wait for the registrar.
pub(super) struct HandOvers {
    shards: u16,
    /// Hand-overs that wait for a place among their device's instances.
    asking: HashMap<u64, (Box<HandOver>, ReplyTo)>,
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

enum Kind {
    HandOver { token: Zeroizing<String> },
    Rectify,
}

/// Other credentials for an instance we hold, until they have registered by themselves.
struct Trial {
    reply: ReplyTo,
    change: Change,
    verdict: Option<Refusal>,
}

enum Change {
    Renew(Box<HandOver>),
    Rectify(Box<Account>, Option<Vec<PushTarget>>),
}

impl HandOvers {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards,
            asking: HashMap::default(),
            waiting: HashMap::default(),
            trials: HashMap::default(),
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
            ("hand_overs.waiting", self.waiting.len()),
            ("hand_overs.trials", self.trials.len()),
        ]);
    }

    pub(super) fn is_waiting(&self, instance: InstanceId) -> bool {
        self.waiting.get(&instance).is_some_and(|waiting| matches!(waiting.kind, Kind::HandOver { .. }))
    }
}

impl Engine {
    pub(super) fn hand_over(&mut self, hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        if let Err(refusal) = self.may_hand_over(&hand_over) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        match self.leases.predecessor(&hand_over) {
            Some(id) => self.replace(id, hand_over, reply, now),
            None => {
                let ticket = self.devices.ask(&hand_over.tenant, &hand_over.device);
                self.hand_overs.asking.insert(ticket, (hand_over, reply));
            }
        }
    }

    /// Whether the device may hold one more instance, as its home shard says.
    pub(super) fn handle_place(&mut self, ticket: u64, granted: bool, now: Now) {
        let Some((hand_over, reply)) = self.hand_overs.asking.remove(&ticket) else { return };
        if !granted {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: RETRY_AFTER }));
        }
        // Meanwhile the same account may have come a second time, or the end of the process.
        let refusal = self.may_hand_over(&hand_over).err();
        let predecessor = self.leases.predecessor(&hand_over);
        if refusal.is_some() || predecessor.is_some() {
            self.devices.give_back(&hand_over.tenant, &hand_over.device);
        }
        match (refusal, predecessor) {
            (Some(refusal), _) => self.reply(reply, Answer::Refused(refusal)),
            (None, Some(id)) => self.replace(id, hand_over, reply, now),
            (None, None) => self.take_in(hand_over, reply, now),
        }
    }

    pub(super) fn route_devices(&mut self, now: Now) -> bool {
        let Some(event) = self.devices.poll_event() else { return false };
        match event {
            devices::Event::Peer(shard, message) => self.emit(Output::Peer(shard, message)),
            devices::Event::Answered { ticket, granted } => self.handle_place(ticket, granted, now),
        }
        true
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
        Ok(())
    }

    fn may_register(&self, account: &Account) -> Result<(), Refusal> {
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
        self.watch_lease(id, now);
        let HandOver { account, material, .. } = *hand_over;
        self.open_binding(id, capability, &account, material, now);
        self.record(id, LifeEvent::HandedOver, now);
        self.emit(Output::Note(Note::HandedOver(id)));
        self.wait_for(id, reply, Kind::HandOver { token }, now);
    }

    fn open_binding(
        &mut self,
        id: InstanceId,
        capability: Capability,
        account: &Account,
        material: crate::vault::Material,
        now: Now,
    ) {
        let credential = self.vault.admit(material);
        let lease_ends = self.leases.get(id).map_or(now.boot, |instance| instance.lease_ends().boot);
        let opening = Opening { instance: id, capability, credential, account, lease_ends };
        let (bindings, mut desk) = self.for_bindings();
        bindings.open(opening, &mut desk, now.boot);
    }

    fn wait_for(&mut self, id: InstanceId, reply: ReplyTo, kind: Kind, now: Now) {
        let waiting = Waiting { reply, kind, unreachable: false, refusal: None };
        self.hand_overs.waiting.insert(id, waiting);
        self.hand_overs.schedule.set(id, Some(now.boot + self.policy.register_wait));
    }

    /// A hand-over of an account this device has handed over before: at once if the credentials are the same, else when
    /// they have registered by themselves. Until then the predecessor stays as it is.
    fn replace(&mut self, id: InstanceId, mut hand_over: Box<HandOver>, reply: ReplyTo, now: Now) {
        if self.hand_overs.trials.contains_key(&id) || self.hand_overs.waiting.contains_key(&id) {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        let empty = crate::vault::Material::Ha1(Vec::new());
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

    fn begin_trial(
        &mut self,
        id: InstanceId,
        credential: crate::vault::CredentialId,
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
        self.watch_lease(id, now);
        self.adjust_binding(id, now);
        if former.is_some_and(|former| leads_elsewhere(&former, &hand_over.account)) {
            self.bindings.redirect(id, &hand_over.account);
        }
        self.record(id, LifeEvent::HandedOver, now);
        self.reply_handed_over(id, token, true, reply, now);
    }

    /// How a trial of other credentials ended.
    pub(super) fn handle_tried(&mut self, id: InstanceId, tried: Tried, now: Now) {
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
    pub(super) fn answer_hand_over(&mut self, id: InstanceId, spoken: &Spoken, now: Now) -> bool {
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
    pub(super) fn abandon_hand_over(&mut self, id: InstanceId, cause: Cause) {
        self.hand_overs.schedule.remove(id);
        if let Some(Waiting { reply, refusal, .. }) = self.hand_overs.waiting.remove(&id) {
            let refusal = refusal.unwrap_or_else(|| unfinished(cause));
            self.reply(reply, Answer::Refused(refusal));
        }
        if let Some(Trial { reply, .. }) = self.hand_overs.trials.remove(&id) {
            self.reply(reply, Answer::Refused(unfinished(cause)));
        }
    }

    pub(super) fn handle_hand_over_timeouts(&mut self, now: Now) {
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

    pub(super) fn rectify(
        &mut self,
        id: InstanceId,
        token: &TokenHash,
        change: Rectification,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(()) = self.check(id, token, reply) else { return };
        let Rectification { push, account, material, .. } = change;
        if self.hand_overs.trials.contains_key(&id) || self.hand_overs.waiting.contains_key(&id) {
            return self.reply(reply, Answer::Refused(Refusal::RateLimited { after: self.policy.register_wait }));
        }
        if let Some(Err(refusal)) = account.as_ref().map(|account| self.may_register(account)) {
            return self.reply(reply, Answer::Refused(refusal));
        }
        let Some(present) = self.leases.get(id).map(|instance| instance.account.clone()) else { return };
        let account = account.unwrap_or_else(|| present.clone());
        let moved = leads_elsewhere(&present, &account)
            || present.aor != account.aor
            || present.auth_username != account.auth_username;
        if moved && material.is_none() {
            let needed = "account: another destination or user needs the credentials again".to_owned();
            return self.reply(reply, Answer::Refused(Refusal::InvalidAccount(needed)));
        }
        match material {
            None => {
                self.retarget(id, push, now);
                self.leases.rectify(id, account);
                self.finish_rectify(id, reply, now);
            }
            Some(material) if moved => {
                self.retarget(id, push, now);
                self.move_binding(id, account, material, now);
                self.wait_for(id, reply, Kind::Rectify, now);
            }
            Some(material) => {
                let username = account.auth_username.clone();
                let credential = self.vault.admit(material);
                let change = Change::Rectify(Box::new(account), push);
                self.begin_trial(id, credential, &username, change, reply, now);
            }
        }
    }

    /// Another destination: the secret for the former one is wiped before anything else happens. The registrar is told
    /// with the nonce at hand; a challenge to that finds nobody who could answer it.
    fn move_binding(&mut self, id: InstanceId, account: Account, material: crate::vault::Material, now: Now) {
        if let Some(binding) = self.bindings.take(id) {
            let mut identity = binding.identity;
            let mut desk = register::Desk {
                shard: self.shard,
                policy: &self.policy,
                random: &mut self.random,
                vault: &mut self.vault,
                tally: &mut self.tally,
            };
            if let Some(target) = binding.bound_at {
                let terms = register::Terms {
                    expires: Duration::ZERO,
                    expires_max: Duration::ZERO,
                    refusals_max: 1,
                    datagrams_max: Some(1),
                };
                let hop = target.hop.clone();
                let (_, request) = register::Exchange::start(&mut identity, target, terms, &mut desk, now.boot);
                self.outputs.push_back(super::engine::Effect::Send(hop, request));
            }
            let _ = self.vault.wipe(identity.credential);
        }
        let capability = Capability::mint(self.shard, self.random.bytes());
        self.leases.replace_capability(id, capability);
        self.open_binding(id, capability, &account, material, now);
        self.leases.rectify(id, account);
    }

    fn retarget(&mut self, id: InstanceId, push: Option<Vec<PushTarget>>, now: Now) {
        if let Some(push) = push {
            self.leases.retarget(id, push, now);
        }
    }

    fn finish_rectify(&mut self, id: InstanceId, reply: ReplyTo, now: Now) {
        self.adjust_binding(id, now);
        self.record(id, LifeEvent::Rectified, now);
        self.reply_instance(id, reply, now);
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

/// Whether REGISTERs of the two accounts go to different places.
fn leads_elsewhere(a: &Account, b: &Account) -> bool {
    a.registrar != b.registrar || a.outbound_proxy != b.outbound_proxy || a.tls_spki_sha256 != b.tls_spki_sha256
}
