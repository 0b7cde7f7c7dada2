//! Calls of phones that register through us, in both directions.

use std::collections::BTreeSet;

use reveille::engine::output::{PushOutcome, WakeKind};
use reveille::sip::{HeaderName, Message, Method, Transport};

use super::rig::{From, Mobile, Push, Rig, answered, handle_of, inside, line, outside, token, value};
use crate::sip_text::{Dialog, call_id, code, contact, uri, values};
use crate::world::build::{DOMAIN, PBX, address};
use crate::world::{millis, minutes, secs};

#[test]
fn a_call_is_held_for_a_sleeping_phone_and_released_once_by_the_register_that_succeeded() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    rig.close(5);
    ring(&mut rig, &handle, "call");
    assert_eq!(codes(&rig.take(PBX)), [100, 180]);
    let expected = Push {
        kind: WakeKind::Call,
        token: token("alice"),
        purpose: reveille::engine::input::PushPurpose::Call,
        app: "com.example.phone".to_owned(),
    };
    assert_eq!(rig.pushes, [expected]);

    // Challenged, refused: nothing is released.
    phone.at = From::Tcp(6, address("203.0.113.6:1"));
    for refusal in [401, 403, 503] {
        rig.receive(&phone.register(), phone.at);
        let passed = rig.one(PBX);
        rig.answer(&passed, refusal, &[]);
        assert_eq!(codes(&rig.take("flow 6")), [refusal]);
    }
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    assert!(rig.take("flow 6").is_empty(), "not before the registrar has spoken");
    rig.grant(&passed, 3600);
    let out = rig.take("flow 6");
    assert_eq!(code(&out[0]), 200, "the answer first");
    assert_eq!(line(&out[1]), format!("INVITE {} SIP/2.0", phone.uri));
    assert_eq!(out.len(), 2);

    // Another REGISTER on the same connection rings no second time.
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 3600);
    assert_eq!(codes(&rig.take("flow 6")), [200]);

    let invite = &out[1];
    rig.receive(&answered(invite, 200, "alice", &phone.uri), phone.at);
    let ok = rig.one(PBX);
    assert_eq!(code(&ok), 200);
    assert!(!value(&ok, HeaderName::Contact).contains("pn-"), "the push token is told to nobody");
    assert_eq!(rig.pushed(), [WakeKind::Call]);
}

#[test]
fn a_caller_is_answered_at_once_where_no_push_reaches_a_phone_that_is_long_away() {
    for mut phone in [Mobile::tcp("alice", 5), Mobile::udp("alice", 9)] {
        let mut rig = Rig::new();
        rig.outcome = PushOutcome::OurFault("403 InvalidProviderToken".to_owned());
        let handle = phone.come(&mut rig);
        rig.close(5);
        rig.pass(secs(63));
        ring(&mut rig, &handle, "call");
        assert_eq!(codes(&rig.take(PBX)), [100, 480]);
        assert_eq!(rig.pushed().first(), Some(&WakeKind::Call));
    }
}

#[test]
fn a_phone_that_is_away_since_a_moment_may_come_back_though_no_push_reaches_it() {
    let mut rig = Rig::new();
    rig.outcome = PushOutcome::OurFault("403 InvalidProviderToken".to_owned());
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    rig.close(5);
    rig.pass(secs(20));
    ring(&mut rig, &handle, "call");
    assert_eq!(codes(&rig.take(PBX)), [100]);
    rig.pass(secs(10));
    phone.at = From::Tcp(6, address("203.0.113.6:1"));
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 3600);
    let out = rig.take("flow 6");
    assert_eq!(line(&out[1]), format!("INVITE {} SIP/2.0", phone.uri));

    rig.close(6);
    rig.take("flow 6");
    rig.pass(secs(40));
    ring(&mut rig, &handle, "another");
    let refused: BTreeSet<_> = rig.take(PBX).iter().filter(|it| code(it) == 480).map(call_id).collect();
    assert_eq!(refused.len(), 2, "both calls");
}

#[test]
fn a_phone_with_an_alert_token_only_is_woken_by_an_alert() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.uri = "sip:alice@192.168.1.5;pn-provider=apns;pn-param=ABCDE12345.com.example.phone;pn-prid=77".to_owned();
    let handle = phone.come(&mut rig);
    rig.close(5);
    ring(&mut rig, &handle, "call");
    let push = rig.pushes.remove(0);
    assert_eq!((push.kind, push.token.as_str()), (WakeKind::Call, "77"));
    assert_eq!(push.purpose, reveille::engine::input::PushPurpose::Other);
}

#[test]
fn a_phone_that_listens_gets_the_call_at_once_and_a_push_only_if_it_stays_silent() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    ring(&mut rig, &handle, "first");
    let invite = rig.one("flow 5");
    rig.receive(&answered(&invite, 180, "alice", &phone.uri), phone.at);
    rig.pass(secs(1));
    assert!(rig.pushes.is_empty());
    rig.receive(&answered(&invite, 486, "alice", &phone.uri), phone.at);
    let _ = rig.take("flow 5");
    assert_eq!(codes(&rig.take(PBX)), [100, 180, 486]);

    ring(&mut rig, &handle, "second");
    assert_eq!(rig.take("flow 5").len(), 1);
    rig.pass(millis(600));
    assert_eq!(rig.pushed(), [WakeKind::Call]);
}

#[test]
fn datagrams_are_trusted_for_a_moment_only() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    let handle = phone.come(&mut rig);
    ring(&mut rig, &handle, "at once");
    assert_eq!(rig.take(&phone.name()).len(), 1);
    // Until the first call is over, and nothing of it is on its way any more.
    rig.pass(secs(200));
    let _ = (rig.take(&phone.name()), rig.take(PBX), rig.pushed());

    ring(&mut rig, &handle, "later");
    assert_eq!(rig.pushed(), [WakeKind::Call]);
    assert!(rig.take(&phone.name()).is_empty(), "nothing goes to an address that may be another's by now");
    let _ = rig.take(PBX);
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 3600);
    let out = rig.take(&phone.name());
    assert_eq!((code(&out[0]), out.len()), (200, 2));
    assert!(line(&out[1]).starts_with("INVITE "));
}

#[test]
fn nobody_comes_and_the_caller_gets_480() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    rig.close(5);
    ring(&mut rig, &handle, "call");
    rig.pass(secs(46));
    assert_eq!(codes(&rig.take(PBX))[..3], [100, 180, 480]);
}

#[test]
fn a_registration_that_ends_takes_its_held_calls_along() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.expires = 60;
    let handle = phone.come(&mut rig);
    rig.close(5);
    rig.pass(secs(50));
    ring(&mut rig, &handle, "call");
    rig.pass(secs(11));
    assert_eq!(codes(&rig.take(PBX))[..3], [100, 180, 480]);
    ring(&mut rig, &handle, "late");
    assert!(rig.take(PBX).is_empty(), "a stranger by now, asking for nobody");
}

#[test]
fn a_call_that_came_too_late_for_a_registration_is_refused_for_good_though_the_phone_comes_back() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.expires = 60;
    let handle = phone.come(&mut rig);
    let mut desk = Mobile::udp("bob", 7);
    desk.come(&mut rig);
    rig.pass(secs(61));
    ring(&mut rig, &handle, "call");
    assert_eq!(codes(&rig.take(PBX)), [404]);
    assert_eq!(phone.come(&mut rig), handle, "known by the same name again");
    ring(&mut rig, &handle, "call");
    assert_eq!(codes(&rig.take(PBX)), [404], "repeated, since the first 404 was lost");
    rig.assert_silent();
    ring(&mut rig, &handle, "another");
    assert_eq!(rig.take("flow 5").len(), 1);
}

#[test]
fn other_requests_to_a_sleeping_phone_wake_nobody_but_a_text_is_kept_and_brought() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    let to = format!("sip:{handle}@192.0.2.5");
    let ask = |rig: &mut Rig, method: Method<'_>, name: &str| {
        rig.receive(&outside(method, &to, name, &[("Event", "message-summary")]), From::Udp(address(PBX)));
    };
    ask(&mut rig, Method::Options, "awake-options");
    assert_eq!(codes(&rig.take(PBX)), [200], "by ourselves");
    ask(&mut rig, Method::Message, "awake-message");
    let message = rig.one("flow 5");
    assert_eq!(uri(&message), phone.uri);
    rig.receive(&answered(&message, 200, "alice", &phone.uri), phone.at);
    assert_eq!(codes(&rig.take(PBX)), [200]);
    rig.close(5);
    ask(&mut rig, Method::Options, "options");
    ask(&mut rig, Method::Notify, "notify");
    assert_eq!(codes(&rig.take(PBX)), [200, 200]);
    assert!(rig.pushes.is_empty());
    ask(&mut rig, Method::Message, "message");
    assert_eq!(codes(&rig.take(PBX)), [202]);
    assert_eq!(rig.pushed(), [WakeKind::Message]);
    phone.at = From::Tcp(6, address("203.0.113.6:1"));
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 600);
    let out = rig.take("flow 6");
    assert_eq!((code(&out[0]), out.len()), (200, 2));
    assert!(line(&out[1]).starts_with("MESSAGE "), "{}", line(&out[1]));
}

#[test]
fn a_phones_own_call_goes_to_its_registrar_and_its_requests_inside_travel_both_ways() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    let wanted = format!("sip:bob@{DOMAIN}");
    let invite = phone.request(Method::Invite, &wanted, "out", &[("Proxy-Authorization", "Digest username=\"alice\"")]);
    rig.receive(&invite, phone.at);
    assert_eq!(codes(&rig.take("flow 5")), [100]);
    let sent = rig.one(PBX);
    assert_eq!(uri(&sent), wanted);
    assert!(values(&sent, HeaderName::Route).is_empty());
    assert_eq!(value(&sent, HeaderName::Contact), "<sip:alice@192.168.1.5:5060;ob>", "no push token leaves");
    assert_eq!(value(&sent, HeaderName::ProxyAuthorization), "Digest username=\"alice\"", "untouched");
    let routes = values(&sent, HeaderName::RecordRoute);
    assert_eq!(routes.len(), 2, "one for each transport");
    assert!(routes[0].ends_with("transport=udp;lr>") && routes[1].ends_with("transport=tcp;lr>"), "{routes:?}");

    let bob = format!("sip:bob@{PBX}");
    rig.receive(&answered(&sent, 200, "bob", &bob), From::Udp(address(PBX)));
    let ok = rig.one("flow 5");
    let mut alice = Dialog::of_caller(&invite, &ok);
    let mut far = Dialog::of_callee(&sent, "bob");
    alice.cseq -= 1;
    rig.receive(&inside(&mut alice, Method::Ack, Transport::Tcp, &[]), phone.at);
    assert_eq!(line(&rig.one(PBX)), format!("ACK {bob} SIP/2.0"));

    rig.receive(
        &inside(&mut far, Method::Invite, Transport::Udp, &[("Contact", "<sip:bob@x>")]),
        From::Udp(address(PBX)),
    );
    let again = rig.one("flow 5");
    assert!(line(&again).starts_with("INVITE sip:alice@192.168.1.5:5060;ob"));
    let _ = rig.take(PBX);
    rig.receive(&answered(&again, 200, "alice", &phone.uri), phone.at);
    assert_eq!(codes(&rig.take(PBX)), [200]);

    rig.receive(&inside(&mut alice, Method::Bye, Transport::Tcp, &[]), phone.at);
    let bye = rig.one(PBX);
    assert_eq!(line(&bye), format!("BYE {bob} SIP/2.0"));
    rig.receive(&answered(&bye, 200, "bob", &bob), From::Udp(address(PBX)));
    assert_eq!(codes(&rig.take("flow 5")), [200]);
    rig.pass(minutes(2));
    assert_eq!((rig.table("calls.dialogs"), rig.table("calls.relays")), (0, 0));
}

#[test]
fn wherever_a_phone_wants_its_request_to_go_it_goes_to_its_registrar() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    let elsewhere = "sip:victim@203.0.113.99:5060";
    for (number, method) in
        [Method::Invite, Method::Subscribe, Method::Message, Method::Publish, Method::Refer, Method::Options]
            .into_iter()
            .enumerate()
    {
        let name = format!("call-{number}");
        let extra = [("Route", "<sip:203.0.113.99;lr>"), ("Route", "<sip:198.51.100.99>")];
        rig.receive(&phone.request(method, elsewhere, &name, &extra), phone.at);
        let sent = rig.one(PBX);
        assert_eq!(sent.method(), Some(method));
        assert!(values(&sent, HeaderName::Route).is_empty());
        let begins = matches!(method, Method::Invite | Method::Subscribe | Method::Refer);
        assert_eq!(values(&sent, HeaderName::RecordRoute).len(), if begins { 2 } else { 0 }, "{method:?}");
        rig.answer(&sent, 202, &[]);
        let _ = rig.take("flow 5");
        rig.assert_silent();
    }
}

#[test]
fn strangers_and_phones_without_a_confirmed_registration_send_nothing_through_us() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    let wanted = format!("sip:bob@{DOMAIN}");
    rig.receive(&phone.request(Method::Invite, &wanted, "too-early", &[]), phone.at);
    rig.assert_silent();
    phone.come(&mut rig);
    for stranger in [From::Udp(address("203.0.113.1:40001")), From::Udp(address("203.0.113.2:40000"))] {
        let mut thief = Mobile::new("alice", stranger);
        rig.receive(&thief.request(Method::Invite, &wanted, "theft", &[]), thief.at);
        assert!(rig.take(PBX).is_empty());
    }
    let mut other = Mobile::udp("bob", 1);
    rig.receive(&other.request(Method::Invite, &wanted, "another-name", &[]), other.at);
    assert!(rig.take(PBX).is_empty(), "From must be the address it registered");
    let answers: Vec<_> = rig.take(&phone.name()).iter().map(code).collect();
    assert!(answers.iter().all(|code| *code == 403), "{answers:?}");
}

#[test]
fn a_phone_cancels_its_own_call_and_a_refused_one_leaves_nothing() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    let wanted = format!("sip:bob@{DOMAIN}");
    let invite = phone.request(Method::Invite, &wanted, "cancelled", &[]);
    rig.receive(&invite, phone.at);
    let sent = rig.one(PBX);
    rig.answer(&sent, 180, &[]);
    let mut cancel = Vec::new();
    reveille::sip::proxy::write_cancel(&invite, None, &mut cancel).expect("a CANCEL");
    rig.receive(&Message::parse_datagram(cancel).expect("a CANCEL"), phone.at);
    let passed = rig.one(PBX);
    assert_eq!(passed.method(), Some(Method::Cancel));
    rig.answer(&passed, 200, &[]);
    rig.answer(&sent, 487, &[]);
    assert_eq!(rig.one(PBX).method(), Some(Method::Ack));
    assert_eq!(codes(&rig.take("flow 5")), [100, 180, 200, 487]);

    rig.receive(&phone.request(Method::Invite, &wanted, "refused", &[]), phone.at);
    let sent = rig.one(PBX);
    rig.answer(&sent, 407, &[("Proxy-Authenticate", "Digest realm=\"pbx\",nonce=\"n\"".to_owned())]);
    let answers = rig.take("flow 5");
    assert_eq!(codes(&answers), [100, 407]);
    assert!(answers[1].header(HeaderName::ProxyAuthenticate).is_some());
    rig.pass(minutes(16));
    let _ = (rig.take("flow 5"), rig.take(PBX));
    assert_eq!((rig.table("calls.dialogs"), rig.table("calls.relays")), (0, 0));
}

/// alice → PBX → bob, both phones through us and the PBX a mere proxy: one Call-ID, one From tag, one CSeq, twice here.
#[test]
fn a_legal_spiral_is_no_loop() {
    let mut rig = Rig::new();
    let mut alice = Mobile::tcp("alice", 5);
    let mut bob = Mobile::udp("bob", 7);
    alice.come(&mut rig);
    let handle = bob.come(&mut rig);
    rig.pass(secs(40));
    let invite = alice.request(Method::Invite, &format!("sip:bob@{DOMAIN}"), "spiral", &[]);
    rig.receive(&invite, alice.at);
    assert_eq!(codes(&rig.take("flow 5")), [100]);
    let at_pbx = rig.one(PBX);
    let spiral = proxied(&at_pbx, &format!("sip:{handle}@192.0.2.5:5060"), "there");
    rig.receive(&spiral, From::Udp(address(PBX)));
    assert_eq!(codes(&rig.take(PBX)), [100, 180], "held for bob, not 482");
    assert_eq!(rig.pushed(), [WakeKind::Call]);
    rig.receive(&bob.register(), bob.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 3600);
    let out = rig.take(&bob.name());
    let at_bob = &out[1];
    assert_eq!(uri(at_bob), bob.uri);
    let routes = values(at_bob, HeaderName::RecordRoute);
    assert_eq!(routes.len(), 3, "bob's side once, alice's twice: {routes:?}");

    rig.receive(&answered(at_bob, 200, "bob", "sip:bob@192.168.1.7"), bob.at);
    let back = rig.one(PBX);
    rig.receive(&unproxied(&back), From::Udp(address(PBX)));
    let ok = rig.one("flow 5");
    assert_eq!((code(&ok), contact(&ok).as_deref()), (200, Some("sip:bob@192.168.1.7")));

    let mut near = Dialog::of_caller(&invite, &ok);
    let bye = inside(&mut near, Method::Bye, Transport::Tcp, &[]);
    rig.receive(&bye, alice.at);
    let at_pbx = rig.one(PBX);
    assert_eq!(values(&at_pbx, HeaderName::Route).len(), 1, "the rest is bob's side of us");
    rig.receive(&proxied(&at_pbx, "sip:bob@192.168.1.7", "bye"), From::Udp(address(PBX)));
    let at_bob = rig.one(&bob.name());
    assert_eq!(line(&at_bob), "BYE sip:bob@192.168.1.7 SIP/2.0");
    assert!(values(&at_bob, HeaderName::Route).is_empty());
    rig.receive(&answered(&at_bob, 200, "bob", "sip:bob@192.168.1.7"), bob.at);
    let back = rig.one(PBX);
    rig.receive(&unproxied(&back), From::Udp(address(PBX)));
    assert_eq!(codes(&rig.take("flow 5")), [200]);
}

#[test]
fn a_phone_that_signs_off_in_a_call_still_gets_its_bye() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    let invite = phone.request(Method::Invite, &format!("sip:bob@{DOMAIN}"), "out", &[]);
    rig.receive(&invite, phone.at);
    let sent = rig.one(PBX);
    rig.receive(&answered(&sent, 200, "bob", "sip:bob@x"), From::Udp(address(PBX)));
    phone.expires = 0;
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    assert!(!handle_of(&passed).is_empty());
    rig.answer(&passed, 200, &[]);
    assert_eq!((rig.table("pass.bindings"), rig.table("pass.lingering")), (0, 1));
    let _ = rig.take("flow 5");
    let mut far = Dialog::of_callee(&sent, "bob");
    rig.receive(&inside(&mut far, Method::Bye, Transport::Udp, &[]), From::Udp(address(PBX)));
    let bye = rig.one("flow 5");
    assert_eq!(bye.method(), Some(Method::Bye));
    rig.receive(&answered(&bye, 200, "alice", "sip:alice@x"), phone.at);
    rig.pass(minutes(2));
    assert_eq!(rig.table("pass.lingering"), 0);
}

fn ring(rig: &mut Rig, handle: &str, name: &str) {
    let name = name.replace(' ', "-");
    rig.receive(&outside(Method::Invite, &format!("sip:{handle}@192.0.2.5:5060"), &name, &[]), From::Udp(address(PBX)));
}

fn codes(messages: &[Message]) -> Vec<u16> {
    messages.iter().map(code).collect()
}

/// What a PBX that is a mere proxy makes of a request: its Via on top, its Route taken off where it is its own.
fn proxied(request: &Message, target: &str, branch: &str) -> Message {
    use reveille::sip::proxy::{Forward, OwnVia, write_forward};
    let branch = format!("z9hG4bK-proxy-{branch}");
    let change = Forward {
        request_uri: target.as_bytes(),
        via: OwnVia { transport: Transport::Udp, sent_by: PBX, branch: &branch },
        routes_dropped: 0,
        record_routes: &[],
        extra: &[],
    };
    let mut out = Vec::new();
    write_forward(request, Some((address("192.0.2.5:5060"), Transport::Udp)), &change, &mut out);
    Message::parse_datagram(out).expect("a request")
}

fn unproxied(response: &Message) -> Message {
    let mut out = Vec::new();
    reveille::sip::proxy::write_forward_response(response, None, &mut out);
    Message::parse_datagram(out).expect("a response")
}

#[test]
fn one_phone_cannot_fill_the_room_for_requests() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    let wanted = format!("sip:bob@{DOMAIN}");
    for call in 0..33 {
        let invite = phone.request(Method::Invite, &wanted, &format!("out-{call}"), &[]);
        rig.receive(&invite, phone.at);
    }
    let answers = codes(&rig.take("flow 5"));
    assert_eq!(answers.iter().filter(|code| **code == 100).count(), 32);
    assert_eq!(answers.last(), Some(&503));
    let _ = rig.take(PBX);
}
