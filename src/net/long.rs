//! The memory that long messages may take: while they come in, while they wait for a shard, and while their calls are held.
//!
//! Its own room because it is the one thing that all connections share by bytes: each may have a message of the usual length
//! under way without asking. What is above that is counted here, for as long as the message lives. Refuses to let one source
//! have more than its share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::bounds::{LONG_BYTES_MAX, LONG_BYTES_PER_SOURCE_MAX};
use super::flows::Source;

/// What all long messages take.
#[derive(Default)]
pub(super) struct LongBytes {
    total: AtomicUsize,
    sources: DashMap<Source, usize, ahash::RandomState>,
}

/// One message's part; given back when dropped.
pub(super) struct Reserved {
    long: Arc<LongBytes>,
    source: Source,
    bytes: usize,
}

impl LongBytes {
    /// Takes room for `bytes` of `source`'s; `None`: there is not enough, for this source or for anyone.
    pub(super) fn reserve(self: &Arc<Self>, source: Source, bytes: usize) -> Option<Reserved> {
        let mut of_source = self.sources.entry(source).or_insert(0);
        let reserved = (*of_source + bytes <= LONG_BYTES_PER_SOURCE_MAX)
            .then(|| {
                let room = |total: usize| Some(total + bytes).filter(|total| *total <= LONG_BYTES_MAX);
                self.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()
            })
            .flatten();
        if reserved.is_none() {
            let is_unused = *of_source == 0;
            drop(of_source);
            if is_unused {
                self.sources.remove_if(&source, |_, bytes| *bytes == 0);
            }
            return None;
        }
        *of_source += bytes;
        Some(Reserved { long: Arc::clone(self), source, bytes })
    }
}

impl Reserved {
    /// Gives back what is not needed after all.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.give_back(self.bytes.saturating_sub(bytes));
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.long.total.fetch_sub(bytes, Ordering::Relaxed);
        if let Entry::Occupied(mut of_source) = self.long.sources.entry(self.source) {
            *of_source.get_mut() -= bytes;
            if *of_source.get() == 0 {
                of_source.remove();
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect("a literal"))
    }

    #[test]
    fn a_source_has_its_share_and_gives_it_back() {
        let long = Arc::<LongBytes>::default();
        let (one, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let mut whole = long.reserve(one, LONG_BYTES_PER_SOURCE_MAX).expect("its share");
        assert!(long.reserve(one, 1).is_none());
        whole.shrink(LONG_BYTES_PER_SOURCE_MAX - 1);
        assert!(long.reserve(one, 2).is_none() && long.reserve(one, 1).is_some());
        let beside = long.reserve(other, 1).expect("room for others");
        drop((whole, beside));
        assert!(long.sources.is_empty());
        assert_eq!(long.total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_sources_together_stay_within_the_limit() {
        let long = Arc::<LongBytes>::default();
        let shares: Vec<_> = (0..LONG_BYTES_MAX / LONG_BYTES_PER_SOURCE_MAX)
            .map(|host| long.reserve(source(&format!("192.0.2.{host}")), LONG_BYTES_PER_SOURCE_MAX).expect("room"))
            .collect();
        let late = source("198.51.100.1");
        assert!(long.reserve(late, 1).is_none());
        assert!(!long.sources.contains_key(&late), "a refusal leaves nothing behind");
        drop(shares);
        assert!(long.reserve(late, 1).is_some());
    }
}
