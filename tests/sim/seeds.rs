//! Which seeds a random walk walks, and what it says of those that fail.
//!
//! `REVEILLE_WALKS=1000` walks more seeds than CI does, `REVEILLE_WALK_FROM=500` begins there and leaves out those that
//! failed once, `REVEILLE_WALK_SEED=7` walks one. Whoever asks for seeds of his own gets all that fail, not the first alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Walks the seeds that were asked for; else those that `failed_before` and the first `walks` of all.
pub fn walk_each(failed_before: &[u64], walks: u64, walk: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(one) = number("REVEILLE_WALK_SEED") {
        return walk(one);
    }
    let (from, asked) = (number("REVEILLE_WALK_FROM"), number("REVEILLE_WALKS"));
    let first = from.unwrap_or(0);
    let before = failed_before.iter().copied().filter(|_| from.is_none());
    let seeds = before.chain(first..first + asked.unwrap_or(walks));
    if from.is_none() && asked.is_none() {
        return seeds.for_each(walk);
    }
    let failed: Vec<u64> = seeds.filter(|&seed| catch_unwind(AssertUnwindSafe(|| walk(seed))).is_err()).collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
