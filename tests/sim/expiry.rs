//! How long a registration is asked for and granted: minimums of the registrar, leases that end, grants of seconds.

use std::time::Duration;

use reveille::clock::Instant;
use reveille::engine::output::{RegistrationReason, RegistrationState};

use crate::moves::{OTHER, patch_via};
use crate::pbx::{Lists, Verdict};
use crate::refusals::{shown, told};
use crate::world::{World, hours, minutes, secs, seed};

/// A phone whose lease is so long, at a registrar with this minimum.
fn leased(number: u64, lease: Duration, min_expires: u32) -> World {
    let mut world = World::new(seed(number))
        .with_pbx(|pbx| (pbx.registrar.min_expires, pbx.registrar.max_expires) = (min_expires, 200_000))
        .with_phone("alice");
    let mut offer = world.offer("alice");
    offer.lease = lease;
    world.hand_over_this("alice", offer);
    world.run_for(secs(2));
    world
}

fn asked_for(world: &mut World) -> Vec<(u32, u16)> {
    world.pbx().registers.iter().map(|seen| (seen.expires, seen.code)).collect()
}

#[test]
fn a_minimum_longer_than_the_lease_is_asked_for_and_the_lease_ends_the_registration() {
    for (number, lease, least) in [(2001, 3600, 3600), (2002, 120, 600), (2003, 3600, 86_400)] {
        let mut world = leased(number, secs(lease), least);
        assert_eq!(shown(&mut world, "alice").state, RegistrationState::Registered, "{lease} s, at least {least} s");
        assert_eq!(world.pbx().contacts("alice").len(), 1);
        world.run_until(secs(lease + 5), |world| world.table("leases") == 0);
        world.run_until_quiet();
        let seen = asked_for(&mut world);
        assert_eq!(seen[2..], [(least, 200), (0, 200)], "{lease} s, at least {least} s: {seen:?}");
        assert!(world.pbx().contacts("alice").is_empty(), "un-registered at the end of the lease");
        world.assert_empty();
    }
}

#[test]
fn the_last_refreshes_of_a_lease_keep_to_the_minimum_without_a_423_for_each() {
    let mut world = leased(2004, secs(1000), 400);
    world.pbx().registrar.max_expires = 400;
    world.run_until(secs(1010), |world| {
        let registered = world.pbx().contacts("alice").len() == 1;
        assert!(registered || world.table("leases") == 0, "never without a registration");
        world.table("leases") == 0
    });
    let seen = asked_for(&mut world);
    assert!(seen.iter().filter(|(_, code)| *code == 423).count() <= 1, "{seen:?}");
    assert!(seen.iter().all(|(expires, _)| *expires > 0), "{seen:?}");
    assert!(seen.len() <= 6, "no flurry at the end: {seen:?}");
    world.run_until_quiet();
    assert!(world.pbx().contacts("alice").is_empty());
    world.assert_empty();
}

#[test]
fn the_minimum_is_remembered_for_refreshes() {
    let mut world = leased(2005, hours(72), 900);
    world.run_for(hours(2));
    let seen = asked_for(&mut world);
    assert_eq!(seen[..3], [(600, 401), (600, 423), (900, 200)]);
    assert!(seen.len() > 8 && seen[3..].iter().all(|it| *it == (900, 200)), "{seen:?}");
}

#[test]
fn a_new_place_with_a_minimum_longer_than_the_lease_takes_over() {
    let mut world = leased(2033, hours(1), 0);
    let other = world.add_pbx("proxy.example.com", OTHER);
    world.pbx_at(other).registrar.min_expires = 7200;
    world.pbx_at(other).registrar.max_expires = 7200;
    patch_via(&mut world, "sip:proxy.example.com");
    world.run_until_quiet();
    let view = shown(&mut world, "alice");
    assert_eq!((view.state, view.expires), (RegistrationState::Registered, Some(hours(2))));
    assert!(world.pbx().contacts("alice").is_empty());
    assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
    world.run_until(hours(1), |world| world.table("leases") == 0);
    world.run_until_quiet();
    assert!(world.pbx_at(other).contacts("alice").is_empty(), "un-registered at the end of the lease");
    world.assert_empty();
}

#[test]
fn a_proxy_and_a_registrar_may_each_have_a_minimum() {
    let mut world = World::new(seed(2006)).with_phone("alice");
    world.pbx().registrar.challenges = false;
    world.pbx().registrar.verdict = Verdict::TooBrief(Some("1200"));
    world.hand_over("alice");
    world.run_until(secs(2), |world| world.pbx().registers.len() == 1);
    world.pbx().registrar.verdict = Verdict::TooBrief(Some("1800"));
    world.run_until(secs(2), |world| world.pbx().registers.len() == 2);
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_until_quiet();
    assert_eq!(asked_for(&mut world), [(600, 423), (1200, 423), (1800, 200)]);
    assert_eq!(shown(&mut world, "alice").state, RegistrationState::Registered);
}

#[test]
fn a_minimum_beyond_a_day_is_named_and_asked_for_no_more_often_than_any_failure() {
    for (number, least) in [(2007, "86401"), (2008, "604800"), (2009, "4294967296"), (2010, "99999999999999999999")] {
        let mut world = World::new(seed(number)).with_phone("alice");
        world.pbx().registrar.verdict = Verdict::TooBrief(Some(least));
        let asked = world.hand_over("alice");
        world.run_until_quiet();
        let view = &world.handed_over(asked).registration;
        assert_eq!(
            (view.state, view.reason),
            (RegistrationState::Failing, Some(RegistrationReason::MinExpiresTooLong))
        );
        assert!(view.verdict.as_ref().is_some_and(|verdict| verdict.starts_with("423")), "{:?}", view.verdict);
        world.run_for(hours(2));
        assert!(world.pbx().registers.len() <= 12, "{}", world.pbx().registers.len());
        assert!(world.pbx().registers.iter().all(|seen| seen.expires == 600));
        world.pbx().registrar.verdict = Verdict::Fair;
        world.run_for(minutes(31));
        assert_eq!(shown(&mut world, "alice").reason, None);
    }
}

#[test]
fn a_423_that_says_nothing_to_follow_is_a_failure_like_others() {
    for (number, least) in [
        (2011, None),
        (2012, Some("0")),
        (2013, Some("soon")),
        (2014, Some("600")),
        (2015, Some("60")),
        (2016, Some("-1")),
        (2017, Some("")),
    ] {
        let mut world = World::new(seed(number)).with_phone("alice");
        world.pbx().registrar.verdict = Verdict::TooBrief(least);
        let asked = world.hand_over("alice");
        world.run_until_quiet();
        let view = &world.handed_over(asked).registration;
        assert_eq!(
            (view.state, view.reason),
            (RegistrationState::Failing, Some(RegistrationReason::Rejected)),
            "{least:?}"
        );
        world.run_for(hours(1));
        assert!(world.pbx().registers.len() <= 10, "{least:?}: {}", world.pbx().registers.len());
    }
}

#[test]
fn a_registrar_that_raises_its_minimum_with_each_answer_is_followed_so_far_and_no_further() {
    let mut world = World::new(seed(2018)).with_phone("alice");
    let raised = ["700", "800", "900", "1000"];
    for (place, least) in raised.into_iter().enumerate() {
        world.pbx().registrar.verdict = Verdict::TooBrief(Some(least));
        if place == 0 {
            world.hand_over("alice");
        }
        world.run_for(Duration::from_millis(40));
    }
    world.run_for(secs(5));
    assert_eq!(world.pbx().registers.len(), 3, "{:?}", asked_for(&mut world));
    assert_eq!(shown(&mut world, "alice").reason, Some(RegistrationReason::Rejected));
}

#[test]
fn an_un_register_follows_no_423() {
    let mut world = World::new(seed(2019)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::TooBrief(Some("3600"));
    let before = world.pbx().registers.len();
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(asked_for(&mut world)[before..], [(0, 423)]);
    world.assert_empty();
}

/// The times of the REGISTERs that were granted.
fn refreshes(world: &mut World) -> Vec<Instant> {
    world.pbx().registers.iter().filter(|seen| seen.code == 200).map(|seen| seen.at).collect()
}

#[test]
fn a_grant_of_seconds_is_named_and_refreshed_no_more_often_than_four_times_a_minute() {
    for (number, granted) in [(2021, 1), (2022, 5), (2023, 14)] {
        let mut world =
            World::new(seed(number)).with_pbx(|pbx| pbx.registrar.max_expires = granted).with_phone("alice");
        let asked = world.hand_over("alice");
        world.run_for(secs(1));
        assert_eq!(world.handed_over(asked).registration.reason, Some(RegistrationReason::ExpiryTooShort));
        world.run_for(minutes(30));

        let times = refreshes(&mut world);
        assert!(times.len() > 60, "it goes on trying: {}", times.len());
        assert!(times.windows(2).all(|pair| pair[1].saturating_since(pair[0]) >= secs(15)), "{granted} s");
        assert_eq!(shown(&mut world, "alice").reason, Some(RegistrationReason::ExpiryTooShort));
        let short = (RegistrationState::Failing, Some(RegistrationReason::ExpiryTooShort));
        assert_eq!(told(&world), [short], "told once, however often it comes and goes");

        world.pbx().registrar.max_expires = 600;
        world.run_for(minutes(1));
        assert_eq!(told(&world), [short, (RegistrationState::Registered, None)]);
    }
}

#[test]
fn a_grant_of_no_time_is_named_too() {
    let mut world = World::new(seed(2024)).with_phone("alice");
    (world.pbx().registrar.lists, world.pbx().registrar.expires_header) = (Lists::Nothing, Some(0));
    let asked = world.hand_over("alice");
    world.run_for(secs(2));
    let view = world.handed_over(asked).registration.clone();
    let short = Some(RegistrationReason::ExpiryTooShort);
    assert_eq!((view.state, view.reason), (RegistrationState::Failing, short));
    world.run_for(hours(1));
    assert!(world.pbx().registers.len() <= 10, "{}", world.pbx().registers.len());
}

#[test]
fn a_short_grant_that_can_be_refreshed_in_time_never_lapses() {
    for (number, granted, reason) in [
        (2025, 18, Some(RegistrationReason::ExpiryTooShort)),
        (2026, 20, Some(RegistrationReason::ExpiryTooShort)),
        (2027, 29, Some(RegistrationReason::ExpiryTooShort)),
        (2028, 30, None),
        (2029, 45, None),
        (2030, 60, None),
    ] {
        let mut world =
            World::new(seed(number)).with_pbx(|pbx| pbx.registrar.max_expires = granted).with_phone("alice");
        world.hand_over("alice");
        world.run_for(secs(1));
        for _ in 0..1800 {
            world.run_for(secs(1));
            assert_eq!(world.pbx().contacts("alice").len(), 1, "{granted} s");
        }
        let view = shown(&mut world, "alice");
        assert_eq!((view.state, view.reason), (RegistrationState::Registered, reason), "{granted} s");
        assert_eq!(told(&world), [(RegistrationState::Registered, reason)]);
        let times = refreshes(&mut world);
        assert!(times.windows(2).all(|pair| pair[1].saturating_since(pair[0]) >= secs(15)), "{granted} s");
    }
}

#[test]
fn a_registration_that_is_asked_for_seconds_since_the_lease_ends_is_not_called_short() {
    let mut world = World::new(seed(2032)).with_pbx(|pbx| pbx.registrar.max_expires = 40).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.lease = secs(60);
    world.hand_over_this("alice", offer);
    world.run_for(secs(1));
    for _ in 0..57 {
        world.run_for(secs(1));
        let view = shown(&mut world, "alice");
        assert_eq!((view.state, view.reason), (RegistrationState::Registered, None));
    }
    assert!(world.pbx().registers.iter().any(|seen| seen.expires < 30), "the last one");
    assert_eq!(told(&world), [(RegistrationState::Registered, None)]);
}

#[test]
fn a_lost_refresh_of_a_grant_of_twenty_seconds_is_sent_again_in_time() {
    let mut world = World::new(seed(2031)).with_pbx(|pbx| pbx.registrar.max_expires = 20).with_phone("alice");
    world.hand_over("alice");
    world.run_for(secs(1));
    let before = world.pbx().registers.len();
    world.run_for(secs(13));
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_until(secs(10), |world| world.pbx().registers.len() > before);
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(secs(3));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    assert_eq!(shown(&mut world, "alice").state, RegistrationState::Registered);
}
