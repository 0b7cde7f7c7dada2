//! Accounts whose Contact bears their own name: how it looks, how a grant is found, and who is meant by a called name.

use reveille::engine::account::{ContactStyle, TrunkUri};
use reveille::engine::input::{Command, HandOver, Located, Rectification};
use reveille::engine::output::{Answer, RegistrationState};
use reveille::sip::Transport;

use crate::pbx::{Dials, Invite, Lists};
use crate::phone::Manner;
use crate::wire::Wire;
use crate::world::build::{PBX, account, address};
use crate::world::{World, hours, millis, minutes, secs, seed};

#[test]
fn the_contact_bears_the_accounts_name_and_the_capability_as_a_parameter() {
    let mut world = named(401, 2);
    let contact = world.pbx().contacts("alice")[0].clone();
    let capability = world.pbx().capability("alice").expect("registered");
    assert_eq!(contact, format!("sip:alice@192.0.2.5:5060;cap={capability};transport=udp"));
    assert_eq!(capability.len(), 29);
    world.run_for(hours(3));
    assert_eq!(world.pbx().contacts("alice"), [contact], "it never changes");
}

#[test]
fn a_call_to_it_reaches_the_phone_with_the_parameter_and_without() {
    for dials in [Dials::Contact, Dials::Bare] {
        for number in 402..410 {
            let mut world = named(number, 4);
            world.pbx().registrar.dials = dials;
            let call = world.call_and_wait("alice");
            assert_eq!(world.pbx().final_response(call), Some(200), "{dials:?}, seed {number}");
            world.pbx().hang_up(call);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn retransmissions_cancel_and_ack_find_the_call_by_name_too() {
    for number in 410..422 {
        let mut world = named(number, 4);
        world.pbx().registrar.dials = Dials::Bare;
        world.wire = Wire { loss: 15, ..Wire::default() };
        let call = world.pbx().invite("alice");
        world.run_for(millis(30 * (number - 409)));
        world.pbx().cancel(call);
        world.run_for(minutes(2));
        world.wire = Wire::default();
        // The two may cross; either way one side hears of the other.
        match world.pbx().final_response(call) {
            Some(487) => {}
            Some(200) => world.pbx().hang_up(call),
            other => panic!("{other:?}, seed {number}"),
        }
        world.assert_nothing_left();
    }
}

#[test]
fn two_accounts_of_one_name_at_one_source_are_refused_and_counted_unless_the_capability_tells() {
    for shards in [1, 4] {
        let mut world = named(423, shards).with_phone("other");
        add_namesake(&mut world);
        world.pbx().registrar.dials = Dials::Bare;
        let call = world.pbx().invite("alice");
        world.run_for(minutes(1));
        assert_eq!(world.pbx().final_response(call), Some(480));
        assert!(world.pushes.is_empty(), "nobody is woken by a guess");

        world.pbx().registrar.dials = Dials::Contact;
        let call = world.call_and_wait("alice");
        assert_eq!(world.pbx().final_response(call), Some(200));
        world.pbx().hang_up(call);
        world.run_until_quiet();

        world.delete("other");
        world.run_for(secs(5));
        world.pbx().registrar.dials = Dials::Bare;
        let call = world.call_and_wait("alice");
        assert_eq!(world.pbx().final_response(call), Some(200), "alone again");
        world.pbx().hang_up(call);
        world.assert_nothing_left();
    }
}

/// What may happen to a call that was placed by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// A second account of that name comes.
    Namesake,
    /// The first one's Contact bears the name no more.
    Renamed,
    Cancel,
}

#[test]
fn a_call_placed_by_name_is_cancelled_whoever_bears_the_name_by_then() {
    use Then::{Cancel, Namesake, Renamed};
    let orders: [&[Then]; 6] = [
        &[Namesake, Cancel],
        &[Renamed, Cancel],
        &[Namesake, Renamed, Cancel],
        &[Renamed, Namesake, Cancel],
        &[Cancel, Namesake],
        &[Cancel, Renamed, Namesake],
    ];
    for (number, order) in (430..442).flat_map(|number| orders.map(|order| (number, order))) {
        let mut world = named(number, 4).with_phone("other");
        world.entitle(&format!("{order:?}, seed {number}"));
        world.phone("alice").attach();
        world.run_until_quiet();
        world.phone("alice").manner = Manner::Ring;
        world.pbx().registrar.dials = Dials::Bare;
        let call = world.pbx().invite("alice");
        world.run_for(secs(1));
        assert!(world.pbx().heard(call).contains(&180), "{order:?}, seed {number}");
        for then in order {
            match then {
                Namesake => add_namesake(&mut world),
                Renamed => rename(&mut world),
                Cancel => world.pbx().cancel(call),
            }
        }
        world.run_for(secs(1));
        assert_eq!(world.pbx().final_response(call), Some(487), "{order:?}, seed {number}");
        assert_eq!(world.phone("alice").calls[0].ended, Some("cancelled"), "{order:?}, seed {number}");
        assert!(world.pbx().call(call).answers.contains(&("CANCEL".to_owned(), 200)), "{order:?}, seed {number}");
        assert_eq!(world.phone("alice").calls.len(), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn from_elsewhere_nobody_is_called_by_name() {
    let mut world = named(424, 4);
    world.pbx().registrar.dials = Dials::Bare;
    let call = world.pbx().invite(Invite::to("alice").calling_from("203.0.113.66:5060"));
    world.run_for(secs(40));
    assert!(world.pbx().heard(call).is_empty(), "a stranger hears nothing");
    assert!(world.pushes.is_empty());
}

#[test]
fn what_else_a_registrars_name_resolves_to_is_no_source_of_called_names() {
    let mut world = World::new(seed(425)).with_shards(4).with_phone("alice").with_phone("mallory");
    let other = world.add_pbx("evil.example.com", "198.51.100.66:5060");
    world.pbx_at(other).set_password("alice", "secret of alice");
    let both = vec![
        Located { transport: Transport::Udp, address: address("198.51.100.66:5060") },
        Located { transport: Transport::Udp, address: address(PBX) },
    ];
    world.names.insert("evil.example.com".to_owned(), Ok(both));
    let mut offer = style(world.offer("mallory"));
    offer.account = named_account("sip:alice@evil.example.com", "sip:evil.example.com");
    offer.material = crate::world::build::password("secret of alice");
    world.hand_over_this("mallory", offer);
    let offer = style(world.offer("alice"));
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    world.pbx().registrar.dials = Dials::Bare;
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    assert!(world.pushes.iter().all(|push| push.token.contains("alice")), "mallory hears nothing of it");
}

#[test]
fn a_grant_is_found_by_name_and_place_or_where_nothing_is_listed_and_never_among_others() {
    for (lists, desk, state) in [
        (Lists::Bare, true, RegistrationState::Registered),
        (Lists::Nothing, true, RegistrationState::Registered),
        (Lists::Others, false, RegistrationState::Registered),
        (Lists::Others, true, RegistrationState::Failing),
    ] {
        let mut world = World::new(seed(426)).with_phone("alice");
        world.pbx().registrar.lists = lists;
        if desk {
            world.pbx().add_desk("alice", "sip:alice@10.0.0.9:5060", hours(100));
        }
        let offer = style(world.offer("alice"));
        let asked = world.hand_over_this("alice", offer);
        world.run_until_quiet();
        assert_eq!(world.handed_over(asked).registration.state, state, "{lists:?}, a desk phone: {desk}");
    }
}

#[test]
fn the_style_can_be_changed_without_the_credentials_and_the_former_contact_goes() {
    let mut world = World::new(seed(427)).with_shards(4).with_sleeping_phone("alice");
    let (id, token) = world.key_of("alice");
    let mut changed = account("alice");
    changed.contact_style = ContactStyle::Username;
    let change = Rectification { account: Some(changed), ..Rectification::default() };
    let asked = world.command(Command::Rectify(id, token, Box::new(change)));
    world.run_until_quiet();
    let Some(Answer::Instance(view)) = world.answer(asked) else { panic!("{:?}", world.refusal(asked)) };
    assert_eq!(view.registration.state, RegistrationState::Registered);
    let contacts = world.pbx().contacts("alice");
    assert!(contacts.len() == 1 && contacts[0].starts_with("sip:alice@"), "{contacts:?}");
    world.pbx().registrar.dials = Dials::Bare;
    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn an_erased_account_bears_no_name() {
    let mut world = named(428, 4);
    assert_eq!((world.table("names"), world.table("names.bearers")), (1, 1));
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!((world.table("names"), world.table("names.bearers")), (0, 0));
    world.assert_empty();
}

/// A world where alice's Contact bears her name.
fn named(number: u64, shards: u16) -> World {
    let mut world = World::new(seed(number)).with_shards(shards).with_phone("alice");
    let offer = style(world.offer("alice"));
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world
}

/// Another account called alice, at another domain of the same PBX.
fn add_namesake(world: &mut World) {
    let located = vec![Located { transport: Transport::Udp, address: address(PBX) }];
    world.names.insert("second.example.com".to_owned(), Ok(located));
    let mut offer = style(world.offer("other"));
    offer.account = named_account("sip:alice@second.example.com", "sip:second.example.com");
    offer.material = crate::world::build::password("secret of alice");
    world.hand_over_this("other", offer);
    world.run_for(millis(200));
}

/// Alice's Contact bears her capability from now on.
fn rename(world: &mut World) {
    let (id, token) = world.key_of("alice");
    let change = Rectification { account: Some(account("alice")), ..Rectification::default() };
    world.command(Command::Rectify(id, token, Box::new(change)));
    world.run_for(millis(200));
}

fn named_account(aor: &str, registrar: &str) -> reveille::engine::account::Account {
    let mut account = account("alice");
    account.aor = aor.to_owned();
    account.registrar = TrunkUri::parse("registrar", registrar).expect("a registrar");
    account.contact_style = ContactStyle::Username;
    account
}

fn style(mut offer: HandOver) -> HandOver {
    offer.account.contact_style = ContactStyle::Username;
    offer
}
