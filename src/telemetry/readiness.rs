//! Whether we take work, and what an operator should know about it. Shared by all who know, read by `/readyz`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Ready or not, with notes.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<State>);

/// What `/readyz` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// Whether we take work.
    pub ready: bool,
    /// What is out of the ordinary, in alphabetical order. Fixed texts only.
    pub notes: BTreeSet<&'static str>,
}

impl Readiness {
    /// Not ready yet, without notes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether we take work.
    pub fn set_ready(&self, ready: bool) {
        self.with(|state| state.ready = ready);
    }

    /// Adds a note, or takes it back.
    pub fn note(&self, text: &'static str, holds: bool) {
        self.with(|state| if holds { state.notes.insert(text) } else { state.notes.remove(text) });
    }

    /// How things stand.
    #[must_use]
    pub fn state(&self) -> State {
        self.with(|state| state.clone())
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_goes_when_its_reason_goes() {
        let readiness = Readiness::new();
        assert!(!readiness.state().ready, "not before someone says so");
        readiness.set_ready(true);
        readiness.note("the audit log cannot be written", true);
        readiness.note("draining", true);
        readiness.note("draining", false);
        let state = readiness.state();
        assert!(state.ready);
        assert_eq!(state.notes, BTreeSet::from(["the audit log cannot be written"]));
    }
}
