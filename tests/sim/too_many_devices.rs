//! Accounts with as many devices as they may have: an idle one gives way to a newcomer with the credentials; else the
//! newcomer learns when the first lease ends.

use std::time::Duration;

use reveille::engine::input::{Command, HandOver};
use reveille::engine::output::{RegistrationState, WakeKind};

use crate::pbx::Verdict;
use crate::share::{erasures, offer_of};
use crate::world::build::{password, targets};
use crate::world::{World, hours, minutes, secs, seed};

#[test]
fn a_newcomer_is_told_when_the_first_lease_ends_and_strangers_are_not() {
    let mut world = full(721);
    world.run_for(hours(5));
    let asked = newcomer(&mut world, 3);
    world.run_until_quiet();
    let told = wait(&world, asked).expect("too many devices");
    let left = hours(72) - hours(5);
    assert!(told < left && told + minutes(1) > left, "until the first lease ends: {told:?}");

    let mut guess = device(&world, 4);
    guess.material = password("a guess");
    let asked = world.command(Command::HandOver(Box::new(guess)));
    world.run_until_quiet();
    assert_eq!(wait(&world, asked), None, "only the owner of the account learns of its devices");
    assert_eq!(world.table("leases"), 2);
    assert_eq!(world.table("places"), 2, "the newcomer's place was given back");
    world.assert_nothing_left();
}

#[test]
fn credentials_that_register_by_themselves_are_told_the_same() {
    let mut world = full(722);
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = device(&world, 3);
    offer.material = password("new at the PBX");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_until_quiet();
    let told = wait(&world, asked).expect("too many devices");
    assert!(told > hours(71) && told < hours(72), "{told:?}");
    assert_eq!((world.table("vault"), world.table("places")), (2, 2));
}

#[test]
fn the_device_that_was_idle_longest_gives_way_after_a_day_and_is_told() {
    let mut world = full(723);
    world.run_for(hours(2));
    refresh(&mut world, "alice");
    world.run_for(hours(23));
    let tablet = world.key_of("tablet");
    let asked = newcomer(&mut world, 3);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    let shown = world.command(Command::Show(tablet.0, tablet.1));
    assert!(format!("{:?}", world.refusal(shown)).contains("Replaced"));
    assert_eq!(erasures(&world).len(), 1);
    let told: Vec<_> = world.pushes.iter().filter(|push| push.kind == WakeKind::Reprovision).collect();
    assert_eq!(told.len(), 1, "another phone, and it did not end by its own wish");
    assert!(told[0].token.starts_with("push-token-tablet"));

    // The others have been used within a day.
    let asked = newcomer(&mut world, 4);
    world.run_until_quiet();
    assert!(wait(&world, asked).is_some());
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_device_that_is_attached_or_was_within_a_day_does_not_give_way() {
    let mut world = full(724);
    world.phone("alice").attach();
    world.run_for(hours(20));
    world.phone("tablet").attach();
    world.run_for(minutes(1));
    world.phone("tablet").detach();
    world.run_for(hours(10));
    let asked = newcomer(&mut world, 3);
    world.run_until_quiet();
    assert!(wait(&world, asked).is_some(), "one is attached, the other was ten hours ago");
    world.run_for(hours(15));
    let asked = newcomer(&mut world, 4);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    assert_eq!(erasures(&world).len(), 1);
}

#[test]
fn the_only_device_an_account_may_have_gives_way_without_a_gap() {
    let mut world = World::new(seed(725)).with_policy(|policy| policy.limits.devices_per_account = 1);
    world = world.with_sleeping_phone("alice");
    let registers = world.pbx().registers.len();
    let asked = newcomer(&mut world, 2);
    world.run_until_quiet();
    assert!(wait(&world, asked).is_some());
    assert_eq!(world.pbx().registers.len(), registers);
    world.run_for(hours(25));
    let registers = world.pbx().registers.len();
    let asked = newcomer(&mut world, 2);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    assert_eq!(world.pbx().registers.len(), registers, "the registration goes on with the newcomer's copy");
    assert_eq!((world.table("leases"), world.table("vault"), world.pbx().contacts("alice").len()), (1, 1, 1));
    world.assert_nothing_left();
}

#[test]
fn a_full_account_s_own_phone_is_reinstalled_at_once() {
    let mut world = full(726);
    let mut offer = offer_of(&world, "tablet");
    offer.device = "urn:uuid:installed-again".to_owned();
    let asked = world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    assert_eq!((world.table("leases"), erasures(&world).len()), (2, 1));
    world.assert_nothing_left();
}

#[test]
fn trials_under_way_are_another_matter_and_over_soon() {
    let mut world = World::new(seed(727)).with_policy(|policy| policy.limits.devices_per_account = 2);
    world.add_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    for number in 1..=2 {
        let mut guess = device(&world, number);
        guess.material = password(&format!("guess {number}"));
        world.command(Command::HandOver(Box::new(guess)));
    }
    let asked = newcomer(&mut world, 3);
    let refusal = format!("{:?}", world.refusal(asked));
    assert!(refusal.contains("RateLimited") && refusal.contains("30s"), "{refusal}");
}

/// Alice's account with as many devices as it may have.
fn full(number: u64) -> World {
    let mut world = World::new(seed(number)).with_policy(|policy| policy.limits.devices_per_account = 2);
    world = world.with_sleeping_phone("alice").with_phone("tablet");
    let offer = offer_of(&world, "tablet");
    world.hand_over_this("tablet", offer);
    world.run_for(secs(1));
    world
}

/// What a further device of alice's would hand over.
fn device(world: &World, number: u32) -> HandOver {
    let mut offer = offer_of(world, "alice");
    offer.device = format!("urn:uuid:device-{number}");
    offer.push = targets(&format!("token-{number}"));
    offer
}

fn newcomer(world: &mut World, number: u32) -> u64 {
    let offer = device(world, number);
    world.command(Command::HandOver(Box::new(offer)))
}

fn refresh(world: &mut World, name: &str) {
    let (id, token) = world.key_of(name);
    world.command(Command::Refresh(id, token));
}

/// How long a newcomer is to wait for a lease to end, to the second.
fn wait(world: &World, asked: u64) -> Option<Duration> {
    match world.refusal(asked) {
        Some(reveille::engine::output::Refusal::TooManyDevices { after }) => Some(secs(after.as_secs())),
        _ => None,
    }
}
