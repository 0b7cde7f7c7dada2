//! Why did the phone not ring? The daemon tells the device and its operator.

use serde_json::Value;

use crate::daemon::{SHORT_HOLD, Settings};
use crate::phones::{CallerManners, Make};
use crate::process::until;
use crate::push::{Provider, Push};
use crate::setting::Setting;
use crate::world::{Transport, World};

/// What happened to a call, as its device is told.
#[track_caller]
fn story(setting: &Setting<'_>, wake: &Push) -> Vec<Value> {
    let view = setting.daemon.call(&setting.alice, wake.word("call")).json();
    let story = view["story"].as_array().unwrap_or_else(|| panic!("no story in {view}"));
    let times: Vec<_> = story.iter().map(|event| event["ms"].as_u64().expect("every event has its time")).collect();
    assert!(times.is_sorted(), "{story:?}");
    story.clone()
}

fn names(story: &[Value]) -> Vec<&str> {
    story.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[test]
fn the_story_of_an_answered_call_has_every_step_in_its_order() {
    let world = World::new("story-answered");
    let setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    let mut caller = setting.caller(CallerManners::default());
    let id = caller.call("alice");
    let wake = setting.push.wait_for_call(1);
    // The phone may have the push before the daemon has the provider's word for it.
    until("the push to be accepted", || names(&story(&setting, &wake)).contains(&"wake-accepted").then_some(()));
    let mut phone = setting.wake_phone(Make::Pjsip, Transport::Tls);
    phone.wait_ringing(&id);
    phone.answer();
    phone.trace.of_call(&id).request("ACK");

    let told = story(&setting, &wake);
    let steps = ["invited", "wake-sent", "wake-accepted", "attached", "forwarded", "ringing", "answered"];
    assert_eq!(names(&told), steps, "{told:?}");
    let listed = setting.daemon.calls();
    assert!(listed.contains(wake.word("call")), "{listed}");
    assert!(!listed.contains("bob") && !listed.contains("alice"), "nobody is named: {listed}");
    caller.hang_up();
    phone.trace.of_call(&id).response(200, "BYE");
}

#[test]
fn the_story_of_a_call_that_nobody_came_for_says_so() {
    let world = World::new("story-no-device");
    let settings = Settings { hold: SHORT_HOLD, ..Settings::default() };
    let setting = Setting::with(&world, Provider::Fcm, Transport::Tcp, &settings);
    let mut caller = setting.caller(CallerManners::default());
    let id = caller.call("alice");
    let wake = setting.push.wait_for_call(1);
    caller.trace.of_call(&id).response(480, "INVITE");

    let told = story(&setting, &wake);

    assert_eq!(names(&told), ["invited", "wake-sent", "wake-accepted", "ended"], "{told:?}");
    assert_eq!(told[3]["reason"], "no-device");
}

#[test]
fn a_push_that_google_does_not_take_at_first_is_sent_again_and_the_phone_rings() {
    let world = World::new("story-sent-again");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    setting.push.refuse_next(401, "UNAUTHENTICATED");
    setting.push.refuse_next(503, "UNAVAILABLE");
    let mut talk = setting.talk(Make::Pjsip, Transport::Tls);

    let told = story(&setting, &talk.wake);
    let sends = ["wake-sent", "wake-failed", "wake-sent", "wake-failed", "wake-sent", "wake-accepted"];
    assert_eq!(names(&told)[1..7], sends, "{told:?}");
    talk.caller.hang_up();
    talk.heard_by_phone().response(200, "BYE");
}

#[test]
fn a_call_whose_push_is_refused_for_good_is_answered_at_once_and_the_operator_reads_why() {
    let world = World::new("story-refused");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    setting.push.refuse_next(403, "SENDER_ID_MISMATCH");
    let mut caller = setting.caller(CallerManners::default());
    let id = caller.call("alice");
    caller.trace.of_call(&id).response(480, "INVITE");
    let listed = setting.daemon.calls();
    assert!(listed.contains("misconfigured"), "{listed}");
}
