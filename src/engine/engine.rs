//! One shard's engine: takes what one room says and hands it to the next. It routes; the rooms decide.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::audit::Cause;
use super::bindings::Bindings;
use super::calls::{self, Calls};
use super::destinations::Destinations;
use super::edge::Edge;
use super::endings::Endings;
use super::erasures::{Erasures, Sentence};
use super::guesses::Guesses;
use super::hand_over::HandOvers;
use super::ids::{InstanceId, ReplyTo, ShardId};
use super::input::{Input, PeerMessage, Recorded};
use super::leases::Leases;
use super::limits::share;
use super::mailboxes::Mailboxes;
use super::names::Names;
use super::orders::Orders;
use super::output::{Answer, Hop, Note, Output, WakeDetail, WakeKind};
use super::pass::Pass;
use super::placement::Placement;
use super::places::Places;
use super::policy::Policy;
use super::proofs::Proofs;
use super::random::Random;
use super::register::Desk;
use super::route_token::Mint;
use super::stories::{self, Stories};
use super::tags::Tags;
use super::tally::{Census, Tally};
use super::texts::Texts;
use super::traces::Traces;
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
    /// Where credentials will lie: empty.
    pub vault: Vault,
}

/// Everything one shard knows and decides. Feed it, drain it, wait, repeat.
pub struct Engine {
    pub(super) shard: ShardId,
    pub(super) policy: Arc<Policy>,
    pub(super) placement: Placement,
    pub(super) random: Random,
    pub(super) vault: Vault,
    pub(super) tally: Tally,
    pub(super) tags: Tags,
    pub(super) leases: Leases,
    pub(super) bindings: Bindings,
    pub(super) destinations: Destinations,
    pub(super) places: Places,
    pub(super) guesses: Guesses,
    pub(super) names: Names,
    pub(super) proofs: Proofs,
    pub(super) edge: Edge,
    pub(super) pass: Pass,
    pub(super) calls: Calls,
    pub(super) texts: Texts,
    pub(super) mailboxes: Mailboxes,
    pub(super) wakes: Wakes,
    pub(super) stories: Stories,
    pub(super) traces: Traces,
    pub(super) erasures: Erasures,
    pub(super) orders: Orders,
    pub(super) endings: Endings,
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
        let Start { shard, policy, placement, seed, vault } = start;
        let mut random = Random::new(seed);
        let mint = Mint::new(shard, random.bytes());
        let tags = Tags::new(random.bytes());
        let erasures = Erasures::new(&policy, placement.shards());
        let texts = Texts::new(random.bytes(), &policy.limits, placement.shards());
        let pass = Pass::new(random.bytes(), &policy.limits, placement.shards());
        Self {
            shard,
            edge: Edge::new(policy.domain.clone(), random.bytes()),
            pass,
            calls: Calls::new(mint, &policy.limits, placement.shards()),
            stories: Stories::new(&policy.limits, placement.shards()),
            traces: Traces::new(&policy.limits, placement.shards()),
            destinations: Destinations::new(shard, placement.clone(), &policy),
            places: Places::new(shard, placement.clone(), Arc::clone(&policy)),
            guesses: Guesses::new(shard, placement.clone(), policy.limits.refusals_per_account),
            names: Names::new(shard, placement.clone(), share(policy.limits.held_calls, placement.shards())),
            hand_overs: HandOvers::new(placement.shards()),
            proofs: Proofs::new(placement.clone(), policy.limits.instances_per_device),
            policy,
            placement,
            random,
            vault,
            tally: Tally::default(),
            tags,
            leases: Leases::default(),
            bindings: Bindings::default(),
            texts,
            mailboxes: Mailboxes::default(),
            wakes: Wakes::default(),
            erasures,
            orders: Orders::default(),
            endings: Endings::default(),
            outputs: VecDeque::new(),
            draining: Drain::No,
            audit_writable: true,
        }
    }

    /// Takes one thing that happened.
    pub fn handle_input(&mut self, input: Input, now: Now) {
        self.leases.end_former_tokens(now.boot);
        match input {
            Input::Command(command, reply) => self.handle_command(command, reply, now),
            Input::Sip(message, arrival) => self.handle_message(message, &arrival, now),
            Input::Malformed(malformed, arrival) => self.handle_malformed(&malformed, &arrival, now),
            Input::Unsent(response) => self.handle_response(&response, now),
            Input::FlowClosed(flow) => {
                self.edge.handle_flow_closed(flow, now.boot);
                self.pass.handle_flow_closed(flow, now.boot);
                self.calls.handle_flow_closed(flow);
            }
            Input::TrunkDown(trunk, fault) => {
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_trunk_down(&trunk, fault, &mut desk, now.boot);
                let (erasures, mut desk) = self.for_erasures();
                erasures.handle_trunk_down(&trunk, &mut desk, now);
                let (pass, mut desk) = self.for_pass();
                pass.handle_trunk_down(&trunk, fault, &mut desk, now.boot);
            }
            Input::Located(query, answer) => {
                let (pass, mut desk) = self.for_pass();
                if pass.handle_located(query, &answer, &mut desk, now.boot) {
                    return self.settle(now);
                }
                let (bindings, mut desk) = self.for_bindings();
                bindings.handle_located(query, answer, &mut desk, now.boot);
            }
            Input::Pushed(wake, outcome) => self.handle_pushed(wake, outcome, now),
            Input::Recorded(record, Recorded { receipt, logged }) => {
                self.count_recorded(record, logged, now);
                self.erasures.handle_recorded(record, Recorded { receipt, logged }, now.boot);
            }
            Input::Peer(from, message) => match message {
                PeerMessage::Permit(destination, message) => {
                    self.destinations.handle_peer(from, destination, message, &mut self.random, now.boot);
                }
                PeerMessage::PlaceWanted { .. }
                | PeerMessage::PlaceAnswered { .. }
                | PeerMessage::PlaceTaken { .. }
                | PeerMessage::PlaceReturned { .. } => self.places.handle_peer(from, message, now.boot),
                PeerMessage::GuessWanted { .. }
                | PeerMessage::GuessAnswered { .. }
                | PeerMessage::GuessReturned { .. } => self.guesses.handle_peer(from, &message, now.boot),
                PeerMessage::NameBorne { .. } | PeerMessage::NameLaidDown { .. } => {
                    self.names.handle_peer(from, message);
                }
                PeerMessage::Token(message) => self.proofs.handle_peer(message, now.boot),
                PeerMessage::Called { binding, request } => self.handle_called(binding, *request, now),
                PeerMessage::Nameless(request) => self.handle_nameless(*request, now),
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
        self.leases.end_former_tokens(now.boot);
        self.begin_endings(now);
        self.orders.handle_timeout(now.boot);
        self.send_notices(now);
        self.send_sums(now);
        self.wakes.handle_timeout(now.boot);
        self.proofs.handle_timeout(now.boot);
        self.destinations.handle_timeout(&mut self.random, now.boot);
        self.names.handle_timeout(now.boot);
        let (bindings, mut desk) = self.for_bindings();
        bindings.handle_timeout(&mut desk, now.boot);
        self.edge.handle_timeout(now.boot);
        self.pass.handle_timeout(now.boot);
        let (calls, mut desk) = self.for_calls();
        calls.handle_timeout(&mut desk, now.boot);
        let (texts, mut desk) = self.for_texts();
        texts.handle_timeout(&mut desk, now.boot);
        self.handle_mailbox_timeouts(now);
        self.stories.handle_timeout(now.boot);
        self.places.handle_timeout(now.boot);
        self.guesses.handle_timeout(now.boot);
        self.traces.handle_timeout(now);
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
                self.trace_out(&hop, &content);
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
            self.names.poll_timeout(),
            self.bindings.poll_timeout(),
            self.edge.poll_timeout(),
            self.pass.poll_timeout(),
            self.calls.poll_timeout(),
            self.wakes.poll_timeout(),
            self.proofs.poll_timeout(),
            self.texts.poll_timeout(),
            self.mailboxes.poll_timeout(),
            self.stories.poll_timeout(),
            self.traces.poll_timeout(),
            self.erasures.poll_timeout(),
            self.orders.poll_timeout(),
            self.endings.poll_timeout(),
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
            reasons: self.bindings.reasons(),
            flows: self.edge.len() as u64,
            held_calls: self.calls.held() as u64,
            texts: self.texts.len() as u64,
        }
    }

    /// How full each table is, by name: what a leak would show in.
    #[must_use]
    pub fn tables(&self) -> Vec<(&'static str, usize)> {
        let mut tables =
            vec![("vault", self.vault.len()), ("edge", self.edge.len()), ("edge.returning", self.edge.returning())];
        self.leases.tables(&mut tables);
        self.bindings.tables(&mut tables);
        self.destinations.tables(&mut tables);
        self.pass.tables(&mut tables);
        self.calls.tables(&mut tables);
        self.texts.tables(&mut tables);
        self.mailboxes.tables(&mut tables);
        tables.push(("vault.sealed", self.vault.sealed()));
        self.wakes.tables(&mut tables);
        self.proofs.tables(&mut tables);
        self.stories.tables(&mut tables);
        self.traces.tables(&mut tables);
        self.erasures.tables(&mut tables);
        self.orders.tables(&mut tables);
        tables.push(("endings", self.endings.len()));
        self.hand_overs.tables(&mut tables);
        self.places.tables(&mut tables);
        self.guesses.tables(&mut tables);
        self.names.tables(&mut tables);
        tables
    }

    /// Erases an instance, by whatever trigger.
    pub(super) fn erase(&mut self, id: InstanceId, cause: Cause, reply: Option<ReplyTo>, now: Now) {
        self.wake_farewell(id, cause, now);
        self.forget_mailbox(id, now);
        let Some(instance) = self.leases.take(id) else { return };
        self.give_places_back(&instance.tenant, &instance.device, now);
        let (calls, mut desk) = self.for_calls();
        calls.end_instance(id, &mut desk, now.boot);
        let (texts, mut desk) = self.for_texts();
        texts.forget(id, &mut desk, now.boot);
        let wakes = self.wakes.counts(id);
        self.wakes.forget(id);
        self.forget_proof(id);
        self.stories.forget(id);
        self.traces.end(id);
        if self.calls.has_dialogs(id) {
            self.edge.keep(id, now.boot + self.policy.limits.dialog_max);
        } else {
            self.edge.release(id);
        }
        self.abandon_hand_over(&instance, cause, now);
        self.forget_departures(id);
        self.erasures.forget_foreground(id);
        self.bury(instance, Sentence { cause, wakes, reply }, now);
    }

    /// Drains every room until none has anything left to say.
    pub(super) fn settle(&mut self, now: Now) {
        while self.route_bindings(now)
            || self.route_destinations(now)
            || self.route_places(now)
            || self.route_guesses(now)
            || self.route_names()
            || self.route_proofs(now)
            || self.route_edge(now)
            || self.route_pass(now)
            || self.route_calls(now)
            || self.route_texts(now)
            || self.route_mailboxes(now)
            || self.route_erasures(now)
            || self.route_orders()
        {}
        while let Some(job) = self.wakes.poll_job() {
            self.emit(Output::Push(Box::new(job)));
        }
        while let Some(story) = self.stories.poll_ended() {
            self.emit(Output::Note(Note::CallStory(Box::new(story))));
        }
        while let Some(stories::Repeated { instance, call, reason, count }) = self.stories.poll_repeated() {
            self.emit(Output::Note(Note::CallsRepeated { instance, call, reason, count }));
        }
        self.advance_drain(now);
    }

    /// A device whose instance ends by itself, not by its own wish, is told to hand over again.
    fn wake_farewell(&mut self, id: InstanceId, cause: Cause, now: Now) {
        let told = match cause {
            Cause::LeaseEnded | Cause::Refused | Cause::Unregistrable | Cause::Shutdown => true,
            // A push to the token of a replaced instance reaches the app that replaced it.
            Cause::Deleted
            | Cause::DeadToken
            | Cause::Administrator
            | Cause::OffBoarded
            | Cause::Foreground
            | Cause::Replaced => false,
        };
        if told {
            self.ask_to_reprovision(id, now);
        }
    }

    /// Asks the app of an instance that is about to be erased to hand over again.
    pub(super) fn ask_to_reprovision(&mut self, id: InstanceId, now: Now) {
        // An app whose hand-over is still unanswered is told by the answer.
        if self.hand_overs.is_waiting(id) {
            return;
        }
        // No target for it is no fault: the app finds out when it asks.
        let _ = self.send_wake(id, wakes::Reason::plain(WakeKind::Reprovision, WakeDetail::None), now);
    }

    /// Goes on with a shutdown: calls first, then every instance, then the end.
    fn advance_drain(&mut self, now: Now) {
        if let Drain::Calls(until) = self.draining
            && (self.calls.held() == 0 || until <= now.boot)
        {
            self.draining = Drain::Erasing;
            self.destinations.drain(&mut self.random, now.boot);
            self.condemn(self.leases.all(), Cause::Shutdown, now);
            self.begin_endings(now);
            self.end_passes(now);
            self.settle(now);
        } else if self.draining == Drain::Erasing
            && self.endings.len() == 0
            && self.erasures.is_idle()
            && self.wakes.is_idle()
        {
            self.draining = Drain::Done;
            self.emit(Output::Drained);
        }
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.outputs.push_back(Effect::Other(output));
    }

    pub(super) fn reply(&mut self, reply: ReplyTo, answer: Answer) {
        self.settle_guess(reply, &answer);
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
