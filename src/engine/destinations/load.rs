//! What a destination is kept busy with: refreshes of the registrations that are held there, and whether further ones fit.

use std::collections::BTreeMap;

/// The rate exceeds the need by half, so that what was late can catch up.
const HEADROOM: (u64, u64) = (3, 2);
/// No further accounts above this part of `registrars.rate_max`: the rest is for what fails and is tried again.
const CAPACITY: (u64, u64) = (4, 5);
/// Above this part of the capacity a tenant with more than its equal share gets no more.
const SHARED_FROM: (u64, u64) = (3, 4);
/// Requests of one refresh, in thousandths, before there was one: a challenge and its answer.
const REQUESTS_FIRST: u64 = 2_000;
/// One refresh changes the average by this part.
const SMOOTHING: u64 = 32;
/// Millionths.
const MICRO: u64 = 1_000_000;

/// What the operator allows.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    /// Requests a second, whatever is held.
    pub(super) rate: u32,
    /// Requests a second at most, however much is held.
    pub(super) rate_max: u32,
    /// Un-REGISTERs a second in a drain.
    pub(super) drain_rate: u32,
    /// How many tenants share a destination.
    pub(super) tenants: u16,
}

/// What is held at a destination.
pub(super) struct Load {
    /// Millionths of a refresh a second, by tenant.
    tenants: BTreeMap<u16, u64>,
    total: u64,
    /// Requests that a refresh takes, in thousandths: 1,000 where the nonce is good for the next one.
    requests: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { tenants: BTreeMap::new(), total: 0, requests: REQUESTS_FIRST }
    }
}

impl Load {
    pub(super) fn change(&mut self, tenant: u16, change: i64) {
        let held = self.tenants.entry(tenant).or_default();
        let former = *held;
        *held = held.saturating_add_signed(change);
        self.total = self.total - former + *held;
        if *held == 0 {
            self.tenants.remove(&tenant);
        }
    }

    /// A refresh took so many requests.
    pub(super) fn learn(&mut self, requests: u8) {
        self.requests = (self.requests * (SMOOTHING - 1) + u64::from(requests) * 1_000) / SMOOTHING;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Requests a second that refreshes need, rounded up.
    pub(super) fn need(&self) -> u32 {
        u32::try_from(self.needed(self.total).div_ceil(MICRO)).unwrap_or(u32::MAX)
    }

    /// Requests a second the destination may get.
    pub(super) fn rate(&self, rates: &Rates) -> u32 {
        let wanted = self.needed(self.total).saturating_mul(HEADROOM.0) / HEADROOM.1;
        let wanted = u32::try_from(wanted.div_ceil(MICRO)).unwrap_or(u32::MAX);
        wanted.clamp(rates.rate, rates.rate_max.max(rates.rate))
    }

    /// Whether no further account of the tenant can be kept registered there.
    pub(super) fn is_full(&self, tenant: u16, rates: &Rates) -> bool {
        let capacity = u64::from(rates.rate_max.max(rates.rate)) * MICRO * CAPACITY.0 / CAPACITY.1;
        let need = self.needed(self.total);
        let own = self.needed(self.tenants.get(&tenant).copied().unwrap_or(0));
        let shared = need * SHARED_FROM.1 >= capacity * SHARED_FROM.0;
        need >= capacity || (shared && own * u64::from(rates.tenants.max(1)) > capacity)
    }

    fn needed(&self, refreshes: u64) -> u64 {
        refreshes.saturating_mul(self.requests) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::permits::load_of;
    use std::time::Duration;

    const RATES: Rates = Rates { rate: 50, rate_max: 1_000, drain_rate: 100, tenants: 1 };

    fn hold(load: &mut Load, tenant: u16, accounts: i64, expires: u64) {
        let each = i64::try_from(load_of(Duration::from_secs(expires))).expect("small");
        load.change(tenant, accounts * each);
    }

    #[test]
    fn the_rate_follows_what_is_held_and_carries_a_hundred_thousand_accounts_with_the_defaults() {
        let mut load = Load::default();
        assert_eq!((load.need(), load.rate(&RATES)), (0, 50));
        hold(&mut load, 0, 5_000, 600);
        assert_eq!((load.need(), load.rate(&RATES)), (21, 50), "little needs no more than the rate");
        hold(&mut load, 0, 95_000, 600);
        assert_eq!((load.need(), load.rate(&RATES)), (417, 625));
        assert!(!load.is_full(0, &RATES));
        // Where one nonce does for several refreshes, half of it is enough.
        (0..1_000).for_each(|_| load.learn(1));
        assert!((205..=220).contains(&load.need()), "{}", load.need());
        hold(&mut load, 0, -100_000, 600);
        assert!(load.is_empty() && load.tenants.is_empty());
    }

    #[test]
    fn what_cannot_be_refreshed_in_time_is_not_taken_and_no_tenant_takes_it_all() {
        let mut load = Load::default();
        hold(&mut load, 0, 191_000, 600);
        assert!(!load.is_full(0, &RATES));
        hold(&mut load, 0, 2_000, 600);
        assert!(load.is_full(0, &RATES) && load.is_full(1, &RATES));
        assert!(load.rate(&RATES) == 1_000 && load.need() < 1_000);

        let shared = Rates { tenants: 2, ..RATES };
        let mut load = Load::default();
        hold(&mut load, 0, 145_000, 600);
        assert!(load.is_full(0, &shared), "the rest is for the other one");
        assert!(!load.is_full(1, &shared));
        hold(&mut load, 1, 48_000, 600);
        assert!(load.is_full(1, &shared), "now it is full");
    }
}
