//! Allowances: how often something may be asked that leaves a record in the audit log.
//!
//! A record is kept for good, and a full disk stops admissions for everybody: whoever has an instance must not be able to fill
//! it. What takes something away (an erasure, a restriction, a consent withdrawn) is never counted: it is done once, and to do
//! it again something has to be given first.

use std::time::Duration;

use crate::clock::Instant;

/// Recorded calls at once, for an instance; above it one each `RECORDED_CALL_EVERY`. An app that is switched to and fro, or a
/// trace that is watched, stays below.
const RECORDED_CALLS_AT_ONCE: u32 = 100;
/// How often they may go on: an instance that never rests fills a megabyte or two a day.
const RECORDED_CALL_EVERY: Duration = Duration::from_secs(20);

/// Until when recorded calls are paid for (GCRA).
#[derive(Clone, Copy, Default)]
pub(crate) struct Allowance(Instant);

impl Allowance {
    /// Takes one call.
    ///
    /// # Errors
    /// How long to wait: there were too many.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let owed = self.0.saturating_since(now) + RECORDED_CALL_EVERY;
        let most = RECORDED_CALL_EVERY * RECORDED_CALLS_AT_ONCE;
        if owed > most {
            return Err(owed.saturating_sub(most));
        }
        self.0 = now + owed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_by_one() {
        let now = Instant::from_nanos(0);
        let mut allowance = Allowance::default();
        for _ in 0..RECORDED_CALLS_AT_ONCE {
            assert_eq!(allowance.take(now), Ok(()));
        }
        assert_eq!(allowance.take(now), Err(RECORDED_CALL_EVERY));
        let later = now + RECORDED_CALL_EVERY;
        assert_eq!((allowance.take(later), allowance.take(later).is_err()), (Ok(()), true));
        let rested = later + RECORDED_CALL_EVERY * RECORDED_CALLS_AT_ONCE;
        assert_eq!((0..100).filter(|_| allowance.take(rested).is_ok()).count(), RECORDED_CALLS_AT_ONCE as usize);
    }
}
