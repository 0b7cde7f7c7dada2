//! Matching: a branch has no case, and the port that a transport has by default need not be written (RFC 3261 §7.3.1, §17.2.3).

use reveille::sip::{HeaderName, Message};

use crate::sip_text::field;
use crate::world::{PushMode, World, millis, minutes, secs, seed};

fn sleeping(number: u64) -> World {
    World::new(seed(number)).with_push(PushMode::Swallow(millis(50))).with_sleeping_phone("alice")
}

#[test]
fn a_cancel_is_matched_whatever_the_case_of_its_branch_and_with_or_without_the_default_port() {
    for (branch, sent_by) in [(true, false), (false, true), (true, true)] {
        let mut world = sleeping(856);
        let call = world.pbx().invite("alice");
        world.run_for(secs(1));
        let own = world.pbx().address;
        let mut out = Vec::new();
        reveille::sip::proxy::write_cancel(&world.pbx().call(call).invite, None, &mut out).expect("a CANCEL");
        let mut cancel = String::from_utf8(out).expect("ASCII");
        let via = field(&world.pbx().call(call).invite, HeaderName::Via);
        let mut odd = via.clone();
        if branch {
            odd = odd.replace("z9hG4bKpbx", "Z9HG4BKPBX");
        }
        if sent_by {
            odd = odd.replace("198.51.100.10:5060", "198.51.100.10");
        }
        assert_ne!(odd, via);
        cancel = cancel.replace(&via, &odd);
        let before = world.sent.len();
        world.pbx().send_raw(own, cancel.as_bytes());
        world.run_for(secs(1));
        assert!(world.sent[before..].iter().any(|(_, _, bytes)| bytes.starts_with(b"SIP/2.0 200")), "{odd}");
        assert_eq!(world.pbx().final_response(call), Some(487), "{odd}");
        world.run_for(minutes(1));
        world.assert_nothing_left();
    }
}

#[test]
fn an_acknowledgement_is_matched_as_well() {
    let mut world = sleeping(857);
    let call = world.pbx().invite("alice");
    world.run_for(secs(1));
    let text = String::from_utf8(world.pbx().call(call).invite.bytes().to_vec()).expect("ASCII");
    let stranger = "203.0.113.77:5060";
    let invite = text
        .replace("z9hG4bKpbx", "z9hG4bKelse")
        .replace("Call-ID: ", "Call-ID: another-")
        .replace("198.51.100.10:5060", stranger)
        // It pays for its refusal to be repeated.
        .replace("Max-Forwards: 70\r\n", &format!("Max-Forwards: 70\r\nX-Long: {}\r\n", "x".repeat(4000)));
    world.stranger_sends(stranger, invite.as_bytes());
    world.run_for(millis(45_300));
    let refused = world.sent_to(stranger).pop().expect("a refusal");
    assert_eq!(crate::sip_text::code(&refused), 480);
    let invite = Message::parse_datagram(invite.into_bytes()).expect("SIP");
    let mut out = Vec::new();
    reveille::sip::proxy::write_ack(&invite, &refused, &mut out).expect("an ACK");
    let ack = String::from_utf8(out).expect("ASCII");
    let odd = ack.replacen("z9hG4bKelse", "Z9hg4bkELSE", 1).replacen(&format!("UDP {stranger}"), "udp 203.0.113.77", 1);
    assert_ne!(ack, odd);
    let before = world.sent_to(stranger).len();
    world.stranger_sends(stranger, odd.as_bytes());
    world.run_for(minutes(1));
    assert_eq!(world.sent_to(stranger).len(), before, "the refusal is not repeated");
}
