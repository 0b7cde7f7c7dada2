//! Story (a): hand over, until the registrar has spoken.

use std::collections::BTreeSet;

use reveille::engine::audit::Cause;
use reveille::engine::input::{LocateFault, Located};
use reveille::engine::output::{Answer, Note, Refusal, RegistrationState, WakeKind};
use reveille::engine::tally::Shed;
use reveille::sip::Transport;
use reveille::sip::auth::Algorithm;

use crate::pbx::{NonceLife, Verdict};
use crate::world::build::{DOMAIN, PBX, address, registrar};
use crate::world::{WALL_START, World, hours, millis, minutes, secs, seed};

#[test]
fn a_handed_over_account_is_registered_after_one_challenge() {
    let mut world = World::new(seed(1)).with_phone("alice");
    let asked = world.hand_over("alice");
    world.run_until_quiet();

    let registration = world.handed_over(asked).registration.clone();
    assert_eq!(registration.state, RegistrationState::Registered);
    assert_eq!(registration.expires, Some(secs(600)));
    assert_eq!(registration.verdict.as_deref(), Some("200 OK"));
    assert!(!world.handed_over(asked).replaced);
    assert_eq!(world.pbx().verdicts(), [401, 200]);
    assert!(world.pushes.is_empty());
    world.assert_nothing_left();
}

#[test]
fn the_answer_tells_where_to_attach() {
    let mut world = World::new(seed(1)).with_phone("alice");
    let asked = world.hand_over("alice");
    world.run_until_quiet();

    let handed = world.handed_over(asked);
    let id = handed.instance.to_string();
    assert_eq!(handed.attach.uri, "sip:192.0.2.5:5061;transport=tls");
    assert_eq!(handed.attach.aor, format!("sip:{id}@edge.example.net"));
    assert_eq!((handed.attach.username.as_str(), handed.attach.realm.as_str()), (id.as_str(), "edge.example.net"));
    assert_eq!(handed.token.len(), 52, "256 bits in base 32");
    // A guess at the account and a place for the device may have to be asked for in other shards.
    assert!(handed.lease_ends >= WALL_START + hours(72) && handed.lease_ends <= WALL_START + hours(72) + millis(4));
}

#[test]
fn of_several_challenges_the_strongest_is_answered() {
    let mut world = World::new(seed(1))
        .with_pbx(|pbx| pbx.registrar.algorithms = vec![Algorithm::Md5, Algorithm::Sha256])
        .with_sleeping_phone("alice");
    assert_eq!(world.pbx().verdicts(), [401, 200], "the PBX insists on the strongest");
    world.assert_nothing_left();
}

#[test]
fn a_407_of_a_proxy_is_answered_like_a_401() {
    let mut world = World::new(seed(1)).with_pbx(|pbx| pbx.registrar.proxy = true).with_sleeping_phone("alice");
    assert_eq!(world.pbx().verdicts(), [407, 200]);
    world.run_for(hours(1));
    assert_eq!(world.pbx().verdicts().iter().filter(|&&code| code == 407).count(), 1);
}

#[test]
fn a_nonce_given_ahead_saves_the_next_challenge() {
    let mut world = World::new(seed(1))
        .with_pbx(|pbx| {
            pbx.registrar.nonces = NonceLife::OneRequest;
            pbx.registrar.next_nonce = true;
        })
        .with_sleeping_phone("alice");
    world.run_for(hours(2));
    assert_eq!(world.pbx().verdicts().iter().filter(|&&code| code == 401).count(), 1);
    assert!(world.pbx().verdicts().len() > 10);
}

#[test]
fn a_later_downgrade_to_a_weaker_algorithm_is_not_answered() {
    let mut world = World::new(seed(1))
        .with_pbx(|pbx| pbx.registrar.algorithms = vec![Algorithm::Sha256])
        .with_sleeping_phone("alice");
    world.pbx().registrar.algorithms = vec![Algorithm::Md5];
    world.pbx().registrar.verdict = Verdict::NeverContent;
    world.run_for(minutes(10));

    let seen = &world.pbx().registers[2..];
    assert_eq!(seen.len(), 1, "the refresh, and no answer to its MD5 challenge");
    assert_eq!(seen[0].code, 401);
}

#[test]
fn two_refusals_at_hand_over_mean_422_and_nothing_is_kept() {
    let mut world = World::new(seed(2)).with_phone("alice");
    world.pbx().set_password("alice", "another one");
    let asked = world.hand_over("alice");
    world.run_until_quiet();

    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarRefused("401 Unauthorized".to_owned())));
    assert_eq!(world.pbx().verdicts(), [401, 401, 401], "the challenge and two refusals");
    assert!(world.pushes.is_empty(), "the answer tells the app");
    assert!(world.notes.iter().any(|note| matches!(note, Note::Erased(_, Cause::Refused))));
    world.run_for(hours(24));
    assert_eq!(world.pbx().registers.len(), 3);
    world.assert_empty();
}

#[test]
fn a_registrar_that_says_403_gives_201_failing_and_is_asked_again_later() {
    let mut world = World::new(seed(3)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Code(403, None);
    let asked = world.hand_over("alice");
    world.run_until_quiet();

    let registration = world.handed_over(asked).registration.clone();
    assert_eq!(registration.state, RegistrationState::Failing);
    assert_eq!(registration.verdict.as_deref(), Some("403 Forbidden"));
    assert_eq!(registration.expires, None);

    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_for(minutes(1));
    let shown = world.show("alice");
    world.run_until_quiet();
    let Some(Answer::Instance(view)) = world.answer(shown) else { panic!("a view") };
    assert_eq!(view.registration.state, RegistrationState::Registered);
    world.assert_nothing_left();
}

#[test]
fn a_silent_registrar_gives_202_after_register_wait_and_no_sooner() {
    let mut world = World::new(seed(5)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    let asked = world.hand_over("alice");
    world.run_for(millis(2999));
    assert!(world.answer(asked).is_none());
    world.run_for(millis(4));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registering);
}

#[test]
fn a_destination_that_never_answers_gets_three_attempts_of_three_datagrams_and_the_instance_goes() {
    let mut world = World::new(seed(6)).with_phone("alice");
    world.pbx().registrar.verdict = Verdict::Silent;
    let asked = world.hand_over("alice");
    world.run_for(hours(24));

    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registering);
    assert_eq!(world.sent_to(PBX).len(), 9);
    let branches: BTreeSet<_> = world.sent_to(PBX).iter().map(|it| crate::phone::names(it).1).collect();
    assert_eq!(branches.len(), 3);
    assert!(world.notes.iter().any(|note| matches!(note, Note::Erased(_, Cause::Unregistrable))));
    assert_eq!(world.pushed(WakeKind::Reprovision), 1, "the device is told");
    world.assert_empty();
}

#[test]
fn many_hand_overs_to_one_silent_destination_do_not_add_up() {
    let mut world = World::new(seed(6)).with_shards(4);
    for number in 0..20 {
        world.add_phone(&format!("phone{number}"));
    }
    world.pbx().registrar.verdict = Verdict::Silent;
    for number in 0..20 {
        world.hand_over(&format!("phone{number}"));
    }
    world.run_for(minutes(2));
    let sent = world.sent_to(PBX).len();
    assert!(sent <= 18, "{sent} datagrams to somebody who may be a victim");
}

#[test]
fn a_name_without_address_is_unreachable_but_only_at_register_wait() {
    let mut world = World::new(seed(7)).with_phone("alice");
    world.names.insert(DOMAIN.to_owned(), Err(LocateFault::NoSuchName));
    let asked = world.hand_over("alice");
    world.run_for(millis(2999));
    assert!(world.answer(asked).is_none(), "one uniform, delayed error");
    world.run_for(millis(6));
    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
    assert_eq!(world.sent.len(), 0);
    world.assert_empty();
}

#[test]
fn addresses_in_special_purpose_ranges_are_never_sent_to_and_look_like_unreachable_ones() {
    for special in
        ["127.0.0.1:5060", "10.1.2.3:5060", "169.254.169.254:5060", "[::1]:5060", "[::ffff:192.168.0.1]:5060"]
    {
        let mut world = World::new(seed(8)).with_phone("alice");
        let located = vec![Located { transport: Transport::Udp, address: address(special) }];
        world.names.insert(DOMAIN.to_owned(), Ok(located));
        let asked = world.hand_over("alice");
        world.run_for(millis(2999));
        assert!(world.answer(asked).is_none());
        world.run_for(millis(6));
        assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable), "{special}");
        assert!(world.sent.is_empty(), "{special}");
        let shed = world.take_tallies().iter().map(|tally| tally.shed[Shed::Filtered as usize]).sum::<u64>();
        assert_eq!(shed, 1, "the operator can see it: {special}");
        world.assert_empty();
    }
}

#[test]
fn our_own_address_and_ports_that_are_not_allowed_are_never_sent_to() {
    for forbidden in ["192.0.2.5:5060", "198.51.100.10:22"] {
        let mut world = World::new(seed(8))
            .with_policy(|policy| policy.registrars.allow_special_ranges.push("192.0.2.0/24".parse().expect("a range")))
            .with_phone("alice");
        let located = vec![Located { transport: Transport::Udp, address: address(forbidden) }];
        world.names.insert(DOMAIN.to_owned(), Ok(located));
        let asked = world.hand_over("alice");
        world.run_for(secs(4));
        assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable), "{forbidden}");
        assert!(world.sent.is_empty(), "{forbidden}");
    }
}

#[test]
fn a_registrar_outside_the_operators_list_is_refused_at_once() {
    let mut world = World::new(seed(9))
        .with_policy(|policy| policy.registrars.allow = vec!["*.example.org".to_owned()])
        .with_phone("alice");
    let asked = world.hand_over("alice");
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarNotAllowed(_))));
    world.assert_empty();
}

#[test]
fn the_next_address_is_tried_when_the_first_is_silent() {
    let mut world = World::new(seed(10)).with_phone("alice");
    let dead = Located { transport: Transport::Udp, address: address("198.51.100.99:5060") };
    let alive = Located { transport: Transport::Udp, address: address(PBX) };
    world.names.insert(DOMAIN.to_owned(), Ok(vec![dead, alive]));
    world.hand_over("alice");
    world.run_for(minutes(1));

    assert_eq!(world.sent_to("198.51.100.99:5060").len(), 3);
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_refused_connection_is_unreachable_at_register_wait() {
    let mut world = World::new(seed(27)).with_phone("alice");
    world.pbx().registrar.listens = false;
    let tcp = vec![Located { transport: Transport::Tcp, address: address(PBX) }];
    world.names.insert(DOMAIN.to_owned(), Ok(tcp));
    let mut offer = world.offer("alice");
    offer.account.registrar = registrar(&format!("sip:{DOMAIN};transport=tcp"));
    let asked = world.hand_over_this("alice", offer);
    world.run_for(millis(2999));
    assert!(world.answer(asked).is_none());
    world.run_for(millis(4));
    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
    world.assert_empty();
}

pub fn world_over_tcp(number: u64) -> World {
    let mut world = World::new(seed(number)).with_phone("alice");
    let tcp = vec![Located { transport: Transport::Tcp, address: address(PBX) }];
    world.names.insert(DOMAIN.to_owned(), Ok(tcp));
    let mut offer = world.offer("alice");
    offer.account.registrar = registrar(&format!("sip:{DOMAIN};transport=tcp"));
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world
}
