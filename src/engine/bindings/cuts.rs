//! How soon a registration whose connection broke is made again.
//!
//! Its own room because a caller may be able to break a connection at will: the first time we are back at once, and a
//! connection that goes on breaking makes us slower, so that nothing turns into a loop. Refuses to wait longer than
//! [`PAUSE_MAX`]: whatever breaks the connection, the account is not to be deaf for longer.

use std::time::Duration;

use crate::clock::Instant;

/// A break that comes so long after the last one costs nothing. Longer than [`PAUSE_MAX`], so that no account registers more
/// often for being cut off than once within this.
const CALM: Duration = Duration::from_secs(60);
/// The pause after the first break: until all shards know of it, since what is sent before may still meet the old connection.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The pause after the second break in a row.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// The longest one. A registrar that closes its connections by habit is not registered at more often than this on that account.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The breaks of one registration's connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cuts {
    /// The last one.
    last: Option<Instant>,
    /// Breaks since the connection last held for [`CALM`].
    count: u8,
}

impl Cuts {
    /// The connection broke; how long to wait until it is opened again.
    pub(super) fn handle_cut(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| last + CALM <= now) {
            self.count = 0;
        }
        self.last = Some(now);
        let pause = match self.count {
            0 => AT_ONCE,
            again => PAUSE_FIRST.saturating_mul(1 << (again - 1).min(6)).min(PAUSE_MAX),
        };
        self.count = self.count.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_break_costs_nothing_and_later_ones_more_until_it_was_calm() {
        let mut cuts = Cuts::default();
        let now = Instant::from_nanos(1);
        let pauses: Vec<Duration> = (0..300).map(|_| cuts.handle_cut(now)).collect();
        let grown = [5, 10, 20, 30, 30].map(Duration::from_secs);
        assert_eq!((pauses[0], &pauses[1..6]), (AT_ONCE, &grown[..]));
        assert_eq!(pauses.last(), Some(&PAUSE_MAX));
        let now = now + CALM;
        assert_eq!(cuts.handle_cut(now), AT_ONCE);
        assert_eq!(cuts.handle_cut(now), PAUSE_FIRST);
    }
}
