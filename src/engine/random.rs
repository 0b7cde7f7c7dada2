//! Randomness of one shard: a seeded ChaCha generator, so that a run can be repeated.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::ids::base32;

/// A cryptographically strong generator.
pub(crate) struct Random(ChaCha20Rng);

impl Random {
    /// A generator from a seed.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// `N` random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// `N` random bytes as `[a-z2-7]`: a tag, cnonce or Call-ID.
    pub(crate) fn text<const N: usize>(&mut self) -> String {
        let mut text = String::with_capacity(N * 2);
        base32(&self.bytes::<N>(), &mut text);
        text
    }

    /// A span between `low` and `high` percent of `span`.
    pub(crate) fn jitter(&mut self, span: Duration, low: u32, high: u32) -> Duration {
        let permille = u64::from(low) * 10 + self.number() % (u64::from(high - low) * 10 + 1);
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(millis.saturating_mul(permille) / 1000)
    }
}
