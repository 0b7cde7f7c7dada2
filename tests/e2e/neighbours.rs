//! What a caller sends to one account harms no call to another, though both come over the one connection to the PBX.

use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Settings};
use crate::kamailio::{Kamailio, Manners};
use crate::line::{Line, Oddity};
use crate::push::{Provider, PushService};
use crate::world::{Transport, World};

/// For how many seconds alice is sent what is odd, in a run that is to judge times as well: `REVEILLE_ODD_SECONDS=60`.
pub(crate) const SECONDS: &str = "REVEILLE_ODD_SECONDS";

/// How many odd messages there are otherwise.
const MESSAGES: u32 = 40;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// How often carol is called while nothing odd goes on.
const IDLE_CALLS: usize = 5;

/// A time to ring below which nobody is concerned, whatever it was without the odd messages.
pub(crate) const TOLERABLE: Duration = Duration::from_millis(50);

/// All that the PBX lets through.
const ODDITIES: [Oddity; 8] = [
    Oddity::Body(20 * 1024),
    Oddity::BareComma,
    Oddity::Fields(70),
    Oddity::Field(10 * 1024),
    Oddity::Fields(300),
    Oddity::NoText,
    Oddity::Body(60 * 1000),
    Oddity::OpenUri,
];

/// Alice is sent odd messages, ten a second, and carol is called all the while.
fn odd_messages_harm_no_other_account(trunk: Transport) {
    let world = World::new(&format!("neighbours-{}", trunk.name()));
    let kamailio = Kamailio::start(&world, &Manners::default());
    let push = PushService::start(&world, Provider::Fcm);
    // Carol is called more often than anyone is.
    let limits = "wakes_per_minute = 100000\nwake_burst = 100000";
    let daemon = Daemon::start_with(&world, &kamailio, &push, &Settings { limits, ..Settings::default() });
    for user in ["alice", "carol"] {
        daemon.hand_over(&kamailio, &push, user, trunk);
    }
    let connection = kamailio.connection_of("alice");
    assert_eq!(kamailio.connection_of("carol"), connection, "both came over one connection");
    let mut caller = Line::open(&kamailio);
    let idle: Vec<Duration> = (0..IDLE_CALLS).map(|_| rings(&mut caller)).collect();

    let asked = std::env::var(SECONDS).ok().map(|seconds| seconds.parse::<u32>().expect("a number of seconds"));
    let count = asked.map_or(MESSAGES, |seconds| seconds * 10);
    let pbx = &kamailio;
    let busy = std::thread::scope(|scope| {
        let odd = scope.spawn(move || send_odd_messages(pbx, count));
        let mut busy = Vec::new();
        while !odd.is_finished() || busy.is_empty() {
            busy.push(rings(&mut caller));
            // The PBX remembers each call for a while, in memory of a fixed size.
            caller.listen(PAUSE);
        }
        odd.join().expect("the odd caller does not panic");
        busy
    });

    assert!(kamailio.is_open(connection), "the connection was closed");
    assert_eq!(kamailio.connection_of("carol"), connection, "nor was another one opened");
    let (idle, busy) = (median(idle), median(busy));
    eprintln!("INVITE to 180 over {}: {idle:.1?}, beside {count} odd messages {busy:.1?}", trunk.name());
    assert!(asked.is_none() || busy <= 2 * idle.max(TOLERABLE), "{busy:?} instead of {idle:?}");
}

fn send_odd_messages(kamailio: &Kamailio, count: u32) {
    let mut line = Line::open(kamailio);
    let began = Instant::now();
    for (number, oddity) in (1..=count).zip(ODDITIES.into_iter().cycle()) {
        line.invite("alice", oddity);
        line.listen((PAUSE * number).saturating_sub(began.elapsed()));
    }
}

/// How long it takes until carol's phone is woken and the caller hears it ring.
#[track_caller]
pub(crate) fn rings(caller: &mut Line) -> Duration {
    let (took, heard) = caller.ring("carol");
    assert!(!heard.is_empty() && heard.iter().all(|status| *status == 180), "heard of carol: {heard:?}");
    took
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn odd_messages_over_tcp_harm_no_other_account() {
    odd_messages_harm_no_other_account(Transport::Tcp);
}

#[test]
fn odd_messages_over_tls_harm_no_other_account() {
    odd_messages_harm_no_other_account(Transport::Tls);
}

/// The PBX would tell its caller 408 after its own time if it heard nothing.
#[test]
fn an_odd_message_over_udp_is_answered() {
    let world = World::new("neighbours-udp");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let push = PushService::start(&world, Provider::Fcm);
    let daemon = Daemon::start(&world, &kamailio, &push);
    daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);
    let mut caller = Line::open(&kamailio);

    let sent = ODDITIES.map(|oddity| (oddity, caller.invite("alice", oddity)));
    let answers = sent.map(|(oddity, id)| (oddity, caller.answer_to(&id)));

    assert!(answers.iter().all(|(_, status)| *status != 408), "{answers:?}");
    for (oddity, status) in answers {
        let is_malformed = matches!(oddity, Oddity::BareComma | Oddity::Fields(300));
        assert!(!is_malformed || matches!(status, 400 | 513), "{oddity:?} was answered {status}");
    }
}
