//! The registrar changes what it wants signed: its realm, its algorithm, the password. The app hands over again and is
//! registered, without an outage where that can be had.

use reveille::engine::input::{Command, Rectification};
use reveille::engine::output::{Answer, Refusal, RegistrationState, WakeKind};
use reveille::sip::auth::Algorithm;
use reveille::vault::{Ha1, Ha1Algorithm, Material};

use crate::pbx::{Pbx, Verdict};
use crate::share::offer_of;
use crate::world::build::{password, password_of};
use crate::world::{World, hours, millis, minutes, secs, seed};

/// What becomes unsignable for HA1s of realm `pbx` and SHA-256.
const CHANGES: [fn(&mut Pbx); 3] = [
    |pbx| pbx.registrar.realm = "elsewhere".to_owned(),
    |pbx| pbx.registrar.algorithms = vec![Algorithm::Md5],
    |pbx| {
        pbx.registrar.realm = "elsewhere".to_owned();
        pbx.registrar.algorithms = vec![Algorithm::Md5];
    },
];

#[test]
fn the_right_password_registers_in_one_exchange_after_a_change_of_realm_then_algorithm_then_password() {
    let mut world = strong(701);
    let (instance, _) = world.key_of("alice");
    let steps: [fn(&mut Pbx); 3] = [
        |pbx| pbx.registrar.realm = "elsewhere".to_owned(),
        |pbx| pbx.registrar.algorithms = vec![Algorithm::Md5],
        |pbx| pbx.set_password("alice", "new at the PBX"),
    ];
    for (number, step) in steps.into_iter().enumerate() {
        step(world.pbx());
        world.pbx().forget_nonces();
        world.run_for(minutes(12));
        assert_eq!(state(&mut world), RegistrationState::Failing);
        guess_is_refused(&mut world);

        let secret = if number == 2 { "new at the PBX".to_owned() } else { password_of("alice") };
        let before = world.pbx().registers.len();
        let mut offer = world.offer("alice");
        offer.material = password(&secret);
        let asked = world.hand_over_this("alice", offer);
        world.run_for(millis(500));
        let handed = world.handed_over(asked);
        assert!(handed.replaced && handed.instance == instance);
        assert_eq!(handed.registration.state, RegistrationState::Registered, "step {number}");
        let codes = world.pbx().verdicts();
        assert_eq!(codes[before..], [401, 200], "one challenge, one signed REGISTER");
        world.run_for(hours(2));
        assert_eq!(state(&mut world), RegistrationState::Registered);
        assert_eq!(world.pbx().contacts("alice").len(), 1);
    }
    world.assert_nothing_left();
}

#[test]
fn an_app_that_does_not_come_is_asked_once_for_each_change_and_the_twelve_hours_end_it() {
    for change in CHANGES {
        let mut world = strong(702);
        change(world.pbx());
        world.pbx().forget_nonces();
        let before = world.pbx().registers.len();
        world.run_until(hours(1), |world| world.pbx().registers.len() > before);
        world.run_for(minutes(4));
        assert_eq!(world.pushed(WakeKind::Reprovision), 0, "a PBX in reload challenges oddly: not at the first time");
        world.run_for(minutes(8));
        assert_eq!(world.pushed(WakeKind::Reprovision), 1);
        world.run_for(hours(11));
        assert_eq!(world.pushed(WakeKind::Reprovision), 1, "once");
        assert_eq!(world.table("leases"), 1, "what cannot be signed is no wrong password");
        let nonces: Vec<_> = world.pbx().registers[before..].iter().filter_map(|it| it.nonce.clone()).collect();
        assert!(nonces.iter().all(|nonce| *nonce == nonces[0]), "no new challenge was answered: {nonces:?}");
        world.run_for(hours(2));
        world.assert_empty();
        assert_eq!(world.pushed(WakeKind::Reprovision), 2, "and the last one says that it is over");
    }
}

#[test]
fn another_device_with_the_same_password_cures_the_binding_for_all() {
    for change in CHANGES {
        let mut world = strong(703);
        world.add_phone("tablet");
        change(world.pbx());
        world.pbx().forget_nonces();
        world.run_for(minutes(12));
        let offer = offer_of(&world, "tablet");
        let asked = world.hand_over_this("tablet", offer);
        world.run_for(millis(500));
        assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
        assert_eq!((world.table("leases"), world.table("bindings"), world.table("vault")), (2, 1, 2));
        world.run_for(hours(2));
        assert_eq!(world.pbx().contacts("alice").len(), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn patching_in_the_same_password_cures_the_binding() {
    for change in CHANGES {
        let mut world = strong(704);
        change(world.pbx());
        world.pbx().forget_nonces();
        world.run_for(minutes(12));
        let before = world.pbx().registers.len();
        let asked = patch(&mut world, &password_of("alice"));
        world.run_for(millis(500));
        let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("{:?}", world.refusal(asked)) };
        assert_eq!(view.registration.state, RegistrationState::Registered);
        assert_eq!(world.pbx().verdicts()[before..], [401, 200]);
        world.assert_nothing_left();
    }
}

#[test]
fn equal_credentials_for_a_registration_that_holds_are_answered_at_once_and_sign_what_comes() {
    let mut world = strong(705);
    let registers = world.pbx().registers.len();
    let asked = world.hand_over("alice");
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered, "at once");
    world.run_for(secs(1));
    assert_eq!(world.pbx().registers.len(), registers + 1, "the password becomes HA1 again");
    assert_eq!(world.pbx().verdicts().last(), Some(&200));
    assert!(!holds_password(&mut world));

    // Three in a row at most, not for each of many.
    for _ in 0..5 {
        let asked = world.hand_over("alice");
        world.run_for(secs(1));
        assert!(world.handed_over(asked).replaced);
    }
    assert_eq!(world.pbx().registers.len(), registers + 3);
    world.run_for(secs(30));
    assert_eq!(world.pbx().registers.len(), registers + 4);
    assert!(!holds_password(&mut world));
    assert_eq!(world.table("vault"), 1);
    world.assert_nothing_left();
}

#[test]
fn a_change_of_realm_just_before_the_app_hands_over_is_cured_though_nothing_failed_yet() {
    for change in CHANGES {
        let mut world = strong(706);
        change(world.pbx());
        world.pbx().forget_nonces();
        let asked = world.hand_over("alice");
        world.run_for(secs(1));
        assert!(world.handed_over(asked).replaced);
        assert_eq!(world.pbx().verdicts().last(), Some(&200));
        world.run_for(hours(2));
        assert_eq!(state(&mut world), RegistrationState::Registered);
        assert_eq!(world.pushed(WakeKind::Reprovision), 0);
    }
}

#[test]
fn fewer_hashes_of_the_same_password_take_nothing_away() {
    let mut world = strong(707);
    let value =
        |algorithm, realm: &str| reveille::sip::digest::ha1(algorithm, "alice", realm, password_of("alice").as_bytes());
    let mut offer = world.offer("alice");
    let strong = Ha1::new("pbx".to_owned(), Ha1Algorithm::Sha512256, value(Algorithm::Sha512256, "pbx"));
    let further = Ha1::new("elsewhere".to_owned(), Ha1Algorithm::Md5, value(Algorithm::Md5, "elsewhere"));
    offer.material = Material::Ha1(vec![strong.expect("a hash"), further.expect("a hash")]);
    let asked = world.hand_over_this("alice", offer);
    world.run_for(millis(100));
    assert!(world.handed_over(asked).replaced);
    world.pbx().forget_nonces();
    world.run_for(hours(2));
    assert_eq!(state(&mut world), RegistrationState::Registered, "SHA-256 is still signed");
    (CHANGES[2])(world.pbx());
    world.pbx().forget_nonces();
    world.run_for(hours(2));
    assert_eq!(state(&mut world), RegistrationState::Registered, "and what came is signed too");
}

#[test]
fn equal_credentials_make_a_binding_in_back_off_register_now_but_not_in_a_row() {
    let mut world = strong(708);
    world.pbx().registrar.verdict = Verdict::Code(500, None);
    world.run_for(minutes(25));
    assert_eq!(state(&mut world), RegistrationState::Failing);
    world.pbx().registrar.verdict = Verdict::Fair;
    let asked = world.hand_over("alice");
    world.run_for(secs(1));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);

    world.run_for(secs(1));
    world.pbx().registrar.verdict = Verdict::Code(500, None);
    let before = world.pbx().registers.len();
    for _ in 0..10 {
        world.hand_over("alice");
        world.run_for(secs(1));
    }
    // Two are left of three in a row.
    assert!(world.pbx().registers.len() <= before + 2);
}

#[test]
fn credentials_that_were_refused_are_not_tried_before_their_time_and_others_are() {
    for verdict in [Verdict::Code(403, None), Verdict::NeverContent] {
        let mut world = strong(712);
        world.pbx().registrar.verdict = verdict.clone();
        world.run_for(minutes(25));
        assert_eq!(state(&mut world), RegistrationState::Failing, "{verdict:?}");
        world.pbx().registrar.verdict = Verdict::Fair;
        let before = world.pbx().registers.len();
        let asked = world.hand_over("alice");
        world.run_for(secs(1));
        assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Failing, "{verdict:?}");
        assert_eq!(world.pbx().registers.len(), before, "{verdict:?}");

        world.pbx().set_password("alice", "new at the PBX");
        let mut offer = world.offer("alice");
        offer.material = password("new at the PBX");
        let asked = world.command(Command::HandOver(Box::new(offer)));
        world.run_for(millis(2900));
        assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered, "{verdict:?}");
    }
}

#[test]
fn a_retry_after_of_the_registrar_is_kept_by_an_early_hand_over() {
    let mut world = strong(709);
    world.pbx().registrar.verdict = Verdict::Code(503, Some(600));
    world.run_for(minutes(12));
    world.pbx().registrar.verdict = Verdict::Fair;
    let before = world.pbx().registers.len();
    let asked = world.hand_over("alice");
    world.run_for(secs(10));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Failing);
    assert_eq!(world.pbx().registers.len(), before);
    world.run_for(minutes(20));
    assert_eq!(state(&mut world), RegistrationState::Registered);
}

#[test]
fn an_unreachable_registrar_does_not_end_an_instance_that_hands_over_again() {
    let mut world = strong(710);
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(minutes(15));
    let asked = world.hand_over("alice");
    world.run_for(secs(4));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Failing);
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(hours(1));
    assert_eq!(state(&mut world), RegistrationState::Registered);
    world.assert_nothing_left();
}

#[test]
fn other_credentials_are_tried_though_the_binding_has_no_way_left_and_a_refusal_changes_nothing() {
    for (secret, right) in [("new at the PBX", true), ("a guess", false)] {
        let mut world = strong(711);
        world.pbx().registrar.verdict = Verdict::Code(503, None);
        let found = world.names.insert(crate::world::build::DOMAIN.to_owned(), Ok(Vec::new())).expect("a name");
        world.run_for(minutes(15));
        assert_eq!(state(&mut world), RegistrationState::Failing);
        world.names.insert(crate::world::build::DOMAIN.to_owned(), found);
        world.pbx().registrar.verdict = Verdict::Fair;
        if right {
            world.pbx().set_password("alice", secret);
        }
        let mut offer = world.offer("alice");
        offer.material = password(secret);
        let asked = world.command(Command::HandOver(Box::new(offer)));
        world.run_for(millis(2900));
        if right {
            assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
        } else {
            assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{:?}", world.refusal(asked));
            assert_eq!(state(&mut world), RegistrationState::Failing);
            assert_eq!(world.table("vault"), 1);
        }
        world.run_for(hours(1));
        assert_eq!(world.pbx().contacts("alice").len(), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn wrong_passwords_do_not_move_the_clock_of_a_binding_in_trouble() {
    let story = |guesses: bool| {
        let mut world = strong(712);
        world.pbx().registrar.verdict = Verdict::NeverContent;
        world.run_for(minutes(12));
        for _ in 0..3 {
            if guesses {
                guess_is_refused(&mut world);
            } else {
                world.run_for(secs(2));
            }
            world.run_for(secs(20));
        }
        let gone = world.now.boot;
        world.run_until(hours(4), |world| world.table("leases") == 0);
        world.now.boot.saturating_since(gone).as_secs() / 60
    };
    let (guessed, alone) = (story(true), story(false));
    assert!(
        guessed.abs_diff(alone) < 10,
        "erased for three refusals of its own, and at its own time: {guessed} {alone}"
    );
}

/// Registered by SHA-256, so that MD5 cannot be signed any more.
fn strong(number: u64) -> World {
    let strong = |pbx: &mut Pbx| pbx.registrar.algorithms = vec![Algorithm::Md5, Algorithm::Sha256];
    World::new(seed(number)).with_pbx(strong).with_sleeping_phone("alice")
}

fn guess_is_refused(world: &mut World) {
    let before = (state(world), world.table("vault"), world.pbx().contacts("alice"));
    let mut offer = world.offer("alice");
    offer.material = password("a guess");
    let asked = world.command(Command::HandOver(Box::new(offer)));
    world.run_for(secs(2));
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{:?}", world.refusal(asked));
    assert_eq!((state(world), world.table("vault"), world.pbx().contacts("alice")), before);
}

fn patch(world: &mut World, secret: &str) -> u64 {
    let (id, token) = world.key_of("alice");
    let change = Rectification { material: Some(password(secret)), ..Rectification::default() };
    world.command(Command::Rectify(id, token, Box::new(change)))
}

fn state(world: &mut World) -> RegistrationState {
    let asked = world.show("alice");
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view: {:?}", world.refusal(asked)) };
    view.registration.state
}

fn holds_password(world: &mut World) -> bool {
    let (id, token) = world.key_of("alice");
    let asked = world.command(Command::Data(id, token));
    let Some(Answer::Data(data)) = world.answer(asked) else { panic!("data") };
    data.password
}
