//! Wakes that are not about a call: leases that end, self-tests, kinds that a tenant does without, tokens in doubt.

use std::time::Duration;

use reveille::engine::audit::Cause;
use reveille::engine::input::{Command, PushPurpose, Rectification};
use reveille::engine::output::{Answer, Note, PushOutcome, Refusal, RegistrationState, TestView, WakeDetail, WakeKind};
use uuid::Uuid;

use crate::world::build::targets;
use crate::world::{PushMode, WALL_START, World, hours, millis, minutes, secs, seed};

/// How long before its lease's end each expiring wake was sent, and whether the user sees it.
fn notices(world: &World) -> Vec<(Duration, bool)> {
    let told = world.pushes.iter().filter_map(|push| match push.detail {
        WakeDetail::Expiring { lease_ends, visible } => {
            let sent = WALL_START + Duration::from_nanos(push.at.as_nanos());
            Some((Duration::from_millis(lease_ends.unix_millis() - sent.unix_millis()), visible))
        }
        _ => None,
    });
    told.collect()
}

fn begin_test(world: &mut World, name: &str) -> u64 {
    let (instance, token) = world.key_of(name);
    world.command(Command::BeginTest(instance, token))
}

fn begun(world: &World, asked: u64) -> TestView {
    match world.answer(asked) {
        Some(Answer::TestBegun(view)) => view.clone(),
        _ => panic!("not begun: {:?}", world.refusal(asked)),
    }
}

fn show_test(world: &mut World, name: &str, test: Uuid) -> Option<TestView> {
    let (instance, token) = world.key_of(name);
    let asked = world.command(Command::Test(instance, token, test));
    shown(world, asked)
}

fn report(world: &mut World, name: &str, test: Uuid) -> Option<TestView> {
    let (instance, token) = world.key_of(name);
    let asked = world.command(Command::TestArrived(instance, token, test));
    shown(world, asked)
}

fn shown(world: &World, asked: u64) -> Option<TestView> {
    match world.answer(asked) {
        Some(Answer::Test(view)) => Some(view.clone()),
        _ => {
            assert_eq!(world.refusal(asked), Some(Refusal::TestOver));
            None
        }
    }
}

fn without(kinds: &[WakeKind]) -> impl FnOnce(&mut reveille::engine::policy::Policy) {
    let kinds = kinds.to_vec();
    move |policy| policy.tenants[0].wakes_off = kinds
}

fn rejecting() -> PushMode {
    PushMode::Answer(PushOutcome::TokenRejected("400 BadDeviceToken".to_owned()))
}

#[test]
fn a_device_is_told_in_silence_a_day_before_its_lease_ends_and_its_user_twice_later() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice");
    world.run_for(hours(72));
    world.run_until_quiet();
    assert_eq!(notices(&world), [(hours(24), false), (hours(12), true), (hours(1), true)]);
    let kinds = world.phone("alice").kinds();
    assert_eq!(kinds, [WakeKind::Expiring, WakeKind::Expiring, WakeKind::Expiring, WakeKind::Reprovision]);
    for push in &world.pushes[..3] {
        assert_eq!(push.purpose, PushPurpose::Other);
        let WakeDetail::Expiring { lease_ends, .. } = push.detail else { panic!("{:?}", push.detail) };
        assert_eq!(push.expires_at, lease_ends, "worth nothing afterwards");
    }
    world.assert_empty();
}

#[test]
fn a_short_lease_is_told_of_in_its_second_half_and_a_very_short_one_not_at_all() {
    for (lease, expected) in [
        (hours(30), vec![(hours(12), true), (hours(1), true)]),
        (hours(2), vec![(hours(1), true)]),
        (minutes(119), vec![]),
    ] {
        let mut world = World::new(seed(2)).with_phone("alice");
        let mut offer = world.offer("alice");
        offer.lease = lease;
        world.hand_over_this("alice", offer);
        world.run_for(lease + minutes(1));
        assert_eq!(notices(&world), expected, "{lease:?}");
        assert_eq!(world.pushed(WakeKind::Reprovision), 1);
        world.assert_empty();
    }
}

#[test]
fn a_lease_that_starts_anew_is_told_of_by_its_new_end() {
    let mut world = World::new(seed(3)).with_sleeping_phone("alice");
    world.run_for(hours(47));
    let (instance, token) = world.key_of("alice");
    world.command(Command::Refresh(instance, token));
    world.run_for(hours(40));
    world.hand_over("alice");
    world.run_for(hours(47));
    assert_eq!(notices(&world), []);
    world.run_for(hours(1));
    assert_eq!(notices(&world), [(hours(24), false)]);
}

#[test]
fn an_erased_instance_is_told_of_nothing() {
    let mut world = World::new(seed(4)).with_sleeping_phone("alice");
    world.run_for(hours(47));
    world.delete("alice");
    world.run_for(hours(40));
    assert!(world.pushes.is_empty());
    world.assert_empty();
}

#[test]
fn a_lease_that_ends_sooner_by_the_wall_clock_is_told_of_by_it_once() {
    let mut world = World::new(seed(5)).with_sleeping_phone("alice");
    world.jump_wall(hours(61));
    world.run_until_quiet();
    let told = world.pushes.iter().filter(|push| push.kind == WakeKind::Expiring).map(|push| push.detail);
    let details: Vec<_> = told.collect();
    assert!(matches!(details[..], [WakeDetail::Expiring { visible: true, .. }]), "the last of both: {details:?}");
    world.run_for(hours(9));
    assert_eq!(world.pushed(WakeKind::Expiring), 1);
}

#[test]
fn a_machine_that_slept_through_every_notice_says_only_the_last_word() {
    let mut world = World::new(seed(6)).with_sleeping_phone("alice");
    world.suspend(hours(73));
    world.run_until_quiet();
    assert_eq!(world.phone("alice").kinds(), [WakeKind::Reprovision]);
    world.assert_empty();
}

#[test]
fn kinds_that_a_tenant_does_without_are_not_sent_and_calls_are_always_sent() {
    let mut world = World::new(seed(7)).with_policy(without(&WakeKind::ALL)).with_sleeping_phone("alice");
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.run_for(hours(72));
    world.run_until_quiet();
    assert_eq!(world.phone("alice").kinds(), [WakeKind::Call]);
    world.assert_empty();
}

#[test]
fn a_self_test_tells_when_its_push_was_taken_and_when_it_arrived() {
    let mut world = World::new(seed(8)).with_sleeping_phone("alice").with_phone("bob");
    world.hand_over_now("bob");
    let start = world.now.wall;
    let asked = begin_test(&mut world, "alice");
    let test = begun(&world, asked).test;
    assert_eq!(
        show_test(&mut world, "alice", test),
        Some(TestView { test, requested_at: start, accepted: None, arrived: None, failure: None })
    );
    world.run_for(secs(1));
    let push = world.pushes.last().expect("a push").clone();
    assert_eq!((push.kind, push.purpose, push.detail), (WakeKind::Test, PushPurpose::Other, WakeDetail::Test(test)));
    let taken = Some((start + millis(50), millis(50)));
    assert_eq!(show_test(&mut world, "alice", test).expect("it").accepted, taken);

    let arrived = Some((start + secs(1), secs(1)));
    let reported = report(&mut world, "alice", test).expect("it");
    assert_eq!((reported.accepted, reported.arrived, reported.failure), (taken, arrived, None));
    world.run_for(secs(5));
    assert_eq!(report(&mut world, "alice", test).expect("it").arrived, arrived, "the first report counts");

    assert_eq!(show_test(&mut world, "bob", test), None, "another instance's");
    assert_eq!(report(&mut world, "alice", Uuid::from_u128(3)), None);
    let (instance, _) = world.key_of("alice");
    let (_, foreign) = world.key_of("bob");
    let refused = world.command(Command::BeginTest(instance, foreign));
    assert_eq!(world.refusal(refused), Some(Refusal::NotFound));
    world.run_for(minutes(10));
    assert_eq!(show_test(&mut world, "alice", test), None, "forgotten");
    assert_eq!(world.table("wakes.tests"), 0);
    assert_eq!(world.pushes.len(), 1);
}

#[test]
fn self_tests_follow_one_another_after_a_pause() {
    let mut world = World::new(seed(9)).with_sleeping_phone("alice");
    let asked = begin_test(&mut world, "alice");
    let first = begun(&world, asked).test;
    world.run_for(secs(20));
    let early = begin_test(&mut world, "alice");
    assert_eq!(world.refusal(early), Some(Refusal::RateLimited { after: secs(10) }));
    world.run_for(secs(10));
    let asked = begin_test(&mut world, "alice");
    let second = begun(&world, asked).test;
    assert_ne!(first, second);
    assert_eq!(show_test(&mut world, "alice", first), None, "its place is taken");
    world.run_for(secs(1));
    assert!(show_test(&mut world, "alice", second).expect("it").accepted.is_some());
    assert_eq!(world.pushed(WakeKind::Test), 2);
    world.delete("alice");
    world.assert_empty();
}

#[test]
fn a_self_test_tells_why_its_push_was_not_taken() {
    for (outcome, failure) in [
        (PushOutcome::OurFault("403 InvalidProviderToken".to_owned()), "misconfigured"),
        (PushOutcome::TokenRejected("400 BadDeviceToken".to_owned()), "token-rejected"),
        (PushOutcome::Theirs("503".to_owned()), "provider-failed"),
        (PushOutcome::Later { after: None }, "provider-busy"),
        (PushOutcome::NotSent, "not-sent"),
    ] {
        let mut world = World::new(seed(10)).with_push(PushMode::Answer(outcome)).with_sleeping_phone("alice");
        let asked = begin_test(&mut world, "alice");
        let test = begun(&world, asked).test;
        world.run_for(secs(1));
        let view = show_test(&mut world, "alice", test).expect("it");
        assert_eq!((view.accepted, view.failure), (None, Some(failure)));
    }
}

#[test]
fn a_self_test_needs_a_target_that_takes_it_and_a_tenant_that_wants_it() {
    let mut world = World::new(seed(11)).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.push.retain(|target| target.purpose == PushPurpose::Call);
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    let asked = begin_test(&mut world, "alice");
    assert_eq!(world.refusal(asked), Some(Refusal::NoPushTarget), "a VoIP token carries calls alone");

    let mut world = World::new(seed(12)).with_policy(without(&[WakeKind::Test])).with_sleeping_phone("alice");
    let asked = begin_test(&mut world, "alice");
    assert_eq!(world.refusal(asked), Some(Refusal::SwitchedOff));
    assert_eq!((world.pushes.len(), world.table("wakes.tests")), (0, 0));
}

#[test]
fn a_wrong_environment_refuses_every_token_and_erases_nobody() {
    let mut world = World::new(seed(13)).with_push(rejecting()).with_sleeping_phone("alice").with_phone("bob");
    world.hand_over_now("bob");
    for _ in 0..5 {
        let call = world.call_and_wait("alice");
        assert_eq!(world.pbx().final_response(call), Some(480));
        world.call_and_wait("bob");
    }
    assert_eq!(world.table("leases"), 2);
    let told = world.notes.iter().filter(|note| matches!(note, Note::PushMisconfigured(_, why) if why.contains("Bad")));
    assert!(told.count() >= 10, "the operator is told each time");
    world.push_mode = PushMode::Accept(millis(50));
    for name in ["alice", "bob"] {
        let call = world.call_and_wait(name);
        assert_eq!(world.pbx().final_response(call), Some(200), "mended, and all is well");
    }
}

#[test]
fn a_token_refused_again_and_again_while_others_of_its_app_are_taken_is_dead() {
    let mut world =
        World::new(seed(14)).with_shards(1).with_sleeping_phone("alice").with_phone("bob").with_push(rejecting());
    world.hand_over_now("bob");
    world.push_modes.insert("bob".to_owned(), PushMode::Accept(millis(50)));
    for round in 0..3 {
        assert_eq!(world.table("leases"), 2, "round {round}");
        begin_test(&mut world, "bob");
        world.call_and_wait("alice");
    }
    assert_eq!(world.table("leases"), 1);
    let causes: Vec<_> = world.notes.iter().filter(|note| matches!(note, Note::Erased(_, Cause::DeadToken))).collect();
    assert_eq!(causes.len(), 1);
}

#[test]
fn a_fresh_token_starts_with_a_clean_sheet() {
    let mut world =
        World::new(seed(15)).with_shards(1).with_sleeping_phone("alice").with_phone("bob").with_push(rejecting());
    world.hand_over_now("bob");
    world.push_modes.insert("bob".to_owned(), PushMode::Accept(millis(50)));
    for _ in 0..2 {
        begin_test(&mut world, "bob");
        world.call_and_wait("alice");
    }
    let (id, token) = world.key_of("alice");
    let change = Rectification { push: Some(targets(&world.phone("alice").token.clone())), ..Rectification::default() };
    world.command(Command::Rectify(id, token, Box::new(change)));
    for _ in 0..2 {
        begin_test(&mut world, "bob");
        world.call_and_wait("alice");
    }
    assert_eq!(world.table("leases"), 2);
    let shown = world.show("alice");
    let Some(Answer::Instance(view)) = world.answer(shown) else { panic!("a view") };
    assert_eq!(view.registration.state, RegistrationState::Registered);
}
