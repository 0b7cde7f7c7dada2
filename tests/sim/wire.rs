//! The wire: how long a datagram takes, and whether it comes at all, or twice. And the world's dice.

use std::time::Duration;

/// The world's own generator (SplitMix64): independent of the engines', so that a change inside one leaves the wire's
/// luck as it was.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// True in `percent` of all cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let place = usize::try_from(self.below(from.len() as u64)).expect("below a length");
        &from[place]
    }

    pub fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_be_bytes());
        }
        bytes
    }
}

/// How bad the wire is.
#[derive(Clone, Copy)]
pub struct Wire {
    pub latency: Duration,
    /// Added by chance up to this: datagrams overtake each other.
    pub jitter: Duration,
    /// Datagrams lost, in percent. Streams lose nothing.
    pub loss: u64,
    /// Datagrams that arrive twice, in percent.
    pub doubled: u64,
}

impl Default for Wire {
    fn default() -> Self {
        Self { latency: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0, doubled: 0 }
    }
}

impl Wire {
    /// After how long the copies of a datagram arrive.
    pub fn copies(&self, dice: &mut Dice) -> Vec<Duration> {
        let one = |dice: &mut Dice| {
            let most = u64::try_from(self.jitter.as_micros()).expect("a short span");
            self.latency + Duration::from_micros(dice.below(most + 1))
        };
        let first = one(dice);
        if dice.chance(self.loss) {
            return Vec::new();
        }
        let mut copies = vec![first];
        if dice.chance(self.doubled) {
            copies.push(one(dice));
        }
        copies
    }
}
