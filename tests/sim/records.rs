//! What the records of an instance's life tell.

use reveille::engine::audit::AuditEvent;
use reveille::engine::output::WakeKind;

use crate::pbx::Verdict;
use crate::world::{World, hours, minutes, seed};

#[test]
fn credentials_that_the_registrar_refuses_at_the_hand_over_are_recorded_as_refused_and_erased() {
    let mut world = World::new(seed(1)).with_phone("alice");
    world.pbx().set_password("alice", "another");
    world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!(events(&world), ["handed-over", "refused", "erased"]);
}

#[test]
fn each_later_refusal_is_recorded_too() {
    let mut world = World::new(seed(2)).with_sleeping_phone("alice");
    world.pbx().set_password("alice", "another");
    world.run_for(hours(2));
    assert_eq!(events(&world), ["handed-over", "refused", "refused", "refused", "erased"]);
}

#[test]
fn a_registrar_that_does_not_answer_refuses_nobody() {
    let mut world = World::new(seed(3)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(hours(20));
    assert_eq!(events(&world), ["handed-over", "erased"]);
}

#[test]
fn the_record_of_an_erasure_counts_the_wakes_by_kind_and_those_of_nobody_else() {
    let mut world = World::new(seed(4))
        .with_sleeping_phone("alice")
        .with_sleeping_phone("bob")
        .with("alice", |phone| phone.wakes = false);
    for user in ["alice", "alice", "bob"] {
        world.call_and_wait(user);
    }
    world.delete("alice");
    world.run_until_quiet();
    let counts: Vec<[u32; 2]> = world
        .records
        .iter()
        .filter_map(|record| match &record.event {
            AuditEvent::Erased { wakes, .. } => wakes.as_ref(),
            _ => None,
        })
        .map(|wakes| [wakes.of(WakeKind::Call), wakes.of(WakeKind::Reprovision)])
        .collect();
    assert_eq!(counts, [[2, 0]]);
    world.run_for(hours(72) + minutes(1));
    let last = serde_json::to_value(world.records.last().expect("bob's end")).expect("JSON");
    assert_eq!((&last["cause"], &last["wakes"]["call"]), (&"lease-ended".into(), &1.into()));
    assert_eq!(last["wakes"]["reprovision"], 1, "its own farewell counts");
}

fn events(world: &World) -> Vec<&'static str> {
    world.records.iter().map(|record| record.event.as_str()).collect()
}
