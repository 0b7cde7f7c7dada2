//! The client of an INVITE: RFC 3261 figure 5, with Accepted of RFC 6026 figure 1.

use bytes::Bytes;

use super::super::message::StatusCode;
use super::super::timers::{Retransmission, TIMER_D, TRANSACTION_TIMEOUT};
use super::{Ended, Timeout, Verdict};
use crate::clock::Instant;

/// An INVITE that we sent.
#[derive(Debug)]
pub struct InviteClient {
    request: Bytes,
    reliable: bool,
    state: State,
    final_code: Option<StatusCode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No response yet. `timer_a` only over unreliable transports.
    Calling {
        timer_a: Option<Retransmission>,
        timer_b: Instant,
    },
    /// A provisional response came; the wait for a final has no end of its own (timer C is the proxy's).
    Proceeding,
    /// A final other than 2xx came; its repetitions get the ACK again.
    Completed {
        timer_d: Instant,
    },
    /// A 2xx came; further ones (of other forks, or repeated) pass through to the user.
    Accepted {
        timer_m: Instant,
    },
    Terminated(Ended),
}

impl InviteClient {
    /// The owner sends `request` now.
    #[must_use]
    pub fn new(request: Bytes, reliable: bool, now: Instant) -> Self {
        let timer_a = (!reliable).then(|| Retransmission::after_t1(now));
        let state = State::Calling { timer_a, timer_b: now + TRANSACTION_TIMEOUT };
        Self { request, reliable, state, final_code: None }
    }

    /// A response came whose branch and method are ours.
    #[must_use]
    pub fn handle_response(&mut self, code: StatusCode, now: Instant) -> Verdict {
        match self.state {
            State::Calling { .. } | State::Proceeding if code.is_provisional() => {
                self.state = State::Proceeding;
                Verdict::Deliver
            }
            State::Calling { .. } | State::Proceeding if code.is_success() => {
                self.final_code = Some(code);
                self.state = State::Accepted { timer_m: now + TRANSACTION_TIMEOUT };
                Verdict::Deliver
            }
            State::Calling { .. } | State::Proceeding => {
                self.final_code = Some(code);
                self.state = if self.reliable {
                    State::Terminated(Ended::at_once(now))
                } else {
                    State::Completed { timer_d: now + TIMER_D }
                };
                Verdict::DeliverAndAck
            }
            State::Completed { .. } if !code.is_provisional() && !code.is_success() => Verdict::Ack,
            State::Accepted { .. } if code.is_success() => Verdict::Deliver,
            State::Completed { .. } | State::Accepted { .. } | State::Terminated(_) => Verdict::Absorb,
        }
    }

    /// Does what is due.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match &mut self.state {
            State::Calling { timer_b, .. } if *timer_b <= now => {
                self.state = State::Terminated(Ended::SAID);
                Timeout::TimedOut
            }
            State::Calling { timer_a: Some(timer_a), .. } if timer_a.due() <= now => {
                // Timer A doubles without a ceiling; timer B ends it (RFC 3261 §17.1.1.2).
                *timer_a = timer_a.doubled(TRANSACTION_TIMEOUT, now);
                Timeout::Retransmit
            }
            State::Completed { timer_d: end } | State::Accepted { timer_m: end } if *end <= now => {
                self.state = State::Terminated(Ended::SAID);
                Timeout::Terminated
            }
            State::Terminated(ended) => ended.handle_timeout(now),
            _ => Timeout::Idle,
        }
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Calling { timer_a, timer_b } => Some(timer_a.map_or(timer_b, |a| a.due().min(timer_b))),
            State::Proceeding => None,
            State::Completed { timer_d: end } | State::Accepted { timer_m: end } => Some(end),
            State::Terminated(ended) => ended.announce,
        }
    }

    /// The request, for retransmission, CANCEL and ACK.
    #[must_use]
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// A provisional response came and no final one: a CANCEL may be sent (RFC 3261 §9.1).
    #[must_use]
    pub fn is_proceeding(&self) -> bool {
        self.state == State::Proceeding
    }

    /// A final response came, or none will (timer B).
    #[must_use]
    pub fn is_over(&self) -> bool {
        !matches!(self.state, State::Calling { .. } | State::Proceeding)
    }

    /// The first final response.
    #[must_use]
    pub fn final_code(&self) -> Option<StatusCode> {
        self.final_code
    }

    /// Nothing can come of it any more.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated(_))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{START, at, run_out};
    use super::*;

    #[test]
    fn unanswered_over_udp_it_is_sent_seven_times_and_then_given_up() {
        let mut client = unreliable();
        let story = run_out(&mut client);
        let resends = [500, 1_500, 3_500, 7_500, 15_500, 31_500].map(|due| (due, Timeout::Retransmit));
        assert_eq!(story[..6], resends);
        assert_eq!(story[6..], [(32_000, Timeout::TimedOut)]);
        assert!(client.is_terminated() && client.is_over());
        assert_eq!(client.handle_timeout(at(99_000)), Timeout::Idle);
    }

    #[test]
    fn unanswered_over_a_stream_it_is_sent_once() {
        assert_eq!(run_out(&mut reliable()), [(32_000, Timeout::TimedOut)]);
    }

    #[test]
    fn a_late_clock_gives_up_rather_than_sending_again() {
        let mut client = unreliable();
        assert_eq!(client.handle_timeout(at(3_600_000)), Timeout::TimedOut);
        assert_eq!(client.poll_timeout(), None);
    }

    #[test]
    fn a_late_timer_sends_once_and_not_a_burst() {
        let mut client = unreliable();
        assert_eq!(client.handle_timeout(at(10_000)), Timeout::Retransmit);
        assert_eq!(client.handle_timeout(at(10_000)), Timeout::Idle);
        assert_eq!(client.poll_timeout(), Some(at(11_000)));
    }

    #[test]
    fn a_provisional_stops_timers_a_and_b() {
        let mut client = unreliable();
        assert!(!client.is_proceeding());
        assert_eq!(client.handle_response(code(100), at(100)), Verdict::Deliver);
        assert_eq!(client.handle_response(code(180), at(200)), Verdict::Deliver);
        assert!(client.is_proceeding() && !client.is_over());
        assert_eq!(client.poll_timeout(), None);
        assert_eq!(client.handle_timeout(at(600_000)), Timeout::Idle);
    }

    #[test]
    fn a_refusal_is_delivered_once_and_acknowledged_each_time_for_timer_d() {
        for ringing in [false, true] {
            let mut client = unreliable();
            if ringing {
                assert_eq!(client.handle_response(code(180), at(0)), Verdict::Deliver);
            }
            assert_eq!(client.handle_response(code(486), at(1_000)), Verdict::DeliverAndAck);
            assert!(client.is_over() && !client.is_proceeding() && !client.is_terminated());
            assert_eq!(client.final_code(), Some(code(486)));
            assert_eq!(client.handle_response(code(486), at(1_500)), Verdict::Ack);
            assert_eq!(client.handle_response(code(600), at(1_600)), Verdict::Ack);
            assert_eq!(client.handle_response(code(180), at(1_700)), Verdict::Absorb);
            assert_eq!(client.handle_response(code(200), at(1_800)), Verdict::Absorb);
            assert_eq!(client.final_code(), Some(code(486)));
            assert_eq!(run_out(&mut client), [(33_000, Timeout::Terminated)]);
            assert_eq!(client.handle_response(code(486), at(34_000)), Verdict::Absorb);
        }
    }

    #[test]
    fn over_a_stream_a_refusal_ends_it_at_once() {
        let mut client = reliable();
        assert_eq!(client.handle_response(code(404), at(1_000)), Verdict::DeliverAndAck);
        assert!(client.is_terminated());
        assert_eq!(client.handle_response(code(404), at(1_000)), Verdict::Absorb);
        assert_eq!(run_out(&mut client), [(1_000, Timeout::Terminated)]);
    }

    #[test]
    fn each_success_passes_through_while_accepted() {
        for mut client in [unreliable(), reliable()] {
            assert_eq!(client.handle_response(code(200), at(2_000)), Verdict::Deliver);
            assert!(client.is_over() && !client.is_terminated());
            assert_eq!(client.handle_response(code(200), at(2_500)), Verdict::Deliver);
            assert_eq!(client.handle_response(code(180), at(2_600)), Verdict::Absorb);
            assert_eq!(client.handle_response(code(486), at(2_700)), Verdict::Absorb);
            assert_eq!(run_out(&mut client), [(34_000, Timeout::Terminated)]);
            assert_eq!(client.handle_response(code(200), at(35_000)), Verdict::Absorb);
        }
    }

    fn unreliable() -> InviteClient {
        InviteClient::new(Bytes::from_static(b"INVITE"), false, START)
    }

    fn reliable() -> InviteClient {
        InviteClient::new(Bytes::from_static(b"INVITE"), true, START)
    }

    fn code(code: u16) -> StatusCode {
        StatusCode::new(code).expect("a status code")
    }
}
