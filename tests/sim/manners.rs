//! Manners on the wire: what strangers get, what is answered without a wake, and never more bytes out than in.

use reveille::engine::output::WakeKind;
use reveille::sip::{HeaderName, Method};

use crate::pbx::Invite;
use crate::world::build::address;
use crate::world::{PushMode, World, hours, millis, minutes, secs, seed};

#[test]
fn options_to_a_capability_get_200_and_wake_nobody() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice");
    let uri = world.pbx().capability_uri("alice");
    let options = world.pbx().outside(Method::Options, &uri, &[]);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(options), [200]);
    let response = world.pbx().call(options).responses[0].clone();
    assert!(crate::sip_text::values(&response, HeaderName::Allow).contains(&"INVITE".to_owned()));
    assert!(world.pushes.is_empty());
    world.assert_nothing_left();
}

#[test]
fn a_repeated_request_gets_the_same_answer_tag_included() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice");
    let uri = world.pbx().capability_uri("alice");
    let own = world.pbx().address;
    for method in ["OPTIONS", "MESSAGE", "BYE"] {
        let text = request(method, &uri, &own.to_string(), "");
        let before = world.sent.len();
        for _ in 0..3 {
            world.pbx().send_raw(own, text.as_bytes());
            world.run_for(secs(1));
        }
        let answers: Vec<_> = world.sent[before..].iter().map(|(_, _, bytes)| bytes.clone()).collect();
        assert_eq!(answers.len(), 3);
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{method}");
    }
    let other = request("OPTIONS", &uri, "198.51.100.10:5061", "");
    world.pbx().send_raw(own, other.as_bytes());
    world.run_for(secs(1));
    let tags: std::collections::BTreeSet<_> = world
        .sent
        .iter()
        .filter_map(|(_, _, bytes)| {
            let answer = reveille::sip::Message::parse_datagram(bytes.clone()).expect("SIP");
            let odd = answer.cseq().expect("CSeq").method == Method::Options;
            odd.then(|| answer.to().expect("To").tag().map(str::to_owned))
        })
        .collect();
    assert_eq!(tags.len(), 2, "another request, another tag");
}

#[test]
fn a_notify_gets_200_and_an_unknown_event_489() {
    let mut world = World::new(seed(2)).with_sleeping_phone("alice");
    let uri = world.pbx().capability_uri("alice");
    let known = world.pbx().outside(Method::Notify, &uri, &[("Event", "message-summary;id=1")]);
    let unknown = world.pbx().outside(Method::Notify, &uri, &[("Event", "dialog")]);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(known), [200]);
    assert_eq!(world.pbx().heard(unknown), [489]);
    assert!(world.pbx().call(unknown).header(489, HeaderName::AllowEvents).contains("message-summary"));
    assert!(world.pushes.is_empty());
}

#[test]
fn everything_else_gets_405_with_allow() {
    let mut world = World::new(seed(3)).with_sleeping_phone("alice");
    let uri = world.pbx().capability_uri("alice");
    let others: Vec<_> = [Method::Refer, Method::Subscribe, Method::Publish, Method::Register, Method::Other("DANCE")]
        .map(|method| world.pbx().outside(method, &uri, &[]))
        .to_vec();
    world.run_until_quiet();
    for other in others {
        assert_eq!(world.pbx().heard(other), [405]);
        assert!(world.pbx().call(other).header(405, HeaderName::Allow).starts_with("INVITE"));
    }
    assert!(world.pushes.is_empty());
}

#[test]
fn an_extension_required_of_the_proxy_gets_420_that_names_it() {
    let mut world = World::new(seed(4)).with_sleeping_phone("alice");
    let uri = world.pbx().capability_uri("alice");
    let odd = world.pbx().outside(Method::Invite, &uri, &[("Proxy-Require", "sec-agree, dance")]);
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(odd), [420]);
    assert_eq!(world.pbx().call(odd).header(420, HeaderName::Unsupported), "sec-agree, dance");
}

#[test]
fn used_up_hops_get_483() {
    let mut world = World::new(seed(5)).with_sleeping_phone("alice");
    let uri = world.pbx().capability_uri("alice");
    let own = world.pbx().address;
    let text = request("INVITE", &uri, "198.51.100.10:5060", "Max-Forwards: 0\r\n");
    world.pbx().send_raw(own, text.as_bytes());
    world.run_for(secs(1));
    let answer = world.sent_to("198.51.100.10:5060").pop().expect("an answer");
    assert_eq!(crate::sip_text::code(&answer), 483);
}

#[test]
fn strangers_by_udp_get_not_a_single_byte_whatever_they_send() {
    let mut world = World::new(seed(6)).with_sleeping_phone("alice");
    let before = world.sent.len();
    let unknown = "sip:aaaaaaaaaaaaaaaaaaaaaaaaaaaaa@192.0.2.5:5060";
    for (method, uri) in [
        ("OPTIONS", "sip:100@192.0.2.5"),
        ("REGISTER", "sip:edge.example.net"),
        ("INVITE", "sip:900442030000000@192.0.2.5"),
        ("INVITE", unknown),
        ("BYE", unknown),
        ("CANCEL", unknown),
        ("ACK", unknown),
        ("SUBSCRIBE", "sip:192.0.2.5"),
        ("DANCE", "tel:+1"),
    ] {
        let text = request(method, uri, "8.8.8.8:5060", "");
        world.stranger_sends("8.8.8.8:5060", text.as_bytes());
        world.stranger_sends("8.8.8.8:5060", b"\r\n\r\n");
        world.stranger_sends("8.8.8.8:5060", &text.as_bytes()[..30]);
    }
    let response = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nFrom: <sip:a@b>;tag=1\r\n\
                    To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    world.stranger_sends("8.8.8.8:5060", response.as_bytes());
    world.run_for(minutes(2));
    assert_eq!(world.sent.len(), before);
    assert!(world.pushes.is_empty());
    world.assert_nothing_left();
}

#[test]
fn strangers_on_streams_are_closed_at_once_for_an_unknown_capability() {
    let mut world = World::new(seed(7)).with_sleeping_phone("alice");
    let before = world.sent.len();
    let stream = world.stranger_connects("8.8.8.8:40000");
    let text = request("INVITE", "sip:aaaaaaaaaaaaaaaaaaaaaaaaaaaaa@192.0.2.5", "8.8.8.8:40000", "");
    world.stranger_writes(stream, text.as_bytes());
    world.run_for(secs(1));
    assert_eq!(world.closed, [stream]);
    assert_eq!(world.sent.len(), before);
}

#[test]
fn the_registrar_gets_404_for_an_unknown_capability_and_keeps_its_connection() {
    let mut world = crate::hand_over::world_over_tcp(8);
    let text = request("INVITE", "sip:aaaaaaaaaaaaaaaaaaaaaaaaaaaaa@192.0.2.5", "198.51.100.10:5060", "");
    world.stranger_writes(1, text.as_bytes());
    let gone = world.pbx().outside(Method::Options, "sip:aaaaaaaaaaaaaaaaaaaaaaaaaaaaa@192.0.2.5", &[]);
    world.run_for(secs(1));
    assert!(world.closed.is_empty());
    let answer = world.sent_to("198.51.100.10:5060").into_iter().map(|it| crate::sip_text::code(&it));
    assert!(answer.filter(|&code| code == 404).count() >= 1);
    assert_eq!(world.pbx().heard(gone), [404], "and so does its datagram, while its registration lasts");
}

#[test]
fn the_pbx_is_a_stranger_again_when_its_granted_expiry_is_over() {
    let mut world = World::new(seed(9)).with_sleeping_phone("alice");
    world.delete("alice");
    world.run_for(hours(2));
    let gone = world.pbx().outside(Method::Options, "sip:aaaaaaaaaaaaaaaaaaaaaaaaaaaaa@192.0.2.5", &[]);
    world.run_for(minutes(1));
    assert!(world.pbx().heard(gone).is_empty());
}

#[test]
fn other_requests_from_an_attached_phone_outside_its_calls_get_403() {
    let mut world = World::new(seed(10)).with_attached_phone("alice");
    let text = request("INVITE", "sip:bob@pbx.example.com", "192.168.1.5:5060", "");
    let invite = reveille::sip::Message::parse_datagram(text.into_bytes()).expect("SIP");
    world.phone("alice").send(&invite);
    world.run_for(secs(1));
    assert_eq!(world.phone("alice").answers, [("INVITE".to_owned(), 403)]);
    assert!(world.pbx().calls().next().is_none());
}

#[test]
fn a_wrong_token_never_attaches_and_the_challenge_is_never_longer_than_the_request() {
    let mut world = World::new(seed(11)).with_sleeping_phone("alice").with_sleeping_phone("mallory");
    let alice = world.phone("alice").instance();
    let handed = world.phone("mallory").account.as_mut().expect("handed over");
    handed.aor = format!("sip:{alice}@edge.example.net");
    let own = world.phone("mallory").address;
    let before = world.meter.get(&own).copied().unwrap_or_default();
    world.phone("mallory").attach_once();
    world.run_for(minutes(1));
    assert_eq!(world.table("edge"), 0);
    let (bytes_in, bytes_out) = world.meter[&own];
    assert!(bytes_out - before.1 <= bytes_in - before.0, "{bytes_out} out for {bytes_in} in");
}

#[test]
fn a_tiny_register_gets_no_answer_rather_than_a_longer_one() {
    let mut world = World::new(seed(12)).with_sleeping_phone("alice");
    let alice = world.phone("alice").instance();
    let text = format!(
        "REGISTER sip:e SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bKx\r\nf: <sip:{alice}@e>;tag=1\r\nt: <sip:{alice}@e>\r\n\
         i: x\r\nCSeq: 1 REGISTER\r\nl: 0\r\n\r\n"
    );
    world.stranger_sends("8.8.8.8:5060", text.as_bytes());
    world.run_for(secs(1));
    assert!(world.sent_to("8.8.8.8:5060").is_empty());
}

#[test]
fn never_more_bytes_go_to_an_unproven_udp_source_than_came_from_it() {
    let mut world = World::new(seed(13)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let capability = world.pbx().capability("alice").expect("registered");
    let uri = format!("sip:{capability}@192.0.2.5");
    for (number, method) in
        ["INVITE", "OPTIONS", "NOTIFY", "MESSAGE", "DANCE", "BYE", "CANCEL", "INVITE"].iter().enumerate()
    {
        let source = format!("8.8.4.{number}:5060");
        let text = request(method, &uri, &source, "");
        world.stranger_sends(&source, text.as_bytes());
        world.run_for(minutes(2));
        let (bytes_in, bytes_out) = world.meter[&address(&source)];
        assert!(bytes_out <= bytes_in, "{method}: {bytes_out} out for {bytes_in} in");
    }
    world.assert_nothing_left();
}

#[test]
fn a_pbx_that_calls_from_an_unproven_address_still_gets_its_final() {
    let mut world = World::new(seed(14)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let capability = world.pbx().capability("alice").expect("registered");
    let node = world.add_pbx("node2.example.com", "198.51.100.66:5060");
    for body in [&b""[..], crate::pbx::SDP_OFFER, &[b'x'; 1200]] {
        let invite = Invite::to("alice").by_capability(&capability).with_body(body);
        let call = world.pbx_at(node).invite(invite);
        world.run_until_quiet();
        assert_eq!(world.pbx_at(node).final_response(call), Some(480));
        world.run_for(minutes(1));
    }
    let (bytes_in, bytes_out) = world.meter[&address("198.51.100.66:5060")];
    assert!(bytes_out <= bytes_in, "{bytes_out} out for {bytes_in} in");
    world.assert_nothing_left();
}

#[test]
fn a_refusal_is_repeated_at_most_three_times_to_a_source_that_never_proved_itself() {
    let mut world = World::new(seed(15)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice");
    let capability = world.pbx().capability("alice").expect("registered");
    let long = "x".repeat(4000);
    let text =
        request("INVITE", &format!("sip:{capability}@192.0.2.5"), "8.8.8.8:5060", &format!("X-Long: {long}\r\n"));
    world.stranger_sends("8.8.8.8:5060", text.as_bytes());
    world.run_for(minutes(3));
    let codes: Vec<_> = world.sent_to("8.8.8.8:5060").iter().map(crate::sip_text::code).collect();
    assert_eq!(codes, [100, 180, 480, 480, 480]);
    assert_eq!(world.pushed(WakeKind::Call), 1);
}

#[test]
fn the_capability_is_found_whatever_the_pbx_did_to_the_rest_of_the_contact() {
    let mut world = World::new(seed(16)).with_attached_phone("alice");
    let capability = world.pbx().capability("alice").expect("registered");
    for uri in [
        format!("sip:{}@nat.example.org:39999;transport=tls;x=y", capability.to_uppercase()),
        format!("sip:{capability}@198.51.100.10"),
    ] {
        let options = world.pbx().outside(Method::Options, &uri, &[]);
        world.run_until_quiet();
        assert_eq!(world.pbx().heard(options), [200], "{uri}");
    }
}

fn request(method: &str, uri: &str, sent_by: &str, extra: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {sent_by};rport;branch=z9hG4bK{method}{}\r\nFrom: <sip:a@b.example>;tag=1\r\n\
         To: <{uri}>\r\nCall-ID: {method}-{sent_by}\r\nCSeq: 1 {method}\r\nContact: <sip:a@{sent_by}>\r\n{extra}\
         Content-Length: 0\r\n\r\n",
        sent_by.len()
    )
}
