//! A phone's REGISTER passes to its registrar and back.

use reveille::engine::account::TenantId;
use reveille::engine::input::Located;
use reveille::engine::output::{TrunkKey, WakeKind};
use reveille::sip::{HeaderName, Method, Transport};

use super::rig::{From, Mobile, Rig, handle_of, line, other_token, outside, value};
use crate::sip_text::{Answer, code, values};
use crate::world::build::{DOMAIN, PBX, address};
use crate::world::{minutes, secs};

#[test]
fn it_passes_with_our_contact_and_the_phones_own_credentials_and_comes_back_with_its_own() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    phone.params = ";q=0.7;+sip.instance=\"<urn:uuid:1>\";reg-id=1".to_owned();
    phone.extra = vec![("Authorization".to_owned(), "Digest username=\"alice\",nonce=\"n\",response=\"r\"".to_owned())];
    rig.receive(&phone.register(), phone.at);

    let passed = rig.one(PBX);
    assert_eq!(line(&passed), format!("REGISTER sip:{DOMAIN} SIP/2.0"));
    assert_eq!(value(&passed, HeaderName::Authorization), "Digest username=\"alice\",nonce=\"n\",response=\"r\"");
    let contact = value(&passed, HeaderName::Contact);
    let handle = handle_of(&passed);
    assert_eq!(contact, format!("<sip:{handle}@192.0.2.5:5060;transport=udp>;q=0.7;+sip.instance=\"<urn:uuid:1>\""));
    assert!(values(&passed, HeaderName::Route).is_empty(), "we are no hop after ourselves");
    assert_eq!(values(&passed, HeaderName::Via).len(), 2);
    rig.grant(&passed, 1800);

    let answer = rig.one(&phone.name());
    assert_eq!(code(&answer), 200);
    assert_eq!(value(&answer, HeaderName::Contact), format!("<{}>;expires=1800", phone.uri));
    assert_eq!(values(&answer, HeaderName::Via).len(), 1);
    let caps = String::from_utf8_lossy(answer.extension("Feature-Caps").expect("Feature-Caps")).into_owned();
    assert!(caps.starts_with("*;+sip.pns=\"apns\";+sip.pnsreg=\"190\";+sip.pnspurr=\""), "{caps}");
    assert_eq!(rig.table("pass.bindings"), 1);
    rig.pass(secs(40));
    assert_eq!(rig.table("pass.transits"), 0, "nothing of the request is kept");
    rig.assert_silent();
}

#[test]
fn a_response_is_known_by_its_branch_in_any_case() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    let branch = passed.top_via().expect("Via").branch().expect("a branch").to_owned();
    let source = address("192.0.2.5:5060");
    let extra = vec![
        ("Contact", format!("{};expires=;q=", value(&passed, HeaderName::Contact))),
        ("Expires", "600".to_owned()),
    ];
    let answer =
        Answer { code: 200, tag: Some("pbx"), record_route: false, extra, ..Answer::plain(200) }.write(&passed, source);
    let text = String::from_utf8(answer.bytes().to_vec()).expect("ASCII");
    let odd = text.replacen(&branch, &branch.to_uppercase(), 1).replacen("192.0.2.5:5060", "192.0.2.5", 1);
    assert_ne!(text, odd);
    rig.receive(&reveille::sip::Message::parse_datagram(odd.into_bytes()).expect("SIP"), From::Udp(address(PBX)));
    let answer = rig.one(&phone.name());
    assert_eq!((code(&answer), rig.table("pass.bindings")), (200, 1));
    rig.pass(secs(599));
    assert_eq!(rig.table("pass.bindings"), 1, "the Expires header counts");
    rig.pass(secs(2));
    assert_eq!(rig.table("pass.bindings"), 0);
}

#[test]
fn a_challenge_reaches_the_phone_and_confirms_nothing() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    rig.receive(&phone.register(), phone.at);
    let first = rig.one(PBX);
    rig.answer(&first, 401, &[("WWW-Authenticate", "Digest realm=\"pbx\",nonce=\"n\"".to_owned())]);
    let challenge = rig.one(&phone.name());
    assert_eq!(code(&challenge), 401);
    assert_eq!(value(&challenge, HeaderName::WwwAuthenticate), "Digest realm=\"pbx\",nonce=\"n\"");
    assert_eq!(rig.table("pass.bindings"), 0);

    rig.receive(&phone.register(), phone.at);
    let second = rig.one(PBX);
    assert_eq!(handle_of(&first), handle_of(&second), "the registrar sees one Contact, not two");
}

#[test]
fn repeated_registers_go_on_once_and_get_the_same_answer_again() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    let register = phone.register();
    rig.receive(&register, phone.at);
    rig.receive(&register, phone.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 3600);
    rig.receive(&register, phone.at);
    let answers = rig.take(&phone.name());
    assert_eq!(answers.iter().map(code).collect::<Vec<_>>(), [200, 200]);
    assert_eq!(answers[0].bytes(), answers[1].bytes());
    rig.assert_silent();
}

#[test]
fn the_registrar_repeats_nothing_into_our_arms_and_we_repeat_what_it_did_not_hear() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.pass(secs(2));
    let again = rig.take(PBX);
    assert_eq!(again.len(), 2, "after 500 ms and 1,500 ms");
    assert!(again.iter().all(|message| message.bytes() == passed.bytes()));
    rig.grant(&passed, 3600);
    rig.grant(&passed, 3600);
    rig.pass(secs(5));
    assert_eq!(rig.take(&phone.name()).len(), 1);
    rig.assert_silent();
}

#[test]
fn a_silent_registrar_ends_in_silence_and_the_next_try_goes_to_its_neighbour() {
    let mut rig = Rig::new();
    let neighbour = "198.51.100.11:5060";
    let both = [PBX, neighbour].map(|text| Located { transport: Transport::Udp, address: address(text) });
    rig.names.insert(DOMAIN.to_owned(), both.to_vec());
    let mut phone = Mobile::udp("alice", 1);
    rig.receive(&phone.register(), phone.at);
    rig.pass(secs(33));
    assert_eq!(rig.take(PBX).len(), 11);
    assert!(rig.take(&phone.name()).is_empty(), "no 408 to a REGISTER");
    assert_eq!(rig.table("pass.transits"), 0);
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(neighbour);
    rig.answer_from(address(neighbour), &passed, 401, &[]);
    let _ = rig.take(&phone.name());
    rig.pass(minutes(2));
    rig.assert_silent();
}

#[test]
fn the_server_that_asked_for_credentials_gets_them() {
    let mut rig = Rig::new();
    let neighbour = "198.51.100.11:5060";
    let order = |first: &str, second: &str| {
        [first, second].map(|text| Located { transport: Transport::Udp, address: address(text) }).to_vec()
    };
    rig.names.insert(DOMAIN.to_owned(), order(neighbour, PBX));
    let mut phone = Mobile::udp("alice", 1);
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(neighbour);
    rig.answer_from(address(neighbour), &passed, 401, &[]);
    rig.names.insert(DOMAIN.to_owned(), order(PBX, neighbour));
    rig.receive(&phone.register(), phone.at);
    assert_eq!(rig.take(neighbour).len(), 1, "its nonce is known there alone");
}

#[test]
fn a_trunk_that_cannot_be_opened_is_passed_over() {
    let mut rig = Rig::with(&format!("{DOMAIN};transport=tcp"), |_| {});
    let at = ["198.51.100.11:5060", "198.51.100.12:5060"];
    let found = at.map(|text| Located { transport: Transport::Tcp, address: address(text) });
    rig.names.insert(DOMAIN.to_owned(), found.to_vec());
    let mut phone = Mobile::tcp("alice", 5);
    rig.receive(&phone.register(), phone.at);
    assert_eq!(rig.take("tcp 198.51.100.11:5060").len(), 1);
    let key = |text: &str| {
        let listener = reveille::engine::ids::ListenerId(1);
        std::sync::Arc::new(TrunkKey { transport: Transport::Tcp, remote: address(text), listener, identity: None })
    };
    rig.trunk_down(&key(at[0]));
    let passed = rig.one("tcp 198.51.100.12:5060");
    assert!(value(&passed, HeaderName::Contact).contains(";transport=tcp>"));
    rig.trunk_down(&key(at[1]));
    assert_eq!(code(&rig.one("flow 5")), 504);
}

#[test]
fn an_address_that_no_trunk_may_have_is_not_asked() {
    let mut rig = Rig::new();
    for (name, at) in [("loopback", "127.0.0.1:5060"), ("port", "198.51.100.10:22"), ("ourselves", "192.0.2.5:5060")] {
        let located = Located { transport: Transport::Udp, address: address(at) };
        rig.names.insert(DOMAIN.to_owned(), vec![located]);
        let mut phone = Mobile::tcp("alice", 5);
        rig.receive(&phone.register(), phone.at);
        assert_eq!(code(&rig.one("flow 5")), 504, "{name}");
        rig.assert_silent();
        rig.pass(secs(1));
    }
}

#[test]
fn a_registrar_that_nobody_lists_is_no_business_of_ours() {
    let mut rig = Rig::new();
    for registrar in ["sip:elsewhere.example.com", "sip:sub.pbx.example.com", "sip:198.51.100.10"] {
        let mut phone = Mobile::udp("alice", 1);
        phone.registrar = registrar.to_owned();
        rig.receive(&phone.register(), phone.at);
        rig.assert_silent();
    }
    let mut phone = Mobile::tcp("alice", 5);
    phone.registrar = "sip:elsewhere.example.com".to_owned();
    rig.receive(&phone.register(), phone.at);
    assert_eq!(rig.closed, [5], "a stranger");
    assert_eq!(rig.located, 0);
}

#[test]
fn a_phone_without_push_parameters_is_a_stranger() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    phone.uri = "sip:alice@192.168.1.5".to_owned();
    rig.receive(&phone.register(), phone.at);
    rig.assert_silent();
    assert_eq!(rig.located, 0);
}

#[test]
fn unknown_push_services_and_ambiguous_apps_get_555() {
    let second = |policy: &mut reveille::engine::policy::Policy| {
        let mut other = policy.tenants[0].clone();
        other.id = TenantId::from("bolt");
        other.apps[0].id = "com.bolt".to_owned();
        let twin = reveille::engine::policy::TenantPolicy { id: TenantId::from("twin"), ..other.clone() };
        policy.tenants.extend([other, twin]);
    };
    let mut rig = Rig::with(DOMAIN, second);
    for params in [
        "pn-provider=webpush;pn-prid=1",
        "pn-provider=fcm;pn-param=com.example.phone;pn-prid=1",
        "pn-provider=apns;pn-param=ABCDE12345.com.other;pn-prid=00",
        "pn-provider=apns;pn-param=ABCDE12345.com.bolt;pn-prid=00",
    ] {
        let mut phone = Mobile::tcp("alice", 5);
        phone.uri = format!("sip:alice@192.168.1.5;{params}");
        rig.receive(&phone.register(), phone.at);
        let answer = rig.one("flow 5");
        assert_eq!(line(&answer), "SIP/2.0 555 Push Notification Service Not Supported", "{params}");
        rig.assert_silent();
    }
    assert_eq!(rig.located, 0);
}

#[test]
fn a_query_is_told_our_providers_in_the_registrars_200() {
    let mut rig = Rig::new();
    for (params, caps) in
        [(";pn-provider", Some("*;+sip.pns=\"apns\"")), (";pn-provider=apns", Some("*;+sip.pns=\"apns\""))]
    {
        let mut phone = Mobile::tcp("alice", 5);
        phone.uri = format!("sip:alice@192.168.1.5{params}");
        rig.receive(&phone.register(), phone.at);
        let passed = rig.one(PBX);
        rig.grant(&passed, 600);
        let answer = rig.one("flow 5");
        let told = answer.extension("Feature-Caps").map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(told.as_deref(), caps);
        rig.pass(secs(1));
    }
    rig.pass(minutes(11));
    assert!(rig.pushed().is_empty(), "nobody asked to be woken");
}

#[test]
fn parameters_behind_the_uri_are_tolerated_and_stripped_too() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    phone.uri = "sip:alice@192.168.1.5".to_owned();
    phone.params =
        format!(";pn-provider=apns;pn-param=ABCDE12345.com.example.phone;pn-prid={};expires=60", other_token("alice"));
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    assert!(value(&passed, HeaderName::Contact).ends_with(";transport=udp>;expires=60"));
    rig.grant(&passed, 60);
    assert_eq!(value(&rig.one(&phone.name()), HeaderName::Contact), "<sip:alice@192.168.1.5>;expires=60");
    assert_eq!(rig.table("pass.bindings"), 1);
}

#[test]
fn nobody_registers_for_somebody_else() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    let register = phone.register();
    let text = String::from_utf8_lossy(register.bytes()).replace("To: <sip:alice@", "To: <sip:bob@");
    let register = reveille::sip::Message::parse_datagram(text.into_bytes()).expect("a request");
    rig.receive(&register, phone.at);
    assert_eq!(code(&rig.one("flow 5")), 403);
    assert_eq!(rig.located, 0);
}

#[test]
fn an_unproven_source_gets_no_more_bytes_than_it_sent() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    let register = phone.register();
    rig.receive(&register, phone.at);
    let passed = rig.one(PBX);
    let challenge = ("WWW-Authenticate", "Digest realm=\"pbx\",nonce=\"n\"".to_owned());
    rig.answer(&passed, 401, &[challenge.clone(), ("X-Long", "x".repeat(2_000))]);
    let answer = rig.one(&phone.name());
    assert!(answer.bytes().len() <= register.bytes().len(), "{} bytes", answer.bytes().len());
    assert_eq!(value(&answer, HeaderName::WwwAuthenticate), challenge.1, "it can still answer");
}

#[test]
fn where_it_is_asked_for_the_phone_keeps_its_contact_and_we_add_path() {
    let mut rig = Rig::with(&format!("{DOMAIN};path"), |_| {});
    let mut phone = Mobile::tcp("alice", 5);
    phone.extra = vec![("Supported".to_owned(), "path, outbound".to_owned())];
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    assert_eq!(value(&passed, HeaderName::Contact), "<sip:alice@192.168.1.5:5060;ob>");
    let path = value(&passed, HeaderName::Path);
    assert!(path.ends_with("@192.0.2.5:5060;transport=udp;lr>"), "{path}");
    rig.grant(&passed, 600);
    let answer = rig.one("flow 5");
    assert_eq!(value(&answer, HeaderName::Contact), format!("<{}>;expires=600", phone.uri));

    rig.close(5);
    let invite = outside(Method::Invite, "sip:alice@192.168.1.5:5060;ob", "call", &[("Route", &path)]);
    rig.receive(&invite, From::Udp(address(PBX)));
    assert_eq!(rig.pushed(), [WakeKind::Call]);
    assert_eq!(rig.take(PBX).iter().map(code).collect::<Vec<_>>(), [100, 180]);
    phone.at = From::Tcp(6, address("203.0.113.6:1"));
    rig.receive(&phone.register(), phone.at);
    let passed = rig.one(PBX);
    rig.grant(&passed, 600);
    let out = rig.take("flow 6");
    assert_eq!(line(&out[1]), format!("INVITE {} SIP/2.0", phone.uri));
    assert!(values(&out[1], HeaderName::Route).is_empty());

    // Without its support (RFC 3327 §5.1) the Contact has to do.
    let mut plain = Mobile::tcp("bob", 7);
    rig.receive(&plain.register(), plain.at);
    let passed = rig.one(PBX);
    assert!(passed.header(HeaderName::Path).is_none());
    assert!(value(&passed, HeaderName::Contact).contains("@192.0.2.5:5060"));
}

#[test]
fn a_register_of_many_bytes_is_not_kept() {
    let mut rig = Rig::new();
    let mut phone = Mobile::tcp("alice", 5);
    phone.extra = vec![("X-Long".to_owned(), "x".repeat(8 * 1024))];
    rig.receive(&phone.register(), phone.at);
    assert_eq!(code(&rig.one("flow 5")), 513);
    assert_eq!((rig.located, rig.table("pass.transits")), (0, 0));
}

#[test]
fn a_short_copy_from_an_unproven_source_does_not_get_the_long_answer() {
    let mut rig = Rig::new();
    let mut phone = Mobile::udp("alice", 1);
    phone.extra = vec![("X-Long".to_owned(), "x".repeat(2_000))];
    let register = phone.register();
    rig.receive(&register, phone.at);
    let passed = rig.one(PBX);
    rig.answer(&passed, 401, &[("WWW-Authenticate", format!("Digest realm=\"pbx\",nonce=\"{}\"", "n".repeat(1_000)))]);
    assert_eq!(code(&rig.one(&phone.name())), 401);

    let via = value(&register, HeaderName::Via);
    let short = format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: {via}\r\nf: <{}>;tag=1\r\nt: <{}>\r\ni: 1\r\nCSeq: 1 REGISTER\r\n\r\n",
        phone.aor(),
        phone.aor()
    );
    let short = reveille::sip::Message::parse_datagram(short.into_bytes()).expect("a request");
    rig.receive(&short, phone.at);
    let again: usize = rig.take(&phone.name()).iter().map(|message| message.bytes().len()).sum();
    assert!(again <= short.bytes().len(), "{again} bytes for {}", short.bytes().len());
    rig.receive(&register, phone.at);
    assert_eq!(code(&rig.one(&phone.name())), 401);
}

#[test]
fn a_tenant_whose_trunks_are_tls_only_registers_through_us_over_tls_alone() {
    for (registrar, code_of) in [("pbx.example.com", Some(403)), ("pbx.example.com;transport=tls", None)] {
        let mut rig = Rig::with(registrar, |policy| policy.tenants[0].tls_trunks_only = true);
        let mut phone = Mobile::udp("alice", 1);
        rig.receive(&phone.register(), phone.at);
        match code_of {
            Some(refused) => {
                assert_eq!(code(&rig.one(&phone.name())), refused);
                assert_eq!(rig.located, 0);
            }
            // The rig's resolver knows the registrar over UDP alone, which is as good as not at all.
            None => assert_eq!((code(&rig.one(&phone.name())), rig.located), (504, 1)),
        }
        rig.assert_silent();
    }
}
