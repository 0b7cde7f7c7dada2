//! Text messages (SIP MESSAGE) to a phone that sleeps, and to one that does not.

use crate::phones::{CallerManners, Make, Order, Phone};
use crate::process::until;
use crate::push::Provider;
use crate::setting::Setting;
use crate::world::{PBX_DOMAIN, Transport, World};

const TEXT: &str = "the meeting has moved to four";

#[track_caller]
fn send(caller: &mut Phone, text: &str) {
    caller.obey(Order::Message(&format!("sip:alice@{PBX_DOMAIN}"), text));
}

/// The sender has its answer at once, the phone is woken and gets the message when it attaches.
fn is_kept_for_a_sleeping_phone(make: Make, attach: Transport, trunk: Transport, provider: Provider) {
    let world = World::new(&format!("text-{make:?}").to_lowercase());
    let setting = Setting::new(&world, provider, trunk);
    let mut sender = setting.caller(CallerManners::default());

    send(&mut sender, TEXT);
    sender.trace.response(202, "MESSAGE");
    let wake = setting.push.wait_for("message", &setting.push.token("alice", "other"), 1);
    assert_eq!(wake.word("instance"), setting.alice.id);
    assert!(!wake.payload.to_string().contains("meeting"), "the push service learns nothing of it: {wake:?}");
    let phone = setting.wake_phone(make, attach);

    let came = phone.trace.request("MESSAGE");
    assert_eq!(came.body, TEXT.as_bytes());
    assert!(came.header("From").is_some_and(|from| from.contains("bob")), "{came:?}");
    assert!(matches!(phone.trace.answer_to(&came).status(), Some(200 | 202)));
    assert!(setting.push.of_kind("call").is_empty(), "no call, no call screen");

    // Straight through now, and so in order: what was delivered is not delivered again. That it has the phone's answer, the
    // daemon alone knows.
    until("the daemon to have the phone's answer", || {
        let delivered = setting.daemon.metric_of("reveille_texts_total", "outcome=\"delivered\"");
        (delivered == Some(1.0)).then_some(())
    });
    send(&mut sender, "and to another room");
    sender.trace.response(200, "MESSAGE");
    assert_eq!(phone.trace.nth("MESSAGE", 2).body, b"and to another room");
    assert_eq!(setting.push.of_kind("message").len(), 1);
}

#[test]
fn a_message_waits_for_pjsip() {
    is_kept_for_a_sleeping_phone(Make::Pjsip, Transport::Tls, Transport::Udp, Provider::Apns);
}

#[test]
fn a_message_waits_for_linphone() {
    is_kept_for_a_sleeping_phone(Make::Linphone, Transport::Tcp, Transport::Tcp, Provider::Fcm);
}

#[test]
fn a_message_waits_for_baresip() {
    is_kept_for_a_sleeping_phone(Make::Baresip, Transport::Udp, Transport::Udp, Provider::Fcm);
}

#[test]
fn several_messages_come_in_their_order_after_one_push() {
    let world = World::new("text-order");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let mut sender = setting.caller(CallerManners::default());
    let texts = ["first", "second", "third"];
    for (nth, text) in (1..).zip(texts) {
        send(&mut sender, text);
        let sent = sender.trace.nth("MESSAGE", nth);
        assert_eq!(sender.trace.answer_to(&sent).status(), Some(202));
    }

    let phone = setting.wake_phone(Make::Pjsip, Transport::Tcp);

    for (nth, text) in (1..).zip(texts) {
        assert_eq!(phone.trace.nth("MESSAGE", nth).body, text.as_bytes());
    }
    assert_eq!(setting.push.of_kind("message").len(), 1);
}

#[test]
fn nobody_is_woken_because_somebody_is_typing() {
    let world = World::new("text-typing");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let mut sender = setting.caller(CallerManners::default());

    sender.obey(Order::Typing(&format!("sip:alice@{PBX_DOMAIN}")));
    let typing = sender.trace.nth("MESSAGE", 1);
    assert!(sender.trace.answer_to(&typing).status().is_some_and(|code| code < 300));
    send(&mut sender, TEXT);
    setting.push.wait_for("message", &setting.push.token("alice", "other"), 1);
    let phone = setting.wake_phone(Make::Pjsip, Transport::Tls);

    assert_eq!(phone.trace.nth("MESSAGE", 1).body, TEXT.as_bytes(), "what was typed, not that it was");
    assert_eq!(setting.push.of_kind("message").len(), 1);
}
