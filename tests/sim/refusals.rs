//! A registrar that refuses what it took before: one early retry, then long pauses.

use reveille::clock::Instant;
use reveille::engine::audit::{AuditEvent, Cause};
use reveille::engine::output::{Answer, Note, RegistrationReason, RegistrationState, RegistrationView};

use crate::pbx::Verdict;
use crate::world::{World, hours, minutes, secs, seed};

/// What the app of a phone is shown now.
pub fn shown(world: &mut World, name: &str) -> RegistrationView {
    let asked = world.show(name);
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("an instance") };
    view.registration.clone()
}

/// The changes of the registration that were told.
pub fn told(world: &World) -> Vec<(RegistrationState, Option<RegistrationReason>)> {
    let changes = world.notes.iter().filter_map(|note| match note {
        Note::Registration(_, state, reason, _) => Some((*state, *reason)),
        _ => None,
    });
    changes.collect()
}

/// The times of the exchanges since `from`: the first REGISTER of each.
fn exchanges(world: &mut World, from: Instant) -> Vec<Instant> {
    let mut times: Vec<Instant> = Vec::new();
    for seen in world.pbx().registers.iter().filter(|seen| seen.at > from && seen.expires > 0) {
        if times.last().is_none_or(|last| seen.at.saturating_since(*last) > secs(5)) {
            times.push(seen.at);
        }
    }
    times
}

/// Runs until the registrar has been asked once more, and the exchange is over.
fn run_to_next(world: &mut World) {
    let before = world.pbx().registers.len();
    world.run_until(minutes(10), |world| world.pbx().registers.len() > before);
    world.run_for(secs(1));
}

#[test]
fn a_pbx_that_reloads_its_users_for_seconds_costs_no_registration() {
    for (number, verdict) in [(2101, Verdict::NeverContent), (2102, Verdict::Code(403, None))] {
        for offset in 0..8 {
            let mut world = World::new(seed(number + 10 * offset)).with_sleeping_phone("alice");
            world.run_for(secs(60));
            let events = told(&world).len();
            world.pbx().registrar.verdict = verdict.clone();
            run_to_next(&mut world);
            let refused = world.now.boot;
            world.run_for(secs(5));
            let view = shown(&mut world, "alice");
            assert_eq!(view.state, RegistrationState::Registered, "it holds still");
            assert!(matches!(view.reason, Some(RegistrationReason::Refused | RegistrationReason::Rejected)));
            world.pbx().registrar.verdict = Verdict::Fair;
            for _ in 0..300 {
                world.run_for(secs(1));
                assert_eq!(world.pbx().contacts("alice").len(), 1, "{verdict:?}: it never lapses");
            }
            let again = exchanges(&mut world, refused)[0].saturating_since(refused);
            assert!(again >= secs(29) && again <= secs(121), "{again:?}");
            assert_eq!(shown(&mut world, "alice").reason, None);
            assert_eq!(told(&world).len(), events, "no news");
        }
    }
}

#[test]
fn one_early_retry_is_followed_by_long_pauses() {
    for (number, verdict) in [(2181, Verdict::NeverContent), (2182, Verdict::Code(403, None))] {
        let mut world = World::new(seed(number)).with_sleeping_phone("alice");
        let start = world.now.boot;
        world.pbx().registrar.verdict = verdict.clone();
        world.run_for(minutes(60));
        let times = exchanges(&mut world, start);
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].saturating_since(pair[0])).collect();
        assert_eq!(gaps.len(), 2, "{verdict:?}: {gaps:?}");
        assert!(gaps[0] >= secs(30) && gaps[0] <= secs(121) && gaps[1] >= minutes(30), "{verdict:?}: {gaps:?}");
    }
}

#[test]
fn the_early_retry_counts_as_the_refusal_before_it() {
    let mut world = World::new(seed(2183)).with_sleeping_phone("alice");
    let start = world.now.boot;
    world.pbx().set_password("alice", "changed at the PBX");
    world.run_until(hours(6), |world| world.table("leases") == 0);
    world.run_until_quiet();
    let times = exchanges(&mut world, start);
    assert_eq!(times.len(), 4, "a refusal, its early retry, and two more");
    let took = world.now.boot.saturating_since(times[0]);
    assert!(took >= hours(1), "{took:?}");
    assert!(world.notes.iter().any(|note| matches!(note, Note::Erased(_, Cause::Refused))));
    let recorded = world.records.iter().filter(|record| record.event == AuditEvent::Refused).count();
    assert_eq!(recorded, 3, "as many as counted");
    world.assert_empty();
}

#[test]
fn after_a_grant_the_next_refusal_has_an_early_retry_again() {
    let mut world = World::new(seed(2184)).with_sleeping_phone("alice");
    for _ in 0..3 {
        world.pbx().registrar.verdict = Verdict::NeverContent;
        run_to_next(&mut world);
        let refused = world.now.boot;
        world.run_for(secs(5));
        world.pbx().registrar.verdict = Verdict::Fair;
        world.run_for(secs(121));
        assert_eq!(exchanges(&mut world, refused).len(), 1);
        assert_eq!(shown(&mut world, "alice").reason, None);
    }
}

#[test]
fn a_hand_over_of_the_same_credentials_leaves_the_early_retry_to_come() {
    let mut world = World::new(seed(2185)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::NeverContent;
    run_to_next(&mut world);
    let refused = world.now.boot;
    world.run_for(secs(7));
    world.hand_over("alice");
    world.run_for(secs(3));
    assert_eq!(exchanges(&mut world, refused).len(), 0, "the same credentials bring nothing forward");
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(secs(121));
    assert_eq!(shown(&mut world, "alice").reason, None, "and the early retry came all the same");
}

#[test]
fn a_retry_after_with_a_403_is_kept() {
    let mut world = World::new(seed(2186)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::Code(403, Some(900));
    run_to_next(&mut world);
    let refused = world.now.boot;
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(secs(898));
    assert_eq!(exchanges(&mut world, refused).len(), 0);
    world.run_for(secs(5));
    assert_eq!(exchanges(&mut world, refused).len(), 1);
}
