//! One registrar for many: what an account, or a tenant, must not do to the others that are registered there.

use reveille::engine::input::Located;
use reveille::engine::output::{Note, RegistrationState};
use reveille::sip::Transport;

use crate::world::build::{DOMAIN, address, registrar};
use crate::world::{World, minutes, secs, seed};

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
        (pbx.registrar.max_expires, pbx.registrar.ignores) = (60, Some("mallory"));
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

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("phone{number}"))
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
