//! The ends of leases: by whatever clock, and many at once.

use std::collections::BTreeMap;

use reveille::clock::Instant;
use reveille::engine::audit::{AuditEvent, Cause, Unregister};
use reveille::engine::input::{Command, Whom};
use reveille::engine::output::{Answer, WakeKind};

use crate::pbx::Verdict;
use crate::world::build::TENANT;
use crate::world::{World, hours, millis, minutes, secs, seed};

/// How many accounts end together: more than one turn begins to erase.
const TOGETHER: usize = 600;

#[test]
fn no_jump_of_a_clock_and_no_suspend_makes_a_life_longer() {
    for (number, disturb) in (0..).zip(disturbances()) {
        let mut world = World::new(seed(30 + number)).with_sleeping_phone("alice");
        let handed_over = world.now.boot;
        disturb(&mut world);
        world.run_until(hours(80), |world| world.table("vault") == 0);
        let lived = world.now.boot.saturating_since(handed_over);
        assert!(lived <= hours(72) + secs(2), "disturbance {number}: {lived:?}");
        world.run_until_quiet();
        assert_eq!(ends(&world).keys().map(|(cause, _)| *cause).collect::<Vec<_>>(), [Cause::LeaseEnded]);
        world.assert_empty();
    }
}

/// What the clocks may do to a lease of three days.
fn disturbances() -> [fn(&mut World); 6] {
    [
        |world| world.jump_wall_back(hours(48)),
        |world| {
            world.jump_wall(hours(10));
            world.run_for(hours(1));
            world.jump_wall_back(hours(100));
        },
        |world| {
            world.run_for(hours(71));
            world.jump_wall_back(hours(71));
        },
        |world| world.suspend(hours(11)),
        |world| {
            world.jump_wall_back(hours(24));
            world.suspend(hours(11));
        },
        |world| {
            world.suspend(hours(11));
            world.jump_wall_back(hours(300));
            world.run_for(hours(1));
            world.suspend(hours(11));
        },
    ]
}

#[test]
fn a_lease_that_starts_anew_after_the_wall_clock_went_back_is_no_longer_than_any() {
    let mut world = World::new(seed(41)).with_sleeping_phone("alice");
    world.run_for(hours(70));
    world.jump_wall_back(hours(60));
    let (id, token) = world.key_of("alice");
    world.command(Command::Refresh(id, token));
    let renewed = world.now.boot;
    world.run_until(hours(80), |world| world.table("vault") == 0);
    let lived = world.now.boot.saturating_since(renewed);
    assert!(lived > hours(71) && lived <= hours(72) + secs(2), "{lived:?}");
}

#[test]
fn a_wall_clock_that_was_set_back_promises_nobody_a_longer_lease() {
    let mut world = World::new(seed(46)).with_sleeping_phone("alice");
    world.run_for(hours(1));
    world.jump_wall_back(hours(48));
    let asked = world.show("alice");
    world.run_until_quiet();
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view") };
    let left = view.lease_ends.unix_millis() - world.now.wall.unix_millis();
    assert!(left <= u64::try_from(hours(71).as_millis()).expect("short"), "{left} ms");
}

#[test]
fn leases_that_end_together_leave_no_secret_past_the_grace_and_ask_the_registrar_at_its_rate() {
    let (mut world, end) = crowd(42, 50);
    world.run_for(minutes(4));
    let before = world.pbx().registers.len();
    assert_eq!(world.table("vault"), TOGETHER);

    world.run_for(end.saturating_since(world.now.boot) + secs(2));

    assert_eq!(world.table("vault"), 0, "no secret waits for a slow registrar");
    assert_eq!((world.table("leases"), world.table("endings")), (0, 0));
    assert!(world.table("erasures.put_off") > 0, "most are asked later");
    world.run_for(minutes(1));
    assert_eq!(world.table("erasures.put_off"), 0);
    let asked: Vec<Instant> = world.pbx().registers[before..].iter().map(|seen| seen.at).collect();
    assert_eq!(asked.len(), TOGETHER);
    for (place, at) in asked.iter().enumerate() {
        let within = asked[place..].iter().take_while(|other| other.saturating_since(*at) < secs(1)).count();
        assert!(within <= 50 + 10, "{within} in a second");
    }
    assert!((0..TOGETHER).all(|number| world.pbx().contacts(&name(number)).is_empty()));
    let ends = ends(&world);
    assert_eq!(ends.values().sum::<usize>(), TOGETHER);
    assert!(ends[&(Cause::LeaseEnded, Unregister::Confirmed)] >= 40, "{ends:?}");
    assert!(ends[&(Cause::LeaseEnded, Unregister::Deferred)] >= 400, "{ends:?}");
    assert_eq!(world.pushed(WakeKind::Reprovision), TOGETHER, "each device is told");
    world.run_until_quiet();
    world.assert_empty();
}

#[test]
fn one_that_ends_among_many_is_no_more_than_the_grace_late_at_a_silent_registrar() {
    let (mut world, end) = crowd(43, 50);
    world.run_for(minutes(4));
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(end.saturating_since(world.now.boot) + secs(2));
    assert_eq!(world.table("vault"), 0);
    world.run_for(millis(100));
    assert_eq!(world.table("erasures.under_way"), 0);
    let ends = ends(&world);
    assert_eq!(ends.values().sum::<usize>(), TOGETHER);
    assert!(!ends.contains_key(&(Cause::LeaseEnded, Unregister::Confirmed)), "{ends:?}");
    world.run_until_quiet();
    world.assert_empty();
}

#[test]
fn a_turn_begins_so_many_erasures_and_calls_go_on_in_between() {
    let (mut world, _) = crowd(44, 10_000);
    let asked = world
        .command_at(reveille::engine::ids::ShardId(0), Command::EraseAll { tenant: TENANT.into(), whom: Whom::Tenant });
    let begun = TOGETHER - world.table("leases");
    assert!(begun > 0 && begun <= 256, "{begun} in one turn");
    assert!(world.table("endings") > 0);
    world.run_until_quiet();
    assert!(world.answer(asked).is_some());
    assert_eq!(world.table("endings"), 0);
}

#[test]
fn a_shutdown_of_many_is_over_when_the_last_was_asked_for() {
    let (mut world, _) = crowd(45, 50);
    world.drain();
    world.run_until(secs(40), |world| world.drained == 2);
    assert_eq!((world.table("vault"), world.table("erasures.put_off")), (0, 0));
    assert_eq!(ends(&world).values().sum::<usize>(), TOGETHER);
    // What was sent last is still on the wire.
    world.run_for(secs(1));
    assert!((0..TOGETHER).all(|number| world.pbx().contacts(&name(number)).is_empty()));
}

/// Many accounts with leases of five minutes, all registered, and when those end.
fn crowd(number: u64, rate: u32) -> (World, Instant) {
    let mut world = World::new(seed(number)).with_policy(|policy| policy.registrars.rate = rate);
    for number in 0..TOGETHER {
        world = world.with_phone(&name(number));
    }
    for number in 0..TOGETHER {
        let mut offer = world.offer(&name(number));
        offer.lease = minutes(5);
        world.hand_over_this(&name(number), offer);
    }
    let end = world.now.boot + minutes(5);
    world.run_for(secs(30));
    assert!((0..TOGETHER).all(|number| world.pbx().contacts(&name(number)).len() == 1));
    (world, end)
}

fn name(number: usize) -> String {
    format!("phone{number}")
}

/// How instances ended, and how many so.
fn ends(world: &World) -> BTreeMap<(Cause, Unregister), usize> {
    let mut ends = BTreeMap::new();
    for record in &world.records {
        if let AuditEvent::Erased { cause, unregister, .. } = &record.event {
            *ends.entry((*cause, *unregister)).or_default() += 1;
        }
    }
    ends
}
