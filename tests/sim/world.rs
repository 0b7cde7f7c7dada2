//! The world: engines, wire, peers, and the clock that jumps to the next event.

mod asking;
pub mod build;
mod causes;
mod critic;
mod judging;
mod net;
mod ringing;
mod services;
mod story;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reveille::clock::{Instant, Now, WallTime};
use reveille::engine::audit::AuditRecord;
use reveille::engine::ids::{CallUuid, InstanceId, QueryId, RecordId, ReplyTo, ShardId, WakeId};
use reveille::engine::input::{Command, Input, LocateFault, Located, PeerMessage, Recorded, TokenHash, TrunkFault};
use reveille::engine::output::{Answer, CallOutcome, HandedOver, Note, Output, PushOutcome, Refusal, TrunkKey};
use reveille::engine::placement::Placement;
use reveille::engine::policy::Policy;
use reveille::engine::{Engine, Start};
use reveille::sip::Message;
use reveille::vault::Vault;

use crate::pbx::{Call, Pbx};
use crate::phone::Phone;
use crate::sip_text::{call_id, first_line};
use crate::wire::{Dice, Wire};
use critic::Critic;
use net::Connection;
use ringing::Ringing;
pub use services::{PushMode, PushSeen};
use story::Story;

pub const fn seed(number: u64) -> u64 {
    number
}

pub const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

pub const fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

pub const fn minutes(number: u64) -> Duration {
    Duration::from_secs(number * 60)
}

pub const fn hours(number: u64) -> Duration {
    Duration::from_secs(number * 3600)
}

/// How long a word from shard to shard takes.
const BETWEEN_SHARDS: Duration = millis(1);
/// Longer than anything that ends by itself, apart from leases.
const QUIET_AT_LAST: Duration = Duration::from_secs(6 * 3600);
/// Steps without the clock moving: more of them is a loop.
const STEPS_AT_ONE_MOMENT: u32 = 20_000;

/// Something on its way.
enum Event {
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Frame { stream: u64, to_engine: bool, bytes: Vec<u8> },
    Closed { stream: u64, to_engine: bool },
    Located(ShardId, QueryId, Result<Vec<Located>, LocateFault>),
    Pushed(ShardId, WakeId, PushOutcome),
    Arrived(String, PushSeen),
    Recorded(ShardId, RecordId, Recorded),
    Peer { from: ShardId, to: ShardId, message: PeerMessage },
    TrunkDown(Arc<TrunkKey>, TrunkFault),
}

/// Everything there is.
pub struct World {
    pub now: Now,
    /// How far the wall clock was set forward.
    /// Milliseconds that the wall clock was set forward, or back.
    wall_shift: i64,
    pub wire: Wire,
    pub dice: Dice,
    seed: u64,
    shards: u16,
    policy: Arc<Policy>,
    placement: Placement,
    engines: Vec<Engine>,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    pbxs: Vec<Pbx>,
    phones: BTreeMap<String, Phone>,
    connections: BTreeMap<u64, Connection>,
    connections_made: u64,
    registrars: BTreeMap<IpAddr, Instant>,
    devices: BTreeMap<SocketAddr, Instant>,
    /// What the resolver says.
    pub names: BTreeMap<String, Result<Vec<Located>, LocateFault>>,
    pub resolver_delay: Duration,
    /// How the push service treats a phone.
    pub push_modes: BTreeMap<String, PushMode>,
    pub push_mode: PushMode,
    /// How it treats the call pushes to come, one after the other, before `push_mode` counts.
    pub push_script: VecDeque<PushMode>,
    pub pushes: Vec<PushSeen>,
    pushes_outstanding: BTreeSet<(ShardId, WakeId)>,
    pub audit_delay: Duration,
    pub audit_logged: bool,
    pub records: Vec<AuditRecord>,
    answers: BTreeMap<u64, Answer>,
    asked: u64,
    /// An app came to the foreground or was restricted: its registration may come back after its end.
    foreground: bool,
    /// Commands with credentials that wait for their answers.
    bringing: BTreeSet<u64>,
    waiting: BTreeMap<u64, String>,
    pub notes: Vec<Note>,
    pub drained: usize,
    /// Datagrams that reached an address where nobody lives.
    pub mailbox: Vec<(SocketAddr, Vec<u8>)>,
    /// Longest message that still fits what waits for a phone.
    pub room: usize,
    /// UDP bytes from and to each address.
    pub meter: BTreeMap<SocketAddr, (usize, usize)>,
    /// Connections the engines closed.
    pub closed: Vec<u64>,
    /// Every datagram and frame the engines sent: when, where to, what.
    pub sent: Vec<(Instant, String, Vec<u8>)>,
    /// Shards that asked another one, and how many REGISTER permits were granted.
    pub peer_messages: usize,
    /// Call-IDs of answers that the wire lost, and of calls during which the machine slept.
    pub bad_luck: BTreeSet<String>,
    critic: Critic,
    ringing: Ringing,
    story: Story,
    queries: usize,
    records_waiting: usize,
    /// What became of texts.
    texts: [u64; 9],
}

impl World {
    /// The first PBX.
    pub fn pbx(&mut self) -> &mut Pbx {
        self.pbx_at(0)
    }

    pub fn pbx_at(&mut self, place: usize) -> &mut Pbx {
        let now = self.now.boot;
        let pbx = &mut self.pbxs[place];
        pbx.set_now(now);
        pbx
    }

    pub fn phone(&mut self, name: &str) -> &mut Phone {
        let now = self.now.boot;
        let phone = self.phones.get_mut(name).expect("a phone of that name");
        phone.set_now(now);
        phone
    }

    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Runs for so long and no longer.
    pub fn run_for(&mut self, span: Duration) {
        self.start();
        let end = self.now.boot + span;
        self.flush_peers();
        while self.next_moment().is_some_and(|at| at <= end) {
            self.step();
        }
        self.advance_to(end);
    }

    /// Runs until nothing is on its way and no call, command, push or erasure waits for anything.
    pub fn run_until_quiet(&mut self) {
        self.start();
        let end = self.now.boot + QUIET_AT_LAST;
        self.flush_peers();
        while !self.is_quiet() {
            assert!(self.next_moment().is_some(), "something waits for nothing: {:?}", self.filled());
            self.step();
            assert!(self.now.boot <= end, "never quiet: {:?}", self.filled_and_busy());
        }
    }

    /// Runs until `test` holds, for at most `span`.
    pub fn run_until(&mut self, span: Duration, mut test: impl FnMut(&mut Self) -> bool) {
        self.start();
        let end = self.now.boot + span;
        self.flush_peers();
        while !test(self) {
            assert!(self.next_moment().is_some_and(|at| at <= end), "it did not happen within {span:?}");
            self.step();
        }
    }

    /// The wall clock is set forward; timers must not notice, leases must.
    pub fn jump_wall(&mut self, span: Duration) {
        self.wall_shift += i64::try_from(span.as_millis()).expect("a short span");
        self.advance_to(self.now.boot);
        self.time_engines();
    }

    /// The wall clock is set back; nothing may live longer for that.
    pub fn jump_wall_back(&mut self, span: Duration) {
        self.wall_shift -= i64::try_from(span.as_millis()).expect("a short span");
        self.advance_to(self.now.boot);
        self.time_engines();
    }

    /// The machine is suspended: the boot clock goes on, nothing runs meanwhile.
    pub fn suspend(&mut self, span: Duration) {
        let open: Vec<String> = self.pbx().calls().map(|(_, call)| call_id(&call.invite)).collect();
        self.bad_luck.extend(open);
        self.ringing.sleep(span);
        self.advance_to(self.now.boot + span);
        self.time_engines();
    }

    /// Takes off the wire what peers have just put on it.
    pub fn take_from_wire(&mut self) -> Vec<Vec<u8>> {
        self.flush_peers();
        let mut taken = Vec::new();
        self.events.retain(|_, event| match event {
            Event::Datagram { bytes, .. } => {
                taken.push(std::mem::take(bytes));
                false
            }
            _ => true,
        });
        taken
    }

    /// Takes datagrams off the wire that begin like this.
    pub fn drop_datagrams_starting(&mut self, start: &[u8]) {
        self.events.retain(|_, event| !matches!(event, Event::Datagram { bytes, .. } if bytes.starts_with(start)));
    }

    /// Places a call and lets it come through to its end or a full minute.
    pub fn call_and_wait(&mut self, user: &str) -> Call {
        let call = self.pbx().invite(user);
        self.run_for(minutes(1));
        call
    }

    fn start(&mut self) {
        if !self.engines.is_empty() {
            return;
        }
        let placement = [self.seed, 99];
        self.placement = Placement::new(self.shards, placement);
        let mut dice = Dice::new(self.seed.wrapping_mul(7919));
        self.engines = (0..self.shards)
            .map(|shard| {
                Engine::new(Start {
                    shard: ShardId(shard),
                    policy: Arc::clone(&self.policy),
                    placement: self.placement.clone(),
                    seed: dice.bytes32(),
                    vault: Vault::plain(),
                })
            })
            .collect();
    }

    fn feed(&mut self, shard: ShardId, input: Input) {
        let now = self.now;
        self.engines[usize::from(shard.0)].handle_input(input, now);
        self.carry_out(shard);
    }

    fn feed_all(&mut self, mut input: impl FnMut() -> Input) {
        for shard in 0..self.shards {
            self.feed(ShardId(shard), input());
        }
    }

    fn time_engines(&mut self) {
        self.start();
        let now = self.now;
        for shard in 0..self.shards {
            self.engines[usize::from(shard)].handle_timeout(now);
            self.carry_out(ShardId(shard));
        }
    }

    fn carry_out(&mut self, shard: ShardId) {
        let mut bytes = Vec::new();
        while let Some(output) = self.engines[usize::from(shard.0)].poll_output(&mut bytes) {
            self.carry_out_one(shard, output, &bytes);
        }
    }

    fn carry_out_one(&mut self, shard: ShardId, output: Output, bytes: &[u8]) {
        match output {
            Output::Send(hop, range) => self.send(&hop, &bytes[range]),
            Output::Reply(reply, answer) => self.take_answer(reply.0, *answer),
            Output::Locate(query, uri) => self.locate(shard, query, &uri),
            Output::Push(job) => self.push(shard, &job),
            Output::Record(job) => self.record(shard, *job),
            Output::Peer(to, message) => {
                assert_ne!(to, shard, "a shard talks to itself");
                self.peer_messages += 1;
                self.schedule(BETWEEN_SHARDS, Event::Peer { from: shard, to, message });
            }
            Output::CloseFlow(flow) => {
                self.closed.push(flow.0);
                self.close(flow.0, true);
            }
            Output::Device(peer, span) => {
                let until = self.now.boot + span;
                let known = self.devices.entry(peer).or_insert(until);
                *known = (*known).max(until);
            }
            Output::Registrar(address, span) => {
                let until = self.now.boot + span;
                let known = self.registrars.entry(address).or_insert(until);
                *known = until.max(*known);
            }
            Output::Note(note) => {
                self.story.tell(self.now.boot, &format!("note {note:?}"));
                self.notes.push(note);
            }
            Output::Drained => self.drained += 1,
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now.boot + after, self.sequence), event);
    }

    fn next_moment(&self) -> Option<Instant> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let engines = self.engines.iter().filter_map(Engine::poll_timeout);
        let pbxs = self.pbxs.iter().filter_map(Pbx::poll_timeout);
        let phones = self.phones.values().filter_map(Phone::poll_timeout);
        event.into_iter().chain(engines).chain(pbxs).chain(phones).min()
    }

    /// Goes to the next moment and lets happen what happens then.
    pub fn step(&mut self) {
        let Some(at) = self.next_moment() else { return };
        self.advance_to(at);
        let now = self.now.boot;
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < STEPS_AT_ONE_MOMENT, "time stands still");
            if let Some(entry) = self.events.first_entry()
                && entry.key().0 <= now
            {
                let event = entry.remove();
                self.happen(event);
                self.flush_peers();
                continue;
            }
            if self.time_peers() | self.time_due_engines() {
                continue;
            }
            return;
        }
    }

    fn time_due_engines(&mut self) -> bool {
        let now = self.now;
        let mut any = false;
        for shard in 0..self.shards {
            if self.engines[usize::from(shard)].poll_timeout().is_some_and(|due| due <= now.boot) {
                any = true;
                self.engines[usize::from(shard)].handle_timeout(now);
                self.carry_out(ShardId(shard));
            }
        }
        any
    }

    fn advance_to(&mut self, at: Instant) {
        self.ringing.judge_time(at);
        let span = at.saturating_since(self.now.boot);
        // The wall clock is exact to the millisecond only; the boot clock leads.
        self.now.boot = self.now.boot + span;
        let passed = Duration::from_nanos(self.now.boot.as_nanos());
        let shifted = (WALL_START + passed).unix_millis().checked_add_signed(self.wall_shift);
        self.now.wall = WallTime::from_unix_millis(shifted.expect("long after 1970"));
    }
}

/// Tables that something waits in.
const TRANSIENT: [&str; 13] = [
    "hand_overs.asked_moves",
    "erasures.departing",
    "bindings.branches",
    "bindings.queries",
    "destinations.outstanding",
    "calls.relays",
    "calls.held",
    "texts.branches",
    "mailboxes.branches",
    "wakes.pending",
    "erasures.under_way",
    "hand_overs.waiting",
    "hand_overs.trials",
];

/// 2026-11-21T20:00:00Z.
pub const WALL_START: WallTime = WallTime::from_unix_millis(1_795_291_200_000);

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.story.print();
        }
    }
}
