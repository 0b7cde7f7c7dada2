//! What a caller sends through Asterisk to one account, or a stranger sends past it, harms no call to another account, though all
//! calls come over one connection.
//!
//! Asterisk writes every INVITE anew: what is malformed ends there, and what is large becomes smaller. So the rest is sent to
//! the daemon's own port, from the address that the PBX has too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::office::Office;
use super::{Asterisk, Manners};
use crate::daemon::Settings;
use crate::line::{Line, Oddity};
use crate::neighbours::{SECONDS, TOLERABLE, median, rings};
use crate::world::{Transport, World};

/// How many odd calls there are unless the environment says for how many seconds there shall be.
const CALLS: u32 = 40;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// How often carol is called while nothing odd goes on.
const IDLE_CALLS: usize = 5;

/// What a stranger waits for an answer, or for its connection to be closed.
const STRANGERS_PATIENCE: Duration = Duration::from_millis(200);

const ODDITIES: [Oddity; 9] = [
    Oddity::Name(1_000),
    Oddity::Attributes(500),
    Oddity::Fields(70),
    Oddity::Field(10 * 1024),
    Oddity::BareComma,
    Oddity::Body(20 * 1024),
    Oddity::NoText,
    Oddity::Nothing,
    Oddity::OpenUri,
];

fn send_odd_calls(asterisk: &Asterisk, count: u32) {
    let mut line = Line::open(asterisk);
    let began = Instant::now();
    for (number, oddity) in (1..=count).zip(ODDITIES.into_iter().cycle()) {
        let id = line.invite("alice", oddity);
        line.listen((PAUSE * number).saturating_sub(began.elapsed()));
        line.give_up(&id, "alice");
    }
}

/// Connects to the daemon, sends what no PBX would, and reads what comes.
fn send_garbage(port: u16, is_over: &AtomicBool) {
    let head = "INVITE sip:alice@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKodd\r\nFrom: <sip:mallory@pbx.test>;tag=1\r\n\
                To: <sip:alice@127.0.0.1>\r\nCall-ID: odd\r\nCSeq: 1 INVITE\r\n";
    let messages = [
        format!("{head}Content-Length: 300000\r\n\r\n{}", "x".repeat(300_000)),
        format!("{head}{}Content-Length: 0\r\n\r\n", "X-Field: 1\r\n".repeat(300)),
        format!("{head}Content-Length: 10\r\nContent-Length: 20\r\n\r\n"),
        format!("{head}X-Field: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(70_000)),
        "\u{1}\u{2}".repeat(10_000),
    ];
    for message in messages.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        // Whatever it refuses is refused in its own way; here it only has to go on.
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
        let _ = stream.set_read_timeout(Some(STRANGERS_PATIENCE));
        let _ = stream.set_write_timeout(Some(STRANGERS_PATIENCE));
        let _ = stream.write_all(message.as_bytes());
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

fn odd_calls_harm_no_other_account(trunk: Transport) {
    let world = World::new(&format!("asterisk-odd-{}", trunk.name()));
    // Carol is called more often than anyone is.
    let settings = Settings { limits: "wakes_per_minute = 100000\nwake_burst = 100000", ..Settings::default() };
    let office = Office::with(&world, &Manners::default(), trunk, &settings);
    office.daemon.hand_over(&office.asterisk, &office.push, "carol", trunk);
    let registered = office.asterisk.answered(200, "REGISTER");
    let mut caller = Line::open(&office.asterisk);
    let idle: Vec<Duration> = (0..IDLE_CALLS).map(|_| rings(&mut caller)).collect();

    let asked = std::env::var(SECONDS).ok().map(|seconds| seconds.parse::<u32>().expect("a number of seconds"));
    let count = asked.map_or(CALLS, |seconds| seconds * 10);
    let (asterisk, port, is_over) = (&office.asterisk, office.daemon.sip_port(), AtomicBool::new(false));
    let busy = std::thread::scope(|scope| {
        let odd = scope.spawn(move || send_odd_calls(asterisk, count));
        scope.spawn(|| send_garbage(port, &is_over));
        let mut busy = Vec::new();
        while !odd.is_finished() || busy.is_empty() {
            busy.push(rings(&mut caller));
            caller.listen(PAUSE);
        }
        is_over.store(true, Ordering::Relaxed);
        odd.join().expect("the odd caller does not panic");
        busy
    });

    assert_eq!(
        office.asterisk.answered(200, "REGISTER"),
        registered,
        "the connection stayed, so nobody registered again"
    );
    let wakes = office.push.of_kind("call");
    let reached = wakes.iter().filter(|wake| wake.token == office.push.token("alice", "call")).count();
    assert!(reached >= count as usize / 2, "the PBX passed on {reached} of {count} odd calls");
    let (idle, busy) = (median(idle), median(busy));
    eprintln!("INVITE to 180 over {}: {idle:.1?}, beside {count} odd calls {busy:.1?}", trunk.name());
    assert!(asked.is_none() || busy <= 2 * idle.max(TOLERABLE), "{busy:?} instead of {idle:?}");
}

#[test]
fn odd_calls_over_tcp_harm_no_other_account() {
    odd_calls_harm_no_other_account(Transport::Tcp);
}
