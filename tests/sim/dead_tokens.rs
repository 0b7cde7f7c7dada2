//! Push tokens that the provider calls dead: whose instance ends, and whose does not.

use reveille::engine::input::{Command, Rectification};
use reveille::engine::output::{PushOutcome, WakeKind};

use crate::world::build::targets;
use crate::world::{PushMode, WALL_START, World, millis, minutes, seed};

#[test]
fn a_dead_push_token_ends_the_call_and_the_instance() {
    let mut world = World::new(seed(35)).with_sleeping_phone("alice");
    world.push_mode = PushMode::Answer(PushOutcome::TokenDead { since: None });
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().heard(call), [100, 480]);
    assert!(world.pbx().contacts("alice").is_empty());
    assert_eq!(world.pushes.len(), 1, "nobody to tell");
    world.assert_empty();
}

#[test]
fn news_of_a_dead_token_older_than_ours_is_no_news() {
    let mut world = World::new(seed(36)).with_sleeping_phone("alice");
    world.run_for(minutes(1));
    world.hand_over("alice");
    let since = Some(WALL_START);
    world.push_mode = PushMode::Answer(PushOutcome::TokenDead { since });
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().heard(call), [100, 480]);
    assert_eq!(world.table("leases"), 1);
}

#[test]
fn a_token_that_died_after_we_got_it_is_dead_and_at_the_very_moment_it_is_not() {
    for (later, held) in [(millis(0), 1), (millis(1), 0)] {
        let mut world = World::new(seed(136)).with_phone("alice");
        world.run_for(minutes(1));
        let handed_over = world.now.wall;
        world.hand_over_now("alice");
        world.push_mode = PushMode::Answer(PushOutcome::TokenDead { since: Some(handed_over + later) });
        let call = world.call_and_wait("alice");
        assert_eq!(world.pbx().heard(call), [100, 480]);
        assert_eq!(world.table("leases"), held, "{later:?}");
    }
}

#[test]
fn word_of_a_replaced_token_does_not_kill_the_new_one_however_new_it_is() {
    let since = Some(WALL_START + minutes(9));
    for since in [None, since] {
        let mut world = World::new(seed(137)).with_sleeping_phone("alice");
        world.push_mode = PushMode::Answer(PushOutcome::TokenDead { since });
        world.pbx().invite("alice");
        // The push is with the provider; the answer comes after the app has told of its new token.
        world.run_for(millis(20));
        assert_eq!(world.pushed(WakeKind::Call), 1);
        world.push_mode = PushMode::Accept(millis(50));
        let (id, token) = world.key_of("alice");
        let push = Some(targets("another"));
        world.command(Command::Rectify(id, token, Box::new(Rectification { push, ..Rectification::default() })));
        world.run_for(minutes(2));
        assert_eq!(world.table("leases"), 1, "{since:?}");
    }
}

#[test]
fn a_token_handed_over_once_more_outlives_word_of_a_push_sent_before() {
    let mut world = World::new(seed(138)).with_sleeping_phone("alice");
    world.push_mode = PushMode::Answer(PushOutcome::TokenDead { since: None });
    world.pbx().invite("alice");
    world.run_for(millis(20));
    assert_eq!(world.pushed(WakeKind::Call), 1);
    world.push_mode = PushMode::Accept(millis(50));
    world.hand_over("alice");
    world.run_for(minutes(2));
    assert_eq!(world.table("leases"), 1);
    world.push_mode = PushMode::Answer(PushOutcome::TokenDead { since: None });
    world.call_and_wait("alice");
    assert_eq!(world.table("leases"), 0, "asked again, the provider means this one");
}
