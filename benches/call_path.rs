//! How long a call spends in Reveille, and what it weighs while it is held: distributions, printed and not judged.
//!
//! - INVITE in → push handed to the provider's connection
//! - attach REGISTER in → held INVITE out
//! - a phone's response in → the same response out
//! - bytes of a held call, with many held at once
//!
//! Twice: at one shard's engine, from received bytes to bytes to send, and at the whole daemon over loopback sockets, from a
//! peer's `send` to another peer's `recv`; there both ends of two sockets and the peers' own work are in it. Each over UDP and
//! over TLS.
//!
//! `cargo bench --bench call_path`, with `-- --quick` for a look whether it works.

#[path = "call_path/daemon.rs"]
mod daemon;
#[path = "call_path/inside.rs"]
mod inside;
#[path = "call_path/link.rs"]
mod link;
#[path = "registration/memory.rs"]
mod memory;
#[path = "registration/registrar.rs"]
mod registrar;
#[path = "call_path/texts.rs"]
mod texts;
#[path = "registration/world.rs"]
#[allow(dead_code, reason = "shared with the bench `registration`, which uses the rest")]
mod world;

use std::time::Duration;

use reveille::sip::Transport;

/// Calls held at once, and timed one by one, at the engine.
const HELD: usize = 1_000;
/// Calls at the daemon, one after the other.
const CALLS: usize = 500;
/// Both, for a look.
const QUICK: usize = 20;
/// What is aimed at for a held call.
const HELD_AIM_BYTES: usize = 8 * 1024;

/// What was measured over some calls.
#[derive(Default)]
struct Samples {
    invite_to_push: Vec<Duration>,
    attach_to_invite: Vec<Duration>,
    response: Vec<Duration>,
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (held, calls) = if quick { (QUICK, QUICK) } else { (HELD, CALLS) };
    for transport in [Transport::Udp, Transport::Tls] {
        let (samples, bytes) = inside::run(transport, held);
        tell("engine", transport, samples);
        say(&format!("{held} calls held: {bytes} bytes each (aim: under {HELD_AIM_BYTES})\n"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut daemon = daemon::Daemon::start().await;
        for transport in [Transport::Udp, Transport::Tls] {
            let samples = daemon.run(transport, calls).await;
            tell("daemon", transport, samples);
            let alone = daemon::loopback(calls).await;
            say(&format!("{}\n", line("a datagram alone, for comparison", alone)));
        }
        daemon.stop().await;
    });
}

fn tell(which: &str, transport: Transport, samples: Samples) {
    say(&format!("{which}, {}", transport.as_param()));
    say(&line("INVITE in, push out (aim: p50 1 ms, p99 5 ms)", samples.invite_to_push));
    say(&line("attach in, INVITE out (aim: p99 2 ms)", samples.attach_to_invite));
    say(&line("response in, response out (aim: p99 1 ms)", samples.response));
}

fn line(what: &str, mut spans: Vec<Duration>) -> String {
    spans.sort_unstable();
    let at = |share: usize| spans[(spans.len() * share / 100).min(spans.len() - 1)];
    let longest = spans[spans.len() - 1];
    format!("  {what:<46} p50 {:>9.1?}  p90 {:>9.1?}  p99 {:>9.1?}  max {longest:>9.1?}", at(50), at(90), at(99))
}

#[expect(clippy::print_stdout, reason = "a bench reports on its standard output")]
fn say(line: &str) {
    println!("{line}");
}
