//! Text messages: straight through on a live flow, kept sealed for a sleeping phone, told in order, once.

use reveille::engine::output::{PushOutcome, WakeKind};
use reveille::engine::tally::TextOutcome;
use reveille::sip::{HeaderName, Transport};

use crate::pbx::{Call, Text};
use crate::phone::{Manner, field_of};
use crate::sip_text::{call_id, code, field};
use crate::world::{PushMode, World, millis, secs, seed};

#[test]
fn a_text_to_an_attached_phone_goes_straight_through_with_its_answer() {
    let mut world = World::new(seed(1)).with_attached_phone("alice");
    let text = world.pbx().text(Text::to("alice", "lunch?"));
    world.run_until_quiet();

    assert_eq!(world.pbx().heard(text), [200]);
    assert_eq!(world.phone("alice").read(), ["lunch?"]);
    let told = world.phone("alice").told[0].clone();
    assert_eq!(field(&told, HeaderName::From), field(&world.pbx().call(text).invite, HeaderName::From));
    assert!(field_of(&told, "Reveille-Message").is_some());
    assert!(told.vias().count() == 2, "forwarded, not sent anew");
    assert!(world.pushes.is_empty());
    assert_eq!(world.table("vault.sealed"), 0);
    world.assert_nothing_left();
}

#[test]
fn a_refusal_of_the_attached_phone_goes_back_and_nothing_is_kept() {
    let mut world = World::new(seed(2)).with_attached_phone("alice").with("alice", |phone| phone.telling = 415);
    let text = world.pbx().text(Text::to("alice", "odd"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(text), [415]);
    assert_eq!(world.table("texts.held"), 0);
    assert!(world.pushes.is_empty());
}

#[test]
fn a_text_to_a_sleeping_phone_gets_202_one_wake_and_waits_sealed() {
    let mut world = World::new(seed(3)).with_sleeping_phone("alice");
    let text = world.pbx().text(Text::to("alice", "see you at nine").with("X-Thread", "7"));
    world.run_until_quiet();

    assert_eq!(world.pbx().heard(text), [202]);
    assert_eq!(world.pushed(WakeKind::Message), 1);
    assert_eq!((world.table("texts.held"), world.table("vault.sealed")), (1, 1));
    assert!(world.phone("alice").told.is_empty());

    world.phone("alice").attach();
    world.run_until_quiet();

    assert_eq!(world.phone("alice").read(), ["see you at nine"]);
    let told = world.phone("alice").told[0].clone();
    let sent = world.pbx().call(text).invite.clone();
    for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq, HeaderName::ContentType] {
        assert_eq!(field(&told, name), field(&sent, name));
    }
    assert_eq!(field_of(&told, "X-Thread").as_deref(), Some("7"));
    assert!(field(&told, HeaderName::Date).starts_with("Sat, 21 Nov 2026 20:00:"), "the date of its arrival");
    assert_eq!(told.vias().count(), 1, "the sender's way is nobody's business");
    assert_eq!(world.table("texts.held"), 0);
    assert_eq!(world.pbx().heard(text), [202], "one answer");
    world.assert_nothing_left();
}

#[test]
fn many_texts_cause_one_wake_until_the_phone_attaches_and_come_in_order() {
    let mut world = World::new(seed(4)).with_sleeping_phone("alice");
    for number in 0..5 {
        world.pbx().text(Text::to("alice", &format!("text {number}")));
        world.run_for(secs(20));
    }
    assert_eq!(world.pushed(WakeKind::Message), 1);
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["text 0", "text 1", "text 2", "text 3", "text 4"]);

    world.phone("alice").detach();
    world.run_until_quiet();
    world.pbx().text(Text::to("alice", "later"));
    world.run_until_quiet();
    assert_eq!(world.pushed(WakeKind::Message), 2);
}

#[test]
fn a_wake_that_failed_is_sent_again_with_the_next_text() {
    let failed = PushMode::Answer(PushOutcome::Theirs("gone".to_owned()));
    let mut world = World::new(seed(5)).with_sleeping_phone("alice").with_push(failed);
    for number in 0..2 {
        world.pbx().text(Text::to("alice", &number.to_string()));
        world.run_for(secs(5));
    }
    assert_eq!(world.pushed(WakeKind::Message), 2);
}

#[test]
fn a_silent_flow_gets_202_and_a_wake_well_before_the_sender_gives_up() {
    let mut world = World::new(seed(6)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Dead);
    let text = world.pbx().text(Text::to("alice", "hello?"));
    world.run_for(secs(4));
    assert_eq!(world.pbx().heard(text), [202]);
    assert_eq!(world.pushed(WakeKind::Message), 1);

    world.phone("alice").manner = Manner::Answer(secs(1));
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["hello?"]);
    assert_eq!(world.table("texts.held"), 0);
    world.assert_nothing_left();
}

#[test]
fn a_late_answer_of_a_slow_phone_still_counts_and_it_is_told_once() {
    let mut world = World::new(seed(7)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Dead);
    let text = world.pbx().text(Text::to("alice", "slow"));
    world.run_for(secs(4));
    world.phone("alice").manner = Manner::Answer(secs(1));
    // A repetition of the forwarded request reaches it now.
    world.run_for(secs(10));
    assert_eq!(world.pbx().heard(text), [202]);
    assert_eq!(world.phone("alice").read(), ["slow"]);
    assert_eq!(world.table("texts.held"), 0);
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["slow"]);
}

#[test]
fn a_flow_that_breaks_under_a_text_keeps_it() {
    let mut world = with_stream_phone(8);
    world.phone("alice").manner = Manner::Dead;
    let text = world.pbx().text(Text::to("alice", "cut"));
    world.run_for(millis(200));
    world.phone("alice").lose_flow();
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(text), [202]);
    assert_eq!(world.pushed(WakeKind::Message), 1);
    world.phone("alice").manner = Manner::Answer(secs(1));
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["cut"]);
    world.assert_nothing_left();
}

#[test]
fn a_text_that_arrives_while_the_phone_attaches_is_told_once_in_whatever_order() {
    for delay in [0, 5, 15, 25, 35, 45, 55, 75, 100, 200] {
        for first in [true, false] {
            let mut world = World::new(seed(delay)).with_sleeping_phone("alice");
            if first {
                world.phone("alice").attach();
                world.run_for(millis(delay));
            }
            let text = world.pbx().text(Text::to("alice", "race"));
            if !first {
                world.run_for(millis(delay));
                world.phone("alice").attach();
            }
            world.run_until_quiet();
            let finals = world.pbx().heard(text).to_vec();
            assert!(finals == [200] || finals == [202], "{finals:?}");
            assert_eq!(world.phone("alice").read(), ["race"], "{delay} ms, attaching first: {first}");
            assert_eq!(world.table("texts.held"), 0);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn texts_that_come_while_others_are_told_queue_up_behind_them() {
    let mut world = World::new(seed(10)).with_sleeping_phone("alice");
    world.pbx().text(Text::to("alice", "1"));
    world.pbx().text(Text::to("alice", "2"));
    world.run_until_quiet();
    world.phone("alice").attach();
    world.run_until(secs(5), |world| !world.phone("alice").told.is_empty());
    let third = world.pbx().text(Text::to("alice", "3"));
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["1", "2", "3"]);
    assert!([200, 202].contains(&world.pbx().final_response(third).expect("an answer")));
    assert_eq!(world.pushed(WakeKind::Message), 1, "an attached phone needs no wake");
}

#[test]
fn a_fault_of_the_phone_keeps_a_text_for_the_next_attach_and_a_refusal_drops_it() {
    for (telling, told, left) in [(503, 1, 2), (500, 1, 2), (486, 2, 0), (603, 2, 0), (482, 2, 0)] {
        let mut world = World::new(seed(11)).with_sleeping_phone("alice");
        world.pbx().text(Text::to("alice", "a"));
        world.pbx().text(Text::to("alice", "b"));
        world.run_until_quiet();
        world.phone("alice").telling = telling;
        world.phone("alice").attach();
        world.run_for(secs(10));
        assert_eq!(world.phone("alice").told.len(), told, "{telling}");
        assert_eq!(world.table("texts.held"), left, "{telling}");
        world.phone("alice").telling = 200;
        world.phone("alice").attach();
        world.run_until_quiet();
        assert_eq!(world.table("texts.held"), 0);
        if left > 0 {
            assert_eq!(world.phone("alice").read(), ["a", "a", "b"]);
            let names: Vec<_> =
                world.phone("alice").told.iter().map(|text| field_of(text, "Reveille-Message")).collect();
            assert_eq!(names[0], names[1], "the same text bears the same name");
            assert_ne!(names[1], names[2]);
        }
    }
}

#[test]
fn a_phone_that_falls_silent_while_it_is_told_is_woken_and_told_again() {
    let mut world = World::new(seed(12)).with_sleeping_phone("alice");
    world.pbx().text(Text::to("alice", "again"));
    world.run_until_quiet();
    world.phone("alice").manner = Manner::Dead;
    world.phone("alice").attach();
    world.run_for(secs(40));
    assert!(world.phone("alice").told.is_empty());
    assert_eq!(world.pushed(WakeKind::Message), 2);
    world.phone("alice").manner = Manner::Answer(secs(1));
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["again"]);
}

#[test]
fn somebody_typing_wakes_nobody_and_is_not_kept() {
    let mut world = World::new(seed(13)).with_sleeping_phone("alice");
    let typing = world.pbx().text(Text::to("alice", "<x/>").of_type("application/im-iscomposing+xml"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(typing), [202]);
    assert_eq!((world.pushes.len(), world.table("texts.held")), (0, 0));

    world.phone("alice").attach();
    world.run_until_quiet();
    let typing = world.pbx().text(Text::to("alice", "<x/>").of_type("application/im-iscomposing+xml"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(typing), [200]);
    assert_eq!(world.phone("alice").told.len(), 1);
}

#[test]
fn a_delivery_notice_is_kept_but_wakes_nobody() {
    let wrapped = "From: <sip:c@d>\r\n\r\nContent-Type: message/imdn+xml\r\n\r\n<imdn/>";
    for (media, body) in [("message/imdn+xml", "<imdn/>"), ("message/cpim", wrapped)] {
        let mut world = World::new(seed(14)).with_sleeping_phone("alice");
        let notice = world.pbx().text(Text::to("alice", body).of_type(media));
        world.run_until_quiet();
        assert_eq!(world.pbx().heard(notice), [202]);
        assert!(world.pushes.is_empty());
        world.phone("alice").attach();
        world.run_until_quiet();
        assert_eq!(world.phone("alice").read(), [body]);
    }
}

#[test]
fn repetitions_and_copies_are_stored_once_and_answered_again() {
    let mut world = World::new(seed(21)).with_sleeping_phone("alice");
    let text = Text::to("alice", "twice").named("one-name@pbx");
    let first = world.pbx().text(text.clone());
    world.run_for(secs(1));
    let repeated = world.pbx().call(first).invite.clone();
    let own = world.pbx().address;
    let before = world.sent.len();
    world.pbx().send_raw(own, repeated.bytes());
    world.run_for(secs(1));
    let again = world.sent[before..].iter().map(|(_, _, bytes)| bytes.clone()).collect::<Vec<_>>();
    assert_eq!(again.len(), 1);
    assert!(again[0].starts_with(b"SIP/2.0 202 "));

    let copy = world.pbx().text(text.clone());
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(copy), [202]);
    assert_eq!(world.table("texts.held"), 1);

    world.phone("alice").attach();
    world.run_for(secs(5));
    let late = world.pbx().text(text);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(late), [202], "what was told is remembered for a while");
    assert_eq!(world.phone("alice").read(), ["twice"]);
    assert_eq!(world.pushed(WakeKind::Message), 1);
}

#[test]
fn copies_of_a_text_on_its_way_get_its_answer() {
    let mut world = World::new(seed(22)).with_attached_phone("alice");
    let text = Text::to("alice", "forked").named("forked@pbx");
    let copies: Vec<Call> = (0..3).map(|_| world.pbx().text(text.clone())).collect();
    world.run_until_quiet();
    for copy in copies {
        assert_eq!(world.pbx().heard(copy), [200]);
    }
    assert_eq!(world.phone("alice").read(), ["forked"]);
    world.assert_nothing_left();
}

#[test]
fn what_became_of_texts_is_counted() {
    let mut world = World::new(seed(28)).with_sleeping_phone("alice");
    world.pbx().text(Text::to("alice", "kept"));
    world.pbx().text(Text::to("alice", "<x/>").of_type("application/im-iscomposing+xml"));
    world.run_until_quiet();
    world.phone("alice").attach();
    world.run_until_quiet();
    world.pbx().text(Text::to("alice", "passed"));
    world.run_until_quiet();
    for (outcome, count) in [
        (TextOutcome::Kept, 1),
        (TextOutcome::Delivered, 1),
        (TextOutcome::Dropped, 1),
        (TextOutcome::Passed, 1),
        (TextOutcome::Limited, 0),
    ] {
        assert_eq!(world.texts_counted(outcome), count, "{outcome:?}");
    }
}

#[test]
fn texts_over_a_stream_are_told_and_answered_over_it() {
    let mut world = with_stream_phone(29);
    let text = world.pbx().text(Text::to("alice", "tcp"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(text), [200]);
    world.phone("alice").lose_flow();
    world.run_for(secs(1));
    let kept = world.pbx().text(Text::to("alice", "kept"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(kept), [202]);
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), ["tcp", "kept"]);
    let names: Vec<_> = world.phone("alice").told.iter().map(call_id).collect();
    assert_eq!(names.len(), 2);
    assert!(world.pbx().call(kept).responses.iter().all(|response| code(response) == 202));
    world.assert_nothing_left();
}

fn with_stream_phone(number: u64) -> World {
    let mut world =
        World::new(seed(number)).with_sleeping_phone("alice").with("alice", |phone| phone.transport = Transport::Tcp);
    world.phone("alice").attach();
    world.run_until_quiet();
    world
}
