//! Story (c): erase.

use std::collections::BTreeSet;

use reveille::clock::Instant;
use reveille::engine::audit::{AuditEvent, Cause, Unregister};
use reveille::engine::ids::ShardId;
use reveille::engine::input::{Command, Whom};
use reveille::engine::output::{Answer, CallOutcome, Note, Refusal, WakeKind};

use crate::pbx::{NonceLife, Verdict};
use crate::phone::Manner;
use crate::world::build::{PBX, TENANT};
use crate::world::{PushMode, World, hours, millis, minutes, secs, seed};

#[test]
fn delete_unregisters_wipes_records_and_answers_with_the_receipt() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice");
    let asked = world.delete("alice");
    world.run_until_quiet();

    let Some(Answer::Erased { receipt, logged }) = world.answer(asked) else { panic!("a receipt") };
    assert!(*logged);
    assert_eq!(receipt.instance, world.key_of("alice").0.to_string());
    assert!(receipt.record.contains("\"deleted\"") && receipt.record.contains("\"confirmed\""), "{}", receipt.record);
    let last = world.pbx().registers.last().expect("an un-REGISTER").clone();
    assert_eq!((last.expires, last.code), (0, 200));
    assert!(world.pbx().contacts("alice").is_empty());
    assert!(world.pushes.is_empty(), "the app knows");
    world.run_for(hours(80));
    assert_eq!(world.pbx().registers.last().expect("it").at, last.at, "never again");
    world.assert_empty();
}

#[test]
fn the_un_register_carries_the_cached_nonce_so_that_no_401_stands_in_its_way() {
    let mut world = World::new(seed(2)).with_sleeping_phone("alice");
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().verdicts(), [401, 200, 200]);
    let nonces: Vec<_> = world.pbx().registers.iter().map(|seen| seen.nonce.clone()).collect();
    assert!(nonces[1].is_some() && nonces[1] == nonces[2]);
}

#[test]
fn one_challenge_to_the_un_register_is_answered() {
    let mut world =
        World::new(seed(3)).with_pbx(|pbx| pbx.registrar.nonces = NonceLife::OneRequest).with_sleeping_phone("alice");
    let asked = world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().verdicts(), [401, 200, 401, 200]);
    assert!(matches!(world.answer(asked), Some(Answer::Erased { .. })));
    assert_eq!(unregister(&world), Unregister::Confirmed);
}

#[test]
fn a_registrar_that_is_never_content_does_not_keep_the_secret_alive() {
    let mut world = World::new(seed(4)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::NeverContent;
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().verdicts()[2..], [401, 401]);
    assert_eq!(unregister(&world), Unregister::Refused);
    world.assert_empty();
}

#[test]
fn a_silent_registrar_holds_the_wipe_up_for_the_grace_and_no_longer() {
    let mut world = World::new(seed(5)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    let asked = world.delete("alice");
    world.run_for(millis(1999));
    assert_eq!(world.table("vault"), 1);
    assert!(world.answer(asked).is_none());
    world.run_for(millis(10));
    assert_eq!(world.table("vault"), 0);
    assert!(matches!(world.answer(asked), Some(Answer::Erased { .. })));
    assert_eq!(unregister(&world), Unregister::Unanswered);
    let sent = world.sent.len();
    world.run_for(hours(80));
    assert_eq!(world.sent.len(), sent, "no timer sends REGISTER any more");
    world.assert_empty();
}

#[test]
fn an_un_register_that_lists_the_contacts_of_others_counts_as_done() {
    let mut world = World::new(seed(6))
        .with_pbx(|pbx| pbx.registrar.other_contact = Some("sip:desk@198.51.100.77".to_owned()))
        .with_sleeping_phone("alice");
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(unregister(&world), Unregister::Confirmed);
}

#[test]
fn a_binding_whose_refreshes_failed_is_still_removed_where_it_may_stand() {
    let mut world = World::new(seed(7)).with_pbx(|pbx| pbx.registrar.max_expires = 3600).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.account.register_expires = secs(3600);
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(minutes(56));
    world.pbx().registrar.verdict = Verdict::Fair;
    world.delete("alice");
    world.run_until_quiet();
    assert!(world.pbx().contacts("alice").is_empty());
    assert_eq!(unregister(&world), Unregister::Confirmed);
}

#[test]
fn what_was_never_registered_needs_no_un_register() {
    let mut world = World::new(seed(8)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    world.hand_over("alice");
    world.run_for(secs(4));
    let sent = world.sent.len();
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(unregister(&world), Unregister::NotNeeded);
    assert_eq!(world.sent.len(), sent);
    world.assert_empty();
}

#[test]
fn the_end_of_the_lease_erases_and_the_device_is_told_to_hand_over_again() {
    let mut world = World::new(seed(9)).with_sleeping_phone("alice");
    world.run_for(hours(72));
    world.run_until_quiet();
    assert_eq!(causes(&world), [Cause::LeaseEnded]);
    assert_eq!(world.phone("alice").kinds().last(), Some(&WakeKind::Reprovision));
    assert!(world.pbx().contacts("alice").is_empty());
    world.assert_empty();
}

#[test]
fn a_lease_ends_by_the_wall_clock_as_well() {
    let mut world = World::new(seed(10)).with_sleeping_phone("alice");
    world.jump_wall(hours(73));
    world.run_until_quiet();
    assert_eq!(causes(&world), [Cause::LeaseEnded]);
    world.assert_empty();
}

#[test]
fn a_lease_ends_while_the_machine_is_suspended() {
    let mut world = World::new(seed(11)).with_sleeping_phone("alice");
    world.suspend(hours(73));
    world.run_until_quiet();
    assert_eq!(causes(&world), [Cause::LeaseEnded]);
    world.assert_empty();
}

#[test]
fn the_ceiling_holds_whatever_lease_comes_in() {
    let mut world = World::new(seed(12)).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.lease = hours(24 * 365);
    world.hand_over_this("alice", offer);
    world.run_until(hours(150), |world| {
        world.table("vault") == 0 && !world.notes.is_empty() && world.answer(1).is_some()
    });
    assert!(world.now.boot.saturating_since(Instant::default()) <= hours(144) + secs(5));
}

#[test]
fn held_calls_of_an_erased_instance_get_480_and_a_ringing_phone_is_quiet_again() {
    let mut world = World::new(seed(13))
        .with_sleeping_phone("alice")
        .with_sleeping_phone("bob")
        .with("alice", |phone| phone.wakes = false)
        .with("bob", |phone| phone.manner = Manner::Ring);
    let waiting = world.pbx().invite("alice");
    let ringing = world.pbx().invite("bob");
    world.run_for(secs(3));
    world.delete("alice");
    world.delete("bob");
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(waiting), [100, 180, 480]);
    assert_eq!(world.pbx().final_response(ringing), Some(480));
    assert_eq!(world.phone("bob").requests, ["INVITE", "CANCEL"]);
    assert_eq!(world.outcomes(), [CallOutcome::Erased, CallOutcome::Erased]);
    world.assert_empty();
}

#[test]
fn a_repeated_delete_gets_the_same_receipt_and_everything_else_410_with_the_cause_for_a_day() {
    let mut world = World::new(seed(14)).with_sleeping_phone("alice");
    let first = world.delete("alice");
    let meanwhile = world.delete("alice");
    world.run_until_quiet();
    world.run_for(hours(20));
    let again = world.delete("alice");
    let shown = world.show("alice");
    world.run_until_quiet();

    let receipt = |asked| match world.answer(asked) {
        Some(Answer::Erased { receipt, .. }) => receipt.clone(),
        _ => panic!("a receipt"),
    };
    assert_eq!(receipt(first), receipt(again));
    assert_eq!(receipt(first), receipt(meanwhile));
    match world.refusal(shown) {
        Some(Refusal::Gone { cause: Cause::Deleted, receipt: Some(told) }) => assert_eq!(told, receipt(first)),
        other => panic!("{other:?}"),
    }
    let (id, _) = world.key_of("alice");
    let guess = world.command(Command::Show(id, World::token_hash("guess")));
    assert_eq!(world.refusal(guess), Some(Refusal::NotFound));
    let guess = world.command(Command::Erase(id, World::token_hash("guess")));
    assert_eq!(world.refusal(guess), Some(Refusal::NotFound));

    world.run_for(hours(5));
    let late = world.delete("alice");
    assert_eq!(world.refusal(late), Some(Refusal::NotFound), "the tombstone is gone after a day");
    assert_eq!(world.table("erasures.graves"), 0);
}

#[test]
fn the_oldest_tombstones_give_way_when_there_are_too_many() {
    let mut world = World::new(seed(15)).with_shards(1).with_policy(|policy| policy.limits.tombstones = 2);
    for name in ["alice", "bob", "carol"] {
        world = world.with_sleeping_phone(name);
        world.delete(name);
        world.run_until_quiet();
    }
    assert_eq!(world.table("erasures.graves"), 2);
    let oldest = world.show("alice");
    assert_eq!(world.refusal(oldest), Some(Refusal::NotFound));
    let newest = world.show("carol");
    assert!(matches!(world.refusal(newest), Some(Refusal::Gone { .. })));
}

#[test]
fn a_phone_of_an_erased_instance_that_attaches_with_its_token_gets_404() {
    let mut world = World::new(seed(16)).with_sleeping_phone("alice");
    world.delete("alice");
    world.run_until_quiet();
    world.phone("alice").attach();
    world.run_until_quiet();
    assert_eq!(world.phone("alice").verdicts, [401, 404]);
    assert_eq!(world.table("edge"), 0);
}

#[test]
fn records_name_nobody() {
    let mut world = World::new(seed(18)).with_sleeping_phone("alice");
    world.delete("alice");
    world.run_until_quiet();
    let id = world.key_of("alice").0.to_string();
    for record in &world.records {
        let text = serde_json::to_string(record).expect("a record");
        for secret in ["alice", "pbx.example.com", "push-token", &id] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    let subjects: BTreeSet<_> = world.records.iter().map(|record| record.subject.clone()).collect();
    assert_eq!(subjects.len(), 1, "one instance, one subject");
}

#[test]
fn a_slow_or_broken_audit_disk_stops_no_erasure() {
    let mut world = World::new(seed(19)).with_sleeping_phone("alice");
    world.set_audit_writable(false);
    world.audit_delay = secs(1);
    world.audit_logged = false;
    let asked = world.delete("alice");
    world.run_until_quiet();
    assert!(matches!(world.answer(asked), Some(Answer::Erased { logged: false, .. })));
    world.assert_empty();
}

#[test]
fn shutting_down_lets_calls_finish_then_erases_everyone_with_a_reprovision_wake() {
    let mut world = World::new(seed(20)).with_shards(3);
    for name in ["alice", "bob", "carol"] {
        world = world.with_sleeping_phone(name);
    }
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    world.drain();
    let late = world.pbx().invite("alice");
    world.run_until(secs(20), |world| world.drained == 3);

    assert_eq!(world.pbx().final_response(call), Some(200), "it was ringing");
    assert_eq!(world.pbx().final_response(late), Some(480), "a 503 would reach the caller as 500");
    assert_eq!(world.pushed(WakeKind::Reprovision), 3);
    assert_eq!(causes(&world), [Cause::Shutdown; 3]);
    let refused = world.hand_over("alice");
    assert!(matches!(world.refusal(refused), Some(Refusal::Busy { .. })));
    assert_eq!(world.table("vault"), 0);
    for name in ["alice", "bob", "carol"] {
        assert!(world.pbx().contacts(name).is_empty());
    }
}

#[test]
fn callers_hear_480_also_when_a_shutdown_has_erased_what_the_registrar_still_lists() {
    let mut world = World::new(seed(22)).with_sleeping_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    world.drain();
    world.run_until(secs(20), |world| world.drained == 2);
    let late = world.pbx().invite("alice");
    world.run_for(secs(1));
    assert_eq!(world.pbx().final_response(late), Some(480));
}

#[test]
fn a_shutdown_does_not_wait_longer_for_calls_than_it_may() {
    let mut world = World::new(seed(21)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    world.drain();
    world.run_for(millis(9_900));
    assert_eq!(world.pbx().final_response(call), None);
    assert_eq!(world.drained, 1, "the shard without calls is done");
    world.run_for(secs(3));
    assert_eq!(world.pbx().final_response(call), Some(480));
    assert_eq!(world.drained, 2);
}

#[test]
fn a_hand_over_caught_by_the_shutdown_is_told_to_come_later() {
    let mut world = World::new(seed(22)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    let asked = world.hand_over("alice");
    world.run_for(secs(1));
    world.drain();
    world.run_for(secs(1));
    assert!(matches!(world.refusal(asked), Some(Refusal::Busy { .. })), "{:?}", world.refusal(asked));
    world.assert_empty();
}

#[test]
fn an_erasure_in_the_middle_of_a_registration_leaves_no_binding_behind() {
    for after in [5, 15, 25, 35, 45, 55, 65] {
        let mut world = World::new(seed(23)).with_phone("alice");
        world.pbx().registrar.delay = millis(7);
        world.hand_over("alice");
        world.run_for(millis(after));
        for shard in 0..2 {
            let command = Command::EraseAll { tenant: TENANT.into(), whom: Whom::Tenant };
            world.command_at(ShardId(shard), command);
        }
        world.run_until_quiet();
        assert!(world.pbx().contacts("alice").is_empty(), "after {after} ms");
        world.assert_empty();
    }
}

#[test]
fn erasing_over_a_connection_that_breaks_is_over_at_once() {
    let mut world = crate::hand_over::world_over_tcp(24);
    world.pbx().registrar.verdict = Verdict::Silent;
    let asked = world.delete("alice");
    world.run_for(millis(100));
    world.break_connections(crate::world::build::address(PBX));
    world.run_for(millis(50));
    assert!(matches!(world.answer(asked), Some(Answer::Erased { .. })));
    assert_eq!(unregister(&world), Unregister::Unanswered);
    world.assert_empty();
}

#[test]
fn the_capability_of_an_erased_instance_is_nobodys() {
    let mut world = World::new(seed(25)).with_sleeping_phone("alice");
    let capability = world.pbx().capability("alice").expect("registered");
    world.delete("alice");
    world.run_until_quiet();
    let call = world.pbx().invite(crate::pbx::Invite::to("alice").by_capability(&capability));
    world.run_for(minutes(1));
    assert_eq!(world.pbx().heard(call), [404], "the registrar is told");
    assert!(world.pushes.is_empty());
}

fn unregister(world: &World) -> Unregister {
    let last = world.records.last().expect("a record");
    match last.event {
        AuditEvent::Erased { unregister, .. } => unregister,
        _ => panic!("no erasure: {last:?}"),
    }
}

fn causes(world: &World) -> Vec<Cause> {
    let of = |note: &Note| match note {
        Note::Erased(_, cause) => Some(*cause),
        _ => None,
    };
    world.notes.iter().filter_map(of).collect()
}
