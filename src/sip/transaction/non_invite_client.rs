//! The client of any other request: RFC 3261 figure 6.

use bytes::Bytes;

use super::super::message::StatusCode;
use super::super::timers::{Retransmission, T2, T4, TRANSACTION_TIMEOUT};
use super::{Ended, Timeout, Verdict};
use crate::clock::Instant;

/// A request other than INVITE and ACK that we sent.
#[derive(Debug)]
pub struct NonInviteClient {
    request: Bytes,
    reliable: bool,
    /// Sendings left over UDP; `None`: as many as the timers ask for.
    datagrams_left: Option<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No final response yet. `timer_e` only over unreliable transports, and while datagrams are left.
    Waiting {
        provisional: bool,
        timer_e: Option<Retransmission>,
        timer_f: Instant,
    },
    /// A final response came; repetitions are absorbed.
    Completed {
        timer_k: Instant,
    },
    Terminated(Ended),
}

impl NonInviteClient {
    /// The owner sends `request` now. `datagrams_max`: at most so many sendings in all over UDP, this one included (for
    /// destinations that never answered); `None`: by the RFC.
    #[must_use]
    pub fn new(request: Bytes, reliable: bool, datagrams_max: Option<u8>, now: Instant) -> Self {
        let datagrams_left = datagrams_max.map(|most| most.saturating_sub(1));
        let timer_e = (!reliable && datagrams_left != Some(0)).then(|| Retransmission::after_t1(now));
        let state = State::Waiting { provisional: false, timer_e, timer_f: now + TRANSACTION_TIMEOUT };
        Self { request, reliable, datagrams_left, state }
    }

    /// A response came whose branch and method are ours.
    #[must_use]
    pub fn handle_response(&mut self, code: StatusCode, now: Instant) -> Verdict {
        match &mut self.state {
            State::Waiting { provisional, .. } if code.is_provisional() => {
                *provisional = true;
                Verdict::Deliver
            }
            State::Waiting { .. } => {
                self.state = if self.reliable {
                    State::Terminated(Ended::at_once(now))
                } else {
                    State::Completed { timer_k: now + T4 }
                };
                Verdict::Deliver
            }
            State::Completed { .. } | State::Terminated(_) => Verdict::Absorb,
        }
    }

    /// Does what is due.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match &mut self.state {
            State::Waiting { timer_f, .. } if *timer_f <= now => {
                self.state = State::Terminated(Ended::SAID);
                Timeout::TimedOut
            }
            State::Waiting { provisional, timer_e, .. } => {
                let Some(due) = timer_e.filter(|e| e.due() <= now) else {
                    return Timeout::Idle;
                };
                self.datagrams_left = self.datagrams_left.map(|left| left.saturating_sub(1));
                let next = if *provisional { Retransmission::after_t2(now) } else { due.doubled(T2, now) };
                *timer_e = (self.datagrams_left != Some(0)).then_some(next);
                Timeout::Retransmit
            }
            State::Completed { timer_k } if *timer_k <= now => {
                self.state = State::Terminated(Ended::SAID);
                Timeout::Terminated
            }
            State::Completed { .. } => Timeout::Idle,
            State::Terminated(ended) => ended.handle_timeout(now),
        }
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { timer_e, timer_f, .. } => Some(timer_e.map_or(timer_f, |e| e.due().min(timer_f))),
            State::Completed { timer_k } => Some(timer_k),
            State::Terminated(ended) => ended.announce,
        }
    }

    /// The request, for retransmission.
    #[must_use]
    pub fn request(&self) -> &Bytes {
        &self.request
    }

    /// The request, when nothing is to be repeated any more.
    #[must_use]
    pub fn into_request(self) -> Bytes {
        self.request
    }

    /// A final response came, or none will (timer F).
    #[must_use]
    pub fn is_over(&self) -> bool {
        !matches!(self.state, State::Waiting { .. })
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
    fn unanswered_over_udp_it_is_sent_eleven_times_and_then_given_up() {
        let mut client = client(false, None);
        let mut expected: Vec<_> = [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]
            .map(|due| (due, Timeout::Retransmit))
            .to_vec();
        expected.push((32_000, Timeout::TimedOut));
        assert_eq!(run_out(&mut client), expected);
        assert!(client.is_over() && client.is_terminated());
    }

    #[test]
    fn unanswered_over_a_stream_it_is_sent_once() {
        assert_eq!(run_out(&mut client(true, None)), [(32_000, Timeout::TimedOut)]);
    }

    #[test]
    fn an_unproven_destination_gets_no_more_datagrams_than_allowed() {
        let story = run_out(&mut client(false, Some(3)));
        let (twice, end) = (Timeout::Retransmit, Timeout::TimedOut);
        assert_eq!(story, [(500, twice), (1_500, twice), (32_000, end)]);
        assert_eq!(run_out(&mut client(false, Some(1))), [(32_000, end)]);
    }

    #[test]
    fn after_a_provisional_it_is_repeated_every_t2() {
        let mut client = client(false, None);
        assert_eq!(client.handle_response(code(100), at(600)), Verdict::Deliver);
        let story = run_out(&mut client);
        let resends = [500, 4_500, 8_500, 12_500, 16_500, 20_500, 24_500, 28_500].map(|due| (due, Timeout::Retransmit));
        assert_eq!(story[..8], resends);
        assert_eq!(story[8..], [(32_000, Timeout::TimedOut)]);
    }

    #[test]
    fn a_final_is_delivered_once_and_absorbed_for_timer_k() {
        for provisional in [false, true] {
            let mut client = client(false, None);
            if provisional {
                assert_eq!(client.handle_response(code(100), at(0)), Verdict::Deliver);
            }
            assert_eq!(client.handle_response(code(401), at(1_000)), Verdict::Deliver);
            assert!(client.is_over() && !client.is_terminated());
            for late in [100, 200, 401] {
                assert_eq!(client.handle_response(code(late), at(1_100)), Verdict::Absorb);
            }
            assert_eq!(run_out(&mut client), [(6_000, Timeout::Terminated)]);
        }
    }

    #[test]
    fn over_a_stream_a_final_ends_it_at_once() {
        let mut client = client(true, None);
        assert_eq!(client.handle_response(code(200), at(40)), Verdict::Deliver);
        assert!(client.is_terminated());
        assert_eq!(run_out(&mut client), [(40, Timeout::Terminated)]);
        assert_eq!(client.handle_timeout(at(50_000)), Timeout::Idle);
    }

    fn client(reliable: bool, datagrams_max: Option<u8>) -> NonInviteClient {
        NonInviteClient::new(Bytes::from_static(b"REGISTER"), reliable, datagrams_max, START)
    }

    fn code(code: u16) -> StatusCode {
        StatusCode::new(code).expect("a status code")
    }
}
