//! Proof of push tokens: who may be woken by a token, and what a thief of one gets.

use reveille::engine::input::{Command, HandOver, PushPurpose, PushTarget, Rectification};
use reveille::engine::output::{Answer, PushOutcome, Refusal, WakeDetail, WakeKind};
use reveille::engine::policy::Provider;
use reveille::engine::proof::{Challenge, ProofState};

use crate::world::build::targets;
use crate::world::{PushMode, WALL_START, World, millis, minutes, secs, seed};

/// A world whose tenant asks for proof. Few shards, and several: homes are met and crossed.
fn world(number: u64) -> World {
    World::new(seed(number)).with_shards(3).with_policy(|policy| policy.tenants[0].prove_push_token = true)
}

/// The challenge that was pushed last, if it went to this token.
fn challenge_at(world: &World, token: &str) -> Option<Challenge> {
    let mut pushed = world.pushes.iter().rev().filter(|push| push.token == token);
    pushed.find_map(|push| if let WakeDetail::Proof(challenge) = push.detail { Some(challenge) } else { None })
}

fn challenge_of(world: &mut World, name: &str) -> Challenge {
    let token = format!("{}/other", world.phone(name).token);
    challenge_at(world, &token).expect("a challenge")
}

fn say(world: &mut World, name: &str, challenge: Option<String>) -> u64 {
    let (id, token) = world.key_of(name);
    let asked = world.command(Command::Prove(id, token, challenge));
    world.run_for(millis(100));
    asked
}

fn prove_with(world: &mut World, name: &str, challenge: Challenge) -> Option<ProofState> {
    let asked = say(world, name, Some(challenge.text()));
    if let Some(Answer::PushProof(state)) = world.answer(asked) { Some(*state) } else { None }
}

fn prove(world: &mut World, name: &str) {
    let challenge = challenge_of(world, name);
    assert_eq!(prove_with(world, name, challenge), Some(ProofState::Proven));
}

/// What another challenge was answered with.
fn ask(world: &mut World, name: &str) -> Result<ProofState, Refusal> {
    let asked = say(world, name, None);
    match world.answer(asked) {
        Some(Answer::PushProof(state)) => Ok(*state),
        _ => Err(world.refusal(asked).expect("an answer")),
    }
}

fn state(world: &mut World, name: &str) -> ProofState {
    let asked = world.show(name);
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("no view") };
    view.push_proof
}

/// The final of a call, and why the last story says it was not taken.
fn call(world: &mut World, name: &str) -> (Option<u16>, String) {
    let call = world.call_and_wait(name);
    let why = world.stories().last().expect("a story").why();
    let code = world.pbx().final_response(call);
    if code == Some(200) {
        world.phone(name).hang_up();
        world.run_for(secs(5));
    }
    world.phone(name).detach();
    world.run_for(secs(40));
    (code, why)
}

fn retarget(world: &mut World, name: &str, push: Vec<PushTarget>) {
    let (id, token) = world.key_of(name);
    world.command(Command::Rectify(
        id,
        token,
        Box::new(Rectification { push: Some(push), ..Rectification::default() }),
    ));
    world.run_until_quiet();
}

fn target(purpose: PushPurpose, provider: Provider, token: &str) -> PushTarget {
    PushTarget { purpose, provider, app: "com.example.phone".to_owned(), token: token.into() }
}

/// A further phone whose app hands over `push`.
fn hand_over_with(world: &mut World, name: &str, push: Vec<PushTarget>) {
    world.add_phone(name);
    let offer = HandOver { push, ..world.offer(name) };
    world.hand_over_this(name, offer);
    world.run_for(secs(1));
}

#[test]
fn until_the_challenge_comes_back_nothing_else_is_pushed_and_the_story_says_why() {
    let mut world = world(1).with_sleeping_phone("alice");
    assert_eq!(state(&mut world, "alice"), ProofState::Pending);
    let [push] = &world.pushes[..] else { panic!("one push") };
    assert_eq!((push.kind, push.purpose), (WakeKind::Proof, PushPurpose::Other));
    assert_eq!(push.expires_at, WALL_START + minutes(5) + std::time::Duration::from_nanos(push.at.as_nanos()));

    let (code, why) = call(&mut world, "alice");
    assert_eq!(code, Some(480));
    assert_eq!(why, "no wake: push token not proven: the app has not returned the challenge (unproven)");
    let (id, token) = world.key_of("alice");
    let test = world.command(Command::BeginTest(id, token));
    assert_eq!(world.refusal(test), Some(Refusal::Unproven));
    assert_eq!(world.pushes.len(), 1, "no missed call either");

    prove(&mut world, "alice");
    assert_eq!(state(&mut world, "alice"), ProofState::Proven);
    assert_eq!(call(&mut world, "alice").0, Some(200));
    world.delete("alice");
    world.run_until_quiet();
    world.assert_empty();
}

#[test]
fn a_call_to_an_unproven_phone_is_refused_at_once_and_rings_the_others() {
    let mut world = world(2).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(call), [100, 480], "nobody waits for a push that is not sent");
}

#[test]
fn a_wrong_answer_is_refused_five_times_and_then_another_challenge_has_to_be_asked_for() {
    let mut world = world(3).with_sleeping_phone("alice");
    let right = challenge_of(&mut world, "alice");
    for (left, wrong) in [(4, "no challenge at all".to_owned()), (3, Challenge::new([0; 16]).text())] {
        let asked = say(&mut world, "alice", Some(wrong));
        assert_eq!(world.refusal(asked), Some(Refusal::WrongChallenge { tries: left }));
    }
    for left in [2, 1, 0] {
        let asked = say(&mut world, "alice", Some(Challenge::new([1; 16]).text()));
        assert_eq!(world.refusal(asked), Some(Refusal::WrongChallenge { tries: left }));
    }
    let asked = say(&mut world, "alice", Some(right.text()));
    assert_eq!(world.refusal(asked), Some(Refusal::WrongChallenge { tries: 0 }), "too late for the right one");

    world.run_for(secs(30));
    assert_eq!(ask(&mut world, "alice"), Ok(ProofState::Pending));
    assert_ne!(challenge_of(&mut world, "alice"), right);
    prove(&mut world, "alice");
    assert_eq!(ask(&mut world, "alice"), Ok(ProofState::Proven), "nothing to be asked for");
    assert_eq!(world.pushed(WakeKind::Proof), 2);
    // The same answer once more, because the first one's was lost on the way.
    assert_eq!(prove_with(&mut world, "alice", right), Some(ProofState::Proven));
}

#[test]
fn a_challenge_is_good_for_five_minutes_and_asked_for_every_half_minute_at_most() {
    let mut world = world(4).with_phone("alice");
    let start = world.now.boot;
    world.hand_over("alice");
    world.run_for(secs(1));
    let Err(Refusal::RateLimited { after }) = ask(&mut world, "alice") else { panic!("too early") };
    assert!(after <= secs(30), "{after:?}");
    let first = challenge_of(&mut world, "alice");
    world.run_for(minutes(5));
    let asked = say(&mut world, "alice", Some(first.text()));
    assert_eq!(world.refusal(asked), Some(Refusal::WrongChallenge { tries: 0 }));
    assert_eq!(ask(&mut world, "alice"), Ok(ProofState::Pending));
    assert!(world.now.boot > start);
    let second = challenge_of(&mut world, "alice");
    world.run_for(minutes(4));
    assert_eq!(prove_with(&mut world, "alice", second), Some(ProofState::Proven));
}

#[test]
fn only_the_instances_own_token_may_prove_and_where_no_proof_is_wanted_there_is_none() {
    let mut world = world(5).with_sleeping_phone("alice").with_sleeping_phone("bob");
    let (id, _) = world.key_of("alice");
    let (_, foreign) = world.key_of("bob");
    let challenge = challenge_of(&mut world, "alice");
    let asked = world.command(Command::Prove(id, foreign, Some(challenge.text())));
    assert_eq!(world.refusal(asked), Some(Refusal::NotFound));
    assert_eq!(state(&mut world, "alice"), ProofState::Pending);

    let mut world = World::new(seed(5)).with_sleeping_phone("alice");
    assert_eq!(ask(&mut world, "alice"), Ok(ProofState::NotRequired));
    assert!(world.pushes.is_empty());
    assert_eq!(call(&mut world, "alice").0, Some(200));
}

#[test]
fn the_same_token_handed_over_again_stays_proven_and_another_one_has_to_be_proven() {
    let mut world = world(6).with_sleeping_phone("alice");
    prove(&mut world, "alice");
    world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!((state(&mut world, "alice"), world.pushed(WakeKind::Proof)), (ProofState::Proven, 1));

    // Another token for calls alone goes with the proven one.
    let token = world.phone("alice").token.clone();
    let mut push = targets(&token);
    push[0].token = format!("{token}/voip").into();
    retarget(&mut world, "alice", push.clone());
    assert_eq!((state(&mut world, "alice"), world.pushed(WakeKind::Proof)), (ProofState::Proven, 1));
    assert_eq!(call(&mut world, "alice").0, Some(200));

    push[1].token = format!("{token}/new").into();
    world.run_for(secs(30));
    retarget(&mut world, "alice", push);
    assert_eq!((state(&mut world, "alice"), world.pushed(WakeKind::Proof)), (ProofState::Pending, 2));
    assert_eq!(call(&mut world, "alice").0, Some(480));
    let challenge = challenge_at(&world, &format!("{token}/new")).expect("a challenge to the new one");
    assert_eq!(prove_with(&mut world, "alice", challenge), Some(ProofState::Proven));
    assert_eq!(call(&mut world, "alice").0, Some(200));
    world.delete("alice");
    world.run_until_quiet();
    world.assert_empty();
}

#[test]
fn who_hands_over_a_strangers_token_wakes_nobody_and_takes_nothing() {
    let mut world = world(7).with_sleeping_phone("alice");
    prove(&mut world, "alice");
    let stolen = targets(&world.phone("alice").token.clone());
    hand_over_with(&mut world, "mallory", stolen);
    assert_eq!(state(&mut world, "mallory"), ProofState::Pending);
    let pushed = world.pushes.len();
    assert_eq!(call(&mut world, "mallory").0, Some(480));
    assert_eq!(world.pushes.len(), pushed, "the stranger's phone does not hear of it");
    assert_eq!(state(&mut world, "alice"), ProofState::Proven);
    assert_eq!(call(&mut world, "alice").0, Some(200));
}

#[test]
fn the_newest_device_that_proves_a_token_has_it_and_the_former_one_gets_no_pushes() {
    let mut world = world(8).with_sleeping_phone("alice");
    prove(&mut world, "alice");
    // The app was installed anew: another device id, the same token.
    let token = world.phone("alice").token.clone();
    hand_over_with(&mut world, "bob", targets(&token));
    let challenge = challenge_of(&mut world, "alice");
    assert_eq!(prove_with(&mut world, "bob", challenge), Some(ProofState::Proven));
    assert_eq!((state(&mut world, "alice"), state(&mut world, "bob")), (ProofState::Pending, ProofState::Proven));
    assert_eq!(call(&mut world, "alice").0, Some(480));

    world.run_for(secs(30));
    assert_eq!(ask(&mut world, "alice"), Ok(ProofState::Pending));
    prove(&mut world, "alice");
    assert_eq!((state(&mut world, "alice"), state(&mut world, "bob")), (ProofState::Proven, ProofState::Pending));
    for name in ["alice", "bob"] {
        world.delete(name);
    }
    world.run_until_quiet();
    world.assert_empty();
}

#[test]
fn a_stolen_voip_token_stays_with_the_device_that_came_with_it_first() {
    let mut world = world(9).with_sleeping_phone("alice");
    prove(&mut world, "alice");
    let stolen = world.phone("alice").token.clone();
    let push = vec![
        target(PushPurpose::Call, Provider::Apns, &stolen),
        target(PushPurpose::Other, Provider::Apns, "mallorys/other"),
    ];
    hand_over_with(&mut world, "mallory", push);
    let challenge = challenge_at(&world, "mallorys/other").expect("a challenge to the own one");
    assert_eq!(prove_with(&mut world, "mallory", challenge), Some(ProofState::Contested));
    let (code, why) = call(&mut world, "mallory");
    assert_eq!((code, why.as_str()), (Some(480), "no wake: push token not proven: it is another device's (contested)"));
    assert_eq!(call(&mut world, "alice").0, Some(200));

    // Free again, it may be claimed; asking again is how.
    world.delete("alice");
    world.run_for(secs(30));
    assert_eq!(ask(&mut world, "mallory"), Ok(ProofState::Proven));
}

#[test]
fn one_token_for_both_purposes_proves_itself() {
    let mut world = world(10);
    hand_over_with(&mut world, "alice", vec![target(PushPurpose::Call, Provider::Fcm, "android")]);
    let challenge = challenge_at(&world, "android").expect("a challenge");
    assert_eq!(prove_with(&mut world, "alice", challenge), Some(ProofState::Proven));
    // Nobody brings it along with a token of his own.
    let push =
        vec![target(PushPurpose::Call, Provider::Fcm, "android"), target(PushPurpose::Other, Provider::Fcm, "mine")];
    hand_over_with(&mut world, "mallory", push);
    let challenge = challenge_at(&world, "mine").expect("a challenge");
    assert_eq!(prove_with(&mut world, "mallory", challenge), Some(ProofState::Contested));
    assert_eq!(state(&mut world, "alice"), ProofState::Proven);
}

#[test]
fn a_voip_token_alone_cannot_be_proven_and_gets_nothing() {
    let mut world = world(14);
    let push = vec![target(PushPurpose::Call, Provider::Apns, "voip")];
    hand_over_with(&mut world, "alice", push);
    assert_eq!(state(&mut world, "alice"), ProofState::Pending);
    assert_eq!(call(&mut world, "alice").0, Some(480));
    assert!(world.pushes.is_empty());
}

#[test]
fn a_strangers_phone_is_challenged_ten_times_at_most_and_then_once_a_minute() {
    let mut world = world(11);
    for number in 0..15 {
        hand_over_with(&mut world, &format!("mallory{number}"), targets("victim"));
    }
    assert_eq!(world.pushed(WakeKind::Proof), 10);
    world.run_for(secs(30));
    let refused = ask(&mut world, "mallory14");
    assert!(matches!(refused, Err(Refusal::RateLimited { after }) if after <= minutes(1)), "{refused:?}");
    world.run_for(minutes(1));
    assert_eq!(ask(&mut world, "mallory13"), Ok(ProofState::Pending));
    assert_eq!(world.pushed(WakeKind::Proof), 11);
    world.run_for(minutes(20));
    assert_eq!(world.table("proofs.challenged"), 0, "forgotten");
}

#[test]
fn an_app_that_waits_for_its_proof_is_answered_when_its_instance_is_erased() {
    let mut world = world(12).with_sleeping_phone("alice");
    let challenge = challenge_of(&mut world, "alice");
    let (id, token) = world.key_of("alice");
    let asked = world.command(Command::Prove(id, token, Some(challenge.text())));
    world.delete("alice");
    world.run_until_quiet();
    assert!(world.answer(asked).is_some());
    world.assert_empty();
}

#[test]
fn a_dead_token_says_so_by_its_challenge_too() {
    let mut world = world(13).with_phone("alice").with_push(PushMode::Answer(PushOutcome::TokenDead { since: None }));
    world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!(world.table("leases"), 0);
    world.assert_empty();
}
