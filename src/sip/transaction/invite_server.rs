//! The server of an INVITE: RFC 3261 figure 7, with Accepted of RFC 6026 figure 2.

use bytes::Bytes;

use super::super::message::StatusCode;
use super::super::timers::{Retransmission, T2, T4, TRANSACTION_TIMEOUT};
use super::{Ended, Timeout};
use crate::clock::Instant;

/// An INVITE that came to us.
#[derive(Debug)]
pub struct InviteServer {
    reliable: bool,
    /// Sendings of the final left that timer G may cause; `None`: as many as it asks for.
    finals_left: Option<u8>,
    last: Option<Bytes>,
    final_code: Option<StatusCode>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No final response yet.
    Proceeding,
    /// A final other than 2xx waits for its ACK. `timer_g` only over unreliable transports, and while finals are left.
    Completed {
        timer_g: Option<Retransmission>,
        timer_h: Instant,
    },
    /// The ACK came; repetitions of it are absorbed.
    Confirmed {
        timer_i: Instant,
    },
    /// A 2xx was sent; the INVITE's repetitions are absorbed, and its ACK is not ours.
    Accepted {
        timer_l: Instant,
    },
    Terminated(Ended),
}

impl InviteServer {
    /// An INVITE arrived now. `finals_max`: at most so many sendings of a final other than 2xx on our own account while
    /// the source is unproven; `None`: by the RFC. A repeated INVITE is answered beyond that: it brought its own bytes.
    #[must_use]
    pub fn new(reliable: bool, finals_max: Option<u8>, _now: Instant) -> Self {
        let finals_left = finals_max.map(|most| most.saturating_sub(1));
        Self { reliable, finals_left, last: None, final_code: None, state: State::Proceeding }
    }

    /// The owner sends `response` now, unless this says `false`: a response after the final one is dropped, except that
    /// further 2xx pass through while Accepted (RFC 6026 §7.1).
    pub fn respond(&mut self, code: StatusCode, response: Bytes, now: Instant) -> bool {
        match self.state {
            State::Proceeding => {
                self.last = Some(response);
                if !code.is_provisional() {
                    self.final_code = Some(code);
                    self.state = self.after_final(code, now);
                }
                true
            }
            State::Accepted { .. } => code.is_success(),
            State::Completed { .. } | State::Confirmed { .. } | State::Terminated(_) => false,
        }
    }

    /// The ACK to a final other than 2xx. `false`: no final was sent, or it is an ACK to a 2xx; treat it as a request of
    /// its own.
    #[must_use]
    pub fn handle_ack(&mut self, now: Instant) -> bool {
        if let State::Completed { .. } = self.state {
            self.state = if self.reliable {
                State::Terminated(Ended::at_once(now))
            } else {
                State::Confirmed { timer_i: now + T4 }
            };
        }
        self.final_code.is_some_and(|code| !code.is_success())
    }

    /// Does what is due.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match &mut self.state {
            State::Completed { timer_h, .. } if *timer_h <= now => {
                self.state = State::Terminated(Ended::SAID);
                Timeout::TimedOut
            }
            State::Completed { timer_g, .. } => {
                let Some(due) = timer_g.filter(|g| g.due() <= now) else {
                    return Timeout::Idle;
                };
                self.finals_left = self.finals_left.map(|left| left.saturating_sub(1));
                *timer_g = (self.finals_left != Some(0)).then_some(due.doubled(T2, now));
                Timeout::Retransmit
            }
            State::Confirmed { timer_i: end } | State::Accepted { timer_l: end } if *end <= now => {
                self.state = State::Terminated(Ended::SAID);
                Timeout::Terminated
            }
            State::Terminated(ended) => ended.handle_timeout(now),
            State::Proceeding | State::Confirmed { .. } | State::Accepted { .. } => Timeout::Idle,
        }
    }

    /// The same INVITE again: what to send again, if anything.
    #[must_use]
    pub fn handle_retransmission(&self) -> Option<&Bytes> {
        match self.state {
            State::Proceeding | State::Completed { .. } => self.last.as_ref(),
            State::Confirmed { .. } | State::Accepted { .. } | State::Terminated(_) => None,
        }
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Proceeding => None,
            State::Completed { timer_g, timer_h } => Some(timer_g.map_or(timer_h, |g| g.due().min(timer_h))),
            State::Confirmed { timer_i: end } | State::Accepted { timer_l: end } => Some(end),
            State::Terminated(ended) => ended.announce,
        }
    }

    /// The last response sent by this machine; a 2xx that passed through after the first does not count.
    #[must_use]
    pub fn last(&self) -> Option<&Bytes> {
        self.last.as_ref()
    }

    /// The final response.
    #[must_use]
    pub fn final_code(&self) -> Option<StatusCode> {
        self.final_code
    }

    /// Nothing can come of it any more.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated(_))
    }

    fn after_final(&self, code: StatusCode, now: Instant) -> State {
        if code.is_success() {
            return State::Accepted { timer_l: now + TRANSACTION_TIMEOUT };
        }
        let timer_g = (!self.reliable && self.finals_left != Some(0)).then(|| Retransmission::after_t1(now));
        State::Completed { timer_g, timer_h: now + TRANSACTION_TIMEOUT }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{START, at, run_out};
    use super::*;

    #[test]
    fn while_proceeding_a_repeated_invite_gets_the_last_provisional_and_no_timer_runs() {
        let mut server = server(false, None);
        assert_eq!(server.handle_retransmission(), None);
        assert!(server.respond(code(100), bytes("100"), at(0)));
        assert_eq!(server.handle_retransmission(), Some(&bytes("100")));
        assert!(server.respond(code(180), bytes("180"), at(10)));
        assert_eq!(server.handle_retransmission(), Some(&bytes("180")));
        assert_eq!(server.poll_timeout(), None);
        assert_eq!(server.handle_timeout(at(600_000)), Timeout::Idle);
        assert!(!server.handle_ack(at(600_000)), "no final was sent");
        assert_eq!(server.final_code(), None);
    }

    #[test]
    fn an_unacknowledged_refusal_is_repeated_up_to_every_t2_until_timer_h() {
        let mut server = server(false, None);
        assert!(server.respond(code(480), bytes("480"), at(0)));
        let mut expected: Vec<_> = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]
            .map(|due| (due, Timeout::Retransmit))
            .to_vec();
        expected.push((32_000, Timeout::TimedOut));
        assert_eq!(run_out(&mut server), expected);
        assert!(server.is_terminated());
    }

    #[test]
    fn an_unproven_source_gets_no_more_finals_than_allowed() {
        let mut three = server(false, Some(3));
        assert!(three.respond(code(480), bytes("480"), at(0)));
        let again = Timeout::Retransmit;
        assert_eq!(run_out(&mut three), [(500, again), (1_500, again), (32_000, Timeout::TimedOut)]);

        let mut one = server(false, Some(1));
        assert!(one.respond(code(480), bytes("480"), at(0)));
        assert_eq!(one.handle_retransmission(), Some(&bytes("480")), "a repeated INVITE brought its own bytes");
        assert_eq!(run_out(&mut one), [(32_000, Timeout::TimedOut)]);
    }

    #[test]
    fn over_a_stream_a_refusal_is_sent_once_and_still_waits_for_its_ack() {
        let mut server = server(true, None);
        assert!(server.respond(code(480), bytes("480"), at(0)));
        assert!(!server.is_terminated());
        assert_eq!(run_out(&mut server), [(32_000, Timeout::TimedOut)]);
    }

    #[test]
    fn the_ack_stops_the_refusal_and_its_repetitions_are_absorbed_for_timer_i() {
        let mut server = server(false, None);
        assert!(server.respond(code(487), bytes("487"), at(0)));
        assert_eq!(server.handle_retransmission(), Some(&bytes("487")));
        assert!(server.handle_ack(at(1_000)));
        assert!(server.handle_ack(at(1_100)));
        assert_eq!(server.handle_retransmission(), None);
        assert!(!server.respond(code(480), bytes("480"), at(1_200)));
        assert_eq!(run_out(&mut server), [(6_000, Timeout::Terminated)]);
        assert!(server.is_terminated());
        assert!(server.handle_ack(at(7_000)), "not the ACK of a 2xx");
    }

    #[test]
    fn over_a_stream_the_ack_ends_it_at_once() {
        let mut server = server(true, None);
        assert!(server.respond(code(487), bytes("487"), at(0)));
        assert!(server.handle_ack(at(20)));
        assert!(server.is_terminated());
        assert_eq!(run_out(&mut server), [(20, Timeout::Terminated)]);
    }

    #[test]
    fn only_the_first_final_counts() {
        let mut server = server(false, None);
        assert!(server.respond(code(486), bytes("486"), at(0)));
        assert!(!server.respond(code(200), bytes("200"), at(1)));
        assert!(!server.respond(code(180), bytes("180"), at(2)));
        assert_eq!(server.final_code(), Some(code(486)));
        assert_eq!(server.last(), Some(&bytes("486")));
    }

    #[test]
    fn once_accepted_invites_are_absorbed_and_successes_pass_until_timer_l() {
        for reliable in [false, true] {
            let mut server = server(reliable, Some(1));
            assert!(server.respond(code(180), bytes("180"), at(0)));
            assert!(server.respond(code(200), bytes("200"), at(1_000)));
            assert_eq!(server.handle_retransmission(), None);
            assert!(server.respond(code(200), bytes("200 again"), at(1_500)));
            assert!(!server.respond(code(486), bytes("486"), at(1_600)));
            assert!(!server.respond(code(180), bytes("180"), at(1_700)));
            assert!(!server.handle_ack(at(2_000)), "the ACK of a 2xx is a request of its own");
            assert_eq!(server.last(), Some(&bytes("200")));
            assert_eq!(run_out(&mut server), [(33_000, Timeout::Terminated)]);
            assert!(!server.respond(code(200), bytes("200"), at(34_000)));
        }
    }

    fn server(reliable: bool, finals_max: Option<u8>) -> InviteServer {
        InviteServer::new(reliable, finals_max, START)
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn code(code: u16) -> StatusCode {
        StatusCode::new(code).expect("a status code")
    }
}
