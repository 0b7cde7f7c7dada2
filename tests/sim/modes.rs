//! Registration modes: in the background only, and in the place of other contacts; and what is told of those.

use std::time::Duration;

use reveille::engine::audit::{Cause, Unregister};
use reveille::engine::input::{Command, Mode, Parting, Preferences, Rectification};
use reveille::engine::output::{Answer, ForegroundView, Refusal, RegistrationState, RegistrationView, WakeKind};

use crate::pbx::{NonceLife, Verdict};
use crate::share::{erasures, offer_of};
use crate::world::build::password;
use crate::world::{World, hours, millis, minutes, secs, seed};

const DESK: &str = "sip:alice@10.0.0.9:5062";

#[test]
fn in_the_foreground_the_secret_is_wiped_at_once_and_the_contact_released() {
    let mut world = background(301);
    let asked = foreground(&mut world, "alice", Parting::Release);
    let secrets = held(&mut world, "alice");
    assert_eq!(secrets, (false, 0), "wiped before anything is answered");
    world.run_for(secs(1));

    let view = answered(&world, asked);
    assert_eq!(view.kept, None);
    assert!(view.receipt.record.contains("\"cause\":\"foreground\""));
    assert_eq!(erasures(&world), [(Cause::Foreground, Unregister::Unanswered)]);
    assert!(world.pbx().contacts("alice").is_empty(), "the nonce at hand did");
    let registers = world.pbx().registers.len();
    world.run_for(hours(20));
    assert_eq!(world.pbx().registers.len(), registers, "nothing is refreshed, tried or given up");
    assert_eq!(state(&mut world, "alice"), (RegistrationState::Foreground, None));
    assert_eq!(world.pushed(WakeKind::Reprovision), 0);
    world.assert_nothing_left();
}

#[test]
fn a_challenge_to_the_release_finds_nobody_and_calls_are_not_ours_meanwhile() {
    let mut world = World::new(seed(302)).with_pbx(|pbx| pbx.registrar.nonces = NonceLife::OneRequest);
    world = background_in(world);
    foreground(&mut world, "alice", Parting::Release);
    world.run_for(secs(2));
    assert_eq!(world.pbx().verdicts().last(), Some(&401));
    assert_eq!(world.pbx().contacts("alice").len(), 1, "until it lapses");

    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    assert_eq!(world.pbx().final_response(call), Some(480));
    assert_eq!(world.pushed(WakeKind::Call), 0, "no push for calls the app has taken over");
    world.run_for(minutes(11));
    assert!(world.pbx().contacts("alice").is_empty());
    world.assert_nothing_left();
}

#[test]
fn a_kept_contact_stays_until_its_expiry_and_calls_go_on_reaching_it() {
    let mut world = background(303);
    world.run_for(minutes(2));
    let asked = foreground(&mut world, "alice", Parting::Keep);
    world.run_for(secs(1));
    let kept = answered(&world, asked).kept.expect("kept");
    assert_eq!(vec![kept.contact], world.pbx().contacts("alice"));
    assert!(kept.expires <= secs(480) && kept.expires > secs(400), "{:?}", kept.expires);
    assert_eq!(erasures(&world), [(Cause::Foreground, Unregister::Kept)]);

    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.run_until_quiet();
    let registers = world.pbx().registers.len();
    world.run_for(hours(20));
    assert_eq!(world.pbx().registers.len(), registers);
    assert_eq!(state(&mut world, "alice"), (RegistrationState::Foreground, None));
    world.assert_nothing_left();
}

#[test]
fn asked_again_it_answers_the_same_and_in_mode_always_it_refuses() {
    let mut world = background(304);
    world.audit_delay = millis(500);
    let first = foreground(&mut world, "alice", Parting::Release);
    let second = foreground(&mut world, "alice", Parting::Release);
    world.run_for(secs(1));
    let third = foreground(&mut world, "alice", Parting::Keep);
    let receipts: Vec<_> =
        [first, second, third].into_iter().map(|asked| answered(&world, asked).receipt.signature.clone()).collect();
    assert!(receipts.iter().all(|it| *it == receipts[0]), "{receipts:?}");
    assert_eq!(erasures(&world).len(), 1);

    let mut world = World::new(seed(305)).with_sleeping_phone("alice");
    let asked = foreground(&mut world, "alice", Parting::Release);
    assert_eq!(world.refusal(asked), Some(Refusal::WrongMode));
    let (id, token) = world.key_of("alice");
    let preferences = Some(Preferences { mode: Mode::Background, ..Preferences::default() });
    world.command(Command::Rectify(id, token, Box::new(Rectification { preferences, ..Rectification::default() })));
    let asked = foreground(&mut world, "alice", Parting::Release);
    world.run_until_quiet();
    answered(&world, asked);
}

#[test]
fn handed_over_again_it_is_the_same_registrant_with_a_new_token() {
    for parting in [Parting::Release, Parting::Keep] {
        let mut world = background(306);
        let (instance, old) = world.key_of("alice");
        let first = world.pbx().registers[1].clone();
        foreground(&mut world, "alice", parting);
        world.run_for(hours(2));
        let asked = hand_over(&mut world, "alice", Mode::Background);
        world.run_until_quiet();

        let handed = world.handed_over(asked);
        assert!(handed.replaced && handed.instance == instance);
        assert_eq!(handed.registration.state, RegistrationState::Registered);
        let last = world.pbx().registers.last().expect("a registration").clone();
        assert_eq!((last.code, &last.call_id, &last.contact), (200, &first.call_id, &first.contact));
        assert!(last.cseq > first.cseq && world.pbx().out_of_order == 0);
        let shown = world.command(Command::Show(instance, old));
        assert_eq!(world.refusal(shown), Some(Refusal::NotFound));
        world.run_for(hours(2));
        assert_eq!(world.pbx().contacts("alice").len(), 1, "refreshed again");
        let call = world.call_and_wait("alice");
        assert_eq!(world.pbx().final_response(call), Some(200));
        world.pbx().hang_up(call);
        world.assert_nothing_left();

        let again = foreground(&mut world, "alice", Parting::Release);
        world.run_until_quiet();
        answered(&world, again);
        assert_eq!(erasures(&world).len(), 2, "a receipt for each copy");
    }
}

#[test]
fn the_late_record_of_an_earlier_wipe_is_not_the_answer_to_a_later_one() {
    let mut world = background(318);
    world.audit_delay = secs(3);
    foreground(&mut world, "alice", Parting::Release);
    world.run_for(secs(1));
    let back = hand_over(&mut world, "alice", Mode::Background);
    world.run_for(secs(1));
    assert!(world.handed_over(back).replaced);
    let second = foreground(&mut world, "alice", Parting::Keep);
    world.run_for(secs(10));
    let again = foreground(&mut world, "alice", Parting::Keep);
    world.run_for(secs(1));
    let (told, repeated) = (answered(&world, second), answered(&world, again));
    assert_eq!(told.receipt.signature, repeated.receipt.signature);
    assert!(repeated.kept.is_some());
}

#[test]
fn wrong_credentials_leave_it_in_the_foreground_with_its_token() {
    let mut world = background(307);
    foreground(&mut world, "alice", Parting::Release);
    world.run_for(secs(1));
    let mut offer = world.offer("alice");
    offer.material = password("a typo");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));
    assert_eq!(state(&mut world, "alice").0, RegistrationState::Foreground);
    let asked = hand_over(&mut world, "alice", Mode::Background);
    world.run_until_quiet();
    assert!(world.handed_over(asked).replaced);
    world.assert_nothing_left();
}

#[test]
fn a_registrar_that_moved_meanwhile_is_found_and_one_that_is_silent_is_told() {
    let mut world = background(308);
    foreground(&mut world, "alice", Parting::Release);
    world.run_for(secs(1));
    world.pbx().registrar.verdict = Verdict::Silent;
    let asked = hand_over(&mut world, "alice", Mode::Background);
    world.run_for(secs(4));
    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
    world.pbx().registrar.verdict = Verdict::Fair;
    let edge = "192.0.2.5:5060".parse().expect("an address");
    let there: std::net::SocketAddr = "198.51.100.77:5060".parse().expect("an address");
    world.pbx().move_to(there, edge);
    let located = reveille::engine::input::Located { transport: reveille::sip::Transport::Udp, address: there };
    world.names.insert(crate::world::build::DOMAIN.to_owned(), Ok(vec![located]));
    world.run_for(hours(1));
    let asked = hand_over(&mut world, "alice", Mode::Background);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world.assert_nothing_left();
}

#[test]
fn a_foreground_instance_can_be_erased_and_its_lease_ends() {
    for parting in [Parting::Release, Parting::Keep] {
        let mut world = background(309);
        foreground(&mut world, "alice", parting);
        world.run_for(secs(1));
        let asked = world.delete("alice");
        world.run_until_quiet();
        assert!(matches!(world.answer(asked), Some(Answer::Erased { .. })));
        world.assert_empty();

        let mut world = background(310);
        foreground(&mut world, "alice", parting);
        world.run_for(hours(73));
        world.assert_empty();
    }
}

#[test]
fn of_a_shared_binding_only_its_own_copy_is_wiped_and_the_others_go_on() {
    for (forward, other) in [("alice", "tablet"), ("tablet", "alice")] {
        for parting in [Parting::Release, Parting::Keep] {
            let mut world = background(311).with_phone("tablet");
            let mut offer = offer_of(&world, "tablet");
            offer.preferences.mode = Mode::Background;
            world.hand_over_this("tablet", offer);
            world.run_until_quiet();
            let registers = world.pbx().registers.len();

            let asked = foreground(&mut world, forward, parting);
            world.run_for(secs(1));
            assert_eq!(answered(&world, asked).kept.is_some(), parting == Parting::Keep);
            assert_eq!(erasures(&world), [(Cause::Foreground, Unregister::Shared)]);
            assert_eq!(world.pbx().registers.len(), registers, "the registrar hears nothing of it");
            assert_eq!(state(&mut world, forward).0, RegistrationState::Foreground);
            assert_eq!(state(&mut world, other).0, RegistrationState::Registered);
            let call = world.call_and_wait("alice");
            let woken: Vec<_> = world.pushes.iter().map(|push| push.token.clone()).collect();
            assert!(woken.iter().all(|token| token.contains(other)) && !woken.is_empty(), "{woken:?}");
            world.pbx().hang_up(call);
            world.run_for(hours(3));
            assert_eq!(world.pbx().contacts("alice").len(), 1);

            let mut offer = offer_of(&world, forward);
            offer.preferences.mode = Mode::Background;
            let asked = world.hand_over_this(forward, offer);
            world.run_until_quiet();
            assert!(world.handed_over(asked).replaced);
            assert_eq!((world.table("bindings"), world.table("leases")), (1, 2), "back in the shared binding");
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            world.assert_nothing_left();
            for name in [forward, other] {
                world.delete(name);
                world.run_until_quiet();
            }
            world.assert_empty();
        }
    }
}

#[test]
fn back_from_the_foreground_with_a_new_password_it_joins_the_others_after_a_trial() {
    let mut world = background(312).with_phone("tablet");
    let offer = offer_of(&world, "tablet");
    world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    foreground(&mut world, "alice", Parting::Release);
    world.run_for(secs(1));
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = offer_of(&world, "alice");
    offer.material = password("new at the PBX");
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert!(world.handed_over(asked).replaced);
    assert_eq!((world.table("bindings"), world.table("leases"), world.table("vault")), (1, 2, 2));
    world.run_for(hours(2));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn who_is_erased_while_its_new_password_is_tried_on_another_devices_binding_leaves_no_secret_and_no_question_open() {
    for wait in [millis(1), millis(15), millis(35)] {
        let mut world = background(314).with_phone("tablet");
        let offer = offer_of(&world, "tablet");
        world.hand_over_this("tablet", offer);
        world.run_until_quiet();
        foreground(&mut world, "alice", Parting::Release);
        world.run_for(secs(1));
        world.pbx().set_password("alice", "new at the PBX");
        let mut offer = offer_of(&world, "alice");
        offer.material = password("new at the PBX");
        let asked = world.hand_over_this("alice", offer);
        world.run_for(wait);
        let erased = world.delete("alice");
        world.run_until_quiet();
        assert!(matches!(world.answer(erased), Some(Answer::Erased { .. })));
        assert_eq!(
            world.refusal(asked),
            Some(Refusal::Gone { cause: Cause::Deleted, receipt: None }),
            "{wait:?}: whoever asked is told"
        );
        assert_eq!((world.table("leases"), world.table("vault")), (1, 1), "{wait:?}");
        world.assert_nothing_left();
    }
}

#[test]
fn a_takeover_takes_the_place_of_the_contacts_there_are_and_hands_it_back() {
    for one_contact in [false, true] {
        for deleting in [false, true] {
            let mut world = World::new(seed(313)).with_phone("alice");
            world.pbx().registrar.one_contact = one_contact;
            world.pbx().add_desk("alice", DESK, minutes(50));
            let asked = hand_over(&mut world, "alice", Mode::Takeover);
            world.run_until_quiet();
            let told = world.handed_over(asked).registration.clone();
            assert_eq!(told.state, RegistrationState::Registered);
            assert_eq!(counts(&told), (0, 0, 1));
            assert!(world.pbx().desks("alice").is_empty());
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            world.run_for(minutes(20));
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            let told = registration(&mut world, "alice");
            assert_eq!(counts(&told), (0, 0, 1));

            if deleting {
                world.delete("alice");
            } else {
                foreground(&mut world, "alice", Parting::Release);
            }
            world.run_for(secs(3));
            assert_eq!(world.pbx().desks("alice"), [DESK], "one: {one_contact}, deleting: {deleting}");
            assert!(world.pbx().contacts("alice").is_empty());
            let left = world.pbx().desks[0].until.saturating_since(world.now.boot);
            assert!(left < minutes(30) && left > minutes(29), "{left:?}");
            world.assert_nothing_left();
        }
    }
}

#[test]
fn a_place_whose_time_is_over_is_not_handed_back() {
    let mut world = World::new(seed(314)).with_phone("alice");
    world.pbx().add_desk("alice", DESK, minutes(5));
    hand_over(&mut world, "alice", Mode::Takeover);
    world.run_for(minutes(10));
    world.delete("alice");
    world.run_until_quiet();
    assert!(world.pbx().desks.is_empty());
    world.assert_empty();
}

#[test]
fn a_takeover_begins_with_a_query_and_asks_but_once() {
    let mut world = World::new(seed(315)).with_phone("alice");
    hand_over(&mut world, "alice", Mode::Takeover);
    world.run_for(hours(3));
    let queries: Vec<_> = world.pbx().registers.iter().map(|it| it.contact.is_empty()).collect();
    assert_eq!(&queries[..3], [true, true, false], "asked, challenged, registered");
    assert!(queries[3..].iter().all(|query| !query));
    world.assert_nothing_left();
}

#[test]
fn other_contacts_are_counted_and_those_that_a_registrar_dropped_too() {
    let mut world = World::new(seed(316)).with_phone("alice");
    world.pbx().add_desk("alice", DESK, hours(5));
    world.pbx().add_desk("alice", "sip:alice@10.0.0.10:5062", minutes(5));
    let asked = world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!(counts(&world.handed_over(asked).registration), (2, 0, 0));
    world.run_for(minutes(11));
    let told = registration(&mut world, "alice");
    assert_eq!(counts(&told), (1, 0, 0), "one lapsed by itself");
    world.pbx().registrar.one_contact = true;
    world.run_for(minutes(11));
    let told = registration(&mut world, "alice");
    assert_eq!(counts(&told), (0, 1, 0));
    world.assert_nothing_left();
}

fn background(number: u64) -> World {
    background_in(World::new(seed(number)))
}

fn background_in(world: World) -> World {
    let mut world = world.with_phone("alice");
    let asked = hand_over(&mut world, "alice", Mode::Background);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world
}

fn hand_over(world: &mut World, name: &str, mode: Mode) -> u64 {
    let mut offer = world.offer(name);
    offer.preferences.mode = mode;
    world.hand_over_this(name, offer)
}

fn foreground(world: &mut World, name: &str, parting: Parting) -> u64 {
    let (id, token) = world.key_of(name);
    world.command(Command::Foreground(id, token, parting))
}

fn answered(world: &World, asked: u64) -> ForegroundView {
    let Some(Answer::Foreground(view)) = world.answer(asked) else { panic!("{:?}", world.refusal(asked)) };
    ForegroundView::clone(view)
}

fn registration(world: &mut World, name: &str) -> RegistrationView {
    let asked = world.show(name);
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view") };
    view.registration.clone()
}

fn state(world: &mut World, name: &str) -> (RegistrationState, Option<Duration>) {
    let told = registration(world, name);
    (told.state, told.expires)
}

fn counts(told: &RegistrationView) -> (u32, u32, u32) {
    (told.other_contacts, told.dropped_contacts, told.replaced_contacts)
}

/// Whether a password is held, and how many hashes.
fn held(world: &mut World, name: &str) -> (bool, usize) {
    let (id, token) = world.key_of(name);
    let asked = world.command(Command::Data(id, token));
    let Some(Answer::Data(data)) = world.answer(asked) else { panic!("data") };
    (data.password, data.ha1.len())
}
