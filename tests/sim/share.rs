//! Several devices, one account: who joins, who leaves, and what is told to whom.

use reveille::engine::audit::{AuditEvent, Cause, Unregister};
use reveille::engine::input::{Command, HandOver, Rectification, Whom};
use reveille::engine::output::{Answer, Refusal, RegistrationState};

use crate::pbx::Verdict;
use crate::world::build::{TENANT, account, password, password_of, registrar, targets};
use crate::world::{World, hours, millis, minutes, secs, seed};

#[test]
fn a_second_device_with_the_credentials_in_use_shares_the_binding_at_once() {
    let mut world = two_devices(201);

    assert_eq!(world.pbx().contacts("alice").len(), 1, "one Contact at the PBX");
    assert_eq!((world.table("leases"), world.table("bindings"), world.table("vault")), (2, 1, 2));
    assert_ne!(world.key_of("alice").0, world.key_of("tablet").0);
    let shown = view(&mut world, "tablet");
    assert_eq!((shown.0, shown.1), (RegistrationState::Registered, Some(secs(600))));
    world.assert_nothing_left();
}

#[test]
fn joining_asks_the_registrar_nothing_and_needs_no_wait() {
    let mut world = World::new(seed(202)).with_sleeping_phone("alice").with_phone("tablet");
    let registers = world.pbx().registers.len();
    let offer = offer_of(&world, "tablet");
    let asked = world.hand_over_this("tablet", offer);
    world.run_for(millis(10));

    assert!(!world.handed_over(asked).replaced);
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    assert_eq!(world.pbx().registers.len(), registers);
}

#[test]
fn a_device_that_comes_while_the_first_one_still_registers_waits_for_the_same_verdict() {
    for right in [true, false] {
        let mut world = World::new(seed(203)).with_phone("alice").with_phone("tablet");
        if !right {
            world.pbx().set_password("alice", "another one");
        }
        let first = world.hand_over("alice");
        let offer = offer_of(&world, "tablet");
        let second = world.hand_over_this("tablet", offer);
        assert!(world.answer(first).is_none() && world.answer(second).is_none());
        world.run_until_quiet();
        if right {
            assert_eq!(world.handed_over(second).registration.state, RegistrationState::Registered);
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            world.assert_nothing_left();
        } else {
            assert_eq!(world.refusal(first), world.refusal(second));
            assert!(matches!(world.refusal(second), Some(Refusal::RegistrarRefused(_))));
            world.assert_empty();
        }
    }
}

#[test]
fn other_credentials_that_register_by_themselves_join_with_the_same_call_id_and_contact() {
    let mut world = World::new(seed(204)).with_sleeping_phone("alice").with_phone("tablet");
    let first = world.pbx().registers[1].clone();
    world.pbx().set_password("alice", "new at the PBX");
    let mut offer = offer_of(&world, "tablet");
    offer.material = password("new at the PBX");
    let asked = world.hand_over_this("tablet", offer);
    world.run_until_quiet();

    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    let last = world.pbx().registers.last().expect("a registration").clone();
    assert_eq!((last.code, &last.call_id, &last.contact), (200, &first.call_id, &first.contact));
    assert_eq!((world.table("leases"), world.table("bindings"), world.table("vault")), (2, 1, 2));
    world.run_for(hours(2));
    assert_eq!(world.pbx().contacts("alice").len(), 1, "refreshed with the credentials that work");
    world.assert_nothing_left();
}

#[test]
fn wrong_credentials_are_told_what_the_registrar_says_and_nothing_else() {
    let told = |held: bool| {
        let mut world = World::new(seed(205)).with_phone("alice").with_phone("tablet");
        if held {
            world.hand_over_now("alice");
        }
        let before = world.now.boot;
        let sent = world.sent.len();
        let mut offer = offer_of(&world, "tablet");
        offer.material = password("a guess");
        let asked = world.command(Command::HandOver(Box::new(offer)));
        world.run_until_quiet();
        let requests = world.sent[sent..].iter().filter(|(_, to, _)| to.contains("198.51.100.10")).count();
        let answer = (world.refusal(asked), world.now.boot.saturating_since(before) < secs(3), requests);
        assert_eq!(world.table("vault"), usize::from(held));
        assert_eq!(world.table("places"), usize::from(held));
        if held {
            world.run_for(hours(2));
            assert_eq!(world.pbx().contacts("alice").len(), 1, "the holder notices nothing");
        }
        world.assert_nothing_left();
        answer
    };
    let answer = told(true);
    assert!(matches!(answer.0, Some(Refusal::RegistrarRefused(_))));
    assert_eq!(answer, told(false), "as for an account that nobody holds");
}

#[test]
fn a_registrar_in_trouble_gives_a_further_device_what_the_first_would_get() {
    for (verdict, state) in
        [(Verdict::Code(403, None), RegistrationState::Failing), (Verdict::Silent, RegistrationState::Registering)]
    {
        let mut answers = Vec::new();
        for held in [true, false] {
            let mut world = World::new(seed(206)).with_phone("alice").with_phone("tablet");
            if held {
                world.hand_over_now("alice");
            }
            world.pbx().registrar.verdict = verdict.clone();
            let mut offer = offer_of(&world, "tablet");
            offer.material = password("a guess");
            let asked = world.hand_over_this("tablet", offer);
            world.run_for(millis(3200));
            let handed = world.handed_over(asked);
            assert_eq!(handed.registration.state, state, "held: {held}");
            answers.push((handed.registration.clone(), handed.replaced));
            if held {
                world.pbx().registrar.verdict = Verdict::Fair;
                world.run_for(hours(3));
                assert_eq!(world.pbx().contacts("alice").len(), 1, "of the holder alone");
                assert_eq!(world.table("vault"), 1, "the guess is refused in the end");
            }
        }
        assert_eq!(answers[0], answers[1]);
    }
}

#[test]
fn who_keeps_guessing_does_not_keep_the_binding_from_its_refresh() {
    let mut world = World::new(seed(207)).with_sleeping_phone("alice");
    world.pbx().registrar.delay = millis(900);
    world.run_for(minutes(6));
    for number in 0..600 {
        let mut offer = offer_of(&world, "alice");
        offer.device = format!("urn:uuid:guesser-{number}");
        offer.material = password("a guess");
        world.command(Command::HandOver(Box::new(offer)));
        world.run_for(secs(1));
    }
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    let shown = view(&mut world, "alice");
    assert_eq!(shown.0, RegistrationState::Registered);
    world.pbx().registrar.delay = millis(0);
    world.assert_nothing_left();
}

#[test]
fn a_device_leaves_alone_and_the_last_one_erases_in_either_order() {
    for (first, last) in [("alice", "tablet"), ("tablet", "alice")] {
        let mut world = two_devices(208);
        let registers = world.pbx().registers.len();
        let asked = world.delete(first);
        world.run_until_quiet();

        assert!(matches!(world.answer(asked), Some(Answer::Erased { .. })));
        assert_eq!(erasures(&world), [(Cause::Deleted, Unregister::Shared)]);
        assert_eq!(world.pbx().registers.len(), registers, "no un-REGISTER while the other stays");
        assert_eq!((world.table("leases"), world.table("vault"), world.table("bindings")), (1, 1, 1));
        world.run_for(hours(3));
        assert_eq!(world.pbx().contacts("alice").len(), 1, "kept by {last}");
        let call = world.call_and_wait("alice");
        let token = world.pushes.last().expect("a wake").token.clone();
        assert_eq!(token, format!("push-token-{last}"));
        assert_eq!(world.pbx().final_response(call), Some(200));
        world.pbx().hang_up(call);
        world.run_until_quiet();

        world.delete(last);
        world.run_until_quiet();
        assert_eq!(erasures(&world)[1], (Cause::Deleted, Unregister::Confirmed));
        assert!(world.pbx().contacts("alice").is_empty());
        world.assert_empty();
    }
}

#[test]
fn the_password_is_gone_from_every_copy_at_the_first_200() {
    let mut world = two_devices(209);
    for name in ["alice", "tablet"] {
        let (id, token) = world.key_of(name);
        let asked = world.command(Command::Data(id, token));
        let Some(Answer::Data(data)) = world.answer(asked) else { panic!("data") };
        assert!(!data.password && data.ha1.len() == 3, "{name}");
    }
}

#[test]
fn a_binding_is_kept_as_long_as_the_longest_lease_and_each_lease_ends_by_itself() {
    let mut world = World::new(seed(210)).with_sleeping_phone("alice").with_phone("tablet");
    let mut offer = offer_of(&world, "tablet");
    offer.lease = hours(100);
    world.hand_over_this("tablet", offer);
    world.run_for(hours(73));
    assert_eq!(erasures(&world), [(Cause::LeaseEnded, Unregister::Shared)]);
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.run_for(hours(26));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.run_for(hours(2));
    assert_eq!(erasures(&world)[1], (Cause::LeaseEnded, Unregister::Confirmed));
    world.assert_empty();
}

#[test]
fn refused_credentials_end_all_devices_of_the_binding() {
    let mut world = two_devices(211);
    world.pbx().set_password("alice", "changed");
    world.run_for(hours(4));
    let causes: Vec<_> = erasures(&world).into_iter().map(|(cause, _)| cause).collect();
    assert_eq!(causes, [Cause::Refused, Cause::Refused]);
    world.assert_empty();
}

#[test]
fn an_account_has_no_more_devices_than_its_limit_and_only_its_owner_learns_so() {
    let mut world = World::new(seed(212)).with_policy(|policy| policy.limits.devices_per_account = 2);
    world = world.with_sleeping_phone("alice").with_phone("tablet");
    let offer = offer_of(&world, "tablet");
    world.hand_over_this("tablet", offer);
    world.run_until_quiet();

    let mut third = offer_of(&world, "tablet");
    (third.device, third.push) = ("urn:uuid:third".to_owned(), targets("third"));
    let asked = world.command(Command::HandOver(Box::new(third)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::TooManyDevices { .. })));

    let mut guess = offer_of(&world, "tablet");
    (guess.device, guess.material) = ("urn:uuid:fourth".to_owned(), password("a guess"));
    let asked = world.command(Command::HandOver(Box::new(guess)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));

    world.run_for(secs(11));
    world.pbx().set_password("alice", "new at the PBX");
    let mut renewed = offer_of(&world, "tablet");
    (renewed.device, renewed.material) = ("urn:uuid:fifth".to_owned(), password("new at the PBX"));
    renewed.push = targets("fifth");
    let asked = world.command(Command::HandOver(Box::new(renewed)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::TooManyDevices { .. })));
    assert_eq!((world.table("vault"), world.table("places")), (2, 2));
    world.assert_nothing_left();
}

#[test]
fn another_way_to_the_account_is_another_binding() {
    let ways: [fn(&mut HandOver); 2] = [
        |offer| offer.account.outbound_proxy = Some(registrar("sip:pbx.example.com;transport=udp")),
        |offer| offer.account.tls_spki_sha256 = Some([7; 32]),
    ];
    for change in ways {
        let mut world = World::new(seed(213)).with_sleeping_phone("alice").with_phone("tablet");
        let mut offer = offer_of(&world, "tablet");
        change(&mut offer);
        world.hand_over_this("tablet", offer);
        world.run_until_quiet();
        assert_eq!(world.pbx().contacts("alice").len(), 2);
        assert_eq!(world.table("bindings"), 2);
        world.assert_nothing_left();
    }
}

#[test]
fn a_device_that_moves_elsewhere_leaves_the_others_where_they_are() {
    for mover in ["alice", "tablet"] {
        let mut world = two_devices(214);
        let other = world.add_pbx("other.example.com", "198.51.100.20:5060");
        world.pbx_at(other).set_password("alice", "secret there");
        let registers = world.pbx().registers.len();
        let (id, token) = world.key_of(mover);
        let mut elsewhere = account("alice");
        elsewhere.registrar = registrar("sip:other.example.com");
        let change = Rectification {
            account: Some(elsewhere),
            material: Some(password("secret there")),
            ..Rectification::default()
        };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_for(millis(10));
        assert_eq!(world.table("vault"), 3, "its former copy is held until the new place grants");
        world.run_until_quiet();
        assert!(matches!(world.answer(asked), Some(Answer::Instance(_))));
        assert_eq!(world.table("vault"), 2, "and is wiped then");
        assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
        assert_eq!(world.pbx().registers.len(), registers, "no un-REGISTER for the one who stays");
        world.run_for(hours(2));
        assert_eq!(world.pbx().contacts("alice").len(), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn a_renewed_hand_over_through_a_proxy_leaves_the_shared_binding_and_a_second_one_follows() {
    let mut world = two_devices(215);
    let (instance, _) = world.key_of("tablet");
    for (name, contacts) in [("tablet", 2), ("alice", 1)] {
        let mut offer = offer_of(&world, name);
        offer.account.outbound_proxy = Some(registrar("sip:pbx.example.com;transport=udp"));
        let asked = world.hand_over_this(name, offer);
        world.run_until_quiet();
        let handed = world.handed_over(asked);
        assert!(handed.replaced);
        assert_eq!(handed.registration.state, RegistrationState::Registered);
        world.run_for(minutes(11));
        if name == "tablet" {
            assert_eq!(world.key_of("tablet").0, instance);
        }
        assert_eq!(world.pbx().contacts("alice").len(), contacts, "after {name}");
    }
    world.assert_nothing_left();
}

#[test]
fn a_move_that_is_refused_leaves_the_member_where_it_is() {
    let mut world = two_devices(216);
    let (id, token) = world.key_of("tablet");
    let other = world.add_pbx("other.example.com", "198.51.100.20:5060");
    world.pbx_at(other).set_password("alice", "secret there");
    let mut elsewhere = account("alice");
    elsewhere.registrar = registrar("sip:other.example.com");
    let change =
        Rectification { account: Some(elsewhere), material: Some(password("wrong")), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(change)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{:?}", world.refusal(asked));
    let shown = world.command(Command::Show(id, token));
    assert!(matches!(world.answer(shown), Some(Answer::Instance(_))));
    assert_eq!((world.table("bindings"), world.table("vault")), (1, 2));
    assert_eq!(world.pbx().contacts("alice").len(), 1, "of both");
    world.assert_nothing_left();
}

#[test]
fn off_boarding_one_device_and_a_shutdown_go_for_members_alike() {
    let mut world = two_devices(217);
    let (id, _) = world.key_of("tablet");
    let whom = Whom::Device("urn:uuid:device-of-tablet".to_owned());
    let asked = world.command_at(id.shard(), Command::EraseAll { tenant: TENANT.into(), whom });
    world.run_until_quiet();
    assert!(matches!(world.answer(asked), Some(Answer::Ordered(view)) if view.erased() == 1));
    assert_eq!(erasures(&world), [(Cause::Administrator, Unregister::Shared)]);

    let mut world = two_devices(218);
    world.drain();
    world.run_until_quiet();
    assert_eq!(world.drained, 2);
    let ends: Vec<_> = erasures(&world).into_iter().map(|(_, unregister)| unregister).collect();
    assert_eq!(ends, [Unregister::Shared, Unregister::Confirmed]);
    world.assert_empty();
}

/// Two devices of alice's account, both handed over.
pub fn two_devices(number: u64) -> World {
    let mut world = World::new(seed(number)).with_sleeping_phone("alice").with_phone("tablet");
    let offer = offer_of(&world, "tablet");
    let asked = world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    assert!(!world.handed_over(asked).replaced);
    world
}

/// What a device of alice's would hand over.
pub fn offer_of(world: &World, device: &str) -> HandOver {
    let mut offer = world.offer(device);
    offer.account = account("alice");
    offer.material = password(&password_of("alice"));
    offer
}

fn view(world: &mut World, name: &str) -> (RegistrationState, Option<std::time::Duration>) {
    let asked = world.show(name);
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("a view") };
    (view.registration.state, view.registration.expires)
}

/// Causes and ends of all erasures so far, in order.
pub fn erasures(world: &World) -> Vec<(Cause, Unregister)> {
    let of = |event: &AuditEvent| match event {
        AuditEvent::Erased { cause, unregister, .. } => Some((*cause, *unregister)),
        _ => None,
    };
    world.records.iter().filter_map(|record| of(&record.event)).collect()
}
