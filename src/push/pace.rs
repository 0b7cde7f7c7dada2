//! How soon a connection to a provider may follow the one before it.
//!
//! Apple takes rapid reconnects for an attack, so connections are counted even where each of them was of use: a provider
//! that ends every connection after one push gets one in some seconds, not one for each push. A connection that lasted
//! is replaced at once, since a call may wait for it. This room reads no clock and opens nothing.

use std::time::Duration;

use super::backoff::Backoff;
use crate::clock::Instant;

/// From one connection that was of no use to the next.
const USELESS: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(15) };
/// From one connection that was of use and ended early to the next.
const BRIEF: Backoff = Backoff { first: Duration::from_millis(250), most: Duration::from_secs(5) };
/// So many brief connections in a row are replaced without a pause: one GOAWAY is no trouble.
const BRIEF_AT_ONCE: u32 = 1;
/// A connection that lived so long was no brief one.
const LASTED: Duration = Duration::from_secs(60);

/// What is known of a connection when it ends.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    /// When it was opened.
    pub(crate) opened: Instant,
    /// Whether the provider took anything on it.
    pub(crate) useful: bool,
}

/// The connections to one provider under one identity, one after the other.
#[derive(Default)]
pub(crate) struct Pace {
    /// Attempts and connections in a row that were of no use.
    useless: u32,
    /// Connections in a row that were of use and did not last.
    brief: u32,
    /// Before this none is opened.
    next: Instant,
}

impl Pace {
    /// How long the next connection has to wait.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_since(now)
    }

    /// No connection could be had. Returns how many attempts in a row were of no use.
    pub(crate) fn failed(&mut self, now: Instant) -> u32 {
        self.useless = self.useless.saturating_add(1);
        self.next = now + USELESS.pause(self.useless);
        self.useless
    }

    /// A connection ended. Pauses count from when it was opened, so that one that served for a while costs the next no time.
    pub(crate) fn ended(&mut self, life: Life, now: Instant) {
        (self.useless, self.brief) = self.after(life, now);
        self.next = life.opened + if life.useful { BRIEF.pause(self.pauses()) } else { USELESS.pause(self.useless) };
    }

    /// Whether a connection that ended now would be replaced at once, whatever the jitter.
    pub(crate) fn allows_end(&self, life: Life, now: Instant) -> bool {
        let (useless, brief) = self.after(life, now);
        let after = Self { useless, brief, next: self.next };
        let pause = if life.useful { BRIEF.longest(after.pauses()) } else { USELESS.longest(useless) };
        life.opened + pause <= now
    }

    fn after(&self, life: Life, now: Instant) -> (u32, u32) {
        if !life.useful {
            return (self.useless.saturating_add(1), self.brief);
        }
        let lasted = now.saturating_since(life.opened) >= LASTED;
        (0, if lasted { 0 } else { self.brief.saturating_add(1) })
    }

    fn pauses(&self) -> u32 {
        self.brief.saturating_sub(BRIEF_AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    fn useful(opened: Instant) -> Life {
        Life { opened, useful: true }
    }

    /// Ends connections a moment after they were opened, as fast as it is allowed. Returns how many there were.
    fn connections_within(span: Duration, is_useful: bool) -> u32 {
        let (mut pace, mut now, mut count) = (Pace::default(), START, 0);
        while now < START + span {
            count += 1;
            let life = Life { opened: now, useful: is_useful };
            now = now + Duration::from_millis(1);
            pace.ended(life, now);
            now = now + pace.wait(now);
        }
        count
    }

    #[test]
    fn connections_that_end_at_once_are_few_though_each_was_of_use() {
        let minute = Duration::from_secs(60);
        // Two at once, four while the pauses grow, then one in 2.5 to 5 s.
        assert!((15..=32).contains(&connections_within(minute, true)));
        assert!((8..=16).contains(&connections_within(minute, false)));
    }

    #[test]
    fn one_that_lasted_is_replaced_at_once() {
        let mut pace = Pace::default();
        for _ in 0..9 {
            pace.ended(useful(START), START);
        }
        assert!(pace.wait(START) > Duration::ZERO);
        let end = START + LASTED;
        pace.ended(useful(START), end);
        assert_eq!(pace.wait(end), Duration::ZERO);
        pace.ended(useful(end), end);
        assert_eq!(pace.wait(end), Duration::ZERO, "and so is the first brief one after it");
    }

    #[test]
    fn a_pause_counts_from_when_the_connection_was_opened() {
        let mut pace = Pace::default();
        for _ in 0..9 {
            pace.ended(useful(START), START);
        }
        let end = START + BRIEF.most;
        pace.ended(useful(START), end);
        assert_eq!(pace.wait(end), Duration::ZERO);
    }

    #[test]
    fn a_connection_is_given_up_freely_only_if_the_next_need_not_wait() {
        let mut pace = Pace::default();
        assert!(pace.allows_end(useful(START), START), "the first is free");
        pace.ended(useful(START), START);
        assert!(!pace.allows_end(useful(START), START));
        let later = START + BRIEF.first;
        assert!(pace.allows_end(useful(START), later));
        pace.ended(useful(START), later);
        assert_eq!(pace.wait(later), Duration::ZERO);
        assert!(!pace.allows_end(Life { opened: later, useful: false }, later));
    }

    #[test]
    fn failed_attempts_wait_longer_each_time_until_a_connection_is_of_use() {
        let mut pace = Pace::default();
        assert_eq!([(); 3].map(|()| pace.failed(START)), [1, 2, 3]);
        assert!(pace.wait(START) >= USELESS.first * 2);
        pace.ended(useful(START), START);
        assert_eq!(pace.failed(START), 1);
    }
}
