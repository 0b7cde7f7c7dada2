//! Two devices of one account: one binding at the PBX, both ring, the first to answer wins.

use serde_json::json;

use crate::daemon::{HandOver, Instance};
use crate::kamailio::PASSWORD;
use crate::phones::{CallerManners, Make, Order};
use crate::process::until;
use crate::push::Provider;
use crate::setting::Setting;
use crate::world::{Transport, World};

/// The name of alice's second device.
const TABLET: &str = "alice-tablet";

/// Hands alice's account over from her second device.
#[track_caller]
fn share(setting: &Setting<'_>, trunk: Transport) -> Instance {
    let hand_over = HandOver { user: "alice", device: TABLET, trunk, more: json!({}) };
    setting.daemon.hand_over_from(&setting.kamailio, &setting.push, &hand_over)
}

fn first_answer_wins(winner: Make, loser: Make, attach: Transport) {
    let world = World::new(&format!("two-devices-{winner:?}-{loser:?}").to_lowercase());
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let tablet = share(&setting, Transport::Udp);
    assert_ne!(tablet.id, setting.alice.id);
    assert_eq!(setting.kamailio.bindings("alice").len(), 1, "the PBX knows one contact");
    let mut caller = setting.caller(CallerManners::default());

    let id = caller.call("alice");
    let (to_phone, to_tablet) = (setting.push.token("alice", "call"), setting.push.token(TABLET, "call"));
    let wakes = [to_phone, to_tablet].map(|token| setting.push.wait_for("call", &token, 1));
    assert_ne!(wakes[0].word("call"), wakes[1].word("call"), "each device has its own name for it");
    let mut first = setting.wake_phone(winner, attach);
    let other = setting.wake_phone_of(&tablet, loser, attach);
    first.wait_ringing(&id);
    other.wait_ringing(&id);
    first.answer();

    let cancel = other.trace.of_call(&id).request("CANCEL");
    let reason = cancel.header("Reason").unwrap_or_default();
    assert!(reason.starts_with("SIP") && reason.contains("cause=200"), "{cancel:?}");
    other.trace.of_call(&id).response(487, "INVITE");
    first.trace.of_call(&id).request("ACK");
    first.hang_up();
    caller.trace.of_call(&id).request("BYE");
    first.trace.of_call(&id).response(200, "BYE");
    let answered: Vec<_> = caller.trace.of_call(&id).messages();
    assert!(!answered.iter().any(|message| message.is_response(487, "INVITE")), "one final for the caller");
    assert!(setting.push.of_kind("missed-call").is_empty(), "an answered call is not missed");
    setting.wait_nothing_held();
}

#[test]
fn linphone_falls_silent_when_pjsip_answers() {
    first_answer_wins(Make::Pjsip, Make::Linphone, Transport::Tls);
}

#[test]
fn baresip_falls_silent_when_linphone_answers() {
    first_answer_wins(Make::Linphone, Make::Baresip, Transport::Tcp);
}

#[test]
fn pjsip_falls_silent_when_baresip_answers() {
    first_answer_wins(Make::Baresip, Make::Pjsip, Transport::Udp);
}

#[test]
fn a_device_that_still_sleeps_is_told_that_the_other_has_answered() {
    let world = World::new("two-devices-one-sleeps");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Tcp);
    let tablet = share(&setting, Transport::Tcp);
    let mut caller = setting.caller(CallerManners::default());

    let id = caller.call("alice");
    let token = setting.push.token(TABLET, "call");
    let wake = setting.push.wait_for("call", &token, 1);
    let mut phone = setting.wake_phone(Make::Pjsip, Transport::Tls);
    phone.wait_ringing(&id);
    phone.answer();

    let ended = setting.push.wait_for("call-ended", &setting.push.token(TABLET, "other"), 1);
    assert_eq!(ended.word("call"), wake.word("call"));
    let late = setting.wake_phone_of(&tablet, Make::Pjsip, Transport::Tls);
    let told = format!("{};state=ended;reason=answered-elsewhere", wake.word("call"));
    assert!(late.trace.response(200, "REGISTER").headers("Reveille-Call").contains(&&*told));
    caller.hang_up();
    phone.trace.of_call(&id).response(200, "BYE");
    assert!(late.trace.requests("INVITE").is_empty());
}

#[test]
fn a_call_that_one_device_declines_rings_on_at_the_other() {
    let world = World::new("two-devices-one-declines");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let tablet = share(&setting, Transport::Udp);
    let mut caller = setting.caller(CallerManners::default());

    let id = caller.call("alice");
    setting.push.wait_for("call", &setting.push.token(TABLET, "call"), 1);
    let mut phone = setting.wake_phone(Make::Pjsip, Transport::Tls);
    let mut other = setting.wake_phone_of(&tablet, Make::Linphone, Transport::Tcp);
    phone.wait_ringing(&id);
    other.wait_ringing(&id);
    phone.obey(Order::Decline(486));
    phone.trace.of_call(&id).request("ACK");
    other.answer();

    other.trace.of_call(&id).request("ACK");
    caller.hang_up();
    other.trace.of_call(&id).response(200, "BYE");
    assert!(!caller.trace.of_call(&id).messages().iter().any(|message| message.is_response(486, "INVITE")));
}

#[test]
fn the_binding_stays_until_the_last_device_leaves() {
    let world = World::new("two-devices-leave");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let tablet = share(&setting, Transport::Udp);
    let contact = setting.kamailio.bindings("alice");

    setting.daemon.erase(&setting.alice);
    assert_eq!(setting.kamailio.bindings("alice"), contact);
    let mut caller = setting.caller(CallerManners::default());
    let id = caller.call("alice");
    setting.push.wait_for("call", &setting.push.token(TABLET, "call"), 1);
    let mut phone = setting.wake_phone_of(&tablet, Make::Pjsip, Transport::Tls);
    phone.wait_ringing(&id);
    phone.answer();
    phone.trace.of_call(&id).request("ACK");
    caller.hang_up();
    phone.trace.of_call(&id).response(200, "BYE");

    setting.daemon.erase(&tablet);
    until("the PBX to forget the binding", || setting.kamailio.bindings("alice").is_empty().then_some(()));
}

#[test]
fn a_device_without_the_credentials_gets_no_share() {
    let world = World::new("two-devices-stranger");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let refused = setting.daemon.try_hand_over(
        &setting.kamailio,
        &setting.push,
        &HandOver {
            user: "alice",
            device: "mallory",
            trunk: Transport::Udp,
            more: json!({ "account": { "password": format!("not-{PASSWORD}") } }),
        },
    );
    assert_eq!(refused.status, 422, "{refused:?}");

    let mut talk = setting.talk(Make::Pjsip, Transport::Tls);
    talk.caller.hang_up();
    talk.heard_by_phone().response(200, "BYE");
    assert!(setting.push.accepted().iter().all(|push| push.token != setting.push.token("mallory", "call")));
}
