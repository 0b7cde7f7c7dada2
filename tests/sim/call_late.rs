//! Story (b), phones that come too late: what a phone hears of a call that ended before it was there.

use reveille::engine::output::{CallOutcome, WakeKind};
use reveille::sip::{HeaderName, Transport};

use crate::pbx::Call;
use crate::phone::Manner;
use crate::sip_text::field;
use crate::world::{PushMode, World, millis, minutes, secs, seed};

const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

#[test]
fn an_iphone_that_was_woken_for_nothing_gets_the_invite_and_its_cancel_so_that_its_call_screen_closes() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice").with("alice", |phone| phone.boot = secs(8));
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().cancel_because(call, Some(ELSEWHERE));
    world.run_until_quiet();

    let id = world.pushes[0].call.clone().expect("a call id");
    assert_eq!(world.phone("alice").rang().first(), Some(&id), "under the name of its push");
    assert_eq!(world.phone("alice").news, [format!("{id};state=ended;reason=answered-elsewhere")], "and in words");
    assert_eq!(world.phone("alice").requests, ["INVITE", "CANCEL"]);
    assert_eq!(world.phone("alice").calls[0].ended, Some("cancelled"));
    assert_eq!(field(&cancel_sent(&world), HeaderName::Reason), ELSEWHERE);
    assert_eq!(world.pbx().heard(call), [100, 180, 487], "the caller hears nothing of it");

    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").rang().len(), 1, "once");
    world.assert_nothing_left();
}

#[test]
fn an_iphone_that_answers_the_late_invite_is_acknowledged_and_hung_up_by_us() {
    for manner in [Manner::Answer(millis(1)), Manner::AnswerAtCancel] {
        let mut world = World::new(seed(2)).with_sleeping_phone("alice").with("alice", |phone| {
            phone.boot = secs(8);
            phone.manner = manner;
        });
        let call = world.pbx().invite("alice");
        world.run_for(secs(2));
        world.pbx().cancel(call);
        world.run_until_quiet();
        assert_eq!(world.phone("alice").requests.first().map(String::as_str), Some("INVITE"));
        assert_eq!(world.phone("alice").requests.last().map(String::as_str), Some("BYE"), "{manner:?}");
        assert!(world.phone("alice").requests.contains(&"ACK".to_owned()));
        assert_eq!(world.pbx().heard(call), [100, 180, 487]);
        world.assert_nothing_left();
    }
}

#[test]
fn an_iphone_that_comes_after_the_hold_gets_both_and_one_that_comes_minutes_later_nothing() {
    for (boot, rings) in [(secs(60), 1), (minutes(4), 0)] {
        let mut world = World::new(seed(3)).with_sleeping_phone("alice").with("alice", |phone| phone.boot = boot);
        let call = world.pbx().invite("alice");
        world.run_until_quiet();
        assert_eq!(world.pbx().heard(call), [100, 180, 480]);
        assert_eq!(world.phone("alice").rang().len(), rings);
        assert_eq!(world.phone("alice").news.len(), rings);
        assert!(world.phone("alice").calls.iter().all(|call| call.ended == Some("cancelled")));
        world.assert_nothing_left();
    }
}

#[test]
fn invites_kept_for_late_phones_are_bounded_and_forgotten_in_time() {
    let mut world = World::new(seed(4)).with_shards(1).with_policy(|policy| policy.limits.held_calls = 2);
    for name in ["alice", "bob", "carol"] {
        world = world.with_sleeping_phone(name).with(name, |phone| phone.wakes = false);
        let call = world.pbx().invite(name);
        world.run_for(secs(1));
        world.pbx().cancel(call);
        world.run_for(millis(100));
    }
    assert_eq!(world.table("calls.late"), 2);
    assert_eq!(world.table("calls.ended"), 3, "the third hears in words that its call is over");
    world.run_for(minutes(3));
    assert_eq!(world.table("calls.late"), 0);
    world.assert_nothing_left();
}

/// The caller hangs up at any moment between the INVITE and long after the phone rang; whatever the order of push, boot,
/// challenge, INVITE and 180, nobody rings for it a moment later.
#[test]
fn whenever_the_caller_hangs_up_no_phone_rings_on_and_the_caller_hears_one_final() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for platform in ["ios", "android"] {
            for at in (0..60).map(|step| millis(step * 10 + 5)) {
                hang_up_at(at, transport, platform);
            }
        }
    }
}

fn hang_up_at(at: std::time::Duration, transport: Transport, platform: &'static str) {
    let mut world = World::new(seed(5)).with_phone("alice");
    world.phone("alice").platform = platform;
    world.phone("alice").transport = transport;
    world.phone("alice").manner = Manner::Ring;
    world.hand_over_now("alice");
    let call = world.pbx().invite("alice");
    world.run_for(at);
    world.pbx().cancel(call);
    world.run_for(millis(20));
    let pushed = world.pushed(WakeKind::Call);
    world.run_until_quiet();
    let why = format!("{at:?} {transport:?} {platform}");

    assert_eq!(world.pushed(WakeKind::Call), pushed, "a wake without a call: {why}");
    assert_eq!(world.pbx().final_response(call), Some(487), "{why}");
    assert_eq!(world.outcomes(), [CallOutcome::Cancelled], "{why}");
    assert!(world.phone("alice").calls.iter().all(|call| call.ended == Some("cancelled")), "{why}");
    let heard_180 = world.pbx().heard(call).iter().filter(|&&code| code == 180).count() > 1;
    let rang = world.phone("alice").calls.len() == 1 && heard_180;
    assert_eq!(world.pushed(WakeKind::MissedCall), usize::from(!rang), "{why}");
    // From the answer to the REGISTER to the CANCEL there is one round trip.
    let rings = world.phone("alice").rang().len();
    assert!(
        rings <= 1 && (platform == "ios" || rang || rings == 0 || transport == Transport::Udp || at > millis(400)),
        "{why}"
    );
    world.assert_nothing_left();
}

#[test]
fn a_phone_whose_flow_broke_while_it_rang_is_cancelled_on_the_flow_it_comes_back_on() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for (hang_up_first, away) in [(true, secs(1)), (false, secs(1)), (true, secs(50)), (false, secs(90))] {
            let mut world = World::new(seed(6)).with_sleeping_android("alice").with("alice", |phone| {
                phone.transport = transport;
                phone.manner = Manner::Ring;
            });
            let call = world.pbx().invite("alice");
            world.run_for(secs(2));
            world.phone("alice").wakes = false;
            if hang_up_first {
                world.phone("alice").lose_flow();
                world.pbx().cancel(call);
            } else {
                world.pbx().cancel(call);
                world.phone("alice").lose_flow();
            }
            world.run_for(away);
            assert_eq!(world.phone("alice").calls[0].ended, None, "it cannot know");
            world.phone("alice").reattach();
            world.run_for(millis(100));
            assert_eq!(
                world.phone("alice").calls[0].ended,
                Some("cancelled"),
                "{transport:?} {hang_up_first} {away:?}"
            );
            assert_eq!(world.phone("alice").rang().len(), 1);
            world.run_until_quiet();
            assert_eq!(world.pbx().final_response(call), Some(487));
            world.assert_nothing_left();
        }
    }
}

/// Another call's INVITE that nobody answered makes us take the flow for lost; the phone only hung for a while.
#[test]
fn a_phone_that_seemed_gone_while_it_rang_is_still_cancelled() {
    let mut world = World::new(seed(8)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    world.phone("alice").manner = Manner::Dead;
    world.phone("alice").wakes = false;
    world.pbx().invite("alice");
    world.run_for(secs(34));
    world.phone("alice").manner = Manner::Ring;
    world.pbx().cancel(call);
    world.run_for(millis(50));
    assert_eq!(world.phone("alice").calls[0].ended, Some("cancelled"));
    world.run_until_quiet();
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_answered_on_a_broken_flow_is_hung_up_when_it_comes_back() {
    let mut world = World::new(seed(7)).with_sleeping_android("alice").with("alice", |phone| {
        phone.transport = Transport::Tcp;
        phone.manner = Manner::Ring;
    });
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.phone("alice").wakes = false;
    world.phone("alice").lose_flow();
    world.phone("alice").answer(0);
    world.pbx().cancel(call);
    world.run_for(secs(3));
    assert_eq!(world.pbx().final_response(call), Some(487));
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").calls[0].ended, Some("caller"), "its 2xx got ACK and BYE");
    world.assert_nothing_left();
}

#[test]
fn an_app_that_was_frozen_with_the_invite_before_it_is_cancelled_when_it_thaws_after_the_end() {
    let mut world = World::new(seed(15)).with_sleeping_android("alice").with("alice", |phone| {
        phone.transport = Transport::Tcp;
    });
    world.phone("alice").attach();
    world.run_until_quiet();
    world.phone("alice").manner = Manner::Dead;
    world.phone("alice").wakes = false;
    let call = world.pbx().invite("alice");
    world.run_for(secs(50));
    assert_eq!(world.pbx().final_response(call), Some(480));
    let invite = world.sent.iter().find(|(_, to, bytes)| to.starts_with("203.") && bytes.starts_with(b"INVITE"));
    let invite = reveille::sip::Message::parse_datagram(invite.expect("an INVITE").2.clone()).expect("SIP");
    world.phone("alice").manner = Manner::Ring;
    let path = world.phone("alice").path();
    world.phone("alice").handle(invite, path);
    assert_eq!(world.phone("alice").rang().len(), 1);
    world.run_for(millis(50));
    assert_eq!(world.phone("alice").calls[0].ended, Some("cancelled"));
    world.assert_nothing_left();
}

#[test]
fn a_call_is_missed_only_if_nobody_rang_declined_or_answered() {
    let missed = |world: &World| (world.pushed(WakeKind::CallEnded), world.pushed(WakeKind::MissedCall));
    // Hung up while the phone sleeps.
    let (mut world, call) = sleeping(8);
    world.pbx().cancel(call);
    world.run_until_quiet();
    assert_eq!(missed(&world), (1, 1));
    // The same, but answered elsewhere.
    let (mut world, call) = sleeping(9);
    world.pbx().cancel_because(call, Some(ELSEWHERE));
    world.run_until_quiet();
    assert_eq!(missed(&world), (1, 0));
    // Nobody came.
    let (mut world, _) = sleeping(10);
    world.run_until_quiet();
    assert_eq!(missed(&world), (0, 1));
    // Nobody was reached: the other token may still be good.
    let mut world = World::new(seed(11)).with_sleeping_phone("alice");
    let refused = reveille::engine::output::PushOutcome::Theirs("503".to_owned());
    world.push_mode = PushMode::Answer(refused);
    world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(missed(&world), (0, 1));
    // It rang: the phone knows by itself.
    let mut world =
        World::new(seed(12)).with_sleeping_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().cancel(call);
    world.run_until_quiet();
    assert_eq!(missed(&world), (0, 0));
    // The phone refused.
    for code in [486, 603, 480] {
        let mut world = World::new(seed(13)).with_sleeping_phone("alice").with("alice", |phone| {
            phone.manner = Manner::Refuse(code, millis(10));
        });
        world.pbx().invite("alice");
        world.run_until_quiet();
        assert_eq!(missed(&world), (0, 0), "{code}");
    }
}

#[test]
fn a_phone_that_has_the_invite_but_never_rang_is_told_what_it_missed() {
    let mut world = World::new(seed(14)).with_attached_phone("alice").with("alice", |phone| {
        phone.manner = Manner::Dead;
        phone.wakes = false;
    });
    let call = world.pbx().invite("alice");
    world.run_for(millis(100));
    world.pbx().cancel(call);
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(487));
    assert_eq!(world.pushed(WakeKind::Call), 0, "the caller was gone before the silence was over");
    assert_eq!(world.pushed(WakeKind::MissedCall), 1);
    world.assert_nothing_left();
}

fn sleeping(number: u64) -> (World, Call) {
    let mut world = World::new(seed(number)).with_sleeping_phone("alice").with("alice", |phone| phone.wakes = false);
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    (world, call)
}

fn cancel_sent(world: &World) -> reveille::sip::Message {
    let cancels = world.sent.iter().filter(|(_, _, bytes)| bytes.starts_with(b"CANCEL"));
    let bytes = cancels.map(|(_, _, bytes)| bytes.clone()).next().expect("a CANCEL");
    reveille::sip::Message::parse_datagram(bytes).expect("SIP")
}
