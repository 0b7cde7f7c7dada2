//! One registrar for many: what an account, or a tenant, must not do to the others that are registered there.

use reveille::engine::input::Located;
use reveille::engine::output::{Answer, Note, Refusal, RegistrationReason, RegistrationState};
use reveille::engine::policy::TenantPolicy;
use reveille::sip::Transport;

use crate::pbx::{NonceLife, Verdict};
use crate::world::build::{DOMAIN, EDGE, PBX, TENANT, address, registrar};
use crate::world::{World, millis, minutes, secs, seed};

#[test]
fn a_name_that_is_not_in_the_registrars_certificate_holds_up_no_refresh() {
    let mut world = World::new(seed(911)).with_pbx(|pbx| {
        (pbx.registrar.max_expires, pbx.registrar.certified) = (60, Some(DOMAIN));
    });
    let there = Located { transport: Transport::Tls, address: address("198.51.100.10:5061") };
    for host in [DOMAIN, "mallory.example.com"] {
        world.names.insert(host.to_owned(), Ok(vec![there]));
    }
    let secure = |world: &mut World, name: &str, host: &str| {
        world.add_phone(name);
        let mut offer = world.offer(name);
        offer.account.registrar = registrar(&format!("sip:{host};transport=tls"));
        world.hand_over_this(name, offer);
    };
    names(10).for_each(|name| secure(&mut world, &name, DOMAIN));
    world.run_for(minutes(1));
    let before = world.notes.len();
    for number in 0..20 {
        secure(&mut world, &format!("mallory{number}"), "mallory.example.com");
        world.run_for(secs(15));
    }
    assert_eq!(lapsed(&world, before), 0, "of registrations that the registrar would have renewed");
}

#[test]
fn an_account_that_its_registrar_does_not_answer_holds_up_no_refresh() {
    let mut world = World::new(seed(912)).with_pbx(|pbx| {
        (pbx.registrar.max_expires, pbx.registrar.apart) = (60, Some(("mallory", Verdict::Silent)));
    });
    for name in names(10) {
        world.add_phone(&name);
        world.hand_over(&name);
    }
    world.run_for(minutes(1));
    let before = world.notes.len();
    world.add_phone("mallory");
    for _ in 0..5 {
        world.hand_over("mallory");
        world.run_for(minutes(1));
    }
    assert_eq!(lapsed(&world, before), 0, "of registrations that the registrar would have renewed");
}

#[test]
fn an_account_that_its_registrar_does_not_answer_any_more_holds_up_no_refresh() {
    let mut world = World::new(seed(918)).with_pbx(|pbx| pbx.registrar.max_expires = 60).with_sleeping_phone("mallory");
    for name in names(10) {
        world.add_phone(&name);
        world.hand_over(&name);
    }
    world.run_for(minutes(1));
    world.pbx().registrar.apart = Some(("mallory", Verdict::Silent));
    let before = world.notes.len();
    world.run_for(minutes(5));
    assert_eq!(lapsed(&world, before), 0, "it answers the others meanwhile");
}

#[test]
fn an_error_in_serving_one_account_holds_up_no_refresh() {
    let error = Verdict::Code(500, Some(300));
    let mut world = World::new(seed(917))
        .with_pbx(|pbx| (pbx.registrar.max_expires, pbx.registrar.apart) = (60, Some(("mallory", error))));
    for name in names(10) {
        world.add_phone(&name);
        world.hand_over(&name);
    }
    world.run_for(minutes(1));
    let (before, asked) = (world.notes.len(), world.pbx().registers.len());
    world.add_phone("mallory");
    world.hand_over("mallory");
    world.run_for(secs(290));
    assert_eq!(lapsed(&world, before), 0, "a 500 speaks of its request");
    let errors = world.pbx().registers[asked..].iter().filter(|seen| seen.code == 500).count();
    assert_eq!(errors, 1, "the account itself keeps to the Retry-After");
}

#[test]
fn accounts_find_their_registrar_again_when_its_name_leads_elsewhere() {
    let mut world = World::new(seed(914));
    for name in names(60) {
        world.add_phone(&name);
        world.hand_over(&name);
    }
    world.run_for(minutes(1));
    world.pbx().move_to(address("198.51.100.11:5060"), address(EDGE));
    let there = Located { transport: Transport::Udp, address: address("198.51.100.11:5060") };
    world.names.insert(DOMAIN.to_owned(), Ok(vec![there]));
    world.run_for(minutes(30));
    let found = names(60).filter(|name| world.pbx().contacts(name).len() == 1).count();
    assert_eq!(found, 60, "the former address is dead");
}

#[test]
fn accounts_go_on_to_the_next_address_while_the_first_is_silent() {
    let mut world = World::new(seed(915));
    let at = |address_: &str| Located { transport: Transport::Udp, address: address(address_) };
    world.names.insert(DOMAIN.to_owned(), Ok(vec![at("198.51.100.9:5060"), at(PBX)]));
    for name in names(60) {
        world.add_phone(&name);
        world.hand_over(&name);
    }
    world.run_for(minutes(2));
    let found = names(60).filter(|name| world.pbx().contacts(name).len() == 1).count();
    assert_eq!(found, 60, "the first address is dead");
}

#[test]
fn accounts_that_wait_for_a_registrar_that_fell_silent_do_not_say_that_they_wait_for_others() {
    let mut world = World::new(seed(916)).with_policy(|policy| policy.registrars.rate = 5);
    let paced = |world: &mut World| {
        names(250).filter(|name| registration(world, name).1 == Some(RegistrationReason::Pacing)).count()
    };
    for name in names(250) {
        world.add_phone(&name);
        world.hand_over(&name);
    }
    world.run_for(minutes(3));
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(minutes(12));
    world.pbx().registrar.verdict = Verdict::Fair;
    world.run_until(minutes(30), |world| names(250).any(|name| world.pbx().contacts(&name).len() == 1));
    world.run_for(secs(7));
    assert!(paced(&mut world) > 0, "many have waited, and others go first");
    world.pbx().registrar.verdict = Verdict::Silent;
    world.run_for(minutes(2));
    assert_eq!(paced(&mut world), 0, "none goes first");
}

#[test]
fn two_tenants_share_a_registrar_that_is_full_and_each_is_let_in_when_there_is_room() {
    let mut world = World::new(seed(913))
        .with_policy(|policy| {
            (policy.registrars.rate, policy.registrars.rate_max) = (5, 10);
            policy.tenants.push(TenantPolicy { id: "other".into(), ..policy.tenants[0].clone() });
        })
        .with_pbx(|pbx| (pbx.registrar.max_expires, pbx.registrar.nonces) = (16, NonceLife::OneRequest));
    let hand_over = |world: &mut World, name: &str, tenant: &str| {
        world.add_phone(name);
        let mut offer = world.offer(name);
        offer.tenant = tenant.into();
        world.hand_over_this(name, offer)
    };
    (0..70).for_each(|number| _ = hand_over(&mut world, &format!("large{number}"), TENANT));
    world.run_for(minutes(3));
    let large = held(&mut world, "large", 70);
    assert!((40..=50).contains(&large.len()), "three quarters of the room: {}", large.len());
    (0..30).for_each(|number| _ = hand_over(&mut world, &format!("small{number}"), "other"));
    world.run_for(minutes(3));
    let small = held(&mut world, "small", 30).len();
    assert!((10..=20).contains(&small), "the last quarter: {small}");
    assert_eq!(held(&mut world, "large", 70), large, "what is held stays");

    for tenant in [TENANT, "other"] {
        let asked = hand_over(&mut world, &format!("late at {tenant}"), tenant);
        world.run_for(secs(1));
        assert!(matches!(world.refusal(asked), Some(Refusal::Busy { after }) if after == secs(60)), "{tenant}");
    }

    large[..25].iter().for_each(|name| _ = world.delete(name));
    world.run_for(minutes(4));
    let left = held(&mut world, "large", 70).len();
    assert_eq!(held(&mut world, "small", 30).len(), 30);
    let reasons = (0..30).filter_map(|number| registration(&mut world, &format!("small{number}")).1);
    assert_eq!(reasons.filter(|reason| *reason == RegistrationReason::Pacing).count(), 0);
    assert!(left > large.len() - 25, "the larger one gets what is left over: {left}");

    held(&mut world, "large", 70)[..20].iter().for_each(|name| _ = world.delete(name));
    world.run_for(secs(5));
    let asked = hand_over(&mut world, "last", "other");
    world.run_for(secs(2));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("phone{number}"))
}

fn registration(world: &mut World, name: &str) -> (RegistrationState, Option<RegistrationReason>) {
    let asked = world.show(name);
    world.run_for(millis(5));
    match world.answer(asked) {
        Some(Answer::Instance(view)) => (view.registration.state, view.registration.reason),
        _ => panic!("no view"),
    }
}

/// Those of the accounts that are registered.
fn held(world: &mut World, kind: &str, count: usize) -> Vec<String> {
    let names = (0..count).map(|number| format!("{kind}{number}"));
    names.filter(|name| world.pbx().contacts(name).len() == 1).collect()
}

/// How often a registration of the phones was told to be over since.
fn lapsed(world: &World, since: usize) -> usize {
    let members: Vec<_> = names(10).map(|name| world.key_of(&name).0).collect();
    let is_over = |note: &&Note| match note {
        Note::Registration(id, state, ..) => members.contains(id) && *state != RegistrationState::Registered,
        _ => false,
    };
    world.notes[since..].iter().filter(is_over).count()
}
