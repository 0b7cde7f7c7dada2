//! One shard's engine: takes what one room says and hands it to the next. It routes; the rooms decide.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::audit::Cause;
use super::bindings::{self, Bindings};
use super::calls::{self, Calls};
use super::destinations::{self, Destinations};
use super::devices::Devices;
use super::edge::{self, Edge};
use super::erasures::{self, Erasures, Sentence};
use super::hand_over::HandOvers;
use super::ids::{InstanceId, ReplyTo, ShardId};
use super::input::{Input, PeerMessage, Recorded};
use super::leases::Leases;
use super::names::{self, Names};
use super::output::{Answer, Hop, Note, Output, PushOutcome, Unsent, WakeDetail, WakeKind};
use super::placement::Placement;
use super::policy::Policy;
use super::random::Random;
use super::register::Desk;
use super::route_token::Mint;
use super::tags::Tags;
use super::tally::{Census, Tally};
use super::wakes::{self, Wakes};
use crate::clock::{Instant, Now};
use crate::vault::Vault;

/// What an engine needs to start.
pub struct Start {
    /// Its number.
    pub shard: ShardId,
    /// The operator's decisions.
    pub policy: Arc<Policy>,
    /// Who owns what.
    pub placement: Placement,
    /// Seeds its generator (from the operating system; from the seed in a simulation).
    pub seed: [u8; 32],
}

/// Everything one shard knows and decides. Feed it, drain it, wait, repeat.
pub struct Engine {
    pub(super) shard: ShardId,
    pub(super) policy: Arc<Policy>,
    pub(super) random: Random,
    pub(super) vault: Vault,
    pub(super) tally: Tally,
    pub(super) tags: Tags,
    pub(super) leases: Leases,
    pub(super) bindings: Bindings,
    pub(super) destinations: Destinations,
    pub(super) devices: Devices,
    pub(super) names: Names,
    pub(super) edge: Edge,
    pub(super) calls: Calls,
    pub(super) wakes: Wakes,
    pub(super) erasures: Erasures,
    pub(super) hand_overs: HandOvers,
    pub(super) outputs: VecDeque<Effect>,
    pub(super) draining: Drain,
    pub(super) audit_writable: bool,
}

/// An output whose bytes are still its own.
pub(super) enum Effect {
    Send(Hop, Bytes),
    Other(Output),
}

/// How far a shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// Held calls may finish until then.
    Calls(Instant),
    /// Everything is being erased.
    Erasing,
    Done,
}

impl Engine {
    /// An empty engine.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let Start { shard, policy, placement, seed } = start;
        let mut random = Random::new(seed);
        let mint = Mint::new(shard, random.bytes());
        let tags = Tags::new(random.bytes());
        let erasures = Erasures::new(&policy.limits, placement.shards());
        Self {
            shard,
            edge: Edge::new(policy.domain.clone(), random.bytes()),
            calls: Calls::new(mint, &policy.limits, placement.shards()),
            destinations: Destinations::new(shard, placement.clone(), policy.registrars.rate),
            devices: Devices::new(shard, placement.clone(), policy.limits.instances_per_device),
            names: Names::new(shard, placement.clone()),
            policy,
            random,
            vault: Vault::new(),
            tally: Tally::default(),
            tags,
            leases: Leases::default(),
            bindings: Bindings::default(),
            wakes: Wakes::default(),
            erasures,
            hand_overs: HandOvers::new(placement.shards()),
            outputs: VecDeque::new(),
            draining: Drain::No,
            audit_writable: true,
        }
    }

    /// Takes one thing that happened.
    pub fn handle_input(&mut self, input: Input, now: Now) {
        match input {
            Input::Command(command, reply) => self.handle_command(command, reply, now),
            Input::Sip(message, arrival) => self.handle_message(message, &arrival, now),
            Input::FlowClosed(flow) => {
                self.edge.handle_flow_closed(flow);
                self.calls.handle_flow_closed(flow);
            }
            Input::TrunkDown(trunk, fault) => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_trunk_down(&trunk, fault, &mut desk, now.boot);
                let (erasures, mut desk) = self.for_erasures();
                erasures.handle_trunk_down(&trunk, &mut desk, now);
            }
            Input::Located(query, answer) => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_located(query, answer, &mut desk, now.boot);
            }
            Input::Pushed(wake, outcome) => self.handle_pushed(wake, outcome, now),
            Input::Recorded(record, Recorded { receipt, logged }) => {
                self.erasures.handle_recorded(record, Recorded { receipt, logged }, now.boot);
            }
            Input::Peer(from, message) => match message {
                PeerMessage::PermitsWanted { .. }
                | PeerMessage::PermitsGranted { .. }
                | PeerMessage::PermitUsed { .. } => {
                    self.destinations.handle_peer(from, &message, &mut self.random, now.boot);
                }
                PeerMessage::PlaceWanted { .. }
                | PeerMessage::PlaceAnswered { .. }
                | PeerMessage::PlaceReturned { .. } => self.devices.handle_peer(from, message),
                PeerMessage::NameBorne { .. } | PeerMessage::NameLaidDown { .. } => {
                    self.names.handle_peer(from, message);
                }
                PeerMessage::Called { binding, request } => self.handle_called(binding, *request, now),
            },
            Input::AuditWritable(writable) => self.audit_writable = writable,
            Input::Drain => {
                if self.draining == Drain::No {
                    self.draining = Drain::Calls(now.boot + self.policy.drain_calls);
                }
            }
        }
        self.settle(now);
    }

    /// Does what is due. The shell calls this at least once a second, so that leases end by the wall clock too.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(instance) = self.leases.pop_ended(now) {
            self.erase(instance, Cause::LeaseEnded, None, now);
        }
        self.destinations.handle_timeout(&mut self.random, now.boot);
        let (bindings, mut desk) = self.for_bindings();
        bindings.handle_timeout(&mut desk, now.boot);
        self.edge.handle_timeout(now.boot);
        let (calls, mut desk) = self.for_calls();
        calls.handle_timeout(&mut desk, now.boot);
        let (erasures, mut desk) = self.for_erasures();
        erasures.handle_timeout(&mut desk, now);
        self.handle_hand_over_timeouts(now);
        self.settle(now);
    }

    /// The next effect; bytes to send are appended to `bytes`, the output names their range.
    #[must_use]
    pub fn poll_output(&mut self, bytes: &mut Vec<u8>) -> Option<Output> {
        match self.outputs.pop_front()? {
            Effect::Send(hop, content) => {
                let start = bytes.len();
                bytes.extend_from_slice(&content);
                Some(Output::Send(hop, start..bytes.len()))
            }
            Effect::Other(output) => Some(output),
        }
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let drain = match self.draining {
            Drain::Calls(until) => Some(until),
            Drain::No | Drain::Erasing | Drain::Done => None,
        };
        [
            self.leases.poll_timeout(),
            self.destinations.poll_timeout(),
            self.bindings.poll_timeout(),
            self.edge.poll_timeout(),
            self.calls.poll_timeout(),
            self.erasures.poll_timeout(),
            self.hand_overs.poll_timeout(),
            drain,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Counts since the last take.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// What is held right now.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            instances: self.bindings.census(self.erasures.under_way()),
            flows: self.edge.len() as u64,
            held_calls: self.calls.held() as u64,
        }
    }

    /// How full each table is, by name: what a leak would show in.
    #[must_use]
    pub fn tables(&self) -> Vec<(&'static str, usize)> {
        let mut tables = vec![("vault", self.vault.len()), ("edge", self.edge.len())];
        self.leases.tables(&mut tables);
        self.bindings.tables(&mut tables);
        self.destinations.tables(&mut tables);
        self.calls.tables(&mut tables);
        self.wakes.tables(&mut tables);
        self.erasures.tables(&mut tables);
        self.hand_overs.tables(&mut tables);
        self.devices.tables(&mut tables);
        self.names.tables(&mut tables);
        tables
    }

    /// Erases an instance, by whatever trigger.
    pub(super) fn erase(&mut self, id: InstanceId, cause: Cause, reply: Option<ReplyTo>, now: Now) {
        self.wake_farewell(id, cause, now);
        let Some(instance) = self.leases.take(id) else { return };
        self.devices.give_back(&instance.tenant, &instance.device);
        let (calls, mut desk) = self.for_calls();
        calls.end_instance(id, &mut desk, now.boot);
        self.wakes.forget(id);
        if self.calls.has_dialogs(id) {
            self.edge.keep(id, now.boot + self.policy.limits.dialog_max);
        } else {
            self.edge.release(id);
        }
        self.abandon_hand_over(&instance, cause, now);
        self.erasures.forget_foreground(id);
        self.bury(instance, Sentence { cause, reply }, now);
    }

    /// Drains every room until none has anything left to say.
    fn settle(&mut self, now: Now) {
        while self.route_bindings(now)
            || self.route_destinations(now)
            || self.route_devices(now)
            || self.route_names()
            || self.route_edge(now)
            || self.route_calls(now)
            || self.route_erasures()
        {}
        while let Some(job) = self.wakes.poll_job() {
            self.emit(Output::Push(Box::new(job)));
        }
        self.advance_drain(now);
    }

    fn route_bindings(&mut self, now: Now) -> bool {
        use bindings::Event;
        let Some(event) = self.bindings.poll_event() else { return false };
        match event {
            Event::Locate(query, uri) => self.emit(Output::Locate(query, uri)),
            Event::Want(destination, binding) => {
                self.destinations.want(destination, binding, &mut self.random, now.boot);
            }
            Event::Withdraw(destination, binding) => self.destinations.withdraw(destination, binding),
            Event::Report(destination, outcome) => {
                self.destinations.report(destination, outcome, &mut self.random, now.boot);
            }
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Proven(address, span) => self.emit(Output::Proven(address, span)),
            Event::Changed(binding, state, code) => {
                for member in self.members_of(binding) {
                    self.emit(Output::Note(Note::Registration(member, state, code)));
                }
            }
            Event::Spoken(binding, spoken) => self.handle_spoken(binding, &spoken, now),
            Event::GiveUp(binding, cause) => {
                for member in self.members_of(binding) {
                    self.erase(member, cause, None, now);
                }
            }
            Event::Tried(binding, tried) => self.handle_tried(binding, tried, now),
            Event::Borne(binding, Some(at)) => self.names.bear(binding, at.user, at.address, at.trunk),
            Event::Borne(binding, None) => self.names.lay_down(binding),
        }
        true
    }

    fn route_destinations(&mut self, now: Now) -> bool {
        use destinations::Event;
        let Some(event) = self.destinations.poll_event() else { return false };
        match event {
            Event::Peer(shard, message) => self.emit(Output::Peer(shard, message)),
            Event::Permit { destination, binding, proven } => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_permit(binding, destination, proven, &mut desk, now.boot);
            }
        }
        true
    }

    fn route_names(&mut self) -> bool {
        let Some(names::Event::Peer(shard, message)) = self.names.poll_event() else { return false };
        self.emit(Output::Peer(shard, message));
        true
    }

    fn route_edge(&mut self, now: Now) -> bool {
        use edge::Event;
        let Some(event) = self.edge.poll_event() else { return false };
        match event {
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Attached(instance) => {
                let Some(device) = self.edge.device(instance).cloned() else { return true };
                let (calls, mut desk) = self.for_calls();
                calls.handle_attached(instance, &device, &mut desk, now.boot);
            }
            Event::Detached(instance) => {
                let (calls, mut desk) = self.for_calls();
                calls.handle_detached(instance, &mut desk, now.boot);
            }
            Event::Proven(address, span) => self.emit(Output::Proven(address, span)),
        }
        true
    }

    fn route_calls(&mut self, now: Now) -> bool {
        use calls::Event;
        let Some(event) = self.calls.poll_event() else { return false };
        match event {
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Wake(wanted) => self.send_call_wake(wanted, now),
            Event::Silent(instance) => self.edge.handle_silence(instance),
            Event::LastDialog(instance) if self.leases.get(instance).is_none() => self.edge.release(instance),
            Event::LastDialog(_) | Event::Step(..) => {}
            Event::Note(note) => self.emit(Output::Note(note)),
        }
        true
    }

    fn route_erasures(&mut self) -> bool {
        use erasures::Event;
        let Some(event) = self.erasures.poll_event() else { return false };
        match event {
            Event::Send(hop, bytes) => self.outputs.push_back(Effect::Send(hop, bytes)),
            Event::Record(job) => self.emit(Output::Record(job)),
            Event::Reply(reply, answer) => self.emit(Output::Reply(reply, answer)),
            Event::Note(note) => self.emit(Output::Note(note)),
        }
        true
    }

    fn send_call_wake(&mut self, wanted: calls::WakeWanted, now: Now) {
        if !self.calls.is_wanted(&wanted) {
            return;
        }
        let call_wake = wanted.kind == WakeKind::Call;
        let reason = wakes::Reason {
            kind: wanted.kind,
            call: Some(wanted.uuid),
            caller: wanted.caller,
            until: call_wake.then_some(wanted.until),
            detail: wanted.detail,
        };
        let attach = self.policy.attach_uri();
        let sent = match self.leases.get(wanted.instance) {
            Some(instance) => self.wakes.send(instance, reason, &attach, &self.policy.limits, now),
            None => Err(Unsent::NoTarget),
        };
        if call_wake {
            let (calls, mut desk) = self.for_calls();
            calls.handle_wake_sent(wanted.call, wanted.instance, sent, &mut desk, now.boot);
        }
    }

    /// A device whose instance ends by itself, not by its own wish, is told to hand over again.
    fn wake_farewell(&mut self, id: InstanceId, cause: Cause, now: Now) {
        let told = match cause {
            Cause::LeaseEnded | Cause::Refused | Cause::Unregistrable | Cause::Shutdown => true,
            Cause::Deleted | Cause::DeadToken | Cause::Administrator | Cause::OffBoarded | Cause::Foreground => false,
        };
        // An app whose hand-over is still unanswered is told by the answer.
        if !told || self.hand_overs.is_waiting(id) {
            return;
        }
        let reason = wakes::Reason {
            kind: WakeKind::Reprovision,
            call: None,
            caller: None,
            until: None,
            detail: WakeDetail::None,
        };
        let attach = self.policy.attach_uri();
        if let Some(instance) = self.leases.get(id) {
            // No target for it is no fault: the app finds out when it asks.
            let _ = self.wakes.send(instance, reason, &attach, &self.policy.limits, now);
        }
    }

    fn handle_pushed(&mut self, wake: super::ids::WakeId, outcome: PushOutcome, now: Now) {
        let Some(verdict) = self.wakes.handle_outcome(wake, outcome) else { return };
        if verdict.kind == WakeKind::Call {
            let (calls, mut desk) = self.for_calls();
            calls.handle_wake_outcome(wake, taken(&verdict.outcome), &mut desk, now.boot);
        }
        match verdict.outcome {
            PushOutcome::TokenDead { since } => {
                let known_since = self.leases.get(verdict.instance).map(|instance| instance.push_since);
                let news = known_since.is_some_and(|known| since.unwrap_or(verdict.sent_at) >= known);
                if news {
                    self.erase(verdict.instance, Cause::DeadToken, None, now);
                }
            }
            PushOutcome::OurFault(reason) => {
                self.emit(Output::Note(Note::PushMisconfigured(verdict.provider, reason)));
            }
            PushOutcome::Accepted | PushOutcome::Theirs(_) | PushOutcome::Later { .. } | PushOutcome::NotSent => {}
        }
    }

    /// Goes on with a shutdown: calls first, then every instance, then the end.
    fn advance_drain(&mut self, now: Now) {
        if let Drain::Calls(until) = self.draining
            && (self.calls.held() == 0 || until <= now.boot)
        {
            self.draining = Drain::Erasing;
            for instance in self.leases.all() {
                self.erase(instance, Cause::Shutdown, None, now);
            }
            self.settle(now);
        } else if self.draining == Drain::Erasing && self.erasures.under_way() == 0 && self.wakes.is_idle() {
            self.draining = Drain::Done;
            self.emit(Output::Drained);
        }
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.outputs.push_back(Effect::Other(output));
    }

    pub(super) fn reply(&mut self, reply: ReplyTo, answer: Answer) {
        self.emit(Output::Reply(reply, Box::new(answer)));
    }

    pub(super) fn for_bindings(&mut self) -> (&mut Bindings, Desk<'_>) {
        let (bindings, _, desk) = self.at_registrars();
        (bindings, desk)
    }

    pub(super) fn for_erasures(&mut self) -> (&mut Erasures, Desk<'_>) {
        let (_, erasures, desk) = self.at_registrars();
        (erasures, desk)
    }

    fn at_registrars(&mut self) -> (&mut Bindings, &mut Erasures, Desk<'_>) {
        let Self { shard, policy, random, vault, tally, bindings, erasures, .. } = self;
        (bindings, erasures, Desk { shard: *shard, policy, random, vault, tally })
    }

    pub(super) fn for_calls(&mut self) -> (&mut Calls, calls::Desk<'_>) {
        let Self { shard, policy, random, tally, tags, calls, .. } = self;
        (calls, calls::Desk { shard: *shard, policy, random, tally, tags })
    }
}

/// Whether a provider took a push, and if not, why, in the words of a call's story.
fn taken(outcome: &PushOutcome) -> Result<(), &'static str> {
    match outcome {
        PushOutcome::Accepted => Ok(()),
        PushOutcome::TokenDead { .. } => Err("token-dead"),
        PushOutcome::OurFault(_) => Err("misconfigured"),
        PushOutcome::Theirs(_) => Err("provider-failed"),
        PushOutcome::Later { .. } => Err("provider-busy"),
        PushOutcome::NotSent => Err("not-sent"),
    }
}
