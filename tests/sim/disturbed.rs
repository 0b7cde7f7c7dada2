//! What a stranger, a caller or a broken connection may cost others: nothing.

use std::time::Duration;

use reveille::engine::output::{Answer, InstanceView, RegistrationReason, RegistrationState};
use reveille::engine::tally::Shed;

use crate::hand_over::world_over_tcp;
use crate::pbx::Invite;
use crate::world::build::{PBX, address};
use crate::world::{World, minutes, secs, seed};

/// What the app of a phone is shown now.
fn shown(world: &mut World, name: &str) -> (RegistrationState, Option<RegistrationReason>, Option<String>) {
    let asked = world.show(name);
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("an instance") };
    let InstanceView { registration, .. } = view.as_ref();
    (registration.state, registration.reason, registration.verdict.clone())
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
    world.run_for(Duration::from_millis(50));
    assert_eq!(shown(&mut world, "alice").1, Some(RegistrationReason::Disconnected));
    world.run_for(secs(5));
    let (state, reason, verdict) = shown(&mut world, "alice");
    assert_eq!((state, reason), (RegistrationState::Failing, Some(RegistrationReason::Unreachable)));
    assert!(verdict.is_some_and(|verdict| verdict.contains("registrar")), "it says why");

    world.pbx().registrar.listens = true;
    world.run_for(minutes(2));
    assert_eq!(shown(&mut world, "alice"), (RegistrationState::Registered, None, Some("200 OK".to_owned())));
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
fn behind_the_address_of_an_attached_phone_a_stranger_is_a_stranger() {
    let mut world = World::new(seed(1304)).with_attached_phone("alice");
    let (phone, sent) = (world.phone("alice").address, world.sent.len());
    let neighbour = format!("{}:{}", phone.ip(), phone.port() + 7);
    for method in ["OPTIONS", "INVITE", "BYE"] {
        let request = format!(
            "{method} sip:nobody@192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/UDP {neighbour};branch=z9hG4bK{method}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:x@example.com>;tag=1\r\nTo: <sip:nobody@192.0.2.5>\r\n\
             Call-ID: {method}\r\nCSeq: 1 {method}\r\nX-Long: {}\r\nContent-Length: 0\r\n\r\n",
            "x".repeat(500)
        );
        world.stranger_sends(&neighbour, request.as_bytes());
    }
    world.run_for(secs(5));
    assert_eq!(world.sent.len(), sent, "silence");
}

/// An INVITE with a bare comma in From, of about `length` bytes.
fn malformed_invite(uri: &str, from: &str, length: usize) -> Vec<u8> {
    format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKcomma\r\nMax-Forwards: 70\r\n\
         From: Smith, Carol <sip:carol@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\nCall-ID: comma\r\n\
         CSeq: 1 INVITE\r\nX-Long: {}\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(length.saturating_sub(330))
    )
    .into_bytes()
}

#[test]
fn a_malformed_call_from_the_registrar_gets_a_400_if_it_is_for_us_and_pays_for_it() {
    let mut world = World::new(seed(1305)).with_sleeping_phone("alice");
    let contact = world.pbx().contacts("alice")[0].clone();
    let pbx = PBX.to_owned();
    let stranger = "198.51.100.77:5060";
    let unheld = contact.replace("sip:a", "sip:b");
    assert_ne!(unheld, contact);
    let sent = world.sent.len();
    world.stranger_sends(&pbx, &malformed_invite(&unheld, &pbx, 600));
    world.stranger_sends(stranger, &malformed_invite(&contact, stranger, 600));
    world.stranger_sends(&pbx, &malformed_invite(&contact, &pbx, 0)[..240]);
    let ack = String::from_utf8(malformed_invite(&contact, &pbx, 600)).expect("text").replace("INVITE", "ACK");
    world.stranger_sends(&pbx, ack.as_bytes());
    world.run_for(secs(2));
    assert_eq!(world.sent.len(), sent, "silence");

    world.stranger_sends(&pbx, &malformed_invite(&contact, &pbx, 600));
    world.run_for(secs(2));
    let answers: Vec<String> =
        world.sent[sent..].iter().map(|(_, _, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    let [answer] = &answers[..] else { panic!("one answer: {answers:?}") };
    assert!(answer.starts_with("SIP/2.0 400 ") && answer.contains("Call-ID: comma\r\n"), "{answer}");
    assert!(answer.len() <= 600);
    assert!(world.pushes.is_empty(), "and no phone is woken");
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

#[test]
fn a_call_that_does_not_fit_what_waits_for_the_phone_gets_513_and_the_phone_stays_attached() {
    let mut world = World::new(seed(1307)).with_attached_phone("alice");
    world.room = 4_000;
    let large = world.pbx().invite(Invite::to("alice").with_body(&[b'x'; 8_000]));
    world.run_for(secs(40));
    assert_eq!(world.pbx().heard(large).last(), Some(&513));
    assert_eq!(world.table("edge"), 1);
    let next = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(next), [100, 180, 200]);
    assert!(world.pushes.is_empty() && world.closed.is_empty(), "on the flow it has");
}

#[test]
fn a_call_as_large_as_sip_goes_rings() {
    let mut world = World::new(seed(1308)).with_attached_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").with_body(&[b'x'; 60_000]));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 200]);
}
