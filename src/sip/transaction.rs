//! The four machines of RFC 3261 §17 with the corrections of RFC 6026.
//!
//! Their own room because the figures of the RFC can be read, drawn and tested without knowing who uses them. A machine
//! holds the bytes to repeat and says when; its owner sends, matches messages to machines (see [`ServerKey`]) and throws
//! a machine away. It refuses to parse, to address and to know why a request was sent. Timer C is the proxy's, not a
//! transaction's.
//!
//! Each machine has `poll_timeout` (when `handle_timeout` is due) and ends exactly once, with [`Timeout::TimedOut`] or
//! [`Timeout::Terminated`] out of `handle_timeout`. Where a timer is zero (D, I, J and K over reliable transports) the
//! machine is terminated at once: `is_terminated` holds, and `handle_timeout` is due now and says so once.

mod invite_client;
mod invite_server;
mod key;
mod non_invite_client;
mod non_invite_server;

pub use invite_client::InviteClient;
pub use invite_server::InviteServer;
pub use key::{ServerKey, cancels};
pub use non_invite_client::NonInviteClient;
pub use non_invite_server::NonInviteServer;

use crate::clock::Instant;

/// What a due timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing was due.
    Idle,
    /// Send the request (client) or the last response (server) again.
    Retransmit,
    /// Client: no final response (timers B, F). Server: no ACK came (timer H). The machine is over.
    TimedOut,
    /// Over, quietly (timers D, I, J, K, L, M).
    Terminated,
}

/// What to do with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Give it to the transaction user.
    Deliver,
    /// A final other than 2xx to an INVITE: send the ACK (`proxy::write_ack`) and give the response to the user.
    DeliverAndAck,
    /// The final again: send the ACK again, do not deliver.
    Ack,
    /// Ignore.
    Absorb,
}

/// The end of a machine; `announce` is when `handle_timeout` still has to say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    announce: Option<Instant>,
}

impl Ended {
    /// Ended by a due timer, which has just been reported.
    const SAID: Self = Self { announce: None };

    /// Ended by a timer of zero.
    fn at_once(now: Instant) -> Self {
        Self { announce: Some(now) }
    }

    fn handle_timeout(&mut self, now: Instant) -> Timeout {
        match self.announce {
            Some(due) if due <= now => {
                *self = Self::SAID;
                Timeout::Terminated
            }
            _ => Timeout::Idle,
        }
    }
}

#[cfg(test)]
mod testing {
    //! A clock that jumps from one deadline to the next.

    use std::time::Duration;

    use super::*;

    pub(super) const START: Instant = Instant::from_nanos(7_000_000_000);

    pub(super) fn at(milliseconds: u64) -> Instant {
        START + Duration::from_millis(milliseconds)
    }

    /// A machine's timer side.
    pub(super) trait Timed {
        fn due(&self) -> Option<Instant>;
        fn fire(&mut self, now: Instant) -> Timeout;
    }

    macro_rules! timed {
        ($($machine:ty),*) => {$(
            impl Timed for $machine {
                fn due(&self) -> Option<Instant> {
                    self.poll_timeout()
                }
                fn fire(&mut self, now: Instant) -> Timeout {
                    self.handle_timeout(now)
                }
            }
        )*};
    }
    timed!(InviteClient, InviteServer, NonInviteClient, NonInviteServer);

    /// Jumps from deadline to deadline until none is left: the milliseconds since `START` and what each asked for. A
    /// moment before each deadline nothing may be due.
    pub(super) fn run_out(machine: &mut impl Timed) -> Vec<(u64, Timeout)> {
        let mut story = Vec::new();
        while let Some(due) = machine.due() {
            let early = Instant::from_nanos(due.as_nanos() - 1);
            assert_eq!(machine.fire(early), Timeout::Idle, "fired too early");
            let asked = machine.fire(due);
            assert_ne!(asked, Timeout::Idle, "a deadline without a deed");
            story.push((u64::try_from(due.saturating_since(START).as_millis()).expect("fits"), asked));
            assert!(story.len() < 100, "never ends: {story:?}");
        }
        story
    }
}

#[cfg(test)]
mod tests;
