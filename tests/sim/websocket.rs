//! Phones that attach over WebSocket (RFC 7118): they know no address of their own, and nobody but them speaks it.

use reveille::engine::policy::{Listener, Policy};
use reveille::sip::{HeaderName, Method, Transport};

use crate::pbx::Call;
use crate::sip_text::values;
use crate::world::{World, secs, seed};

#[test]
fn a_call_reaches_a_phone_on_websocket_and_requests_inside_it_travel_both_ways() {
    for transport in [Transport::Ws, Transport::Wss] {
        let (mut world, call) = talking(transport);
        world.pbx().inside(call, Method::Invite, b"v=0\r\ns=hold\r\n");
        world.phone("alice").inside(0, Method::Info, b"");
        world.run_until_quiet();
        assert_eq!(world.phone("alice").verdicts, [401, 200]);
        assert_eq!(world.phone("alice").requests, ["INVITE", "ACK", "INVITE", "ACK"]);
        assert_eq!(world.pbx().call(call).answers, [("INVITE".to_owned(), 200)]);
        assert_eq!(world.phone("alice").answers, [("INFO".to_owned(), 200)]);

        world.phone("alice").hang_up();
        world.run_until_quiet();
        assert_eq!(world.phone("alice").answers.last(), Some(&("BYE".to_owned(), 200)));
        world.assert_nothing_left();
    }
}

#[test]
fn the_phone_sees_a_via_of_its_transport_and_both_record_routes_with_the_one_uri_parameter_there_is() {
    for (transport, via, port) in [(Transport::Ws, "SIP/2.0/WS ", 8080), (Transport::Wss, "SIP/2.0/WSS ", 8443)] {
        let (mut world, _) = talking(transport);
        let invite = world.phone("alice").calls[0].invite.clone();
        assert_eq!(invite.request_uri(), Some(&b"sip:alice@df7jal23ls0d.invalid;transport=ws"[..]));
        assert!(values(&invite, HeaderName::Via)[0].starts_with(&format!("{via}192.0.2.5:{port};")));
        let (routes, _) = crate::phone::routes(&invite);
        assert_eq!(routes.len(), 2, "RFC 5658");
        assert!(routes[0].contains(&format!("@192.0.2.5:{port};transport=ws;lr")), "{routes:?}");
        assert!(routes[1].contains("@192.0.2.5:5060;transport=udp;lr"), "{routes:?}");
    }
}

#[test]
fn a_call_goes_on_after_the_websocket_broke_and_came_back() {
    let (mut world, call) = talking(Transport::Wss);
    world.phone("alice").lose_flow();
    world.run_for(secs(1));
    world.phone("alice").reattach();
    world.run_for(secs(1));
    world.pbx().hang_up(call);
    world.run_until_quiet();
    assert_eq!(world.phone("alice").requests, ["INVITE", "ACK", "BYE"]);
    assert_eq!(world.pbx().call(call).answers, [("BYE".to_owned(), 200)]);
    world.assert_nothing_left();
}

/// A phone on WebSocket that was woken and answered.
fn talking(transport: Transport) -> (World, Call) {
    let mut world = World::new(seed(1))
        .with_policy(serve)
        .with_sleeping_phone("alice")
        .with("alice", |phone| phone.transport = transport);
    let call = world.pbx().invite("alice");
    world.run_until_quiet();
    assert!(world.pbx().call(call).is_up());
    (world, call)
}

fn serve(policy: &mut Policy) {
    for (transport, port) in [(Transport::Ws, 8080), (Transport::Wss, 8443)] {
        policy.listeners.push(Listener {
            transport,
            local: std::net::SocketAddr::from(([0, 0, 0, 0], port)),
            advertise: format!("192.0.2.5:{port}"),
        });
    }
}
