//! What it costs to keep secrets sealed and freed memory empty.
//!
//! A lend: open the slot, compute the digest that answers a challenge, wipe; aimed at is less than 3 µs. And the same
//! hand-overs with and without overwriting what is freed, in turns, in one run; aimed at is a loss of less than 5 %. Only
//! the engine is timed, which is the harshest: next to TLS nothing would be seen of it.
//!
//! `cargo bench --bench vault`

#[path = "vault/memory.rs"]
mod memory;
#[path = "registration/registrar.rs"]
mod registrar;
#[expect(dead_code, reason = "another bench does more with it")]
#[path = "registration/world.rs"]
mod world;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, WallTime as Stopwatch};
use reveille::sip::auth::{Algorithm, Qop};
use reveille::sip::digest::{self, Secret, Session, Signed};
use reveille::vault::{Ha1Algorithm, Keep, Lent, Material, Password, ProcessKey, Vault};
use world::{LEASE, World};
use zeroize::Zeroizing;

/// Digests in one measurement.
const DIGESTS: u32 = 2_000;
/// Hand-overs in one measurement.
const HAND_OVERS: u64 = 500;
/// Measurements of a kind; the middle one is told.
const TURNS: usize = 41;
/// Instances held while others are handed over.
const HELD: usize = 10_000;

const ALGORITHMS: [(Algorithm, Ha1Algorithm); 3] = [
    (Algorithm::Md5, Ha1Algorithm::Md5),
    (Algorithm::Sha256, Ha1Algorithm::Sha256),
    (Algorithm::Sha512256, Ha1Algorithm::Sha512256),
];

fn main() {
    memory::wipe(true);
    let (key, protection) = ProcessKey::new(true).expect("randomness");
    say(&format!("the key lies in {}", protection.as_str()));
    let mut vault = Vault::new(key);
    for (algorithm, kept) in ALGORITHMS {
        lend(&mut vault, algorithm, kept);
    }
    allocator();
}

/// A challenge answered with a lent HA1, and with a lent password.
fn lend(vault: &mut Vault, algorithm: Algorithm, kept: Ha1Algorithm) {
    let secret =
        || Password::new(Zeroizing::new(b"a password of forty characters, as users do".to_vec())).expect("it fits");
    let typed = vault.admit(Material::Password(secret()), Keep::UntilAccepted);
    let hashed = vault.admit(Material::Password(secret()), Keep::UntilAccepted);
    vault.distill(&hashed, &[(b"example.com", kept)], |password, realm, _| {
        digest::ha1(algorithm, "alice", realm, password)
    });
    let mut session = Session {
        proxy: false,
        realm: b"example.com".to_vec(),
        nonce: b"1700000000/c5a1b7e3f9d04826a7c3e1f5b9d20468".to_vec(),
        opaque: None,
        algorithm,
        session: None,
        qop: Qop::Auth,
        nc: 0,
    };
    let mut sign = |secret: Secret<'_>| {
        let signed = Signed::bare("REGISTER", "sip:example.com");
        black_box(session.authorize("alice", secret, signed, "0a4f113b0a4f113b"));
    };
    let bare = digest::ha1(algorithm, "alice", "example.com", b"secret");
    let unsealed = each(|| sign(Secret::Ha1(black_box(&bare))));
    let mut lent = |id| {
        each(|| {
            let lent = vault.lend(id, b"example.com", kept, |lent| match lent {
                Lent::Ha1(ha1) => sign(Secret::Ha1(ha1)),
                Lent::Password(password) => sign(Secret::Password(password)),
            });
            lent.expect("it answers");
        })
    };
    let (ha1, password) = (lent(&hashed), lent(&typed));
    let name = algorithm.as_str();
    say(&format!("{name}: lend of an HA1 {ha1:.2?}, of a password {password:.2?}; the digest alone {unsealed:.2?}"));
}

/// The middle of what one call takes.
fn each(mut what: impl FnMut()) -> Duration {
    let mut seen: Vec<Duration> = (0..TURNS)
        .map(|_| {
            let began = Stopwatch.start();
            for _ in 0..DIGESTS {
                what();
            }
            Stopwatch.end(began) / DIGESTS
        })
        .collect();
    middle(&mut seen)
}

fn allocator() {
    let mut world = World::holding(HELD, &mut Vec::new());
    let mut round = |wiping| {
        memory::wipe(wiping);
        let work = world.work(HAND_OVERS, |world| {
            let handed_over = world.hand_over(LEASE);
            world.aside(|world| world.erase(&handed_over));
        });
        work.spent / u32::try_from(HAND_OVERS).expect("few")
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        without.push(round(false));
        with.push(round(true));
    }
    let (without, with) = (middle(&mut without), middle(&mut with));
    let share = with.as_secs_f64() / without.as_secs_f64();
    say(&format!(
        "a hand-over takes {without:.2?}, and {with:.2?} where freed memory is overwritten: {:+.1} %",
        (share - 1.0) * 100.0
    ));
}

fn middle(seen: &mut [Duration]) -> Duration {
    seen.sort_unstable();
    seen[seen.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a bench reports on its standard output")]
fn say(line: &str) {
    println!("{line}");
}
