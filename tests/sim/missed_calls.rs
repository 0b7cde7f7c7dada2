//! Missed calls: the first are told at once, what follows is summed up, and none is lost, however the call was refused.

use reveille::engine::ids::CallUuid;
use reveille::engine::output::{ToldCaller, WakeDetail, WakeKind};
use reveille::engine::policy::CallerInPush;

use crate::pbx::Invite;
use crate::world::{PushMode, World, hours, millis, minutes, secs, seed};

fn sleeping(number: u64) -> World {
    World::new(seed(number)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice")
}

/// Calls and hangs up before the phone comes.
fn miss(world: &mut World) {
    let call = world.pbx().invite("alice");
    world.run_for(millis(200));
    world.pbx().cancel(call);
    world.run_for(millis(200));
}

/// How many calls each missed-call push stands for.
fn told(world: &World) -> Vec<u32> {
    let missed = world.pushes.iter().filter(|push| push.kind == WakeKind::MissedCall);
    let counts = missed.map(|push| match push.detail {
        WakeDetail::Missed(count) => count,
        other => panic!("{other:?}"),
    });
    counts.collect()
}

#[test]
fn the_first_missed_calls_are_told_at_once_and_those_that_follow_by_one_push() {
    let mut world = sleeping(871);
    for _ in 0..5 {
        miss(&mut world);
    }
    assert_eq!(told(&world), [1, 1, 1]);
    world.run_for(secs(15));
    assert_eq!(told(&world), [1, 1, 1, 2]);
    let last = world.calls_of("alice").pop().expect("a call");
    let named = world.pushes.last().expect("a push").call.as_deref().and_then(|call| uuid::Uuid::parse_str(call).ok());
    assert_eq!(named.map(CallUuid), Some(last), "the last of them");
    world.run_for(hours(1));
    assert_eq!(told(&world).len(), 4);
    miss(&mut world);
    assert_eq!(told(&world), [1, 1, 1, 2, 1], "a day's single calls are told at once");
    world.assert_nothing_left();
    assert_eq!(world.table("wakes.missed"), 0);
}

#[test]
fn calls_that_are_refused_as_limited_are_missed_calls_and_summed_up() {
    let mut world = sleeping(872);
    for _ in 0..9 {
        miss(&mut world);
    }
    assert!(world.pushed(WakeKind::Call) < 9, "the wake budget is used up");
    world.run_for(secs(15));
    assert_eq!(told(&world).iter().sum::<u32>(), 9);
    assert_eq!(told(&world).len(), 4);

    // And those beyond what an instance may hold.
    let mut world = sleeping(873);
    for _ in 0..9 {
        world.pbx().invite("alice");
        world.run_for(millis(20));
    }
    world.run_for(minutes(3));
    assert_eq!(told(&world).iter().sum::<u32>(), 9);
}

#[test]
fn a_caller_that_calls_without_end_causes_no_more_pushes_than_the_budget_has_and_each_call_is_counted() {
    let mut world = sleeping(874);
    for number in 0..600 {
        let own = format!("198.51.100.10:{}", 6000 + number % 500);
        let call = world.pbx().invite(Invite::to("alice").calling_from(&own));
        world.run_for(millis(500));
        world.pbx().cancel(call);
        world.run_for(millis(500));
    }
    let (pushes, minutes_gone) = (told(&world).len(), 10);
    assert!(pushes <= 5 + minutes_gone + 1, "{pushes}");
    world.run_for(minutes(3));
    assert_eq!(told(&world).iter().sum::<u32>(), 600);
    world.assert_nothing_left();
}

#[test]
fn a_sum_tells_the_last_caller_and_dies_with_its_instance() {
    let clear = |policy: &mut reveille::engine::policy::Policy| policy.tenants[0].caller_in_push = CallerInPush::Clear;
    let mut world =
        World::new(seed(875)).with_policy(clear).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    for _ in 0..5 {
        miss(&mut world);
    }
    world.run_for(secs(15));
    let push = world.pushes.iter().rfind(|push| push.kind == WakeKind::MissedCall).expect("a push");
    let Some(ToldCaller::Clear(caller)) = &push.caller else { panic!("no caller") };
    assert_eq!((caller.name.as_deref(), caller.number.as_str()), (Some("Carol"), "carol"));
    miss(&mut world);
    miss(&mut world);
    let before = told(&world).len();
    assert_eq!(world.table("wakes.missed"), 1);
    world.delete("alice");
    world.run_for(minutes(5));
    assert_eq!((told(&world).len(), world.table("wakes.missed")), (before, 0));
}
