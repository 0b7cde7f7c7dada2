//! Story (b), the ways a call ends: hung up, declined, refused, forgotten.

use reveille::engine::input::{Command, Decline, DeclineReason, PushPurpose};
use reveille::engine::output::{Answer as Told, CallOutcome, CallState, Refusal, WakeKind};
use reveille::sip::{HeaderName, Message};

use crate::phone::Manner;
use crate::world::{World, millis, minutes, secs, seed};

#[test]
fn a_caller_hanging_up_before_the_wake_gets_487_and_the_phone_stays_silent() {
    let mut world = World::new(seed(16)).with_sleeping_android("alice").with_push_delay(secs(5));
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    world.pbx().cancel(call);
    world.run_for(millis(50));
    assert_eq!(world.pbx().heard(call), [100, 487], "at once");
    world.run_until_quiet();
    assert!(world.phone("alice").rang().is_empty());
    assert_eq!(world.pbx().call(call).answers, [("CANCEL".to_owned(), 200)]);
    assert_eq!(world.outcomes(), [CallOutcome::Cancelled]);
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_attaches_late_is_told_that_its_call_ended_and_why() {
    let mut world = World::new(seed(17)).with_sleeping_android("alice").with("alice", |phone| phone.boot = secs(8));
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().cancel_because(call, Some("SIP;cause=200;text=\"Call completed elsewhere\""));
    world.run_until_quiet();

    let id = world.pushes[0].call.clone().expect("a call id");
    assert_eq!(world.phone("alice").news, [format!("{id};state=ended;reason=answered-elsewhere")]);
    assert!(world.phone("alice").rang().is_empty());
    assert_eq!(world.phone("alice").kinds(), [WakeKind::Call, WakeKind::CallEnded]);
    let ended = world.pushes.last().expect("the second push");
    assert_eq!(ended.purpose, PushPurpose::Other, "never to the VoIP token");
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_attaches_after_the_hold_is_told_too() {
    let mut world = World::new(seed(18)).with_sleeping_phone("alice").with("alice", |phone| phone.boot = secs(60));
    world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.phone("alice").news.len(), 1);
    assert!(world.phone("alice").news[0].ends_with(";state=ended;reason=no-device"));
}

#[test]
fn a_cancel_after_forwarding_reaches_the_phone_and_its_487_the_caller() {
    let mut world =
        World::new(seed(19)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().cancel_because(call, Some("SIP;cause=200"));
    world.run_until_quiet();

    assert_eq!(world.pbx().heard(call), [100, 180, 487]);
    assert_eq!(world.phone("alice").requests, ["INVITE", "CANCEL"], "the ACK to a 487 is the transaction's");
    let cancels = world.sent.iter().filter(|(_, _, bytes)| bytes.starts_with(b"CANCEL"));
    let cancel = cancels.map(|(_, _, bytes)| bytes.clone()).next().expect("a CANCEL");
    let cancel = Message::parse_datagram(cancel).expect("SIP");
    assert_eq!(
        crate::sip_text::field(&cancel, HeaderName::Reason),
        "SIP;cause=200",
        "so that phones log no missed call"
    );
    world.assert_nothing_left();
}

#[test]
fn a_cancel_waits_for_the_first_provisional_of_the_phone() {
    let mut world =
        World::new(seed(20)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Dead);
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    world.pbx().cancel(call);
    world.run_for(secs(2));
    assert!(!world.sent.iter().any(|(_, _, bytes)| bytes.starts_with(b"CANCEL")), "RFC 3261 §9.1");
    assert_eq!(world.pbx().final_response(call), None);
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(487));
    world.assert_nothing_left();
}

#[test]
fn an_answer_that_crosses_the_cancel_is_relayed_and_the_caller_ends_the_call() {
    let mut world =
        World::new(seed(21)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::AnswerAtCancel);
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().cancel(call);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 200]);
    assert_eq!(world.phone("alice").requests, ["INVITE", "CANCEL", "ACK", "BYE"]);
    world.assert_nothing_left();
}

#[test]
fn an_answer_nobody_waits_for_any_more_is_acknowledged_and_ended_by_us() {
    let mut world =
        World::new(seed(22)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::AnswerAtCancel);
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    decline(&mut world, "alice", DeclineReason::Busy, false);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 486]);
    assert_eq!(world.phone("alice").requests, ["INVITE", "CANCEL", "ACK", "BYE"]);
    world.assert_nothing_left();
}

#[test]
fn a_bye_of_ours_is_repeated_until_the_phone_has_it() {
    let mut world =
        World::new(seed(23)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::AnswerAtCancel);
    world.pbx().invite("alice");
    world.run_for(secs(2));
    decline(&mut world, "alice", DeclineReason::Busy, false);
    world.run_until(secs(5), |world| world.phone("alice").calls[0].dialog.is_some());
    // The ACK comes through, the BYE behind it does not.
    world.run_until(secs(5), |world| world.sent.iter().any(|(_, _, bytes)| bytes.starts_with(b"BYE")));
    world.drop_datagrams_starting(b"BYE");
    world.run_until_quiet();
    assert_eq!(world.phone("alice").requests, ["INVITE", "CANCEL", "ACK", "BYE"]);
    world.assert_nothing_left();
}

#[test]
fn declining_over_https_is_486_and_603_only_if_asked_for_everywhere() {
    for (reason, everywhere, expected) in [
        (DeclineReason::Busy, false, 486),
        (DeclineReason::Decline, false, 486),
        (DeclineReason::Decline, true, 603),
        (DeclineReason::Unavailable, false, 480),
        (DeclineReason::Unavailable, true, 480),
    ] {
        let mut world = World::new(seed(24)).with_sleeping_phone("alice").with("alice", |phone| phone.wakes = false);
        let call = world.pbx().invite("alice");
        world.run_for(secs(1));
        let asked = decline(&mut world, "alice", reason, everywhere);
        assert!(matches!(world.answer(asked), Some(Told::Call(view)) if view.state == CallState::Ended));
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(expected));
        assert_eq!(world.outcomes(), [CallOutcome::Declined]);
        assert_eq!(world.pushes.len(), 1, "no call-ended push to who declined");
        let again = decline(&mut world, "alice", DeclineReason::Unavailable, false);
        let Some(Told::Call(view)) = world.answer(again) else { panic!("{:?}", world.refusal(again)) };
        assert_eq!((view.state, view.reason), (CallState::Ended, Some("declined")), "the first answer once more");
        world.run_for(minutes(2));
        let late = decline(&mut world, "alice", reason, everywhere);
        assert_eq!(world.refusal(late), Some(Refusal::CallOver), "forgotten");
        world.assert_nothing_left();
    }
}

#[test]
fn a_phone_that_crashes_after_the_decline_leaves_nothing_behind() {
    let mut world =
        World::new(seed(24)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.phone("alice").crash();
    decline(&mut world, "alice", DeclineReason::Busy, false);
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(486));
    world.assert_nothing_left();
}

#[test]
fn a_call_is_shown_as_waking_ringing_answered_and_ended() {
    let mut world = World::new(seed(25)).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(millis(100));
    assert_eq!(shown(&mut world, "alice"), (CallState::Waking, None));
    world.run_for(secs(1));
    assert_eq!(shown(&mut world, "alice"), (CallState::Ringing, None));
    world.run_for(secs(3));
    assert_eq!(shown(&mut world, "alice"), (CallState::Answered, None));
    world.pbx().hang_up(call);
    world.run_for(secs(1));
    assert_eq!(shown(&mut world, "alice"), (CallState::Ended, Some("hung-up")));
    world.run_for(minutes(3));
    let (id, token) = world.key_of("alice");
    let uuid = uuid_of(&world, 0);
    let asked = world.command(Command::Call(id, token, uuid));
    assert_eq!(world.refusal(asked), Some(Refusal::CallOver), "call state is gone 120 s after its end");
}

#[test]
fn a_phone_that_refuses_ends_the_call_with_its_own_code_and_its_503_goes_up_as_500() {
    for (refusal, expected, outcome) in [
        (486, 486, CallOutcome::Declined),
        (603, 603, CallOutcome::Declined),
        (488, 488, CallOutcome::Failed),
        (503, 500, CallOutcome::Failed),
    ] {
        let mut world = World::new(seed(26))
            .with_sleeping_phone("alice")
            .with("alice", |phone| phone.manner = Manner::Refuse(refusal, secs(1)));
        let call = world.call_and_wait("alice");
        assert_eq!(world.pbx().final_response(call), Some(expected));
        assert_eq!(world.outcomes(), [outcome]);
        world.assert_nothing_left();
    }
}

#[test]
fn ended_calls_are_remembered_up_to_a_number_for_each_instance() {
    let mut world =
        World::new(seed(30)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    for _ in 0..40 {
        let call = world.pbx().invite("alice");
        world.run_for(millis(200));
        world.pbx().cancel(call);
        world.run_for(millis(200));
    }
    assert_eq!(world.table("calls.ended"), 16);
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_rings_for_ever_is_ended_on_both_sides() {
    let mut world =
        World::new(seed(32)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_for(secs(170));
    assert_eq!(world.pbx().final_response(call), None);
    world.run_for(secs(15));
    assert_eq!(world.pbx().final_response(call), Some(408));
    assert_eq!(world.phone("alice").requests, ["INVITE", "CANCEL"]);
    world.assert_nothing_left();
}

fn decline(world: &mut World, name: &str, reason: DeclineReason, everywhere: bool) -> u64 {
    let (id, token) = world.key_of(name);
    let call = world.calls_of(name).pop().expect("a call");
    world.command(Command::Decline(id, token, call, Decline { reason, everywhere }))
}

fn shown(world: &mut World, name: &str) -> (CallState, Option<&'static str>) {
    let (id, token) = world.key_of(name);
    let uuid = uuid_of(world, 0);
    let asked = world.command(Command::Call(id, token, uuid));
    match world.answer(asked) {
        Some(Told::Call(view)) => (view.state, view.reason),
        _ => panic!("no such call"),
    }
}

fn uuid_of(world: &World, push: usize) -> reveille::engine::ids::CallUuid {
    let text = world.pushes[push].call.as_ref().expect("a call");
    reveille::engine::ids::CallUuid(uuid::Uuid::parse_str(text).expect("a UUID"))
}
