//! Story (b), inside the call: what the caller sends while the phone has lost one connection and not opened the next.

use reveille::sip::{Message, Method, Transport};

use crate::in_dialog::{sent_inside, talking_over};
use crate::world::{World, millis, minutes, secs, seed};

#[test]
fn requests_between_two_connections_of_a_phone_reach_it_on_the_next_one() {
    for method in [Method::Bye, Method::Info, Method::Invite] {
        let (mut world, call) = talking_over(Transport::Tls, 27);
        world.phone("alice").lose_flow();
        world.run_for(secs(1));
        match method {
            Method::Bye => world.pbx().hang_up(call),
            other => world.pbx().inside(call, other, b""),
        }
        world.run_for(secs(4));
        assert!(world.pbx().call(call).answers.is_empty(), "{method:?} waits for the phone");
        world.phone("alice").reattach();
        world.run_until_quiet();
        assert_eq!(world.pbx().call(call).answers, [(method.as_str().to_owned(), 200)]);
        assert_eq!(sent_inside(&world, method), 1);
        let ended = world.phone("alice").calls[0].ended;
        assert_eq!(ended, (method == Method::Bye).then_some("caller"));
        if method != Method::Bye {
            world.pbx().hang_up(call);
            world.run_until_quiet();
        }
        world.assert_nothing_left();
    }
}

#[test]
fn the_ack_to_an_answer_waits_for_a_phone_that_lost_its_connection_after_it() {
    let mut world = World::new(seed(29)).with_sleeping_phone("alice").with("alice", |it| it.transport = Transport::Tls);
    world.pbx().invite("alice");
    let answered = |world: &mut World| world.sent_to("198.51.100.10:5060").iter().any(is_answer_to_invite);
    world.run_until(minutes(1), answered);
    world.phone("alice").lose_flow();
    world.run_for(secs(1));
    assert_eq!(world.phone("alice").requests, ["INVITE"]);
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").requests, ["INVITE", "ACK"]);
    world.phone("alice").hang_up();
    world.run_until_quiet();
    world.assert_nothing_left();
}

#[test]
fn a_caller_who_sends_many_requests_meanwhile_does_not_take_the_room_of_others() {
    let (mut world, call) = talking_over(Transport::Tls, 30);
    world.phone("alice").lose_flow();
    world.run_for(secs(1));
    for _ in 0..40 {
        world.pbx().inside(call, Method::Info, b"");
        world.run_for(millis(50));
    }
    assert_eq!(world.table("pass.inside"), 16);
    assert_eq!(world.pbx().call(call).answers, vec![("INFO".to_owned(), 480); 24]);
    world.phone("alice").reattach();
    world.run_for(secs(5));
    assert_eq!(sent_inside(&world, Method::Info), 16);
    world.pbx().hang_up(call);
    world.run_until_quiet();
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_signed_off_in_a_call_is_not_waited_for() {
    let (mut world, call) = talking_over(Transport::Tls, 28);
    world.phone("alice").detach();
    world.run_for(secs(1));
    world.pbx().hang_up(call);
    world.run_for(secs(1));
    assert_eq!(world.pbx().call(call).answers, [("BYE".to_owned(), 480)]);
    world.run_until_quiet();
    world.assert_nothing_left();
}

#[test]
fn requests_to_a_phone_that_lost_its_flow_and_stays_away_get_480_and_a_bye_ends_the_dialog_all_the_same() {
    let (mut world, call) = talking_over(Transport::Tcp, 15);
    world.phone("alice").lose_flow();
    world.run_for(secs(1));
    world.pbx().inside(call, Method::Info, b"");
    world.pbx().hang_up(call);
    world.run_for(secs(31));
    // Before the sender's own timer F.
    assert_eq!(world.pbx().call(call).answers, [("INFO".to_owned(), 480), ("BYE".to_owned(), 480)]);
    world.run_until_quiet();
    world.assert_nothing_left();
}

fn is_answer_to_invite(message: &Message) -> bool {
    message.status().is_some_and(|status| status.is_success())
        && message.cseq().is_ok_and(|cseq| cseq.method == Method::Invite)
}
