//! Story (b), what an INVITE may carry and ask for: no offer, Replaces, reliable provisionals, early media.

use reveille::engine::output::WakeKind;
use reveille::sip::{HeaderName, Message, Method};

use crate::pbx::{Invite, SDP_OFFER};
use crate::phone::{Manner, SDP_ANSWER};
use crate::sip_text::{call_id, code};
use crate::world::{World, secs, seed};

#[test]
fn an_invite_without_an_offer_is_held_and_forwarded_like_any_other() {
    let mut world = World::new(seed(40)).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").with_body(b""));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 180, 200]);
    assert!(world.phone("alice").calls[0].invite.body().is_empty());
    assert_eq!(world.pbx().call(call).responses.last().expect("the 200").body(), SDP_ANSWER, "the phone's offer");
    let phone = world.phone("alice").address.to_string();
    let acks: Vec<Message> = world.sent_to(&phone).into_iter().filter(|it| it.method() == Some(Method::Ack)).collect();
    assert_eq!(acks[0].body(), SDP_OFFER, "and the caller's answer");
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn replacing_the_early_dialog_of_our_own_180_gets_481_and_one_of_a_phone_is_the_phones_business() {
    let mut world = World::new(seed(41)).with_sleeping_phone("alice").with("alice", |phone| {
        phone.manner = Manner::Ring;
        phone.boot = secs(5);
    });
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    let replaces = |world: &mut World, tag: usize| {
        let state = world.pbx().call(call);
        let caller = state.invite.from().expect("From").tag().expect("a tag").to_owned();
        format!("{};to-tag={};from-tag={caller};early-only", call_id(&state.invite), state.tags[tag])
    };
    let ours = replaces(&mut world, 0);
    let pickup = world.pbx().invite(Invite::to("alice").replacing(&ours));
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(pickup), [481], "RFC 3891 §3");
    assert_eq!(world.pushed(WakeKind::Call), 1);

    world.run_for(secs(5));
    let theirs = replaces(&mut world, 1);
    let pickup = world.pbx().invite(Invite::to("alice").replacing(&theirs));
    world.run_for(secs(1));
    let passed = world.phone("alice").calls[1].invite.header(HeaderName::Replaces).map(<[u8]>::to_vec);
    assert_eq!(passed, Some(theirs.into_bytes()));
    for call in [call, pickup] {
        world.pbx().cancel(call);
    }
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(487));
    world.assert_nothing_left();
}

#[test]
fn early_media_and_reliable_provisionals_pass_between_the_ends() {
    let mut world =
        World::new(seed(42)).with_sleeping_phone("alice").with("alice", |phone| phone.manner = Manner::Dead);
    let call = world.pbx().invite(Invite::to("alice").requiring("100rel"));
    world.run_for(secs(2));
    assert_eq!(world.pbx().heard(call), [100], "no unreliable one of ours");
    world.phone("alice").manner = Manner::Media;
    world.run_until(secs(10), |world| !world.phone("alice").calls.is_empty());
    world.run_for(secs(1));
    let progress = world.pbx().call(call).responses[1].clone();
    assert_eq!((code(&progress), progress.body()), (183, SDP_ANSWER));
    for method in [Method::Prack, Method::Update] {
        world.pbx().inside(call, method, b"");
    }
    world.run_for(secs(1));
    assert_eq!(world.phone("alice").requests, ["INVITE", "PRACK", "UPDATE"]);
    assert_eq!(world.pbx().call(call).answers.len(), 2);
    world.phone("alice").answer(0);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 183, 200]);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}
