//! A 200 that lists our Contact under another URI, as some middleboxes have it, and what must not be taken for that.

use reveille::engine::account::ContactStyle;
use reveille::engine::output::{RegistrationReason, RegistrationState};

use crate::refusals::{shown, told};
use crate::world::{World, hours, minutes, secs, seed};

const REWRITTEN: &str = "<sip:alice@203.0.113.9:5060>;expires={left}";

/// What a registration whose 200s list `contact` in the place of ours comes to.
fn judged(number: u64, contact: &'static str) -> (RegistrationState, Option<RegistrationReason>) {
    let mut world = listing(number, contact);
    let asked = world.hand_over("alice");
    world.run_for(secs(2));
    let view = &world.handed_over(asked).registration;
    (view.state, view.reason)
}

fn listing(number: u64, contact: &'static str) -> World {
    World::new(seed(number)).with_pbx(|pbx| pbx.registrar.ours_as = Some(contact)).with_phone("alice")
}

const TAKEN: (RegistrationState, Option<RegistrationReason>) =
    (RegistrationState::Registered, Some(RegistrationReason::ContactRewritten));
const MISSING: (RegistrationState, Option<RegistrationReason>) =
    (RegistrationState::Failing, Some(RegistrationReason::ContactMissing));

#[test]
fn a_contact_of_ours_under_another_uri_is_a_registration_and_says_so() {
    let mut world = listing(2201, REWRITTEN);
    let asked = world.hand_over("alice");
    world.run_for(secs(2));
    let view = world.handed_over(asked).registration.clone();
    assert_eq!((view.state, view.reason), TAKEN);
    assert_eq!((view.expires, view.other_contacts), (Some(secs(600)), 0));
    world.run_for(hours(3));
    assert_eq!(told(&world).len(), 1, "it stays registered");
    assert!(world.pbx().registers.len() <= 26, "refreshed as usual: {}", world.pbx().registers.len());
    assert_eq!(shown(&mut world, "alice").reason, Some(RegistrationReason::ContactRewritten));

    let call = world.call_and_wait("alice");
    assert_eq!(world.pbx().final_response(call), Some(200));
    world.pbx().hang_up(call);
    world.run_until_quiet();
    world.delete("alice");
    world.run_until_quiet();
    let last = world.pbx().registers.last().expect("an un-REGISTER").clone();
    assert_eq!((last.expires, last.code), (0, 200));
    assert_eq!(last.contact, world.pbx().registers[0].contact, "what is removed is what was sent");
    world.assert_empty();
}

#[test]
fn what_may_be_ours_bears_our_host_or_the_accounts_name_and_a_full_expiry() {
    for (number, contact) in [
        (2202, "<sip:%61lice@203.0.113.9:5060>;expires={left}"),
        (2203, "<sip:alice@203.0.113.9:5060>;expires=599"),
        (2204, "<sip:line7@192.0.2.5:61234;transport=tcp>;expires={left}"),
        (2205, "<sip:alice@sbc.example.net>;q=0.5;expires={left}"),
        (2206, "<sip:192.0.2.5>;expires={left}"),
    ] {
        assert_eq!(judged(number, contact), TAKEN, "{contact}");
    }
    for (number, contact) in [
        (2211, "<sip:bob@203.0.113.9:5060>;expires={left}"),
        (2212, "<sip:203.0.113.9>;expires={left}"),
        (2213, "<tel:+15550100>;expires={left}"),
        (2214, "<sip:alice@203.0.113.9>;expires=300"),
        (2215, "<sip:alice@203.0.113.9>;expires=598"),
        (2216, "<sip:alice@203.0.113.9>;expires=3600"),
        (2217, "<sip:alice@203.0.113.9>;expires=0"),
        (2218, "<sip:alice@203.0.113.9>"),
        (
            2219,
            "<sip:alice@203.0.113.9>;expires={left};+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\"",
        ),
        (2220, "<sip:alice@203.0.113.9>;expires={left}, <sip:alice@203.0.113.10>;expires={left}"),
        (2221, "<sip:alice@203.0.113.9>;expires={left}, <sip:bob@203.0.113.10>;expires=20"),
        (2222, "<sip:alice@203.0.113.9>;expires={left}, nonsense"),
        (2223, "<sip:ALICE@203.0.113.9>;expires={left}"),
        (2224, "<sip:aabdamjsgm2dkntxha4wcytdmrswm@192.0.2.5:5060>;expires={left}"),
        (2225, "<sip:alice@192.0.2.5;cap=aabdamjsgm2dkntxha4wcytdmrswm>;expires={left}"),
    ] {
        assert_eq!(judged(number, contact), MISSING, "{contact}");
    }
}

#[test]
fn a_shorter_grant_is_full_where_the_expires_header_says_so() {
    for (number, header, verdict) in [(2231, 300, TAKEN), (2232, 600, MISSING), (2233, 3600, MISSING)] {
        let mut world = listing(number, "<sip:alice@203.0.113.9>;expires=300");
        world.pbx().registrar.expires_header = Some(header);
        let asked = world.hand_over("alice");
        world.run_for(secs(2));
        let view = world.handed_over(asked).registration.clone();
        assert_eq!((view.state, view.reason), verdict, "{header}");
    }
}

#[test]
fn a_contact_that_was_seen_as_another_phones_is_never_taken_for_ours() {
    // Beside ours, then alone.
    let mut world = World::new(seed(2241)).with_sleeping_phone("alice");
    world.pbx().registrar.other_contact = Some("sip:alice@203.0.113.9:5060".to_owned());
    world.run_for(minutes(10));
    assert_eq!(shown(&mut world, "alice").other_contacts, 1);
    world.pbx().registrar.other_contact = None;
    world.run_for(minutes(30));
    assert_eq!(shown(&mut world, "alice").other_contacts, 0);
    world.pbx().registrar.ours_as = Some(REWRITTEN);
    world.run_for(minutes(30));
    assert_eq!(shown(&mut world, "alice").reason, Some(RegistrationReason::ContactMissing));

    // In the place of ours with what was left of it, then refreshed by its phone.
    let mut world = listing(2242, "<sip:alice@203.0.113.9:5060>;expires=411");
    world.hand_over("alice");
    world.run_for(secs(2));
    world.pbx().registrar.ours_as = Some(REWRITTEN);
    world.run_for(minutes(30));
    let view = shown(&mut world, "alice");
    assert_eq!((view.state, view.reason), MISSING);
}

#[test]
fn a_refresh_that_lists_a_stale_contact_only_fails_and_the_first_registration_ends_in_its_time() {
    let mut world = World::new(seed(2243)).with_sleeping_phone("alice");
    world.run_for(secs(60));
    world.pbx().registrar.ours_as = Some("<sip:alice@203.0.113.77:5062>;expires=77");
    world.run_for(secs(490));
    let view = shown(&mut world, "alice");
    assert_eq!((view.state, view.reason), (RegistrationState::Registered, MISSING.1), "what was granted before holds");
    world.run_for(minutes(3));
    let view = shown(&mut world, "alice");
    assert_eq!((view.state, view.reason), MISSING);
    assert!(view.verdict.is_some_and(|verdict| verdict.starts_with("200 ")), "in the registrar's words");
    world.pbx().registrar.ours_as = None;
    world.run_for(minutes(31));
    let view = shown(&mut world, "alice");
    assert_eq!((view.state, view.reason), (RegistrationState::Registered, None));
}

#[test]
fn with_another_phone_beside_it_a_rewritten_contact_is_not_told_apart_and_alone_again_it_is() {
    let mut world = listing(2244, REWRITTEN);
    world.hand_over("alice");
    world.run_for(secs(2));
    world.pbx().registrar.other_contact = Some("sip:alice@203.0.113.10".to_owned());
    world.run_for(minutes(12));
    assert_eq!(shown(&mut world, "alice").reason, Some(RegistrationReason::ContactMissing));
    world.pbx().registrar.other_contact = None;
    world.run_for(minutes(31));
    let view = shown(&mut world, "alice");
    assert_eq!((view.state, view.reason), TAKEN);
}

#[test]
fn without_a_challenge_under_the_accounts_own_name_or_in_a_takeover_nothing_is_taken_for_ours() {
    for (number, case) in [(2251, "no challenge"), (2252, "username"), (2253, "takeover")] {
        let mut world = listing(number, REWRITTEN);
        let mut offer = world.offer("alice");
        match case {
            "no challenge" => world.pbx().registrar.challenges = false,
            "username" => offer.account.contact_style = ContactStyle::Username,
            _ => offer.preferences.mode = reveille::engine::input::Mode::Takeover,
        }
        let asked = world.hand_over_this("alice", offer);
        world.run_for(secs(2));
        let view = world.handed_over(asked).registration.clone();
        assert_eq!((view.state, view.reason), MISSING, "{case}");
    }
}
