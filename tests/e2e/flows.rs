//! A phone whose connection is lost, as happens to phones that move: it attaches again, and its calls go on.

use crate::daemon::Settings;
use crate::middlebox::{Cut, Middlebox};
use crate::phones::{Make, Order, Phone};
use crate::push::Provider;
use crate::setting::Setting;
use crate::world::{Transport, World};

/// The phone's connection is lost in a call, it attaches again, and then each end has something to say before one of them
/// ends the call.
fn loses_its_connection_in_a_call(make: Make, cut: Cut, ended_by_phone: bool) {
    let by = if ended_by_phone { "phone" } else { "caller" };
    let world = World::new(&format!("flow-{make:?}-{cut:?}-{by}").to_lowercase());
    let middlebox = Middlebox::start(&world);
    let settings = Settings { middlebox: Some(&middlebox), ..Settings::default() };
    let setting = Setting::with(&world, Provider::Apns, Transport::Udp, &settings);
    let mut talk = setting.talk(make, Transport::Tls);

    lose_connection(&talk.phone, &middlebox, cut);

    for (by_phone, order) in [(false, Order::Hold), (false, Order::Resume), (true, Order::Hold), (true, Order::Resume)]
    {
        talk.re_invite(by_phone, order);
    }
    if ended_by_phone {
        talk.phone.hang_up();
        let bye = talk.heard_by_caller().request("BYE");
        assert_eq!(bye.via_count(), 3, "{bye:?}");
        talk.heard_by_phone().response(200, "BYE");
    } else {
        talk.caller.hang_up();
        let bye = talk.heard_by_phone().request("BYE");
        assert_eq!(bye.via_count(), 3, "{bye:?}");
        talk.heard_by_caller().response(200, "BYE");
    }
    assert_eq!(talk.heard_by_phone().distinct("INVITE").len(), 5, "the call was not offered again");
    assert_eq!(setting.push.of_kind("call").len(), 1, "nor was the phone woken again");
}

/// Loses the phone's connection and waits until it has attached over another.
#[track_caller]
fn lose_connection(phone: &Phone, middlebox: &Middlebox, cut: Cut) {
    let granted = || phone.trace.messages().iter().filter(|message| message.is_response(200, "REGISTER")).count();
    let before = granted();
    middlebox.cut(cut);
    crate::process::until("the phone to attach again", || (granted() > before).then_some(()));
}

#[test]
fn pjsip_attaches_again_in_a_call_and_the_callers_bye_finds_it() {
    loses_its_connection_in_a_call(Make::Pjsip, Cut::BothSides, false);
}

#[test]
fn pjsip_attaches_again_in_a_call_and_its_bye_finds_the_caller() {
    loses_its_connection_in_a_call(Make::Pjsip, Cut::BothSides, true);
}

/// The daemon still holds the old connection, and nothing has told it that nobody is there.
#[test]
fn pjsip_attaches_again_beside_a_dead_connection_and_the_callers_bye_finds_it() {
    loses_its_connection_in_a_call(Make::Pjsip, Cut::PhoneSide, false);
}

#[test]
fn linphone_attaches_again_in_a_call_and_the_callers_bye_finds_it() {
    loses_its_connection_in_a_call(Make::Linphone, Cut::PhoneSide, false);
}

#[test]
fn linphone_attaches_again_in_a_call_and_its_bye_finds_the_caller() {
    loses_its_connection_in_a_call(Make::Linphone, Cut::BothSides, true);
}

#[test]
fn baresip_attaches_again_in_a_call_and_the_callers_bye_finds_it() {
    loses_its_connection_in_a_call(Make::Baresip, Cut::BothSides, false);
}

#[test]
fn baresip_attaches_again_in_a_call_and_its_bye_finds_the_caller() {
    loses_its_connection_in_a_call(Make::Baresip, Cut::PhoneSide, true);
}

/// What is sent again on the new connection is the same transaction, so the phone shows one call and answers it.
#[test]
fn a_phone_that_loses_its_connection_while_it_rings_still_shows_one_call() {
    for cut in [Cut::BothSides, Cut::PhoneSide] {
        let world = World::new(&format!("flow-ringing-{cut:?}").to_lowercase());
        let middlebox = Middlebox::start(&world);
        let settings = Settings { middlebox: Some(&middlebox), ..Settings::default() };
        let setting = Setting::with(&world, Provider::Apns, Transport::Udp, &settings);
        let mut talk = setting.ring(Make::Pjsip, Transport::Tls);

        lose_connection(&talk.phone, &middlebox, cut);

        let again = crate::process::until("the INVITE to come again", || {
            let invites = talk.heard_by_phone().requests("INVITE");
            (invites.len() == 2).then_some(invites)
        });
        let branch =
            |nth: usize| again[nth].headers("Via")[0].split_once("branch=").map(|(_, branch)| branch.to_owned());
        assert_eq!(branch(0), branch(1), "sent again, it is the same transaction");
        talk.phone.answer();
        talk.heard_by_caller().response(200, "INVITE");
        talk.heard_by_phone().request("ACK");
        talk.caller.hang_up();
        talk.heard_by_phone().response(200, "BYE");
        assert!(!talk.heard_by_phone().messages().iter().any(|message| message.is_response(482, "INVITE")));
    }
}
