//! Refusals of a registration that once worked: when to ask again, and when it is hopeless.
//!
//! Its own room because a refusal seldom means what it says: a PBX that reloads its users refuses everyone for a few seconds.
//! So the first one is followed by an early retry, while the registration still holds. After that the pauses are long, since
//! PBXs lock out addresses that go on asking. Refuses to count a retry that only repeats the refusal before it.

use std::time::Duration;

use crate::clock::Instant;
use crate::engine::random::Random;

/// Refusals, over at least `SPAN`, that end it.
const MAX: u8 = 3;
const SPAN: Duration = Duration::from_secs(3600);
/// Pause after each refusal but the first one; two of them are longer than `SPAN`.
const PAUSE: Duration = Duration::from_secs(1801);
/// The early retry: after a reload of seconds, and spread out, since all accounts of a PBX may have been refused at once.
const EARLY_MIN: Duration = Duration::from_secs(30);
const EARLY_MAX: Duration = Duration::from_secs(120);
/// What the early retry is ahead of the end of the registration by, where it can be: a turn at the destination and a challenge.
const EARLY_MARGIN: Duration = Duration::from_secs(5);

/// The refusals since the registrar last granted something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusals {
    count: u8,
    first: Option<Instant>,
    early: Early,
}

/// The one early retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Early {
    #[default]
    Unused,
    Due(Instant),
    Spent,
}

impl Refusals {
    /// Whether the last exchanges were refusals.
    pub(super) fn are_under_way(&self) -> bool {
        self.count > 0
    }

    /// How long to wait after a refusal while the registration holds for `left`, and whether it is a new one. The early retry, and
    /// whatever a hand-over brings forward before it, repeat the first.
    pub(super) fn pause(&mut self, left: Duration, random: &mut Random, now: Instant) -> (Duration, bool) {
        match self.early {
            Early::Unused => {
                let pause = early(left, random);
                self.early = Early::Due(now + pause);
                (pause, true)
            }
            Early::Due(at) if now < at => (at.saturating_since(now), false),
            Early::Due(_) => {
                self.early = Early::Spent;
                (random.jitter(PAUSE, 100, 110), false)
            }
            Early::Spent => (random.jitter(PAUSE, 100, 110), true),
        }
    }

    /// Counts a refusal of the credentials. `true`: it was the last one.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        self.count = self.count.saturating_add(1);
        let first = *self.first.get_or_insert(now);
        self.count >= MAX && now.saturating_since(first) >= SPAN
    }
}

/// When the early retry comes: before the registration ends where that is possible.
fn early(left: Duration, random: &mut Random) -> Duration {
    let latest = left.saturating_sub(EARLY_MARGIN);
    let latest = if latest < EARLY_MIN { EARLY_MAX } else { latest.min(EARLY_MAX) };
    EARLY_MIN + random.jitter(latest.saturating_sub(EARLY_MIN), 0, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_early_retry_comes_before_the_registration_ends_where_it_can() {
        let mut random = Random::new([7; 32]);
        for _ in 0..200 {
            let in_time = early(secs(60), &mut random);
            assert!(in_time >= EARLY_MIN && in_time <= secs(55), "{in_time:?}");
            assert_eq!(early(secs(35), &mut random), EARLY_MIN);
            for left in [0, 20, 34, 150, 3000] {
                let pause = early(secs(left), &mut random);
                assert!(pause >= EARLY_MIN && pause <= EARLY_MAX, "{left} s left: {pause:?}");
            }
        }
    }

    #[test]
    fn one_retry_is_early_and_counts_as_the_refusal_before_it() {
        let mut random = Random::new([8; 32]);
        let mut refusals = Refusals::default();
        let mut now = Instant::from_nanos(1);
        let (early, is_new) = refusals.pause(secs(100), &mut random, now);
        assert!(is_new && early <= EARLY_MAX && !refusals.count(now));
        // Brought forward by a hand-over: the early retry is still to come.
        now = now + secs(5);
        assert_eq!(refusals.pause(secs(95), &mut random, now), (early - secs(5), false));
        now = now + early;
        let (long, is_new) = refusals.pause(Duration::ZERO, &mut random, now);
        assert!(!is_new && long >= PAUSE);
        for last in [false, true] {
            now = now + long;
            let (pause, is_new) = refusals.pause(Duration::ZERO, &mut random, now);
            assert!(is_new && pause >= PAUSE);
            assert_eq!(refusals.count(now), last);
        }
    }
}
