//! Each phone takes calls straight from Kamailio, without the daemon.
//!
//! They prove the recipes: when one of these fails, look at the peer and at its file here, not at the daemon.

use crate::kamailio::{Kamailio, Manners, PASSWORD};
use crate::phones::{Attach, Make, Phone};
use crate::process::until;
use crate::sipp::{Call, Caller};
use crate::trace::assert_same_sdp;
use crate::world::{Transport, World};

fn takes_two_calls_from_kamailio(make: Make, transport: Transport) {
    let world = World::new(&format!("recipe-{make:?}-{}", transport.name()).to_lowercase());
    let kamailio = Kamailio::start(&world, &Manners::default());
    let attach = attach_to(&kamailio, transport, &world);
    let mut phone = Phone::start(&world, make, &attach);
    phone.wait_registered();

    for caller in [Caller::HangsUp, Caller::WaitsForBye] {
        let mut call = Call::start(&world, &kamailio, "alice", caller);
        let heard = phone.trace.of_call(&call.id());
        call.trace.response(180, "INVITE");
        phone.answer();
        heard.request("ACK");
        if let Caller::WaitsForBye = caller {
            phone.hang_up();
        }
        call.finish();
        heard.response(200, "BYE");
        assert_same_sdp(&call.trace, &heard);
    }

    assert_eq!(kamailio.count("BYE"), 2);
    assert_eq!(kamailio.count("refused"), 0);
}

#[test]
fn pjsip_over_udp() {
    takes_two_calls_from_kamailio(Make::Pjsip, Transport::Udp);
}

#[test]
fn pjsip_over_tcp() {
    takes_two_calls_from_kamailio(Make::Pjsip, Transport::Tcp);
}

#[test]
fn pjsip_over_tls() {
    takes_two_calls_from_kamailio(Make::Pjsip, Transport::Tls);
}

#[test]
fn baresip_over_udp() {
    takes_two_calls_from_kamailio(Make::Baresip, Transport::Udp);
}

#[test]
fn baresip_over_tcp() {
    takes_two_calls_from_kamailio(Make::Baresip, Transport::Tcp);
}

#[test]
fn baresip_over_tls() {
    takes_two_calls_from_kamailio(Make::Baresip, Transport::Tls);
}

#[test]
fn linphone_over_udp() {
    takes_two_calls_from_kamailio(Make::Linphone, Transport::Udp);
}

#[test]
fn linphone_over_tcp() {
    takes_two_calls_from_kamailio(Make::Linphone, Transport::Tcp);
}

#[test]
fn linphone_over_tls() {
    takes_two_calls_from_kamailio(Make::Linphone, Transport::Tls);
}

#[test]
fn a_caller_who_gives_up_while_it_rings_is_told_so() {
    let world = World::new("recipe-cancel");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let phone = Phone::start(&world, Make::Pjsip, &attach_to(&kamailio, Transport::Tcp, &world));
    phone.wait_registered();

    let mut call = Call::start(&world, &kamailio, "alice", Caller::Cancels);

    phone.trace.request("CANCEL");
    call.finish();
    assert_eq!(kamailio.count("cancels"), 1);
}

/// Otherwise the tests over TLS would prove nothing about certificates. baresip 1.0 is not here: it takes any.
#[test]
fn no_phone_registers_where_the_certificate_is_a_strangers() {
    let world = World::new("recipe-stranger");
    let stranger = World::new("recipe-stranger-ca");
    let kamailio = Kamailio::start(&world, &Manners::default());
    let attach = Attach { ca_file: stranger.ca_file(), ..attach_to(&kamailio, Transport::Tls, &world) };

    for (make, refusal) in [
        (Make::Pjsip, "SSL certificate verification error"),
        (Make::Linphone, "X509 - Certificate verification failed"),
    ] {
        let phone = Phone::start(&world, make, &attach);
        until("the phone to refuse the certificate", || phone.trace.mentions(refusal).then_some(()));
    }

    assert_eq!(kamailio.count("registers"), 0);
}

fn attach_to(kamailio: &Kamailio, transport: Transport, world: &World) -> Attach {
    Attach::to(kamailio, "alice", PASSWORD, transport, world)
}
