//! What one source address may take: hand-overs and failed calls about tenants a minute, connections at once; and hand-overs
//! a minute of one tenant.
//!
//! A source is an IPv4 address or an IPv6 /64, since a /64 is what one subscriber holds. Both tables are bounded; this
//! room knows nothing of requests and never stores an address longer than it counts.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;

/// Sources whose hand-overs are counted at once. Above it a new source has to wait, so that a flood from many addresses
/// costs newcomers time and never memory.
const SOURCES_MAX: usize = 65_536;
/// How often a full table is searched for sources that no longer count.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// An IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Lets a source, or a tenant, hand over so often a minute, all at once if it likes (GCRA: one time stamp each).
pub(crate) struct HandOverRate<K> {
    /// The time one hand-over costs.
    cost: Duration,
    table: Mutex<RateTable<K>>,
}

struct RateTable<K> {
    /// When each has paid for everything it did.
    paid_at: HashMap<K, Instant>,
    swept: Instant,
}

impl<K: Eq + Hash> HandOverRate<K> {
    /// `per_minute` hand-overs for each.
    pub(crate) fn new(per_minute: u32) -> Self {
        let table = RateTable { paid_at: HashMap::new(), swept: Instant::default() };
        Self { cost: MINUTE / per_minute.max(1), table: Mutex::new(table) }
    }

    /// Whether it could hand over, without counting anything.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn check(&self, who: &K, now: Instant) -> Result<(), Duration> {
        let mut table = lock(&self.table);
        table.make_room(who, now)?;
        let paid_at = table.paid_at.get(who).copied();
        paid_at.map_or(Ok(()), |paid_at| within_a_minute(paid_at.max(now) + self.cost, now))
    }

    /// Counts one hand-over.
    ///
    /// # Errors
    /// How long this one has to wait.
    pub(crate) fn admit(&self, who: K, now: Instant) -> Result<(), Duration> {
        let mut table = lock(&self.table);
        table.make_room(&who, now)?;
        let paid_at = table.paid_at.entry(who).or_insert(now);
        let next = (*paid_at).max(now) + self.cost;
        within_a_minute(next, now)?;
        *paid_at = next;
        Ok(())
    }
}

impl<K: Eq + Hash> RateTable<K> {
    /// Room for who is not known yet, if need be by forgetting who has paid.
    fn make_room(&mut self, who: &K, now: Instant) -> Result<(), Duration> {
        if self.paid_at.len() < SOURCES_MAX || self.paid_at.contains_key(who) {
            return Ok(());
        }
        if now.saturating_since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.paid_at.retain(|_, paid_at| *paid_at > now);
        }
        if self.paid_at.len() < SOURCES_MAX { Ok(()) } else { Err(SWEEP_EVERY) }
    }
}

/// A minute's worth may be owed, no more.
fn within_a_minute(paid_at: Instant, now: Instant) -> Result<(), Duration> {
    let owed = paid_at.saturating_since(now);
    if owed > MINUTE { Err(owed.saturating_sub(MINUTE)) } else { Ok(()) }
}

/// Counts live connections of each source; bounded by the cap on all connections, since a source leaves with its last.
pub(crate) struct ConnectionCount {
    max_per_source: u32,
    live: Mutex<HashMap<Source, u32>>,
}

/// One counted connection; dropping it counts it out.
pub(crate) struct Counted {
    count: Arc<ConnectionCount>,
    source: Source,
}

impl ConnectionCount {
    pub(crate) fn new(max_per_source: u32) -> Self {
        Self { max_per_source, live: Mutex::new(HashMap::new()) }
    }

    /// Counts a connection in, unless its source has too many.
    pub(crate) fn enter(self: &Arc<Self>, source: Source) -> Option<Counted> {
        let mut live = lock(&self.live);
        let count = live.entry(source).or_insert(0);
        if *count >= self.max_per_source.max(1) {
            return None;
        }
        *count += 1;
        Some(Counted { count: Arc::clone(self), source })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut live = lock(&self.count.live);
        if let Some(count) = live.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.source);
            }
        }
    }
}

/// The tables stay consistent between statements, so a panic elsewhere while one was held leaves it usable.
fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn a_source_may_spend_its_minute_at_once_and_then_waits_for_one_share() {
        let rate = HandOverRate::new(3);
        for _ in 0..3 {
            assert_eq!(rate.admit(source("192.0.2.1"), at(100)), Ok(()));
        }
        assert_eq!(rate.admit(source("192.0.2.1"), at(100)), Err(Duration::from_secs(20)));
        assert_eq!(rate.admit(source("192.0.2.2"), at(100)), Ok(()), "its neighbour is not concerned");
        assert_eq!(rate.admit(source("192.0.2.1"), at(120)), Ok(()));
        assert_eq!(rate.admit(source("192.0.2.1"), at(120)), Err(Duration::from_secs(20)));
    }

    #[test]
    fn looking_costs_nothing_and_says_what_handing_over_would() {
        let rate = HandOverRate::new(1);
        let who = source("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(rate.check(&who, at(100)), Ok(()));
        }
        assert_eq!(rate.admit(who, at(100)), Ok(()));
        assert_eq!(rate.check(&who, at(130)), Err(Duration::from_secs(30)));
        assert_eq!(rate.check(&who, at(160)), Ok(()));
    }

    #[test]
    fn addresses_of_one_ipv6_64_are_one_source_and_mapped_ipv4_is_ipv4() {
        assert!(source("2001:db8::1") == source("2001:db8::ffff:2"));
        assert!(source("2001:db8::1") != source("2001:db8:0:1::1"));
        assert!(source("::ffff:192.0.2.1") == source("192.0.2.1"));
    }

    #[test]
    fn a_full_table_makes_newcomers_wait_until_others_have_paid() {
        let rate = HandOverRate::new(60);
        for number in 0..u32::try_from(SOURCES_MAX).expect("fits") {
            assert_eq!(rate.admit(Source::V4(number.to_be_bytes()), at(100)), Ok(()));
        }
        assert_eq!(rate.check(&source("2001:db8::1"), at(100)), Err(SWEEP_EVERY));
        assert_eq!(rate.admit(source("2001:db8::1"), at(100)), Err(SWEEP_EVERY));
        assert_eq!(rate.admit(Source::V4([0; 4]), at(100)), Ok(()), "a known source goes on");
        assert_eq!(rate.admit(source("2001:db8::1"), at(101)), Ok(()));
    }

    #[test]
    fn a_source_has_so_many_connections_and_gets_one_back_when_one_ends() {
        let count = Arc::new(ConnectionCount::new(2));
        let first = count.enter(source("192.0.2.1")).expect("first");
        let _second = count.enter(source("192.0.2.1")).expect("second");
        assert!(count.enter(source("192.0.2.1")).is_none());
        assert!(count.enter(source("192.0.2.2")).is_some());
        drop(first);
        assert!(count.enter(source("192.0.2.1")).is_some());
    }
}
