//! What waits for one instance.

use std::collections::{BTreeSet, VecDeque};

use super::TextId;
use crate::clock::Instant;
use crate::engine::device::Device;
use crate::engine::ids::BranchId;
use crate::sip::transaction::NonInviteClient;
use crate::vault::Sealed;

/// A message that is kept.
pub(super) struct Text {
    pub(super) id: TextId,
    pub(super) sealed: Sealed,
    pub(super) until: Instant,
    /// The name it has for its device, in each attempt the same.
    pub(super) name: String,
    /// Nobody is woken for it.
    pub(super) quiet: bool,
}

/// The first of those that wait, on its way to the device.
pub(super) struct Delivery {
    pub(super) branch: BranchId,
    pub(super) client: NonInviteClient,
    pub(super) device: Device,
}

/// What waits for one instance, and what is under way.
#[derive(Default)]
pub(super) struct Inbox {
    /// In the order of arrival.
    pub(super) waiting: VecDeque<Text>,
    pub(super) delivery: Option<Delivery>,
    /// Messages being passed on to its device.
    pub(super) legs: BTreeSet<TextId>,
    /// Those of them that are not kept yet.
    pub(super) open: usize,
    /// Messages that came for it and are not forgotten.
    pub(super) transits: BTreeSet<TextId>,
    /// A wake was asked for since the device was attached last.
    pub(super) woken: bool,
}

impl Inbox {
    /// What counts against the bounds.
    pub(super) fn held(&self) -> usize {
        self.waiting.len() + self.open
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.legs.is_empty() && self.transits.is_empty() && self.delivery.is_none()
    }

    /// Whether the device is to be woken: once for all that wait, and not while it is being told.
    pub(super) fn wants_wake(&self) -> bool {
        !self.woken && self.delivery.is_none() && self.waiting.iter().any(|text| !text.quiet)
    }

    /// Takes a message out, wherever it stands.
    pub(super) fn take(&mut self, id: TextId) -> Option<Text> {
        let place = self.waiting.iter().position(|text| text.id == id)?;
        self.waiting.remove(place)
    }

    /// Takes out one whose time is over. The first stays while it is on its way.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Text> {
        let first = usize::from(self.delivery.is_some());
        let place = self.waiting.iter().skip(first).position(|text| text.until <= now)?;
        self.waiting.remove(first + place)
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let first = usize::from(self.delivery.is_some());
        let expiry = self.waiting.iter().skip(first).map(|text| text.until).min();
        let transaction = self.delivery.as_ref().and_then(|delivery| delivery.client.poll_timeout());
        [expiry, transaction].into_iter().flatten().min()
    }
}
