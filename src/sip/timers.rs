//! The timer values of RFC 3261 §17 (table 4) and RFC 6026, and the doubling of retransmissions.
//!
//! Its own room because transactions, keep-alives and whoever estimates how long an exchange may take read the same
//! numbers. It runs no timer: it says when the next one is due.

use std::time::Duration;

use crate::clock::Instant;

/// The estimate of a round trip.
pub const T1: Duration = Duration::from_millis(500);
/// The longest pause between retransmissions of anything but an INVITE.
pub const T2: Duration = Duration::from_secs(4);
/// How long a message may live in the network.
pub const T4: Duration = Duration::from_secs(5);
/// 64·T1: timers B, F, H, J, L and M.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(32);
/// How long the client of an INVITE absorbs repeated finals over UDP: "at least 32 seconds" (RFC 3261 §17.1.1.2).
pub const TIMER_D: Duration = Duration::from_secs(32);

/// Timers A, E and G: when to send again, and how the pause grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retransmission {
    due: Instant,
    pause: Duration,
}

impl Retransmission {
    /// The first one is due T1 after the sending.
    pub(crate) fn after_t1(now: Instant) -> Self {
        Self { due: now + T1, pause: T1 }
    }

    /// The pause once a provisional response came to a request other than INVITE (RFC 3261 §17.1.2.2).
    pub(crate) fn after_t2(now: Instant) -> Self {
        Self { due: now + T2, pause: T2 }
    }

    /// When the next one is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// The one after it: twice the pause, at most `ceiling`. Counted from `now` and not from when it was due, so that a
    /// late timer does not send a burst.
    #[must_use]
    pub(crate) fn doubled(self, ceiling: Duration, now: Instant) -> Self {
        let pause = (self.pause * 2).min(ceiling);
        Self { due: now + pause, pause }
    }
}
