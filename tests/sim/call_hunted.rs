//! Attempts that follow one another: a proxy that hunts comes back with the same INVITE on another branch, and each attempt is
//! a call of its own, while copies that come at the same time are one.

use reveille::engine::input::{Command, Decline, DeclineReason};
use reveille::engine::output::{Answer, CallState, Refusal, WakeKind};

use crate::pbx::Invite;
use crate::world::{PushMode, World, millis, secs, seed};

fn sleeping(number: u64) -> World {
    World::new(seed(number)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice")
}

/// The `call` ids of the call pushes so far.
fn named(world: &World) -> Vec<String> {
    let calls = world.pushes.iter().filter(|push| push.kind == WakeKind::Call);
    calls.map(|push| push.call.clone().expect("a call")).collect()
}

#[test]
fn an_invite_that_comes_back_on_another_branch_after_its_acknowledged_refusal_rings_again() {
    for connects in [false, true] {
        let mut world = sleeping(851);
        let invite = Invite::to("alice");
        let first = world.pbx().invite(if connects { invite.over_a_connection_of_its_own() } else { invite });
        world.run_for(secs(1));
        world.pbx().cancel(first);
        world.run_for(millis(100));
        assert_eq!(world.pbx().heard(first), [100, 180, 487]);
        let second = world.pbx().invite_copy(first);
        world.run_for(secs(1));
        assert_eq!(world.pbx().heard(second), [100, 180], "over a connection: {connects}");
        let copy = world.pbx().invite_copy(first);
        world.run_for(secs(1));
        assert_eq!(world.pbx().heard(copy), [482], "a copy of what is held");
        let names = named(&world);
        assert_eq!(names.len(), 2);
        assert_ne!(names[0], names[1], "another attempt, another call");
        world.phone("alice").attach();
        world.run_for(secs(10));
        assert_eq!(world.pbx().final_response(second), Some(200));
        assert_eq!(world.phone("alice").rang(), [names[1].clone()]);
        world.pbx().hang_up(second);
        world.assert_nothing_left();
    }
}

#[test]
fn an_invite_hunts_as_often_as_it_likes_and_each_attempt_is_answered_by_itself() {
    let mut world = World::new(seed(852)).with_attached_phone("alice").with("alice", |phone| {
        phone.manner = crate::phone::Manner::Refuse(486, millis(100));
    });
    let mut call = world.pbx().invite("alice");
    for _ in 0..4 {
        world.run_for(millis(400));
        assert_eq!(world.pbx().final_response(call), Some(486));
        call = world.pbx().invite_copy(call);
    }
    world.run_for(secs(1));
    assert_eq!(world.phone("alice").rang().len(), 5);
    world.assert_nothing_left();
}

#[test]
fn a_refusal_that_is_never_acknowledged_is_remembered_until_its_transaction_ends() {
    let mut world = sleeping(853);
    let first = world.pbx().invite("alice");
    world.run_for(secs(1));
    let text = String::from_utf8(world.pbx().call(first).invite.bytes().to_vec()).expect("ASCII");
    let (stranger, own) = ("203.0.113.77:5060", "198.51.100.10:5060");
    let attempt = |number: u32| {
        text.replace("z9hG4bKpbx", &format!("z9hG4bKelse{number}"))
            .replace("Call-ID: ", "Call-ID: another-")
            .replace(own, stranger)
    };
    let send = |world: &mut World, number| world.stranger_sends(stranger, attempt(number).as_bytes());
    send(&mut world, 1);
    world.run_for(secs(46));
    let codes = |world: &World| world.sent_to(stranger).iter().map(crate::sip_text::code).collect::<Vec<_>>();
    assert_eq!(codes(&world).last(), Some(&480));
    send(&mut world, 2);
    world.run_for(secs(1));
    assert_eq!(codes(&world).last(), Some(&482));
    world.run_for(secs(32));
    let before = named(&world).len();
    send(&mut world, 3);
    world.run_for(secs(1));
    assert_eq!(named(&world).len(), before + 1);
}

#[test]
fn copies_to_a_device_that_is_called_already_are_one_call_whatever_they_claim() {
    let mut world = sleeping(854);
    let first = world.pbx().invite("alice");
    world.run_for(secs(1));
    let invite = String::from_utf8(world.pbx().call(first).invite.bytes().to_vec()).expect("ASCII");
    // A tag has no case, so this one is a copy as well.
    let copy = invite.replace("tag=caller", "tag=CALLER").replace("z9hG4bKpbx", "z9hG4bKcopy");
    let own = world.pbx().address;
    let before = world.sent.len();
    world.pbx().send_raw(own, copy.as_bytes());
    world.run_for(secs(1));
    let sent: Vec<_> = world.sent[before..].iter().map(|(_, _, bytes)| bytes.clone()).collect();
    assert!(sent.len() == 1 && sent[0].starts_with(b"SIP/2.0 482"), "{sent:?}");
    assert_eq!(named(&world).len(), 1);
}

#[test]
fn each_device_of_an_account_has_a_name_of_its_own_for_a_call() {
    let mut world = World::new(seed(855)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    world = world.with_phone("tablet");
    let mut offer = world.offer("alice");
    offer.device = "urn:uuid:tablet".to_owned();
    offer.push = crate::world::build::targets("push-token-tablet");
    world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    world.pbx().invite("alice");
    world.run_for(secs(1));
    let names = named(&world);
    assert_eq!(names.len(), 2);
    assert_ne!(names[0], names[1]);
    for phone in ["alice", "tablet"] {
        let call = world.calls_at(phone, "alice")[0];
        let (id, token) = world.key_of(phone);
        let asked = world.command(Command::Call(id, token, call));
        assert!(matches!(world.answer(asked), Some(Answer::Call(view)) if view.state == CallState::Waking));
    }
    let foreign = world.calls_at("tablet", "alice")[0];
    let (id, token) = world.key_of("alice");
    let decline = Decline { reason: DeclineReason::Busy, everywhere: true };
    let asked = world.command(Command::Decline(id, token, foreign, decline));
    assert_eq!(world.refusal(asked), Some(Refusal::CallOver), "another device's name for it");
}
