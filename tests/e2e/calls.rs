//! The main promise: a sleeping phone takes a call, and nothing of it is changed on the way.

use crate::daemon::{Daemon, Instance};
use crate::kamailio::{Kamailio, Manners};
use crate::phones::{Make, Phone};
use crate::process::until;
use crate::push::{Provider, PushService};
use crate::sipp::{Call, Caller};
use crate::trace::assert_same_sdp;
use crate::world::{Transport, World};

/// One way through the matrix.
struct Way {
    make: Make,
    attach: Transport,
    trunk: Transport,
    provider: Provider,
    /// See [`Manners::follow_connection`].
    follow_connection: bool,
}

/// The phone sleeps, is called and woken, and the caller hangs up; it sleeps again, is called again, and hangs up itself.
fn wakes_twice(way: &Way) {
    let back = if way.follow_connection { "" } else { "-called-back" };
    let name = format!("call-{:?}-{}-trunk-{}{back}", way.make, way.attach.name(), way.trunk.name()).to_lowercase();
    let world = World::new(&name);
    let manners = Manners { follow_connection: way.follow_connection, ..Manners::default() };
    let kamailio = Kamailio::start(&world, &manners);
    let push = PushService::start(&world, way.provider);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let instance = daemon.hand_over(&kamailio, &push, "alice", way.trunk);

    for (nth, caller) in [(1, Caller::HangsUp), (2, Caller::WaitsForBye)] {
        let mut call = Call::start(&world, &kamailio, "alice", caller);
        let wake = push.wait_for_call(nth);
        assert_eq!(wake.token, push.token("alice", "call"));
        assert_eq!(wake.word("instance"), instance.id);
        call.trace.response(180, "INVITE");

        let mut phone = wake_phone(&world, &daemon, &instance, way);
        let heard = phone.trace.of_call(&call.id());
        phone.wait_ringing(&call.id());
        phone.answer();
        heard.request("ACK");
        if let Caller::WaitsForBye = caller {
            phone.hang_up();
        }
        call.finish();
        heard.response(200, "BYE");

        assert_eq!(heard.request("INVITE").header("Reveille-Call"), Some(wake.word("call")));
        assert_same_sdp(&call.trace, &heard);
        phone.kill();
    }

    until("the daemon to hold no call", || (daemon.metric("reveille_held_calls") == Some(0.0)).then_some(()));
    assert_eq!(kamailio.count("BYE"), 2, "each dialog ended with one BYE");
    assert_eq!(push.of_kind("call").len(), 2, "one wake for each call");
}

/// What the system does when a push arrives: it starts the app with what the app has stored, nothing else.
fn wake_phone(world: &World, daemon: &Daemon<'_>, instance: &Instance, way: &Way) -> Phone {
    Phone::start(world, way.make, &daemon.attach(instance, way.attach))
}

#[test]
fn pjsip_attaches_over_tls_for_a_call_from_a_udp_trunk() {
    let way = (Make::Pjsip, Transport::Tls, Transport::Udp, Provider::Apns);
    wakes_twice(&way.into());
}

#[test]
fn pjsip_attaches_over_tcp_for_a_call_from_a_tls_trunk() {
    let way = (Make::Pjsip, Transport::Tcp, Transport::Tls, Provider::Fcm);
    wakes_twice(&way.into());
}

#[test]
fn pjsip_attaches_over_udp_for_a_call_from_a_tcp_trunk() {
    let way = (Make::Pjsip, Transport::Udp, Transport::Tcp, Provider::Apns);
    wakes_twice(&way.into());
}

#[test]
fn baresip_attaches_over_tls_for_a_call_from_a_tcp_trunk() {
    let way = (Make::Baresip, Transport::Tls, Transport::Tcp, Provider::Fcm);
    wakes_twice(&way.into());
}

#[test]
fn baresip_attaches_over_tcp_for_a_call_from_a_udp_trunk() {
    let way = (Make::Baresip, Transport::Tcp, Transport::Udp, Provider::Apns);
    wakes_twice(&way.into());
}

#[test]
fn baresip_attaches_over_udp_for_a_call_from_a_udp_trunk() {
    let way = (Make::Baresip, Transport::Udp, Transport::Udp, Provider::Fcm);
    wakes_twice(&way.into());
}

#[test]
fn linphone_attaches_over_tls_for_a_call_from_a_udp_trunk() {
    let way = (Make::Linphone, Transport::Tls, Transport::Udp, Provider::Fcm);
    wakes_twice(&way.into());
}

#[test]
fn linphone_attaches_over_tcp_for_a_call_from_a_tcp_trunk() {
    let way = (Make::Linphone, Transport::Tcp, Transport::Tcp, Provider::Apns);
    wakes_twice(&way.into());
}

#[test]
fn linphone_attaches_over_udp_for_a_call_from_a_udp_trunk() {
    let way = (Make::Linphone, Transport::Udp, Transport::Udp, Provider::Apns);
    wakes_twice(&way.into());
}

/// A PBX that opens a connection of its own to the Contact finds our listener there.
#[test]
fn a_pbx_that_calls_back_to_the_contact_over_tcp_is_heard() {
    let way =
        Way { follow_connection: false, ..(Make::Baresip, Transport::Tls, Transport::Tcp, Provider::Apns).into() };
    wakes_twice(&way);
}

impl From<(Make, Transport, Transport, Provider)> for Way {
    fn from((make, attach, trunk, provider): (Make, Transport, Transport, Provider)) -> Self {
        Self { make, attach, trunk, provider, follow_connection: true }
    }
}

#[test]
fn a_phone_whose_caller_gave_up_before_it_attached_never_rings() {
    let world = World::new("caller-cancels-early");
    let kamailio = Kamailio::start(&world, &Manners::default());
    // An Android phone: it closes its call screen by itself, and needs no INVITE for that.
    let push = PushService::start(&world, Provider::Fcm);
    let daemon = Daemon::start(&world, &kamailio, &push);
    let instance = daemon.hand_over(&kamailio, &push, "alice", Transport::Udp);

    // SIPp checks the 487 itself.
    Call::start(&world, &kamailio, "alice", Caller::Cancels).finish();
    let wake = push.wait_for_call(1);
    let mut phone = Phone::start(&world, Make::Pjsip, &daemon.attach(&instance, Transport::Tls));
    let registered = phone.trace.response(200, "REGISTER");

    let ended = registered.header("Reveille-Call").expect("a phone that comes too late is told so");
    assert!(ended.starts_with(wake.word("call")) && ended.contains(";state=ended;reason="), "{ended}");

    // The next call is the proof that the first one never rang: it comes over the same flow, and it comes first.
    let mut second = Call::start(&world, &kamailio, "alice", Caller::HangsUp);
    phone.wait_ringing(&second.id());
    phone.answer();
    second.finish();
    let rang = phone.trace.requests("INVITE");
    assert_eq!(rang.len(), 1);
    assert_eq!(rang[0].header("Call-ID"), Some(&*second.id()));
}
