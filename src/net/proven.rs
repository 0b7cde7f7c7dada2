//! Addresses that answered a REGISTER of ours, until the expiry they granted is over.
//!
//! Shared by all listeners, because a registrar's INVITE may come from any port and over any transport. Refuses to guess:
//! only the engine says who is proven.

use std::net::IpAddr;
use std::time::Duration;

use dashmap::DashMap;

use super::bounds::PROVEN_MAX;
use crate::clock::Instant;

/// The proven addresses.
#[derive(Default)]
pub(super) struct Proven {
    until: DashMap<IpAddr, Instant, ahash::RandomState>,
}

impl Proven {
    /// Remembers `address` for `span`, if that is longer than what is known.
    pub(super) fn remember(&self, address: IpAddr, span: Duration, now: Instant) {
        let address = address.to_canonical();
        let until = now + span;
        if let Some(mut known) = self.until.get_mut(&address) {
            *known = (*known).max(until);
            return;
        }
        if self.until.len() < PROVEN_MAX {
            self.until.insert(address, until);
        }
    }

    /// Whether `address` is proven.
    pub(super) fn contains(&self, address: IpAddr, now: Instant) -> bool {
        self.until.get(&address.to_canonical()).is_some_and(|until| *until > now)
    }

    /// Forgets what is over.
    pub(super) fn sweep(&self, now: Instant) {
        self.until.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_proven_for_the_longest_span_it_was_granted() {
        let proven = Proven::default();
        let address: IpAddr = "192.0.2.7".parse().expect("a literal");
        let start = Instant::from_nanos(0);
        proven.remember(address, Duration::from_secs(60), start);
        proven.remember(address, Duration::from_secs(10), start);

        assert!(proven.contains("::ffff:192.0.2.7".parse().expect("a literal"), start + Duration::from_secs(59)));
        assert!(!proven.contains(address, start + Duration::from_secs(60)));

        proven.sweep(start + Duration::from_secs(60));
        assert!(proven.until.is_empty());
    }
}
