//! What is kept of a registration that its registrar confirmed: under which name, how long, and who has a say in it.

use reveille::engine::account::TenantId;
use reveille::engine::input::{Located, PushPurpose};
use reveille::engine::output::{PushOutcome, WakeKind};
use reveille::sip::{HeaderName, Method, Transport};

use super::rig::{From, Mobile, Rig, handle_of, line, other_token, outside, token, value};
use crate::sip_text::{code, values};
use crate::world::build::{DOMAIN, PBX, address};
use crate::world::{minutes, secs};

#[test]
fn what_the_registrar_does_not_list_is_not_confirmed() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.answer(&passed, 200, &[("Contact", "<sip:desk@198.51.100.77>;expires=60".to_owned())]);
    let answer = rig.one(&phone.name());
    assert_eq!(value(&answer, HeaderName::Contact), "<sip:desk@198.51.100.77>;expires=60", "others stay as they are");
    assert_eq!(rig.table("pass.bindings"), 0);
    let invite = outside(Method::Invite, &format!("sip:{}@192.0.2.5:5060", handle_of(&passed)), "call", &[]);
    rig.receive(&invite, From::Udp(address(PBX)));
    assert!(rig.pushed().is_empty(), "pushes only for what the registrar confirmed");
}

#[test]
fn several_contacts_are_kept_apart_and_other_phones_of_the_account_are_known() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    let second = phone.uri.replace(&token("alice"), "abcd").replace("192.168.1.5", "192.168.1.6");
    let contacts = [format!("<{}>;expires=600", phone.uri), format!("<{second}>;expires=300")];
    rig.receive(&phone.register_as(&contacts), phone.at);
    let passed = rig.one(PBX);
    let sent = values(&passed, HeaderName::Contact);
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0], sent[1]);
    rig.answer(&passed, 200, &[("Contact", sent.join(", "))]);
    let answer = rig.one(&phone.name());
    assert_eq!(values(&answer, HeaderName::Contact), contacts);
    assert_eq!(rig.table("pass.bindings"), 2);

    let mut tablet = Mobile::udp("alice", 2);
    tablet.uri = "sip:alice@10.0.0.1;pn-provider=apns;pn-param=ABCDE12345.com.example.phone;pn-prid=77".to_owned();
    rig.receive(&tablet.register(), tablet.at);
    let passed = rig.one(PBX);
    let all = [sent, values(&passed, HeaderName::Contact)].concat();
    rig.answer(&passed, 200, &[("Contact", all.join(", "))]);
    let answer = values(&rig.one(&tablet.name()), HeaderName::Contact);
    assert_eq!(answer[2], format!("<{}>", tablet.uri));
    assert!(answer[0].starts_with(&format!("<{}>", phone.uri)), "{answer:?}");
}

#[test]
fn the_same_token_is_the_same_registration_at_another_address() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    rig.close(5);
    let mut moved = Mobile::tcp("alice", 6);
    moved.uri = moved.uri.replace("192.168.1.5", "10.1.2.3");
    assert_eq!(moved.come(&mut rig), handle);
    assert_eq!(rig.table("pass.bindings"), 1);
}

#[test]
fn a_new_token_of_the_same_app_takes_the_place_of_the_old_one() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.params = ";+sip.instance=\"<urn:uuid:1>\"".to_owned();
    let old = phone.come(&mut rig);
    phone.uri = phone.uri.replace(&token("alice"), "beef");
    assert_ne!(phone.come(&mut rig), old);
    assert_eq!(rig.table("pass.bindings"), 1);
    rig.receive(&outside(Method::Invite, &format!("sip:{old}@192.0.2.5"), "call", &[]), From::Udp(address(PBX)));
    assert_eq!(code(&rig.one(PBX)), 404, "no second ring");
}

#[test]
fn removing_one_contact_or_all_of_them_ends_what_the_registrar_lets_go() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    phone.come(&mut rig);
    // Refused, nothing changes.
    phone.expires = 0;
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    assert_eq!(value(&passed, HeaderName::Expires), "0");
    rig.answer(&passed, 401, &[]);
    let _ = rig.take(&phone.name());
    assert_eq!(rig.table("pass.bindings"), 1);
    // Without push parameters it is still the same Contact (RFC 8599 §4.1.4).
    let bare = vec!["<sip:alice@192.168.1.5:5060;ob>".to_owned()];
    rig.receive(&phone.register_as(&bare), phone.at);
    let passed = rig.one(PBX);
    assert!(value(&passed, HeaderName::Contact).contains("@192.0.2.5:5060"));
    rig.answer(&passed, 200, &[]);
    assert_eq!(code(&rig.one(&phone.name())), 200);
    assert_eq!((rig.table("pass.bindings"), rig.table("pass.lingering")), (0, 0));

    phone.expires = 3600;
    phone.come(&mut rig);
    phone.expires = 0;
    rig.receive(&phone.register_as(&["*".to_owned()]), phone.at);
    let passed = rig.one(PBX);
    assert_eq!(value(&passed, HeaderName::Contact), "*");
    rig.answer(&passed, 200, &[]);
    assert_eq!(code(&rig.one(&phone.name())), 200);
    assert_eq!(rig.table("pass.bindings"), 0);
    rig.pass(minutes(90));
    assert!(rig.pushed().is_empty());
}

#[test]
fn a_registration_is_renewed_by_a_push_before_it_ends_and_ends_if_nobody_comes() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    rig.pass(secs(3600 - 181));
    assert!(rig.pushes.is_empty());
    rig.pass(secs(62));
    let push = rig.pushes.remove(0);
    assert_eq!((push.kind, push.purpose), (WakeKind::Refresh, PushPurpose::Other), "never on a VoIP token");
    assert_eq!(push.token, other_token("alice"));
    phone.come(&mut rig);
    rig.pass(secs(3600 - 200));
    assert!(rig.pushes.is_empty(), "it was renewed");
    rig.pass(secs(201));
    assert_eq!(rig.pushed(), [WakeKind::Refresh]);
    assert_eq!(rig.table("pass.bindings"), 0, "nobody came");
    rig.pass(minutes(90));
    assert!(rig.pushes.is_empty());
    rig.assert_silent();
}

#[test]
fn a_dead_token_ends_the_registration() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    rig.close(5);
    rig.outcome = PushOutcome::TokenDead { since: None };
    rig.receive(&outside(Method::Invite, &format!("sip:{handle}@192.0.2.5"), "call", &[]), From::Udp(address(PBX)));
    assert_eq!(rig.pushed(), [WakeKind::Call]);
    assert_eq!(rig.take(PBX).iter().map(code).collect::<Vec<_>>(), [100, 480]);
    assert_eq!(rig.table("pass.bindings"), 0);
}

#[test]
fn word_of_a_token_that_died_before_the_last_registration_ends_nothing() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    rig.pass(secs(30));
    let before = rig.now.wall;
    rig.pass(secs(30));
    let handle = phone.come(&mut rig);
    rig.close(5);
    for (since, left) in [(before, 1), (rig.now.wall + secs(1), 0)] {
        rig.outcome = PushOutcome::TokenDead { since: Some(since) };
        rig.pass(secs(2));
        let call = format!("call-{left}");
        rig.receive(&outside(Method::Invite, &format!("sip:{handle}@192.0.2.5"), &call, &[]), From::Udp(address(PBX)));
        assert_eq!(rig.pushed(), [WakeKind::Call]);
        rig.take(PBX);
        assert_eq!(rig.table("pass.bindings"), left);
    }
}

#[test]
fn above_the_bound_a_further_registration_gets_503_and_known_ones_are_renewed() {
    let mut rig = Rig::with(DOMAIN, |policy| policy.limits.edge_bindings = 1);
    // One a shard: the second of an account meets the first.
    let mut phone = Mobile::tcp("alice", 5);
    phone.come(&mut rig);
    let mut other = Mobile::tcp("alice", 6);
    other.uri = other.uri.replace(&token("alice"), "beef").replace("192.168.1.5", "192.168.1.9");
    rig.receive(&other.register(), other.at);
    let refused = rig.one("flow 6");
    assert_eq!(code(&refused), 503);
    assert_eq!(value(&refused, HeaderName::RetryAfter), "30");
    phone.come(&mut rig);
    rig.assert_silent();
}

#[test]
fn one_address_of_record_cannot_fill_the_table() {
    let mut rig = Rig::new();
    let mut phones = 0;
    let refused = loop {
        let mut phone = Mobile::tcp("alice", 100 + phones);
        let host = format!("192.168.2.{phones}");
        phone.uri = phone.uri.replace(&token("alice"), &format!("{phones:064x}")).replace("192.168.1.5", &host);
        rig.receive(&phone.register(), phone.at);
        let answers = rig.take(&format!("flow {}", 100 + phones));
        if let Some(answer) = answers.first() {
            break code(answer);
        }
        let passed = rig.one(PBX);
        rig.grant(&passed, 600);
        let _ = rig.take(&format!("flow {}", 100 + phones));
        phones += 1;
        assert!(phones < 100, "no bound at all");
    };
    assert_eq!((refused, phones), (503, 32));
}

#[test]
fn at_a_shutdown_each_phone_is_told_to_come_back_and_nobody_is_let_in() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let handle = phone.come(&mut rig);
    rig.close(5);
    rig.receive(&outside(Method::Invite, &format!("sip:{handle}@192.0.2.5"), "call", &[]), From::Udp(address(PBX)));
    assert_eq!(rig.pushed(), [WakeKind::Call]);
    rig.shut_down();
    phone.at = From::Tcp(6, address("203.0.113.6:1"));
    rig.receive(&phone.register(), phone.at);
    assert_eq!(code(&rig.one("flow 6")), 503);
    rig.pass(secs(11));
    assert_eq!(rig.pushed(), [WakeKind::Refresh]);
    assert_eq!(rig.take(PBX).iter().map(code).collect::<Vec<_>>()[..3], [100, 180, 480], "held calls may finish");
    assert_eq!(rig.table("pass.bindings"), 0);
}

/// A second tenant's registrar, which says yes to everything.
fn with_another_registrar() -> Rig {
    let mut rig = Rig::with(DOMAIN, |policy| {
        let other = reveille::engine::edge_registrar::EdgeRegistrar::parse(OTHER).expect("a registrar");
        let mut tenant = policy.tenants[0].clone();
        tenant.id = TenantId::from("bolt");
        tenant.apps.clear();
        tenant.edge_registrars = vec![other];
        policy.tenants.push(tenant);
    });
    rig.names.insert(OTHER.to_owned(), vec![Located { transport: Transport::Udp, address: address(OTHER_AT) }]);
    rig
}

const OTHER: &str = "other.example.net";
const OTHER_AT: &str = "198.51.100.77:5060";

#[test]
fn another_registrar_has_no_say_in_a_registration() {
    for instance in ["", ";+sip.instance=\"<urn:uuid:1>\""] {
        let mut rig = with_another_registrar();
        let mut phone = Mobile::tcp("alice", 5);
        phone.params = instance.to_owned();
        let handle = phone.come(&mut rig);

        let mut thief = Mobile::tcp("alice", 6);
        thief.registrar = format!("sip:{OTHER}");
        let bare = vec![format!("<sip:alice@192.168.1.5:5060;ob>{instance}")];
        rig.receive(&thief.register_as(&bare), thief.at);
        let passed = rig.one(OTHER_AT);
        assert_ne!(handle_of(&passed), handle, "the name its own registrar calls it by is told to no other");
        let claimed = format!("<sip:{handle}@192.0.2.5:5060>;expires=600, {}", value(&passed, HeaderName::Contact));
        rig.answer_from(address(OTHER_AT), &passed, 200, &[("Contact", claimed)]);
        let answer = rig.one("flow 6");
        assert!(!String::from_utf8_lossy(answer.bytes()).contains(&token("alice")), "nor is its push token");
        assert_eq!(rig.table("pass.bindings"), 2);

        rig.receive(&outside(Method::Invite, &format!("sip:{handle}@192.0.2.5"), "call", &[]), From::Udp(address(PBX)));
        assert!(rig.take("flow 6").is_empty(), "a call is not caught");
        assert!(line(&rig.one("flow 5")).starts_with("INVITE "));
    }
}

#[test]
fn a_forged_source_does_not_lead_a_phones_calls_to_another_registrar() {
    let mut rig = with_another_registrar();
    let mut phone = Mobile::udp("alice", 1);
    phone.come(&mut rig);
    // Whichever of the registrations comes first in the table.
    for last in 10..30 {
        let mut thief = Mobile::udp("alice", 1);
        thief.registrar = format!("sip:{OTHER}");
        let register = thief.register_as(&[format!("<sip:alice@10.0.0.{last}>")]);
        let text = String::from_utf8_lossy(register.bytes()).replace("register-alice", &format!("forged-{last}"));
        let register = reveille::sip::Message::parse_datagram(text.into_bytes()).expect("a request");
        rig.receive(&register, phone.at);
        let passed = rig.one(OTHER_AT);
        let contact = value(&passed, HeaderName::Contact);
        rig.answer_from(address(OTHER_AT), &passed, 200, &[("Contact", contact)]);
        let _ = rig.take(&phone.name());
    }
    let uri = format!("sip:bob@{DOMAIN}");
    rig.receive(&phone.request(Method::Message, &uri, "text", &[]), phone.at);
    assert!(rig.take(OTHER_AT).is_empty());
    assert!(line(&rig.one(PBX)).starts_with("MESSAGE "));
}
