//! An app that renews its lease, or changes its instance, while the registration waits in back-off.

use reveille::engine::input::Command;
use reveille::engine::output::{Answer, RegistrationState};

use crate::pbx::Verdict;
use crate::world::{World, millis, minutes, secs, seed};

#[test]
fn a_lease_that_is_renewed_in_back_off_has_the_registrar_asked_at_once_and_once_in_thirty_seconds() {
    let mut world = failing(921, Verdict::Code(500, None));
    let before = world.pbx().registers.len();
    let asked = renew(&mut world);
    world.run_for(secs(1));
    assert!(matches!(world.answer(asked), Some(Answer::Instance(_))), "its answer does not wait");
    assert_eq!(world.pbx().registers.len(), before + 1);
    for _ in 0..5 {
        renew(&mut world);
        world.run_for(secs(2));
    }
    assert_eq!(world.pbx().registers.len(), before + 1, "once in thirty seconds");
    world.run_for(secs(20));
    world.pbx().registrar.verdict = Verdict::Fair;
    renew(&mut world);
    world.run_for(secs(1));
    assert_eq!(state(&mut world), RegistrationState::Registered);
}

#[test]
fn a_change_of_the_instance_does_the_same() {
    let mut world = failing(922, Verdict::Silent);
    world.run_for(minutes(10));
    world.pbx().registrar.verdict = Verdict::Fair;
    let (id, token) = world.key_of("alice");
    world.command(Command::Rectify(id, token, Box::default()));
    // The destination is probed at a time of its own.
    world.run_for(minutes(31));
    assert_eq!(state(&mut world), RegistrationState::Registered);

    let mut world = failing(923, Verdict::Code(500, None));
    world.pbx().registrar.verdict = Verdict::Fair;
    let (id, token) = world.key_of("alice");
    world.command(Command::Rectify(id, token, Box::default()));
    world.run_for(secs(1));
    assert_eq!(state(&mut world), RegistrationState::Registered);
}

#[test]
fn neither_a_retry_after_nor_a_refusal_of_the_credentials_is_passed_over() {
    for verdict in
        [Verdict::Code(503, Some(900)), Verdict::Code(480, Some(900)), Verdict::Code(403, None), Verdict::NeverContent]
    {
        let mut world = failing(924, verdict.clone());
        let before = world.pbx().registers.len();
        world.pbx().registrar.verdict = Verdict::Fair;
        renew(&mut world);
        world.run_for(secs(1));
        assert_eq!(world.pbx().registers.len(), before, "{verdict:?}");
        assert_eq!(state(&mut world), RegistrationState::Failing, "{verdict:?}");
    }
}

/// An account whose registration is over, since the registrar answers otherwise.
fn failing(number: u64, verdict: Verdict) -> World {
    let mut world =
        World::new(seed(number)).with_pbx(|pbx| pbx.registrar.max_expires = 60).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = verdict;
    world.run_for(secs(62));
    // Not right after a try of its own.
    let last = world.pbx().registers.len();
    world.run_for(millis(1));
    assert!(last > 1);
    assert_eq!(state(&mut world), RegistrationState::Failing);
    world
}

fn renew(world: &mut World) -> u64 {
    let (id, token) = world.key_of("alice");
    world.command(Command::Refresh(id, token))
}

fn state(world: &mut World) -> RegistrationState {
    let asked = world.show("alice");
    world.run_for(millis(10));
    match world.answer(asked) {
        Some(Answer::Instance(view)) => view.registration.state,
        _ => panic!("no view"),
    }
}
