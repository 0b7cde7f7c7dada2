//! Floods of refused calls: one entry and one line of the log for the first, the rest counted, and no other instance's calls
//! are forgotten for them.

use reveille::engine::input::Command;
use reveille::engine::output::{Answer, CallState, WakeKind};
use reveille::engine::story::Story;

use crate::pbx::Invite;
use crate::phone::Manner;
use crate::world::{PushMode, World, millis, minutes, secs, seed};

const CALLS: usize = 600;

#[test]
fn calls_without_end_over_the_wake_budget_are_one_entry_and_one_line_and_the_rest_is_counted() {
    let mut world = World::new(seed(731)).with_sleeping_phone("alice").with_sleeping_phone("bob");
    world.push_mode = PushMode::Swallow(millis(50));
    world.pbx().invite("bob");
    world.run_for(secs(1));
    let bob = world.calls_of("bob")[0];
    use_up_the_budget(&mut world, "alice");
    let lines = world.stories().len();
    let mut calls = Vec::new();
    for number in 0..CALLS {
        let own = format!("198.51.100.10:{}", 6000 + number % 500);
        calls.push(world.pbx().invite(Invite::to("alice").calling_from(&own)));
        world.run_for(millis(5));
    }
    world.run_for(secs(1));
    // Meanwhile a wake or two are allowed again.
    let refused = calls.into_iter().filter(|call| world.pbx().final_response(*call) == Some(480)).count();
    assert!(refused > CALLS - 10, "{refused}");
    let own = world.stories()[lines..].iter().filter(|story| story.reason() == Some("limited")).count();
    assert_eq!(own, 1, "one line");
    let told = told(&mut world, None);
    let entries: Vec<_> = told.iter().filter(|story| story.reason() == Some("limited")).collect();
    assert_eq!((entries.len(), entries[0].repeated as usize), (1, refused - 1), "one entry, and how many there were");
    assert_eq!(told.iter().filter(|story| story.call == bob).count(), 1, "another phone's call is still there");
    world.run_for(minutes(5));
    assert_eq!(noted(&world), refused - 1, "the log tells how many there were");
    world.assert_nothing_left();
}

#[test]
fn a_flood_is_told_of_at_most_once_a_minute_while_it_lasts() {
    let mut world = World::new(seed(732)).with_sleeping_phone("alice");
    world.push_mode = PushMode::Swallow(millis(50));
    use_up_the_budget(&mut world, "alice");
    let lines = world.stories().len();
    for _ in 0..300 {
        world.pbx().invite("alice");
        world.run_for(secs(1));
    }
    // Ten wakes a minute go out, and each is a call of its own; the others are one entry.
    let refused = world.stories()[lines..].iter().filter(|story| story.reason() == Some("limited")).count();
    assert!(refused <= 2, "{refused}");
    let notes = world.notes.iter().filter(|note| format!("{note:?}").starts_with("CallsRepeated")).count();
    assert!((4..=10).contains(&notes), "{notes}");
}

#[test]
fn a_busy_phone_that_is_called_again_and_again_fills_neither_the_log_nor_the_memory() {
    let mut world = World::new(seed(733)).with_attached_phone("alice").with("alice", |phone| {
        phone.manner = Manner::Refuse(486, millis(1));
    });
    for _ in 0..200 {
        let call = world.pbx().invite("alice");
        world.run_for(millis(50));
        assert_eq!(world.pbx().final_response(call), Some(486));
    }
    assert!(world.stories().len() <= 12, "{}", world.stories().len());
    assert!(world.table("stories") <= 12, "{}", world.table("stories"));
    let counted: u32 = told(&mut world, None).iter().map(|story| story.repeated + 1).sum();
    assert_eq!(counted, 200);
    assert_eq!(world.pushed(WakeKind::Call), 0);
}

#[test]
fn calls_beyond_those_an_instance_may_hold_are_told_once_and_counted() {
    let mut world = World::new(seed(734)).with_sleeping_phone("alice");
    world.push_mode = PushMode::Swallow(millis(50));
    for _ in 0..4 {
        world.pbx().invite("alice");
        world.run_for(millis(10));
    }
    for _ in 0..100 {
        let call = world.pbx().invite("alice");
        world.run_for(millis(200));
        assert_eq!(world.pbx().final_response(call), Some(480));
    }
    let told = told(&mut world, None);
    let refused: Vec<_> = told.iter().filter(|story| story.reason() == Some("limited")).collect();
    assert_eq!((refused.len(), refused[0].repeated), (1, 99));
    assert_eq!(world.stories().len(), 1);
    assert_eq!(told.len(), 5);
}

#[test]
fn the_device_may_still_ask_for_a_call_that_is_only_counted() {
    let mut world = World::new(seed(735)).with_sleeping_phone("alice");
    world.push_mode = PushMode::Swallow(millis(50));
    use_up_the_budget(&mut world, "alice");
    for _ in 0..3 {
        world.pbx().invite("alice");
        world.run_for(millis(200));
    }
    let calls = world.calls_of("alice");
    let (instance, token) = world.key_of("alice");
    for call in &calls[calls.len() - 3..] {
        let asked = world.command(Command::Call(instance, token, *call));
        let Some(Answer::Call(view)) = world.answer(asked) else { panic!("no view") };
        assert_eq!((view.state, view.reason), (CallState::Ended, Some("limited")));
    }
    let first = calls[calls.len() - 3];
    assert_eq!(told(&mut world, Some(first))[0].repeated, 2);
}

/// Calls until no wake is left, and hangs up.
fn use_up_the_budget(world: &mut World, user: &str) {
    for _ in 0..5 {
        let call = world.pbx().invite(user);
        world.run_for(millis(200));
        world.pbx().cancel(call);
        world.run_for(millis(200));
    }
}

fn told(world: &mut World, call: Option<reveille::engine::ids::CallUuid>) -> Vec<Story> {
    let asked = world.ask_every_shard(|| Command::Stories { call, most: 10_000 });
    let of = |asked: &u64| match world.answer(*asked) {
        Some(Answer::Stories(stories)) => stories.clone(),
        _ => panic!("no stories"),
    };
    asked.iter().flat_map(of).collect()
}

/// How many calls the log has counted without a line of their own.
fn noted(world: &World) -> usize {
    let of = |note: &reveille::engine::output::Note| match note {
        reveille::engine::output::Note::CallsRepeated { count, .. } => Some(*count as usize),
        _ => None,
    };
    world.notes.iter().filter_map(of).sum()
}
