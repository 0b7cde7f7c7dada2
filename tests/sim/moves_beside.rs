//! Changes of place beside everything else: other devices, the foreground, restriction, calls, voicemail, bounds, and hand-overs
//! that bring a place of their own.

use reveille::engine::account::ContactStyle;
use reveille::engine::audit::{AuditEvent, Cause};
use reveille::engine::input::{Command, HandOver, Mode, Parting, Preferences, Rectification};
use reveille::engine::output::{Answer, Refusal, RegistrationState};

use crate::moves::{DEAD, OTHER, calls_come, patch_via, post_via, state, via};
use crate::pbx::Verdict;
use crate::share::{erasures, offer_of, two_devices};
use crate::world::build::{account, password, password_of, registrar};
use crate::world::{World, hours, minutes, secs, seed};

#[test]
fn another_style_or_user_is_another_registration_beside_the_former() {
    let changes: [fn(&mut HandOver); 2] = [
        |offer| offer.account.contact_style = ContactStyle::Username,
        |offer| offer.account.auth_username = "alice-by-another-name".to_owned(),
    ];
    for change in changes {
        for refused in [true, false] {
            let mut world = World::new(seed(813)).with_sleeping_phone("alice");
            world.pbx().set_password("alice-by-another-name", &password_of("alice"));
            let mut offer = world.offer("alice");
            change(&mut offer);
            if refused {
                offer.material = password("a guess");
            }
            let asked = world.hand_over_this("alice", offer);
            world.run_until_quiet();
            if refused {
                assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))));
            } else {
                assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
            }
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
            calls_come(&mut world);
            world.run_for(hours(2));
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn another_style_alone_needs_no_credentials_again_and_its_refusal_changes_nothing() {
    for refused in [true, false] {
        let mut world = World::new(seed(814)).with_sleeping_phone("alice");
        if refused {
            world.pbx().registrar.verdict = Verdict::Code(403, None);
        }
        let (id, token) = world.key_of("alice");
        let mut changed = account("alice");
        changed.contact_style = ContactStyle::Username;
        let change = Rectification { account: Some(changed), ..Rectification::default() };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_until_quiet();
        assert_eq!(world.refusal(asked).is_some(), refused);
        world.pbx().registrar.verdict = Verdict::Fair;
        assert_eq!(state(&mut world), RegistrationState::Registered);
        assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
        world.run_for(hours(2));
        assert_eq!(world.pbx().contacts("alice").len(), 1);
        world.assert_nothing_left();
    }
}

#[test]
fn a_member_that_moves_leaves_the_others_and_one_that_fails_to_move_stays_with_them() {
    for mover in ["alice", "tablet"] {
        for dead in [true, false] {
            let mut world = two_devices(815);
            let other = world.add_pbx("proxy.example.com", OTHER);
            let registers = world.pbx().registers.len();
            let mut offer = offer_of(&world, mover);
            let place = if dead { DEAD } else { "sip:proxy.example.com" };
            offer.account.outbound_proxy = Some(registrar(place));
            let asked = world.hand_over_this(mover, offer);
            world.run_for(secs(4));
            assert_eq!(world.refusal(asked).is_some(), dead);
            assert_eq!(world.pbx().registers.len(), registers, "no un-REGISTER for the one that stays");
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            assert_eq!(world.pbx_at(other).contacts("alice").len(), usize::from(!dead));
            assert_eq!((world.table("vault"), world.table("bindings")), (2, 2 - usize::from(dead)));
            world.run_for(hours(2));
            assert_eq!(world.pbx().contacts("alice").len(), 1);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn an_app_in_the_foreground_comes_back_at_another_place_or_not_at_all() {
    for dead in [true, false] {
        for parting in [Parting::Release, Parting::Keep] {
            let mut world = World::new(seed(816)).with_phone("alice");
            let mut offer = world.offer("alice");
            offer.preferences.mode = Mode::Background;
            world.hand_over_this("alice", offer);
            world.run_until_quiet();
            let other = world.add_pbx("proxy.example.com", OTHER);
            let (id, token) = world.key_of("alice");
            world.command(Command::Foreground(id, token, parting));
            world.run_until_quiet();
            let mut offer = world.offer("alice");
            offer.preferences.mode = Mode::Background;
            offer.account.outbound_proxy = Some(registrar(if dead { DEAD } else { "sip:proxy.example.com" }));
            let change = Rectification {
                account: Some(offer.account),
                material: Some(offer.material),
                ..Rectification::default()
            };
            let asked = world.command(Command::Rectify(id, token, Box::new(change)));
            world.run_for(secs(4));
            let wanted = if dead {
                assert_eq!(world.refusal(asked), Some(Refusal::RegistrarUnreachable));
                RegistrationState::Foreground
            } else {
                assert!(matches!(world.answer(asked), Some(Answer::Instance(_))));
                RegistrationState::Registered
            };
            assert_eq!(state(&mut world), wanted);
            assert_eq!(world.pbx_at(other).contacts("alice").len(), usize::from(!dead));
            world.run_for(hours(1));
            assert_eq!(state(&mut world), wanted);
            world.assert_nothing_left();
        }
    }
}

#[test]
fn an_app_key_cannot_move_an_instance_to_a_place_of_its_own() {
    for foreground in [true, false] {
        for verdict in [Verdict::Fair, Verdict::Code(503, None)] {
            let mut world = World::new(seed(826)).with_phone("alice");
            let mut offer = world.offer("alice");
            offer.preferences.mode = Mode::Background;
            world.hand_over_this("alice", offer);
            world.run_until_quiet();
            let evil = world.add_pbx("proxy.example.com", OTHER);
            world.pbx_at(evil).set_password("alice", "a guess");
            world.pbx_at(evil).registrar.verdict = verdict;
            let (id, token) = world.key_of("alice");
            if foreground {
                world.command(Command::Foreground(id, token, Parting::Release));
                world.run_until_quiet();
            }
            let before = state(&mut world);
            let mut offer = world.offer("alice");
            offer.account = via("sip:proxy.example.com");
            offer.material = password("a guess");
            let asked = world.command(Command::HandOver(Box::new(offer)));
            world.run_for(secs(5));
            assert!(matches!(world.refusal(asked), Some(Refusal::RegistrarRefused(_))), "{:?}", world.refusal(asked));
            assert_eq!(world.pbx_at(evil).registers.len(), 0);
            assert_eq!(state(&mut world), before, "and the token is good");
            world.assert_nothing_left();
        }
    }
}

#[test]
fn another_password_and_another_place_at_once_are_proven_at_the_former_place_first() {
    for foreground in [true, false] {
        let mut world = World::new(seed(827)).with_phone("alice");
        let mut offer = world.offer("alice");
        offer.preferences.mode = Mode::Background;
        world.hand_over_this("alice", offer);
        world.run_until_quiet();
        let other = world.add_pbx("proxy.example.com", OTHER);
        let (id, token) = world.key_of("alice");
        if foreground {
            world.command(Command::Foreground(id, token, Parting::Release));
            world.run_until_quiet();
        }
        world.pbx().set_password("alice", "new at the PBX");
        world.pbx_at(other).set_password("alice", "new at the PBX");
        let mut offer = world.offer("alice");
        offer.account = via("sip:proxy.example.com");
        offer.material = password("new at the PBX");
        let asked = world.hand_over_this("alice", offer);
        world.run_for(secs(5));
        assert!(world.handed_over(asked).replaced);
        world.run_until_quiet();
        assert_eq!(state(&mut world), RegistrationState::Registered);
        assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
        assert!(world.pbx().contacts("alice").is_empty());
        assert_eq!((world.table("vault"), world.table("bindings")), (1, 1));
        world.assert_nothing_left();
    }
}

#[test]
fn a_restricted_account_goes_on_at_another_place_when_it_is_handed_over_again() {
    let mut world = World::new(seed(817)).with_sleeping_phone("alice");
    let other = world.add_pbx("proxy.example.com", OTHER);
    let (id, token) = world.key_of("alice");
    world.command(Command::Restrict(id, token));
    world.run_until_quiet();
    let refused = post_via(&mut world, DEAD);
    world.run_for(secs(4));
    assert_eq!(world.refusal(refused), Some(Refusal::RegistrarUnreachable));
    assert_eq!(state(&mut world), RegistrationState::Restricted);
    let asked = post_via(&mut world, "sip:proxy.example.com");
    world.run_until_quiet();
    assert!(world.handed_over(asked).replaced);
    assert_eq!(state(&mut world), RegistrationState::Registered);
    assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_call_that_is_up_goes_on_while_the_account_moves() {
    let mut world = World::new(seed(818)).with_attached_phone("alice");
    let other = world.add_pbx("proxy.example.com", OTHER);
    let call = world.pbx().invite("alice");
    world.run_for(secs(10));
    assert!(world.pbx().call(call).is_up());
    patch_via(&mut world, "sip:proxy.example.com");
    world.run_for(secs(5));
    assert_eq!(world.pbx_at(other).contacts("alice").len(), 1);
    assert!(world.pbx().call(call).is_up());
    world.pbx().hang_up(call);
    world.run_until_quiet();
    let ended = world.pbx().call(call).answers.iter().any(|answer| *answer == ("BYE".to_owned(), 200));
    assert!(ended, "{:?}", world.pbx().call(call).answers);
    world.assert_nothing_left();
}

#[test]
fn a_call_that_is_held_goes_on_while_the_account_moves() {
    let mut world = World::new(seed(819)).with_sleeping_phone("alice");
    world.add_pbx("proxy.example.com", OTHER);
    world.phone("alice").wakes = false;
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    patch_via(&mut world, "sip:proxy.example.com");
    world.run_for(secs(2));
    world.phone("alice").attach();
    world.run_for(secs(10));
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_takeover_does_not_take_its_own_former_contact_for_another() {
    let mut world = World::new(seed(820)).with_phone("alice");
    let mut offer = world.offer("alice");
    offer.preferences.mode = Mode::Takeover;
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    let mut offer = world.offer("alice");
    offer.preferences.mode = Mode::Takeover;
    offer.account.outbound_proxy = Some(registrar("sip:pbx.example.com;transport=udp"));
    let asked = world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world.run_for(hours(1));
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    world.delete("alice");
    world.run_until_quiet();
    assert!(world.pbx().contacts("alice").is_empty() && world.pbx().desks("alice").is_empty(), "nothing is given back");
    world.assert_empty();
}

#[test]
fn moves_are_bounded_by_the_bindings_an_account_may_have() {
    let mut world = World::new(seed(821)).with_policy(|policy| policy.limits.devices_per_account = 2);
    for name in ["alice", "tablet", "watch"] {
        world.add_phone(name);
    }
    let other = world.add_pbx("proxy.example.com", OTHER);
    world.pbx_at(other).registrar.verdict = Verdict::Code(503, None);
    let mut refused = 0;
    for (number, name) in ["alice", "tablet", "watch"].into_iter().enumerate() {
        let mut offer = offer_of(&world, name);
        offer.account.register_expires = secs(600 + number as u64);
        offer.account.trunk_sources = reveille::engine::account::TrunkSources::Any;
        if name == "watch" {
            offer.account.outbound_proxy = Some(registrar("sip:proxy.example.com"));
        }
        let asked = world.hand_over_this(name, offer);
        world.run_for(secs(4));
        world.handed_over(asked);
    }
    for name in ["alice", "tablet"] {
        let (id, token) = world.key_of(name);
        let change = Rectification {
            account: Some(via("sip:proxy.example.com")),
            material: Some(password(&format!("another for {name}"))),
            ..Rectification::default()
        };
        let asked = world.command(Command::Rectify(id, token, Box::new(change)));
        world.run_for(secs(4));
        refused += usize::from(matches!(world.refusal(asked), Some(Refusal::RateLimited { .. })));
    }
    assert_eq!(refused, 1, "one is kept there, one moves there, and the third has no room");
}

#[test]
fn guesses_at_another_place_are_counted() {
    let mut world = World::new(seed(822)).with_policy(|policy| policy.limits.refusals_per_account = 3);
    world = world.with_sleeping_phone("alice");
    world.add_pbx("proxy.example.com", OTHER);
    let mut limited = false;
    for _ in 0..5 {
        let mut offer = world.offer("alice");
        offer.account.outbound_proxy = Some(registrar("sip:proxy.example.com"));
        offer.material = password("a guess");
        let asked = world.hand_over_this("alice", offer);
        world.run_for(secs(5));
        limited |= matches!(world.refusal(asked), Some(Refusal::RateLimited { after }) if after > minutes(1));
    }
    assert!(limited);
    assert_eq!(state(&mut world), RegistrationState::Registered);
}

#[test]
fn voicemail_is_subscribed_to_at_the_new_place_and_signed_there_alone() {
    let mut world = World::new(seed(823)).with_phone("alice");
    world.pbx().mailbox.state = Some("Messages-Waiting: no\r\nVoice-Message: 0/0\r\n".to_owned());
    let other = world.add_pbx("proxy.example.com", OTHER);
    world.pbx_at(other).mailbox.state = Some("Messages-Waiting: no\r\nVoice-Message: 0/0\r\n".to_owned());
    let mut offer = world.offer("alice");
    offer.preferences = Preferences { voicemail_subscribe: true, ..Preferences::default() };
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    world.pbx().forget_nonces();
    patch_via(&mut world, "sip:proxy.example.com");
    world.run_until_quiet();
    let subscribes = |messages: Vec<reveille::sip::Message>| {
        messages.iter().filter(|message| message.method() == Some(reveille::sip::Method::Subscribe)).count()
    };
    assert!(subscribes(world.sent_to(OTHER)) > 0, "at the new place");
    world.run_for(hours(3));
    world.assert_nothing_left();
}

#[test]
fn a_device_that_comes_to_a_place_where_another_is_registered_shares_its_binding_at_once() {
    let mut world = World::new(seed(824)).with_sleeping_phone("alice").with_phone("tablet");
    world.add_pbx("proxy.example.com", OTHER);
    let mut offer = offer_of(&world, "tablet");
    offer.account.outbound_proxy = Some(registrar("sip:proxy.example.com"));
    world.hand_over_this("tablet", offer);
    world.run_until_quiet();
    assert_eq!(world.table("bindings"), 2);
    let asked = post_via(&mut world, "sip:proxy.example.com");
    world.run_for(secs(1));
    assert_eq!(world.handed_over(asked).registration.state, RegistrationState::Registered);
    world.run_until_quiet();
    assert_eq!((world.table("bindings"), world.table("vault")), (1, 2));
    assert!(world.pbx().contacts("alice").is_empty());
    world.assert_nothing_left();
}

#[test]
fn a_move_writes_no_record_of_an_erasure() {
    let mut world = World::new(seed(825)).with_sleeping_phone("alice");
    world.add_pbx("proxy.example.com", OTHER);
    patch_via(&mut world, "sip:proxy.example.com");
    world.run_until_quiet();
    assert_eq!(erasures(&world), []);
    assert!(!world.records.iter().any(|it| matches!(it.event, AuditEvent::Erased { cause: Cause::Refused, .. })));
}
