//! Erasures: an instance on its way out, and the tombstone it leaves.
//!
//! An instance enters by value, with its binding; nothing else can use its credentials from then on. The registration is
//! removed while `erasure.grace` passes at most, then the slot is wiped, and only the wipe's receipt lets the record be
//! written. A tombstone holds no credential.

mod aside;
mod departing;
mod leaving;
mod put_off;
mod recording;
mod unregistering;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;

use aside::Aside;
pub(crate) use aside::Wiped;
use departing::Departures;
use put_off::PutOff;
use recording::Subject;
pub(crate) use recording::life_record;

use super::audit::{Cause, Receipt, Unregister, WakeCounts};
use super::ids::{BranchId, InstanceId, RecordId, ReplyTo};
use super::input::{Recorded, TokenHash};
use super::instance::Instance;
use super::limits::share;
use super::output::{Answer, DestinationKey, Hop, Note, RecordJob, Refusal, TrunkKey};
use super::permits::{Asker, Used};
use super::policy::Policy;
use super::register::{Desk, End, Exchange, Identity, Leaving, Step, Target, Terms};
use super::schedule::Schedule;
use super::token::{Tokens, owned_by};
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
    /// An un-REGISTER wants to go there.
    Want(DestinationKey, Asker),
    /// It does not any more.
    Withdraw(DestinationKey, Asker),
    /// What became of its permit.
    Report(DestinationKey, Used),
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
    device: String,
    identity: Identity,
    removal: Removal,
    started: Instant,
}

/// How far the un-REGISTER is.
enum Removal {
    /// There is nothing to remove.
    Needless,
    /// Others go first to the same destination.
    Waiting(Target),
    Asked(Exchange),
}

/// Why an instance is erased, what its record tells besides, and who waits for it.
pub(crate) struct Sentence {
    pub(crate) cause: Cause,
    pub(crate) wakes: WakeCounts,
    pub(crate) reply: Option<ReplyTo>,
}

struct Grave {
    /// Those it had at last: they get the receipt, as long as there is one.
    tokens: Tokens,
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
    departures: Departures,
    /// The oldest tombstone first; some may be gone already.
    buried: VecDeque<InstanceId>,
    schedule: Schedule<(InstanceId, Timer)>,
    put_off: PutOff,
    events: VecDeque<Event>,
    records: u64,
    under_way: usize,
}

impl Erasures {
    /// Remembers at most this shard's share of `limits.tombstones`.
    pub(crate) fn new(policy: &Policy, shards: u16) -> Self {
        Self {
            graves_max: share(policy.limits.tombstones, shards),
            graves: HashMap::default(),
            by_branch: HashMap::default(),
            by_record: HashMap::default(),
            asides: HashMap::default(),
            asides_by_record: HashMap::default(),
            departures: Departures::default(),
            buried: VecDeque::new(),
            schedule: Schedule::default(),
            put_off: PutOff::default(),
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
        let Sentence { cause, wakes, reply } = sentence;
        let id = instance.id;
        self.make_room();
        self.under_way += 1;
        let tokens = instance.tokens;
        let subject = Subject { instance: id, tenant: instance.tenant, salt: instance.salt, wakes };
        let (device, Leaving { identity, bound_at }) = (instance.device, binding);
        let removal = Removal::Needless;
        let leaving = Box::new(Deregistering { subject, device, identity, removal, started: now.boot });
        let waiting = reply.into_iter().collect();
        let erasure = Erasure::Deregistering(leaving);
        self.graves.insert(id, Grave { tokens, cause, erasure, waiting });
        match bound_at {
            Some(target) => self.unregister(id, target, desk, now),
            None => self.wipe(id, Unregister::NotNeeded, desk, now),
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
        let Sentence { cause, wakes, reply } = sentence;
        self.make_room();
        self.under_way += 1;
        let (id, tokens) = (instance.id, instance.tokens);
        let waiting = reply.into_iter().collect();
        let erasure = Erasure::Recording;
        self.graves.insert(id, Grave { tokens, cause, erasure, waiting });
        let subject = Subject { instance: id, tenant: instance.tenant, salt: instance.salt, wakes };
        let proof = desk.vault.wipe(credential);
        desk.tally.erasure(cause, Duration::ZERO);
        self.enter(subject, proof, cause, Unregister::Shared, now);
    }

    /// A response whose branch may be ours. `false`: it is not.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        now: Now,
    ) -> bool {
        let Some(&id) = self.by_branch.get(&branch) else {
            return self.handle_departure_response(branch, response, desk, now.boot);
        };
        let Some(leaving) = self.leaving(id) else { return true };
        let Removal::Asked(exchange) = &mut leaving.removal else { return true };
        let step = exchange.handle_response(response, &mut leaving.identity, desk, now.boot);
        self.advance(id, branch, step, desk, now);
        true
    }

    /// A trunk connection is gone: what was asked over it will not be answered.
    pub(crate) fn handle_trunk_down(&mut self, trunk: &Arc<TrunkKey>, desk: &mut Desk<'_>, now: Now) {
        self.handle_departures_cut(trunk, desk);
        if self.under_way == 0 {
            return;
        }
        let over = |grave: &Grave| match &grave.erasure {
            Erasure::Deregistering(leaving) => match &leaving.removal {
                Removal::Asked(exchange) => exchange.target.hop == Hop::Trunk(Arc::clone(trunk)),
                Removal::Needless | Removal::Waiting(_) => false,
            },
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
        self.handle_departures_due(desk, now.boot);
        while let Some((destination, asker)) = self.put_off.pop_expired(now.boot) {
            self.events.push_back(Event::Withdraw(destination, asker));
        }
        while let Some((id, timer)) = self.schedule.pop_due(now.boot) {
            match timer {
                Timer::Exchange => match self.leaving(id).map(|leaving| &mut leaving.removal) {
                    Some(Removal::Asked(exchange)) => {
                        let (branch, step) = (exchange.branch, exchange.handle_timeout(now.boot));
                        self.advance(id, branch, step, desk, now);
                    }
                    Some(Removal::Waiting(_)) => self.put_off(id, desk, now),
                    Some(Removal::Needless) | None => {}
                },
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
        let (grave, _) = owned_by(self.graves.get_mut(&id), |grave| &grave.tokens, token)?;
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
        match owned_by(self.graves.get(&id), |grave| &grave.tokens, token) {
            None => Refusal::NotFound,
            Some((grave, _)) => {
                let receipt = match &grave.erasure {
                    Erasure::Buried { receipt, .. } => Some(receipt.clone()),
                    Erasure::Deregistering(_) | Erasure::Recording => None,
                };
                Refusal::Gone { cause: grave.cause, receipt }
            }
        }
    }

    /// Why an instance was erased here lately.
    pub(crate) fn cause_of(&self, id: InstanceId) -> Option<Cause> {
        self.graves.get(&id).map(|grave| grave.cause)
    }

    /// What proves at the edge that somebody has a token of an instance that was erased here lately.
    pub(crate) fn tokens(&self, id: InstanceId) -> Option<&Tokens> {
        self.graves.get(&id).map(|grave| &grave.tokens)
    }

    /// Erasures that have no receipt yet.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether every erasure has its receipt, and every un-REGISTER that was put off is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way == 0 && self.put_off.len() == 0
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("erasures.under_way", self.under_way),
            ("erasures.graves", self.graves.len()),
            ("erasures.branches", self.by_branch.len()),
            ("erasures.records", self.by_record.len() + self.asides_by_record.len()),
            ("erasures.asides", self.asides.len()),
            ("erasures.put_off", self.put_off.len()),
            ("erasures.departing", self.departures.len()),
        ]);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.schedule.next(), self.put_off.poll_timeout(), self.departures.poll_timeout()].into_iter().flatten().min()
    }

    fn leaving(&mut self, id: InstanceId) -> Option<&mut Deregistering> {
        match &mut self.graves.get_mut(&id)?.erasure {
            Erasure::Deregistering(leaving) => Some(leaving),
            Erasure::Recording | Erasure::Buried { .. } => None,
        }
    }

    fn advance(&mut self, id: InstanceId, branch: BranchId, step: Step, desk: &mut Desk<'_>, now: Now) {
        let Some(Removal::Asked(exchange)) = self.leaving(id).map(|leaving| &leaving.removal) else { return };
        let (current, due, hop) = (exchange.branch, exchange.poll_timeout(), exchange.target.hop.clone());
        match step {
            Step::Wait => self.schedule.set((id, Timer::Exchange), due),
            Step::Send(request) => {
                self.by_branch.remove(&branch);
                self.by_branch.insert(current, id);
                self.schedule.set((id, Timer::Exchange), due);
                self.events.push_back(Event::Send(hop, request));
            }
            Step::Done(end) => {
                let unregister = match end {
                    End::Granted { .. } => Unregister::Confirmed,
                    End::Refused { .. } | End::Unsignable(_) | End::Failed { .. } => Unregister::Refused,
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
        let Deregistering { subject, device: _, identity, removal, started } = *leaving;
        let cause = grave.cause;
        if let Removal::Asked(exchange) = &removal {
            self.by_branch.remove(&exchange.branch);
        }
        self.settle(Asker::Erasure(subject.instance), removal);
        let proof = desk.vault.wipe(identity.credential);
        desk.tally.erasure(cause, now.boot.saturating_since(started));
        self.enter(subject, proof, cause, unregister, now);
    }

    /// Sends the record of a wipe.
    fn enter(&mut self, subject: Subject, proof: WipeReceipt, cause: Cause, unregister: Unregister, now: Now) {
        self.records += 1;
        let (record, instance) = (RecordId(self.records), subject.instance);
        self.by_record.insert(record, instance);
        let job = subject.record(proof, cause, unregister, record, now);
        self.events.push_back(Event::Record(Box::new(job)));
        self.events.push_back(Event::Note(Note::Erased(instance, cause)));
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

/// An exchange that removes the binding at `target`.
fn start(identity: &mut Identity, target: Target, desk: &mut Desk<'_>, now: Instant) -> (Exchange, Bytes) {
    let terms = Terms { expires: Duration::ZERO, refusals_max: 1, datagrams_max: None };
    Exchange::start(identity, target, terms, desk, now)
}
