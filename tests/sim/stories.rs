//! The story of a call, as its device and the operator are told it.

use reveille::engine::input::Command;
use reveille::engine::output::{Answer, CallOutcome, CallState, CallView, PushOutcome, Step};
use reveille::engine::story::Story;
use reveille::engine::tally::Stage;

use crate::phone::Manner;
use crate::world::{PushMode, World, millis, minutes, secs, seed};

#[test]
fn an_answered_call_has_all_its_steps_in_order_and_one_line_at_its_end() {
    let mut world = World::new(seed(401)).with_sleeping_phone("alice");
    world.pbx().invite("alice");
    world.run_for(secs(5));

    let view = shown(&mut world, "alice");
    let story = view.story.expect("it is remembered");
    let wanted = [
        Step::Invited,
        Step::WakeSent,
        Step::WakeAccepted,
        Step::Attached,
        Step::Forwarded,
        Step::Ringing,
        Step::Answered,
    ];
    assert_eq!(steps(&story), wanted);
    assert!(story.moments.is_sorted_by_key(|moment| moment.after));
    assert!(story.moments[6].after > secs(2), "{story:?}");
    assert_eq!(view.state, CallState::Answered);
    assert!(!view.private_media_address);
    let told = world.stories();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].outcome, steps(told[0])), (Some(CallOutcome::Answered), wanted.to_vec()));
    assert!(told[0].why().starts_with("the phone answered after 2."), "{}", told[0].why());
}

#[test]
fn why_a_phone_did_not_ring_is_told_in_one_sentence() {
    let dead = PushMode::Answer(PushOutcome::OurFault("BadTopic".to_owned()));
    let mut world = World::new(seed(402)).with_sleeping_phone("alice").with_push(dead);
    world.pbx().invite("alice");
    world.run_for(secs(50));
    assert_eq!(
        last(&world).why(),
        "no wake: the provider refuses us: a key, topic or payload is wrong (misconfigured)"
    );

    let swallowed = PushMode::Swallow(millis(90));
    let mut world = World::new(seed(403)).with_sleeping_phone("alice").with_push(swallowed);
    world.pbx().invite("alice");
    world.run_for(secs(50));
    assert_eq!(last(&world).why(), "woken, never attached within 45 s");

    let mut world = World::new(seed(404)).with_sleeping_phone("alice").with("alice", |phone| phone.boot = secs(20));
    let call = world.pbx().invite("alice");
    world.run_for(secs(3));
    world.pbx().cancel(call);
    world.run_for(secs(1));
    assert!(last(&world).why().starts_with("the caller hung up 3"), "{}", last(&world).why());

    let mut world =
        World::new(seed(405)).with_sleeping_phone("alice").with("alice", |phone| phone.manner = Manner::Dead);
    let call = world.pbx().invite("alice");
    world.run_for(secs(10));
    world.pbx().cancel(call);
    world.run_until_quiet();
    // A phone that says nothing for a transaction's life counts as gone.
    assert_eq!(last(&world).why(), "forwarded, but the phone's connection broke; the caller hung up after 32 s");
}

#[test]
fn a_phone_with_a_wrong_token_is_told_of_while_its_call_is_held() {
    let mut world = World::new(seed(406)).with_sleeping_phone("alice").with("alice", |phone| {
        phone.stubborn = false;
    });
    world.phone("alice").account.as_mut().expect("handed over").token = "wrong".to_owned().into();
    world.pbx().invite("alice");
    world.run_for(secs(50));
    assert_eq!(last(&world).why(), "attached with a wrong token (attach-refused)");
    let refused = steps(last(&world)).iter().filter(|step| matches!(step, Step::AttachRefused(_))).count();
    assert_eq!(refused, 1);
    // A phone that only asks for its challenge is not refused.
    let mut world = World::new(seed(407)).with_sleeping_phone("alice");
    world.pbx().invite("alice");
    world.run_for(secs(5));
    assert!(!steps(last(&world)).iter().any(|step| matches!(step, Step::AttachRefused(_))));
}

#[test]
fn a_story_is_forgotten_two_minutes_after_its_end_and_outlives_its_instance_so_long() {
    let mut world = World::new(seed(408)).with_sleeping_phone("alice").with("alice", |phone| phone.boot = secs(20));
    world.pbx().invite("alice");
    world.run_for(secs(1));
    world.delete("alice");
    world.run_for(secs(10));
    assert_eq!(world.table("stories"), 1);
    assert_eq!(last(&world).reason(), Some("erased"));
    world.run_for(minutes(2));
    assert_eq!(world.table("stories"), 0);
    world.assert_nothing_left();
}

#[test]
fn the_operator_is_told_the_stories_of_every_shard() {
    let mut world = World::new(seed(409)).with_shards(3).with_sleeping_phone("alice").with_sleeping_phone("bob");
    world.pbx().invite("alice");
    world.run_for(secs(1));
    world.pbx().invite("bob");
    world.run_for(secs(5));
    let mut calls = [world.calls_of("alice")[0], world.calls_of("bob")[0]];
    let mut told: Vec<_> = asked(&mut world, None).into_iter().map(|story| story.call).collect();
    calls.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, calls);
    assert_eq!(asked(&mut world, Some(calls[0])).len(), 1);
}

#[test]
fn each_milestone_is_timed() {
    let mut world = World::new(seed(410)).with_sleeping_phone("alice");
    world.pbx().invite("alice");
    world.run_for(secs(5));
    let stages: Vec<Stage> =
        world.take_tallies().into_iter().flat_map(|it| it.stages).map(|(stage, _)| stage).collect();
    assert_eq!(stages, Stage::ALL);
}

fn shown(world: &mut World, name: &str) -> CallView {
    let (instance, token) = world.key_of(name);
    let call = world.calls_of(name)[0];
    let asked = world.command(Command::Call(instance, token, call));
    match world.answer(asked) {
        Some(Answer::Call(view)) => view.clone(),
        _ => panic!("the call is not shown"),
    }
}

fn asked(world: &mut World, call: Option<reveille::engine::ids::CallUuid>) -> Vec<Story> {
    let asked = world.ask_every_shard(|| Command::Stories { call, most: 10 });
    let of = |asked: &u64| match world.answer(*asked) {
        Some(Answer::Stories(stories)) => stories.clone(),
        _ => panic!("no stories"),
    };
    asked.iter().flat_map(of).collect()
}

fn last(world: &World) -> &Story {
    world.stories().last().copied().expect("a call ended")
}

fn steps(story: &Story) -> Vec<Step> {
    story.moments.iter().map(|moment| moment.step).collect()
}
