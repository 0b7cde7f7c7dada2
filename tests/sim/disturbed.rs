//! What a stranger, a caller or a broken connection may cost others: nothing.

use reveille::engine::output::{Answer, InstanceView, RegistrationState};
use reveille::engine::tally::Shed;

use crate::hand_over::world_over_tcp;
use crate::world::build::{PBX, address};
use crate::world::{World, minutes, secs, seed};

/// What the app of a phone is shown now.
fn shown(world: &mut World, name: &str) -> (RegistrationState, Option<String>) {
    let asked = world.show(name);
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("an instance") };
    let InstanceView { registration, .. } = view.as_ref();
    (registration.state, registration.verdict.clone())
}

#[test]
fn a_connection_that_breaks_right_after_its_registration_is_opened_again_at_once_and_then_more_slowly() {
    let mut world = world_over_tcp(1301);
    let before = world.pbx().registers.len();
    world.break_connections(address(PBX));
    world.run_for(secs(1));
    assert_eq!(world.pbx().registers.len() - before, 1, "at once");
    world.break_connections(address(PBX));
    world.run_for(secs(4));
    assert_eq!(world.pbx().registers.len() - before, 1, "and not for ever");
    world.run_for(secs(2));
    assert_eq!(world.pbx().registers.len() - before, 2, "but soon");
    world.run_for(minutes(2));
    world.break_connections(address(PBX));
    world.run_for(secs(1));
    assert_eq!(world.open_connections(address(PBX)), 1, "at once again, once it was calm");
    world.assert_nothing_left();
}

#[test]
fn while_the_connection_is_down_the_registration_is_not_called_registered() {
    let mut world = world_over_tcp(1302);
    assert_eq!(shown(&mut world, "alice").0, RegistrationState::Registered);
    let told = world.notes.len();
    world.pbx().registrar.listens = false;
    world.break_connections(address(PBX));
    world.run_for(secs(5));
    let (state, verdict) = shown(&mut world, "alice");
    assert_eq!(state, RegistrationState::Failing);
    assert!(verdict.is_some_and(|verdict| verdict.contains("registrar")), "it says why");

    world.pbx().registrar.listens = true;
    world.run_for(minutes(2));
    assert_eq!(shown(&mut world, "alice"), (RegistrationState::Registered, Some("200 OK".to_owned())));
    assert_eq!(world.notes.len() - told, 2, "failing, and registered again");
}

#[test]
fn a_connection_that_is_opened_again_at_once_is_no_news() {
    let mut world = world_over_tcp(1303);
    let told = world.notes.len();
    for _ in 0..5 {
        world.break_connections(address(PBX));
        world.run_for(secs(40));
        assert_eq!(shown(&mut world, "alice").0, RegistrationState::Registered);
    }
    assert_eq!(world.notes.len(), told);
}

#[test]
fn a_stranger_that_tries_tokens_is_slowed_and_the_phone_behind_the_same_address_attaches() {
    let mut world = World::new(seed(1306)).with_sleeping_phone("alice");
    let (instance, _) = world.key_of("alice");
    let phone = world.phone("alice").address;
    let handed = world.phone("alice").account.as_ref().expect("handed over");
    let (aor, realm) = (handed.aor.clone(), handed.realm.clone());
    let stranger = format!("{}:{}", phone.ip(), phone.port() + 7);
    let sent = world.sent.len();
    for number in 0..1000 {
        let request = format!(
            "REGISTER sip:edge.test SIP/2.0\r\nVia: SIP/2.0/UDP {stranger};branch=z9hG4bKt{number}\r\n\
             Max-Forwards: 70\r\nFrom: <{aor}>;tag=1\r\nTo: <{aor}>\r\nCall-ID: t\r\nCSeq: {number} REGISTER\r\n\
             Contact: <sip:x@{stranger}>\r\nAuthorization: Digest username=\"{instance}\", realm=\"{realm}\", \
             nonce=\"x\", uri=\"sip:edge.test\", response=\"{}\"\r\nContent-Length: 0\r\n\r\n",
            "0".repeat(32),
        );
        world.stranger_sends(&stranger, request.as_bytes());
    }
    world.run_for(secs(1));
    let answers = world.sent[sent..].len();
    assert!((1..=20).contains(&answers), "{answers} answers to a thousand tries");
    let slowed: u64 = world.take_tallies().iter().map(|tally| tally.shed[Shed::WrongTokens as usize]).sum();
    assert_eq!(slowed, 1000 - answers as u64, "the others are counted");

    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").verdicts, [401, 200]);
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 200]);
}
