//! Legs without a caller: the call has its final, and the phones at the other end have yet to hear of it.
//!
//! Each is cancelled, its final acknowledged, a late 2xx ended by BYE. One whose flow is gone, or that does not answer its
//! CANCEL, rests until the device comes back, so that no phone rings on for a dead call.

use std::collections::{BTreeMap, VecDeque};

use ahash::HashMap;

use super::ended::ENDED_KEPT;
use super::leg::Leg;
use super::{Desk, Event, Farewells};
use crate::clock::Instant;
use crate::engine::device::Device;
use crate::engine::ids::{BranchId, InstanceId};
use crate::engine::output::Hop;
use crate::engine::schedule::Schedule;
use crate::sip::timers::TRANSACTION_TIMEOUT;
use crate::sip::transaction::Verdict;
use crate::sip::{Message, Method, StatusCode};

struct Orphan {
    leg: Leg,
    /// When it is forgotten, whatever became of it.
    until: Instant,
}

/// The orphans of one shard.
pub(super) struct Orphans {
    legs: BTreeMap<(InstanceId, BranchId), Orphan>,
    by_branch: HashMap<BranchId, InstanceId>,
    schedule: Schedule<BranchId>,
    most: usize,
}

impl Orphans {
    /// Keeps at most `most` legs; above it a CANCEL is sent once and nothing more is heard.
    pub(super) fn new(most: usize) -> Self {
        Self { legs: BTreeMap::new(), by_branch: HashMap::default(), schedule: Schedule::default(), most }
    }

    /// Takes a leg whose call is over.
    pub(super) fn add(&mut self, leg: Leg, now: Instant) {
        if leg.is_over() || self.legs.len() >= self.most {
            return;
        }
        let (instance, branch) = (leg.instance, leg.branch);
        self.by_branch.insert(branch, instance);
        self.legs.insert((instance, branch), Orphan { leg, until: now + ENDED_KEPT });
        self.settle(branch);
    }

    /// A response whose branch may be an orphan's. `false`: it is not.
    pub(super) fn handle_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        farewells: &mut Farewells,
        events: &mut VecDeque<Event>,
        desk: &mut Desk<'_>,
        now: Instant,
    ) -> bool {
        let Some(leg) = self.leg(branch) else { return false };
        let (Some(code), Ok(cseq)) = (response.status(), response.cseq()) else { return true };
        if leg.request.call_id().ok() != response.call_id().ok() {
            return true;
        }
        if leg.lost && cseq.method == Method::Invite {
            if code.is_success() {
                // Perhaps ACK and BYE reach nobody. The phone repeats its 2xx, and hears them when it is back.
                leg.hang_up(response, farewells, events, desk, now);
                return true;
            }
            // It was only slow.
            leg.lost = false;
        }
        if cseq.method == Method::Cancel {
            leg.handle_cancel_response(code, now);
            if code == StatusCode::CALL_DOES_NOT_EXIST {
                self.shorten(branch, now);
            }
        } else {
            match leg.client.handle_response(code, now) {
                Verdict::Absorb => {}
                Verdict::Ack | Verdict::DeliverAndAck => leg.acknowledge(response, events),
                Verdict::Deliver if code.is_success() => leg.hang_up(response, farewells, events, desk, now),
                Verdict::Deliver => leg.handle_alive(events, now),
            }
        }
        self.settle(branch);
        true
    }

    /// The device is reachable (again): what it has not answered follows it.
    pub(super) fn handle_attached(
        &mut self,
        instance: InstanceId,
        device: &Device,
        events: &mut VecDeque<Event>,
        now: Instant,
    ) {
        for branch in self.of_instance(instance) {
            let Some(leg) = self.leg(branch) else { continue };
            if leg.lost || leg.hop != device.hop {
                leg.move_to(device, events, now);
            }
            self.settle(branch);
        }
    }

    /// The device's connection is gone. To an address something may still be sent.
    pub(super) fn handle_detached(&mut self, instance: InstanceId) {
        for branch in self.of_instance(instance) {
            let Some(leg) = self.leg(branch) else { continue };
            if let Hop::Flow(_) = leg.hop {
                leg.lost = true;
            }
            self.settle(branch);
        }
    }

    pub(super) fn handle_timeout(&mut self, events: &mut VecDeque<Event>, now: Instant) {
        while let Some(branch) = self.schedule.pop_due(now) {
            let Some(orphan) = self.by_branch.get(&branch).and_then(|of| self.legs.get_mut(&(*of, branch))) else {
                continue;
            };
            let due = orphan.leg.handle_timeout(events, now);
            if orphan.until <= now {
                self.remove(branch);
                continue;
            }
            // Nothing more is repeated, but the phone may ring, or have the INVITE still before it.
            if due.unanswered || due.given_up {
                orphan.leg.rest(now);
            }
            self.settle(branch);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(super) fn len(&self) -> usize {
        self.legs.len()
    }

    fn leg(&mut self, branch: BranchId) -> Option<&mut Leg> {
        let instance = *self.by_branch.get(&branch)?;
        self.legs.get_mut(&(instance, branch)).map(|orphan| &mut orphan.leg)
    }

    fn of_instance(&self, instance: InstanceId) -> Vec<BranchId> {
        let first = (instance, BranchId::from_bytes([0; 18]));
        let legs = self.legs.range(first..).take_while(|((of, _), _)| *of == instance);
        legs.map(|((_, branch), _)| *branch).collect()
    }

    /// The phone knows of no INVITE: it has restarted, or its 2xx is on the way. There is nothing to wait for but that.
    fn shorten(&mut self, branch: BranchId, now: Instant) {
        if let Some(orphan) = self.by_branch.get(&branch).and_then(|of| self.legs.get_mut(&(*of, branch))) {
            orphan.until = orphan.until.min(now + TRANSACTION_TIMEOUT);
        }
    }

    fn settle(&mut self, branch: BranchId) {
        let Some(orphan) = self.by_branch.get(&branch).and_then(|of| self.legs.get(&(*of, branch))) else { return };
        if orphan.leg.is_over() {
            self.remove(branch);
        } else {
            let due = orphan.leg.poll_timeout().map_or(orphan.until, |due| due.min(orphan.until));
            self.schedule.set(branch, Some(due));
        }
    }

    fn remove(&mut self, branch: BranchId) {
        self.schedule.remove(branch);
        if let Some(instance) = self.by_branch.remove(&branch) {
            self.legs.remove(&(instance, branch));
        }
    }
}
