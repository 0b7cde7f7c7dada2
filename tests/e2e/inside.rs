//! Requests inside a call, and answers before it is answered: the daemon carries all of them, both ways, unchanged.

use crate::phones::{CallerManners, Make, Order};
use crate::process::until;
use crate::push::Provider;
use crate::setting::Setting;
use crate::sipp::{Call, Caller};
use crate::trace::Message;
use crate::world::{Transport, World};

/// Each end puts the other on hold and takes it back.
fn either_end_holds_and_resumes(make: Make, attach: Transport, trunk: Transport) {
    let world = World::new(&format!("hold-{make:?}").to_lowercase());
    let setting = Setting::new(&world, Provider::Apns, trunk);
    let mut talk = setting.talk(make, attach);

    for by_phone in [true, false] {
        let (offer, answer) = talk.re_invite(by_phone, Order::Hold);
        assert!(says(&offer, "a=sendonly"), "{offer:?}");
        assert!(says(&answer, "a=recvonly") || says(&answer, "a=inactive"), "{answer:?}");
        let (offer, _) = talk.re_invite(by_phone, Order::Resume);
        assert!(!says(&offer, "a=sendonly"), "{offer:?}");
    }

    talk.caller.hang_up();
    talk.heard_by_phone().response(200, "BYE");
    talk.heard_by_caller().response(200, "BYE");
    assert_eq!(setting.kamailio.count("INVITE"), 4, "each re-INVITE passed the PBX once");
}

fn says(message: &Message, line: &str) -> bool {
    String::from_utf8_lossy(&message.body).lines().any(|own| own == line)
}

#[test]
fn pjsip_and_its_caller_hold_and_resume() {
    either_end_holds_and_resumes(Make::Pjsip, Transport::Tls, Transport::Udp);
}

#[test]
fn linphone_and_its_caller_hold_and_resume() {
    either_end_holds_and_resumes(Make::Linphone, Transport::Tcp, Transport::Tls);
}

#[test]
fn baresip_and_its_caller_hold_and_resume() {
    either_end_holds_and_resumes(Make::Baresip, Transport::Udp, Transport::Tcp);
}

#[test]
fn whatever_is_asked_inside_a_call_reaches_the_other_end_and_is_answered() {
    let world = World::new("inside");
    let setting = Setting::new(&world, Provider::Fcm, Transport::Udp);
    let mut talk = setting.talk(Make::Pjsip, Transport::Tls);

    for by_phone in [true, false] {
        for (order, method, status) in [
            (Order::Update, "UPDATE", 200),
            (Order::Digit('7'), "INFO", 200),
            (Order::Text("see you at eight"), "MESSAGE", 200),
            // PJSIP's own word for OPTIONS inside a call.
            (Order::Options, "OPTIONS", 500),
        ] {
            let (_, answer) = talk.exchange(by_phone, order, method);
            assert_eq!(answer.status(), Some(status), "{method}, asked by the phone: {by_phone}");
        }
    }

    for end in [&talk.caller, &talk.phone] {
        // PJSIP answers before it tells its application.
        for words in ["message in a call {'body': 'see you at eight'}", "digit {'digit': '7'}"] {
            until("the phone to show what came", || end.trace.mentions(words).then_some(()));
        }
    }
    talk.phone.hang_up();
    talk.heard_by_caller().response(200, "BYE");
}

/// The other makes are asked by the caller only: they are given no words for asking themselves.
fn answers_inside_a_call(make: Make, attach: Transport, answers: [(Order<'_>, &str, u16); 4]) {
    let world = World::new(&format!("inside-{make:?}").to_lowercase());
    let setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    let mut talk = setting.talk(make, attach);

    for (order, method, status) in answers {
        let (_, answer) = talk.exchange(false, order, method);
        assert_eq!(answer.status(), Some(status), "{method}");
    }

    talk.phone.hang_up();
    talk.heard_by_caller().response(200, "BYE");
}

#[test]
fn linphone_is_asked_inside_a_call_and_answers() {
    let answers = [
        (Order::Update, "UPDATE", 200),
        (Order::Digit('7'), "INFO", 200),
        (Order::Text("see you at eight"), "MESSAGE", 200),
        (Order::Options, "OPTIONS", 200),
    ];
    answers_inside_a_call(Make::Linphone, Transport::Tls, answers);
}

#[test]
fn baresip_is_asked_inside_a_call_and_answers() {
    let answers = [
        (Order::Update, "UPDATE", 501),
        (Order::Digit('7'), "INFO", 200),
        (Order::Text("see you at eight"), "MESSAGE", 200),
        (Order::Options, "OPTIONS", 200),
    ];
    answers_inside_a_call(Make::Baresip, Transport::Tcp, answers);
}

/// What the phone does with a REFER is between it and its own PBX; that it hears of it, and the caller of what came of it
/// (NOTIFY), is up to the route set.
#[test]
fn a_transfer_is_asked_for_through_the_route_set_and_its_outcome_told() {
    for by_phone in [true, false] {
        let world = World::new(if by_phone { "refer-by-phone" } else { "refer-by-caller" });
        let setting = Setting::new(&world, Provider::Fcm, Transport::Tcp);
        let mut talk = setting.talk(Make::Pjsip, Transport::Tcp);

        let (_, accepted) = talk.exchange(by_phone, Order::Refer("sip:nobody@pbx.test"), "REFER");

        assert_eq!(accepted.status(), Some(202));
        let (asking, asked) = match by_phone {
            true => (talk.heard_by_phone(), talk.heard_by_caller()),
            false => (talk.heard_by_caller(), talk.heard_by_phone()),
        };
        let outcome = until("the transfer's outcome", || {
            let notified = asking.distinct("NOTIFY");
            notified.into_iter().find(|notify| String::from_utf8_lossy(&notify.body).starts_with("SIP/2.0 4"))
        });
        assert_eq!(outcome.via_count(), 3, "{outcome:?}");
        asked.answer_to(&outcome);
    }
}

#[test]
fn early_media_reaches_the_caller_before_the_phone_is_answered() {
    let world = World::new("early-media");
    let setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    let mut talk = setting.ring(Make::Pjsip, Transport::Tls);

    talk.phone.obey(Order::Early);

    let given = talk.heard_by_phone().response(183, "INVITE");
    let heard = talk.heard_by_caller().response(183, "INVITE");
    assert!(!given.body.is_empty());
    assert_eq!(heard.body, given.body);
    talk.phone.answer();
    talk.heard_by_phone().request("ACK");
    talk.caller.hang_up();
    talk.heard_by_phone().response(200, "BYE");
}

/// An INVITE without SDP (RFC 3261 §13.2.1): the phone offers in its 200, the caller answers in its ACK.
fn is_called_without_an_offer(make: Make, attach: Transport, trunk: Transport) {
    let world = World::new(&format!("late-offer-{make:?}").to_lowercase());
    let setting = Setting::new(&world, Provider::Fcm, trunk);
    let mut call = Call::start(&world, &setting.kamailio, "alice", Caller::OffersNothing);
    setting.push.wait_for_call(1);
    let mut phone = setting.wake_phone(make, attach);
    phone.wait_ringing(&call.id());
    phone.answer();
    call.finish();

    let heard = phone.trace.of_call(&call.id());
    assert!(heard.request("INVITE").body.is_empty());
    let (offer, answer) = (heard.response(200, "INVITE").body, heard.request("ACK").body);
    assert!(!offer.is_empty() && !answer.is_empty());
    assert_eq!(call.trace.response(200, "INVITE").body, offer);
    assert_eq!(call.trace.request("ACK").body, answer);
}

#[test]
fn pjsip_is_called_without_an_offer() {
    is_called_without_an_offer(Make::Pjsip, Transport::Tls, Transport::Udp);
}

#[test]
fn linphone_is_called_without_an_offer() {
    is_called_without_an_offer(Make::Linphone, Transport::Tcp, Transport::Tcp);
}

#[test]
fn baresip_is_called_without_an_offer() {
    is_called_without_an_offer(Make::Baresip, Transport::Udp, Transport::Udp);
}

/// The caller takes no provisional response that it cannot acknowledge (RFC 3262): none of ours, each of the phone's.
fn rings_reliably(make: Make, attach: Transport) {
    let world = World::new(&format!("100rel-{make:?}").to_lowercase());
    let setting = Setting::new(&world, Provider::Apns, Transport::Udp);
    let mut caller = setting.caller(CallerManners { require_100rel: true });
    let id = caller.call("alice");
    setting.push.wait_for_call(1);
    let mut phone = setting.wake_phone(make, attach);
    phone.wait_ringing(&id);
    let (spoke, heard) = (caller.trace.of_call(&id), phone.trace.of_call(&id));

    if make == Make::Pjsip {
        phone.obey(Order::Early);
        spoke.response(183, "INVITE");
    }
    let prack = heard.request("PRACK");
    assert_eq!(prack.via_count(), 3, "{prack:?}");
    spoke.response(200, "PRACK");
    phone.answer();
    heard.request("ACK");
    caller.hang_up();
    heard.response(200, "BYE");

    let early: Vec<_> =
        spoke.messages().into_iter().filter(|message| matches!(message.status(), Some(101..200))).collect();
    assert!(early.iter().all(|message| message.header("RSeq").is_some()), "{early:?}");
}

#[test]
fn pjsip_rings_reliably_where_the_caller_requires_it() {
    rings_reliably(Make::Pjsip, Transport::Tls);
}

#[test]
fn linphone_rings_reliably_where_the_caller_requires_it() {
    rings_reliably(Make::Linphone, Transport::Tcp);
}

/// baresip 1.0 knows no reliable provisional responses, and it is its word that the caller hears.
#[test]
fn a_caller_who_requires_what_the_phone_cannot_do_is_told_so_by_the_phone() {
    let world = World::new("100rel-baresip");
    let setting = Setting::new(&world, Provider::Apns, Transport::Tcp);
    let mut caller = setting.caller(CallerManners { require_100rel: true });
    let id = caller.call("alice");
    setting.push.wait_for_call(1);
    let _phone = setting.wake_phone(Make::Baresip, Transport::Tcp);

    let refused = caller.trace.of_call(&id).response(420, "INVITE");

    assert_eq!(refused.header("Unsupported"), Some("100rel"));
}
