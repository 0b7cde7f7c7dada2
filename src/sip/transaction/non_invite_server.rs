//! The server of any other request: RFC 3261 figure 8.

use bytes::Bytes;

use super::super::message::StatusCode;
use super::super::timers::TRANSACTION_TIMEOUT;
use super::{Ended, Timeout};
use crate::clock::Instant;

/// A request other than INVITE and ACK that came to us.
#[derive(Debug)]
pub struct NonInviteServer {
    reliable: bool,
    last: Option<Bytes>,
    final_code: Option<StatusCode>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No final response yet (Trying and Proceeding: they differ in whether there is a last response).
    Waiting,
    /// The final response is repeated for each repetition of the request.
    Completed {
        timer_j: Instant,
    },
    Terminated(Ended),
}

impl NonInviteServer {
    /// A request arrived now.
    #[must_use]
    pub fn new(reliable: bool, _now: Instant) -> Self {
        Self { reliable, last: None, final_code: None, state: State::Waiting }
    }

    /// The owner sends `response` now, unless this says `false`: a response after the final one is dropped.
    pub fn respond(&mut self, code: StatusCode, response: Bytes, now: Instant) -> bool {
        if self.state != State::Waiting {
            return false;
        }
        self.last = Some(response);
        if !code.is_provisional() {
            self.final_code = Some(code);
            self.state = if self.reliable {
                State::Terminated(Ended::at_once(now))
            } else {
                State::Completed { timer_j: now + TRANSACTION_TIMEOUT }
            };
        }
        true
    }

    /// Does what is due.
    #[must_use]
    pub fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match &mut self.state {
            State::Completed { timer_j } if *timer_j <= now => {
                self.state = State::Terminated(Ended::SAID);
                Timeout::Terminated
            }
            State::Terminated(ended) => ended.handle_timeout(now),
            State::Waiting | State::Completed { .. } => Timeout::Idle,
        }
    }

    /// The same request again: what to send again, if anything.
    #[must_use]
    pub fn handle_retransmission(&self) -> Option<&Bytes> {
        match self.state {
            State::Waiting | State::Completed { .. } => self.last.as_ref(),
            State::Terminated(_) => None,
        }
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Waiting => None,
            State::Completed { timer_j } => Some(timer_j),
            State::Terminated(ended) => ended.announce,
        }
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
}

#[cfg(test)]
mod tests {
    use super::super::testing::{START, at, run_out};
    use super::*;

    #[test]
    fn a_repeated_request_gets_nothing_then_the_provisional_then_the_final_until_timer_j() {
        let mut server = NonInviteServer::new(false, START);
        assert_eq!(server.handle_retransmission(), None);
        assert_eq!(server.poll_timeout(), None);
        assert!(server.respond(code(100), bytes("100"), at(0)));
        assert_eq!(server.handle_retransmission(), Some(&bytes("100")));
        assert!(server.respond(code(200), bytes("200"), at(1_000)));
        assert_eq!(server.handle_retransmission(), Some(&bytes("200")));
        assert!(!server.respond(code(404), bytes("404"), at(1_100)));
        assert!(!server.respond(code(100), bytes("100"), at(1_200)));
        assert_eq!(server.handle_retransmission(), Some(&bytes("200")));
        assert_eq!(server.final_code(), Some(code(200)));
        assert!(!server.is_terminated());
        assert_eq!(run_out(&mut server), [(33_000, Timeout::Terminated)]);
        assert!(server.is_terminated());
        assert_eq!(server.handle_retransmission(), None);
    }

    #[test]
    fn over_a_stream_the_final_ends_it_at_once() {
        let mut server = NonInviteServer::new(true, START);
        assert!(server.respond(code(481), bytes("481"), at(5)));
        assert!(server.is_terminated());
        assert_eq!(run_out(&mut server), [(5, Timeout::Terminated)]);
        assert_eq!(server.handle_timeout(at(50_000)), Timeout::Idle);
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn code(code: u16) -> StatusCode {
        StatusCode::new(code).expect("a status code")
    }
}
