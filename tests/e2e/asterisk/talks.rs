//! What Asterisk does with a call beside passing it on: media between the ends, timers, reliable ringing, transfers, queues.

use std::time::Duration;

use serde_json::json;

use super::Manners;
use super::office::Office;
use crate::daemon::HandOver;
use crate::phones::{CallerManners, Make, Order, Phone};
use crate::process::{after, until};
use crate::trace::Message;
use crate::world::{Transport, World};

/// The port for media in the SDP of a message.
fn media_port(message: &Message) -> String {
    let body = String::from_utf8_lossy(&message.body).into_owned();
    let line = body.lines().find_map(|line| line.strip_prefix("m=audio "));
    line.and_then(|line| line.split(' ').next()).expect("audio is offered").to_owned()
}

/// Both ends are asked, by a re-INVITE, to send to one another.
#[test]
fn media_flow_between_the_ends_where_the_pbx_lets_them() {
    let world = World::new("asterisk-direct-media");
    let office = Office::new(&world, &Manners { direct_media: true, ..Manners::default() }, Transport::Tcp);

    let mut talk = office.talk(Make::Pjsip, Transport::Tls);

    let again = talk.phone.trace.nth("INVITE", 2);
    assert_eq!(media_port(&again), media_port(&talk.heard_by_caller().distinct("INVITE")[0]));
    assert_eq!(talk.phone.trace.answer_to(&again).status(), Some(200));
    talk.phone.trace.nth("ACK", 2);
    talk.ends();
    office.wait_nothing_left();
}

/// Half of the shortest session there is (RFC 4028 §4).
const SESSION_REFRESH: Duration = Duration::from_secs(45);

/// In one call that lasts: session timers, OPTIONS to the Contact every other second, and registrations of twenty seconds.
#[test]
fn a_long_call_is_kept_up_and_so_is_the_registration() {
    let world = World::new("asterisk-long-call");
    let manners = Manners { timers: "always", qualify: 2, max_expires: 20, ..Manners::default() };
    let office = Office::new(&world, &manners, Transport::Udp);

    let mut talk = office.talk(Make::Pjsip, Transport::Tcp);
    let invite = talk.rings();
    assert!(invite.header("Session-Expires").is_some_and(|value| value.starts_with("90")), "{invite:?}");
    let refresh = after(SESSION_REFRESH, "the session to be refreshed", || {
        let trace = &talk.phone.trace;
        trace.distinct("UPDATE").pop().or_else(|| trace.distinct("INVITE").into_iter().nth(1))
    });

    assert_eq!(talk.phone.trace.answer_to(&refresh).status(), Some(200));
    assert!(office.asterisk.answered(200, "REGISTER") >= 3, "refreshed while the call goes on");
    let contacts = office.asterisk.trace.distinct("OPTIONS").len();
    let answered = office.asterisk.answered(200, "OPTIONS");
    assert!(answered >= 10 && answered + 1 >= contacts, "{answered} of {contacts}");
    assert_eq!(office.asterisk.bindings("alice").len(), 1);
    talk.ends();
    assert_eq!(office.push.accepted().len(), 1, "nothing but the call woke the phone");
}

#[test]
fn a_pbx_that_requires_reliable_ringing_gets_it_from_the_phone() {
    let world = World::new("asterisk-100rel");
    let office = Office::new(&world, &Manners { reliable: "required", ..Manners::default() }, Transport::Udp);

    let mut talk = office.talk(Make::Pjsip, Transport::Tls);

    assert!(talk.rings().header("Require").is_some_and(|value| value.contains("100rel")));
    let prack = talk.phone.trace.request("PRACK");
    assert_eq!(talk.phone.trace.answer_to(&prack).status(), Some(200));
    talk.ends();
    office.wait_nothing_left();
}

#[test]
fn the_first_of_two_devices_to_answer_wins() {
    const TABLET: &str = "alice-tablet";
    let world = World::new("asterisk-two-devices");
    let office = Office::new(&world, &Manners::default(), Transport::Tcp);
    let share = HandOver { user: "alice", device: TABLET, trunk: Transport::Tcp, more: json!({}) };
    let tablet = office.daemon.hand_over_from(&office.asterisk, &office.push, &share);
    assert_eq!(office.asterisk.bindings("alice").len(), 1, "the PBX knows one contact");
    let mut caller = office.caller(CallerManners::default());

    let id = caller.call("alice");
    let tokens = ["alice", TABLET].map(|device| office.push.token(device, "call"));
    let wakes = tokens.map(|token| office.push.wait_for("call", &token, 1));
    assert_ne!(wakes[0].word("call"), wakes[1].word("call"), "each device has its own name for the call");
    let mut first = office.wake_phone(&office.alice, Make::Pjsip, Transport::Tls);
    let other = office.wake_phone(&tablet, Make::Linphone, Transport::Tcp);
    first.trace.response(180, "INVITE");
    other.trace.response(180, "INVITE");
    first.answer();

    other.trace.request("CANCEL");
    other.trace.response(487, "INVITE");
    first.trace.request("ACK");
    caller.trace.of_call(&id).response(200, "INVITE");
    caller.hang_up();
    first.trace.response(200, "BYE");
    office.wait_nothing_left();
    assert!(office.push.of_kind("missed-call").is_empty(), "an answered call is not missed");
}

/// Waits until carol is woken, and starts her phone.
#[track_caller]
fn carol_takes_the_call(office: &Office<'_>, carol: &crate::daemon::Instance) -> Phone {
    office.push.wait_for("call", &office.push.token("carol", "call"), 1);
    let mut phone = office.wake_phone(carol, Make::Pjsip, Transport::Tls);
    phone.trace.response(180, "INVITE");
    phone.answer();
    phone.trace.request("ACK");
    phone
}

#[test]
fn a_phone_transfers_its_call_to_one_that_sleeps() {
    let world = World::new("asterisk-transfer-by-phone");
    let office = Office::new(&world, &Manners::default(), Transport::Tcp);
    let carol = office.daemon.hand_over(&office.asterisk, &office.push, "carol", Transport::Tcp);
    let mut talk = office.talk(Make::Pjsip, Transport::Tls);

    talk.phone.obey(Order::Refer("sip:carol@pbx.test"));
    let refer = talk.phone.trace.request("REFER");
    assert_eq!(talk.phone.trace.answer_to(&refer).status(), Some(202));
    let phone = carol_takes_the_call(&office, &carol);

    until("the outcome to be told", || {
        let told = talk.phone.trace.distinct("NOTIFY");
        told.iter().any(|notify| notify.body.starts_with(b"SIP/2.0 200")).then_some(())
    });
    // Asterisk leaves it to the phone to end its part.
    talk.phone.hang_up();
    talk.phone.trace.response(200, "BYE");
    talk.caller.hang_up();
    phone.trace.response(200, "BYE");
    office.wait_nothing_left();
}

/// The phone names its second call in the Refer-To (RFC 3891), by the Call-ID and tags that the PBX knows too.
#[test]
fn a_phone_joins_its_two_callers() {
    let world = World::new("asterisk-attended-transfer");
    let office = Office::new(&world, &Manners::default(), Transport::Udp);
    let mut talk = office.talk(Make::Pjsip, Transport::Tls);
    let mut second = office.caller(CallerManners::default());
    let calls = second.call("alice");
    second.trace.of_call(&calls).response(180, "INVITE");
    talk.phone.trace.nth("INVITE", 2);
    talk.phone.answer();
    second.trace.of_call(&calls).response(200, "INVITE");
    talk.phone.trace.nth("ACK", 2);

    talk.phone.obey(Order::Join);

    let refer = talk.phone.trace.request("REFER");
    assert!(refer.header("Refer-To").is_some_and(|target| target.contains("Replaces=")), "{refer:?}");
    assert_eq!(talk.phone.trace.answer_to(&refer).status(), Some(202));
    until("the outcome to be told", || {
        let told = talk.phone.trace.distinct("NOTIFY");
        told.iter().any(|notify| notify.body.starts_with(b"SIP/2.0 200")).then_some(())
    });
    talk.phone.hang_up();
    talk.caller.hang_up();
    second.trace.of_call(&calls).request("BYE");
    office.wait_nothing_left();
}

/// The caller leaves, and the phone that was woken for it goes on with another one that sleeps. Its dialog stays, and it is told
/// where media go now.
#[test]
fn the_pbx_transfers_a_woken_phone_to_one_that_sleeps() {
    let world = World::new("asterisk-transfer-by-pbx");
    let office = Office::new(&world, &Manners { direct_media: true, ..Manners::default() }, Transport::Udp);
    let carol = office.daemon.hand_over(&office.asterisk, &office.push, "carol", Transport::Udp);
    let mut talk = office.talk(Make::Pjsip, Transport::Tcp);

    let channel = office.asterisk.channel_of("bob");
    office.asterisk.ask("BlindTransfer", &[("Channel", &channel), ("Context", "office"), ("Exten", "carol")]);
    talk.heard_by_caller().request("BYE");
    let phone = carol_takes_the_call(&office, &carol);

    let answered = phone.trace.response(200, "INVITE");
    let moved = until("the phone to be told of the other one", || {
        let invites = talk.phone.trace.distinct("INVITE");
        invites.into_iter().find(|invite| !invite.body.is_empty() && media_port(invite) == media_port(&answered))
    });
    assert_eq!(talk.phone.trace.answer_to(&moved).status(), Some(200));
    talk.phone.hang_up();
    phone.trace.response(200, "BYE");
    office.wait_nothing_left();
}

/// Each attempt of a queue is a call of its own, and wakes anew.
#[test]
fn a_queue_that_rings_again_is_heard_again() {
    let world = World::new("asterisk-queue");
    let office = Office::new(&world, &Manners::default(), Transport::Udp);
    let mut caller = office.caller(CallerManners::default());

    let id = caller.call("queue");
    let wakes = [1, 2].map(|nth| office.push.wait_for_call(nth));
    assert_ne!(wakes[0].word("call"), wakes[1].word("call"));
    let mut phone = office.wake_phone(&office.alice, Make::Pjsip, Transport::Tls);
    // Whatever rings is given up again soon.
    let mut rang = 0;
    until("the phone to take a call from the queue", || {
        let messages = phone.trace.messages();
        let rings = messages.iter().filter(|message| message.is_response(180, "INVITE")).count();
        if rings > rang {
            rang = rings;
            phone.answer();
        }
        messages.iter().any(|message| message.is_response(200, "INVITE")).then_some(())
    });

    let ack = phone.trace.request("ACK");
    let taken = phone.trace.of_call(ack.header("Call-ID").unwrap_or_default()).request("INVITE");
    assert_ne!(taken.header("Reveille-Call"), Some(wakes[0].word("call")), "the first attempt was over");
    caller.trace.of_call(&id).response(200, "INVITE");
    caller.hang_up();
    phone.trace.response(200, "BYE");
    office.wait_nothing_left();
}
