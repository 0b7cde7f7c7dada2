//! One shard's engine, and around it what it needs: a resolver, a registrar, a push provider and an audit log that
//! answer at once. The stopwatch runs only while the engine has the word.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use criterion::measurement::{Measurement, WallTime as Stopwatch};
use reveille::clock::{Instant, Now, WallTime};
use reveille::engine::account::{Account, ContactStyle, TrunkSources, TrunkUri};
use reveille::engine::audit::Receipt;
use reveille::engine::ids::{Capability, ListenerId, ReplyTo, ShardId};
use reveille::engine::input::{
    Arrival, Command, HandOver, Input, Located, Preferences, PushPurpose, PushTarget, Recorded, TokenHash,
};
use reveille::engine::limits::Limits;
use reveille::engine::output::{Answer, HandedOver, Output, PushOutcome, RegistrationState};
use reveille::engine::placement::Placement;
use reveille::engine::policy::{AppPolicy, Listener, Policy, Provider, RegistrarPolicy, TenantPolicy};
use reveille::engine::{Engine, Start};
use reveille::sip::{StatusCode, Transport};
use reveille::vault::{Material, Password, Vault};
use zeroize::Zeroizing;

use super::memory;
use super::registrar::Registrar;

pub(crate) const SHARD: ShardId = ShardId(0);
/// The longest there is.
pub(crate) const LEASE: Duration = reveille::engine::limits::LEASE_CEILING;

const LISTENER: ListenerId = ListenerId(0);
pub(crate) const TENANT: &str = "acme";
const APP: &str = "com.example.phone";
/// What the accounts ask for: the longest expiry that is believed.
const EXPIRES: u32 = 24 * 3600;
/// Few, so that what was erased between two rounds does not add up.
const TOMBSTONES: u32 = 1_000;
/// Timers are jittered by whole milliseconds. With this much time between two hand-overs no two of them fall together,
/// so that each timeout has one thing to do.
const PHASE: Duration = Duration::from_nanos(10);

/// One engine and its surroundings.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) registrar: Registrar,
    /// What the engine said and nobody has answered yet.
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) bytes: Vec<u8>,
    now: Now,
    /// Hand-overs so far.
    count: u64,
    /// REGISTERs answered so far.
    registers: u64,
    spent: Duration,
    allocations: u64,
    /// The longest the engine ever had the word.
    longest: Duration,
    replies: Vec<Answer>,
}

/// What the engine did in some rounds.
pub(crate) struct Work {
    pub(crate) spent: Duration,
    pub(crate) allocations: u64,
}

impl World {
    /// An engine that holds nothing.
    pub(crate) fn new() -> Self {
        let placement = Placement::new(1, [1, 2]);
        let policy = Arc::new(policy());
        let engine = Engine::new(Start { shard: SHARD, policy, placement, seed: [7; 32], vault: Vault::plain() });
        let start = Now { boot: Instant::from_nanos(1), wall: WallTime::from_unix_millis(1_795_550_400_000) };
        Self {
            engine,
            registrar: Registrar { most: EXPIRES, bound: None },
            outputs: VecDeque::with_capacity(64),
            bytes: Vec::with_capacity(64 * 1024),
            now: start,
            count: 0,
            registers: 0,
            spent: Duration::ZERO,
            allocations: 0,
            longest: Duration::ZERO,
            replies: Vec::with_capacity(4),
        }
    }

    /// An engine with so many registered instances; `capabilities` receives the keys to them.
    pub(crate) fn holding(instances: usize, capabilities: &mut Vec<Capability>) -> Self {
        let mut world = Self::new();
        for _ in 0..instances {
            world.hand_over(LEASE);
            capabilities.extend(world.registrar.bound.take());
        }
        assert_eq!(world.registered(), instances);
        world
    }

    /// What the engine does in `rounds` rounds of `round`.
    pub(crate) fn work(&mut self, rounds: u64, mut round: impl FnMut(&mut Self)) -> Work {
        (self.spent, self.allocations) = (Duration::ZERO, 0);
        for _ in 0..rounds {
            round(self);
        }
        Work { spent: self.spent, allocations: self.allocations }
    }

    /// What happens in here is not counted.
    pub(crate) fn aside<T>(&mut self, happening: impl FnOnce(&mut Self) -> T) -> T {
        let counted = (self.spent, self.allocations);
        let result = happening(self);
        (self.spent, self.allocations) = counted;
        result
    }

    /// Hands the next account over, up to the answer of the API.
    pub(crate) fn hand_over(&mut self, lease: Duration) -> Box<HandedOver> {
        self.count += 1;
        self.pass(PHASE);
        let command = Command::HandOver(Box::new(hand_over(self.count, lease)));
        self.feed(Input::Command(command, ReplyTo(self.count)));
        self.settle();
        match self.replies.pop() {
            Some(Answer::HandedOver(handed_over)) => {
                assert_eq!(handed_over.registration.state, RegistrationState::Registered);
                handed_over
            }
            _ => unreachable!("the registrar grants everything"),
        }
    }

    /// Takes an instance back, up to the receipt.
    pub(crate) fn erase(&mut self, handed_over: &HandedOver) {
        let hash = digest::digest(&digest::SHA256, handed_over.token.as_bytes());
        let token = TokenHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"));
        self.feed(Input::Command(Command::Erase(handed_over.instance, token), ReplyTo(0)));
        self.settle();
        assert!(matches!(self.replies.pop(), Some(Answer::Erased { .. })));
    }

    /// Goes to the next refresh and through it.
    pub(crate) fn refresh(&mut self) {
        let before = self.registers;
        while self.registers == before {
            let due = self.engine.poll_timeout().expect("each binding has its next refresh ahead");
            self.pass(due.saturating_since(self.now.boot));
            self.timeout();
            self.settle();
        }
        assert_eq!(self.registers, before + 1, "the nonce at hand was taken, and one refresh was due");
    }

    /// Does what is due; the world does not answer yet.
    pub(crate) fn timeout(&mut self) {
        self.watch(|engine, now| engine.handle_timeout(now));
    }

    pub(crate) fn feed(&mut self, input: Input) {
        self.watch(|engine, now| engine.handle_input(input, now));
    }

    /// Answers what the engine asks, until it asks nothing more.
    pub(crate) fn settle(&mut self) {
        while let Some(output) = self.outputs.pop_front() {
            if let Some(input) = self.answer(output) {
                self.feed(input);
            }
        }
        self.bytes.clear();
    }

    /// Both clocks go on.
    pub(crate) fn pass(&mut self, span: Duration) {
        self.now = Now { boot: self.now.boot + span, wall: self.now.wall + span };
    }

    pub(crate) fn now(&self) -> Now {
        self.now
    }

    /// The longest turn is looked for anew.
    pub(crate) fn forget_longest(&mut self) {
        self.longest = Duration::ZERO;
    }

    /// The longest turn so far: for so long everything else of the shard had to wait.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    pub(crate) fn registered(&self) -> usize {
        usize::try_from(self.engine.census().instances[RegistrationState::Registered as usize]).expect("64 bits")
    }

    fn watch(&mut self, turn: impl FnOnce(&mut Engine, Now)) {
        let (calls, began) = (memory::calls(), Stopwatch.start());
        turn(&mut self.engine, self.now);
        while let Some(output) = self.engine.poll_output(&mut self.bytes) {
            self.outputs.push_back(output);
        }
        let took = Stopwatch.end(began);
        self.spent += took;
        self.longest = self.longest.max(took);
        self.allocations += memory::calls() - calls;
    }

    fn answer(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send(_, range) => {
                self.registers += 1;
                Some(Input::Sip(self.registrar.answer(&self.bytes[range]), arrival(Registrar::address(), true)))
            }
            Output::Locate(query, _) => {
                let located = Located { transport: Transport::Udp, address: Registrar::address() };
                Some(Input::Located(query, Ok(vec![located])))
            }
            Output::Push(job) => Some(Input::Pushed(job.wake, PushOutcome::Accepted)),
            Output::Record(job) => {
                let id = job.receipt?.id;
                Some(Input::Recorded(id, Recorded { receipt: Box::new(receipt()), logged: true }))
            }
            Output::Reply(_, answer) => {
                self.replies.push(*answer);
                None
            }
            Output::Registrar(..) | Output::Device(..) | Output::Note(_) => None,
            Output::Peer(..) | Output::CloseFlow(_) | Output::Drained => {
                unreachable!("one shard, no streams, no shutdown")
            }
        }
    }
}

/// How a datagram from `peer` comes in.
pub(crate) fn arrival(peer: SocketAddr, registrar: bool) -> Arrival {
    Arrival { listener: LISTENER, transport: Transport::Udp, peer, flow: None, trunk: None, registrar, device: false }
}

fn policy() -> Policy {
    Policy {
        domain: "edge.example.net".to_owned(),
        listeners: vec![Listener {
            transport: Transport::Udp,
            local: SocketAddr::from(([0, 0, 0, 0], 5060)),
            advertise: "203.0.113.5:5060".to_owned(),
        }],
        register_wait: Duration::from_secs(3),
        registrars: RegistrarPolicy {
            allow: vec!["*".to_owned()],
            allow_special_ranges: vec!["198.51.100.0/24".parse().expect("a range")],
            ports: vec![5060],
            // Pacing is time that passes, not work; here none passes.
            rate: u32::MAX,
            rate_max: u32::MAX,
            drain_rate: u32::MAX,
        },
        lease_default: LEASE,
        lease_maximum: LEASE,
        hold: Duration::from_secs(45),
        silence: Duration::from_millis(500),
        early_response: Some(StatusCode::RINGING),
        erasure_grace: Duration::from_secs(2),
        drain_calls: Duration::from_secs(10),
        messages_keep: Duration::from_secs(24 * 3600),
        tenants: vec![TenantPolicy {
            id: TENANT.into(),
            apps: vec![AppPolicy { id: APP.to_owned(), provider: Provider::Apns, owner: None }],
            ..TenantPolicy::default()
        }],
        limits: Limits { tombstones: TOMBSTONES, ..Limits::default() },
    }
}

/// An account of common size, the `number`th of its kind, each on a device of its own.
fn hand_over(number: u64, lease: Duration) -> HandOver {
    let user = format!("user{number:07}");
    let password = format!("correct horse battery staple {number}").into_bytes();
    HandOver {
        tenant: TENANT.into(),
        device: format!("urn:uuid:{}", uuid::Uuid::from_u128(number.into())),
        platform: "ios".to_owned(),
        account: Account {
            aor: format!("sip:{user}@pbx.example.net"),
            registrar: TrunkUri::parse("registrar", "sip:pbx.example.net").expect("a SIP URI"),
            outbound_proxy: None,
            auth_username: user,
            register_expires: Duration::from_secs(EXPIRES.into()),
            trunk_sources: TrunkSources::Any,
            early_response: None,
            contact_style: ContactStyle::default(),
            tls_spki_sha256: None,
        },
        material: Material::Password(Password::new(Zeroizing::new(password)).expect("it fits")),
        push: [PushPurpose::Call, PushPurpose::Other].map(|purpose| target(purpose, number)).into(),
        lease,
        caller_key: None,
        preferences: Preferences::default(),
    }
}

fn target(purpose: PushPurpose, number: u64) -> PushTarget {
    PushTarget { purpose, provider: Provider::Apns, app: APP.to_owned(), token: format!("{number:064x}").into() }
}

fn receipt() -> Receipt {
    Receipt {
        v: 1,
        instance: String::new(),
        salt: String::new(),
        record: String::new(),
        inclusion: None,
        key: String::new(),
        signature: String::new(),
    }
}
