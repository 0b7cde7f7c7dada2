//! The transcript: a fingerprint of everything, and the last lines in words for a test that fails.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use reveille::clock::Instant;

/// Lines kept for a failing test.
const KEPT: usize = 300;

#[derive(Default)]
pub(super) struct Story {
    hasher: DefaultHasher,
    title: String,
    lines: VecDeque<String>,
    told: u64,
}

impl Story {
    pub(super) fn tell(&mut self, at: Instant, what: &str) {
        at.hash(&mut self.hasher);
        what.hash(&mut self.hasher);
        self.told += 1;
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>12.3} {what}", at.as_nanos() as f64 / 1e9));
    }

    pub(super) fn entitle(&mut self, title: &str) {
        title.clone_into(&mut self.title);
    }

    /// Bytes count in full, though only `line` is shown.
    pub(super) fn tell_bytes(&mut self, at: Instant, line: &str, bytes: &[u8]) {
        bytes.hash(&mut self.hasher);
        self.tell(at, line);
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.hasher.finish()
    }

    pub(super) fn print(&self) {
        eprintln!("--- {}", self.title);
        eprintln!("--- the last {} of {} events", self.lines.len(), self.told);
        for line in &self.lines {
            eprintln!("{line}");
        }
    }
}
