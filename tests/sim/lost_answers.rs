//! Answers to hand-overs that never arrive: which token works then, and for how long.

use reveille::engine::ids::InstanceId;
use reveille::engine::input::{Command, HandOver, TokenHash};
use reveille::engine::output::{Answer, Refusal};

use crate::pbx::Verdict;
use crate::world::build::{TENANT, password};
use crate::world::{World, hours, millis, minutes, secs, seed};

/// How long the token of before goes on working.
const FORMER_LIFE_MINUTES: u64 = 10;

/// Hands over for alice's device; the answer is lost, so that her app goes on with the token it has. The new one.
fn lost(world: &mut World, offer: HandOver) -> TokenHash {
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_until_quiet();
    let handed = world.handed_over(asked);
    assert!(handed.replaced);
    World::token_hash(&handed.token)
}

fn lost_again(world: &mut World) -> TokenHash {
    let offer = world.offer("alice");
    lost(world, offer)
}

fn works(world: &mut World, instance: InstanceId, token: TokenHash) -> bool {
    let asked = world.command(Command::Show(instance, token));
    match world.answer(asked) {
        Some(Answer::Instance(_)) => true,
        Some(Answer::Refused(Refusal::NotFound)) => false,
        _ => panic!("neither shown nor unknown"),
    }
}

#[test]
fn a_device_whose_answers_were_lost_goes_on_with_its_token_until_it_uses_a_newer_one() {
    let mut world = World::new(seed(901)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let first = lost_again(&mut world);
    let second = lost_again(&mut world);
    assert!(works(&mut world, instance, old), "two answers in a row were lost");
    assert!(!works(&mut world, instance, first), "its answer was lost too, as far as anybody knows");
    assert!(works(&mut world, instance, old), "a use of the old one kills none");
    assert!(works(&mut world, instance, second));
    assert!(!works(&mut world, instance, old), "the newest has arrived");
    assert!(works(&mut world, instance, second));
    world.assert_nothing_left();
}

#[test]
fn the_token_of_before_dies_after_ten_minutes() {
    let mut world = World::new(seed(902)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let lost_at_once = |world: &mut World| {
        let offer = world.offer("alice");
        let asked = world.command(Command::HandOver(Box::new(offer)));
        world.run_for(millis(10));
        World::token_hash(&world.handed_over(asked).token)
    };
    lost_at_once(&mut world);
    world.run_for(minutes(FORMER_LIFE_MINUTES) - secs(1));
    assert!(works(&mut world, instance, old));
    // A further one that is lost makes it live no longer.
    let newest = lost_at_once(&mut world);
    world.run_for(secs(1));
    assert!(!works(&mut world, instance, old));
    assert!(works(&mut world, instance, newest));
}

#[test]
fn after_other_credentials_the_token_of_before_is_dead_at_once() {
    let mut world = World::new(seed(903)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = world.offer("alice");
    offer.material = password("new at the PBX");
    let newest = lost(&mut world, offer);
    assert!(!works(&mut world, instance, old));
    assert!(works(&mut world, instance, newest));
}

#[test]
fn other_credentials_kill_a_token_that_outlived_a_lost_answer() {
    let mut world = World::new(seed(904)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let lost_one = lost_again(&mut world);
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = world.offer("alice");
    offer.material = password("new at the PBX");
    lost(&mut world, offer);
    assert!(!works(&mut world, instance, old) && !works(&mut world, instance, lost_one));
}

#[test]
fn a_hand_over_that_is_refused_changes_no_token() {
    let mut world = World::new(seed(905)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let mut offer = world.offer("alice");
    offer.material = password("a guess");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));
    world.run_for(minutes(FORMER_LIFE_MINUTES + 1));
    assert!(works(&mut world, instance, old));
}

#[test]
fn a_call_finds_the_device_whose_answer_was_lost() {
    let mut world = World::new(seed(906)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let newest = lost_again(&mut world);
    // The phone attaches with the token it has.
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    assert!(works(&mut world, instance, old), "attaching with the old one is no use of the new one");
    assert!(works(&mut world, instance, newest));
    world.assert_nothing_left();
}

#[test]
fn attaching_with_the_new_token_kills_the_old_one() {
    let mut world = World::new(seed(907)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let asked = world.hand_over("alice");
    world.run_until_quiet();
    assert!(world.handed_over(asked).replaced);
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    assert!(!works(&mut world, instance, old));
}

#[test]
fn either_token_erases_and_either_gets_the_receipt() {
    let mut world = World::new(seed(908)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let newest = lost_again(&mut world);
    let asked = world.command(Command::Erase(instance, old));
    world.run_until_quiet();
    let Some(Answer::Erased { receipt, .. }) = world.answer(asked) else { panic!("erased") };
    let receipt = receipt.clone();
    world.run_for(hours(1));
    for token in [old, newest] {
        let again = world.command(Command::Erase(instance, token));
        assert!(matches!(world.answer(again), Some(Answer::Erased { receipt: told, .. }) if *told == receipt));
        let shown = world.command(Command::Show(instance, token));
        assert!(matches!(world.refusal(shown), Some(Refusal::Gone { .. })));
    }
    let stranger = world.command(Command::Erase(instance, TokenHash([7; 32])));
    assert_eq!(world.refusal(stranger), Some(Refusal::NotFound));
    world.assert_nothing_left();
}

#[test]
fn in_the_foreground_nothing_is_held_to_compare_with_and_the_old_token_dies() {
    use reveille::engine::input::{Mode, Parting, Preferences};
    let mut world = World::new(seed(909)).with_phone("alice");
    let mut offer = world.offer("alice");
    let preferences = Preferences { mode: Mode::Background, ..Preferences::default() };
    offer.preferences = preferences;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    let (instance, old) = world.key_of("alice");
    world.command(Command::Foreground(instance, old, Parting::Release));
    world.run_until_quiet();
    let offer = HandOver { preferences, ..world.offer("alice") };
    let newest = lost(&mut world, offer);
    assert!(!works(&mut world, instance, old));
    assert!(works(&mut world, instance, newest));
}

#[test]
fn a_change_of_place_with_the_held_credentials_keeps_the_old_token_too() {
    let mut world = World::new(seed(910)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let mut offer = world.offer("alice");
    offer.account.register_expires = secs(300);
    offer.account.contact_style = reveille::engine::account::ContactStyle::Username;
    let newest = lost(&mut world, offer);
    assert!(works(&mut world, instance, old));
    assert!(works(&mut world, instance, newest));
    assert!(!works(&mut world, instance, old));
}

#[test]
fn another_device_never_gets_at_the_first_ones_instance() {
    let mut world = World::new(seed(911)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    let offer = HandOver { device: "urn:uuid:another-device".to_owned(), ..world.offer("alice") };
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_until_quiet();
    // The same push target: it takes the first one's place, which gets its receipt and nothing more.
    let (other, token) = (world.handed_over(asked).instance, World::token_hash(&world.handed_over(asked).token));
    assert_ne!(other, instance);
    assert!(works(&mut world, other, token));
    assert!(!works(&mut world, other, old) && !works(&mut world, instance, token));
    let shown = world.command(Command::Show(instance, old));
    assert!(matches!(world.refusal(shown), Some(Refusal::Gone { .. })));
}

#[test]
fn a_hand_over_that_waits_for_the_registrar_leaves_the_old_token_good() {
    let mut world = World::new(seed(912)).with_sleeping_phone("alice");
    let (instance, old) = world.key_of("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(hours(1));
    let offer = world.offer("alice");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_for(millis(10));
    assert!(works(&mut world, instance, old), "nobody was answered yet");
    world.run_for(secs(10));
    assert!(matches!(world.answer(asked), Some(Answer::HandedOver(_))));
    assert!(works(&mut world, instance, old));
    world.pbx().registrar.verdict = Verdict::Fair;
    assert_eq!(&*world.handed_over(asked).tenant, TENANT);
}
