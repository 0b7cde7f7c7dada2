//! What the PBX sees of us while the phone sleeps, and that nothing is left when it is over.

use std::fs;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::kamailio::{Kamailio, Manners};
use crate::process::{after, until};
use crate::push::{Provider, PushService};
use crate::world::{Transport, World};

/// The registrations Kamailio grants where a test wants to see several of them, in seconds.
///
/// Kamailio counts in whole seconds: a binding granted for N of them is gone after anything between N − 1 and N. A refresh comes after
/// 15 s at the earliest, and for 20 s in time. On a loaded machine it may be late all the same: no test here asks for a registration
/// without gaps.
const SHORT: u32 = 20;

const REFRESHES: u64 = 5;

#[test]
fn five_refreshes_cost_one_challenge_and_keep_one_call_id_and_one_contact() {
    let world = World::new("five-refreshes");
    let kamailio = Kamailio::start(&world, &Manners { max_expires: SHORT, ..Manners::default() });
    let push = PushService::start(&world, Provider::Apns);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let instance = daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);

    let span = Duration::from_secs(u64::from(SHORT) * REFRESHES);
    after(span, "five refreshes", || (kamailio.count("accepted") > REFRESHES).then_some(()));
    daemon.erase(&instance);

    assert_eq!(kamailio.count("challenges"), 1, "the nonce is kept, for the un-REGISTER too");
    assert_eq!(kamailio.count("refused"), 0);
    assert_eq!(kamailio.distinct("call-id").len(), 1);
    assert_eq!(kamailio.distinct("contact").len(), 1);
    assert_eq!(kamailio.bindings("alice"), Vec::<String>::new());
}

#[test]
fn a_registrar_that_grants_a_second_is_asked_four_times_a_minute_and_the_app_is_told() {
    let world = World::new("a-second");
    let kamailio = Kamailio::start(&world, &Manners { max_expires: 1, ..Manners::default() });
    let push = PushService::start(&world, Provider::Apns);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let instance = daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);
    let begun = Instant::now();

    after(Duration::from_secs(30), "two refreshes", || (kamailio.count("accepted") > 2).then_some(()));
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
    assert_eq!(daemon.status(&instance).json()["registration"]["reason"], "expiry-too-short");
    daemon.erase(&instance);
}

#[test]
fn an_erasure_leaves_a_receipt_that_can_be_verified_and_no_binding() {
    let world = World::new("erasure");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let push = PushService::start(&world, Provider::Fcm);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let instance = daemon.hand_over(&kamailio, &push, "alice", Transport::Tcp);
    assert_eq!(kamailio.bindings("alice").len(), 1);

    let answer = daemon.erase(&instance);

    until("the PBX to forget the binding", || kamailio.bindings("alice").is_empty().then_some(()));
    let receipt = daemon.directory().join("receipt.json");
    let text = answer["receipt"].to_string();
    fs::write(&receipt, &text).expect("the test directory is writable");
    assert!(daemon.audit_verify(&receipt).success());
    assert!(daemon.audit_verify(&daemon.audit_log()).success());
    assert_eq!(daemon.erase(&instance)["receipt"], answer["receipt"], "asked again, the same receipt");
    assert_eq!(daemon.status(&instance).status, 410);

    // One character of an object's values: what is verified is what is written there.
    let position = text.find(|letter: char| letter.is_ascii_digit()).expect("a receipt holds a time");
    let digit = if text.as_bytes()[position] == b'1' { "2" } else { "1" };
    let forged = [&text[..position], digit, &text[position + 1..]].concat();
    fs::write(&receipt, forged).expect("the test directory is writable");
    assert_eq!(daemon.audit_verify(&receipt).code(), Some(65));
}

#[test]
fn a_terminated_daemon_takes_every_binding_back() {
    let world = World::new("terminated");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let push = PushService::start(&world, Provider::Apns);
    let mut daemon = Daemon::start(&world, &kamailio, &push);
    let trunks = [("alice", Transport::Udp), ("carol", Transport::Tcp), ("dave", Transport::Tls)];
    for (user, trunk) in trunks {
        daemon.hand_over(&kamailio, &push, user, trunk);
        assert_eq!(kamailio.bindings(user).len(), 1);
    }

    let status = daemon.terminate();

    assert!(status.success(), "{status}");
    for (user, _) in trunks {
        assert_eq!(kamailio.bindings(user), Vec::<String>::new(), "{user} is still registered");
    }
    for (user, _) in trunks {
        push.wait_for("reprovision", &push.token(user, "other"), 1);
    }
    assert_eq!(push.of_kind("reprovision").len(), trunks.len(), "each device is told once that it is on its own again");
    assert!(daemon.audit_verify(&daemon.audit_log()).success());
}
