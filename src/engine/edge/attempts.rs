//! How often a source may try wrong tokens.
//!
//! Counted by source alone, never by instance: nothing a stranger does keeps a device from attaching, and a right digest is
//! not counted at all. Refuses to remember more sources than it has room for; those it has none for share one count.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ahash::HashMap;

use crate::clock::Instant;

/// Wrong credentials of one source that are answered within [`WINDOW`]; a device whose token is over needs two or three.
const WRONG_MAX: u16 = 20;
/// The span they are counted in.
const WINDOW: Duration = Duration::from_secs(10);
/// Sources remembered by one shard.
const SOURCES_MAX: usize = 10_000;

/// One IPv4 address, or one IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

#[derive(Clone, Copy, Default)]
struct Count {
    since: Instant,
    wrong: u16,
}

/// The wrong attempts of late.
#[derive(Default)]
pub(super) struct Attempts {
    sources: HashMap<Source, Count>,
    /// Of all sources there was no room for.
    others: Count,
    /// When what is over was last forgotten.
    swept: Instant,
}

impl Attempts {
    /// Counts wrong credentials; whether they are worth an answer.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let source = Source::of(address);
        if self.swept + WINDOW <= now {
            self.swept = now;
            self.sources.retain(|_, count| count.since + WINDOW > now);
        }
        let room = self.sources.len() < SOURCES_MAX;
        match self.sources.get_mut(&source) {
            Some(count) => count.add(now),
            None if room => self.sources.entry(source).or_insert(Count { since: now, wrong: 0 }).add(now),
            None => self.others.add(now),
        }
    }
}

impl Count {
    fn add(&mut self, now: Instant) -> bool {
        if self.since + WINDOW <= now {
            *self = Self { since: now, wrong: 0 };
        }
        self.wrong = self.wrong.saturating_add(1);
        self.wrong <= WRONG_MAX
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        const HOST_BITS: u32 = 64;
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS)),
            address @ IpAddr::V4(_) => address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal")
    }

    #[test]
    fn a_source_is_slowed_and_its_neighbours_are_not() {
        let mut attempts = Attempts::default();
        let admitted = (0..10_000u16).filter(|_| attempts.admit(ip("2001:db8::1"), START)).count();
        assert_eq!(admitted, usize::from(WRONG_MAX));
        assert!(!attempts.admit(ip("2001:db8::2"), START), "the same network");
        assert!(attempts.admit(ip("2001:db8:0:1::1"), START));
        assert!(attempts.admit(ip("2001:db8::1"), START + WINDOW), "the next span");
    }

    #[test]
    fn a_full_table_counts_the_rest_together_and_is_emptied_in_time() {
        let mut attempts = Attempts::default();
        for host in 0..u32::try_from(SOURCES_MAX).expect("few") {
            assert!(attempts.admit(IpAddr::V4(host.into()), START));
        }
        let admitted = (0..100).filter(|host| attempts.admit(ip(&format!("192.0.2.{host}")), START)).count();
        assert_eq!((admitted, attempts.sources.len()), (usize::from(WRONG_MAX), SOURCES_MAX));
        assert!(attempts.admit(ip("192.0.2.1"), START + WINDOW));
        assert_eq!(attempts.sources.len(), 1);
    }
}
