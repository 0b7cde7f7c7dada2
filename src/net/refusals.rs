//! How often a registrar's malformed datagrams are worth an answer.
//!
//! Its own room so that the count is one for all shards. Refuses to answer where it cannot count.

use std::net::IpAddr;
use std::time::Duration;

use dashmap::DashMap;

use super::bounds::{REFUSAL_SOURCES_MAX, REFUSALS_PER_SECOND};
use crate::clock::Instant;

const WINDOW: Duration = Duration::from_secs(1);

/// What each source got within its present second.
#[derive(Default)]
pub(super) struct Refusals {
    sources: DashMap<IpAddr, (Instant, u8), ahash::RandomState>,
}

impl Refusals {
    /// Whether a malformed datagram of `address` may be answered now; counted if so.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        let address = address.to_canonical();
        if let Some(mut known) = self.sources.get_mut(&address) {
            let (since, count) = &mut *known;
            if *since + WINDOW <= now {
                (*since, *count) = (now, 0);
            }
            *count = count.saturating_add(1);
            return *count <= REFUSALS_PER_SECOND;
        }
        if self.sources.len() >= REFUSAL_SOURCES_MAX {
            self.sweep(now);
        }
        if self.sources.len() >= REFUSAL_SOURCES_MAX {
            return false;
        }
        self.sources.insert(address, (now, 1));
        true
    }

    /// Forgets seconds that are over.
    pub(super) fn sweep(&self, now: Instant) {
        self.sources.retain(|_, (since, _)| *since + WINDOW > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_gets_so_many_answers_a_second_and_others_theirs() {
        let refusals = Refusals::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let start = Instant::from_nanos(0);
        let granted = (0..20).filter(|_| refusals.take(one, start)).count();
        assert_eq!(granted, usize::from(REFUSALS_PER_SECOND));
        assert!(refusals.take(other, start));
        assert!(refusals.take(one, start + WINDOW));
        refusals.sweep(start + WINDOW * 2);
        assert!(refusals.sources.is_empty());
    }
}
