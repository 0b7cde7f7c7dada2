//! Story (b), inside the call: route tokens, both directions, flows that come and go.

use reveille::sip::{HeaderName, Message, Method, Transport};

use crate::pbx::{Call, Invite};
use crate::phone::Manner;
use crate::sip_text::{bytes, code, field, values};
use crate::world::build::EDGE;
use crate::world::{World, hours, millis, minutes, secs, seed};

#[test]
fn either_side_hangs_up_and_the_other_hears_it_once() {
    let (mut world, call) = talking(1);
    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert_eq!(world.phone("alice").requests, ["INVITE", "ACK", "BYE"]);
    assert_eq!(world.pbx().call(call).answers, [("BYE".to_owned(), 200)]);
    world.assert_nothing_left();

    let (mut world, call) = talking(2);
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(methods(&world.pbx().call(call).received), ["BYE"]);
    assert_eq!(world.phone("alice").answers, [("BYE".to_owned(), 200)]);
    world.assert_nothing_left();
}

#[test]
fn re_invites_and_their_acks_travel_both_ways() {
    let (mut world, call) = talking(3);
    world.pbx().inside(call, Method::Invite, b"v=0\r\ns=hold\r\n");
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).answers, [("INVITE".to_owned(), 200)]);
    assert_eq!(world.phone("alice").requests, ["INVITE", "ACK", "INVITE", "ACK"]);

    world.phone("alice").inside(0, Method::Invite, b"v=0\r\ns=back\r\n");
    world.run_until_quiet();
    assert_eq!(world.phone("alice").answers, [("INVITE".to_owned(), 200)]);
    assert_eq!(methods(&world.pbx().call(call).received), ["INVITE", "ACK"]);
    assert_eq!(world.pbx().call(call).received[0].body(), b"v=0\r\ns=back\r\n");
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn any_other_request_inside_travels_both_ways_too() {
    let (mut world, call) = talking(4);
    for method in
        [Method::Info, Method::Update, Method::Refer, Method::Message, Method::Options, Method::Other("DANCE")]
    {
        world.pbx().inside(call, method, b"");
        world.phone("alice").inside(0, method, b"");
    }
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).answers.len(), 6);
    assert_eq!(world.phone("alice").answers.len(), 6);
    assert!(world.phone("alice").answers.iter().all(|(_, code)| *code == 200));
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn requests_inside_a_ringing_call_reach_the_phone_too() {
    let mut world = World::new(seed(4)).with_sleeping_phone("alice").with("alice", |phone| phone.manner = Manner::Ring);
    let call = world.pbx().invite("alice");
    world.run_for(secs(2));
    world.pbx().inside(call, Method::Prack, b"");
    world.run_for(secs(1));
    assert_eq!(world.phone("alice").requests, ["INVITE", "PRACK"]);
    assert_eq!(world.pbx().call(call).answers, [("PRACK".to_owned(), 200)]);
}

#[test]
fn a_pbx_that_records_its_route_gets_requests_by_it_and_our_own_route_is_gone() {
    let mut world = World::new(seed(5)).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").record_routed());
    world.run_for(secs(10));
    world.phone("alice").hang_up();
    world.run_until_quiet();
    let bye = world.pbx().call(call).received[0].clone();
    assert_eq!(values(&bye, HeaderName::Route), ["<sip:198.51.100.10:5060;transport=udp;lr>"]);
    world.assert_nothing_left();
}

#[test]
fn one_record_route_where_both_sides_look_alike_and_two_where_they_differ() {
    let (mut world, _) = talking(6);
    let (routes, _) = crate::phone::routes(&world.phone("alice").calls[0].invite);
    assert_eq!(routes.len(), 1);

    let mut world =
        World::new(seed(7)).with_sleeping_phone("alice").with("alice", |phone| phone.transport = Transport::Tls);
    world.call_and_wait("alice");
    let (routes, _) = crate::phone::routes(&world.phone("alice").calls[0].invite);
    assert_eq!(routes.len(), 2, "RFC 5658");
    assert!(routes[0].contains("192.0.2.5:5061;transport=tls") && routes[1].contains("192.0.2.5:5060;transport=udp"));
    world.phone("alice").hang_up();
    world.assert_nothing_left();
}

#[test]
fn without_record_route_the_phone_reaches_the_callers_contact_where_it_may_be_sent_to() {
    let mut world = World::new(seed(8)).with_sleeping_phone("alice");
    let node = "198.51.100.10:5080";
    let call = world.pbx().invite(Invite::to("alice").with_contact(node));
    world.run_for(secs(10));
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    assert!(world.sent_to(node).iter().any(|it| it.method() == Some(Method::Bye)));

    let mut world = World::new(seed(9)).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").with_contact("10.0.0.7:5060"));
    world.run_for(secs(10));
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"), "back to where the INVITE came from");
    assert!(world.sent_to("10.0.0.7:5060").is_empty());
}

#[test]
fn a_token_is_worth_nothing_in_another_call() {
    let (mut world, call) = talking(10);
    let stolen = world.phone("alice").write_inside(0, Method::Info, b"", None);
    let text = String::from_utf8(bytes(&stolen).to_vec()).expect("text");
    let other = text.replace(&crate::sip_text::call_id(&stolen), "some-other-call");
    let before = world.pbx().call(call).received.len();
    world.phone("alice").send(&parse(&other));
    world.run_until_quiet();
    assert_eq!(world.phone("alice").answers, [("INFO".to_owned(), 481)]);
    assert_eq!(world.pbx().call(call).received.len(), before);

    world.stranger_sends("8.8.8.8:5060", other.as_bytes());
    world.run_for(secs(1));
    assert!(world.sent_to("8.8.8.8:5060").is_empty(), "and a stranger hears nothing");
}

#[test]
fn a_token_needs_a_to_tag() {
    let (mut world, _) = talking(11);
    let stolen = world.phone("alice").write_inside(0, Method::Invite, b"", None);
    let tag = format!(";tag={}", stolen.to().expect("To").tag().expect("a tag"));
    let text = String::from_utf8(bytes(&stolen).to_vec()).expect("text");
    let to = format!("To: {}", field(&stolen, HeaderName::To));
    let preloaded = text.replace(&to, &to.replace(&tag, ""));
    assert_ne!(preloaded, text);
    world.phone("alice").send(&parse(&preloaded));
    world.run_until_quiet();
    assert_eq!(world.phone("alice").answers, [("INVITE".to_owned(), 403)]);
    let called = world.sent_to("198.51.100.10:5060").iter().any(|it| it.method() == Some(Method::Invite));
    assert!(!called, "nobody calls out through a preloaded route");
    let acks = |world: &World| sent_to_pbx(world, Method::Ack);
    let before = acks(&world);
    let refused = world.sent.iter().rev().find(|(_, _, bytes)| bytes.starts_with(b"SIP/2.0 403")).expect("the 403");
    let refused = Message::parse_datagram(refused.2.clone()).expect("SIP");
    let mut ack = Vec::new();
    reveille::sip::proxy::write_ack(&parse(&preloaded), &refused, &mut ack).expect("an ACK");
    world.phone("alice").send(&Message::parse_datagram(ack).expect("SIP"));
    world.run_until_quiet();
    assert_eq!(acks(&world), before, "and the ACK to our refusal ends here");
}

#[test]
fn an_invite_inside_that_we_refuse_ourselves_is_repeated_to_its_sender_and_its_ack_ends_here() {
    let (mut world, call) = talking(23);
    let invite = world.phone("alice").write_inside(0, Method::Invite, b"", None);
    let text = String::from_utf8(bytes(&invite).to_vec()).expect("text");
    let before = (world.pbx().call(call).received.len(), sent_to_pbx(&world, Method::Ack));
    for (odd, code) in [("Proxy-Require: dance\r\n", 420), ("Max-Forwards: 0\r\n", 483)] {
        let odd = text.replace("Max-Forwards: 70\r\n", "").replace("Contact:", &format!("{odd}Contact:"));
        let odd = odd.replace("z9hG4bK", &format!("z9hG4bK{code}"));
        world.phone("alice").send(&parse(&odd));
        world.run_until_quiet();
        assert_eq!(world.phone("alice").answers.pop(), Some(("INVITE".to_owned(), code)));
    }
    assert_eq!((world.pbx().call(call).received.len(), sent_to_pbx(&world, Method::Ack)), before);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_request_on_its_way_to_a_flow_that_breaks_is_sent_again_on_the_next_one() {
    for method in [Method::Info, Method::Invite, Method::Message, Method::Options] {
        let (mut world, call) = talking_over(Transport::Tls, 24);
        world.pbx().inside(call, method, b"");
        world.run_until(secs(1), |world| sent_inside(world, method) == 1);
        world.phone("alice").lose_flow();
        world.run_for(secs(2));
        assert!(world.pbx().call(call).answers.is_empty());
        world.phone("alice").reattach();
        world.run_until_quiet();
        assert_eq!(world.pbx().call(call).answers, [(method.as_str().to_owned(), 200)]);
        assert_eq!(sent_inside(&world, method), 2, "once on each flow");
        world.phone("alice").reattach();
        world.run_until_quiet();
        assert_eq!(sent_inside(&world, method), 2, "what was answered is not sent again");
        world.pbx().hang_up(call);
        world.assert_nothing_left();
    }
}

#[test]
fn the_answer_to_a_request_of_a_phone_follows_it_to_its_next_flow() {
    let (mut world, call) = talking_over(Transport::Tcp, 25);
    world.phone("alice").inside(0, Method::Info, b"");
    world.run_until(secs(1), |world| sent_to_pbx(world, Method::Info) == 1);
    // Its answer is slow, and the phone is quick.
    world.wire.latency = secs(1);
    world.run_for(millis(15));
    world.wire.latency = millis(10);
    world.phone("alice").lose_flow();
    world.phone("alice").reattach();
    world.run_until_quiet();
    assert_eq!(methods(&world.pbx().call(call).received), ["INFO"]);
    assert_eq!(world.phone("alice").answers, [("INFO".to_owned(), 200)]);
    world.pbx().hang_up(call);
    world.assert_nothing_left();
}

#[test]
fn a_phone_that_changes_its_flow_again_and_again_keeps_its_call_and_both_ends_may_re_invite() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let (mut world, call) = talking_over(transport, 26);
        for round in 1..=4 {
            if transport != Transport::Udp {
                world.phone("alice").lose_flow();
            }
            world.phone("alice").reattach();
            world.run_until_quiet();
            world.pbx().inside(call, Method::Invite, b"v=0\r\ns=there\r\n");
            world.run_until_quiet();
            world.phone("alice").inside(0, Method::Invite, b"v=0\r\ns=back\r\n");
            world.run_until_quiet();
            assert_eq!(world.pbx().call(call).answers.len(), round);
            assert_eq!(world.phone("alice").answers.len(), round);
        }
        assert!(world.phone("alice").answers.iter().all(|(_, code)| *code == 200));
        world.pbx().hang_up(call);
        world.run_until_quiet();
        assert_eq!(world.phone("alice").calls[0].ended, Some("caller"));
        world.assert_nothing_left();
    }
}

#[test]
fn a_token_changed_in_one_letter_is_no_token() {
    let (mut world, call) = talking(12);
    let request = world.phone("alice").write_inside(0, Method::Bye, b"", None);
    let text = String::from_utf8(bytes(&request).to_vec()).expect("text");
    let route = values(&request, HeaderName::Route)[0].clone();
    let token = route.trim_start_matches("<sip:").split('@').next().expect("a token").to_owned();
    for place in [0, 5, 12, 20, token.len() - 2] {
        let mut other = token.clone().into_bytes();
        other[place] = if other[place] == b'a' { b'b' } else { b'a' };
        let forged = text.replace(&token, &String::from_utf8(other).expect("text"));
        world.stranger_sends("8.8.8.8:5060", forged.as_bytes());
    }
    world.run_for(secs(2));
    assert!(world.sent_to("8.8.8.8:5060").is_empty());
    assert!(world.pbx().call(call).is_up());
}

#[test]
fn a_phone_that_comes_back_on_another_flow_takes_its_call_along() {
    let (mut world, call) = talking(13);
    world.phone("alice").reattach();
    world.run_until_quiet();
    world.pbx().inside(call, Method::Info, b"");
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).answers, [("INFO".to_owned(), 200)]);
    let new = world.phone("alice").address.to_string();
    assert!(world.sent_to(&new).iter().any(|it| it.method() == Some(Method::Info)));
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    world.assert_nothing_left();
}

#[test]
fn a_call_over_tls_moves_to_a_new_connection() {
    let mut world =
        World::new(seed(14)).with_sleeping_phone("alice").with("alice", |phone| phone.transport = Transport::Tls);
    let call = world.pbx().invite("alice");
    world.run_for(secs(10));
    world.phone("alice").lose_flow();
    world.run_for(secs(1));
    world.phone("alice").reattach();
    world.run_until_quiet();
    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).answers, [("BYE".to_owned(), 200)]);
    assert_eq!(world.phone("alice").calls[0].ended, Some("caller"));
    world.assert_nothing_left();
}

#[test]
fn a_call_over_a_trunk_connection_goes_on_over_the_next_one() {
    let mut world = crate::hand_over::world_over_tcp(15);
    let call = world.pbx().invite("alice");
    world.run_for(secs(40));
    assert!(world.pbx().call(call).is_up());
    world.break_connections(crate::world::build::address("198.51.100.10:5060"));
    world.run_for(secs(5));
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    assert_eq!(world.phone("alice").answers, [("BYE".to_owned(), 200)]);
    world.assert_nothing_left();
}

#[test]
fn a_re_invite_is_cancelled_like_any_other() {
    let (mut world, call) = talking(16);
    world.phone("alice").manner = Manner::Dead;
    world.pbx().inside(call, Method::Invite, b"v=0\r\n");
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).answers, [("INVITE".to_owned(), 408)]);
    assert!(world.pbx().call(call).is_up(), "the call itself goes on");
}

#[test]
fn a_dialog_outlives_the_erasure_of_its_instance_until_its_bye() {
    let (mut world, call) = talking(17);
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.table("vault"), 0);
    world.run_for(minutes(30));
    world.pbx().inside(call, Method::Info, b"");
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).answers, [("INFO".to_owned(), 200)], "long after the attachment's own expiry");
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    world.assert_empty();
    assert_eq!(world.table("edge"), 0, "the last dialog takes the flow of an erased instance with it");
}

#[test]
fn an_erased_instance_without_calls_leaves_no_flow_behind() {
    let mut world = World::new(seed(18)).with_attached_phone("alice");
    world.delete("alice");
    world.run_until_quiet();
    assert_eq!(world.table("edge"), 0);
    world.assert_empty();
}

#[test]
fn a_dialog_whose_bye_never_comes_is_forgotten_at_its_longest() {
    let mut world =
        World::new(seed(19)).with_policy(|policy| policy.limits.dialog_max = hours(2)).with_sleeping_phone("alice");
    let call = world.call_and_wait("alice");
    world.run_for(hours(1));
    assert_eq!(world.table("calls.dialogs"), 1);
    world.run_for(minutes(61));
    assert_eq!(world.table("calls.dialogs"), 0);
    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).answers, [("BYE".to_owned(), 481)]);
}

#[test]
fn the_oldest_dialog_gives_way_when_the_table_is_full() {
    let mut world = World::new(seed(20))
        .with_shards(1)
        .with_policy(|policy| policy.limits.dialogs = 2)
        .with_sleeping_phone("alice");
    let calls: Vec<Call> = (0..3).map(|_| world.call_and_wait("alice")).collect();
    assert_eq!(world.table("calls.dialogs"), 2);
    world.pbx().hang_up(calls[0]);
    world.pbx().hang_up(calls[2]);
    world.run_until_quiet();
    assert_eq!(world.pbx().call(calls[0]).answers, [("BYE".to_owned(), 481)]);
    assert_eq!(world.pbx().call(calls[2]).answers, [("BYE".to_owned(), 200)]);
}

#[test]
fn a_route_in_capitals_or_with_another_host_is_still_ours() {
    let (mut world, call) = talking(21);
    let request = world.phone("alice").write_inside(0, Method::Info, b"", None);
    let route = values(&request, HeaderName::Route)[0].clone();
    let token = route.trim_start_matches("<sip:").split('@').next().expect("a token").to_owned();
    let rewritten = format!("<sip:{}@nat.example.org:1;transport=tls;lr>", token.to_uppercase());
    let text = String::from_utf8(bytes(&request).to_vec()).expect("text").replace(&route, &rewritten);
    world.phone("alice").send(&parse(&text));
    world.run_until_quiet();
    assert_eq!(methods(&world.pbx().call(call).received), ["INFO"]);
    assert!(!text.contains(EDGE.trim_end_matches(":5060")), "nothing of our address is left in it");
}

#[test]
fn the_ack_of_a_2xx_repeated_is_forwarded_each_time() {
    let (mut world, call) = talking(22);
    let ok = world.pbx().call(call).responses.last().expect("the 200").clone();
    assert_eq!(code(&ok), 200);
    let acks = |world: &mut World| {
        let phone = world.phone("alice").address.to_string();
        world.sent_to(&phone).iter().filter(|it| it.method() == Some(Method::Ack)).count()
    };
    let before = acks(&mut world);
    world.pbx().acknowledge_again(call);
    world.run_until_quiet();
    assert_eq!(acks(&mut world), before + 1);
}

fn talking(number: u64) -> (World, Call) {
    talking_over(Transport::Udp, number)
}

pub fn talking_over(transport: Transport, number: u64) -> (World, Call) {
    let mut world = World::new(seed(number)).with_sleeping_phone("alice").with("alice", |it| it.transport = transport);
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert!(world.pbx().call(call).is_up());
    (world, call)
}

fn sent_to_pbx(world: &World, method: Method<'_>) -> usize {
    world.sent_to("198.51.100.10:5060").iter().filter(|it| it.method() == Some(method)).count()
}

/// Requests of this method, inside calls, that went to phones.
pub fn sent_inside(world: &World, method: Method<'_>) -> usize {
    let sent = world.sent.iter().filter(|(_, to, _)| to.starts_with("203.0.113."));
    let sent = sent.map(|(_, _, bytes)| parse(std::str::from_utf8(bytes).expect("text")));
    sent.filter(|it| it.method() == Some(method) && it.to().expect("To").tag().is_some()).count()
}

fn parse(text: &str) -> Message {
    Message::parse_datagram(text.as_bytes().to_vec()).expect("SIP")
}

fn methods(requests: &[Message]) -> Vec<&str> {
    requests.iter().map(|request| request.method().expect("a request").as_str()).collect()
}
