//! Attaching by hand, message by message: what is refused, and how short a REGISTER may be.

use reveille::engine::ids::InstanceId;
use reveille::sip::digest::{Secret, Session, Signed};
use reveille::sip::{HeaderName, Message};

use crate::sip_text::code;
use crate::world::build::address;
use crate::world::{World, millis, seed};

const FROM: &str = "203.0.113.50:5060";
const DOMAIN: &str = "edge.example.net";

struct Register<'a> {
    instance: InstanceId,
    uri: &'a str,
    number: u32,
    more: &'a str,
}

impl Register<'_> {
    fn text(&self) -> String {
        let Self { instance, uri, number, more } = self;
        format!(
            "REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {FROM};rport;branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:{instance}@{DOMAIN}>;tag=1\r\nTo: <sip:{instance}@{DOMAIN}>\r\nCall-ID: 1\r\nCSeq: {number} REGISTER\r\n\
             Contact: <sip:{FROM}>\r\n{more}Content-Length: 0\r\n\r\n"
        )
    }
}

/// Sends it, and gives back what came.
fn answer(world: &mut World, register: &str) -> Option<Message> {
    let before = world.sent_to(FROM).len();
    world.stranger_sends(FROM, register.as_bytes());
    world.run_for(millis(200));
    world.sent_to(FROM).into_iter().nth(before)
}

/// The answer to a REGISTER whose credentials are right and made for `signed`.
fn signed_for(world: &mut World, uri: &str, signed: &str) -> Message {
    let instance = world.phone("alice").instance();
    let challenge = answer(world, &Register { instance, uri, number: 1, more: "" }.text()).expect("a challenge");
    assert_eq!(code(&challenge), 401);
    let mut session = Session::choose(challenge.challenges(), |_, _| true).expect("one that can be answered");
    let token = world.phone("alice").account.as_ref().expect("handed over").token.clone();
    let secret = Secret::Password(token.as_bytes());
    let credentials = session.authorize(&instance.to_string(), secret, Signed::bare("REGISTER", signed), "cn0nce");
    let more = format!("Authorization: {}\r\n", String::from_utf8_lossy(&credentials));
    answer(world, &Register { instance, uri, number: 2, more: &more }.text()).expect("an answer")
}

#[test]
fn an_extension_required_of_a_registration_gets_420_that_names_it() {
    for (more, unsupported) in [
        ("Require: foo\r\n", "foo"),
        ("Require: path, outbound\r\nRequire: gruu\r\n", "path, outbound, gruu"),
        ("Proxy-Require: foo\r\n", "foo"),
    ] {
        let mut world = World::new(seed(881)).with_sleeping_phone("alice");
        let instance = world.phone("alice").instance();
        let register = Register { instance, uri: "sip:edge.example.net", number: 1, more };
        let refused = answer(&mut world, &register.text()).expect("an answer");
        assert_eq!(code(&refused), 420, "{more}");
        assert_eq!(crate::sip_text::field(&refused, HeaderName::Unsupported), unsupported);
        assert_eq!(world.table("edge"), 0);
    }
    let mut world = World::new(seed(881)).with_sleeping_phone("alice");
    let instance = world.phone("alice").instance();
    let more = "Supported: path, outbound, gruu\r\n";
    let welcome = answer(&mut world, &Register { instance, uri: "sip:edge.example.net", number: 1, more }.text());
    assert_eq!(welcome.as_ref().map(code), Some(401), "what is only supported is no matter");
}

#[test]
fn an_extension_required_of_us_by_a_pbx_gets_420_too() {
    let mut world = World::new(seed(882)).with_sleeping_phone("alice");
    let uri = world.pbx().capability_uri("alice");
    for (method, more) in
        [(reveille::sip::Method::Options, ("Require", "foo")), (reveille::sip::Method::Notify, ("Require", "foo"))]
    {
        let odd = world.pbx().outside(method, &uri, &[more, ("Event", "message-summary")]);
        world.run_until_quiet();
        assert_eq!(world.pbx().heard(odd), [420]);
        assert_eq!(world.pbx().call(odd).header(420, HeaderName::Unsupported), "foo");
    }
}

#[test]
fn credentials_that_were_made_for_another_host_get_400() {
    for foreign in [
        "sip:evil.example.com",
        "sip:edge.example.net@evil.example.com",
        "sip:edge.example.net.evil.example.com",
        "sip:203.0.113.66:5060",
        "tel:+4930123456",
        "https://edge.example.net/",
        "*",
    ] {
        let mut world = World::new(seed(883)).with_sleeping_phone("alice");
        let refused = signed_for(&mut world, "sip:edge.example.net", foreign);
        assert_eq!(code(&refused), 400, "{foreign}");
        assert_eq!(world.table("edge"), 0, "{foreign}");
    }
}

#[test]
fn credentials_that_name_us_in_other_words_are_as_good() {
    for (uri, signed) in [
        ("sip:edge.example.net", "sip:edge.example.net"),
        ("sip:edge.example.net", "sip:edge.example.net:5060"),
        ("sip:edge.example.net;transport=udp", "sip:edge.example.net"),
        ("sip:edge.example.net", "SIP:Edge.Example.NET;transport=udp;lr"),
        ("sip:edge.example.net", "sips:edge.example.net:5061"),
        ("sip:edge.example.net", "sip:alice@edge.example.net"),
        ("sip:edge.example.net", "edge.example.net"),
        ("sip:edge.example.net", "sip:192.0.2.5"),
        ("sip:192.0.2.5:5060", "sip:edge.example.net"),
        ("sip:nat.example.org", "sip:nat.example.org:5070"),
    ] {
        let mut world = World::new(seed(884)).with_sleeping_phone("alice");
        let welcome = signed_for(&mut world, uri, signed);
        assert_eq!(code(&welcome), 200, "{uri} {signed}");
        assert_eq!(world.table("edge"), 1);
    }
}

#[test]
fn a_short_register_is_challenged_in_no_more_bytes_than_it_has() {
    let mut world = World::new(seed(885)).with_sleeping_phone("alice");
    let instance = world.phone("alice").instance();
    let plain = Register { instance, uri: "sip:edge.example.net", number: 1, more: "" }.text();
    let named = Register { instance, uri: "sip:edge.example.net", number: 1, more: "User-Agent: phone/4.2\r\n" }.text();
    let shorter = plain.replace("Max-Forwards: 70\r\n", "");
    for register in [named, plain, shorter.clone()] {
        let challenge = answer(&mut world, &register).unwrap_or_else(|| panic!("{} bytes: {register}", register.len()));
        assert_eq!(code(&challenge), 401);
        assert!(challenge.bytes().len() <= register.len(), "{} for {}", challenge.bytes().len(), register.len());
        assert!(challenge.to().expect("To").tag().is_some());
        assert!(Session::choose(challenge.challenges(), |_, _| true).is_some());
    }
    let too_short = shorter.replace("Via: ", "v:").replace("From: ", "f:").replace("Content-Length: 0\r\n", "");
    assert!(answer(&mut world, &too_short).is_none(), "silence rather than more bytes than came");
    let (bytes_in, bytes_out) = world.meter[&address(FROM)];
    assert!(bytes_out <= bytes_in, "{bytes_out} out for {bytes_in} in");
}

#[test]
fn a_challenge_without_qop_is_answered_as_well() {
    let mut world = World::new(seed(886)).with_sleeping_phone("alice");
    let instance = world.phone("alice").instance();
    let token = world.phone("alice").account.as_ref().expect("handed over").token.clone();
    let uri = "sip:edge.example.net";
    let bare = Register { instance, uri, number: 1, more: "" }.text();
    let challenge = answer(&mut world, &bare).expect("a challenge");
    let header = crate::sip_text::field(&challenge, HeaderName::WwwAuthenticate);
    assert!(!header.contains("qop"), "{header}");
    let mut session = Session::choose(challenge.challenges(), |_, _| true).expect("one that can be answered");
    let secret = Secret::Password(token.as_bytes());
    let credentials = session.authorize(&instance.to_string(), secret, Signed::bare("REGISTER", uri), "cn0nce");
    let more = format!("Authorization: {}\r\n", String::from_utf8_lossy(&credentials));
    let welcome = answer(&mut world, &Register { instance, uri, number: 2, more: &more }.text()).expect("an answer");
    assert_eq!(code(&welcome), 200);
}
