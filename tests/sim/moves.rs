//! An account changes its place (registrar, proxy, pin, user, style of its Contact): the new place is tried beside the
//! former one, and takes over when it grants.

use reveille::engine::input::{Command, Mode, Parting, Preferences, Rectification};
use reveille::engine::output::{Answer, HandedOver, Refusal, RegistrationState};

use crate::pbx::Verdict;
use crate::world::build::{account, password, password_of, registrar};
use crate::world::{World, hours, millis, minutes, secs, seed};

pub const DEAD: &str = "sip:198.51.100.99";
pub const OTHER: &str = "198.51.100.20:5060";

#[test]
fn a_dead_proxy_is_422_and_nothing_changes_by_post_and_by_patch() {
    for by_post in [true, false] {
        let mut world = World::new(seed(801)).with_sleeping_phone("alice");
        let contacts = world.pbx().contacts("alice");
        let registers = world.pbx().registers.len();
        let asked = if by_post { post_via(&mut world, DEAD) } else { patch_via(&mut world, DEAD) };
        world.run_for(millis(2900));
        assert!(world.answer(asked).is_none());
        world.run_for(millis(200));
        assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
        let sent = world.mailbox.len();
        assert!((1..=3).contains(&sent), "{sent}");
        assert_eq!(state(&mut world), RegistrationState::Registered, "the token is the same, and good");
        assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
        assert_eq!((world.pbx().contacts("alice"), world.pbx().registers.len()), (contacts, registers));
        world.run_for(minutes(5));
        assert_eq!(world.mailbox.len(), sent, "the dead proxy hears no more of us");
        calls_come(&mut world);
        world.run_for(hours(2));
        assert_eq!(state(&mut world), RegistrationState::Registered);
        world.assert_nothing_left();
    }
}

#[test]
fn a_proxy_that_is_known_to_be_dead_is_422_too_without_being_asked() {
    let mut world = World::new(seed(823)).with_sleeping_phone("alice");
    let dead = "sip:198.51.100.99;transport=tcp";
    let asked = post_via(&mut world, dead);
    world.run_for(secs(4));
    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
    let asked = patch_via(&mut world, dead);
    world.run_for(secs(4));
    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
    assert_eq!(state(&mut world), RegistrationState::Registered);
    assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
    calls_come(&mut world);
    world.assert_nothing_left();
}

#[test]
fn back_from_a_dead_proxy_is_as_if_it_had_never_been() {
    let mut world = World::new(seed(802)).with_sleeping_phone("alice");
    let asked = post_via(&mut world, DEAD);
    world.run_for(secs(4));
    assert!(world.refusal(asked).is_some());
    let asked = world.hand_over("alice");
    world.run_for(millis(500));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world.run_for(hours(1));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_place_that_refuses_is_422_at_once_and_nothing_changes() {
    for verdict in [Verdict::NeverContent, Verdict::Code(403, None), Verdict::Code(404, None)] {
        for by_post in [true, false] {
            let mut world = World::new(seed(803)).with_sleeping_phone("alice");
            let other = world.add_pbx("proxy.example.com", OTHER);
            world.pbx_at(other).registrar.verdict = verdict.clone();
            let text = "sip:proxy.example.com";
            let asked = if by_post { post_via(&mut world, text) } else { patch_via(&mut world, text) };
            world.run_for(secs(1));
            assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{:?}", world.refusal(asked));
            assert_eq!(state(&mut world), RegistrationState::Registered);
            world.run_until_quiet();
            assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
            let heard = world.pbx_at(other).registers.len();
            world.run_for(hours(2));
            assert_eq!(world.pbx_at(other).registers.len(), heard);
            calls_come(&mut world);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_place_that_grants_takes_over_and_the_former_is_left_with_its_own_credentials() {
    for by_post in [true, false] {
        for fresh_nonces in [true, false] {
            let mut world = World::new(seed(804)).with_sleeping_phone("alice");
            let (id, _) = world.key_of("alice");
            let other = world.add_pbx("proxy.example.com", OTHER);
            world.pbx_at(other).registrar.realm = "proxy".to_owned();
            if fresh_nonces {
                world.pbx().forget_nonces();
            }
            let text = "sip:proxy.example.com";
            let asked = if by_post { post_via(&mut world, text) } else { patch_via(&mut world, text) };
            world.run_until_quiet();
            if by_post {
                let handed: &HandedOver = world.handed_over(asked);
                assert!(handed.replaced && handed.instance == id);
                assert_eq!(handed.registration.state, RegistrationState::Registered);
            } else {
                let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view") };
                assert_eq!(view.registration.state, RegistrationState::Registered);
            }
            assert!(world.pbx().contacts("alice").is_empty(), "also where the un-REGISTER is challenged");
            assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
            assert_eq!((world.table("vault"), world.table("bindings"), world.table("leases")), (1, 1, 1));
            nothing_went_over(&mut world, other);
            world.run_for(hours(2));
            assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_place_that_is_busy_is_202_and_the_former_one_goes_on_until_it_grants() {
    for by_post in [true, false] {
        let mut world = World::new(seed(805)).with_sleeping_phone("alice");
        let other = world.add_pbx("proxy.example.com", OTHER);
        world.pbx_at(other).registrar.verdict = Verdict::Code(503, None);
        let text = "sip:proxy.example.com";
        let (id, token) = world.key_of("alice");
        let asked = if by_post { post_via(&mut world, text) } else { patch_via(&mut world, text) };
        world.run_for(millis(3100));
        if by_post {
            assert!(world.handed_over(asked).replaced);
            let new = world.show("alice");
            assert!(matches!(world.answer(new), Some(Answer::Instance(_))), "202 mints a token, as ever");
            let old = world.command(Command::Show(id, token));
            assert_eq!(world.refusal(old), Some(Refusal::NotFound));
        } else {
            assert!(matches!(world.answer(asked), Some(Answer::Instance(_))));
        }
        assert_eq!(state(&mut world), RegistrationState::Registered, "by the former place");
        assert_eq!(world.table("vault"), 2);
        calls_come(&mut world);
        world.pbx_at(other).registrar.verdict = Verdict::Fair;
        world.run_for(hours(1));
        assert!(world.pbx().contacts("alice").is_empty());
        assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
        assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
        world.assert_nothing_left();
    }
}

#[test]
fn a_place_that_refuses_later_leaves_the_former_one_as_it_is() {
    let mut world = World::new(seed(806)).with_sleeping_phone("alice");
    let other = world.add_pbx("proxy.example.com", OTHER);
    world.pbx_at(other).registrar.verdict = Verdict::Code(503, None);
    let asked = post_via(&mut world, "sip:proxy.example.com");
    world.run_for(secs(4));
    assert!(world.handed_over(asked).replaced);
    world.pbx_at(other).registrar.verdict = Verdict::NeverContent;
    world.run_for(hours(2));
    assert_eq!(state(&mut world), RegistrationState::Registered);
    assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_place_that_never_grants_is_given_up_after_twelve_hours() {
    let mut world = World::new(seed(807)).with_sleeping_phone("alice");
    let other = world.add_pbx("proxy.example.com", OTHER);
    world.pbx_at(other).registrar.verdict = Verdict::Code(503, None);
    post_via(&mut world, "sip:proxy.example.com");
    world.run_for(hours(13));
    assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
    let heard = world.pbx_at(other).registers.len();
    world.run_for(hours(3));
    assert_eq!(world.pbx_at(other).registers.len(), heard);
    assert_eq!(state(&mut world), RegistrationState::Registered);
    world.assert_nothing_left();
}

#[test]
fn whatever_ends_the_instance_ends_the_move_too_and_leaves_no_secret() {
    let ends: [fn(&mut World); 4] = [
        |world| _ = world.delete("alice"),
        |world| world.run_for(hours(73)),
        World::drain,
        |world| {
            let (id, token) = world.key_of("alice");
            world.command(Command::Foreground(id, token, Parting::Release));
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        for answered in [true, false] {
            let mut world = World::new(seed(808)).with_sleeping_phone("alice");
            let other = world.add_pbx("proxy.example.com", OTHER);
            world.pbx_at(other).registrar.verdict = Verdict::Code(503, None);
            let (id, token) = world.key_of("alice");
            let preferences = Some(Preferences { mode: Mode::Background, ..Preferences::default() });
            let change = Rectification { preferences, ..Rectification::default() };
            world.command(Command::Rectify(id, token, Box::new(change)));
            let asked = patch_via(&mut world, "sip:proxy.example.com");
            world.run_for(if answered { secs(4) } else { secs(1) });
            assert_eq!(world.answer(asked).is_some(), answered);
            assert_eq!(world.table("vault"), 2);
            end(&mut world);
            world.run_for(secs(5));
            assert!(world.answer(asked).is_some());
            let heard = world.pbx_at(other).registers.len();
            world.run_for(hours(1));
            assert_eq!(world.pbx_at(other).registers.len(), heard, "end {number}");
            if number == 3 {
                assert_eq!(world.table("bindings"), 1);
                world.delete("alice");
            }
            world.run_until_quiet();
            world.assert_empty();
        }
    }
}

#[test]
fn the_receipt_comes_when_the_former_places_credentials_are_wiped_too() {
    let mut world = World::new(seed(809)).with_sleeping_phone("alice");
    let other = world.add_pbx("proxy.example.com", OTHER);
    let asked = patch_via(&mut world, "sip:proxy.example.com");
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_until(secs(1), |world| world.answer(asked).is_some());
    assert_eq!(world.table("vault"), 2, "the un-REGISTER may be challenged");
    world.pbx_at(other).registrar.verdict = Verdict::Silent;
    let deleted = world.delete("alice");
    assert_eq!(world.table("vault"), 1, "of the former place nothing is held any more");
    world.run_until_quiet();
    assert!(matches!(world.answer(deleted), Some(Answer::Erased { .. })));
    world.assert_empty();
}

#[test]
fn a_newer_change_takes_the_place_of_one_that_waits() {
    let mut world = World::new(seed(810)).with_sleeping_phone("alice");
    let slow = world.add_pbx("slow.example.com", OTHER);
    let good = world.add_pbx("good.example.com", "198.51.100.21:5060");
    world.pbx_at(slow).registrar.verdict = Verdict::Code(503, None);
    patch_via(&mut world, "sip:slow.example.com");
    world.run_for(secs(1));
    let early = patch_via(&mut world, "sip:good.example.com");
    world.run_for(millis(10));
    assert!(matches!(world.refusal(early), Some(Refusal::RateLimited { .. })), "one at a time while one is asked");
    world.run_for(secs(3));
    let asked = patch_via(&mut world, "sip:good.example.com");
    world.run_for(secs(2));
    assert!(matches!(world.answer(asked), Some(Answer::Instance(_))));
    world.pbx_at(slow).registrar.verdict = Verdict::Fair;
    world.run_for(hours(1));
    assert!(world.pbx_at(slow).contacts("alice").is_empty() && world.pbx().contacts("alice").is_empty());
    assert_eq!(world.pbx_at(good).contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_hand_over_for_the_former_place_ends_a_move_that_waits_but_a_wrong_password_does_not() {
    let mut world = World::new(seed(811)).with_sleeping_phone("alice");
    let other = world.add_pbx("proxy.example.com", OTHER);
    world.pbx_at(other).registrar.verdict = Verdict::Code(503, None);
    post_via(&mut world, "sip:proxy.example.com");
    world.run_for(secs(4));
    let mut offer = world.offer("alice");
    offer.material = password("a guess");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_for(secs(4));
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));
    assert_eq!(world.table("vault"), 2, "it still waits");
    let asked = world.hand_over("alice");
    world.run_for(secs(4));
    assert!(world.handed_over(asked).replaced);
    assert_eq!(world.table("vault"), 1);
    world.pbx_at(other).registrar.verdict = Verdict::Fair;
    world.run_for(hours(1));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    assert!(world.pbx_at(other).contacts("alice").is_empty());
    world.assert_nothing_left();
}

#[test]
fn the_same_change_again_goes_on_with_the_move_that_waits() {
    let mut world = World::new(seed(812)).with_sleeping_phone("alice");
    let other = world.add_pbx("proxy.example.com", OTHER);
    world.pbx_at(other).registrar.verdict = Verdict::Code(503, None);
    post_via(&mut world, "sip:proxy.example.com");
    world.run_for(minutes(2));
    world.pbx_at(other).registrar.verdict = Verdict::Fair;
    let asked = post_via(&mut world, "sip:proxy.example.com");
    world.run_for(secs(2));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    let ids: std::collections::BTreeSet<_> =
        world.pbx_at(other).registers.iter().map(|register| register.call_id.clone()).collect();
    assert_eq!(ids.len(), 1, "one registrant");
    world.run_for(minutes(1));
    assert!(world.pbx().contacts("alice").is_empty());
    world.assert_nothing_left();
}

pub fn via(text: &str) -> reveille::engine::account::Account {
    let mut account = account("alice");
    account.outbound_proxy = Some(registrar(text));
    account
}

pub fn post_via(world: &mut World, text: &str) -> u64 {
    let mut offer = world.offer("alice");
    offer.account = via(text);
    world.hand_over_this("alice", offer)
}

pub fn patch_via(world: &mut World, text: &str) -> u64 {
    let (id, token) = world.key_of("alice");
    let change = Rectification {
        account: Some(via(text)),
        material: Some(password(&password_of("alice"))),
        ..Rectification::default()
    };
    world.command(Command::Rectify(id, token, Box::new(change)))
}

pub fn state(world: &mut World) -> RegistrationState {
    let asked = world.show("alice");
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view: {:?}", world.refusal(asked)) };
    view.registration.state
}

pub fn calls_come(world: &mut World) {
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.run_until_quiet();
}

/// Nothing that was made for one of two places was seen by the other: Contact, Call-ID, nonce, CSeq.
fn nothing_went_over(world: &mut World, other: usize) {
    let here: Vec<_> = world.pbx().registers.clone();
    let there: Vec<_> = world.pbx_at(other).registers.clone();
    assert_eq!(there[0].cseq, 1);
    assert_eq!(there[0].nonce, None, "the first request is unsigned");
    for (a, b) in here.iter().flat_map(|a| there.iter().map(move |b| (a, b))) {
        assert!(a.contact != b.contact && a.call_id != b.call_id);
    }
}
