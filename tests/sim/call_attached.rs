//! Story (b) where the phone is attached, or believed to be: flows that die, come back and change under a call.

use reveille::engine::output::WakeKind;
use reveille::sip::{Message, Method, Transport};

use crate::phone::{Manner, names};
use crate::world::{PushMode, World, millis, minutes, secs, seed};

#[test]
fn an_attached_phone_gets_the_call_at_once_and_no_push() {
    let mut world = World::new(seed(10)).with_attached_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 200]);
    assert!(world.pushes.is_empty());
    assert_eq!(world.phone("alice").rang().len(), 1);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn an_attached_phone_that_stays_silent_is_woken_too() {
    let mut world = World::new(seed(11)).with_attached_phone("alice").with("alice", |phone| {
        phone.manner = Manner::Dead;
        phone.wakes = false;
    });
    world.pbx().invite("alice");
    world.run_for(millis(505));
    assert_eq!(world.pushes.len(), 0);
    world.run_for(millis(30));
    assert_eq!(world.pushed(WakeKind::Call), 1);
    world.run_for(minutes(5));
    assert_eq!(world.pushed(WakeKind::Call), 1, "one wake for a call and device");
}

#[test]
fn a_phone_that_let_its_attachment_run_out_is_asleep_again() {
    let mut world = World::new(seed(11)).with_attached_phone("alice");
    world.phone("alice").lose_flow();
    world.run_for(minutes(11));
    assert_eq!(world.table("edge"), 0);
    let call = world.pbx().invite("alice");
    world.run_for(millis(100));
    assert_eq!(world.pushed(WakeKind::Call), 1, "at once, and not only when it stays silent");
    assert_eq!(world.pbx().heard(call), [100, 180]);
}

#[test]
fn a_phone_that_leaves_is_asleep_again() {
    let mut world = World::new(seed(11)).with_attached_phone("alice");
    world.phone("alice").detach();
    world.run_until_quiet();
    assert_eq!(world.table("edge"), 0);
}

#[test]
fn a_phone_whose_flow_died_unnoticed_takes_the_call_after_its_wake() {
    let mut world = World::new(seed(12)).with_attached_phone("alice");
    world.phone("alice").lose_flow();
    let call = world.pbx().invite("alice");
    world.run_for(millis(600));
    assert_eq!(world.pushed(WakeKind::Call), 1);
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
    assert_eq!(world.phone("alice").rang().len(), 1);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn an_invite_sent_again_on_a_new_flow_keeps_its_branch_and_sent_by() {
    let mut world =
        World::new(seed(13)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    world.phone("alice").reattach();
    world.run_for(secs(1));

    let invites: Vec<Message> = world
        .sent
        .iter()
        .map(|(_, _, bytes)| Message::parse_datagram(bytes.clone()).expect("SIP"))
        .filter(|message| message.method() == Some(Method::Invite))
        .collect();
    assert_eq!(invites.len(), 2, "once on each flow");
    assert_eq!(names(&invites[0]), names(&invites[1]));
    assert_eq!(world.phone("alice").rang().len(), 1);
    world.phone("alice").answer(0);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 180, 200], "the phone repeats its 180 on the new flow");
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_482_to_the_invite_sent_again_is_ignored_and_ends_its_repetition() {
    let mut world = World::new(seed(14)).with_attached_phone("alice").with("alice", |phone| {
        phone.manner = Manner::Ring;
        phone.merges = true;
    });
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    world.phone("alice").reattach();
    world.run_for(secs(40));

    let invites = world.sent.iter().filter(|(_, _, bytes)| bytes.starts_with(b"INVITE")).count();
    assert_eq!(invites, 2, "one on each flow, and no repetition of what was refused");
    assert_eq!(world.pbx().heard(call), [100, 180]);
    world.phone("alice").answer(0);
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_second_wake_is_sent_only_if_the_flow_died_after_attaching() {
    let mut world = World::new(seed(15)).with_sleeping_phone("alice").with("alice", |phone| {
        phone.transport = Transport::Tcp;
        phone.manner = Manner::Ring;
    });
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    assert_eq!(world.phone("alice").rang().len(), 1);
    world.phone("alice").crash();
    world.run_for(secs(3));
    assert_eq!(world.pushed(WakeKind::Call), 2, "its flow died after it had attached");
    assert_eq!(world.phone("alice").rang().len(), 2);
    world.phone("alice").crash();
    world.run_for(secs(3));
    assert_eq!(world.pushed(WakeKind::Call), 2, "and no third");
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(480));
    world.assert_nothing_left();
}

#[test]
fn a_second_wake_waits_for_the_providers_answer_to_the_first() {
    let mut world = World::new(seed(15)).with_sleeping_phone("alice").with("alice", |phone| {
        phone.transport = Transport::Tcp;
        phone.manner = Manner::Ring;
    });
    world.push_mode = PushMode::Swallow(secs(10));
    world.pbx().invite("alice");
    world.run_for(secs(1));
    world.phone("alice").attach();
    world.run_for(secs(1));
    world.phone("alice").crash();
    world.run_for(secs(7));
    assert_eq!(world.pushed(WakeKind::Call), 1, "one outstanding at a time");
    world.run_for(secs(2));
    assert_eq!(world.pushed(WakeKind::Call), 2);
    world.run_until_quiet();
}

#[test]
fn a_leaving_that_was_overtaken_by_a_coming_changes_nothing() {
    let mut world = World::new(seed(15)).with_attached_phone("alice");
    world.phone("alice").detach();
    let leaving = world.take_from_wire();
    world.phone("alice").attach();
    world.run_until_quiet();
    for bytes in leaving {
        let from = world.phone("alice").address.to_string();
        world.stranger_sends(&from, &bytes);
    }
    world.run_for(secs(1));
    assert_eq!(world.table("edge"), 1);
}
