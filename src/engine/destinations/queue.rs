//! What of this shard waits for a turn at one destination.

use std::collections::{BTreeMap, BTreeSet};

use ahash::HashMap;

use crate::engine::permits::{Asker, Class, Want};

/// A waiting line. An asker stands in it once.
#[derive(Default)]
pub(super) struct Queue {
    line: BTreeMap<(Want, u64), Asker>,
    places: HashMap<Asker, (Want, u64)>,
    /// Those that were not told that the destination is silent, in an order in which the hash order does not show.
    untold: BTreeSet<Asker>,
    /// The destination is silent, so far as its home has told.
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
        self.untold.insert(asker);
        true
    }

    /// What it wanted, if it waits.
    pub(super) fn remove(&mut self, asker: Asker) -> Option<Want> {
        let place = self.places.remove(&asker)?;
        self.line.remove(&place);
        self.untold.remove(&asker);
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
        self.untold.remove(&asker);
        Some(asker)
    }

    /// The destination is silent. Returns the askers that have yet to be told; each is told once, however long it waits.
    pub(super) fn withhold(&mut self) -> BTreeSet<Asker> {
        self.withheld = true;
        std::mem::take(&mut self.untold)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}
