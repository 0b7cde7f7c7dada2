//! Pushes that were accepted, kept until somebody asks for them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Pushes kept at once; the oldest is forgotten first.
const KEPT_MAX: usize = 20_000;

/// A queue whose readers may pick what they wait for.
pub(crate) struct Inbox<P> {
    kept: Mutex<VecDeque<P>>,
    arrived: watch::Sender<u64>,
}

impl<P> Inbox<P> {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), arrived: watch::Sender::new(0) }
    }

    /// Keeps a push and tells who waits.
    pub(crate) fn put(&self, push: P) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(push);
        drop(kept);
        self.arrived.send_modify(|count| *count += 1);
    }

    /// How many ever arrived.
    pub(crate) fn count(&self) -> u64 {
        *self.arrived.borrow()
    }

    /// Takes the oldest push that is `wanted`, waiting for one if need be. `None` if none came in time.
    pub(crate) async fn next(&self, within: Duration, wanted: impl Fn(&P) -> bool) -> Option<P> {
        let mut arrived = self.arrived.subscribe();
        let found = async {
            loop {
                arrived.borrow_and_update();
                if let Some(push) = self.take(&wanted) {
                    return Some(push);
                }
                arrived.changed().await.ok()?;
            }
        };
        timeout(within, found).await.ok().flatten()
    }

    fn take(&self, wanted: impl Fn(&P) -> bool) -> Option<P> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(wanted)?;
        kept.remove(place)
    }
}
