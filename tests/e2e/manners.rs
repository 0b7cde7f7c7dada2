//! PBXs and apps with habits: the Contact's user, the app in the foreground, other contacts of the account, late screens.

use serde_json::{Value, json};

use crate::daemon::{Daemon, HandOver, SHORT_HOLD, Settings};
use crate::kamailio::{Kamailio, Manners, PASSWORD};
use crate::phones::{Attach, CallerManners, Make, Phone};
use crate::process::until;
use crate::push::{Provider, PushService};
use crate::setting::Setting;
use crate::world::{Transport, World};

/// A PBX that insists on the account's own name in the Contact; `drops` the capability that stands beside it, or does not.
fn is_called_by_username(drops: bool, trunk: Transport) {
    let world = World::new(&format!("username-{}-{drops}", trunk.name()));
    let kamailio = Kamailio::start(&world, &Manners { drop_contact_params: drops, ..Manners::default() });
    let push = PushService::start(&world, Provider::Fcm);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let more = json!({ "account": { "contact_style": "username" } });
    let instances = ["alice", "carol"].map(|user| {
        daemon.hand_over_from(&kamailio, &push, &HandOver { user, device: user, trunk, more: more.clone() })
    });
    for user in ["alice", "carol"] {
        let contacts = kamailio.bindings(user);
        assert!(contacts.len() == 1 && contacts[0].starts_with(&format!("sip:{user}@")), "{contacts:?}");
    }

    let mut caller = Phone::caller(&world, &kamailio, CallerManners::default());
    for (user, instance) in ["alice", "carol"].into_iter().zip(&instances) {
        let id = caller.call(user);
        push.wait_for("call", &push.token(user, "call"), 1);
        let mut phone = Phone::start(&world, Make::Pjsip, &daemon.attach(instance, Transport::Tls));
        phone.wait_ringing(&id);
        phone.answer();
        let heard = phone.trace.of_call(&id);
        heard.request("ACK");
        caller.hang_up();
        heard.response(200, "BYE");
        phone.kill();
    }
    assert_eq!(push.of_kind("call").len(), 2, "each was woken for its own call");
}

#[test]
fn an_account_registered_under_its_own_name_is_found_by_what_stands_beside_it() {
    is_called_by_username(false, Transport::Udp);
}

#[test]
fn an_account_whose_contact_lost_its_parameters_is_found_by_user_and_source() {
    is_called_by_username(true, Transport::Udp);
}

#[test]
fn an_account_whose_contact_lost_its_parameters_is_found_by_user_and_connection() {
    is_called_by_username(true, Transport::Tcp);
}

#[test]
fn the_app_in_the_foreground_has_its_binding_let_go_or_keeps_it() {
    for binding in ["release", "keep"] {
        let world = World::new(&format!("foreground-{binding}"));
        let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
        let more = json!({ "mode": "background" });
        let carol = HandOver { user: "carol", device: "carol", trunk: Transport::Udp, more };
        let carol = setting.daemon.hand_over_from(&setting.kamailio, &setting.push, &carol);

        let path = format!("/v1/instances/{}/foreground", carol.id);
        let answer = setting.daemon.ask("POST", &path, &carol.token, Some(&json!({ "binding": binding })));

        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        assert!(answer["receipt"].is_object(), "the secret is wiped: {answer}");
        let contacts = || setting.kamailio.bindings("carol");
        if binding == "keep" {
            assert_eq!(answer["binding"], "kept");
            assert_eq!(contacts(), [answer["contact"].as_str().expect("the app is told what to take over")]);
        } else {
            assert_eq!(answer["binding"], "released");
            until("the PBX to forget the binding", || contacts().is_empty().then_some(()));
        }
    }
}

#[test]
fn the_hand_over_tells_of_other_contacts_of_the_account() {
    let world = World::new("other-contacts");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let desk =
        Phone::start(&world, Make::Pjsip, &Attach::to(&setting.kamailio, "carol", PASSWORD, Transport::Udp, &world));
    desk.wait_registered();

    let carol = setting.daemon.hand_over(&setting.kamailio, &setting.push, "carol", Transport::Udp);

    let status = setting.daemon.status(&carol).json();
    assert_eq!(status["registration"]["other_contacts"], 1, "{status}");
    assert_eq!(setting.kamailio.bindings("carol").len(), 2);
}

/// A PBX that allows one contact: we take the place of the one there is, and give it back.
#[test]
fn a_takeover_takes_the_one_place_there_is_and_hands_it_back() {
    let world = World::new("takeover");
    let kamailio = Kamailio::start(&world, &Manners { max_contacts: 1, ..Manners::default() });
    let push = PushService::start(&world, Provider::Fcm);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let app = Phone::start(&world, Make::Pjsip, &Attach::to(&kamailio, "carol", PASSWORD, Transport::Udp, &world));
    app.wait_registered();
    let former = kamailio.bindings("carol");
    let hand_over = |mode: &str| {
        let more = json!({ "mode": mode });
        daemon.try_hand_over(&kamailio, &push, &HandOver { user: "carol", device: mode, trunk: Transport::Udp, more })
    };
    let path = |answer: &Value| format!("/v1/instances/{}", answer["instance"].as_str().unwrap_or_default());
    let refused = hand_over("always").json();
    assert_eq!(refused["registration"]["state"], "failing", "there is no place: {refused}");
    let token = refused["token"].as_str().expect("a token");
    assert_eq!(daemon.ask("DELETE", &path(&refused), token, None).status, 200);

    let taken = hand_over("takeover").json();
    assert_eq!(taken["registration"]["state"], "registered", "{taken}");
    assert_ne!(kamailio.bindings("carol"), former);
    assert_eq!(kamailio.bindings("carol").len(), 1);
    let foreground = format!("{}/foreground", path(&taken));
    let token = taken["token"].as_str().expect("a token");
    assert_eq!(daemon.ask("POST", &foreground, token, Some(&json!({}))).status, 200);

    until("the former contact to be back", || (kamailio.bindings("carol") == former).then_some(()));
}

/// The app does not attach: it registers at its PBX by itself, which calls it there, and calls us off when it answers.
#[test]
fn an_app_that_registers_at_its_pbx_when_woken_takes_the_call_there() {
    let world = World::new("reregister");
    let kamailio = Kamailio::start(&world, &Manners { forks_late: true, ..Manners::default() });
    let push = PushService::start(&world, Provider::Fcm);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let more = json!({ "hand_over": "reregister" });
    let carol = HandOver { user: "carol", device: "carol", trunk: Transport::Udp, more };
    let carol = daemon.hand_over_from(&kamailio, &push, &carol);
    let mut caller = Phone::caller(&world, &kamailio, CallerManners::default());

    let id = caller.call("carol");
    let wake = push.wait_for("call", &push.token("carol", "call"), 1);
    let mut phone =
        Phone::start(&world, Make::Pjsip, &Attach::to(&kamailio, "carol", PASSWORD, Transport::Udp, &world));
    phone.wait_ringing(&id);
    let heard = phone.trace.of_call(&id);
    assert_eq!(heard.request("INVITE").via_count(), 2, "straight from the PBX");
    phone.answer();
    heard.request("ACK");

    until("the daemon to step aside", || {
        let view = daemon.call(&carol, wake.word("call")).json();
        (view["state"] == "ended").then_some(())
    });
    caller.hang_up();
    heard.response(200, "BYE");
    assert!(push.of_kind("missed-call").is_empty() && push.of_kind("call-ended").is_empty());
}

/// An iPhone shows a call screen for each call push, and only SIP can close it.
#[test]
fn an_iphone_that_comes_after_the_end_gets_the_invite_and_its_cancel() {
    let world = World::new("late-iphone");
    let setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    let mut caller = setting.caller(CallerManners::default());
    let id = caller.call("alice");
    let wake = setting.push.wait_for_call(1);
    caller.hang_up();
    caller.trace.of_call(&id).response(487, "INVITE");

    let phone = setting.wake_phone(Make::Pjsip, Transport::Tls);

    let heard = phone.trace.of_call(&id);
    assert_eq!(heard.request("INVITE").header("Reveille-Call"), Some(wake.word("call")));
    heard.request("CANCEL");
    heard.response(487, "INVITE");
    heard.request("ACK");
    setting.wait_nothing_held();
}

#[test]
fn a_call_that_nobody_came_for_is_told_as_missed() {
    let world = World::new("missed");
    let settings = Settings { hold: SHORT_HOLD, ..Settings::default() };
    let setting = Setting::with(&world, Provider::Apns, Transport::Udp, &settings);
    let mut caller = setting.caller(CallerManners::default());

    let id = caller.call("alice");
    let wake = setting.push.wait_for_call(1);
    caller.trace.of_call(&id).response(480, "INVITE");

    let missed = setting.push.wait_for("missed-call", &setting.push.token("alice", "other"), 1);
    assert_eq!(missed.word("call"), wake.word("call"));
}

#[test]
fn an_app_that_asks_for_a_test_push_gets_one_and_is_told_the_times() {
    let world = World::new("self-test");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let path = format!("/v1/instances/{}/test", setting.alice.id);
    let token = &setting.alice.token;

    let asked = setting.daemon.ask("POST", &path, token, None);
    assert_eq!(asked.status, 202, "{asked:?}");
    let test = asked.json()["test"].as_str().expect("a test has a name").to_owned();
    let push = setting.push.wait_for("test", &setting.push.token("alice", "call"), 1);
    assert_eq!(push.word("test"), test);
    let told = setting.daemon.ask("POST", &format!("{path}/{test}"), token, None).json();

    for time in ["accepted_ms", "arrived_ms"] {
        assert!(told[time].is_u64(), "{told}");
    }
}
