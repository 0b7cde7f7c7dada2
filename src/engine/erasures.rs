//! Erasures: an instance on its way out, and the tombstone it leaves.
//!
//! An instance enters by value, with its binding; nothing else can use its credentials from then on. The registration is
//! removed while `erasure.grace` passes at most, then the slot is wiped, and only the wipe's receipt lets the record be
//! written. A tombstone holds no credential.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use aws_lc_rs::hmac;
use bytes::Bytes;

use super::audit::{AuditRecord, Cause, LifeEvent, Receipt, Unregister};
use super::ids::{BranchId, InstanceId, RecordId, ReplyTo};
use super::input::{Recorded, TokenHash};
use super::instance::{Instance, owned_by};
use super::limits::{Limits, share};
use super::output::{Answer, ForegroundView, Hop, KeptContact, Note, ReceiptJob, RecordJob, Refusal, TrunkKey};
use super::register::{Desk, End, Exchange, Identity, Leaving, Step, Terms};
use super::schedule::Schedule;
use crate::clock::{Instant, Now};
use crate::sip::Message;
use crate::vault::{CredentialId, WipeReceipt};

/// How long a tombstone stands.
const TOMBSTONE_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Clients that wait for one receipt; more are told to come again.
const WAITING_MAX: usize = 16;
const COME_AGAIN: Duration = Duration::from_secs(5);

/// What this room asks of the engine.
pub(crate) enum Event {
    Send(Hop, Bytes),
    Record(Box<RecordJob>),
    Reply(ReplyTo, Box<Answer>),
    Note(Note),
}

/// An erasure under way or done.
enum Erasure {
    Deregistering(Box<Deregistering>),
    /// Wiped; the record is on its way.
    Recording,
    Buried {
        receipt: Box<Receipt>,
        logged: bool,
    },
}

/// Still holds the credential: the 401 to the un-REGISTER needs it.
struct Deregistering {
    subject: Subject,
    identity: Identity,
    exchange: Option<Exchange>,
    started: Instant,
}

/// The credentials of an instance that stays: its app is in the foreground.
pub(crate) struct Wiped {
    pub(crate) instance: InstanceId,
    pub(crate) tenant: super::account::TenantId,
    pub(crate) salt: [u8; 32],
    pub(crate) unregister: Unregister,
    pub(crate) kept: Option<KeptContact>,
}

/// What is remembered of such a wipe, for an app that asks again.
struct Aside {
    /// Its own record: that of an earlier wipe may be late.
    record: RecordId,
    kept: Option<KeptContact>,
    answer: Option<ForegroundView>,
    waiting: Vec<ReplyTo>,
}

/// Why an instance is erased, and who waits for it.
#[derive(Clone, Copy)]
pub(crate) struct Sentence {
    pub(crate) cause: Cause,
    pub(crate) reply: Option<ReplyTo>,
}

/// What the record needs of the instance.
struct Subject {
    instance: InstanceId,
    tenant: super::account::TenantId,
    salt: [u8; 32],
}

struct Grave {
    token: TokenHash,
    cause: Cause,
    erasure: Erasure,
    waiting: Vec<ReplyTo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    Exchange,
    Grace,
    Tombstone,
}

/// The room.
pub(crate) struct Erasures {
    /// This shard's share of `limits.tombstones`.
    graves_max: usize,
    graves: HashMap<InstanceId, Grave>,
    by_branch: HashMap<BranchId, InstanceId>,
    by_record: HashMap<RecordId, InstanceId>,
    /// At most one for each instance that is held.
    asides: HashMap<InstanceId, Aside>,
    asides_by_record: HashMap<RecordId, InstanceId>,
    /// The oldest tombstone first; some may be gone already.
    buried: VecDeque<InstanceId>,
    schedule: Schedule<(InstanceId, Timer)>,
    events: VecDeque<Event>,
    records: u64,
    under_way: usize,
}

impl Erasures {
    /// Remembers at most this shard's share of `limits.tombstones`.
    pub(crate) fn new(limits: &Limits, shards: u16) -> Self {
        Self {
            graves_max: share(limits.tombstones, shards),
            graves: HashMap::default(),
            by_branch: HashMap::default(),
            by_record: HashMap::default(),
            asides: HashMap::default(),
            asides_by_record: HashMap::default(),
            buried: VecDeque::new(),
            schedule: Schedule::default(),
            events: VecDeque::new(),
            records: 0,
            under_way: 0,
        }
    }

    /// Erases an instance: it and its binding move in here, never to come back.
    pub(crate) fn begin(
        &mut self,
        instance: Instance,
        binding: Leaving,
        sentence: Sentence,
        desk: &mut Desk<'_>,
        now: Now,
    ) {
        let Sentence { cause, reply } = sentence;
        let id = instance.id;
        self.make_room();
        self.under_way += 1;
        let Leaving { mut identity, bound_at } = binding;
        let exchange = match bound_at {
            Some(target) => {
                let terms = Terms {
                    expires: Duration::ZERO,
                    expires_max: Duration::ZERO,
                    refusals_max: 1,
                    datagrams_max: None,
                };
                let hop = target.hop.clone();
                let (exchange, request) = Exchange::start(&mut identity, target, terms, desk, now.boot);
                self.by_branch.insert(exchange.branch, id);
                self.schedule.set((id, Timer::Exchange), exchange.poll_timeout());
                self.schedule.set((id, Timer::Grace), Some(now.boot + desk.policy.erasure_grace));
                self.events.push_back(Event::Send(hop, request));
                Some(exchange)
            }
            None => None,
        };
        let idle = exchange.is_none();
        let token = instance.token();
        let subject = Subject { instance: id, tenant: instance.tenant, salt: instance.salt };
        let leaving = Deregistering { subject, identity, exchange, started: now.boot };
        let grave = Grave {
            token,
            cause,
            erasure: Erasure::Deregistering(Box::new(leaving)),
            waiting: reply.into_iter().collect(),
        };
        self.graves.insert(id, grave);
        if idle {
            self.wipe(id, Unregister::NotNeeded, desk, now);
        }
    }

    /// Erases an instance whose binding other devices go on sharing: its own copy of the credentials is wiped at once.
    pub(crate) fn begin_shared(
        &mut self,
        instance: Instance,
        credential: CredentialId,
        sentence: Sentence,
        desk: &mut Desk<'_>,
        now: Now,
    ) {
        let Sentence { cause, reply } = sentence;
        self.make_room();
        self.under_way += 1;
        let (id, token) = (instance.id, instance.token());
        let waiting = reply.into_iter().collect();
        self.graves.insert(id, Grave { token, cause, erasure: Erasure::Recording, waiting });
        let subject = Subject { instance: id, tenant: instance.tenant, salt: instance.salt };
        let proof = desk.vault.wipe(credential);
        desk.tally.erasure(cause, Duration::ZERO);
        self.enter(&subject, proof, cause, Unregister::Shared, now);
    }

    /// Wipes the credentials of an instance that stays, and answers with the receipt when it is there.
    pub(crate) fn wipe_for_foreground(
        &mut self,
        wiped: Wiped,
        credential: CredentialId,
        reply: ReplyTo,
        desk: &mut Desk<'_>,
        now: Now,
    ) {
        let Wiped { instance, tenant, salt, unregister, kept } = wiped;
        let proof = desk.vault.wipe(credential);
        desk.tally.erasure(Cause::Foreground, Duration::ZERO);
        self.records += 1;
        let record = RecordId(self.records);
        self.asides.insert(instance, Aside { record, kept, answer: None, waiting: vec![reply] });
        self.asides_by_record.insert(record, instance);
        let job = Subject { instance, tenant, salt }.record(proof, Cause::Foreground, unregister, record, now);
        self.events.push_back(Event::Record(Box::new(job)));
    }

    /// The app asks again: the same answer, now or when it is there. `None`: nothing of it is remembered.
    pub(crate) fn foreground_again(&mut self, id: InstanceId, reply: ReplyTo) -> Option<()> {
        let aside = self.asides.get_mut(&id)?;
        let answer = match &aside.answer {
            Some(view) => Answer::Foreground(Box::new(view.clone())),
            None if aside.waiting.len() < WAITING_MAX => {
                aside.waiting.push(reply);
                return Some(());
            }
            None => Answer::Refused(Refusal::RateLimited { after: COME_AGAIN }),
        };
        self.events.push_back(Event::Reply(reply, Box::new(answer)));
        Some(())
    }

    /// The app handed over again, or its instance is gone: the answer is of no use any more. Who waits for it is told that.
    pub(crate) fn forget_foreground(&mut self, id: InstanceId) {
        let Some(aside) = self.asides.remove(&id) else { return };
        for reply in aside.waiting {
            let refusal = Refusal::RateLimited { after: COME_AGAIN };
            self.events.push_back(Event::Reply(reply, Box::new(Answer::Refused(refusal))));
        }
    }

    fn handle_aside_recorded(&mut self, id: InstanceId, record: RecordId, recorded: Recorded) {
        let Some(aside) = self.asides.get_mut(&id).filter(|aside| aside.record == record) else { return };
        let Recorded { receipt, logged } = recorded;
        let view = ForegroundView { receipt, logged, kept: aside.kept.take() };
        for reply in std::mem::take(&mut aside.waiting) {
            self.events.push_back(Event::Reply(reply, Box::new(Answer::Foreground(Box::new(view.clone())))));
        }
        aside.answer = Some(view);
    }

    /// A response whose branch may be ours. `false`: it is not.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        now: Now,
    ) -> bool {
        let Some(&id) = self.by_branch.get(&branch) else { return false };
        let Some(Grave { erasure: Erasure::Deregistering(leaving), .. }) = self.graves.get_mut(&id) else {
            return true;
        };
        let Some(exchange) = &mut leaving.exchange else { return true };
        let step = exchange.handle_response(response, &mut leaving.identity, desk, now.boot);
        self.advance(id, branch, step, desk, now);
        true
    }

    /// A trunk connection is gone: what was asked over it will not be answered.
    pub(crate) fn handle_trunk_down(&mut self, trunk: &Arc<TrunkKey>, desk: &mut Desk<'_>, now: Now) {
        if self.under_way == 0 {
            return;
        }
        let over = |grave: &Grave| match &grave.erasure {
            Erasure::Deregistering(leaving) => {
                leaving.exchange.as_ref().is_some_and(|it| it.target.hop == Hop::Trunk(Arc::clone(trunk)))
            }
            Erasure::Recording | Erasure::Buried { .. } => false,
        };
        // In the order of their ids: the hash order must not show.
        let concerned: BTreeSet<InstanceId> =
            self.by_branch.values().copied().filter(|id| self.graves.get(id).is_some_and(over)).collect();
        for id in concerned {
            self.wipe(id, Unregister::Unanswered, desk, now);
        }
    }

    /// The log has written, or given up waiting.
    pub(crate) fn handle_recorded(&mut self, record: RecordId, recorded: Recorded, now: Instant) {
        if let Some(id) = self.asides_by_record.remove(&record) {
            return self.handle_aside_recorded(id, record, recorded);
        }
        let Some(id) = self.by_record.remove(&record) else { return };
        let Some(grave) = self.graves.get_mut(&id) else { return };
        let Recorded { receipt, logged } = recorded;
        for reply in std::mem::take(&mut grave.waiting) {
            let answer = Answer::Erased { receipt: receipt.clone(), logged };
            self.events.push_back(Event::Reply(reply, Box::new(answer)));
        }
        grave.erasure = Erasure::Buried { receipt, logged };
        self.under_way -= 1;
        self.buried.push_back(id);
        self.schedule.set((id, Timer::Tombstone), Some(now + TOMBSTONE_KEPT));
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, desk: &mut Desk<'_>, now: Now) {
        while let Some((id, timer)) = self.schedule.pop_due(now.boot) {
            match timer {
                Timer::Exchange => {
                    let Some(Grave { erasure: Erasure::Deregistering(leaving), .. }) = self.graves.get_mut(&id) else {
                        continue;
                    };
                    let Some(exchange) = &mut leaving.exchange else { continue };
                    let (branch, step) = (exchange.branch, exchange.handle_timeout(now.boot));
                    self.advance(id, branch, step, desk, now);
                }
                Timer::Grace => self.wipe(id, Unregister::Unanswered, desk, now),
                Timer::Tombstone => {
                    self.graves.remove(&id);
                    // What was buried first decays first, but for those of one moment.
                    while self.buried.front().is_some_and(|oldest| !self.graves.contains_key(oldest)) {
                        self.buried.pop_front();
                    }
                }
            }
        }
    }

    /// A repeated `DELETE`: the same receipt, now or when it is there. `None`: no such tombstone for that token.
    pub(crate) fn erase_again(&mut self, id: InstanceId, token: &TokenHash, reply: ReplyTo) -> Option<()> {
        let grave = owned_by(self.graves.get_mut(&id), |grave| &grave.token, token)?;
        match &grave.erasure {
            Erasure::Buried { receipt, logged } => {
                let answer = Answer::Erased { receipt: receipt.clone(), logged: *logged };
                self.events.push_back(Event::Reply(reply, Box::new(answer)));
            }
            Erasure::Deregistering(_) | Erasure::Recording if grave.waiting.len() < WAITING_MAX => {
                grave.waiting.push(reply);
            }
            Erasure::Deregistering(_) | Erasure::Recording => {
                let refusal = Refusal::RateLimited { after: COME_AGAIN };
                self.events.push_back(Event::Reply(reply, Box::new(Answer::Refused(refusal))));
            }
        }
        Some(())
    }

    /// What anything but `DELETE` is told, with the right token.
    pub(crate) fn refusal(&self, id: InstanceId, token: &TokenHash) -> Refusal {
        match owned_by(self.graves.get(&id), |grave| &grave.token, token) {
            None => Refusal::NotFound,
            Some(grave) => {
                let receipt = match &grave.erasure {
                    Erasure::Buried { receipt, .. } => Some(receipt.clone()),
                    Erasure::Deregistering(_) | Erasure::Recording => None,
                };
                Refusal::Gone { cause: grave.cause, receipt }
            }
        }
    }

    /// Whether an instance of that id was erased here lately.
    pub(crate) fn knows(&self, id: InstanceId) -> bool {
        self.graves.contains_key(&id)
    }

    /// What an instance on its way out still is at its registrar: until its credential is wiped.
    pub(crate) fn identity(&self, id: InstanceId) -> Option<&Identity> {
        match &self.graves.get(&id)?.erasure {
            Erasure::Deregistering(leaving) => Some(&leaving.identity),
            Erasure::Recording | Erasure::Buried { .. } => None,
        }
    }

    /// Erasures that have no receipt yet.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("erasures.under_way", self.under_way),
            ("erasures.graves", self.graves.len()),
            ("erasures.branches", self.by_branch.len()),
            ("erasures.records", self.by_record.len() + self.asides_by_record.len()),
            ("erasures.asides", self.asides.len()),
        ]);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    fn advance(&mut self, id: InstanceId, branch: BranchId, step: Step, desk: &mut Desk<'_>, now: Now) {
        let Some(Grave { erasure: Erasure::Deregistering(leaving), .. }) = self.graves.get(&id) else { return };
        let Some(exchange) = &leaving.exchange else { return };
        match step {
            Step::Wait => self.schedule.set((id, Timer::Exchange), exchange.poll_timeout()),
            Step::Send(request) => {
                self.by_branch.remove(&branch);
                self.by_branch.insert(exchange.branch, id);
                self.schedule.set((id, Timer::Exchange), exchange.poll_timeout());
                self.events.push_back(Event::Send(exchange.target.hop.clone(), request));
            }
            Step::Done(end) => {
                let unregister = match end {
                    End::Granted { .. } => Unregister::Confirmed,
                    End::Refused { .. } | End::Failed { .. } => Unregister::Refused,
                    End::Silent => Unregister::Unanswered,
                };
                self.wipe(id, unregister, desk, now);
            }
        }
    }

    /// Wipes the credential and sends the record.
    fn wipe(&mut self, id: InstanceId, unregister: Unregister, desk: &mut Desk<'_>, now: Now) {
        self.schedule.remove((id, Timer::Exchange));
        self.schedule.remove((id, Timer::Grace));
        let Some(grave) = self.graves.get_mut(&id) else { return };
        let Erasure::Deregistering(leaving) = std::mem::replace(&mut grave.erasure, Erasure::Recording) else {
            return;
        };
        let Deregistering { subject, identity, exchange, started } = *leaving;
        if let Some(exchange) = exchange {
            self.by_branch.remove(&exchange.branch);
        }
        let proof = desk.vault.wipe(identity.credential);
        desk.tally.erasure(grave.cause, now.boot.saturating_since(started));
        let cause = grave.cause;
        self.enter(&subject, proof, cause, unregister, now);
    }

    /// Sends the record of a wipe.
    fn enter(&mut self, subject: &Subject, proof: WipeReceipt, cause: Cause, unregister: Unregister, now: Now) {
        self.records += 1;
        let record = RecordId(self.records);
        self.by_record.insert(record, subject.instance);
        let job = subject.record(proof, cause, unregister, record, now);
        self.events.push_back(Event::Record(Box::new(job)));
        self.events.push_back(Event::Note(Note::Erased(subject.instance, cause)));
    }

    /// The oldest tombstones give way; an erasure under way never does.
    fn make_room(&mut self) {
        while self.graves.len() >= self.graves_max {
            let Some(id) = self.buried.pop_front() else { return };
            self.graves.remove(&id);
            self.schedule.remove((id, Timer::Tombstone));
        }
    }
}

impl Subject {
    fn record(&self, proof: WipeReceipt, cause: Cause, unregister: Unregister, id: RecordId, now: Now) -> RecordJob {
        let subject = subject(self.instance, &self.salt);
        RecordJob {
            record: AuditRecord::erased(proof, cause, unregister, subject, &self.tenant, now.wall),
            receipt: Some(ReceiptJob { id, instance: self.instance, salt: self.salt }),
        }
    }
}

/// How an instance appears in records: an HMAC of its id under its salt.
fn subject(instance: InstanceId, salt: &[u8; 32]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
    let tag = hmac::sign(&key, instance.to_string().as_bytes());
    tag.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String never refuses");
        text
    })
}

/// A record of any other life event.
pub(crate) fn life_record(instance: &Instance, event: LifeEvent, now: Now) -> RecordJob {
    let subject = subject(instance.id, &instance.salt);
    RecordJob { record: AuditRecord::life(event, subject, &instance.tenant, now.wall), receipt: None }
}
