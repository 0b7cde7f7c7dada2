//! Whatever parses as a message may reach an engine that holds an instance: it never panics, never answers a stranger
//! with more than it got, and always comes to rest.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use reveille::clock::{Instant, Now, WallTime};
use reveille::engine::ids::{FlowId, ListenerId, ShardId};
use reveille::engine::input::{Arrival, Input};
use reveille::engine::limits::Limits;
use reveille::engine::output::Output;
use reveille::engine::placement::Placement;
use reveille::engine::policy::{Listener, Policy, RegistrarPolicy};
use reveille::engine::{Engine, Start};
use reveille::sip::{Message, Transport};
use reveille::vault::Vault;

/// Outputs of one input; more would mean that the engine talks to itself.
const OUTPUTS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let Ok(message) = Message::parse_datagram(bytes.to_vec()) else { return };
    let stream = kind & 1 == 1;
    let registrar = kind & 2 == 2;
    let arrival = Arrival {
        listener: ListenerId(0),
        transport: if stream { Transport::Tcp } else { Transport::Udp },
        peer: "198.51.100.9:5060".parse().expect("an address"),
        flow: stream.then_some(FlowId(1)),
        trunk: None,
        registrar,
        device: false,
    };
    let mut engine = engine();
    let received = message.bytes().len();
    let mut now = Now { boot: Instant::from_nanos(1_000_000_000), wall: WallTime::from_unix_millis(1_800_000_000_000) };
    engine.handle_input(Input::Sip(message, arrival), now);
    let mut sent = drain(&mut engine);
    for _ in 0..8 {
        let Some(due) = engine.poll_timeout() else { break };
        now.boot = due.max(now.boot) + Duration::from_millis(1);
        engine.handle_timeout(now);
        sent += drain(&mut engine);
    }
    assert!(stream || registrar || sent == 0 || sent <= received, "{sent} bytes for {received}");
});

fn drain(engine: &mut Engine) -> usize {
    let mut bytes = Vec::new();
    for _ in 0..OUTPUTS_MAX {
        match engine.poll_output(&mut bytes) {
            Some(Output::Push(_)) => panic!("a push for a stranger"),
            Some(_) => {}
            None => return bytes.len(),
        }
    }
    panic!("no rest after {OUTPUTS_MAX} outputs");
}

fn engine() -> Engine {
    let policy = Policy {
        domain: "edge.example.net".to_owned(),
        listeners: vec![Listener {
            transport: Transport::Udp,
            local: "127.0.0.1:5060".parse().expect("an address"),
            advertise: "edge.example.net:5060".to_owned(),
        }],
        register_wait: Duration::from_secs(3),
        registrars: RegistrarPolicy {
            allow: vec!["*".to_owned()],
            allow_special_ranges: Vec::new(),
            ports: vec![5060],
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        },
        lease_default: Duration::from_secs(3600),
        lease_maximum: Duration::from_secs(3600),
        hold: Duration::from_secs(45),
        silence: Duration::from_millis(500),
        early_response: None,
        erasure_grace: Duration::from_secs(2),
        drain_calls: Duration::from_secs(10),
        messages_keep: Duration::from_secs(24 * 3600),
        tenants: Vec::new(),
        limits: Limits::default(),
    };
    let placement = Placement::new(1, [1, 2]);
    let policy = Arc::new(policy);
    Engine::new(Start { shard: ShardId(0), policy, placement, seed: [7; 32], vault: Vault::plain() })
}
