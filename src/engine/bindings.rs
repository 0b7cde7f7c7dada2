//! Bindings: keeping each instance registered at its registrar, for the whole lease.
//!
//! A binding is located, asks for a permit, registers, rests until its refresh, and backs off when refused. It decides
//! when to register and when to give up; how a challenge is answered is `register`'s, how fast a destination may be
//! asked is `destinations`'. It never removes a registration: that is `erasures`'.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::{HashMap, HashSet};
use bytes::Bytes;

use super::account::{Account, TrunkHost, TrunkUri};
use super::audit::Cause;
use super::destinations::backoff;
use super::filter::address_allowed;
use super::ids::{BranchId, Capability, InstanceId, QueryId};
use super::input::{LocateFault, Located, PermitOutcome, TrunkFault};
use super::output::{DestinationKey, Hop, RegistrationState, RegistrationView, TlsIdentity, TrunkKey};
use super::policy::Policy;
use super::random::Random;
use super::register::{Desk, End, Exchange, Identity, Step, Target, Terms};
use super::schedule::Schedule;
use super::tally::{RegisterOutcome, Tally};
use crate::clock::Instant;
use crate::sip::{Message, Transport};
use crate::vault::CredentialId;

/// Refusals at hand-over: after two the password is wrong.
const REFUSALS_AT_HAND_OVER: u8 = 2;
/// Refusals of a binding that once worked (a PBX in reload challenges everyone), over at least `REFUSAL_SPAN`.
const REFUSALS_LATER: u8 = 3;
const REFUSAL_SPAN: Duration = Duration::from_secs(3600);
/// Pause after a refusal of a binding that once worked; two of them are longer than `REFUSAL_SPAN`.
const REFUSAL_PAUSE: Duration = Duration::from_secs(1801);
/// Exchanges a hand-over may spend on destinations that never answered.
const UNPROVEN_ATTEMPTS_MAX: u8 = 3;
/// Datagrams of one request to a destination that never answered.
const UNPROVEN_DATAGRAMS_MAX: u8 = 3;
/// An instance that is not registered for so long is erased.
const UNREGISTERED_MAX: Duration = Duration::from_secs(12 * 3600);
/// Addresses of one trunk that are tried.
const TARGETS_MAX: usize = 8;

/// What this room asks of the engine.
pub(crate) enum Event {
    Locate(QueryId, TrunkUri),
    Want(DestinationKey, InstanceId),
    Withdraw(DestinationKey, InstanceId),
    Report(DestinationKey, PermitOutcome),
    Send(Hop, Bytes),
    /// The address answered us validly; it is a registrar for this long.
    Proven(IpAddr, Duration),
    /// The state changed, with the code that changed it.
    Changed(InstanceId, RegistrationState, Option<u16>),
    /// What a hand-over waits for.
    Spoken(InstanceId, Spoken),
    /// Keeping it is hopeless.
    GiveUp(InstanceId, Cause),
    /// How a trial of other credentials ended.
    Tried(InstanceId, Tried),
}

/// What a hand-over waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// Registered, or refused for another reason than the credentials.
    Verdict,
    /// The credentials are refused, in the registrar's words.
    Refused(String),
    /// DNS, connect, TLS or the filter stand in the way.
    Unreachable,
}

/// How a trial of other credentials ended.
pub(crate) enum Tried {
    /// They registered; the former ones come back to be wiped.
    Accepted(CredentialId),
    /// They did not, in the registrar's words; they come back to be wiped.
    Refused(CredentialId, String),
    /// Nobody answered; they come back to be wiped.
    Unreachable(CredentialId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    Exchange,
    Trial,
    Next,
    GiveUp,
}

/// One registration we keep.
pub(crate) struct Binding {
    pub(crate) identity: Identity,
    pub(crate) target: Option<Target>,
    /// The registrar may hold our Contact.
    pub(crate) maybe_bound: bool,
    next_hop: TrunkUri,
    spki_sha256: Option<[u8; 32]>,
    register_expires: Duration,
    lease_ends: Instant,
    candidates: VecDeque<Target>,
    sources: HashSet<IpAddr>,
    former_sources: HashSet<IpAddr>,
    phase: Phase,
    permit_proven: bool,
    registered_until: Option<Instant>,
    granted: Option<Duration>,
    verdict: Option<String>,
    spoken: bool,
    ever_registered: bool,
    unproven_attempts: u8,
    backoff_step: u32,
    refusals: u8,
    first_refusal: Option<Instant>,
    trial: Option<Trial>,
    /// As what the census counts it.
    counted: RegistrationState,
}

enum Phase {
    Locating(QueryId),
    Waiting(DestinationKey),
    Exchanging(Exchange),
    /// Until the refresh, or the end of a back-off.
    Resting,
}

struct Trial {
    twin: Identity,
    exchange: Option<Exchange>,
}

/// The room.
#[derive(Default)]
pub(crate) struct Bindings {
    bindings: HashMap<InstanceId, Binding>,
    by_branch: HashMap<BranchId, InstanceId>,
    by_query: HashMap<QueryId, InstanceId>,
    by_trunk: HashMap<Arc<TrunkKey>, std::collections::BTreeSet<InstanceId>>,
    schedule: Schedule<(InstanceId, Timer)>,
    events: VecDeque<Event>,
    queries: u64,
    census: [u64; RegistrationState::ALL.len()],
}

impl Bindings {
    /// Begins to keep `account` registered.
    pub(crate) fn open(
        &mut self,
        instance: InstanceId,
        capability: Capability,
        credential: CredentialId,
        account: &Account,
        lease_ends: Instant,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let identity = Identity::new(instance, capability, credential, account, desk.random);
        let binding = Binding {
            identity,
            target: None,
            maybe_bound: false,
            next_hop: account.outbound_proxy.clone().unwrap_or_else(|| account.registrar.clone()),
            spki_sha256: account.tls_spki_sha256,
            register_expires: account.register_expires,
            lease_ends,
            candidates: VecDeque::new(),
            sources: HashSet::default(),
            former_sources: HashSet::default(),
            phase: Phase::Resting,
            permit_proven: false,
            registered_until: None,
            granted: None,
            verdict: None,
            spoken: false,
            ever_registered: false,
            unproven_attempts: 0,
            backoff_step: 0,
            refusals: 0,
            first_refusal: None,
            trial: None,
            counted: RegistrationState::Registering,
        };
        self.census[RegistrationState::Registering as usize] += 1;
        self.bindings.insert(instance, binding);
        self.schedule.set((instance, Timer::GiveUp), Some(now + UNREGISTERED_MAX));
        self.locate(instance);
    }

    /// The lease ends at another time, or another expiry is wanted, from the next REGISTER on.
    pub(crate) fn adjust(&mut self, instance: InstanceId, register_expires: Duration, lease_ends: Instant) {
        if let Some(binding) = self.bindings.get_mut(&instance) {
            binding.register_expires = register_expires;
            binding.lease_ends = lease_ends;
        }
    }

    /// The account is reached another way from now on: located anew, registered there with the same Contact.
    pub(crate) fn redirect(&mut self, instance: InstanceId, account: &Account) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.next_hop = account.outbound_proxy.clone().unwrap_or_else(|| account.registrar.clone());
        binding.spki_sha256 = account.tls_spki_sha256;
        if matches!(binding.phase, Phase::Resting) {
            self.locate(instance);
        }
    }

    /// Tries other credentials on the same Contact and Call-ID; `Event::Tried` follows, also when the binding goes.
    pub(crate) fn try_credential(&mut self, instance: InstanceId, credential: CredentialId, username: &str) {
        let Some(binding) = self.bindings.get_mut(&instance) else {
            self.events.push_back(Event::Tried(instance, Tried::Unreachable(credential)));
            return;
        };
        let (Some(target), None) = (&binding.target, &binding.trial) else {
            self.events.push_back(Event::Tried(instance, Tried::Unreachable(credential)));
            return;
        };
        let twin = binding.identity.with_credential(credential, username);
        self.events.push_back(Event::Want(destination_of(target), instance));
        binding.trial = Some(Trial { twin, exchange: None });
    }

    /// Gives up a trial, if one is under way.
    pub(crate) fn end_trial(&mut self, instance: InstanceId) {
        let Some(trial) = self.bindings.get_mut(&instance).and_then(|binding| binding.trial.take()) else { return };
        self.drop_trial(instance, trial);
    }

    /// The resolver's answer.
    pub(crate) fn handle_located(
        &mut self,
        query: QueryId,
        answer: Result<Vec<Located>, LocateFault>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(instance) = self.by_query.remove(&query) else { return };
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let found = answer.unwrap_or_default();
        let targets: VecDeque<Target> = found
            .into_iter()
            .filter(|located| address_allowed(desk.policy, located.address))
            .filter_map(|located| binding.target_at(located, desk.policy))
            .take(TARGETS_MAX)
            .collect();
        binding.former_sources = std::mem::take(&mut binding.sources);
        binding.sources = targets.iter().map(|target| target.address.ip()).collect();
        binding.candidates = targets;
        binding.phase = Phase::Resting;
        self.next_target(instance, desk, now);
    }

    /// The instance may send one exchange.
    pub(crate) fn handle_permit(
        &mut self,
        instance: InstanceId,
        destination: DestinationKey,
        proven: bool,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let Some(binding) = self.bindings.get_mut(&instance) else {
            self.events.push_back(Event::Report(destination, PermitOutcome::Unused));
            return;
        };
        binding.permit_proven = proven;
        let wanted = binding.target.clone().filter(|target| destination_of(target) == destination);
        match (wanted, &binding.phase) {
            (Some(target), Phase::Waiting(waiting)) if *waiting == destination => {
                self.start_exchange(instance, target, desk, now);
            }
            (Some(target), _) if binding.trial.as_ref().is_some_and(|trial| trial.exchange.is_none()) => {
                self.start_trial(instance, target, desk, now);
            }
            _ => self.events.push_back(Event::Report(destination, PermitOutcome::Unused)),
        }
    }

    /// A response whose branch may be ours. `false`: it is not.
    pub(crate) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        desk: &mut Desk<'_>,
        tally: &mut Tally,
        now: Instant,
    ) -> bool {
        let Some(&instance) = self.by_branch.get(&branch) else { return false };
        let Some(binding) = self.bindings.get_mut(&instance) else { return false };
        if let Phase::Exchanging(exchange) = &mut binding.phase
            && exchange.branch == branch
        {
            if response.status().is_some_and(|status| matches!(status.code(), 401 | 407 | 423)) {
                tally.register(RegisterOutcome::Challenged);
                // A registrar that challenges may also have bound us by the time the answer is lost.
                binding.maybe_bound = true;
            }
            let step = exchange.handle_response(response, &mut binding.identity, desk, now);
            self.advance(instance, branch, step, desk, tally, now);
        } else if let Some(Trial { twin, exchange: Some(exchange) }) = &mut binding.trial
            && exchange.branch == branch
        {
            twin.catch_up(&binding.identity);
            let step = exchange.handle_response(response, twin, desk, now);
            binding.identity.catch_up(twin);
            self.advance_trial(instance, branch, step, desk, now);
        }
        true
    }

    /// A trunk connection could not be opened, or is gone.
    pub(crate) fn handle_trunk_down(
        &mut self,
        trunk: &Arc<TrunkKey>,
        fault: TrunkFault,
        desk: &mut Desk<'_>,
        tally: &mut Tally,
        now: Instant,
    ) {
        let users: Vec<InstanceId> =
            self.by_trunk.get(trunk).map(|users| users.iter().copied().collect()).unwrap_or_default();
        for instance in users {
            let Some(binding) = self.bindings.get_mut(&instance) else { continue };
            if let Some(Trial { exchange: Some(_), .. }) = &binding.trial {
                self.finish_trial(instance, End::Silent, desk, now);
            }
            let Some(binding) = self.bindings.get_mut(&instance) else { continue };
            match &binding.phase {
                Phase::Exchanging(exchange) => {
                    let branch = exchange.branch;
                    // An idle connection that broke under a refresh says nothing about the registrar: once more at once.
                    if fault == TrunkFault::Closed && binding.registered_until.is_some_and(|until| until > now) {
                        self.by_branch.remove(&branch);
                        self.report_current(instance, PermitOutcome::Unused);
                        self.register_again(instance);
                    } else {
                        self.advance(instance, branch, Step::Done(End::Silent), desk, tally, now);
                    }
                }
                Phase::Resting if binding.registered_until.is_some() && fault == TrunkFault::Closed => {
                    self.register_again(instance);
                }
                Phase::Resting | Phase::Locating(_) | Phase::Waiting(_) => {}
            }
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, desk: &mut Desk<'_>, tally: &mut Tally, now: Instant) {
        while let Some((instance, timer)) = self.schedule.pop_due(now) {
            let Some(binding) = self.bindings.get_mut(&instance) else { continue };
            match timer {
                Timer::Exchange => {
                    let Phase::Exchanging(exchange) = &mut binding.phase else { continue };
                    let branch = exchange.branch;
                    let step = exchange.handle_timeout(now);
                    self.advance(instance, branch, step, desk, tally, now);
                }
                Timer::Trial => {
                    let Some(Trial { exchange: Some(exchange), .. }) = &mut binding.trial else { continue };
                    let branch = exchange.branch;
                    let step = exchange.handle_timeout(now);
                    self.advance_trial(instance, branch, step, desk, now);
                }
                Timer::Next => {
                    if binding.registered_until.is_none_or(|until| until <= now) && binding.ever_registered {
                        self.locate(instance);
                    } else if binding.target.is_some() {
                        self.register_again(instance);
                    } else {
                        self.locate(instance);
                    }
                }
                Timer::GiveUp => self.events.push_back(Event::GiveUp(instance, Cause::Unregistrable)),
            }
        }
    }

    /// Takes a binding out, by value: it will never register again.
    pub(crate) fn take(&mut self, instance: InstanceId) -> Option<Binding> {
        let mut binding = self.bindings.remove(&instance)?;
        self.census[binding.counted as usize] -= 1;
        for timer in [Timer::Exchange, Timer::Trial, Timer::Next, Timer::GiveUp] {
            self.schedule.remove((instance, timer));
        }
        if let Some(trial) = binding.trial.take() {
            self.drop_trial(instance, trial);
        }
        match &binding.phase {
            Phase::Exchanging(exchange) => {
                self.by_branch.remove(&exchange.branch);
                let destination = destination_of(&exchange.target);
                self.events.push_back(Event::Report(destination, PermitOutcome::Unused));
            }
            Phase::Waiting(destination) => self.events.push_back(Event::Withdraw(*destination, instance)),
            Phase::Locating(query) => {
                self.by_query.remove(query);
            }
            Phase::Resting => {}
        }
        self.unlink_trunk(instance, binding.target.as_ref());
        Some(binding)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("bindings", self.bindings.len()),
            ("bindings.branches", self.by_branch.len()),
            ("bindings.queries", self.by_query.len()),
            ("bindings.trunks", self.by_trunk.len()),
        ]);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How many bindings are in which state, by `RegistrationState::ALL`; `erasing` are elsewhere already.
    pub(crate) fn census(&self, erasing: usize) -> [u64; RegistrationState::ALL.len()] {
        let mut census = self.census;
        census[RegistrationState::Erasing as usize] = erasing as u64;
        census
    }

    /// The credential of an instance, for comparing.
    pub(crate) fn credential(&self, instance: InstanceId) -> Option<&CredentialId> {
        self.bindings.get(&instance).map(|binding| &binding.identity.credential)
    }

    /// The registration as the app may know it.
    pub(crate) fn view(&self, instance: InstanceId, now: Instant) -> RegistrationView {
        let Some(binding) = self.bindings.get(&instance) else {
            return RegistrationView { state: RegistrationState::Erasing, expires: None, verdict: None };
        };
        let state = binding.state(now);
        RegistrationView {
            state,
            expires: binding.granted.filter(|_| state == RegistrationState::Registered),
            verdict: binding.verdict.clone(),
        }
    }

    /// Whether the address is one the registrar or its proxy resolved to (now, or one expiry ago).
    pub(crate) fn is_source(&self, instance: InstanceId, address: IpAddr) -> bool {
        self.bindings.get(&instance).is_some_and(|binding| {
            binding.sources.contains(&address)
                || binding.former_sources.contains(&address)
                || binding.target.as_ref().is_some_and(|target| target.address.ip() == address)
        })
    }

    /// The trunk a binding is registered over, for dialogs whose own connection is gone.
    pub(crate) fn trunk(&self, instance: InstanceId) -> Option<&Target> {
        self.bindings.get(&instance)?.target.as_ref()
    }

    fn locate(&mut self, instance: InstanceId) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        self.queries += 1;
        let query = QueryId(self.queries);
        binding.phase = Phase::Locating(query);
        self.by_query.insert(query, instance);
        self.events.push_back(Event::Locate(query, binding.next_hop.clone()));
    }

    /// Goes on with the next address, or fails when there is none.
    fn next_target(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let former = binding.target.take();
        let next = binding.candidates.pop_front();
        binding.target.clone_from(&next);
        if !binding.ever_registered {
            binding.identity.forget_contact();
        }
        self.unlink_trunk(instance, former.as_ref());
        match next {
            Some(target) => {
                if let Hop::Trunk(key) = &target.hop {
                    self.by_trunk.entry(Arc::clone(key)).or_default().insert(instance);
                }
                self.register_again(instance);
            }
            None => self.unreachable(instance, desk, now),
        }
    }

    fn unlink_trunk(&mut self, instance: InstanceId, target: Option<&Target>) {
        let Some(Hop::Trunk(key)) = target.map(|target| &target.hop) else { return };
        if let Some(users) = self.by_trunk.get_mut(key) {
            users.remove(&instance);
            if users.is_empty() {
                self.by_trunk.remove(key);
            }
        }
    }

    fn register_again(&mut self, instance: InstanceId) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let Some(target) = &binding.target else { return };
        let destination = destination_of(target);
        binding.phase = Phase::Waiting(destination);
        self.schedule.remove((instance, Timer::Next));
        self.schedule.remove((instance, Timer::Exchange));
        self.events.push_back(Event::Want(destination, instance));
    }

    fn start_exchange(&mut self, instance: InstanceId, target: Target, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let terms = binding.terms(now);
        let hop = target.hop.clone();
        let (exchange, request) = Exchange::start(&mut binding.identity, target, terms, desk, now);
        self.by_branch.insert(exchange.branch, instance);
        self.schedule.set((instance, Timer::Exchange), exchange.poll_timeout());
        binding.phase = Phase::Exchanging(exchange);
        self.events.push_back(Event::Send(hop, request));
    }

    fn start_trial(&mut self, instance: InstanceId, target: Target, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let mut terms = binding.terms(now);
        terms.refusals_max = REFUSALS_AT_HAND_OVER;
        let Some(trial) = &mut binding.trial else { return };
        trial.twin.catch_up(&binding.identity);
        let hop = target.hop.clone();
        let (exchange, request) = Exchange::start(&mut trial.twin, target, terms, desk, now);
        binding.identity.catch_up(&trial.twin);
        self.by_branch.insert(exchange.branch, instance);
        self.schedule.set((instance, Timer::Trial), exchange.poll_timeout());
        trial.exchange = Some(exchange);
        self.events.push_back(Event::Send(hop, request));
    }

    fn advance(
        &mut self,
        instance: InstanceId,
        branch: BranchId,
        step: Step,
        desk: &mut Desk<'_>,
        tally: &mut Tally,
        now: Instant,
    ) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let Phase::Exchanging(exchange) = &binding.phase else { return };
        match step {
            Step::Wait => self.schedule.set((instance, Timer::Exchange), exchange.poll_timeout()),
            Step::Send(request) => {
                self.by_branch.remove(&branch);
                self.by_branch.insert(exchange.branch, instance);
                self.schedule.set((instance, Timer::Exchange), exchange.poll_timeout());
                self.events.push_back(Event::Send(exchange.target.hop.clone(), request));
            }
            Step::Done(end) => {
                self.by_branch.remove(&branch);
                self.schedule.remove((instance, Timer::Exchange));
                self.finish(instance, end, desk, tally, now);
            }
        }
    }

    fn finish(&mut self, instance: InstanceId, end: End, desk: &mut Desk<'_>, tally: &mut Tally, now: Instant) {
        self.conclude(instance, end, desk, tally, now);
        self.recount(instance, now);
    }

    fn recount(&mut self, instance: InstanceId, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let present = binding.state(now);
        let former = std::mem::replace(&mut binding.counted, present);
        self.census[former as usize] -= 1;
        self.census[present as usize] += 1;
    }

    fn conclude(&mut self, instance: InstanceId, end: End, desk: &mut Desk<'_>, tally: &mut Tally, now: Instant) {
        match end {
            End::Granted { expires, verdict } => {
                tally.register(RegisterOutcome::Granted);
                self.granted(instance, expires, verdict, desk, now);
            }
            End::Refused { verdict } => {
                tally.register(RegisterOutcome::Refused);
                self.refused(instance, verdict, desk, now);
            }
            End::Failed { code, verdict, retry_after } => {
                tally.register(RegisterOutcome::Failed);
                self.failed(instance, code, verdict, retry_after, desk, now);
            }
            End::Silent => {
                tally.register(RegisterOutcome::Silent);
                self.silent(instance, desk, now);
            }
        }
    }

    fn granted(&mut self, instance: InstanceId, expires: Duration, verdict: String, desk: &mut Desk<'_>, now: Instant) {
        self.report_current(instance, PermitOutcome::Answered);
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.identity.distill(desk.vault);
        binding.phase = Phase::Resting;
        binding.maybe_bound = true;
        binding.registered_until = Some(now + expires);
        binding.granted = Some(expires);
        binding.verdict = Some(verdict);
        binding.backoff_step = 0;
        binding.refusals = 0;
        binding.first_refusal = None;
        let first = !std::mem::replace(&mut binding.ever_registered, true);
        binding.spoken = true;
        if let Some(target) = &binding.target {
            self.events.push_back(Event::Proven(target.address.ip(), expires));
        }
        let refresh = refresh_after(expires, desk.random);
        self.schedule.set((instance, Timer::Next), Some(now + refresh));
        self.schedule.set((instance, Timer::GiveUp), Some(now + expires + UNREGISTERED_MAX));
        if first {
            self.events.push_back(Event::Changed(instance, RegistrationState::Registered, Some(200)));
        }
        self.events.push_back(Event::Spoken(instance, Spoken::Verdict));
    }

    fn refused(&mut self, instance: InstanceId, verdict: String, desk: &mut Desk<'_>, now: Instant) {
        self.report_current(instance, PermitOutcome::Answered);
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.phase = Phase::Resting;
        binding.spoken = true;
        binding.verdict = Some(verdict.clone());
        if !binding.ever_registered {
            binding.maybe_bound = false;
            self.events.push_back(Event::Spoken(instance, Spoken::Refused(verdict)));
            return;
        }
        binding.refusals += 1;
        let first = *binding.first_refusal.get_or_insert(now);
        if binding.refusals >= REFUSALS_LATER && now.saturating_since(first) >= REFUSAL_SPAN {
            self.events.push_back(Event::GiveUp(instance, Cause::Refused));
            return;
        }
        let pause = desk.random.jitter(REFUSAL_PAUSE, 100, 110);
        self.schedule.set((instance, Timer::Next), Some(now + pause));
        self.events.push_back(Event::Changed(instance, RegistrationState::Failing, Some(401)));
    }

    fn failed(
        &mut self,
        instance: InstanceId,
        code: u16,
        verdict: String,
        retry_after: Option<Duration>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) {
        let outcome = match retry_after {
            Some(span) if matches!(code, 500 | 503) => PermitOutcome::RetryAfter(span),
            _ => PermitOutcome::Answered,
        };
        self.report_current(instance, outcome);
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.phase = Phase::Resting;
        binding.spoken = true;
        binding.verdict = Some(verdict);
        let pause = backoff(binding.backoff_step, desk.random).max(retry_after.unwrap_or_default());
        binding.backoff_step += 1;
        self.schedule.set((instance, Timer::Next), Some(now + pause));
        self.events.push_back(Event::Changed(instance, RegistrationState::Failing, Some(code)));
        self.events.push_back(Event::Spoken(instance, Spoken::Verdict));
    }

    fn silent(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        self.report_current(instance, PermitOutcome::Silent);
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.phase = Phase::Resting;
        if !binding.permit_proven && !binding.ever_registered {
            binding.unproven_attempts += 1;
            if binding.unproven_attempts >= UNPROVEN_ATTEMPTS_MAX {
                self.events.push_back(Event::GiveUp(instance, Cause::Unregistrable));
                return;
            }
        }
        self.next_target(instance, desk, now);
    }

    /// No address is left: say so, and look again after a pause.
    fn unreachable(&mut self, instance: InstanceId, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        binding.phase = Phase::Resting;
        binding.verdict = Some("the registrar cannot be reached".to_owned());
        let pause = backoff(binding.backoff_step, desk.random);
        binding.backoff_step += 1;
        self.schedule.set((instance, Timer::Next), Some(now + pause));
        self.events.push_back(Event::Changed(instance, RegistrationState::Failing, None));
        self.events.push_back(Event::Spoken(instance, Spoken::Unreachable));
        self.recount(instance, now);
    }

    fn report_current(&mut self, instance: InstanceId, outcome: PermitOutcome) {
        if let Some(target) = self.bindings.get(&instance).and_then(|binding| binding.target.as_ref()) {
            self.events.push_back(Event::Report(destination_of(target), outcome));
        }
    }

    fn advance_trial(&mut self, instance: InstanceId, branch: BranchId, step: Step, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let Some(Trial { exchange: Some(exchange), .. }) = &binding.trial else { return };
        match step {
            Step::Wait => self.schedule.set((instance, Timer::Trial), exchange.poll_timeout()),
            Step::Send(request) => {
                self.by_branch.remove(&branch);
                self.by_branch.insert(exchange.branch, instance);
                self.schedule.set((instance, Timer::Trial), exchange.poll_timeout());
                self.events.push_back(Event::Send(exchange.target.hop.clone(), request));
            }
            Step::Done(end) => self.finish_trial(instance, end, desk, now),
        }
    }

    fn finish_trial(&mut self, instance: InstanceId, end: End, desk: &mut Desk<'_>, now: Instant) {
        let Some(binding) = self.bindings.get_mut(&instance) else { return };
        let Some(mut trial) = binding.trial.take() else { return };
        self.schedule.remove((instance, Timer::Trial));
        if let Some(exchange) = &trial.exchange {
            self.by_branch.remove(&exchange.branch);
            let outcome = match end {
                End::Silent => Some(PermitOutcome::Silent),
                End::Refused { .. } | End::Failed { .. } => Some(PermitOutcome::Answered),
                // `granted` reports for both.
                End::Granted { .. } => None,
            };
            let destination = destination_of(&exchange.target);
            self.events.extend(outcome.map(|outcome| Event::Report(destination, outcome)));
        }
        let tried = match end {
            End::Granted { expires, verdict } => {
                std::mem::swap(&mut binding.identity, &mut trial.twin);
                // What the former credentials have under way must not answer for the new ones.
                if let Phase::Exchanging(exchange) = &binding.phase {
                    self.by_branch.remove(&exchange.branch);
                    self.schedule.remove((instance, Timer::Exchange));
                    let destination = destination_of(&exchange.target);
                    self.events.push_back(Event::Report(destination, PermitOutcome::Unused));
                }
                self.granted(instance, expires, verdict, desk, now);
                Tried::Accepted(trial.twin.credential)
            }
            End::Refused { verdict } | End::Failed { verdict, .. } => Tried::Refused(trial.twin.credential, verdict),
            End::Silent => Tried::Unreachable(trial.twin.credential),
        };
        self.events.push_back(Event::Tried(instance, tried));
    }

    fn drop_trial(&mut self, instance: InstanceId, trial: Trial) {
        self.schedule.remove((instance, Timer::Trial));
        if let Some(exchange) = &trial.exchange {
            self.by_branch.remove(&exchange.branch);
            self.events.push_back(Event::Report(destination_of(&exchange.target), PermitOutcome::Unused));
        }
        self.events.push_back(Event::Tried(instance, Tried::Unreachable(trial.twin.credential)));
    }
}

impl Binding {
    /// Where the registration stands.
    pub(crate) fn state(&self, now: Instant) -> RegistrationState {
        if self.registered_until.is_some_and(|until| until > now) {
            RegistrationState::Registered
        } else if self.spoken || self.verdict.is_some() {
            RegistrationState::Failing
        } else {
            RegistrationState::Registering
        }
    }

    fn terms(&self, now: Instant) -> Terms {
        let remaining = self.lease_ends.saturating_since(now);
        Terms {
            expires: self.register_expires.min(remaining).max(Duration::from_secs(1)),
            expires_max: remaining,
            refusals_max: if self.ever_registered { 1 } else { REFUSALS_AT_HAND_OVER },
            datagrams_max: (!self.permit_proven && !self.ever_registered).then_some(UNPROVEN_DATAGRAMS_MAX),
        }
    }

    fn target_at(&self, located: Located, policy: &Policy) -> Option<Target> {
        let Located { transport, address } = located;
        let listener = policy.trunk_listener(transport, address.is_ipv6())?;
        let hop = match transport {
            Transport::Udp => {
                let own = policy.listener(listener)?;
                if own.transport != Transport::Udp || own.local.is_ipv6() != address.is_ipv6() {
                    return None;
                }
                Hop::Datagram { listener, peer: address }
            }
            Transport::Tcp => Hop::Trunk(Arc::new(TrunkKey { transport, remote: address, listener, identity: None })),
            Transport::Tls => {
                let host = match &self.next_hop.host {
                    TrunkHost::Name(name) => name.clone(),
                    TrunkHost::Address(literal) => literal.to_string(),
                };
                let identity = Some(TlsIdentity { host, spki_sha256: self.spki_sha256 });
                Hop::Trunk(Arc::new(TrunkKey { transport, remote: address, listener, identity }))
            }
            Transport::Ws | Transport::Wss => return None,
        };
        Some(Target { hop, transport, listener, address })
    }
}

/// When to refresh: at three quarters to nine tenths of the granted expiry, but at least a second before its end, since
/// registrars count whole seconds; a very short one at half.
fn refresh_after(expires: Duration, random: &mut Random) -> Duration {
    if expires <= Duration::from_secs(10) {
        return expires / 2;
    }
    random.jitter(expires, 75, 90).min(expires.saturating_sub(Duration::from_secs(1)))
}

fn destination_of(target: &Target) -> DestinationKey {
    DestinationKey { transport: target.transport, address: target.address }
}
