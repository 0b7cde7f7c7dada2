//! Un-REGISTERs of erasures: each waits for its turn at the registrar, with the credentials for half of the grace at most.

use bytes::Bytes;

use super::{Erasures, Event, Removal, Timer, start};
use crate::clock::{Instant, Now};
use crate::engine::audit::Unregister;
use crate::engine::ids::{BindingId, InstanceId};
use crate::engine::permits::{Asker, Class, Permit, PermitOutcome, Used};
use crate::engine::register::{Desk, Target};

impl Erasures {
    /// Has the binding removed at its registrar: when its turn comes, with the credentials as long as half of the grace leaves
    /// time for an answer, else with a request that is written before the wipe.
    pub(super) fn unregister(&mut self, id: InstanceId, target: Target, desk: &mut Desk<'_>, now: Now) {
        let grace = desk.policy.erasure_grace;
        let Some(leaving) = self.leaving(id) else { return };
        let destination = target.destination();
        leaving.removal = Removal::Waiting(target);
        self.schedule.set((id, Timer::Exchange), Some(now.boot + grace / 2));
        self.schedule.set((id, Timer::Grace), Some(now.boot + grace));
        self.events.push_back(Event::Want(destination, Asker::Erasure(id)));
    }

    /// A turn of an un-REGISTER has come.
    pub(crate) fn handle_permit(&mut self, asker: Asker, permit: Permit, desk: &mut Desk<'_>, now: Now) {
        let waits = match asker {
            Asker::Erasure(id) => {
                self.leaving(id).is_some_and(|leaving| matches!(leaving.removal, Removal::Waiting(_)))
            }
            Asker::Departure(id) => self.departures.waits(id),
            Asker::Binding(_)
            | Asker::Trial(_)
            | Asker::Farewell(_)
            | Asker::Subscription(_)
            | Asker::Unsubscription(_) => false,
        };
        match asker {
            Asker::Erasure(id) if waits => return self.ask(id, desk, now),
            Asker::Departure(id) if waits => return self.ask_to_depart(id, desk, now.boot),
            _ => {}
        }
        let request = self.put_off.take(asker);
        let requests = u8::from(request.is_some());
        let used = Used { class: permit.class, outcome: PermitOutcome::Unused, requests };
        self.events.push_back(Event::Report(permit.destination, used));
        if let Some((_, hop, request)) = request {
            self.events.push_back(Event::Send(hop, request));
        }
    }

    /// Sends an un-REGISTER when its turn comes. It is written already, and its answer is of no use, since its credentials are
    /// about to be wiped.
    pub(crate) fn send_farewell(&mut self, id: BindingId, target: &Target, request: Bytes, now: Instant) {
        self.drop_farewell(id);
        if self.put_off.is_full() {
            return;
        }
        let (asker, destination) = (Asker::Farewell(id), target.destination());
        self.put_off.put(asker, destination, target.hop.clone(), request, now);
        self.events.push_back(Event::Want(destination, asker));
    }

    /// The binding registers again, and its Contact is to stay: an un-REGISTER that still waits would remove it.
    pub(crate) fn drop_farewell(&mut self, id: BindingId) {
        let asker = Asker::Farewell(id);
        if let Some((destination, ..)) = self.put_off.take(asker) {
            self.events.push_back(Event::Withdraw(destination, asker));
        }
    }

    /// Its turn did not come in time for the credentials: it goes without them.
    pub(super) fn put_off(&mut self, id: InstanceId, desk: &mut Desk<'_>, now: Now) {
        let is_full = self.put_off.is_full();
        let Some(leaving) = self.leaving(id) else { return };
        if !is_full && let Removal::Waiting(target) = &leaving.removal {
            let (destination, target) = (target.destination(), target.clone());
            leaving.removal = Removal::Needless;
            let (exchange, request) = start(&mut leaving.identity, target, desk, now.boot);
            self.put_off.put(Asker::Erasure(id), destination, exchange.target.hop, request, now.boot);
        }
        self.wipe(id, Unregister::Deferred, desk, now);
    }

    /// What an un-REGISTER held of the destination's budget is given back.
    pub(super) fn settle(&mut self, asker: Asker, removal: Removal) {
        match removal {
            Removal::Needless => {}
            Removal::Waiting(target) => self.events.push_back(Event::Withdraw(target.destination(), asker)),
            Removal::Asked(exchange) => {
                let (outcome, requests) = (PermitOutcome::Unused, exchange.requests);
                let used = Used { class: Class::Removal, outcome, requests };
                self.events.push_back(Event::Report(exchange.target.destination(), used));
            }
        }
    }

    /// Sends the un-REGISTER whose turn has come.
    fn ask(&mut self, id: InstanceId, desk: &mut Desk<'_>, now: Now) {
        let Some(leaving) = self.leaving(id) else { return };
        let Removal::Waiting(target) = std::mem::replace(&mut leaving.removal, Removal::Needless) else { return };
        let hop = target.hop.clone();
        let (exchange, request) = start(&mut leaving.identity, target, desk, now.boot);
        let (branch, due) = (exchange.branch, exchange.poll_timeout());
        leaving.removal = Removal::Asked(exchange);
        self.by_branch.insert(branch, id);
        self.schedule.set((id, Timer::Exchange), due);
        self.events.push_back(Event::Send(hop, request));
    }
}
