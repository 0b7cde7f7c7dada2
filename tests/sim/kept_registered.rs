//! Story (a), when the account is held: refreshes, challenges, back-off, pacing, connections that break.

use std::collections::BTreeSet;

use reveille::engine::audit::Cause;
use reveille::engine::output::{Note, Refusal, WakeKind};

use crate::hand_over::world_over_tcp;
use crate::pbx::{NonceLife, Verdict};
use crate::transactions::Path;
use crate::world::build::{DOMAIN, PBX, address, registrar};
use crate::world::{World, hours, millis, minutes, secs, seed};

#[test]
fn back_off_after_403_grows_and_is_capped() {
    let mut world = World::new(seed(3)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Code(403, None);
    world.hand_over("alice");
    world.run_for(hours(8));

    let times: Vec<_> = world.pbx().registers.iter().map(|seen| seen.at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1].saturating_since(pair[0])).collect();
    assert!(gaps[0] >= secs(15) && gaps[0] <= secs(31), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= minutes(31)), "{gaps:?}");
    assert!(gaps[8..].iter().all(|gap| *gap >= minutes(15)), "{gaps:?}");
}

#[test]
fn retry_after_of_a_503_keeps_every_binding_of_the_destination_away() {
    let mut world = World::new(seed(4)).with_sleeping_phone("alice").with_phone("bob");
    world.pbx().registrar.verdict = Verdict::Code(503, Some(900));
    world.hand_over("bob");
    world.run_for(secs(5));
    let before = world.pbx().registers.len();
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(secs(890));
    assert_eq!(world.pbx().registers.len(), before, "bob was told to wait, and so alice does");
    world.run_for(minutes(20));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    assert_eq!(world.pbx().contacts("bob").len(), 1);
}

#[test]
fn a_binding_keeps_one_call_id_and_contact_and_a_growing_cseq_for_its_whole_life() {
    let mut world = World::new(seed(11)).with_sleeping_phone("alice");
    world.run_for(hours(3));

    let registers = &world.pbx().registers;
    assert!(registers.len() >= 20, "{}", registers.len());
    let names: BTreeSet<_> = registers.iter().map(|seen| (seen.call_id.clone(), seen.contact.clone())).collect();
    assert_eq!(names.len(), 1);
    assert!(registers.windows(2).all(|pair| pair[1].cseq == pair[0].cseq + 1));
    assert_eq!(world.pbx().out_of_order, 0);
}

#[test]
fn where_the_nonce_outlives_the_refresh_the_registrar_challenges_once_in_all() {
    let mut world = World::new(seed(12)).with_sleeping_phone("alice");
    world.run_for(hours(3));
    let verdicts = world.pbx().verdicts();
    assert_eq!(verdicts.iter().filter(|&&code| code == 401).count(), 1, "{verdicts:?}");
    let nonces: BTreeSet<_> = world.pbx().registers.iter().filter_map(|seen| seen.nonce.clone()).collect();
    assert_eq!(nonces.len(), 1);
}

#[test]
fn a_short_lived_nonce_costs_one_stale_401_a_refresh_and_is_no_refusal() {
    let mut world = World::new(seed(13))
        .with_pbx(|pbx| pbx.registrar.nonces = NonceLife::For(secs(32)))
        .with_sleeping_phone("alice");
    world.run_for(hours(12));

    let verdicts = world.pbx().verdicts();
    assert!(verdicts.len() > 100);
    assert!(verdicts.chunks(2).all(|pair| pair == [401, 200]), "{verdicts:?}");
    assert!(world.pushes.is_empty());
    assert_eq!(world.table("leases"), 1);
}

#[test]
fn a_registrar_that_calls_every_nonce_stale_is_not_answered_for_ever() {
    let mut world = World::new(seed(14)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::AlwaysStale;
    let asked = world.hand_over("alice");
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));
    assert!(world.pbx().registers.len() <= 4, "{:?}", world.pbx().verdicts());
    world.assert_empty();
}

#[test]
fn a_binding_that_once_worked_goes_only_after_three_refusals_over_an_hour() {
    let mut world = World::new(seed(15)).with_sleeping_phone("alice");
    let start = world.now.boot;
    world.pbx().set_password("alice", "changed at the PBX");
    world.run_until(hours(6), |world| world.table("leases") == 0);

    let first = world.pbx().registers.iter().filter(|seen| seen.at > start).map(|seen| seen.at).min();
    let took = world.now.boot.saturating_since(first.expect("a refusal"));
    assert!(took >= hours(1), "{took:?}");
    assert!(took < minutes(90), "{took:?}");
    world.run_until_quiet();
    assert_eq!(world.pushed(WakeKind::Reprovision), 1);
    assert!(world.notes.iter().any(|note| matches!(note, Note::Erased(_, Cause::Refused))));
    // Each attempt: the cached nonce, and the fresh one of its challenge. The first refusal has an early retry.
    let refused = world.pbx().registers.iter().filter(|seen| seen.at > start && seen.expires > 0).count();
    assert_eq!(refused, 8, "never hammer");
    world.assert_empty();
}

#[test]
fn a_pbx_in_reload_that_challenges_everyone_for_a_while_costs_nobody_his_binding() {
    let mut world = World::new(seed(16)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::NeverContent;
    world.run_for(minutes(50));
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(hours(12));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    assert!(world.pushes.is_empty());
}

#[test]
fn twelve_hours_without_a_registration_end_it_and_the_device_is_told() {
    let mut world = World::new(seed(17)).with_sleeping_phone("alice");
    world.run_for(minutes(5));
    let registered = world.pbx().registers.last().expect("a registration").at;
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_until(hours(24), |world| world.table("leases") == 0);

    let took = world.now.boot.saturating_since(registered);
    assert!(took >= hours(12) && took <= hours(13), "{took:?}");
    assert_eq!(world.pushed(WakeKind::Reprovision), 1);
    world.assert_empty();
}

#[test]
fn the_granted_expiry_rules_whatever_we_asked() {
    let mut world = World::new(seed(18)).with_pbx(|pbx| pbx.registrar.max_expires = 120).with_phone("alice");
    let asked = world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.expires, Some(secs(120)));
    world.run_for(hours(1));
    let times: Vec<_> = world.pbx().registers.iter().skip(1).map(|seen| seen.at).collect();
    for pair in times.windows(2) {
        let gap = pair[1].saturating_since(pair[0]);
        assert!(gap >= secs(89) && gap < secs(110), "{gap:?}");
    }
}

#[test]
fn a_423_is_obeyed_once() {
    let mut world = World::new(seed(19)).with_pbx(|pbx| pbx.registrar.min_expires = 1800).with_phone("alice");
    let asked = world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().verdicts(), [401, 423, 200]);
    assert_eq!(world.handed_over(asked).registration.expires, Some(secs(1800)));
}

#[test]
fn a_registration_is_never_asked_beyond_the_lease() {
    let mut world = World::new(seed(20)).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.lease = secs(400);
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    world.run_until(minutes(10), |world| world.table("leases") == 0);

    let end = world.now.boot;
    assert!(world.pbx().registers.iter().filter(|seen| seen.expires > 0).count() <= 3, "no flurry at the end");
    for seen in world.pbx().registers.clone() {
        assert!(seen.at + secs(seen.expires.into()) <= end, "{seen:?}");
    }
    assert_eq!(world.pushed(WakeKind::Reprovision), 1);
    world.assert_empty();
}

#[test]
fn a_contact_of_somebody_else_under_the_same_aor_is_not_taken_for_ours() {
    let mut world = World::new(seed(21))
        .with_pbx(|pbx| pbx.registrar.other_contact = Some("sip:desk@198.51.100.77".to_owned()))
        .with_phone("alice");
    let asked = world.hand_over("alice");
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.expires, Some(secs(600)), "ours, not the 1800 of the other");
}

#[test]
fn one_probe_speaks_for_all_bindings_of_a_dead_destination_across_shards() {
    let mut world = World::new(seed(22)).with_shards(4);
    for number in 0..24 {
        world = world.with_sleeping_phone(&format!("phone{number}"));
    }
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(minutes(15));
    let from = world.now.boot;
    let sent = world.sent.len();
    world.run_for(minutes(10));
    let attempts: BTreeSet<_> =
        world.sent_to(PBX).iter().rev().take(world.sent.len() - sent).map(|it| crate::phone::names(it).1).collect();
    assert!(attempts.len() <= 4, "{} attempts in ten minutes since {from:?}", attempts.len());
    assert!(world.peer_messages > 0, "the shards spoke with each other");

    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(minutes(35));
    for number in 0..24 {
        assert_eq!(world.pbx().contacts(&format!("phone{number}")).len(), 1, "phone{number}");
    }
    world.assert_nothing_left();
}

#[test]
fn registrations_go_out_at_the_rate_of_the_destination_across_shards() {
    let mut world = World::new(seed(23)).with_shards(4).with_policy(|policy| policy.registrars.rate = 5);
    world = world.with_sleeping_phone("first");
    for number in 0..60 {
        world.add_phone(&format!("phone{number}"));
    }
    let start = world.now.boot;
    for number in 0..60 {
        world.hand_over(&format!("phone{number}"));
    }
    world.run_until(minutes(5), |world| {
        (0..60).all(|number| world.pbx().contacts(&format!("phone{number}")).len() == 1)
    });
    let took = world.now.boot.saturating_since(start);
    // A challenge and its answer: two requests each.
    assert!(took >= secs(22) && took <= secs(26), "{took:?} for 60 at 5 requests a second");
}

#[test]
fn a_lost_trunk_connection_registers_its_bindings_anew_at_once() {
    let mut world = world_over_tcp(24);
    let before = world.pbx().registers.len();
    world.run_for(minutes(2));
    world.break_connections(address(PBX));
    world.run_for(secs(2));

    let anew = &world.pbx().registers[before..];
    assert_eq!(anew.iter().map(|seen| seen.code).collect::<Vec<_>>(), [200]);
    assert!(matches!(anew[0].path, Path::Stream(_)));
    assert_eq!(world.open_connections(address(PBX)), 1);
    world.assert_nothing_left();
}

#[test]
fn a_registrar_that_closes_after_each_answer_is_not_stormed() {
    let mut world = world_over_tcp(25);
    let before = world.pbx().registers.len();
    for _ in 0..600 {
        world.break_connections(address(PBX));
        world.run_for(secs(1));
    }
    let registers = world.pbx().registers.len() - before;
    assert!(registers <= 40, "{registers} in ten minutes");
}

#[test]
fn bindings_to_one_destination_share_one_connection() {
    let mut world = world_over_tcp(26);
    for name in ["bob", "carol"] {
        world.add_phone(name);
        let mut offer = world.offer(name);
        offer.account.registrar = registrar(&format!("sip:{DOMAIN};transport=tcp"));
        world.hand_over_this(name, offer);
        world.run_until_quiet();
    }
    assert_eq!(world.open_connections(address(PBX)), 1);
}

#[test]
fn registration_survives_a_wire_that_loses_doubles_and_reorders() {
    let mut world = World::new(seed(42)).with_wire(crate::wire::Wire {
        latency: millis(20),
        jitter: millis(400),
        loss: 20,
        doubled: 20,
    });
    for name in ["alice", "bob", "carol", "dave"] {
        world.add_phone(name);
        world.hand_over(name);
    }
    world.run_for(hours(3));
    for name in ["alice", "bob", "carol", "dave"] {
        assert_eq!(world.pbx().contacts(name).len(), 1, "{name}");
    }
}
