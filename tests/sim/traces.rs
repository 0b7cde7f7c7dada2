//! Traces: nothing is written down without consent, and what is written names no secret and ends when it must.

use reveille::engine::account::TenantId;
use reveille::engine::audit::{AuditEvent, Reader};
use reveille::engine::input::Command;
use reveille::engine::output::{Answer, Consent, Refusal, TraceKind, TraceView};

use crate::share::two_devices;
use crate::world::build::TENANT;
use crate::world::{World, hours, minutes, secs, seed};

const CONSENT: Consent =
    Consent { sip: true, decisions: true, identities: false, span: hours(2), tenant_may_read: false };

fn consent(world: &mut World, name: &str, consent: Consent) -> u64 {
    let (id, token) = world.key_of(name);
    world.command(Command::Consent(id, token, consent))
}

fn read(world: &mut World, name: &str) -> u64 {
    let (id, token) = world.key_of(name);
    world.command(Command::ReadTrace(id, token))
}

fn view(world: &World, asked: u64) -> &TraceView {
    match world.answer(asked) {
        Some(Answer::Trace(view)) => view,
        _ => panic!("no trace"),
    }
}

/// The whole trace as text.
fn text(world: &mut World, name: &str) -> String {
    let asked = read(world, name);
    let line = |kind: TraceKind, text: &str| format!("{}: {text}\n", kind.as_str());
    view(world, asked).entries.iter().map(|entry| line(entry.kind, &entry.text)).collect()
}

fn events(world: &World) -> Vec<&AuditEvent> {
    world.records.iter().map(|record| &record.event).filter(|event| **event != AuditEvent::HandedOver).collect()
}

#[test]
fn without_a_consent_nothing_is_written_down_and_nothing_can_be_read() {
    let mut world = World::new(seed(930)).with_sleeping_phone("alice");
    let call = world.call_and_wait("alice");
    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert_eq!((world.table("traces"), world.table("traces.bytes")), (0, 0));
    let asked = read(&mut world, "alice");
    assert_eq!(world.refusal(asked), Some(Refusal::NoTrace));
    let (id, token) = world.key_of("alice");
    let asked = world.command(Command::WithdrawTrace(id, token));
    assert!(matches!(world.answer(asked), Some(Answer::TraceEnded(false))));
    assert!(events(&world).is_empty());
}

#[test]
fn a_call_is_told_message_by_message_and_decision_by_decision_without_names_or_secrets() {
    let mut world = World::new(seed(931)).with_sleeping_phone("alice").with_sleeping_phone("bob");
    let capability = world.pbx().capability("alice").expect("registered");
    consent(&mut world, "alice", CONSENT);
    let call = world.call_and_wait("alice");
    world.pbx().hang_up(call);
    world.run_until_quiet();
    world.run_for(minutes(15));
    let told = text(&mut world, "alice");
    for wanted in [
        "received: INVITE sip:[hidden]@[hidden]",
        "sent: SIP/2.0 100 Trying",
        "decision: wake call: sent",
        "decision: push call: accepted",
        "received: REGISTER sip:[hidden]",
        "sent: SIP/2.0 401 Unauthorized",
        "decision: device: attached",
        "sent: INVITE sip:[hidden]",
        "received: SIP/2.0 180 Ringing",
        "received: SIP/2.0 200 OK",
        "sent: SIP/2.0 200 OK",
        "received: BYE",
        "sent: BYE",
        "sent: REGISTER sip:[hidden]",
        ": answered",
    ] {
        assert!(told.contains(wanted), "{wanted} not in\n{told}");
    }
    let (id, _) = world.key_of("alice");
    for hidden in ["alice", "192.0.2", "198.51.100", "pbx.example", "nonce=", "response=", "z9hG4bK", "v=0"]
        .into_iter()
        .chain([capability.as_str(), id.to_string().as_str()])
    {
        assert!(!told.contains(hidden), "{hidden} in\n{told}");
    }
    assert_eq!(world.table("traces"), 1, "bob's are nobody's");
}

#[test]
fn names_and_places_are_told_where_the_consent_says_so_and_secrets_never_are() {
    let mut world = World::new(seed(932)).with_sleeping_phone("alice");
    let capability = world.pbx().capability("alice").expect("registered");
    consent(&mut world, "alice", Consent { identities: true, decisions: false, ..CONSENT });
    let call = world.call_and_wait("alice");
    world.pbx().hang_up(call);
    world.run_until_quiet();
    let told = text(&mut world, "alice");
    assert!(told.contains("198.51.100.10") && told.contains("Call-ID: "), "{told}");
    assert!(!told.contains("decision:"));
    for hidden in [capability.as_str(), "nonce=", "response=", "z9hG4bK"] {
        assert!(!told.contains(hidden), "{hidden} in\n{told}");
    }
}

#[test]
fn the_trace_of_one_device_tells_nothing_of_another_that_shares_the_account() {
    let mut world = two_devices(933);
    consent(&mut world, "alice", Consent { identities: true, ..CONSENT });
    world.phone("alice").wakes = false;
    let call = world.call_and_wait("alice");
    world.pbx().hang_up(call);
    world.run_until_quiet();
    let told = text(&mut world, "alice");
    assert!(told.contains("received: INVITE"), "{told}");
    let (tablet, _) = world.key_of("tablet");
    assert!(told.contains("sent: SIP/2.0 200"), "{told}");
    for others in ["sent: INVITE", "device: attached", "received: SIP/2.0 180", "tablet", &tablet.to_string()] {
        assert!(!told.contains(others), "{others} in\n{told}");
    }
}

#[test]
fn it_ends_by_itself_when_withdrawn_and_with_its_instance() {
    for way in 0..4 {
        let mut world = World::new(seed(934)).with_sleeping_phone("alice");
        let asked = consent(&mut world, "alice", CONSENT);
        assert!(matches!(world.answer(asked), Some(Answer::Consent(_))));
        world.call_and_wait("alice");
        assert!(world.table("traces.bytes") > 0);
        let (id, token) = world.key_of("alice");
        match way {
            0 => world.run_for(hours(2)),
            1 => world.jump_wall(hours(3)),
            2 => drop(world.command(Command::WithdrawTrace(id, token))),
            _ => drop(world.delete("alice")),
        }
        assert_eq!((world.table("traces"), world.table("traces.bytes")), (0, 0), "way {way}");
        let asked = read(&mut world, "alice");
        assert!(world.refusal(asked).is_some());
    }
}

#[test]
fn every_reading_consent_and_withdrawal_is_an_event_of_the_log() {
    let mut world = World::new(seed(935)).with_sleeping_phone("alice");
    let (id, token) = world.key_of("alice");
    let as_tenant = |tenant: &str| Command::ReadTraceAsTenant(TenantId::from(tenant), id);
    consent(&mut world, "alice", CONSENT);
    read(&mut world, "alice");
    let asked = world.command(as_tenant(TENANT));
    assert_eq!(world.refusal(asked), Some(Refusal::NotFound), "the consent does not say so");
    consent(&mut world, "alice", Consent { tenant_may_read: true, ..CONSENT });
    let asked = world.command(as_tenant("beta"));
    assert_eq!(world.refusal(asked), Some(Refusal::NotFound), "another tenant's");
    let asked = world.command(as_tenant(TENANT));
    assert_eq!(view(&world, asked).omitted, 0);
    for _ in 0..2 {
        world.command(Command::WithdrawTrace(id, token));
    }
    world.run_until_quiet();
    assert_eq!(
        events(&world),
        [
            &AuditEvent::TraceConsented,
            &AuditEvent::TraceRead { by: Reader::Device },
            &AuditEvent::TraceConsented,
            &AuditEvent::TraceRead { by: Reader::Tenant },
            &AuditEvent::TraceWithdrawn,
        ]
    );
    let guess = world.command(Command::ReadTrace(id, World::token_hash("guess")));
    assert_eq!(world.refusal(guess), Some(Refusal::NotFound));
}

#[test]
fn a_trace_keeps_its_newest_entries_and_their_number_has_a_bound() {
    let mut world = World::new(seed(936))
        .with_shards(1)
        .with_policy(|policy| (policy.limits.traces, policy.limits.trace_bytes) = (1, 4096))
        .with_sleeping_phone("alice")
        .with_sleeping_phone("bob");
    consent(&mut world, "alice", CONSENT);
    let refused = consent(&mut world, "bob", CONSENT);
    assert!(matches!(world.refusal(refused), Some(Refusal::Busy { .. })));
    world.run_for(minutes(100));
    assert!(world.table("traces.bytes") <= 4096);
    let asked = read(&mut world, "alice");
    let view = view(&world, asked);
    assert!(view.omitted > 0 && !view.entries.is_empty());
    assert!(view.entries.last().expect("one").at > view.entries[0].at);
    let again = consent(&mut world, "alice", CONSENT);
    assert!(matches!(world.answer(again), Some(Answer::Consent(_))), "the same device takes its own place");
    world.run_for(secs(1));
    assert!(world.table("traces.bytes") < 1000, "what was written under the former consent is gone");
}

#[test]
fn no_consent_is_longer_than_a_day() {
    let mut world = World::new(seed(937)).with_sleeping_phone("alice");
    consent(&mut world, "alice", Consent { span: hours(60), ..CONSENT });
    world.run_for(hours(23));
    assert_eq!(world.table("traces"), 1);
    world.run_for(hours(2));
    assert_eq!(world.table("traces"), 0);
}

#[test]
fn two_accounts_of_one_phone_on_one_address_have_traces_of_their_own() {
    let mut world = World::new(seed(938)).with_shards(1).with_attached_phone("alice").with_attached_phone("bob");
    let shared = world.phone("alice").address;
    // In this world a place has one resident: whoever came last.
    world.phone("alice").address = "203.0.113.250:40000".parse().expect("an address");
    world.phone("bob").address = shared;
    world.phone("bob").attach();
    world.run_until_quiet();
    assert_eq!(world.table("edge"), 2);
    consent(&mut world, "alice", Consent { identities: true, ..CONSENT });
    let call = world.call_and_wait("bob");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.run_until_quiet();
    let told = text(&mut world, "alice");
    assert!(!told.contains("INVITE"), "a call to bob in\n{told}");
}

#[test]
fn a_restriction_ends_it_and_none_may_be_consented_to() {
    let mut world = World::new(seed(939)).with_sleeping_phone("alice");
    consent(&mut world, "alice", CONSENT);
    let (id, token) = world.key_of("alice");
    world.command(Command::Restrict(id, token));
    world.run_until_quiet();
    assert_eq!((world.table("traces"), world.table("traces.bytes")), (0, 0));
    let refused = consent(&mut world, "alice", CONSENT);
    assert_eq!(world.refusal(refused), Some(Refusal::Restricted));
    assert_eq!(events(&world), [&AuditEvent::TraceConsented, &AuditEvent::TraceWithdrawn, &AuditEvent::Restricted]);
    world.command(Command::Resume(id, token));
    let again = consent(&mut world, "alice", CONSENT);
    assert!(matches!(world.answer(again), Some(Answer::Consent(_))));
}
