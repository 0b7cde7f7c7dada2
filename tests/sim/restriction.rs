//! Restriction: the instance is held and nothing else, until its owner says otherwise or its lease ends.

use reveille::engine::audit::{AuditEvent, Cause, Unregister};
use reveille::engine::input::{Command, Mode, Preferences, Rectification};
use reveille::engine::output::{Answer, CallOutcome, Refusal, RegistrationState, WakeKind};

use crate::pbx::{NonceLife, Text, Verdict};
use crate::share::{erasures, offer_of, two_devices};
use crate::world::build::password;
use crate::world::{World, hours, millis, minutes, secs, seed};

fn restrict(world: &mut World, name: &str) -> u64 {
    let (id, token) = world.key_of(name);
    world.command(Command::Restrict(id, token))
}

fn resume(world: &mut World, name: &str) -> u64 {
    let (id, token) = world.key_of(name);
    world.command(Command::Resume(id, token))
}

fn state_in(world: &World, asked: u64) -> RegistrationState {
    match world.answer(asked) {
        Some(Answer::Instance(view)) => view.registration.state,
        _ => panic!("no instance"),
    }
}

fn state(world: &mut World, name: &str) -> RegistrationState {
    let asked = world.show(name);
    state_in(world, asked)
}

fn events(world: &World) -> Vec<&AuditEvent> {
    world.records.iter().map(|record| &record.event).collect()
}

#[test]
fn the_registration_is_removed_the_secret_stays_and_nothing_is_done_until_it_is_lifted() {
    let mut world = World::new(seed(910)).with_sleeping_phone("alice");
    let first = world.pbx().registers[1].clone();
    let asked = restrict(&mut world, "alice");
    assert_eq!(state_in(&world, asked), RegistrationState::Restricted);
    world.run_until_quiet();
    assert!(world.pbx().contacts("alice").is_empty());
    assert_eq!((world.table("vault"), world.table("names.bearers")), (1, 0));
    let sent = world.sent.len();
    world.run_for(hours(30));
    assert_eq!(world.sent.len(), sent, "nothing is refreshed, tried or given up");
    assert!(world.pushes.is_empty());
    assert_eq!(state(&mut world, "alice"), RegistrationState::Restricted);

    let asked = resume(&mut world, "alice");
    assert_eq!(state_in(&world, asked), RegistrationState::Registering);
    world.run_until_quiet();
    assert_eq!(state(&mut world, "alice"), RegistrationState::Registered);
    let last = world.pbx().registers.last().expect("a registration").clone();
    assert_eq!((last.code, &last.call_id, &last.contact), (200, &first.call_id, &first.contact));
    assert!(last.cseq > first.cseq && world.pbx().out_of_order == 0);
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.run_for(hours(2));
    assert_eq!(world.pbx().contacts("alice").len(), 1, "refreshed again");
    assert_eq!(events(&world), [&AuditEvent::HandedOver, &AuditEvent::Restricted, &AuditEvent::Resumed]);
    world.assert_nothing_left();
}

#[test]
fn restricting_and_resuming_again_change_and_record_nothing() {
    let mut world = World::new(seed(911)).with_sleeping_phone("alice");
    let asked = resume(&mut world, "alice");
    assert_eq!(state_in(&world, asked), RegistrationState::Registered);
    for _ in 0..2 {
        restrict(&mut world, "alice");
        world.run_until_quiet();
    }
    assert_eq!(world.pbx().verdicts(), [401, 200, 200]);
    assert_eq!(events(&world), [&AuditEvent::HandedOver, &AuditEvent::Restricted]);

    let (id, _) = world.key_of("alice");
    for command in [Command::Restrict(id, World::token_hash("x")), Command::Resume(id, World::token_hash("x"))] {
        let asked = world.command(command);
        assert_eq!(world.refusal(asked), Some(Refusal::NotFound));
    }
    world.delete("alice");
    world.run_until_quiet();
    let asked = restrict(&mut world, "alice");
    assert!(matches!(world.refusal(asked), Some(Refusal::Gone { cause: Cause::Deleted, .. })));
}

#[test]
fn a_challenge_to_the_un_register_is_answered_with_the_credentials_that_are_held() {
    let mut world =
        World::new(seed(912)).with_pbx(|pbx| pbx.registrar.nonces = NonceLife::OneRequest).with_sleeping_phone("alice");
    restrict(&mut world, "alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().verdicts()[2..], [401, 200]);
    assert!(world.pbx().contacts("alice").is_empty());
}

#[test]
fn while_the_registrar_has_not_noticed_calls_and_texts_get_480_and_nobody_is_woken() {
    let mut world = World::new(seed(913)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    restrict(&mut world, "alice");
    world.run_for(secs(1));
    let call = world.pbx().invite("alice");
    let text = world.pbx().text(Text::to("alice", "hello"));
    world.run_for(secs(2));
    assert_eq!(world.pbx().final_response(call), Some(480));
    assert_eq!(world.pbx().final_response(text), Some(480));
    assert!(world.pushes.is_empty());
    assert_eq!((world.table("texts.held"), world.table("calls.held")), (0, 0));
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_until_quiet();
    world.assert_nothing_left();
}

#[test]
fn a_held_call_gets_480_and_kept_texts_wait_untouched_until_the_phone_may_come_again() {
    let mut world = World::new(seed(914)).with_sleeping_phone("alice").with("alice", |phone| phone.wakes = false);
    world.pbx().text(Text::to("alice", "hello"));
    let call = world.pbx().invite("alice");
    world.run_for(secs(3));
    let pushed = world.pushes.len();
    restrict(&mut world, "alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(480));
    assert_eq!(world.outcomes(), [CallOutcome::Erased]);
    assert_eq!(world.table("texts.held"), 1);

    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").verdicts.last(), Some(&403));
    assert_eq!((world.table("texts.held"), world.table("edge")), (1, 0));

    resume(&mut world, "alice");
    world.run_until_quiet();
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.table("texts.held"), 0, "delivered");
    assert_eq!(world.pushes.len(), pushed);
}

#[test]
fn an_attached_phone_is_let_go_but_a_call_that_is_up_goes_on() {
    let mut world = World::new(seed(915)).with_attached_phone("alice").with_attached_phone("bob");
    let call = world.pbx().invite("bob");
    world.run_for(secs(5));
    assert_eq!(world.pbx().final_response(call), Some(200));
    restrict(&mut world, "alice");
    restrict(&mut world, "bob");
    world.run_for(secs(1));
    assert_eq!(world.table("edge"), 1, "bob's, for his call");
    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert!(world.phone("bob").requests.contains(&"BYE".to_owned()));
    assert_eq!(world.table("edge"), 0);
    world.assert_nothing_left();
}

#[test]
fn the_lease_goes_on_and_ends_as_ever_and_nobody_is_told_by_push() {
    let mut world = World::new(seed(916)).with_sleeping_phone("alice");
    world.run_for(hours(10));
    restrict(&mut world, "alice");
    world.run_for(hours(61));
    assert_eq!(world.table("vault"), 1);
    world.run_for(hours(2));
    assert_eq!(erasures(&world), [(Cause::LeaseEnded, Unregister::NotNeeded)]);
    assert!(world.pushes.is_empty());
    let shown = world.show("alice");
    assert!(matches!(world.refusal(shown), Some(Refusal::Gone { cause: Cause::LeaseEnded, receipt: Some(_) })));
    world.assert_empty();
}

#[test]
fn erasing_while_the_un_register_is_under_way_removes_the_contact() {
    let mut world = World::new(seed(917)).with_sleeping_phone("alice");
    world.pbx().registrar.delay = millis(300);
    restrict(&mut world, "alice");
    world.run_for(millis(50));
    world.delete("alice");
    world.run_until_quiet();
    assert!(world.pbx().contacts("alice").is_empty());
    assert_eq!(erasures(&world), [(Cause::Deleted, Unregister::Confirmed)]);
    world.assert_empty();
}

#[test]
fn resuming_before_the_un_register_is_answered_ends_registered() {
    for after in [0, 20, 60, 120, 200] {
        let mut world = World::new(seed(918)).with_sleeping_phone("alice");
        world.pbx().registrar.delay = millis(50);
        restrict(&mut world, "alice");
        world.run_for(millis(after));
        resume(&mut world, "alice");
        world.run_for(minutes(1));
        assert_eq!(world.pbx().contacts("alice").len(), 1, "after {after} ms");
        assert_eq!(state(&mut world, "alice"), RegistrationState::Registered);
        world.assert_nothing_left();
    }
}

#[test]
fn a_device_that_is_restricted_leaves_the_shared_registration_to_the_others_and_comes_back_to_it() {
    for name in ["alice", "tablet"] {
        let mut world = two_devices(919);
        let other = if name == "alice" { "tablet" } else { "alice" };
        let verdicts = world.pbx().verdicts().len();
        restrict(&mut world, name);
        world.run_until_quiet();
        assert_eq!(world.pbx().verdicts().len(), verdicts, "the registrar hears nothing of it");
        assert_eq!(state(&mut world, name), RegistrationState::Restricted);
        assert_eq!(state(&mut world, other), RegistrationState::Registered);
        assert_eq!((world.table("bindings"), world.table("vault")), (2, 2));
        world.call_and_wait("alice");
        let woken = |world: &mut World, name: &str| world.phone(name).kinds().contains(&WakeKind::Call);
        assert!(!woken(&mut world, name) && woken(&mut world, other));

        resume(&mut world, name);
        world.run_until_quiet();
        assert_eq!(world.table("bindings"), 1, "shared again");
        assert_eq!(state(&mut world, name), RegistrationState::Registered);
        world.delete(other);
        world.run_until_quiet();
        assert_eq!(world.pbx().contacts("alice").len(), 1);
    }
}

#[test]
fn a_further_device_of_the_account_does_not_join_a_registration_that_is_restricted() {
    let mut world = World::new(seed(920)).with_sleeping_phone("alice").with_phone("tablet");
    restrict(&mut world, "alice");
    world.run_until_quiet();
    let offer = offer_of(&world, "tablet");
    let asked = world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    assert_eq!(state(&mut world, "alice"), RegistrationState::Restricted);
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn handing_the_account_over_again_lifts_the_restriction_with_the_same_credentials_or_new_ones() {
    let mut world = World::new(seed(921)).with_sleeping_phone("alice");
    restrict(&mut world, "alice");
    world.run_until_quiet();
    world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!(state(&mut world, "alice"), RegistrationState::Registered);

    restrict(&mut world, "alice");
    world.run_until_quiet();
    world.pbx().set_password("alice", "new");
    let mut offer = world.offer("alice");
    offer.material = password("wrong");
    let refused = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert!(matches!(world.refusal(refused), Some(Refusal::RegistrarRefused(_))));
    assert_eq!(state(&mut world, "alice"), RegistrationState::Restricted, "who does not have them changes nothing");
    world.run_for(minutes(1));
    let mut offer = world.offer("alice");
    offer.material = password("new");
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(state(&mut world, "alice"), RegistrationState::Registered);
    let lifted = events(&world).iter().filter(|event| matches!(event, AuditEvent::Resumed)).count();
    assert_eq!(lifted, 2);
    world.assert_nothing_left();
}

#[test]
fn what_would_process_a_restricted_instance_is_refused_and_targets_may_be_changed() {
    let mut world = World::new(seed(922)).with_sleeping_phone("alice");
    restrict(&mut world, "alice");
    world.run_until_quiet();
    let sent = world.sent.len();
    let (id, token) = world.key_of("alice");
    let test = world.command(Command::BeginTest(id, token));
    assert_eq!(world.refusal(test), Some(Refusal::Restricted));
    let account = Some(world.offer("alice").account);
    let moved = Rectification { account, ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(moved)));
    assert_eq!(world.refusal(asked), Some(Refusal::Restricted));
    let preferences = Preferences { mode: Mode::Background, voicemail_subscribe: true, ..Preferences::default() };
    let wished = Rectification { preferences: Some(preferences), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(wished)));
    assert_eq!(state_in(&world, asked), RegistrationState::Restricted);
    let asked = world.command(Command::Refresh(id, token));
    assert_eq!(state_in(&world, asked), RegistrationState::Restricted);
    world.run_for(hours(1));
    assert_eq!(world.sent.len(), sent);
}

#[test]
fn a_restricted_app_may_still_come_to_the_foreground_and_then_there_is_nothing_to_register_with() {
    let mut world = World::new(seed(923)).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.preferences.mode = Mode::Background;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    restrict(&mut world, "alice");
    world.run_until_quiet();
    let (id, token) = world.key_of("alice");
    world.command(Command::Foreground(id, token, reveille::engine::input::Parting::Release));
    world.run_until_quiet();
    assert_eq!(state(&mut world, "alice"), RegistrationState::Restricted);
    assert_eq!(erasures(&world).len(), 1);
    resume(&mut world, "alice");
    world.run_until_quiet();
    assert_eq!(state(&mut world, "alice"), RegistrationState::Foreground);
    assert!(world.pbx().contacts("alice").is_empty());
}

#[test]
fn a_hand_over_that_was_on_its_way_when_the_restriction_came_does_not_lift_it() {
    let mut refused = 0;
    for number in 0..8 {
        let mut world = World::new(seed(924 + number)).with_shards(4).with_sleeping_phone("alice");
        let asked = world.hand_over("alice");
        let answered = world.answer(asked).is_some();
        restrict(&mut world, "alice");
        world.run_until_quiet();
        if !answered {
            refused += 1;
            assert_eq!(world.refusal(asked), Some(Refusal::Restricted));
            assert_eq!(state(&mut world, "alice"), RegistrationState::Restricted);
            world.hand_over("alice");
            world.run_until_quiet();
        }
        assert_eq!(world.table("hand_overs.guesses"), 0);
    }
    assert!(refused > 0, "where other shards are asked, it takes a while");
}

#[test]
fn restricting_and_resuming_without_end_does_not_ask_the_registrar_without_end() {
    let mut world = World::new(seed(932)).with_sleeping_phone("alice");
    let before = world.pbx().registers.len();
    world.pbx().registrar.delay = millis(300);
    for _ in 0..50 {
        restrict(&mut world, "alice");
        world.run_for(millis(10));
        resume(&mut world, "alice");
        world.run_for(millis(10));
    }
    restrict(&mut world, "alice");
    world.run_for(minutes(2));
    let removals = world.pbx().registers[before..].iter().filter(|register| register.expires == 0).count();
    assert!((1..=3).contains(&removals), "{removals}");
    assert!(world.pbx().contacts("alice").is_empty(), "the last word counts");
    assert_eq!(state(&mut world, "alice"), RegistrationState::Restricted);
}

#[test]
fn a_wrong_guess_does_not_keep_the_contact_of_a_restricted_instance_at_the_registrar() {
    let mut world = World::new(seed(933)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    restrict(&mut world, "alice");
    world.run_for(millis(20));
    let mut offer = world.offer("alice");
    offer.material = password("a guess");
    let asked = world.hand_over_this("alice", offer);
    world.run_for(secs(10));
    assert!(world.refusal(asked).is_some());
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(minutes(2));
    assert!(world.pbx().contacts("alice").is_empty());
    assert_eq!(state(&mut world, "alice"), RegistrationState::Restricted);
}

#[test]
fn a_copy_tells_where_the_account_is_registered_and_what_was_sent() {
    let mut world = World::new(seed(934)).with_sleeping_phone("alice");
    world.call_and_wait("alice");
    let (id, token) = world.key_of("alice");
    let asked = world.command(Command::Data(id, token));
    let Some(Answer::Data(data)) = world.answer(asked) else { panic!("no data") };
    assert_eq!(data.held.registered_at, Some("198.51.100.10:5060".parse().expect("an address")));
    assert_eq!((data.held.lease, data.held.pushes_sent.of(WakeKind::Call)), (hours(72), 1));
    restrict(&mut world, "alice");
    world.run_for(minutes(1));
    let asked = world.command(Command::Data(id, token));
    let Some(Answer::Data(data)) = world.answer(asked) else { panic!("no data") };
    assert_eq!(data.held.registered_at, None);
}
