//! Story (b), several devices of one account: they ring together, and what one does the others hear of.

use reveille::engine::input::{CallHandOver, Command, Decline, DeclineReason};
use reveille::engine::output::{Answer as Told, CallOutcome, CallState, WakeKind};
use reveille::engine::policy::Policy;
use reveille::sip::{HeaderName, Message, Method, Transport};

use crate::pbx::Call;
use crate::phone::Manner;
use crate::sip_text::{code, field};
use crate::world::build::{PBX, account, password, password_of};
use crate::world::{PushMode, World, millis, secs, seed};

pub const NAMES: [&str; 2] = ["alice", "tablet"];

#[test]
fn both_are_woken_once_both_ring_and_the_first_answer_wins() {
    let mut world = two_devices(1).with("tablet", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_until_quiet();

    assert_eq!(world.pushed(WakeKind::Call), 2);
    assert_eq!(world.pbx().heard(call).first(), Some(&100));
    assert_eq!(world.pbx().final_response(call), Some(200));
    assert_eq!(world.pbx().call(call).tags.len(), 3, "ours, and an early dialog with each");
    assert_eq!(world.phone("alice").requests, ["INVITE", "ACK"]);
    assert_eq!(world.phone("tablet").requests, ["INVITE", "CANCEL"]);
    let reason = field(&sent_to(&world, "tablet", Method::Cancel)[0], HeaderName::Reason);
    assert_eq!(reason, "SIP;cause=200;text=\"Call completed elsewhere\"", "so that it logs no missed call");
    let ids: Vec<_> = NAMES.map(|name| world.phone(name).rang()).to_vec();
    let names = NAMES.map(|name| world.calls_at(name, "alice").iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(ids, names, "each by its own name for it, that of its push");
    assert_ne!(ids[0], ids[1]);
    assert_eq!(world.outcomes(), [CallOutcome::Answered]);
    assert_eq!((world.pushed(WakeKind::CallEnded), world.pushed(WakeKind::MissedCall)), (0, 0));

    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert_eq!(world.phone("alice").calls[0].ended, Some("caller"), "by the route of its own leg");
    world.assert_nothing_left();
}

#[test]
fn who_still_sleeps_when_another_answers_is_told_by_push_and_by_sip() {
    for platform in ["ios", "android"] {
        let mut world = two_devices(2).with("tablet", |phone| phone.boot = secs(20));
        let (id, _) = world.key_of("tablet");
        if platform == "android" {
            world = two_devices_of(2, "android").with("tablet", |phone| phone.boot = secs(20));
        }
        let call = world.pbx().invite("alice");
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(200));
        assert_eq!(world.phone("tablet").kinds(), [WakeKind::Call, WakeKind::CallEnded], "{platform}");
        let news = world.phone("tablet").news.clone();
        assert!(news.len() == 1 && news[0].ends_with("state=ended;reason=answered-elsewhere"), "{id}: {news:?}");
        let expected: &[&str] = if platform == "ios" { &["INVITE", "CANCEL"] } else { &[] };
        assert_eq!(world.phone("tablet").requests, expected, "{platform}");
        assert!(world.pbx().call(call).is_up(), "nobody else notices");
        assert_eq!(world.pushed(WakeKind::MissedCall), 0);
        world.pbx().hang_up(call);
        world.assert_nothing_left();
    }
}

#[test]
fn of_two_answers_at_once_one_wins_and_the_other_is_acknowledged_and_hung_up_by_us() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut world = two_devices(3);
        for name in NAMES {
            world.phone(name).transport = transport;
            world.phone(name).manner = Manner::Ring;
        }
        let call = world.pbx().invite("alice");
        world.run_for(secs(2));
        for name in NAMES {
            world.phone(name).answer(0);
        }
        world.run_until_quiet();
        assert_eq!(successes(&world), 1, "one 2xx for the caller");
        assert_eq!(talking(&mut world).len(), 1);
        let loser = NAMES.into_iter().find(|name| world.phone(name).calls[0].ended.is_some()).expect("a loser");
        let heard = world.phone(loser).requests.clone();
        assert_eq!(heard.first().map(String::as_str), Some("INVITE"));
        assert!(heard.contains(&"ACK".to_owned()) && heard.contains(&"BYE".to_owned()), "{heard:?}");
        world.pbx().hang_up(call);
        world.run_until_quiet();
        assert!(talking(&mut world).is_empty());
        world.assert_nothing_left();
    }
}

#[test]
fn a_refusal_of_one_leaves_the_other_ringing() {
    for refusal in [486, 480, 404, 500, 503] {
        let mut world = two_devices(4).with("alice", |phone| phone.manner = Manner::Refuse(refusal, millis(100)));
        let call = world.pbx().invite("alice");
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(200), "{refusal}");
        assert_eq!(world.outcomes(), [CallOutcome::Answered]);
        world.pbx().hang_up(call);
        world.assert_nothing_left();
    }
}

#[test]
fn when_all_have_refused_the_caller_gets_the_best_final_and_a_6xx_ends_it_at_once() {
    for (first, second, expected) in [
        (486, 480, 486),
        (480, 486, 486),
        (486, 503, 486),
        (503, 480, 480),
        (503, 500, 500),
        (488, 404, 488),
        (486, 302, 302),
    ] {
        let mut world = two_devices(5);
        world.phone("alice").manner = Manner::Refuse(first, millis(100));
        world.phone("tablet").manner = Manner::Refuse(second, secs(3));
        let call = world.pbx().invite("alice");
        world.run_for(secs(2));
        assert_eq!(world.pbx().final_response(call), None, "the other may still answer");
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(expected), "{first} {second}");
        world.assert_nothing_left();
    }
    let mut world = two_devices(5);
    world.phone("alice").manner = Manner::Refuse(603, secs(1));
    world.phone("tablet").manner = Manner::Ring;
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    assert_eq!(world.pbx().final_response(call), Some(603));
    assert_eq!(world.phone("tablet").calls[0].ended, Some("cancelled"));
    assert_eq!(world.outcomes(), [CallOutcome::Declined]);
    world.assert_nothing_left();
}

#[test]
fn a_refusal_waits_for_those_who_sleep_but_not_longer_than_the_hold() {
    let mut world = two_devices(6).with("tablet", |phone| phone.wakes = false);
    world.phone("alice").manner = Manner::Refuse(486, millis(100));
    let call = world.pbx().invite("alice");
    world.run_for(secs(44));
    assert_eq!(world.pbx().final_response(call), None);
    world.run_for(secs(2));
    assert_eq!(world.pbx().final_response(call), Some(486));
    assert_eq!(world.pushed(WakeKind::MissedCall), 0, "the user declined");
    world.assert_nothing_left();
}

#[test]
fn declining_over_https_is_for_one_device_unless_asked_for_everywhere() {
    for (everywhere, last) in [(false, false), (false, true), (true, false)] {
        let mut world = two_devices(7);
        for name in NAMES {
            world.phone(name).wakes = false;
        }
        let call = world.pbx().invite("alice");
        world.run_for(secs(1));
        decline(&mut world, "alice", everywhere);
        world.run_for(millis(100));
        assert_eq!(shown(&mut world, "alice"), (CallState::Ended, Some("declined")));
        if last {
            assert_eq!(shown(&mut world, "tablet").0, CallState::Waking);
            decline(&mut world, "tablet", false);
        } else if !everywhere {
            world.phone("tablet").attach();
        }
        world.run_until_quiet();
        let expected = if everywhere {
            603
        } else if last {
            486
        } else {
            200
        };
        assert_eq!(world.pbx().final_response(call), Some(expected));
        assert_eq!(world.pushed(WakeKind::MissedCall), 0);
        assert_eq!(world.pushed(WakeKind::CallEnded), usize::from(everywhere), "the other one may show it");
        assert!(world.phone("alice").rang().is_empty());
        if expected == 200 {
            world.pbx().hang_up(call);
        }
        world.assert_nothing_left();
    }
}

#[test]
fn a_ringing_phone_whose_app_declines_is_quiet_and_the_other_goes_on() {
    let mut world = two_devices(8);
    for name in NAMES {
        world.phone(name).manner = Manner::Ring;
    }
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    decline(&mut world, "alice", false);
    world.run_for(secs(1));
    assert_eq!(world.phone("alice").calls[0].ended, Some("cancelled"));
    assert_eq!(world.phone("tablet").calls[0].ended, None);
    world.phone("alice").reattach();
    world.run_for(secs(1));
    assert_eq!(world.phone("alice").rang().len(), 1, "who declined is not asked again");
    world.phone("tablet").answer(0);
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn erasing_one_device_takes_it_out_of_the_call_and_the_rest_goes_on() {
    for (first, second) in [("alice", "tablet"), ("tablet", "alice")] {
        let mut world = two_devices(9);
        for name in NAMES {
            world.phone(name).manner = Manner::Ring;
        }
        let call = world.pbx().invite("alice");
        world.run_for(secs(2));
        world.delete(first);
        world.run_for(millis(100));
        assert_eq!(world.phone(first).calls[0].ended, Some("cancelled"));
        assert_eq!(world.phone(second).calls[0].ended, None);
        assert_eq!(world.pbx().final_response(call), None);
        world.delete(second);
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(480));
        assert_eq!(world.outcomes(), [CallOutcome::Erased]);
        world.assert_empty();
    }
}

#[test]
fn a_device_that_comes_late_joins_the_call_that_still_rings() {
    for late in [secs(10), secs(60)] {
        let mut world = two_devices(10).with("tablet", |phone| phone.wakes = false);
        world.phone("alice").manner = Manner::Ring;
        let call = world.pbx().invite("alice");
        world.run_for(late);
        assert_eq!(world.pbx().final_response(call), None, "who rings may go on ringing");
        world.phone("tablet").attach();
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(200));
        assert_eq!(world.phone("alice").calls[0].ended, Some("cancelled"));
        world.pbx().hang_up(call);
        world.assert_nothing_left();
    }
}

#[test]
fn hanging_up_reaches_each_device_in_its_own_way() {
    let mut world = two_devices(11).with("tablet", |phone| phone.wakes = false);
    world.phone("alice").manner = Manner::Ring;
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().cancel(call);
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(487));
    assert_eq!(world.phone("alice").requests, ["INVITE", "CANCEL"]);
    assert_eq!(world.phone("alice").kinds(), [WakeKind::Call], "it rang, and knows");
    assert_eq!(world.phone("tablet").kinds(), [WakeKind::Call, WakeKind::CallEnded, WakeKind::MissedCall]);
    assert_eq!(world.outcomes(), [CallOutcome::Cancelled]);
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_is_dead_does_not_keep_the_caller_from_the_final_of_the_other() {
    let mut world = two_devices(12);
    for name in NAMES {
        world.phone(name).attach();
    }
    world.run_until_quiet();
    world.phone("alice").manner = Manner::Ring;
    world.phone("tablet").manner = Manner::Dead;
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().cancel(call);
    world.run_for(millis(100));
    assert_eq!(world.pbx().final_response(call), Some(487));
    world.assert_nothing_left();
}

#[test]
fn a_ring_group_that_calls_two_accounts_rings_both() {
    let mut world = World::new(seed(13)).with_sleeping_phone("alice").with_sleeping_phone("bob");
    let first = world.pbx().invite("alice");
    let second = world.pbx().invite_copy_to(first, "bob");
    world.run_until_quiet();
    assert_ne!(world.phone("alice").rang(), world.phone("bob").rang(), "one Call-ID, a name at each");
    assert_eq!((world.phone("alice").rang().len(), world.phone("bob").rang().len()), (1, 1));
    for call in [first, second] {
        assert_eq!(world.pbx().final_response(call), Some(200));
    }
}

#[test]
fn one_device_without_budget_or_target_does_not_end_the_call_of_the_other() {
    let mut world = two_devices_with(14, |policy| policy.limits.wake_burst = 2);
    world.phone("tablet").wakes = false;
    world.phone("alice").attach();
    world.run_until_quiet();
    for _ in 0..2 {
        let call = world.call_and_wait("alice");
        world.pbx().hang_up(call);
        world.run_for(millis(200));
    }
    world.phone("alice").manner = Manner::Refuse(486, secs(1));
    let calls: Vec<Call> = (0..3).map(|_| world.pbx().invite("alice")).collect();
    world.run_for(millis(500));
    assert!(calls.iter().all(|call| world.pbx().final_response(*call).is_none()), "the other one rings");
    world.run_for(secs(1));
    assert_eq!(world.pbx().final_response(calls[2]), Some(486), "nobody else can be woken");
    assert_eq!(world.pbx().final_response(calls[0]), None, "somebody else was");
    world.assert_nothing_left();
}

#[test]
fn an_app_that_goes_to_its_pbx_by_itself_keeps_its_caller_ringing_and_misses_nothing_when_our_branch_is_cancelled() {
    for reason in [None, Some("SIP;cause=200")] {
        let mut world = reregistering(15);
        let call = world.pbx().invite("alice");
        world.run_for(secs(3));
        assert_eq!(world.pbx().heard(call), [100, 180]);
        world.pbx().cancel_because(call, reason);
        world.run_until_quiet();
        assert_eq!(world.pbx().final_response(call), Some(487));
        assert_eq!(world.phone("alice").kinds(), [WakeKind::Call], "neither missed nor to be closed");
        assert_eq!(shown(&mut world, "alice"), (CallState::Ended, Some("stepped-aside")));
        world.assert_nothing_left();
    }
    // It comes to us after all.
    let mut world = reregistering(15);
    let call = world.pbx().invite("alice");
    world.run_for(secs(3));
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.assert_nothing_left();
    // It was never reached, or nobody took our branch: then it is missed like any other.
    for outcome in [Some(PushMode::DeliverAndFail), None] {
        let mut world = reregistering(15);
        let cancelled = outcome.is_some();
        world.push_mode = outcome.unwrap_or(PushMode::Accept(millis(50)));
        let call = world.pbx().invite("alice");
        world.run_for(secs(3));
        if cancelled {
            world.pbx().cancel(call);
        }
        world.run_until_quiet();
        assert_eq!(world.pushed(WakeKind::MissedCall), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn a_storm_of_attaching_multiplies_neither_invites_nor_wakes() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for flaps in [false, true] {
            let mut world = two_devices(16).with("tablet", |phone| phone.wakes = false);
            world.phone("alice").transport = transport;
            world.phone("alice").manner = Manner::Ring;
            let call = world.pbx().invite("alice");
            world.run_for(secs(2));
            for _ in 0..40 {
                if flaps {
                    world.phone("alice").lose_flow();
                    world.phone("alice").reattach();
                } else {
                    world.phone("alice").attach();
                }
                world.run_for(millis(80));
            }
            let invites = sent_to(&world, "alice", Method::Invite).len();
            assert!(invites <= if flaps { 8 } else { 1 }, "{invites} INVITEs, {transport:?}");
            assert!(world.pushed(WakeKind::Call) <= 3);
            assert_eq!(world.phone("alice").rang().len(), 1);
            world.phone("alice").answer(0);
            world.run_until_quiet();
            assert_eq!(world.pbx().final_response(call), Some(200));
            world.pbx().hang_up(call);
            world.run_until_quiet();
            assert_eq!(world.phone("alice").calls[0].ended, Some("caller"));
            world.assert_nothing_left();
        }
    }
}

pub fn two_devices(number: u64) -> World {
    two_devices_of(number, "ios")
}

fn two_devices_of(number: u64, tablet: &'static str) -> World {
    let mut world = World::new(seed(number)).with_phone("tablet");
    world.phone("tablet").platform = tablet;
    sharing(world)
}

fn two_devices_with(number: u64, change: impl FnOnce(&mut Policy)) -> World {
    sharing(World::new(seed(number)).with_policy(change).with_phone("tablet"))
}

/// A phone and the tablet share alice's account, asleep.
fn sharing(world: World) -> World {
    let mut world = world.with_sleeping_phone("alice");
    let mut offer = world.offer("tablet");
    offer.account = account("alice");
    offer.material = password(&password_of("alice"));
    world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    world
}

/// A phone whose app registers at its PBX when it is woken.
fn reregistering(number: u64) -> World {
    let mut world = World::new(seed(number)).with_phone("alice").with("alice", |phone| phone.wakes = false);
    let mut offer = world.offer("alice");
    offer.preferences.hand_over = CallHandOver::Reregister;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    world
}

pub fn decline(world: &mut World, name: &str, everywhere: bool) -> u64 {
    let (id, token) = world.key_of(name);
    let call = world.calls_at(name, "alice").pop().expect("a call");
    world.command(Command::Decline(id, token, call, Decline { reason: DeclineReason::Decline, everywhere }))
}

fn shown(world: &mut World, name: &str) -> (CallState, Option<&'static str>) {
    let (id, token) = world.key_of(name);
    let call = world.calls_at(name, "alice").pop().expect("a call");
    let asked = world.command(Command::Call(id, token, call));
    match world.answer(asked) {
        Some(Told::Call(view)) => (view.state, view.reason),
        _ => panic!("no such call"),
    }
}

pub fn talking(world: &mut World) -> Vec<&'static str> {
    let talks = |world: &mut World, name: &str| {
        world.phone(name).calls.iter().any(|call| call.dialog.is_some() && call.ended.is_none())
    };
    NAMES.into_iter().filter(|name| talks(world, name)).collect()
}

/// Finals to INVITEs that went to the PBX, with their times.
pub fn finals(world: &World) -> Vec<(reveille::clock::Instant, Message)> {
    let to_pbx = world.sent.iter().filter(|(_, to, _)| to == PBX);
    let parsed = to_pbx.map(|(at, _, bytes)| (*at, Message::parse_datagram(bytes.clone()).expect("SIP")));
    parsed.filter(|(_, it)| code(it) >= 200 && it.cseq().expect("CSeq").method == Method::Invite).collect()
}

/// Phones whose 2xx the PBX got, by their tags.
pub fn successes(world: &World) -> usize {
    let finals = finals(world);
    let tags =
        finals.iter().filter(|(_, it)| code(it) < 300).map(|(_, it)| it.to().expect("To").tag().map(str::to_owned));
    tags.collect::<std::collections::BTreeSet<_>>().len()
}

fn sent_to(world: &World, name: &str, method: Method<'_>) -> Vec<Message> {
    let contact = format!("sip:{name}@192.168.1.5");
    let sent = world.sent.iter().map(|(_, _, bytes)| Message::parse_datagram(bytes.clone()).expect("SIP"));
    sent.filter(|it| it.method() == Some(method) && crate::sip_text::uri(it).starts_with(&contact)).collect()
}
