//! What one shard's engine spends on staying registered: hand-over, refresh, lookup and the sweep of ended leases, with
//! few and with many instances held. Whatever is done for one instance must not cost more because there are others.
//!
//! Only the engine is timed and counted: what the registrar, the push provider and the audit log around it do is not.
//!
//! `cargo bench --bench registration`

#[path = "registration/memory.rs"]
mod memory;
#[path = "registration/registrar.rs"]
mod registrar;
#[path = "registration/world.rs"]
mod world;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reveille::engine::ids::{Capability, ReplyTo};
use reveille::engine::input::{Arrival, Command, Input, Whom};
use reveille::engine::output::Output;
use reveille::sip::Message;

use registrar::Registrar;
use world::{LEASE, SHARD, TENANT, World, arrival};

/// Instances held while the rest happens.
const HELD: [usize; 2] = [1_000, 100_000];
/// Leases that end at the same moment.
const ENDING: usize = 100;
/// A lease that ends before anything else is due.
const SHORT_LEASE: Duration = Duration::from_millis(10);
/// Requests to different instances, taken in turn; far apart in the order of hand-over.
const CALLEES: usize = 1_000;
/// Rounds over which allocations are counted.
const COUNTED: u64 = 100;

fn registration(criterion: &mut Criterion) {
    for held in HELD {
        let (mut world, capabilities) = weighed(held);
        hand_over(criterion, &mut world, held);
        lookup(criterion, &mut world, &capabilities);
        idle_sweep(criterion, &mut world, held);
        lease_end(criterion, &mut world, held);
        refresh(criterion, &mut world, held);
        erase_all(world, held);
    }
}

/// Fills an engine and prints what an instance weighs in it, spare room of the tables included.
fn weighed(held: usize) -> (World, Vec<Capability>) {
    let mut capabilities = Vec::with_capacity(held);
    let before = memory::live();
    let world = World::holding(held, &mut capabilities);
    let bytes = usize::try_from(memory::live() - before).expect("an engine weighs something");
    say(&format!("{held} held: {} bytes each; longest turn on the way there {:.1?}", bytes / held, world.longest()));
    (world, capabilities)
}

/// Command, location, permit, REGISTER, 401, REGISTER, 200, answer.
fn hand_over(criterion: &mut Criterion, world: &mut World, held: usize) {
    say_allocations("a hand-over", world.work(COUNTED, hand_over_round).allocations);
    criterion.bench_function(&format!("hand-over/{held}"), |bencher| {
        bencher.iter_custom(|rounds| world.work(rounds, hand_over_round).spent);
    });
}

fn hand_over_round(world: &mut World) {
    let handed_over = world.hand_over(LEASE);
    world.aside(|world| world.erase(&handed_over));
}

/// The timer, a REGISTER with the nonce at hand, 200.
fn refresh(criterion: &mut Criterion, world: &mut World, held: usize) {
    // Short, so that the leases outlive the bench.
    world.registrar.most = 60;
    say_allocations("a refresh", world.work(COUNTED, World::refresh).allocations);
    criterion.bench_function(&format!("refresh/{held}"), |bencher| {
        bencher.iter_custom(|rounds| world.work(rounds, World::refresh).spent);
    });
    assert_eq!(world.registered(), held);
}

/// OPTIONS to a capability we hold, and to one we do not.
fn lookup(criterion: &mut Criterion, world: &mut World, capabilities: &[Capability]) {
    let held = capabilities.len();
    let known: Vec<Capability> = capabilities.iter().step_by(held / CALLEES).copied().collect();
    let strange: Vec<Capability> = (0..CALLEES as u128).map(|n| Capability::mint(SHARD, n.to_be_bytes())).collect();
    let stranger = SocketAddr::from(([192, 0, 2, 77], 5060));
    for (name, callees, from) in
        [("known", known, arrival(Registrar::address(), true)), ("unknown", strange, arrival(stranger, false))]
    {
        let requests: Vec<Message> = callees.iter().map(|callee| options(*callee, from.peer)).collect();
        let mut requests = requests.iter().cycle();
        criterion.bench_function(&format!("lookup/{name}/{held}"), |bencher| {
            bencher.iter_custom(|rounds| {
                world
                    .work(rounds, |world| {
                        black_box(ask(world, requests.next().expect("a cycle"), &from));
                    })
                    .spent
            });
        });
        assert_eq!(ask(world, requests.next().expect("a cycle"), &from), usize::from(name == "known"));
    }
}

fn ask(world: &mut World, request: &Message, from: &Arrival) -> usize {
    world.feed(Input::Sip(request.clone(), from.clone()));
    let answers = world.outputs.drain(..).filter(|output| matches!(output, Output::Send(..))).count();
    assert!(answers == 0 || world.bytes.starts_with(b"SIP/2.0 200 "));
    world.bytes.clear();
    answers
}

fn options(callee: Capability, peer: SocketAddr) -> Message {
    let text = format!(
        "OPTIONS sip:{callee}@203.0.113.5:5060;transport=udp SIP/2.0\r\n\
         Via: SIP/2.0/UDP {peer};branch=z9hG4bK2f6e1c;rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:qualify@pbx.example.net>;tag=as5f1e2d3c\r\n\
         To: <sip:{callee}@203.0.113.5:5060>\r\n\
         Call-ID: 7f3d2c1b0a998877@pbx.example.net\r\n\
         CSeq: 102 OPTIONS\r\n\
         Contact: <sip:qualify@{peer}>\r\n\
         User-Agent: Example PBX 20.5\r\n\
         Content-Length: 0\r\n\r\n"
    );
    Message::parse_datagram(text.into_bytes()).expect("well-formed")
}

/// A look at the timers when nothing is due.
fn idle_sweep(criterion: &mut Criterion, world: &mut World, held: usize) {
    let now = world.now();
    criterion.bench_function(&format!("sweep/nothing-due/{held}"), |bencher| {
        bencher.iter(|| world.engine.handle_timeout(black_box(now)));
    });
    world.timeout();
    assert!(world.outputs.is_empty());
}

/// Leases that end while all others go on: from the timer until each un-REGISTER and each push is on its way.
fn lease_end(criterion: &mut Criterion, world: &mut World, held: usize) {
    let mut group = criterion.benchmark_group("sweep/leases-end");
    group.throughput(Throughput::Elements(ENDING as u64)).measurement_time(Duration::from_secs(1)).sample_size(20);
    group.bench_function(BenchmarkId::from_parameter(held), |bencher| {
        bencher.iter_custom(|rounds| world.work(rounds, lease_end_round).spent);
    });
    group.finish();
    assert_eq!(world.registered(), held);
}

fn lease_end_round(world: &mut World) {
    world.aside(|world| {
        for _ in 0..ENDING {
            world.hand_over(SHORT_LEASE);
        }
        world.pass(SHORT_LEASE);
    });
    world.timeout();
    assert_eq!(ended(world), ENDING);
    world.aside(World::settle);
}

/// All are erased at once, as at a shutdown or when their tenant leaves: from the order until the last erasure has begun.
/// Once, since nothing is left to repeat it with.
fn erase_all(mut world: World, held: usize) {
    let mut turns = 1_u32;
    world.forget_longest();
    let work = world.work(1, |world| {
        let order = Command::EraseAll { tenant: TENANT.into(), whom: Whom::Tenant };
        world.feed(Input::Command(order, ReplyTo(0)));
        while world.registered() > 0 {
            world.timeout();
            turns += 1;
        }
    });
    let each = work.spent / u32::try_from(held).expect("few enough");
    say(&format!(
        "{held} held, all erased at once: {:.1?} in {turns} turns, {each:.1?} each; longest turn {:.1?}; {} un-REGISTERs at once",
        work.spent,
        world.longest(),
        ended(&world)
    ));
}

fn ended(world: &World) -> usize {
    world.outputs.iter().filter(|output| matches!(output, Output::Send(..))).count()
}

fn say_allocations(what: &str, calls: u64) {
    say(&format!("{what} asks {:.1} times for memory", calls as f64 / COUNTED as f64));
}

#[expect(clippy::print_stdout, reason = "a bench reports on its standard output")]
fn say(line: &str) {
    println!("{line}");
}

criterion_group!(benches, registration);
criterion_main!(benches);
