//! Text messages that are not kept, or no longer: bounds, expiry, erasure, shutdown.

use reveille::engine::tally::TextOutcome;

use crate::pbx::{Call, Text};
use crate::phone::Manner;
use crate::world::{World, hours, millis, minutes, secs, seed};

#[test]
fn a_text_that_is_too_large_gets_413() {
    let mut world = World::new(seed(15)).with_policy(|policy| policy.limits.message_bytes = 100);
    world = world.with_sleeping_phone("alice");
    let fits = world.pbx().text(Text::to("alice", &"x".repeat(100)));
    let body = world.pbx().text(Text::to("alice", &"x".repeat(101)));
    let head = world.pbx().text(Text::to("alice", "x").with("X-Long", &"x".repeat(5000)));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(fits), [202]);
    assert_eq!(world.pbx().heard(body), [413]);
    assert_eq!(world.pbx().heard(head), [413]);
    assert_eq!(world.table("texts.held"), 1);
}

#[test]
fn a_flood_to_one_instance_fills_its_own_bound_only() {
    let mut world = World::new(seed(16)).with_policy(|policy| policy.limits.messages_per_instance = 3);
    world = world.with_sleeping_phone("alice").with_sleeping_phone("bob");
    let flood: Vec<Call> = (0..30).map(|number| world.pbx().text(Text::to("alice", &number.to_string()))).collect();
    world.run_for(secs(5));
    let heard: Vec<u16> = flood.iter().map(|text| world.pbx().final_response(*text).expect("an answer")).collect();
    assert_eq!(heard.iter().filter(|code| **code == 202).count(), 3);
    assert_eq!(heard.iter().filter(|code| **code == 480).count(), 27);
    assert_eq!(world.table("texts.held"), 3);
    assert!(world.table("texts.transits") <= 6, "{}", world.table("texts.transits"));

    let text = world.pbx().text(Text::to("bob", "unharmed"));
    let call = world.pbx().invite("alice");
    world.run_for(secs(10));
    assert_eq!(world.pbx().heard(text), [202]);
    assert_eq!(world.pbx().final_response(call), Some(200));
}

#[test]
fn a_flood_to_a_silent_phone_is_bounded_while_it_is_undecided() {
    let mut world = World::new(seed(17)).with_policy(|policy| policy.limits.messages_per_instance = 3);
    world = world.with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Dead);
    let flood: Vec<Call> = (0..30).map(|number| world.pbx().text(Text::to("alice", &number.to_string()))).collect();
    world.run_for(secs(5));
    let kept = flood.iter().filter(|text| world.pbx().final_response(**text) == Some(202)).count();
    assert_eq!((kept, world.table("texts.held")), (3, 3));
}

#[test]
fn the_bound_of_all_instances_holds() {
    let mut world = World::new(seed(18)).with_shards(1).with_policy(|policy| policy.limits.messages = 2);
    for name in ["alice", "bob", "carol"] {
        world = world.with_sleeping_phone(name);
    }
    let texts: Vec<Call> =
        ["alice", "bob", "carol"].map(|name| world.pbx().text(Text::to(name, "one"))).into_iter().collect();
    world.run_for(secs(5));
    let heard: Vec<_> = texts.iter().map(|text| world.pbx().final_response(*text).expect("an answer")).collect();
    assert_eq!(heard, [202, 202, 480]);
}

#[test]
fn a_text_waits_no_longer_than_its_sender_and_the_operator_want() {
    for (expires, kept_for) in [(None, hours(24)), (Some("60"), minutes(1)), (Some("999999999"), hours(24))] {
        let mut world = World::new(seed(19)).with_sleeping_phone("alice");
        let mut text = Text::to("alice", "old");
        if let Some(seconds) = expires {
            text = text.with("Expires", seconds);
        }
        world.pbx().text(text);
        world.run_for(kept_for - secs(1));
        assert_eq!(world.table("vault.sealed"), 1, "{expires:?}");
        world.run_for(secs(2));
        assert_eq!((world.table("vault.sealed"), world.table("texts.held")), (0, 0), "{expires:?}");
        world.phone("alice").attach();
        world.run_until_quiet();
        assert!(world.phone("alice").told.is_empty());
    }
}

#[test]
fn a_text_for_now_or_never_is_not_kept() {
    let mut world = World::new(seed(20)).with_sleeping_phone("alice");
    let never = world.pbx().text(Text::to("alice", "now").with("Expires", "0"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(never), [480]);
    assert!(world.pushes.is_empty());
    world.phone("alice").attach();
    world.run_until_quiet();
    let now = world.pbx().text(Text::to("alice", "now").with("Expires", "0"));
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(now), [200]);
}

#[test]
fn erasing_an_instance_wipes_its_texts() {
    let mut world = World::new(seed(23)).with_sleeping_phone("alice").with_sleeping_phone("bob");
    world.pbx().text(Text::to("alice", "1"));
    world.pbx().text(Text::to("alice", "2"));
    world.pbx().text(Text::to("bob", "3"));
    world.run_until_quiet();
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!((world.table("vault.sealed"), world.table("texts.held")), (1, 1));
    assert_eq!(world.texts_counted(TextOutcome::Erased), 2);
    world.delete("bob");
    world.run_until_quiet();
    world.assert_empty();
}

#[test]
fn erasing_an_instance_answers_who_is_just_telling_it_something() {
    let mut world =
        World::new(seed(24)).with_attached_phone("alice").with("alice", |phone| phone.manner = Manner::Dead);
    let text = world.pbx().text(Text::to("alice", "too late"));
    world.run_for(millis(300));
    world.delete("alice");
    world.run_for(secs(5));
    assert_eq!(world.pbx().heard(text), [480]);
    let before = world.sent.len();
    world.run_for(minutes(1));
    assert!(world.sent[before..].iter().all(|(_, _, bytes)| !bytes.starts_with(b"MESSAGE")), "told after its erasure");
    world.assert_empty();
}

#[test]
fn erasing_an_instance_while_it_is_told_stops_the_telling() {
    let mut world = World::new(seed(25)).with_sleeping_phone("alice");
    world.pbx().text(Text::to("alice", "half"));
    world.run_until_quiet();
    world.phone("alice").manner = Manner::Dead;
    world.phone("alice").attach();
    world.run_for(secs(2));
    world.delete("alice");
    world.run_for(secs(1));
    let before = world.sent.len();
    world.run_for(minutes(1));
    assert!(world.sent[before..].iter().all(|(_, _, bytes)| !bytes.starts_with(b"MESSAGE")));
    world.assert_empty();
}

#[test]
fn an_unproven_source_never_gets_more_bytes_than_it_sent() {
    for attached in [false, true] {
        let mut world = World::new(seed(26)).with_sleeping_phone("alice");
        if attached {
            world.phone("alice").attach();
            world.run_until_quiet();
        }
        world.pbx().text(Text::to("alice", "who am I").from("203.0.113.200:5060"));
        world.run_until_quiet();
        let (came, went) = world.meter[&"203.0.113.200:5060".parse().expect("an address")];
        assert!(went > 0, "it is answered all the same");
        assert!(went <= came, "{went} bytes for {came}");
        // So terse that any answer is longer.
        let uri = world.pbx().capability_uri("alice");
        let terse = format!(
            "MESSAGE {uri} SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1\r\nf:<sip:a@b>;tag=1\r\nt:<sip:a@b>\r\ni:1\r\n\
             CSeq:1 MESSAGE\r\n\r\n"
        );
        world.stranger_sends("203.0.113.201:5060", terse.as_bytes());
        world.run_for(secs(10));
        let (came, went) = world.meter[&"203.0.113.201:5060".parse().expect("an address")];
        assert!(went <= came, "{went} bytes for {came}");
        world.phone("alice").attach();
        world.run_until_quiet();
        assert_eq!(world.phone("alice").told.len(), 2, "both reached their reader all the same");
    }
}

#[test]
fn a_drain_takes_no_more_texts() {
    let mut world = World::new(seed(27)).with_sleeping_phone("alice");
    let call = world.pbx().invite("alice");
    world.phone("alice").wakes = false;
    world.run_for(secs(1));
    world.drain();
    let text = world.pbx().text(Text::to("alice", "closing"));
    world.run_for(secs(1));
    assert_eq!(world.pbx().heard(text), [480]);
    world.pbx().cancel(call);
    world.run_until_quiet();
    assert_eq!(world.drained, 2);
}
