//! A tenant's administrator: erasing all, a device's, or one instance by order.

use std::collections::BTreeMap;

use reveille::engine::audit::{Cause, Unregister};
use reveille::engine::ids::ShardId;
use reveille::engine::input::{Command, Mode, Parting, Whom};
use reveille::engine::output::{Answer, OrderView, Refusal};

use crate::pbx::Verdict;
use crate::share::erasures;
use crate::world::build::TENANT;
use crate::world::{World, hours, millis, secs, seed};

fn everyone() -> Command {
    Command::EraseAll { tenant: TENANT.into(), whom: Whom::Tenant }
}

/// Gives an order to every shard and puts the answers together, as the API does.
fn order(world: &mut World, whom: &Whom) -> OrderView {
    let asked = world.ask_every_shard(|| Command::EraseAll { tenant: TENANT.into(), whom: whom.clone() });
    world.run_until_quiet();
    together(world, &asked)
}

fn together(world: &World, asked: &[u64]) -> OrderView {
    let view = |asked: &u64| match world.answer(*asked) {
        Some(Answer::Ordered(view)) => (**view).clone(),
        _ => panic!("no answer to {asked}"),
    };
    asked.iter().map(view).reduce(OrderView::and).expect("a shard")
}

fn three_phones(number: u64) -> World {
    let mut world = World::new(seed(number)).with_shards(4);
    for name in ["alice", "bob", "carol"] {
        world = world.with_sleeping_phone(name);
    }
    world
}

#[test]
fn a_device_and_then_the_whole_tenant_are_erased_without_a_wake_and_counted() {
    let mut world = three_phones(900);
    let view = order(&mut world, &Whom::Device("urn:uuid:device-of-alice".to_owned()));
    assert_eq!((view.erased(), view.left, view.logged), (1, 0, 1));
    assert!(view.ended.is_some_and(|ended| ended >= view.begun));
    assert!(world.pbx().contacts("alice").is_empty());
    assert_eq!(world.pbx().contacts("bob").len(), 1);

    let view = order(&mut world, &Whom::Tenant);
    assert_eq!(view.unregister, BTreeMap::from([(Unregister::Confirmed, 2)]));
    assert!(world.pushes.is_empty());
    let causes: Vec<Cause> = erasures(&world).into_iter().map(|(cause, _)| cause).collect();
    assert_eq!(causes, [Cause::Administrator, Cause::OffBoarded, Cause::OffBoarded]);
    let shown = world.show("bob");
    assert!(matches!(world.refusal(shown), Some(Refusal::Gone { cause: Cause::OffBoarded, receipt: Some(_) })));
    world.assert_empty();
}

#[test]
fn an_order_asked_again_answers_the_same_for_a_day_and_takes_in_what_came_meanwhile() {
    let mut world = three_phones(901);
    let first = order(&mut world, &Whom::Tenant);
    world.run_for(hours(20));
    assert_eq!(order(&mut world, &Whom::Tenant), first);

    world.hand_over_now("bob");
    let second = order(&mut world, &Whom::Tenant);
    assert_eq!((second.begun, second.erased()), (first.begun, 4));
    assert!(second.ended > first.ended);
    world.run_for(hours(25));
    assert_eq!(world.table("orders"), 0);
    assert_eq!(order(&mut world, &Whom::Tenant).erased(), 0, "nothing is left of it after a day");
}

#[test]
fn one_instance_is_erased_for_its_own_tenant_alone() {
    let mut world = three_phones(902);
    let (id, _) = world.key_of("alice");
    let foreign = world.command(Command::EraseAll { tenant: "beta".into(), whom: Whom::Instance(id) });
    assert_eq!(world.refusal(foreign), Some(Refusal::NotFound));
    assert_eq!(world.table("orders"), 0, "nothing is remembered of it");

    for _ in 0..2 {
        let asked = world.command(Command::EraseAll { tenant: TENANT.into(), whom: Whom::Instance(id) });
        world.run_until_quiet();
        assert_eq!(together(&world, &[asked]).erased(), 1);
    }
    assert_eq!(erasures(&world), [(Cause::Administrator, Unregister::Confirmed)]);
    assert_eq!(world.pbx().contacts("bob").len(), 1);
}

#[test]
fn whoever_waits_is_told_how_far_it_is_and_a_repetition_the_end() {
    let mut world = three_phones(903);
    world.pbx().registrar.verdict = Verdict::Silent;
    world.audit_delay = secs(20);
    let asked = world.ask_every_shard(everyone);
    world.run_for(millis(4_900));
    let waits = |world: &World| asked.iter().filter(|asked| world.answer(**asked).is_none()).count();
    assert!(waits(&world) > 0, "the grace is over, and the log is awaited a while longer");
    world.run_for(millis(200));
    let view = together(&world, &asked);
    assert_eq!((view.erased(), view.left, view.logged, view.ended), (3, 3, 0, None));
    assert_eq!(world.table("vault"), 0, "the secrets did not wait");
    world.run_until_quiet();

    let view = order(&mut world, &Whom::Tenant);
    assert_eq!((view.unregister, view.left), (BTreeMap::from([(Unregister::Unanswered, 3)]), 0));
    world.assert_empty();
}

#[test]
fn an_order_takes_its_instances_in_portions() {
    let mut world = World::new(seed(904))
        .with_shards(1)
        .with_policy(|policy| (policy.registrars.rate, policy.limits.instances) = (10_000, 1_000));
    for number in 0..300 {
        world.add_phone(&format!("phone{number}"));
        world.hand_over(&format!("phone{number}"));
    }
    world.run_until_quiet();
    assert_eq!(world.table("leases"), 300);
    let asked = world.ask_every_shard(everyone);
    assert_eq!(world.table("leases"), 44, "the rest in the next turn");
    let again = world.ask_every_shard(everyone);
    world.run_for(millis(1));
    assert_eq!(world.table("leases"), 0);
    world.run_until_quiet();
    assert_eq!(together(&world, &asked).erased(), 300);
    assert_eq!(together(&world, &again), together(&world, &asked));
    world.assert_empty();
}

#[test]
fn an_instance_that_ends_by_itself_before_its_turn_is_not_counted_twice() {
    let mut world = three_phones(905);
    let asked = world.delete("alice");
    let view = order(&mut world, &Whom::Tenant);
    assert!(matches!(world.answer(asked), Some(Answer::Erased { .. })));
    assert_eq!(view.erased(), 2);
    assert_eq!(erasures(&world).len(), 3);
}

#[test]
fn a_shutdown_in_the_middle_of_an_order_leaves_nobody_waiting() {
    let mut world = three_phones(906);
    world.pbx().registrar.delay = secs(1);
    let asked = world.ask_every_shard(everyone);
    world.drain();
    world.run_until_quiet();
    assert_eq!(together(&world, &asked).erased(), 3);
    assert_eq!(world.drained, 4);
}

#[test]
fn when_too_many_orders_are_remembered_the_oldest_done_gives_way() {
    let mut world = World::new(seed(907)).with_shards(1);
    for number in 0..1025 {
        let whom = Whom::Device(format!("urn:uuid:{number}"));
        world.command_at(ShardId(0), Command::EraseAll { tenant: TENANT.into(), whom });
    }
    assert_eq!(world.table("orders"), 1024);
}

#[test]
fn the_tenants_order_is_not_done_before_an_earlier_one_for_a_device_is() {
    let mut world = three_phones(908);
    world.pbx().registrar.delay = secs(1);
    let device = Whom::Device("urn:uuid:device-of-alice".to_owned());
    let first = world.ask_every_shard(|| Command::EraseAll { tenant: TENANT.into(), whom: device.clone() });
    for name in ["bob", "carol"] {
        world.delete(name);
    }
    let second = world.ask_every_shard(everyone);
    world.run_for(millis(500));
    assert_eq!(world.table("vault"), 3, "nothing is wiped yet");
    assert!(
        second.iter().any(|asked| world.answer(*asked).is_none()),
        "who asked for all is not told that all is done"
    );
    world.run_until_quiet();

    let (first, second) = (together(&world, &first), together(&world, &second));
    assert_eq!((first.erased(), first.logged, first.left), (1, 1, 0));
    assert_eq!((second.erased(), second.logged, second.left), (0, 0, 0), "each is counted once, where it belongs");
    assert!(second.ended > Some(second.begun));
    assert_eq!((world.table("orders.instances"), world.table("orders.records")), (0, 0));
}

#[test]
fn an_instance_on_its_way_out_is_no_stranger_to_its_administrator_and_is_one_to_others() {
    let mut world = three_phones(909);
    world.pbx().registrar.delay = secs(1);
    let (id, _) = world.key_of("alice");
    world.delete("alice");
    let order = |tenant: &str| Command::EraseAll { tenant: tenant.into(), whom: Whom::Instance(id) };
    let foreign = world.command(order("beta"));
    assert_eq!(world.refusal(foreign), Some(Refusal::NotFound));
    let asked = world.command(order(TENANT));
    assert!(world.answer(asked).is_none());
    world.run_until_quiet();
    assert_eq!((together(&world, &[asked]).erased(), together(&world, &[asked]).left), (0, 0));
    assert_eq!(erasures(&world), [(Cause::Deleted, Unregister::Confirmed)]);
}

#[test]
fn an_app_that_comes_to_the_foreground_before_its_turn_is_still_erased_and_counted_then() {
    let mut world = World::new(seed(898))
        .with_shards(1)
        .with_policy(|policy| (policy.registrars.rate, policy.limits.instances) = (10_000, 1_000));
    for number in 0..300 {
        let name = format!("phone{number}");
        world.add_phone(&name);
        let mut offer = world.offer(&name);
        offer.preferences.mode = Mode::Background;
        world.hand_over_this(&name, offer);
    }
    world.run_until_quiet();
    let keys: Vec<_> = (0..300).map(|number| world.key_of(&format!("phone{number}"))).collect();
    let (last, token) = keys.into_iter().max_by_key(|(id, _)| *id).expect("phones");
    let asked = world.ask_every_shard(everyone);
    let foreground = world.command(Command::Foreground(last, token, Parting::Keep));
    world.run_until_quiet();
    assert!(world.answer(foreground).is_some());
    let view = together(&world, &asked);
    assert_eq!((view.erased(), view.left), (300, 0));
    assert!(!view.unregister.contains_key(&Unregister::Kept), "that was no end: {:?}", view.unregister);
    world.assert_empty();
}

#[test]
fn a_tenant_that_gives_many_orders_pushes_out_its_own_and_not_another_ones() {
    let mut world = World::new(seed(899)).with_shards(1);
    let order = |tenant: &str, number: u32| Command::EraseAll {
        tenant: tenant.into(),
        whom: Whom::Device(format!("urn:uuid:{number}")),
    };
    let begun = |world: &World, asked: u64| together(world, &[asked]).begun;
    let asked = world.command_at(ShardId(0), order("beta", 0));
    let first = begun(&world, asked);
    world.run_for(secs(10));
    for number in 0..2000 {
        world.command_at(ShardId(0), order(TENANT, number));
    }
    world.run_for(secs(10));
    assert_eq!(world.table("orders"), 1024);
    let asked = world.command_at(ShardId(0), order("beta", 0));
    assert_eq!(begun(&world, asked), first, "still remembered");
    let asked = world.command_at(ShardId(0), order(TENANT, 0));
    assert!(begun(&world, asked) > first);
}
