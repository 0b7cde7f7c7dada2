//! Pauses that grow, with jitter, in one place.

use std::time::Duration;

/// A pause that doubles with each failure up to a ceiling, of which 50–100 % are waited: a thousand daemons that lost the
/// same provider do not return in the same instant.
#[derive(Clone, Copy)]
pub(crate) struct Backoff {
    /// After the first failure.
    pub(crate) first: Duration,
    /// Never more than this.
    pub(crate) most: Duration,
}

impl Backoff {
    /// How long to wait after so many failures in a row; nothing after none.
    pub(crate) fn pause(self, failures: u32) -> Duration {
        let mut random = [0; 2];
        // Without randomness the whole pause is waited.
        if aws_lc_rs::rand::fill(&mut random).is_err() {
            random = [u8::MAX; 2];
        }
        self.scaled(failures, u16::from_le_bytes(random))
    }

    /// The longest that [`pause`](Self::pause) may be.
    pub(crate) fn longest(self, failures: u32) -> Duration {
        self.scaled(failures, u16::MAX)
    }

    fn scaled(self, failures: u32, random: u16) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let whole = self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.most);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_ceiling_and_keep_at_least_half() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(1) };
        let whole: Vec<_> = [0, 1, 2, 3, 4, 5, 40].map(|failures| backoff.scaled(failures, u16::MAX)).into();
        let milliseconds = [0, 100, 200, 400, 800, 1000, 1000].map(Duration::from_millis);
        assert_eq!(whole, milliseconds);
        assert_eq!(backoff.scaled(2, 0), Duration::from_millis(100));
    }
}
