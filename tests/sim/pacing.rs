//! How fast registrars are asked: one budget for all that goes to an address, and refreshes that come in time.

use reveille::clock::Instant;
use reveille::engine::input::{Command, Mode, Parting};
use reveille::engine::output::{Answer, Note, Refusal, RegistrationReason, RegistrationState};

use crate::pbx::{NonceLife, Verdict};
use crate::world::{World, millis, minutes, secs, seed};

#[test]
fn a_registrar_that_comes_back_hears_no_more_than_the_rate_and_its_burst() {
    // As 500 at a rate of 50.
    let mut world = World::new(seed(901)).with_policy(|policy| policy.registrars.rate = 20);
    hand_over(&mut world, 200);
    world.pbx().registrar.nonces = NonceLife::For(minutes(1));
    world.run_for(minutes(1));
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(minutes(30));
    world.pbx().registrar.verdict = Verdict::Fair;
    let (before, sent) = (world.pbx().registers.len(), world.sent.len());
    // The first that is granted tells that it is back; then some go while the others register anew.
    world.run_until(minutes(35), |world| world.pbx().registers[before..].iter().any(|seen| seen.code == 200));
    for number in 0..40 {
        world.delete(&name(number));
    }
    world.run_for(minutes(2));

    assert!((40..200).all(|number| world.pbx().contacts(&name(number)).len() == 1));
    let most = most_in_a_second(&requests(&world, sent));
    assert!(most <= 20 + 4, "{most} in one second at a rate of 20");
}

#[test]
fn accounts_that_need_more_than_the_rate_are_refreshed_in_time() {
    // As 1,550 accounts at a rate of 50.
    let mut world = World::new(seed(902))
        .with_policy(|policy| policy.registrars.rate = 5)
        .with_pbx(|pbx| pbx.registrar.max_expires = 16);
    hand_over(&mut world, 155);
    world.run_for(minutes(3));
    let before = world.notes.len();
    world.run_for(minutes(1));
    let failed = world.notes[before..]
        .iter()
        .filter(|note| matches!(note, Note::Registration(_, state, ..) if *state != RegistrationState::Registered))
        .count();
    assert_eq!(failed, 0, "registrations lapsed because of our own rate");
    assert!((0..155).all(|number| world.pbx().contacts(&name(number)).len() == 1));
}

#[test]
fn an_address_that_is_full_takes_no_further_account_and_keeps_those_it_has() {
    let mut world = World::new(seed(903))
        .with_policy(|policy| (policy.registrars.rate, policy.registrars.rate_max) = (5, 10))
        .with_pbx(|pbx| (pbx.registrar.max_expires, pbx.registrar.nonces) = (16, NonceLife::OneRequest));
    hand_over(&mut world, 80);
    world.run_for(minutes(3));
    let held: Vec<usize> = (0..80).filter(|number| world.pbx().contacts(&name(*number)).len() == 1).collect();
    assert!((55..=66).contains(&held.len()), "{}", held.len());

    world.add_phone("late");
    let asked = world.hand_over("late");
    world.run_for(secs(1));
    assert!(matches!(world.refusal(asked), Some(Refusal::Busy { after }) if after == secs(60)));
    let warned = world.notes.iter().filter(|note| matches!(note, Note::RegistrarFull(_))).count();
    assert_eq!(warned, 1);
    let waits = (0..80).find(|number| !held.contains(number)).expect("some found no room");
    assert_eq!(registration(&mut world, waits), (RegistrationState::Failing, Some(RegistrationReason::Pacing)));

    let before = world.notes.len();
    world.run_for(minutes(2));
    let changed = world.notes[before..].iter().filter(|note| matches!(note, Note::Registration(..))).count();
    assert_eq!(changed, 0, "nothing lapses");

    held[..30].iter().for_each(|number| {
        world.delete(&name(*number));
    });
    world.run_for(minutes(6));
    assert!(
        (0..80)
            .filter(|number| !held[..30].contains(number))
            .all(|number| world.pbx().contacts(&name(number)).len() == 1)
    );
}

#[test]
fn a_registration_that_waits_long_for_its_turn_says_so() {
    let mut world = World::new(seed(904)).with_policy(|policy| policy.registrars.rate = 5);
    hand_over(&mut world, 60);
    world.run_for(secs(10));
    let states: Vec<_> = (0..60).map(|number| registration(&mut world, number)).collect();
    assert!(states.contains(&(RegistrationState::Registering, Some(RegistrationReason::Pacing))), "{states:?}");
    world.run_for(minutes(1));
    let states: Vec<_> = (0..60).map(|number| registration(&mut world, number)).collect();
    assert!(states.iter().all(|state| *state == (RegistrationState::Registered, None)), "{states:?}");
}

#[test]
fn in_a_drain_nothing_but_un_registers_go_at_the_rate_of_a_drain() {
    let mut world = World::new(seed(905)).with_policy(|policy| policy.registrars.drain_rate = 20);
    hand_over(&mut world, 100);
    world.run_for(secs(30));
    let (before, sent) = (world.pbx().registers.len(), world.sent.len());
    world.drain();
    world.run_until(secs(40), |world| world.drained == 2);
    world.run_for(secs(1));
    assert!(world.pbx().registers[before..].iter().all(|seen| seen.expires == 0));
    assert!((0..100).all(|number| world.pbx().contacts(&name(number)).is_empty()));
    let most = most_in_a_second(&requests(&world, sent));
    assert!((18..=24).contains(&most), "{most} in one second at 20");
}

#[test]
fn subscriptions_to_mailboxes_share_the_budget() {
    let mut world = World::new(seed(906)).with_policy(|policy| policy.registrars.rate = 10);
    (0..60).for_each(|number| world.add_phone(&name(number)));
    for number in 0..60 {
        let mut offer = world.offer(&name(number));
        offer.preferences.voicemail_subscribe = true;
        world.hand_over_this(&name(number), offer);
    }
    world.run_for(minutes(1));
    let subscribed = world.sent.iter().filter(|(_, _, bytes)| bytes.starts_with(b"SUBSCRIBE")).count();
    assert!(subscribed >= 60, "{subscribed}");
    let most = most_in_a_second(&requests(&world, 0));
    assert!(most <= 12, "{most} in one second at 10");
}

#[test]
fn apps_that_come_to_the_foreground_together_are_removed_at_the_rate_and_those_that_go_back_stay() {
    let mut world = World::new(seed(907)).with_policy(|policy| policy.registrars.rate = 10);
    (0..20).for_each(|number| world.add_phone(&name(number)));
    for number in 0..20 {
        let mut offer = world.offer(&name(number));
        offer.preferences.mode = Mode::Background;
        world.hand_over_this(&name(number), offer);
    }
    world.run_for(secs(10));
    let sent = world.sent.len();
    for number in 0..20 {
        let (id, token) = world.key_of(&name(number));
        world.command(Command::Foreground(id, token, Parting::Release));
    }
    world.run_for(millis(200));
    let mut offer = world.offer(&name(19));
    offer.preferences.mode = Mode::Background;
    world.hand_over_this(&name(19), offer);
    world.run_for(secs(10));
    assert!((0..19).all(|number| world.pbx().contacts(&name(number)).is_empty()));
    assert_eq!(world.pbx().contacts(&name(19)).len(), 1);
    let most = most_in_a_second(&requests(&world, sent));
    assert!(most <= 12, "{most} in one second at 10");
}

fn registration(world: &mut World, number: usize) -> (RegistrationState, Option<RegistrationReason>) {
    let asked = world.show(&name(number));
    world.run_for(millis(5));
    match world.answer(asked) {
        Some(Answer::Instance(view)) => (view.registration.state, view.registration.reason),
        _ => panic!("no view"),
    }
}

/// When requests went to the registrar since so many messages were sent.
fn requests(world: &World, since: usize) -> Vec<Instant> {
    let ours = |bytes: &[u8]| bytes.starts_with(b"REGISTER") || bytes.starts_with(b"SUBSCRIBE");
    world.sent[since..].iter().filter(|(_, _, bytes)| ours(bytes)).map(|(at, ..)| *at).collect()
}

/// The most requests in one second.
fn most_in_a_second(asked: &[Instant]) -> usize {
    let within = |(place, at): (usize, &Instant)| {
        asked[place..].iter().take_while(|other| other.saturating_since(*at) < secs(1)).count()
    };
    asked.iter().enumerate().map(within).max().unwrap_or(0)
}

fn hand_over(world: &mut World, size: usize) {
    (0..size).for_each(|number| world.add_phone(&name(number)));
    for number in 0..size {
        world.hand_over(&name(number));
    }
}

fn name(number: usize) -> String {
    format!("phone{number}")
}
