//! What of this shard waits for a turn at one destination.

use std::collections::BTreeMap;

use ahash::HashMap;

use crate::engine::permits::{Asker, Class, Want};

/// A waiting line. An asker stands in it once.
#[derive(Default)]
pub(super) struct Queue {
    line: BTreeMap<(Want, u64), Asker>,
    places: HashMap<Asker, (Want, u64)>,
    /// The destination was silent when a permit was last asked for.
    pub(super) withheld: bool,
}

impl Queue {
    /// `false`: it waits already.
    pub(super) fn push(&mut self, asker: Asker, want: Want, number: u64) -> bool {
        if self.places.contains_key(&asker) {
            return false;
        }
        self.places.insert(asker, (want, number));
        self.line.insert((want, number), asker);
        true
    }

    /// What it wanted, if it waits.
    pub(super) fn remove(&mut self, asker: Asker) -> Option<Want> {
        let place = self.places.remove(&asker)?;
        self.line.remove(&place);
        Some(place.0)
    }

    /// The next of a class, and of a tenant.
    pub(super) fn pop(&mut self, class: Class, tenant: u16) -> Option<Asker> {
        let from = (Want { class, tenant, due: 0 }, 0);
        let (&place, &asker) = self.line.range(from..).next()?;
        if (place.0.class, place.0.tenant) != (class, tenant) {
            return None;
        }
        self.line.remove(&place);
        self.places.remove(&asker);
        Some(asker)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}
