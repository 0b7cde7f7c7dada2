//! The budget of a destination: requests of all kinds, paced evenly, with a small burst.

use std::time::Duration;

use crate::clock::Instant;

/// What a permit is charged before its exchange is over: a request, and the one that answers a challenge. What was not
/// needed comes back with the outcome.
pub(super) const EXCHANGE_COST: u32 = 2;
/// The burst is this part of the rate, and at least one exchange.
const BURST_PART: u32 = 5;
/// Requests that went without a permit delay others by no more than this.
const DEBT_MAX: Duration = Duration::from_secs(10);

/// When the next request would be due if they went out evenly (the virtual scheduling algorithm of ITU-T I.371).
#[derive(Default)]
pub(super) struct Budget {
    paced: Instant,
}

impl Budget {
    /// Pays for so many requests, or tells when that is possible.
    pub(super) fn take(&mut self, requests: u32, rate: u32, now: Instant) -> Result<(), Instant> {
        let paid = self.paced.max(now) + span(requests, rate);
        let allowance = span(burst(rate).max(requests), rate);
        if paid > now + allowance {
            return Err(earlier(paid, allowance));
        }
        self.paced = paid;
        Ok(())
    }

    /// Pays for requests that have gone already.
    pub(super) fn charge(&mut self, requests: u32, rate: u32, now: Instant) {
        let worst = now + span(burst(rate), rate) + DEBT_MAX;
        self.paced = (self.paced.max(now) + span(requests, rate)).min(worst.max(self.paced));
    }

    /// Takes back what was paid for and did not go.
    pub(super) fn refund(&mut self, requests: u32, rate: u32) {
        self.paced = earlier(self.paced, span(requests, rate));
    }
}

/// Requests that may go at once.
pub(super) fn burst(rate: u32) -> u32 {
    (rate / BURST_PART).max(EXCHANGE_COST)
}

fn span(requests: u32, rate: u32) -> Duration {
    Duration::from_nanos(u64::from(requests) * 1_000_000_000 / u64::from(rate.max(1)))
}

fn earlier(instant: Instant, span: Duration) -> Instant {
    Instant::from_nanos(instant.as_nanos().saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_the_rate_and_the_burst_and_what_is_not_needed_comes_back() {
        for rate in [1, 5, 50, 1_000] {
            let (mut budget, mut now, mut went) = (Budget::default(), Instant::from_nanos(1), Vec::new());
            for _ in 0..5 * rate {
                while let Err(at) = budget.take(EXCHANGE_COST, rate, now) {
                    assert!(at > now);
                    now = at;
                }
                went.push(now);
                budget.refund(1, rate);
            }
            let most = (0..went.len()).map(|place| {
                let within = |at: &&Instant| at.saturating_since(went[place]) < Duration::from_secs(1);
                went[place..].iter().take_while(within).count()
            });
            let most = most.max().expect("some went");
            assert!(most <= (rate + burst(rate)) as usize, "{most} at {rate}");
            let took = now.saturating_since(Instant::from_nanos(1));
            assert!(took <= Duration::from_secs(6), "{took:?} at {rate}");
        }
    }

    #[test]
    fn what_went_without_a_permit_is_paid_for_and_delays_others_for_so_long_at_most() {
        let (mut budget, now) = (Budget::default(), Instant::from_nanos(1));
        budget.charge(20, 10, now);
        let Err(at) = budget.take(EXCHANGE_COST, 10, now) else { panic!("the burst is used") };
        assert_eq!(at.saturating_since(now), Duration::from_secs(2));
        for _ in 0..100 {
            budget.charge(255, 10, now);
        }
        let Err(at) = budget.take(EXCHANGE_COST, 10, now) else { panic!("the burst is used") };
        assert!(at.saturating_since(now) <= DEBT_MAX + Duration::from_secs(1));
    }
}
