//! Text messages through Asterisk's dialplan, and news of its mailboxes.

use std::fs;

use serde_json::json;

use super::Manners;
use super::office::Office;
use crate::daemon::{HandOver, Instance};
use crate::phones::{CallerManners, Make, Order};
use crate::process::until;
use crate::world::{PBX_DOMAIN, Transport, World};

#[test]
fn a_message_waits_for_a_phone_that_sleeps_and_goes_straight_to_one_that_is_there() {
    let world = World::new("asterisk-text");
    let office = Office::new(&world, &Manners::default(), Transport::Tcp);
    let mut sender = office.caller(CallerManners::default());
    let alice = format!("sip:alice@{PBX_DOMAIN}");

    sender.obey(Order::Message(&alice, "the meeting has moved to four"));
    sender.trace.response(202, "MESSAGE");
    office.push.wait_for("message", &office.push.token("alice", "other"), 1);
    let phone = office.wake_phone(&office.alice, Make::Pjsip, Transport::Tls);

    let came = phone.trace.request("MESSAGE");
    assert_eq!(came.body, b"the meeting has moved to four");
    assert!(came.header("From").is_some_and(|from| from.contains("bob")), "{came:?}");
    until("the daemon to have the phone's answer", || {
        let delivered = office.daemon.metric_of("reveille_texts_total", "outcome=\"delivered\"");
        (delivered == Some(1.0)).then_some(())
    });
    sender.obey(Order::Message(&alice, "and to another room"));
    assert_eq!(phone.trace.nth("MESSAGE", 2).body, b"and to another room");
    assert_eq!(office.push.of_kind("message").len(), 1);
}

/// Puts something into a mailbox, as another program would.
#[track_caller]
fn leave_a_message(office: &Office<'_>, user: &str, nth: u32) {
    let inbox = office.asterisk.inbox(user);
    fs::create_dir_all(&inbox).expect("the test directory is writable");
    fs::write(inbox.join(format!("msg{nth:04}.txt")), "[message]\n").expect("the test directory is writable");
}

/// Hands over an account whose mailbox is subscribed to.
#[track_caller]
fn subscribes(office: &Office<'_>, user: &str) -> Instance {
    let more = json!({ "voicemail": "subscribe" });
    let hand_over = HandOver { user, device: user, trunk: Transport::Udp, more };
    let instance = office.daemon.hand_over_from(&office.asterisk, &office.push, &hand_over);
    office.asterisk.trace.response(200, "SUBSCRIBE");
    instance
}

/// Alice is told by her endpoint's `mailboxes`, carol because she subscribes to her AOR's.
#[test]
fn news_of_a_mailbox_reach_a_phone_that_sleeps_and_one_that_is_there() {
    for (user, how) in [("alice", "unsolicited"), ("carol", "subscribed")] {
        let world = World::new(&format!("asterisk-voicemail-{how}"));
        let office = Office::new(&world, &Manners::default(), Transport::Udp);
        let instance = match user {
            "alice" => office.alice.clone(),
            _ => subscribes(&office, user),
        };

        leave_a_message(&office, user, 0);
        let push = office.push.wait_for("voicemail", &office.push.token(user, "other"), 1);
        let told: serde_json::Value = serde_json::from_str(push.word("voicemail")).expect("counts");
        assert_eq!(told, json!({ "new": 1, "old": 0 }));

        let phone = office.wake_phone(&instance, Make::Pjsip, Transport::Tls);
        phone.wait_registered();
        leave_a_message(&office, user, 1);
        until("the phone to be told", || {
            let told = phone.trace.distinct("NOTIFY");
            let says = |body: &[u8]| String::from_utf8_lossy(body).contains("Voice-Message: 2/0");
            told.iter().any(|notify| says(&notify.body)).then_some(())
        });
        assert!(office.push.of_kind("call").is_empty(), "no call, no call screen");
    }
}
