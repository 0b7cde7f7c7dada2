//! Story (b): the call, from its INVITE to its final.

use std::time::Duration;

use reveille::engine::input::PushPurpose;
use reveille::engine::output::{Answer as Told, CallOutcome, PushOutcome, WakeKind};
use reveille::sip::{HeaderName, Method};

use crate::pbx::{Call, Invite, SDP_OFFER};
use crate::phone::{SDP_ANSWER, field_of};
use crate::sip_text::{call_id, code, values};
use crate::world::build::PBX;
use crate::world::{PushMode, World, millis, minutes, secs, seed};

#[test]
fn a_sleeping_phone_is_woken_rings_and_answers() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();

    assert_eq!(world.pbx().heard(call), [100, 180, 180, 200], "ours, then the phone's own");
    assert_eq!(world.phone("alice").kinds(), [WakeKind::Call]);
    let pushed = world.pushes[0].call.clone().expect("a call id");
    assert_eq!(world.phone("alice").rang(), [pushed], "the push and the INVITE name the same call");
    assert_eq!(world.phone("alice").calls[0].invite.body(), SDP_OFFER, "SDP byte for byte");
    let answer = world.pbx().call(call).responses.last().expect("the 200").clone();
    assert_eq!(answer.body(), SDP_ANSWER);
    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert_eq!(world.phone("alice").requests, ["INVITE", "ACK", "BYE"]);
    assert_eq!(world.outcomes(), [CallOutcome::Answered]);
    world.assert_nothing_left();
}

#[test]
fn the_caller_gets_100_at_once_and_180_only_after_the_provider_accepted() {
    let mut world = World::new(seed(2)).with_sleeping_phone("alice").with_push_delay(secs(5));
    let call = world.pbx().invite("alice");
    world.run_for(secs(4));
    assert_eq!(world.pbx().heard(call), [100]);
    world.run_for(millis(1100));
    assert_eq!(world.pbx().heard(call), [100, 180]);
}

#[test]
fn our_180_has_a_tag_and_a_contact_of_its_own_and_no_sdp_and_names_nothing_else() {
    let mut world = World::new(seed(3)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").record_routed());
    world.run_until_quiet();

    assert_eq!(world.pbx().heard(call), [100, 180, 480]);
    let state = world.pbx().call(call);
    let ringing = state.responses[1].clone();
    let refused = state.responses[2].clone();
    assert!(ringing.body().is_empty());
    assert_eq!(values(&ringing, HeaderName::RecordRoute), values(&state.invite, HeaderName::RecordRoute));
    let tag = ringing.to().expect("To").tag().expect("a tag").to_owned();
    assert_eq!(refused.to().expect("To").tag(), Some(tag.as_str()), "our final reuses the tag of our 180");
    assert_eq!(state.responses[0].to().expect("To").tag(), None, "a 100 has none");
    let contact = crate::sip_text::contact(&ringing).expect("a Contact");
    let capability = world.pbx().capability("alice").expect("registered");
    assert!(!contact.contains(&capability), "the capability is not told to callers");
    for field in ["Server", "User-Agent"] {
        assert_eq!(ringing.extension(field), None);
    }
    world.assert_nothing_left();
}

#[test]
fn requests_to_the_tag_of_our_180_get_481() {
    let mut world = World::new(seed(4)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    let contact = crate::sip_text::contact(&world.pbx().call(call).responses[1]).expect("a Contact");
    let tag = world.pbx().call(call).tags[0].clone();
    let update = world.pbx().outside_to(Method::Update, &contact, &format!("<{contact}>;tag={tag}"));
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(update), [481]);
    assert_eq!(world.pbx().heard(call), [100, 180]);
}

#[test]
fn a_caller_that_requires_100rel_hears_no_180_of_ours() {
    let mut world = World::new(seed(5)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").requiring("100rel"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 480]);
}

#[test]
fn no_early_response_is_sent_where_account_or_configuration_want_none() {
    let mut world = World::new(seed(5)).with_push(PushMode::Swallow(millis(50))).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.account.early_response = Some(None);
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().heard(call), [100, 480]);
}

#[test]
fn a_call_nobody_comes_for_gets_480_when_the_hold_is_over_and_one_wake() {
    let mut world = World::new(seed(6)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(44));
    assert_eq!(world.pbx().final_response(call), None);
    world.run_for(secs(2));
    assert_eq!(world.pbx().heard(call), [100, 180, 480]);
    assert_eq!(world.pushed(WakeKind::Call), 1);
    assert_eq!(world.outcomes(), [CallOutcome::NoDevice]);
    world.assert_nothing_left();
    let kinds: Vec<WakeKind> = world.pushes.iter().map(|push| push.kind).collect();
    assert_eq!(kinds, [WakeKind::Call, WakeKind::MissedCall]);
}

#[test]
fn a_push_that_fails_ends_in_480_at_the_deadline_unless_the_phone_comes_by_itself() {
    let refused = PushOutcome::Theirs("503".to_owned());
    let mut world = World::new(seed(7)).with_push(PushMode::Answer(refused)).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 480], "no 180: nobody was reached");
    assert_eq!(world.outcomes(), [CallOutcome::NoPush]);

    let call = world.pbx().invite("alice");
    world.run_for(secs(10));
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 200]);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_push_is_worth_the_remaining_ring_time_and_no_more() {
    let mut world = World::new(seed(8)).with_sleeping_phone("alice");
    world.pbx().invite(Invite::to("alice").expiring(20));
    world.pbx().invite("alice");
    world.run_for(millis(20));
    let lives: Vec<Duration> = world.pushes.iter().map(|push| push.deadline.saturating_since(push.at)).collect();
    assert_eq!(lives, [secs(20), secs(45)]);
    for push in &world.pushes {
        let life = push.deadline.saturating_since(push.at);
        assert!(push.expires_at <= world.now.wall + life);
        assert_eq!(push.purpose, PushPurpose::Call);
        assert_eq!(push.attach, "sip:192.0.2.5:5061;transport=tls");
    }
}

#[test]
fn copies_of_one_invite_are_merged_with_482_and_wake_nobody_twice() {
    let mut world = World::new(seed(27)).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(millis(100));
    let copy = world.pbx().invite_copy(call);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(copy), [482]);
    assert_eq!(world.pbx().final_response(call), Some(200));
    assert_eq!(world.pushed(WakeKind::Call), 1);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn the_same_invite_repeated_by_udp_is_one_call() {
    let mut world = World::new(seed(28)).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    let bytes = world.pbx().call(call).invite.bytes().clone();
    for _ in 0..5 {
        world.run_for(millis(7));
        let own = world.pbx().address;
        world.pbx().send_raw(own, &bytes);
    }
    world.run_until_quiet();
    assert_eq!(world.pushed(WakeKind::Call), 1);
    assert_eq!(world.phone("alice").rang().len(), 1);
    assert_eq!(world.pbx().final_response(call), Some(200));
}

#[test]
fn two_contacts_of_one_account_ring_both_and_each_is_woken_once() {
    let mut world = World::new(seed(29)).with_sleeping_phone("alice").with_phone("tablet");
    let mut offer = world.offer("alice");
    offer.device = "urn:uuid:tablet".to_owned();
    offer.push = crate::world::build::targets("push-token-tablet");
    // Reached another way: a registration of its own.
    offer.account.outbound_proxy = Some(crate::world::build::registrar("sip:pbx.example.com;transport=udp"));
    world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    let contacts = world.pbx().contacts("alice");
    assert_eq!(contacts.len(), 2);

    let user = |uri: &String| uri.trim_start_matches("sip:").split('@').next().expect("a user").to_owned();
    let first = world.pbx().invite(Invite::to("alice").by_capability(&user(&contacts[0])));
    let second = world.pbx().invite(Invite::to("alice").by_capability(&user(&contacts[1])));
    world.run_for(secs(10));
    assert_eq!(world.phone("alice").rang().len() + world.phone("tablet").rang().len(), 2);
    assert_eq!(world.pushed(WakeKind::Call), 2);
    for call in [first, second] {
        assert_eq!(world.pbx().final_response(call), Some(200));
    }
}

#[test]
fn more_held_calls_than_an_instance_may_have_get_480_and_a_full_process_says_503() {
    let mut world = World::new(seed(30))
        .with_shards(1)
        .with_policy(|policy| {
            policy.limits.held_calls_per_instance = 2;
            policy.limits.held_calls = 3;
        })
        .with_push(PushMode::Swallow(millis(10)))
        .with_sleeping_phone("alice")
        .with_sleeping_phone("bob");
    let calls: Vec<Call> = (0..3).map(|_| world.pbx().invite("alice")).collect();
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(calls[2]), [480]);
    let third = world.pbx().invite("bob");
    world.run_for(secs(1));
    let full = world.pbx().invite("bob");
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(third), [100, 180]);
    assert_eq!(world.pbx().heard(full), [503]);
    assert_eq!(world.pbx().call(full).header(503, HeaderName::RetryAfter), "10");
    world.assert_nothing_left();
}

#[test]
fn wakes_are_budgeted_five_at_once_and_ten_a_minute() {
    let mut world = World::new(seed(31))
        .with_policy(|policy| policy.limits.held_calls_per_instance = 100)
        .with_push(PushMode::Swallow(millis(10)))
        .with_sleeping_phone("alice");
    let calls: Vec<Call> = (0..8).map(|_| world.pbx().invite("alice")).collect();
    world.run_for(secs(1));
    let held = calls.iter().filter(|&&call| world.pbx().final_response(call).is_none()).count();
    assert_eq!((held, world.pushed(WakeKind::Call)), (5, 5));
    for call in &calls[5..] {
        assert_eq!(world.pbx().final_response(*call), Some(480));
    }
    world.run_for(secs(6));
    let later = world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(later), [100, 180]);
}

#[test]
fn only_the_registrars_addresses_may_call_where_the_account_asks_for_it() {
    let mut world = World::new(seed(33)).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.account.trunk_sources = reveille::engine::account::TrunkSources::Registrar;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    let capability = world.pbx().capability("alice").expect("registered");
    let spoofed = world.add_pbx("elsewhere.example.com", "198.51.100.66:5060");
    let stranger = world.pbx_at(spoofed).invite(Invite::to("alice").by_capability(&capability));
    world.run_for(secs(40));
    assert!(world.pbx_at(spoofed).heard(stranger).is_empty(), "silence");
    assert!(world.pushes.is_empty());

    let shown = world.show("alice");
    let Some(Told::Instance(view)) = world.answer(shown) else { panic!("a view") };
    assert!(view.trunk_drops > 0, "and the app can see it");
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
}

#[test]
fn a_registrar_that_moved_may_call_from_its_former_address_for_one_expiry_more() {
    let mut world = World::new(seed(33)).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.account.trunk_sources = reveille::engine::account::TrunkSources::Registrar;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    let capability = world.pbx().capability("alice").expect("registered");
    world.pbx().registrar.verdict = crate::pbx::Verdict::Silent;
    let moved = world.add_pbx(crate::world::build::DOMAIN, "198.51.100.20:5060");
    world.run_until(minutes(30), |world| world.pbx_at(moved).contacts("alice").len() == 1);

    world.run_for(minutes(5));
    let early = world.pbx().invite(Invite::to("alice").by_capability(&capability));
    world.run_for(secs(10));
    assert_eq!(world.pbx().final_response(early), Some(200));
    world.run_for(minutes(10));
    let late = world.pbx().invite(Invite::to("alice").by_capability(&capability));
    world.run_for(secs(40));
    assert!(world.pbx().heard(late).is_empty());
}

#[test]
fn where_any_source_may_call_a_pbx_with_many_addresses_reaches_the_phone() {
    let mut world = World::new(seed(34)).with_sleeping_phone("alice");
    let capability = world.pbx().capability("alice").expect("registered");
    let media_node = world.add_pbx("node2.example.com", "198.51.100.66:5060");
    let call = world.pbx_at(media_node).invite(Invite::to("alice").by_capability(&capability));
    world.run_for(secs(10));
    assert_eq!(world.pbx_at(media_node).final_response(call), Some(200));
    world.pbx_at(media_node).hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_lost_answer_of_the_provider_does_not_stop_a_phone_that_got_the_push() {
    let mut world = World::new(seed(37)).with_push(PushMode::DeliverAndFail).with_sleeping_phone("alice");
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().heard(call), [100, 180, 200]);
}

#[test]
fn a_call_over_the_connection_that_registered_comes_and_goes_on_it() {
    let mut world = crate::hand_over::world_over_tcp(38);
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 180, 200]);
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    assert_eq!(world.open_connections(crate::world::build::address(PBX)), 1);
    world.assert_nothing_left();
}

#[test]
fn calls_survive_a_wire_that_loses_doubles_and_reorders() {
    for number in 0..12 {
        let mut world = World::new(seed(100 + number)).with_sleeping_phone("alice");
        world.wire = crate::wire::Wire { latency: millis(20), jitter: millis(200), loss: 15, doubled: 15 };
        let call = world.pbx().invite("alice");
        world.run_for(secs(40));
        assert_eq!(world.pbx().final_response(call), Some(200), "seed {number}");
        assert_eq!(world.pushed(WakeKind::Call), 1);
        assert_eq!(world.phone("alice").rang().len(), 1);
        world.pbx().hang_up(call);
        world.assert_nothing_left();
    }
}

#[test]
fn the_call_id_of_push_and_invite_is_made_from_the_sip_call_id() {
    let mut world = World::new(seed(39)).with_sleeping_phone("alice");
    let call = world.call_and_wait("alice");
    let invite = world.phone("alice").calls[0].invite.clone();
    assert_eq!(call_id(&invite), call_id(&world.pbx().call(call).invite));
    let id = field_of(&invite, "Reveille-Call").expect("the call id");
    assert_eq!(uuid::Uuid::parse_str(&id).expect("a UUID").get_version_num(), 5);
    assert_eq!(code(&invite), 0);
}
