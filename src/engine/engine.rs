//! SKELETON of the shard's engine; signatures are final.

use std::sync::Arc;

use super::ids::ShardId;
use super::input::Input;
use super::output::Output;
use super::placement::Placement;
use super::policy::Policy;
use super::tally::{Census, Tally};
use crate::clock::{Instant, Now};

/// What an engine needs to start.
pub struct Start {
    /// Its number.
    pub shard: ShardId,
    /// The operator's decisions.
    pub policy: Arc<Policy>,
    /// Who owns what.
    pub placement: Placement,
    /// Seeds its generator (from the operating system; from the seed in a simulation).
    pub seed: [u8; 32],
}

/// Everything one shard knows and decides. Feed it, drain it, wait, repeat.
pub struct Engine {
    _start: Start,
}

impl Engine {
    /// An empty engine.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self { _start: start }
    }

    /// Takes one thing that happened.
    pub fn handle_input(&mut self, _input: Input, _now: Now) {
        todo!()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Now) {
        todo!()
    }

    /// The next effect; bytes to send are appended to `bytes`, the output names their range.
    #[must_use]
    pub fn poll_output(&mut self, _bytes: &mut Vec<u8>) -> Option<Output> {
        todo!()
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Counts since the last take.
    pub fn take_tally(&mut self) -> Tally {
        todo!()
    }

    /// What is held right now.
    #[must_use]
    pub fn census(&self) -> Census {
        todo!()
    }
}
