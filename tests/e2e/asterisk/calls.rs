//! The main promise, with Asterisk as the PBX: a sleeping phone takes a call, over each transport, however it ends.

use super::Manners;
use super::office::Office;
use crate::phones::{CallerManners, Make, Order};
use crate::process::until;
use crate::world::{Transport, World};

/// Bob calls and hangs up after a talk; the phone sleeps again, is called again, and hangs up itself. Then a call that bob gives
/// up while the phone rings, and one that the phone declines.
fn takes_every_call(make: Make, attach: Transport, trunk: Transport, manners: &Manners) {
    let back = if manners.rewrite_contact { "" } else { "-called-back" };
    let world = World::new(&format!("asterisk-{}{back}", trunk.name()));
    let office = Office::new(&world, manners, trunk);
    assert_eq!(office.asterisk.bindings("alice").len(), 1);

    let mut talk = office.talk(make, attach);
    talk.ends();
    talk.phone.kill();

    let mut talk = office.talk(make, attach);
    talk.phone.hang_up();
    let bye = talk.heard_by_caller().request("BYE");
    assert_eq!(talk.caller.trace.answer_to(&bye).status(), Some(200));
    talk.phone.kill();

    let mut talk = office.ring(make, attach);
    talk.caller.hang_up();
    talk.phone.trace.request("CANCEL");
    talk.phone.trace.response(487, "INVITE");
    talk.heard_by_caller().response(487, "INVITE");
    talk.phone.kill();

    let mut talk = office.ring(make, attach);
    talk.phone.obey(Order::Decline(486));
    let heard = talk.heard_by_caller();
    let refusal = heard.answer_to(&heard.request("INVITE"));
    // A 486 is busy to Asterisk's Dial, the 603 of linphone a channel that is not available.
    assert_eq!(refusal.status(), Some(if make == Make::Linphone { 503 } else { 486 }));

    office.wait_nothing_left();
    assert_eq!(office.push.of_kind("call").len(), 4, "one wake for each call");
    office.daemon.erase(&office.alice);
    until("the PBX to forget the binding", || office.asterisk.bindings("alice").is_empty().then_some(()));
}

#[test]
fn pjsip_takes_every_call_from_a_udp_trunk() {
    takes_every_call(Make::Pjsip, Transport::Tls, Transport::Udp, &Manners::default());
}

#[test]
fn baresip_takes_every_call_from_a_tcp_trunk() {
    takes_every_call(Make::Baresip, Transport::Tcp, Transport::Tcp, &Manners::default());
}

#[test]
fn linphone_takes_every_call_from_a_tls_trunk() {
    takes_every_call(Make::Linphone, Transport::Udp, Transport::Tls, &Manners::default());
}

/// Without `rewrite_contact` Asterisk opens a connection of its own to the Contact.
#[test]
fn calls_that_are_opened_to_the_contact_over_tcp_are_taken() {
    let manners = Manners { rewrite_contact: false, ..Manners::default() };
    takes_every_call(Make::Pjsip, Transport::Udp, Transport::Tcp, &manners);
}

#[test]
fn a_caller_who_gives_up_before_the_phone_attaches_is_answered_and_the_phone_never_rings() {
    let world = World::new("asterisk-cancels-early");
    let office = Office::new(&world, &Manners::default(), Transport::Udp);
    let mut caller = office.caller(CallerManners::default());

    let first = caller.call("alice");
    let wake = office.push.wait_for_call(1);
    caller.trace.of_call(&first).response(180, "INVITE");
    caller.hang_up();
    caller.trace.of_call(&first).response(487, "INVITE");
    office.wait_nothing_left();
    let phone = office.wake_phone(&office.alice, Make::Pjsip, Transport::Tls);
    let registered = phone.trace.response(200, "REGISTER");

    let ended = registered.header("Reveille-Call").expect("a phone that comes too late is told so");
    assert!(ended.starts_with(wake.word("call")) && ended.contains(";state=ended;reason="), "{ended}");
    let second = caller.call("alice");
    phone.trace.response(180, "INVITE");
    caller.trace.of_call(&second).response(180, "INVITE");
    assert_eq!(phone.trace.distinct("INVITE").len(), 1, "the second call is the first that rings");
}
