//! Mailboxes: unsolicited news, subscriptions of ours, and how the app hears of them.

use std::time::Duration;

use reveille::engine::output::{WakeDetail, WakeKind};
use reveille::sip::HeaderName;

use crate::pbx::{NonceLife, Text};
use crate::sip_text::field;
use crate::world::{World, minutes, secs, seed};

fn counts(new: u32, old: u32) -> String {
    let waiting = if new > 0 { "yes" } else { "no" };
    format!("Messages-Waiting: {waiting}\r\nVoice-Message: {new}/{old} (0/0)\r\n")
}

fn told(world: &World) -> Vec<(u32, u32)> {
    let voicemail = world.pushes.iter().filter(|push| push.kind == WakeKind::Voicemail);
    let detail = voicemail.map(|push| match push.detail {
        WakeDetail::Voicemail { new, old } => (new, old),
        other => panic!("{other:?}"),
    });
    detail.collect()
}

#[test]
fn news_of_a_mailbox_wake_a_sleeping_phone_with_the_counts() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice");
    for (new, old) in [(2, 5), (2, 5), (1, 6), (0, 7), (0, 8)] {
        let news = world.pbx().text(Text::news("alice", &counts(new, old)));
        world.run_for(secs(30));
        assert_eq!(world.pbx().heard(news), [200]);
    }
    assert_eq!(told(&world), [(2, 5), (1, 6), (0, 7)], "told when they changed, and something waits or did");
    world.assert_nothing_left();
}

#[test]
fn an_empty_mailbox_is_no_news_at_first() {
    let mut world = World::new(seed(2)).with_sleeping_phone("alice");
    world.pbx().text(Text::news("alice", &counts(0, 3)));
    world.pbx().text(Text::news("alice", "what is this"));
    world.run_for(secs(30));
    assert!(world.pushes.is_empty());
}

#[test]
fn a_mailbox_that_changes_all_the_time_causes_one_wake_in_a_while_with_the_last_counts() {
    let mut world = World::new(seed(3)).with_sleeping_phone("alice");
    for number in 1..=20 {
        world.pbx().text(Text::news("alice", &counts(number, 0)));
        world.run_for(Duration::from_millis(400));
    }
    world.run_for(secs(30));
    assert_eq!(told(&world), [(1, 0), (20, 0)]);
}

#[test]
fn an_attached_phone_gets_the_notify_and_no_wake() {
    let mut world = World::new(seed(4)).with_attached_phone("alice");
    world.pbx().text(Text::news("alice", &counts(1, 0)));
    world.run_until_quiet();
    assert_eq!(world.phone("alice").read(), [counts(1, 0)]);
    let notify = world.phone("alice").told[0].clone();
    assert_eq!(field(&notify, HeaderName::Event), "message-summary");
    assert!(world.pushes.is_empty());
    world.assert_nothing_left();
}

#[test]
fn an_attached_phone_that_does_not_take_the_notify_is_woken() {
    for (telling, dead) in [(489, false), (200, true)] {
        let mut world = World::new(seed(5)).with_attached_phone("alice").with("alice", |phone| {
            phone.telling = telling;
            if dead {
                phone.manner = crate::phone::Manner::Dead;
            }
        });
        world.pbx().text(Text::news("alice", &counts(1, 0)));
        world.run_for(secs(5));
        assert_eq!(told(&world), [(1, 0)]);
    }
}

#[test]
fn only_an_instance_that_asks_is_subscribed() {
    let mut world = World::new(seed(6)).with_sleeping_phone("alice");
    world.run_for(minutes(30));
    assert!(world.pbx().mailbox.subscribes.is_empty());
}

#[test]
fn a_subscription_is_signed_told_of_and_refreshed_in_its_dialog() {
    let mut world = subscribed(7);
    world.run_for(secs(5));
    assert_eq!(world.pbx().mailbox.codes(), [401, 200]);
    assert_eq!(told(&world), [(2, 1)], "the first NOTIFY tells");

    world.run_for(minutes(130));
    let pbx = world.pbx();
    let granted: Vec<_> = pbx.mailbox.subscribes.iter().filter(|it| it.code == 200).collect();
    assert!((3..=4).contains(&granted.len()), "{}", granted.len());
    assert!(granted.windows(2).all(|pair| pair[0].call_id == pair[1].call_id && pair[0].cseq < pair[1].cseq));
    assert!(granted[1..].iter().all(|it| it.in_dialog && it.signed && it.expires == 3600));
    let at = pbx.subscribed_at();
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] < secs(3600)), "before it expires: {at:?}");

    world.pbx().notify("active", &counts(3, 1));
    world.run_for(secs(20));
    assert_eq!(told(&world), [(2, 1), (3, 1)]);
}

#[test]
fn a_repeated_notify_is_answered_and_not_told_again() {
    let mut world = subscribed(8);
    world.run_for(secs(15));
    for (number, new) in [(50, 4), (50, 9), (49, 9)] {
        let notify = world.pbx().notify_as("active", &counts(new, 0), number, "notifier");
        world.run_for(secs(15));
        assert_eq!(world.pbx().heard(notify), [200]);
    }
    assert_eq!(told(&world), [(2, 1), (4, 0)]);
}

#[test]
fn a_notify_of_somebody_else_in_our_dialog_gets_481() {
    let mut world = subscribed(9);
    world.run_for(secs(15));
    let foreign = world.pbx().notify_as("active", &counts(9, 9), 99, "intruder");
    world.run_for(secs(15));
    assert_eq!(world.pbx().heard(foreign), [481]);
    assert_eq!(told(&world), [(2, 1)]);
}

#[test]
fn refusals_end_the_asking_and_other_failures_back_it_off() {
    for (code, tries) in [(489, 1..=1), (403, 1..=1), (404, 1..=1), (500, 4..=12), (480, 4..=12)] {
        let mut world = asking(10);
        world.pbx().mailbox.verdict = Some((code, Vec::new()));
        world.hand_over_subscribing("alice");
        world.run_for(minutes(60));
        let asked = world.pbx().mailbox.subscribes.len();
        assert!(tries.contains(&asked), "{code}: {asked}");
    }
}

#[test]
fn a_registrar_that_is_silent_is_asked_again_later_and_less_and_less() {
    let mut world = asking(11);
    world.pbx().mailbox.silent = true;
    world.hand_over_subscribing("alice");
    world.run_for(minutes(60));
    let calls: std::collections::BTreeSet<_> =
        world.pbx().mailbox.subscribes.iter().map(|it| (it.call_id.clone(), it.cseq)).collect();
    assert!((3..=10).contains(&calls.len()), "{}", calls.len());
}

#[test]
fn retry_after_is_heeded() {
    let mut world = asking(12);
    world.pbx().mailbox.verdict = Some((503, vec![("Retry-After", "1200".to_owned())]));
    world.hand_over_subscribing("alice");
    world.run_for(minutes(19));
    assert_eq!(world.pbx().mailbox.subscribes.len(), 1);
}

#[test]
fn a_notifier_that_wants_longer_subscriptions_gets_them() {
    let mut world = asking(13);
    world.pbx().mailbox.min_expires = 7200;
    world.pbx().mailbox.expires_max = 7200;
    world.hand_over_subscribing("alice");
    world.run_for(secs(10));
    assert_eq!(world.pbx().mailbox.codes(), [401, 423, 200]);
    assert_eq!(world.pbx().mailbox.subscribes[2].expires, 7200);
}

#[test]
fn credentials_that_are_refused_are_not_tried_again_and_again() {
    let mut world = asking(14);
    world.hand_over_subscribing("alice");
    world.run_for(secs(10));
    let before = world.pbx().mailbox.subscribes.len();
    world.pbx().set_password("alice", "another");
    world.run_for(minutes(180));
    let after = world.pbx().mailbox.subscribes.len();
    assert!(after - before <= 2, "{}", after - before);
}

#[test]
fn an_ended_subscription_is_asked_for_again_as_its_reason_says() {
    for (reason, within, asked) in [
        ("terminated;reason=timeout", secs(10), 1),
        ("terminated;reason=deactivated", secs(10), 1),
        ("terminated;reason=probation;retry-after=300", secs(290), 0),
        ("terminated;reason=probation;retry-after=300", secs(330), 1),
        ("terminated;reason=noresource", minutes(120), 0),
        ("terminated;reason=rejected", minutes(120), 0),
        ("terminated", minutes(2), 1),
    ] {
        let mut world = subscribed(15);
        world.run_for(minutes(5));
        let before = granted(&mut world);
        let former = world.pbx().mailbox.subscribes.last().expect("one").call_id.clone();
        world.pbx().mailbox.state = None;
        world.pbx().notify(reason, "");
        world.run_for(within);
        assert_eq!(granted(&mut world) - before, asked, "{reason}");
        if asked > 0 {
            assert_ne!(world.pbx().mailbox.subscribes.last().expect("one").call_id, former, "a new dialog");
        }
    }
}

#[test]
fn a_pbx_that_forgot_the_dialog_is_asked_anew() {
    let mut world = subscribed(16);
    world.run_for(secs(10));
    world.pbx().mailbox.verdict = Some((481, Vec::new()));
    world.run_until(minutes(60), |world| world.pbx().mailbox.codes().contains(&481));
    world.pbx().mailbox.verdict = None;
    world.run_for(minutes(2));
    let last = world.pbx().mailbox.subscribes.last().expect("one");
    assert_eq!((last.code, last.in_dialog), (200, false));
}

#[test]
fn erasing_an_instance_ends_its_subscription_without_holding_up_the_wipe() {
    for nonces in [NonceLife::Forever, NonceLife::OneRequest] {
        let mut world = subscribed(17);
        world.run_for(secs(10));
        world.pbx().registrar.nonces = nonces;
        world.delete("alice");
        world.run_until_quiet();
        let last = world.pbx().mailbox.subscribes.last().expect("one");
        assert_eq!((last.code, last.expires, last.in_dialog), (200, 0, true), "{nonces:?}");
        world.assert_empty();
    }
}

#[test]
fn an_app_that_wants_it_no_more_is_unsubscribed() {
    let mut world = subscribed(20);
    world.run_for(secs(10));
    let again = world.offer("alice");
    world.hand_over_this("alice", again);
    world.run_for(minutes(12));
    let last = world.pbx().mailbox.subscribes.last().expect("one");
    assert_eq!((last.code, last.expires, last.in_dialog), (200, 0, true));
    let before = world.pbx().mailbox.subscribes.len();
    world.run_for(minutes(120));
    assert_eq!(world.pbx().mailbox.subscribes.len(), before);
    assert_eq!(world.table("leases"), 1, "the instance lives on");
}

#[test]
fn a_silent_registrar_delays_no_wipe_by_an_open_subscription() {
    let mut world = subscribed(18);
    world.run_for(secs(10));
    world.pbx().mailbox.silent = true;
    world.delete("alice");
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.table("vault"), 0, "the un-REGISTER was answered");
    world.run_for(secs(3));
    assert_eq!(world.table("mailboxes.leaving"), 0, "given up with the grace");
    let before = world.sent.len();
    world.run_for(minutes(5));
    world.assert_no_request_since(before);
    world.assert_empty();
}

#[test]
fn the_subscription_goes_where_the_account_is_registered_and_is_signed_for_its_realm_only() {
    let mut world = asking(19);
    let elsewhere = "Digest realm=\"elsewhere\",nonce=\"n\",qop=\"auth\"".to_owned();
    world.pbx().mailbox.verdict = Some((401, vec![("WWW-Authenticate", elsewhere)]));
    world.hand_over_subscribing("alice");
    world.run_for(minutes(10));
    assert_eq!(world.pbx().mailbox.codes(), [401], "nothing is signed for another realm");
    assert!(!world.pbx().mailbox.subscribes[0].signed);
}

fn asking(number: u64) -> World {
    World::new(seed(number)).with_phone("alice")
}

fn subscribed(number: u64) -> World {
    let mut world = asking(number);
    world.pbx().mailbox.state = Some(counts(2, 1));
    world.hand_over_subscribing("alice");
    world
}

fn granted(world: &mut World) -> usize {
    world.pbx().subscribed_at().len()
}

impl World {
    /// Hands over with the wish to be subscribed to the mailbox, and waits until it is registered.
    fn hand_over_subscribing(&mut self, name: &str) {
        let mut offer = self.offer(name);
        offer.preferences.voicemail_subscribe = true;
        let asked = self.hand_over_this(name, offer);
        self.run_until(secs(10), |world| world.answer(asked).is_some());
    }
}
