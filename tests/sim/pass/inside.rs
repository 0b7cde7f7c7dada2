//! Requests inside calls for a phone that sleeps meanwhile (RFC 8599 §6).

use reveille::engine::output::WakeKind;
use reveille::sip::{HeaderName, Message, Method, Transport};

use super::rig::{From, Mobile, Rig, answered, inside, line, value};
use crate::sip_text::{Dialog, code, uri};
use crate::world::build::{DOMAIN, PBX, address};
use crate::world::{minutes, secs};

#[test]
fn they_wait_for_a_phone_that_asked_for_it_and_go_on_after_its_register() {
    for method in [Method::Invite, Method::Update, Method::Bye] {
        let (mut rig, mut phone, mut far) = asleep_in_a_call(true);
        let request = inside(&mut far, method, Transport::Udp, &[("Contact", "<sip:bob@x>")]);
        rig.receive(&request, From::Udp(address(PBX)));
        assert_eq!(rig.pushed(), [WakeKind::Refresh], "{method:?}");
        let trying = codes(&rig.take(PBX));
        assert_eq!(trying, if method == Method::Invite { vec![100] } else { Vec::new() });
        rig.receive(&request, From::Udp(address(PBX)));
        assert!(rig.pushes.is_empty(), "a repetition wakes nobody");
        let _ = rig.take(PBX);

        rig.receive(&phone.register(), phone.at);
        let passed = rig.one(PBX);
        rig.answer(&passed, 403, &[]);
        assert_eq!(codes(&rig.take("flow 6")), [403], "a REGISTER that fails releases nothing");
        rig.receive(&phone.register(), phone.at);
        let passed = rig.one(PBX);
        rig.grant(&passed, 3600);
        let out = rig.take("flow 6");
        assert_eq!((code(&out[0]), out.len()), (200, 2), "{method:?}");
        assert_eq!(out[1].method(), Some(method));
        assert_eq!(uri(&out[1]), far.target, "its own Contact, pn-purr and all");
        rig.receive(&answered(&out[1], 200, "alice", "sip:alice@x"), phone.at);
        assert_eq!(codes(&rig.take(PBX)).last(), Some(&200));
        assert_eq!(rig.table("pass.inside"), 0);
    }
}

#[test]
fn whoever_waits_too_long_gets_its_answer_before_its_own_timer() {
    let (mut rig, _, mut far) = asleep_in_a_call(true);
    rig.receive(&inside(&mut far, Method::Bye, Transport::Udp, &[]), From::Udp(address(PBX)));
    rig.pass(secs(21));
    assert_eq!(codes(&rig.take(PBX)), [480]);
    rig.pass(minutes(2));
    assert_eq!((rig.table("pass.inside"), rig.table("calls.dialogs")), (0, 0));
}

#[test]
fn a_re_invite_given_up_while_it_waits_is_answered_at_once() {
    let (mut rig, _, mut far) = asleep_in_a_call(true);
    let invite = inside(&mut far, Method::Invite, Transport::Udp, &[("Contact", "<sip:bob@x>")]);
    rig.receive(&invite, From::Udp(address(PBX)));
    assert_eq!(codes(&rig.take(PBX)), [100]);
    let mut cancel = Vec::new();
    reveille::sip::proxy::write_cancel(&invite, None, &mut cancel).expect("a CANCEL");
    rig.receive(&Message::parse_datagram(cancel).expect("a CANCEL"), From::Udp(address(PBX)));
    let mut answers = codes(&rig.take(PBX));
    answers.sort_unstable();
    assert_eq!(answers, [100, 200, 480]);
    assert_eq!(rig.table("pass.inside"), 0);
}

#[test]
fn a_request_that_cannot_be_forwarded_is_refused_at_once_and_wakes_no_phone() {
    let (mut rig, _, mut far) = asleep_in_a_call(true);
    let odd = inside(&mut far, Method::Update, Transport::Udp, &[("Proxy-Require", "dance")]);
    rig.receive(&odd, From::Udp(address(PBX)));
    assert_eq!(codes(&rig.take(PBX)), [420]);
    assert!(rig.pushes.is_empty());
    assert_eq!(rig.table("pass.inside"), 0);
}

#[test]
fn a_phone_that_did_not_ask_for_it_is_not_woken() {
    let (mut rig, _, mut far) = asleep_in_a_call(false);
    rig.receive(&inside(&mut far, Method::Update, Transport::Udp, &[]), From::Udp(address(PBX)));
    assert_eq!(codes(&rig.take(PBX)), [480]);
    assert!(rig.pushes.is_empty());
}

#[test]
fn another_phones_name_wakes_nobody() {
    let (mut rig, _, mut far) = asleep_in_a_call(true);
    let mut other = Mobile::tcp("bob", 9);
    other.come(&mut rig);
    let (before, _) = far.target.split_once("pn-purr=").expect("its name");
    far.target = format!("{before}pn-purr=aaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    rig.receive(&inside(&mut far, Method::Update, Transport::Udp, &[]), From::Udp(address(PBX)));
    assert_eq!(codes(&rig.take(PBX)), [480]);
    assert!(rig.pushes.is_empty());
}

/// alice has called bob, and sleeps; the far side's view of the call.
fn asleep_in_a_call(purr: bool) -> (Rig, Mobile, Dialog) {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 3600);
    let ok = rig.one("flow 5");
    let caps = String::from_utf8_lossy(ok.extension("Feature-Caps").expect("Feature-Caps")).into_owned();
    let name = caps.split("pnspurr=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a name").to_owned();
    let registered = phone.uri.clone();
    phone.uri = if purr { format!("sip:alice@192.168.1.5;pn-purr={name}") } else { "sip:alice@192.168.1.5".to_owned() };
    let invite = phone.request(Method::Invite, &format!("sip:bob@{DOMAIN}"), "long", &[]);
    rig.receive(&invite, phone.at);
    let sent = rig.one(PBX);
    assert_eq!(value(&sent, HeaderName::Contact), format!("<{}>", phone.uri), "the name goes along");
    rig.receive(&answered(&sent, 200, "bob", "sip:bob@x"), From::Udp(address(PBX)));
    assert_eq!(line(rig.take("flow 5").last().expect("an answer")), "SIP/2.0 200 OK");
    rig.close(5);
    phone.uri = registered;
    phone.at = From::Tcp(6, address("203.0.113.6:1"));
    let far = Dialog::of_callee(&sent, "bob");
    (rig, phone, far)
}

fn codes(messages: &[Message]) -> Vec<u16> {
    messages.iter().map(code).collect()
}
