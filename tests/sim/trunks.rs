//! Trunks of all kinds: connections of the PBX's own, TLS, IPv6.

use reveille::engine::input::Located;
use reveille::engine::policy::Listener;
use reveille::sip::{HeaderName, Transport};

use crate::pbx::Invite;
use crate::sip_text::values;
use crate::world::build::{DOMAIN, PBX, address, registrar};
use crate::world::{World, secs, seed};

#[test]
fn a_call_over_a_connection_of_the_pbxs_own_goes_on_over_it() {
    let mut world = World::new(seed(1)).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").over_a_connection_of_its_own());
    world.run_until_quiet();
    assert_eq!(world.pbx().heard(call), [100, 180, 180, 200]);
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    assert!(world.closed.is_empty());
    world.assert_nothing_left();
}

#[test]
fn when_that_connection_is_gone_the_phone_reaches_the_pbx_where_it_is_registered() {
    let mut world = World::new(seed(2)).with_sleeping_phone("alice");
    let call = world.pbx().invite(Invite::to("alice").over_a_connection_of_its_own());
    world.run_until_quiet();
    world.break_connections_of(address(PBX).ip());
    world.run_for(secs(1));
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    assert_eq!(world.phone("alice").answers, [("BYE".to_owned(), 200)]);
    world.assert_nothing_left();
}

#[test]
fn a_tls_trunk_names_who_must_be_at_the_other_end() {
    let mut world = World::new(seed(3)).with_phone("alice");
    let tls = Located { transport: Transport::Tls, address: address("198.51.100.10:5061") };
    world.names.insert(DOMAIN.to_owned(), Ok(vec![tls]));
    let mut offer = world.offer("alice");
    offer.account.registrar = registrar(&format!("sip:{DOMAIN};transport=tls"));
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.pbx().contacts("alice").len(), 1);
    assert!(world.pbx().contacts("alice")[0].ends_with("@192.0.2.5:5061;transport=tls"));
    assert_eq!(world.trunk_identities(), [DOMAIN]);
}

#[test]
fn an_outbound_proxy_is_where_registers_go_and_who_must_be_at_its_end() {
    let mut world = World::new(seed(4)).with_phone("alice");
    let proxy = Located { transport: Transport::Tls, address: address("198.51.100.10:5061") };
    world.names.insert("proxy.example.com".to_owned(), Ok(vec![proxy]));
    let mut offer = world.offer("alice");
    offer.account.outbound_proxy = Some(registrar("sip:proxy.example.com;transport=tls"));
    world.hand_over_this("alice", offer);
    world.run_until_quiet();
    assert_eq!(world.pbx().contacts("alice").len(), 1, "digest uri and Request-URI name the registrar all the same");
    assert_eq!(world.trunk_identities(), ["proxy.example.com"]);
}

#[test]
fn a_pbx_on_ipv6_and_a_phone_on_ipv4_meet_through_us() {
    let six = "[2001:db8::5]:5060";
    let there = "[2001:db8:1::10]:5060";
    let mut world = World::new(seed(5))
        .with_policy(|policy| {
            policy.registrars.allow_special_ranges.push("2001:db8::/32".parse().expect("a range"));
            policy.listeners.push(Listener {
                transport: Transport::Udp,
                local: address("[::]:5060"),
                advertise: six.to_owned(),
            });
        })
        .with_pbx(|pbx| pbx.move_to(address(there), address(six)))
        .with_phone("alice");
    let located = Located { transport: Transport::Udp, address: address(there) };
    world.names.insert(DOMAIN.to_owned(), Ok(vec![located]));
    world.hand_over_now("alice");
    assert!(world.pbx().contacts("alice")[0].ends_with("@[2001:db8::5]:5060;transport=udp"));

    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert_eq!(world.pbx().final_response(call), Some(200));
    let routes = values(&world.phone("alice").calls[0].invite, HeaderName::RecordRoute);
    assert_eq!(routes.len(), 2, "RFC 5658: another address family on each side");
    assert!(routes[0].contains("@192.0.2.5:5060") && routes[1].contains("@[2001:db8::5]:5060"));
    world.phone("alice").hang_up();
    world.run_until_quiet();
    assert_eq!(world.pbx().call(call).ended, Some("phone"));
    world.assert_nothing_left();
}
