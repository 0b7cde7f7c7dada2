//! Bindings: keeping accounts registered at their registrars, for the whole lease.
//!
//! A binding is located, asks for a permit, registers, rests until its refresh, and backs off when refused. It decides
//! when to register and when to give up; how a challenge is answered is `register`'s, how fast a destination may be
//! asked is `destinations`'. It never removes a registration: that is `erasures`'.

mod binding;
mod candidates;
mod curing;
mod cuts;
mod dormant;
mod pacing;
mod refusals;
mod restricted;
mod sharing;
mod trial;
mod trunks;
mod verdicts;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;

use binding::{Binding, Phase, destination_of};
pub(crate) use candidates::Prospect;
pub(crate) use dormant::Rested;
use trial::Trial;
pub(crate) use trial::Tried;

use super::account::{Account, TrunkUri};
use super::audit::Cause;
use super::filter::target_allowed;
use super::ids::{BindingId, BranchId, Capability, InstanceId, QueryId};
use super::input::{LocateFault, Located};
use super::output::{DestinationKey, Hop, RegistrationReason, RegistrationState, TrunkKey};
use super::permits::{Asker, Permit, Used, Want};
use super::register::{Desk, Exchange, Identity, Leaving, Step, Target, Terms, Unsigned};
use super::schedule::Schedule;
use super::tally::{RegisterOutcome, Shed};
use crate::clock::Instant;
use crate::sip::Message;
use crate::vault::CredentialId;

/// Refusals at hand-over: after two the password is wrong.
const REFUSALS_AT_HAND_OVER: u8 = 2;
/// Exchanges a hand-over may spend on destinations that never answered.
const UNPROVEN_ATTEMPTS_MAX: u8 = 3;
/// Datagrams of one request to a destination that never answered.
const UNPROVEN_DATAGRAMS_MAX: u8 = 3;
/// A binding that is not registered for so long is given up.
const UNREGISTERED_MAX: Duration = Duration::from_secs(12 * 3600);
/// Addresses of one trunk that are tried.
const TARGETS_MAX: usize = 8;
/// How long a refresh waits while other credentials are tried.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);
/// How long after a trial the next one for a further device has to wait: several `TRIAL_PAUSE`, so that a refresh gets its
/// turn whoever keeps guessing.
const TRIAL_REST: Duration = Duration::from_secs(10);

/// What this room asks of the engine.
pub(crate) enum Event {
    Locate(QueryId, TrunkUri),
    Want(DestinationKey, Asker, Want),
    Withdraw(DestinationKey, Asker),
    Report(DestinationKey, Used),
    /// A request went that could not wait for a permit.
    Unpaced(DestinationKey),
    /// An un-REGISTER that is to go when its turn comes, without credentials behind it.
    Farewell(BindingId, Box<Target>, Bytes),
    /// It registers again: such an un-REGISTER is not to go any more.
    Back(BindingId),
    /// What a tenant keeps registered there changed by so much.
    Load(DestinationKey, u16, i64),
    /// The binding has waited long for its permit.
    Waits(BindingId, DestinationKey),
    Send(Hop, Bytes),
    /// The address answered us validly; it is a registrar for this long.
    Proven(IpAddr, Duration),
    /// The state changed, with the code that changed it.
    Changed(BindingId, RegistrationState, Option<RegistrationReason>, Option<u16>),
    /// The registrar refused the credentials.
    Refused(BindingId),
    /// What a hand-over waits for.
    Spoken(BindingId, Spoken),
    /// Keeping it is hopeless.
    GiveUp(BindingId, Cause),
    /// Nothing held here signs what the registrar wants, and only the app can help.
    Incurable(BindingId),
    /// How a trial of other credentials ended.
    Tried(BindingId, Tried),
    /// The binding bears the account's name at that registrar now, or nowhere any more.
    Borne(BindingId, Option<Borne>),
}

/// Where a binding bears the account's name. Only an address that registered us: what else a registrar's name resolves to is
/// its owner's word.
pub(crate) struct Borne {
    pub(crate) user: Vec<u8>,
    pub(crate) address: IpAddr,
    pub(crate) trunk: Option<Arc<TrunkKey>>,
}

/// What a hand-over waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// Registered, or refused for another reason than the credentials.
    Verdict,
    /// The credentials are refused, in the registrar's words.
    Refused(String),
    /// A challenge of a registrar that never registered the account cannot be signed.
    Unsignable(Unsigned),
    /// DNS, connect, TLS or the filter stand in the way.
    Unreachable,
    /// No further account can be kept registered at that address; ask again after so long.
    Crowded(Duration),
}

/// What a binding is opened with.
pub(crate) struct Opening<'a> {
    pub(crate) id: BindingId,
    /// The device whose credentials these are.
    pub(crate) holder: InstanceId,
    /// Whose it is, as the tenant's place in the policy.
    pub(crate) tenant: u16,
    pub(crate) capability: Capability,
    pub(crate) credential: CredentialId,
    pub(crate) account: &'a Account,
    /// Whether our Contact takes the place of those there are.
    pub(crate) takeover: bool,
    pub(crate) lease_ends: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// The transaction of the exchange under way.
    Exchange,
    /// That of a trial.
    Trial,
    /// The next REGISTER.
    Next,
    /// The wait for a permit is long.
    Pacing,
    /// The granted expiry is over.
    Lapse,
    /// `UNREGISTERED_MAX` is over.
    GiveUp,
}

impl Timer {
    const ALL: [Self; 6] = [Self::Exchange, Self::Trial, Self::Next, Self::Pacing, Self::Lapse, Self::GiveUp];
}

/// The room.
#[derive(Default)]
pub(crate) struct Bindings {
    /// Boxed, so that a table that grows moves pointers: nobody shall wait while it copies a hundred megabytes.
    bindings: HashMap<BindingId, Box<Binding>>,
    by_branch: HashMap<BranchId, BindingId>,
    by_query: HashMap<QueryId, BindingId>,
    by_trunk: HashMap<Arc<TrunkKey>, BTreeSet<BindingId>>,
    schedule: Schedule<(BindingId, Timer)>,
    events: VecDeque<Event>,
    queries: u64,
    census: [u64; RegistrationState::ALL.len()],
    reasons: [u64; RegistrationReason::ALL.len()],
}

impl Bindings {
    /// Begins to keep an account registered.
    pub(crate) fn open(&mut self, opening: Opening<'_>, desk: &mut Desk<'_>, now: Instant) {
        let Opening { id, holder, tenant, capability, credential, account, takeover, lease_ends } = opening;
        let mut identity = Identity::new(capability, credential, account, desk.random);
        identity.set_takeover(takeover);
        self.census[RegistrationState::Registering as usize] += 1;
        self.bindings.insert(id, Box::new(Binding::new(identity, holder, tenant, account, lease_ends)));
        self.schedule.set((id, Timer::GiveUp), Some(now + UNREGISTERED_MAX));
        self.locate(id);
    }

    /// The lease ends at another time, or another expiry is wanted, from the next REGISTER on.
    pub(crate) fn adjust(
        &mut self,
        id: BindingId,
        register_expires: Duration,
        lease_ends: Instant,
        takeover: bool,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        binding.register_expires = register_expires;
        binding.lease_ends = lease_ends;
        binding.identity.set_takeover(takeover);
        let at_rest = matches!(binding.phase, Phase::Resting);
        if at_rest && !self.schedule.has((id, Timer::Next)) {
            self.schedule_refresh(id, desk, now);
        }
    }

    /// The resolver's answer.
    pub(crate) fn handle_located(
        &mut self,
        query: QueryId,
        answer: Result<Vec<Located>, LocateFault>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(id) = self.by_query.remove(&query) else { return };
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let found = answer.unwrap_or_default();
        let is_found = !found.is_empty();
        let targets: VecDeque<Target> = found
            .into_iter()
            .filter(|located| target_allowed(desk.policy, binding.next_hop.transport, located))
            .filter_map(|located| binding.target_at(located, desk.policy))
            .take(TARGETS_MAX)
            .collect();
        if targets.is_empty() && is_found {
            // The app is told no more than that nobody answers; the operator may have forgotten a range.
            desk.tally.shed(Shed::Filtered);
        }
        if !targets.is_empty() {
            // A resolver that fails takes nobody's sources away.
            let former = std::mem::take(&mut binding.sources);
            let span = binding.granted.unwrap_or(binding.register_expires);
            binding.sources = targets.iter().map(|target| target.address.ip()).collect();
            binding.former_sources = (former, now + span);
        }
        binding.candidates = targets;
        binding.phase = Phase::Resting;
        self.next_target(id, desk, now);
    }

    /// The binding may send one exchange.
    pub(crate) fn handle_permit(&mut self, id: BindingId, permit: Permit, desk: &mut Desk<'_>, now: Instant) {
        let Permit { destination, class, proven } = permit;
        let unused = Event::Report(destination, Used::unused(class));
        let Some(binding) = self.bindings.get_mut(&id) else {
            return self.events.push_back(unused);
        };
        binding.permit_proven = proven;
        if binding.dormant {
            binding.phase = Phase::Resting;
        }
        let wanted = binding.target.clone().filter(|target| destination_of(target) == destination);
        let trying = binding.trial.as_ref().map(|trial| trial.exchange.is_some());
        match (wanted, &binding.phase, trying) {
            // One REGISTER at a time for a binding (RFC 3261 §10.2.4).
            (Some(_), Phase::Waiting(waiting), Some(true)) if *waiting == destination => {
                binding.phase = Phase::Resting;
                self.schedule.set((id, Timer::Next), Some(now + TRIAL_PAUSE));
                self.events.push_back(unused);
            }
            (Some(target), Phase::Waiting(waiting), _) if *waiting == destination => {
                let terms = binding.terms(now);
                binding.permit_class = class;
                self.start_exchange(id, target, terms, desk, now);
            }
            (Some(_), Phase::Exchanging(_), Some(false)) => {
                self.postpone_trial(id);
                self.events.push_back(unused);
            }
            (Some(target), _, Some(false)) => self.start_trial(id, target, desk, now),
            _ => self.events.push_back(unused),
        }
    }

    /// A response whose branch may be ours. `false`: it is not.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(&id) = self.by_branch.get(&branch) else { return false };
        let Some(binding) = self.bindings.get_mut(&id) else { return false };
        if let Phase::Exchanging(exchange) = &mut binding.phase
            && exchange.branch == branch
        {
            if response.status().is_some_and(|status| matches!(status.code(), 401 | 407 | 423)) {
                desk.tally.register(RegisterOutcome::Challenged);
                // Whoever challenges may have bound us by the time the answer to the next request is lost.
                binding.bound_at = Some(exchange.target.clone());
            }
            let step = exchange.handle_response(response, &mut binding.identity, desk, now);
            self.advance(id, branch, step, desk, now);
        } else if let Some(Trial { twin, exchange: Some(exchange), .. }) = binding.trial.as_deref_mut()
            && exchange.branch == branch
        {
            twin.catch_up(&binding.identity);
            let step = exchange.handle_response(response, twin, desk, now);
            binding.identity.catch_up(twin);
            self.advance_trial(id, branch, step, desk, now);
        }
        true
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, desk: &mut Desk<'_>, now: Instant) {
        while let Some((id, timer)) = self.schedule.pop_due(now) {
            let Some(binding) = self.bindings.get_mut(&id) else { continue };
            match timer {
                Timer::Exchange => {
                    let Phase::Exchanging(exchange) = &mut binding.phase else { continue };
                    let branch = exchange.branch;
                    let step = exchange.handle_timeout(now);
                    self.advance(id, branch, step, desk, now);
                }
                Timer::Trial => {
                    let Some(Trial { exchange: Some(exchange), .. }) = binding.trial.as_deref_mut() else { continue };
                    let branch = exchange.branch;
                    let step = exchange.handle_timeout(now);
                    self.advance_trial(id, branch, step, desk, now);
                }
                Timer::Next if binding.restricted => self.part(id, desk, now),
                Timer::Next if matches!(binding.phase, Phase::Waiting(_)) => self.look_again(id, now),
                Timer::Next => {
                    let lapsed = binding.ever_registered && !binding.is_registered(now);
                    if lapsed || binding.target.is_none() {
                        self.locate(id);
                    } else {
                        self.register_again(id, now);
                    }
                }
                Timer::Pacing => self.tell_long_wait(id, now),
                Timer::Lapse => {
                    if binding.dormant {
                        binding.bound_at = None;
                    }
                    self.recount(id, None, now);
                }
                Timer::GiveUp => self.events.push_back(Event::GiveUp(id, Cause::Unregistrable)),
            }
        }
    }

    /// Takes a binding with one member left out, by value: it will never register again.
    pub(crate) fn take(&mut self, id: BindingId, now: Instant) -> Option<Leaving> {
        self.cease(id);
        self.end_trial(id, now);
        self.unbook(id);
        let binding = *self.bindings.remove(&id)?;
        self.census[binding.counted as usize] -= u64::from(!binding.candidate);
        if let Some(reason) = binding.counted_reason {
            self.reasons[reason as usize] -= 1;
        }
        for timer in Timer::ALL {
            self.schedule.remove((id, timer));
        }
        self.unlink_trunk(id, binding.target.as_ref());
        if binding.identity.called().is_some() {
            self.events.push_back(Event::Borne(id, None));
        }
        Some(Leaving { identity: binding.identity, bound_at: binding.bound_at })
    }

    fn locate(&mut self, id: BindingId) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        self.queries += 1;
        let query = QueryId(self.queries);
        binding.phase = Phase::Locating(query);
        self.schedule.remove((id, Timer::Next));
        self.by_query.insert(query, id);
        self.events.push_back(Event::Locate(query, binding.next_hop.clone()));
    }

    /// Goes on with the next address, or fails when there is none.
    fn next_target(&mut self, id: BindingId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let former = binding.target.take();
        let next = binding.candidates.pop_front();
        binding.target.clone_from(&next);
        if !binding.ever_registered {
            binding.identity.forget_contact();
        }
        self.unlink_trunk(id, former.as_ref());
        match next {
            Some(target) => {
                if let Hop::Trunk(key) = &target.hop {
                    self.by_trunk.entry(Arc::clone(key)).or_default().insert(id);
                }
                self.register_again(id, now);
            }
            None => self.unreachable(id, desk, now),
        }
    }

    fn unlink_trunk(&mut self, id: BindingId, target: Option<&Target>) {
        let Some(Hop::Trunk(key)) = target.map(|target| &target.hop) else { return };
        if let Some(users) = self.by_trunk.get_mut(key) {
            users.remove(&id);
            if users.is_empty() {
                self.by_trunk.remove(key);
            }
        }
    }

    fn register_again(&mut self, id: BindingId, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let Some(target) = &binding.target else { return };
        let destination = destination_of(target);
        let want = binding.want(now);
        binding.phase = Phase::Waiting(destination);
        self.schedule.remove((id, Timer::Next));
        self.watch_pacing(id, now);
        self.events.push_back(Event::Want(destination, Asker::Binding(id), want));
    }

    fn start_exchange(&mut self, id: BindingId, target: Target, terms: Terms, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        if std::mem::take(&mut binding.farewell) {
            self.events.push_back(Event::Back(id));
        }
        let hop = target.hop.clone();
        let (exchange, request) = Exchange::start(&mut binding.identity, target, terms, desk, now);
        self.by_branch.insert(exchange.branch, id);
        for timer in [Timer::Pacing, Timer::Next] {
            self.schedule.remove((id, timer));
        }
        self.schedule.set((id, Timer::Exchange), exchange.poll_timeout());
        binding.phase = Phase::Exchanging(exchange);
        self.events.push_back(Event::Send(hop, request));
    }

    fn advance(&mut self, id: BindingId, branch: BranchId, step: Step, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&id) else { return };
        let Phase::Exchanging(exchange) = &binding.phase else { return };
        match step {
            Step::Wait => self.schedule.set((id, Timer::Exchange), exchange.poll_timeout()),
            Step::Send(request) => {
                self.by_branch.remove(&branch);
                self.by_branch.insert(exchange.branch, id);
                self.schedule.set((id, Timer::Exchange), exchange.poll_timeout());
                if binding.restricted && exchange.branch != branch {
                    self.events.push_back(Event::Unpaced(destination_of(&exchange.target)));
                }
                self.events.push_back(Event::Send(exchange.target.hop.clone(), request));
            }
            Step::Done(end) => {
                self.by_branch.remove(&branch);
                self.schedule.remove((id, Timer::Exchange));
                self.finish(id, end, desk, now);
            }
        }
    }
}
