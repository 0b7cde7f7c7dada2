//! Calls that end before anybody answers, and that each side hears how.

use crate::phones::{CallerManners, Make, Order, Phone};
use crate::process::until;
use crate::push::{Provider, Push};
use crate::setting::Setting;
use crate::world::{Transport, World};

#[test]
fn a_phone_whose_push_was_late_finds_out_that_the_caller_hung_up_before_it() {
    let world = World::new("cancel-before-push");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let gate = setting.push.hold_back();
    let mut caller = setting.caller(CallerManners::default());

    let id = caller.call("alice");
    until("the daemon to hold the call", || (setting.daemon.metric("reveille_held_calls") == Some(1.0)).then_some(()));
    caller.hang_up();
    caller.trace.of_call(&id).response(487, "INVITE");
    assert!(setting.push.of_kind("call").is_empty(), "the push is with the provider, not with the phone");
    gate.open();
    let wake = setting.push.wait_for_call(1);

    let phone = setting.wake_phone(Make::Pjsip, Transport::Tls);
    assert_told_ended(&phone, &wake, "cancelled");
    assert_rings_for_the_next_call_only(&setting, caller, phone);
}

#[test]
fn a_caller_who_hangs_up_after_the_push_and_before_the_phone_is_there_is_answered_at_once() {
    for (make, transport) in
        [(Make::Pjsip, Transport::Tcp), (Make::Linphone, Transport::Tls), (Make::Baresip, Transport::Udp)]
    {
        let world = World::new(&format!("cancel-before-attach-{make:?}").to_lowercase());
        let setting = Setting::new(&world, Provider::Fcm, Transport::Tcp);
        let mut caller = setting.caller(CallerManners::default());

        let id = caller.call("alice");
        let wake = setting.push.wait_for_call(1);
        caller.trace.of_call(&id).response(180, "INVITE");
        caller.hang_up();
        caller.trace.of_call(&id).response(487, "INVITE");

        let phone = setting.wake_phone(make, transport);
        assert_told_ended(&phone, &wake, "cancelled");
        assert_rings_for_the_next_call_only(&setting, caller, phone);
    }
}

#[test]
fn a_ringing_phone_falls_silent_when_the_caller_hangs_up() {
    for (make, transport) in
        [(Make::Pjsip, Transport::Tls), (Make::Linphone, Transport::Tcp), (Make::Baresip, Transport::Tcp)]
    {
        let world = World::new(&format!("cancel-while-ringing-{make:?}").to_lowercase());
        let setting = Setting::new(&world, Provider::Apns, Transport::Udp);
        let mut talk = setting.ring(make, transport);

        talk.caller.hang_up();

        talk.heard_by_phone().request("CANCEL");
        talk.heard_by_phone().response(487, "INVITE");
        talk.heard_by_caller().response(487, "INVITE");
        setting.wait_nothing_held();
        let view = setting.daemon.call(&setting.alice, talk.wake.word("call")).json();
        assert_eq!((&view["state"], &view["reason"]), (&"ended".into(), &"cancelled".into()));
    }
}

/// Declines a ringing call by SIP; the caller hears `status`.
fn declines_by_sip(make: Make, transport: Transport, status: u16) {
    let world = World::new(&format!("decline-{make:?}-{status}").to_lowercase());
    let setting = Setting::new(&world, Provider::Apns, Transport::Tcp);
    let mut talk = setting.ring(make, transport);

    talk.phone.obey(Order::Decline(status));

    talk.heard_by_caller().response(status, "INVITE");
    talk.heard_by_phone().request("ACK");
    setting.wait_nothing_held();
    let view = setting.daemon.call(&setting.alice, talk.wake.word("call")).json();
    assert_eq!((&view["state"], &view["reason"]), (&"ended".into(), &"declined".into()));
    assert_eq!(setting.push.of_kind("call").len(), 1, "a phone that has declined is not woken again");
}

#[test]
fn pjsip_declines_with_486() {
    declines_by_sip(Make::Pjsip, Transport::Tls, 486);
}

#[test]
fn pjsip_declines_with_603() {
    declines_by_sip(Make::Pjsip, Transport::Udp, 603);
}

#[test]
fn linphone_declines_with_603() {
    declines_by_sip(Make::Linphone, Transport::Tls, 603);
}

#[test]
fn baresip_declines_with_486() {
    declines_by_sip(Make::Baresip, Transport::Tcp, 486);
}

#[test]
fn a_call_declined_over_https_before_sip_is_up_ends_with_the_code_asked_for() {
    let world = World::new("decline-https");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let mut caller = setting.caller(CallerManners::default());
    let ways = [("busy", false, 486), ("decline", true, 603), ("unavailable", false, 480)];
    let mut wakes = Vec::new();

    for (nth, (reason, everywhere, status)) in (1..).zip(ways) {
        let id = caller.call("alice");
        let wake = setting.push.wait_for_call(nth);
        setting.daemon.decline(&setting.alice, wake.word("call"), reason, everywhere);
        caller.trace.of_call(&id).response(status, "INVITE");
        wakes.push(wake);
    }

    let phone = setting.wake_phone(Make::Pjsip, Transport::Tls);
    for wake in &wakes {
        assert_told_ended(&phone, wake, "declined");
    }
    assert_rings_for_the_next_call_only(&setting, caller, phone);
}

/// A ring group of the PBX: one call, two accounts of ours. The PBX calls the other off and says why.
#[test]
fn the_other_member_of_a_ring_group_falls_silent_when_one_answers() {
    let world = World::new("ring-group");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let carol = setting.daemon.hand_over(&setting.kamailio, &setting.push, "carol", Transport::Tcp);
    let mut caller = setting.caller(CallerManners::default());

    let id = caller.call("everybody");
    setting.push.wait_for_call(2);
    let mut phone = setting.wake_phone(Make::Pjsip, Transport::Tls);
    let other = Phone::start(&world, Make::Linphone, &setting.daemon.attach(&carol, Transport::Tcp));
    phone.wait_ringing(&id);
    other.wait_ringing(&id);
    phone.answer();

    let cancel = other.trace.of_call(&id).request("CANCEL");
    assert!(cancel.header("Reason").is_some_and(|reason| reason.contains("cause=200")), "{cancel:?}");
    other.trace.of_call(&id).response(487, "INVITE");
    caller.hang_up();
    phone.trace.of_call(&id).response(200, "BYE");
    setting.wait_nothing_held();
}

#[test]
fn the_sleeping_member_of_a_ring_group_finds_out_that_the_other_has_answered() {
    let world = World::new("ring-group-asleep");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let carol = setting.daemon.hand_over(&setting.kamailio, &setting.push, "carol", Transport::Udp);
    let mut caller = setting.caller(CallerManners::default());

    let id = caller.call("everybody");
    setting.push.wait_for_call(2);
    let token = setting.push.token("carol", "call");
    let wake = setting.push.of_kind("call").into_iter().find(|push| push.token == token).expect("both were woken");
    let mut phone = setting.wake_phone(Make::Pjsip, Transport::Tls);
    phone.wait_ringing(&id);
    phone.answer();
    setting.wait_nothing_held();

    let late = Phone::start(&world, Make::Pjsip, &setting.daemon.attach(&carol, Transport::Tls));
    assert_told_ended(&late, &wake, "answered-elsewhere");
    caller.hang_up();
    phone.trace.of_call(&id).response(200, "BYE");
    assert!(late.trace.requests("INVITE").is_empty());
}

/// The 200 to the phone's REGISTER names the call that is over, and why.
#[track_caller]
fn assert_told_ended(phone: &Phone, wake: &Push, reason: &str) {
    let registered = phone.trace.response(200, "REGISTER");
    let told = format!("{};state=ended;reason={reason}", wake.word("call"));
    assert!(registered.headers("Reveille-Call").contains(&&*told), "{told} is not in {registered:?}");
}

/// The next call is the proof that none before it rang: it comes over the same flow, and it comes first.
#[track_caller]
fn assert_rings_for_the_next_call_only(setting: &Setting<'_>, mut caller: Phone, mut phone: Phone) {
    let id = caller.call("alice");
    phone.wait_ringing(&id);
    phone.answer();
    let heard = phone.trace.of_call(&id);
    heard.request("ACK");
    caller.hang_up();
    heard.response(200, "BYE");
    let rang = phone.trace.distinct("INVITE");
    assert_eq!(rang.len(), 1, "{rang:?}");
    setting.wait_nothing_held();
}
