//! Wakes that a provider does not take at first: sent again while the INVITE is held, and never afterwards.

use std::time::Duration;

use reveille::clock::Instant;
use reveille::engine::input::{Command, Decline, DeclineReason, Rectification};
use reveille::engine::output::{CallOutcome, Note, PushOutcome, Step, WakeKind};

use crate::pbx::Invite;
use crate::world::build::targets;
use crate::world::{PushMode, World, millis, minutes, secs, seed};

fn later(seconds: u64) -> PushOutcome {
    PushOutcome::Later { after: Some(secs(seconds)) }
}

fn failed() -> PushOutcome {
    PushOutcome::Theirs("503 UNAVAILABLE".to_owned())
}

fn unavailable(after: Option<u64>) -> PushOutcome {
    PushOutcome::Unavailable { why: "503 UNAVAILABLE".to_owned(), after: after.map(secs) }
}

/// When each call push left.
fn sends(world: &World) -> Vec<Instant> {
    world.pushes.iter().filter(|push| push.kind == WakeKind::Call).map(|push| push.at).collect()
}

/// The pauses between them.
fn pauses(world: &World) -> Vec<Duration> {
    sends(world).windows(2).map(|pair| pair[1].saturating_since(pair[0])).collect()
}

#[test]
fn a_provider_that_asks_for_a_moment_gets_the_wake_again_and_the_phone_rings() {
    let mut world = World::new(seed(501)).with_push_outcomes(&[later(1)]).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 180, 200]);
    assert_eq!(pauses(&world), [secs(1) + millis(50)], "as long as it asked for, from its answer");
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn each_send_is_worth_the_rest_of_the_hold() {
    let mut world = World::new(seed(502)).with_push_outcomes(&[later(10), failed()]).with_sleeping_phone("alice");
    world.pbx().invite("alice");
    world.run_for(secs(15));
    let calls: Vec<_> = world.pushes.iter().filter(|push| push.kind == WakeKind::Call).collect();
    assert_eq!(calls.len(), 3);
    for push in &calls[1..] {
        assert_eq!(push.expires_at, calls[0].expires_at, "the hold ends when it ends");
        assert_eq!(push.deadline, calls[0].deadline);
        assert_eq!(push.call, calls[0].call, "so that the phone knows a double");
    }
}

#[test]
fn a_provider_that_fails_gets_three_sends_with_growing_pauses_and_the_call_is_held() {
    let mut world = World::new(seed(503)).with_push(PushMode::Answer(failed())).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(44));
    assert_eq!(world.pbx().heard(call), [100], "something may have arrived all the same");
    let pauses = pauses(&world);
    assert_eq!(pauses.len(), 2, "{pauses:?}");
    let expected = [millis(500)..=millis(1_050), millis(1_000)..=millis(2_050)];
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!(expected.contains(pause), "{pause:?}");
    }
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 480]);
    assert_eq!(world.outcomes(), [CallOutcome::NoPush]);
    let steps: Vec<Step> = world.stories()[0].moments.iter().map(|moment| moment.step).collect();
    let round = [Step::WakeSent, Step::WakeFailed("provider-failed")];
    assert_eq!(steps, [&[Step::Invited][..], &round, &round, &round, &[Step::Ended("no-device")]].concat());
    world.assert_nothing_left();
}

#[test]
fn a_call_that_is_over_is_woken_for_no_more() {
    // The caller hangs up in the pause.
    let world = || World::new(seed(504)).with_push_outcomes(&[later(5), later(5)]).with_sleeping_phone("alice");
    let mut hung_up = world();
    let call = hung_up.pbx().invite("alice");
    hung_up.run_for(secs(2));
    hung_up.pbx().cancel(call);
    hung_up.run_for(minutes(2));
    assert_eq!(sends(&hung_up).len(), 1);
    hung_up.assert_nothing_left();
    // The app declines over HTTPS.
    let mut declined = world();
    let call = declined.pbx().invite("alice");
    declined.run_for(secs(2));
    let (id, token) = declined.key_of("alice");
    let (uuid, decline) = (declined.calls_of("alice")[0], Decline { reason: DeclineReason::Busy, everywhere: false });
    declined.command(Command::Decline(id, token, uuid, decline));
    declined.run_for(minutes(2));
    assert_eq!(declined.pbx().final_response(call), Some(486));
    assert_eq!(sends(&declined).len(), 1);
    // The phone comes by itself.
    let mut came = world();
    let call = came.pbx().invite("alice");
    came.run_for(secs(2));
    came.phone("alice").attach();
    came.run_for(minutes(2));
    assert_eq!(came.pbx().final_response(call), Some(200));
    assert_eq!(sends(&came).len(), 1);
}

#[test]
fn an_answer_that_comes_after_the_call_is_over_sends_nothing() {
    for outcome in [later(1), failed()] {
        let mut world = World::new(seed(505)).with_push_outcomes(&[outcome]).with_sleeping_phone("alice");
        let call = world.pbx().invite("alice");
        world.run_for(millis(30));
        assert_eq!(sends(&world).len(), 1, "it is with the provider");
        world.pbx().cancel(call);
        world.run_for(minutes(2));
        assert_eq!(sends(&world).len(), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn a_wake_that_is_sent_again_is_one_wake_of_the_budget() {
    let mut world = World::new(seed(506))
        .with_policy(|policy| policy.limits.wake_burst = 1)
        .with_push_outcomes(&[later(1), later(1)])
        .with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!((sends(&world).len(), world.pbx().final_response(call)), (3, Some(200)));
}

#[test]
fn a_token_that_was_replaced_while_its_push_was_with_the_provider_is_followed_by_the_new_one() {
    let since = None;
    for outcome in [PushOutcome::TokenDead { since }, PushOutcome::TokenRejected("400 BadDeviceToken".to_owned())] {
        let mut world = World::new(seed(507)).with_push_outcomes(&[outcome]).with_sleeping_phone("alice");
        world.pbx().invite("alice");
        world.run_for(millis(20));
        let (id, token) = world.key_of("alice");
        let change = Rectification { push: Some(targets("another")), ..Rectification::default() };
        world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_for(secs(2));
        let tokens: Vec<_> = world.pushes.iter().map(|push| push.token.clone()).collect();
        assert_eq!(tokens, ["push-token-alice", "another"]);
        assert_eq!(world.table("leases"), 1);
    }
}

#[test]
fn a_phone_that_listens_but_stays_silent_is_woken_again_too() {
    let mut world = World::new(seed(508)).with_push_outcomes(&[later(2)]).with_attached_phone("alice");
    world.phone("alice").lose_flow();
    let call = world.pbx().invite("alice");
    world.run_for(secs(5));
    assert_eq!(sends(&world).len(), 2);
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
}

#[test]
fn a_fault_that_the_next_send_mends_is_not_reported() {
    let mut world = World::new(seed(509)).with_push_outcomes(&[later(1), failed()]).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
    assert!(!world.notes.iter().any(|note| matches!(note, Note::PushMisconfigured(..))));
}

#[test]
fn a_stale_token_of_ours_is_replaced_at_once_and_only_once() {
    let stale = || PushOutcome::Unauthenticated("401 UNAUTHENTICATED".to_owned());
    let mut mended = World::new(seed(510)).with_push_outcomes(&[stale()]).with_sleeping_phone("alice");
    let call = mended.pbx().invite("alice");
    mended.run_until_quiet();
    assert_eq!(mended.pbx().final_response(call), Some(200));
    assert_eq!(pauses(&mended), [millis(50)]);
    assert!(!mended.notes.iter().any(|note| matches!(note, Note::PushMisconfigured(..))), "it was mended");

    let mut refused = World::new(seed(511)).with_push_outcomes(&[stale(), stale()]).with_sleeping_phone("alice");
    let call = refused.pbx().invite("alice");
    refused.run_for(secs(1));
    assert_eq!(refused.pbx().heard(call), [100, 480], "a fresh one is not taken either");
    assert_eq!(sends(&refused).len(), 2);
    let told = refused.notes.iter().filter(|note| matches!(note, Note::PushMisconfigured(..)));
    assert_eq!(told.count(), 1, "the operator is told once it is certain");
    assert_eq!(refused.table("leases"), 1);
}

#[test]
fn sends_of_all_causes_are_counted_together() {
    let stale = PushOutcome::Unauthenticated("401 UNAUTHENTICATED".to_owned());
    let outcomes = [unavailable(Some(1)), stale, unavailable(None), PushOutcome::Accepted];
    let mut world = World::new(seed(512)).with_push_outcomes(&outcomes).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(40));
    assert_eq!(sends(&world).len(), 3);
    assert_eq!(world.pbx().heard(call), [100], "a provider that failed may have delivered it");
}

#[test]
fn a_provider_that_fails_and_says_when_is_asked_then_and_not_at_all_after_the_hold() {
    let mut world = World::new(seed(513)).with_push_outcomes(&[unavailable(Some(20))]).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(pauses(&world), [secs(20) + millis(50)]);
    assert_eq!(world.pbx().final_response(call), Some(200));

    let mut world = World::new(seed(514)).with_push_outcomes(&[unavailable(Some(45))]).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!((sends(&world).len(), world.pbx().heard(call)), (1, &[100, 480][..]));
}

#[test]
fn an_invite_that_expires_sooner_ends_the_sends_with_it() {
    let mut world = World::new(seed(515)).with_push_outcomes(&[later(6)]).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").expiring(5));
    world.run_for(minutes(2));
    assert_eq!((sends(&world).len(), world.pbx().heard(call)), (1, &[100, 480][..]));
}

#[test]
fn wakes_of_other_kinds_are_not_sent_again_by_us() {
    let mut world = World::new(seed(516)).with_sleeping_phone("alice");
    world.push_mode = PushMode::Answer(later(1));
    let (id, token) = world.key_of("alice");
    world.command(Command::BeginTest(id, token));
    world.run_for(minutes(2));
    assert_eq!(world.pushed(WakeKind::Test), 1);
}
