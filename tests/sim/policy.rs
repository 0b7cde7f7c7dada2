//! What tenants, devices and accounts may do: registrars, TLS, and how many of everything.

use reveille::engine::input::{Command, Located, Rectification};
use reveille::engine::output::{Answer, Refusal, RegistrationState};
use reveille::sip::Transport;

use crate::world::build::{DOMAIN, PBX, account, address, password, registrar};
use crate::world::{World, hours, millis, minutes, seed};

#[test]
fn a_tenant_is_kept_to_its_own_registrars_at_hand_over_and_afterwards() {
    let mut world = World::new(seed(601))
        .with_policy(|policy| policy.tenants[0].registrars_allow = vec![DOMAIN.to_owned()])
        .with_sleeping_phone("alice")
        .with_phone("bob");
    let sent = world.sent.len();
    let mut offer = world.offer("bob");
    offer.account.registrar = registrar("sip:other.example.com");
    let asked = world.hand_over_this("bob", offer);
    world.run_until_quiet();
    let Some(Refusal::RegistrarNotAllowed(why)) = world.refusal(asked) else { panic!("{:?}", world.refusal(asked)) };
    assert!(why.contains("this tenant may use"), "{why}");

    for member in ["registrar", "outbound_proxy"] {
        let mut elsewhere = account("alice");
        match member {
            "registrar" => elsewhere.registrar = registrar("sip:other.example.com"),
            _ => elsewhere.outbound_proxy = Some(registrar("sip:other.example.com")),
        }
        let (id, token) = world.key_of("alice");
        let change =
            Rectification { account: Some(elsewhere), material: Some(password("secret")), ..Rectification::default() };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_until_quiet();
        assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarNotAllowed(_))), "{member}");
    }
    assert_eq!(world.sent.len(), sent, "nobody was asked");
    assert_eq!(world.pbx().contacts("alice").len(), 1, "and nothing has changed");
    world.assert_nothing_left();
}

fn over_tls_alone(number: u64) -> World {
    World::new(seed(number)).with_policy(|policy| policy.tenants[0].tls_trunks_only = true).with_phone("alice")
}

#[test]
fn where_trunks_are_tls_only_every_next_hop_has_to_say_so() {
    let mut world = over_tls_alone(602);
    let tls = registrar(&format!("sip:{DOMAIN};transport=tls"));
    for (to, proxy) in [
        (registrar(&format!("sip:{DOMAIN}")), None),
        (registrar(&format!("sip:{DOMAIN};transport=tcp")), None),
        (tls.clone(), Some(registrar("sip:proxy.example.com"))),
    ] {
        let mut offer = world.offer("alice");
        (offer.account.registrar, offer.account.outbound_proxy) = (to, proxy);
        let asked = world.hand_over_this("alice", offer);
        world.run_until_quiet();
        let Some(Refusal::RegistrarNotAllowed(why)) = world.refusal(asked) else {
            panic!("{:?}", world.refusal(asked))
        };
        assert!(why.contains(";transport=tls"), "{why}");
    }
    assert!(world.sent.is_empty());

    let located = Located { transport: Transport::Tls, address: address("198.51.100.10:5061") };
    world.names.insert(DOMAIN.to_owned(), Ok(vec![located]));
    let mut offer = world.offer("alice");
    offer.account.registrar = tls;
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);

    let (id, token) = world.key_of("alice");
    let change = Rectification {
        account: Some(account("alice")),
        material: Some(password("secret of alice")),
        ..Rectification::default()
    };
    let asked = world.command(Command::Rectify(id, token, Box::new(change)));
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarNotAllowed(_))));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_registrar_that_says_tls_and_resolves_to_something_else_is_not_asked() {
    let mut world = over_tls_alone(603);
    // The world's resolver knows the PBX over UDP alone.
    assert!(matches!(&world.names[DOMAIN], Ok(found) if found[0].transport == Transport::Udp));
    let mut offer = world.offer("alice");
    offer.account.registrar = registrar(&format!("sip:{DOMAIN};transport=tls"));
    let asked = world.hand_over_this("alice", offer);
    world.run_for(minutes(1));
    assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
    assert!(world.sent.is_empty(), "not one byte to {PBX}");
    world.assert_empty();
}

#[test]
fn a_tenant_holds_so_many_instances_over_all_shards_and_one_that_ends_makes_room() {
    let mut world =
        World::new(seed(604)).with_policy(|policy| policy.tenants[0].instances_max = Some(3)).with_shards(3);
    for name in ["a", "b", "c"] {
        world = world.with_sleeping_phone(name);
    }
    world.add_phone("d");
    let asked = world.hand_over("d");
    world.run_until_quiet();
    assert!(matches!(world.refusal(asked), Some(Refusal::RateLimited { .. })));
    // Who is in may hand over again.
    world.hand_over_now("b");

    world.delete("a");
    world.run_until_quiet();
    world.hand_over_now("d");
    for name in ["b", "c", "d"] {
        world.delete(name);
    }
    world.assert_empty();
}

#[test]
fn a_device_tries_so_many_accounts_a_day() {
    let mut world = World::new(seed(605)).with_policy(|policy| policy.limits.accounts_per_device = 2);
    for name in ["a", "b", "c"] {
        world.add_phone(name);
    }
    let from_one_device = |world: &mut World, name: &str| {
        let mut offer = world.offer(name);
        offer.device = "urn:uuid:one".to_owned();
        let asked = world.hand_over_this(name, offer);
        world.run_until_quiet();
        asked
    };
    for name in ["a", "b", "a"] {
        let asked = from_one_device(&mut world, name);
        assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
        world.delete(name);
        world.run_until_quiet();
    }
    let registers = world.pbx().registers.len();
    let asked = from_one_device(&mut world, "c");
    let Some(Refusal::RateLimited { after }) = world.refusal(asked) else { panic!("{:?}", world.refusal(asked)) };
    assert!(after > hours(23) && after <= hours(24), "{after:?}");
    assert_eq!(world.pbx().registers.len(), registers, "the registrar was not asked");
    world.hand_over_now("c");
    world.delete("c");
    world.run_for(hours(24));
    let asked = from_one_device(&mut world, "c");
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered, "a day later");
    world.assert_nothing_left();
}

#[test]
fn a_device_that_puts_one_account_after_another_into_its_instance_tries_them_all_the_same() {
    let mut world = World::new(seed(611))
        .with_policy(|policy| policy.limits.accounts_per_device = 2)
        .with_shards(3)
        .with_sleeping_phone("alice");
    for name in ["bob", "carol"] {
        world.add_phone(name);
    }
    let move_to = |world: &mut World, name: &str| {
        let (id, token) = world.key_of("alice");
        let material = Some(password(&format!("secret of {name}")));
        let change = Rectification { account: Some(account(name)), material, ..Rectification::default() };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_until_quiet();
        asked
    };
    // Its own password once more is no further account, and neither is one that it has had.
    for name in ["alice", "bob", "alice"] {
        let asked = move_to(&mut world, name);
        assert!(matches!(world.answer(asked), Some(Answer::Instance(_))), "{name}: {:?}", world.refusal(asked));
    }
    let registers = world.pbx().registers.len();
    let asked = move_to(&mut world, "carol");
    let Some(Refusal::RateLimited { after }) = world.refusal(asked) else { panic!("{:?}", world.refusal(asked)) };
    assert!(after > hours(23) && after <= hours(24), "{after:?}");
    assert_eq!(world.pbx().registers.len(), registers, "the registrar was not asked");
    assert_eq!(world.pbx().contacts("alice").len(), 1, "the instance goes on as it was");
    world.delete("alice");
    world.run_until_quiet();
    world.hand_over_now("alice");
    world.assert_nothing_left();
}

/// Tries a password for alice's account from a device of its own, in one of the ways in which the account can be written.
fn guess(world: &mut World, number: usize, text: &str) -> u64 {
    let mut offer = world.offer("alice");
    offer.device = format!("urn:uuid:{number}");
    offer.material = password(text);
    match number % 3 {
        0 => {}
        1 => offer.account.registrar = registrar(&format!("sip:{DOMAIN}:5060")),
        _ => offer.account.registrar = registrar("sip:PBX.example.com;transport=udp"),
    }
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    asked
}

#[test]
fn after_so_many_wrong_passwords_the_registrar_is_asked_no_more_for_a_while() {
    let mut world = World::new(seed(606))
        .with_policy(|policy| policy.limits.refusals_per_account = 3)
        .with_phone("alice")
        .with_phone("bob");
    for number in 0..3 {
        let asked = guess(&mut world, number, &format!("wrong {number}"));
        assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{number}");
    }
    let registers = world.pbx().registers.len();
    // The right one is refused in the same words: nobody learns that it is.
    for (number, text) in [(3, "wrong 3"), (4, "secret of alice"), (5, "secret of alice")] {
        let asked = guess(&mut world, number, text);
        assert!(matches!(world.refusal(asked), Some(Refusal::RateLimited { .. })), "{text}");
    }
    assert_eq!(world.pbx().registers.len(), registers);
    world.hand_over_now("bob");

    world.run_for(minutes(21));
    let asked = guess(&mut world, 6, "secret of alice");
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world.assert_nothing_left();
}

#[test]
fn right_passwords_are_not_counted_however_often_they_come() {
    let mut world =
        World::new(seed(607)).with_policy(|policy| policy.limits.refusals_per_account = 2).with_phone("alice");
    for _ in 0..10 {
        world.hand_over_now("alice");
    }
    world.delete("alice");
    world.run_until_quiet();
    for _ in 0..10 {
        world.hand_over_now("alice");
        world.delete("alice");
        world.run_until_quiet();
    }
    assert_eq!(world.table("guesses"), 0);
    world.assert_empty();
}

#[test]
fn a_registrar_that_answers_late_counts_when_it_does() {
    let mut world = World::new(seed(608))
        .with_policy(|policy| {
            policy.limits.refusals_per_account = 2;
            policy.register_wait = millis(1);
        })
        .with_phone("alice");
    for number in 0..2 {
        let asked = guess(&mut world, number * 3, "wrong");
        assert!(matches!(world.answer(asked), Some(Answer::HandedOver(_))), "answered before the registrar spoke");
    }
    let asked = guess(&mut world, 6, "wrong");
    assert!(matches!(world.refusal(asked), Some(Refusal::RateLimited { .. })));
    assert_eq!(world.table("hand_overs.unjudged"), 0);

    world.run_for(hours(1));
    let asked = guess(&mut world, 9, "secret of alice");
    assert!(matches!(world.answer(asked), Some(Answer::HandedOver(_))));
    assert_eq!(
        (world.table("guesses"), world.table("guesses.paid")),
        (0, 0),
        "a right one is given back when it is known"
    );
    world.assert_nothing_left();
}

#[test]
fn guessing_through_an_instance_one_holds_is_counted_as_well() {
    let mut world =
        World::new(seed(609)).with_policy(|policy| policy.limits.refusals_per_account = 2).with_sleeping_phone("alice");
    let try_password = |world: &mut World, text: &str| {
        let (id, token) = world.key_of("alice");
        let change = Rectification { material: Some(password(text)), ..Rectification::default() };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_for(minutes(1));
        asked
    };
    for text in ["wrong 1", "wrong 2"] {
        let asked = try_password(&mut world, text);
        assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{:?}", world.refusal(asked));
    }
    let registers = world.pbx().registers.len();
    let asked = try_password(&mut world, "secret of alice");
    assert!(matches!(world.refusal(asked), Some(Refusal::RateLimited { .. })));
    assert_eq!(world.pbx().registers.len(), registers);
    // Whoever has no right to the instance spends nothing of it.
    let (id, _) = world.key_of("alice");
    let change = Rectification { material: Some(password("x")), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, World::token_hash("guess"), Box::new(change)));
    assert_eq!(world.refusal(asked), Some(Refusal::NotFound));
    assert_eq!(world.pbx().contacts("alice").len(), 1, "the instance goes on");
    world.assert_nothing_left();
}
