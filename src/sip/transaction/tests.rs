//! A random walk through each machine: whatever happens in whatever order, it ends once, never asks for a moment that has
//! passed, and never sends more than the RFC's timers allow.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::message::StatusCode;
use super::testing::{START, Timed};
use super::*;

/// More sendings than any of the figures allows for one message (figure 6: eleven).
const SENDINGS_MAX: usize = 11;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Time jumps, past deadlines or not.
    Wait(Duration),
    /// A response comes (client) or is given (server).
    Response(StatusCode),
    /// The ACK (INVITE server only).
    Ack,
    /// The request again (servers only).
    Again,
}

proptest! {
    #[test]
    fn every_invite_client_ends_once(events in events(), reliable in any::<bool>()) {
        let mut client = InviteClient::new(Bytes::new(), reliable, START);
        let (mut finals, mut over) = (0, false);
        walk(&mut client, &events, |client, event, now| {
            if let Event::Response(code) = event {
                let verdict = client.handle_response(code, now);
                if verdict == Verdict::DeliverAndAck {
                    finals += 1;
                }
                assert!(!(over && verdict == Verdict::Deliver && !code.is_success()), "delivered after the end");
            }
            over |= client.is_over();
            assert_eq!(over, client.is_over(), "came back to life");
            assert!(!(client.is_over() && client.is_proceeding()));
        })?;
        prop_assert!(finals <= 1, "a refusal is delivered once");
    }

    #[test]
    fn every_other_client_ends_once(events in events(), reliable in any::<bool>(), most in proptest::option::of(1..5_u8)) {
        let mut client = NonInviteClient::new(Bytes::new(), reliable, most, START);
        let mut finals = 0;
        let resends = walk(&mut client, &events, |client, event, now| {
            if let Event::Response(code) = event {
                let over = client.is_over();
                let delivered = client.handle_response(code, now) == Verdict::Deliver;
                assert_eq!(delivered, !over);
                finals += usize::from(delivered && !code.is_provisional());
            }
        })?;
        prop_assert!(finals <= 1, "a final is delivered once");
        prop_assert!(most.is_none_or(|most| resends < usize::from(most)));
    }

    #[test]
    fn every_invite_server_ends_once(events in events(), reliable in any::<bool>(), most in proptest::option::of(1..5_u8)) {
        let mut server = InviteServer::new(reliable, most, START);
        let resends = walk(&mut server, &events, |server, event, now| match event {
            Event::Response(code) => {
                let before = server.final_code();
                let sent = server.respond(code, Bytes::from(code.code().to_string()), now);
                let passes = before.is_none_or(|before| before.is_success() && code.is_success());
                assert!(!sent || passes, "{code:?} after {before:?}");
                assert!(before.is_none() || server.final_code() == before, "only the first final counts");
            }
            Event::Ack => {
                let refused = server.final_code().is_some_and(|code| !code.is_success());
                assert_eq!(server.handle_ack(now), refused);
            }
            Event::Again => {
                let accepted = server.final_code().is_some_and(StatusCode::is_success);
                assert!(!accepted || server.handle_retransmission().is_none(), "a 2xx is not ours to repeat");
            }
            Event::Wait(_) => {}
        })?;
        prop_assert!(most.is_none_or(|most| resends < usize::from(most)));
    }

    #[test]
    fn every_other_server_ends_once(events in events(), reliable in any::<bool>()) {
        let mut server = NonInviteServer::new(reliable, START);
        let resends = walk(&mut server, &events, |server, event, now| match event {
            Event::Response(code) => {
                let over = server.final_code().is_some();
                assert_eq!(server.respond(code, Bytes::from(code.code().to_string()), now), !over);
            }
            Event::Again => {
                let expected = server.final_code().map(|code| Bytes::from(code.code().to_string()));
                let answer = server.handle_retransmission().cloned();
                assert!(server.is_terminated() || expected.is_none() || answer == expected);
            }
            Event::Ack | Event::Wait(_) => {}
        })?;
        prop_assert_eq!(resends, 0, "it sends again only when asked");
    }
}

/// Plays the events, with every deadline on the way, and then lets the clock run out. The number of retransmissions.
fn walk<M: Timed>(
    machine: &mut M,
    events: &[Event],
    mut play: impl FnMut(&mut M, Event, Instant),
) -> Result<usize, TestCaseError> {
    let (mut now, mut ends, mut resends) = (START, 0, 0);
    let mut fire = |machine: &mut M, now: Instant| {
        match machine.fire(now) {
            Timeout::Idle => {}
            Timeout::Retransmit => resends += 1,
            Timeout::TimedOut | Timeout::Terminated => ends += 1,
        }
        let passed = machine.due().is_some_and(|due| due <= now);
        prop_assert!(!passed, "asks for a moment that has passed");
        prop_assert!(ends <= 1, "ends twice");
        prop_assert!(ends == 0 || machine.due().is_none(), "goes on after its end");
        Ok(())
    };
    for event in events {
        if let Event::Wait(span) = event {
            now = now + *span;
            fire(machine, now)?;
        }
        play(machine, *event, now);
    }
    while let Some(due) = machine.due() {
        now = due.max(now);
        fire(machine, now)?;
    }
    prop_assert!(resends < SENDINGS_MAX, "{resends} retransmissions");
    Ok(resends)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0..40_000_u64).prop_map(|milliseconds| Event::Wait(Duration::from_millis(milliseconds))),
        3 => prop::sample::select(vec![100, 180, 200, 202, 302, 401, 486, 503, 603])
            .prop_map(|code| Event::Response(StatusCode::new(code).expect("a status code"))),
        1 => Just(Event::Ack),
        1 => Just(Event::Again),
    ];
    proptest::collection::vec(event, 0..16)
}
