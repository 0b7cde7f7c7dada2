//! Orders: erasing all instances of a tenant, of one of its devices, or one instance, by the tenant's administrator.
//!
//! An order counts what became of each of its instances, and is remembered as long as a tombstone: asked again it tells how far
//! it is, and then always the same. It is not done while anything it was about still has its credentials, whoever had that
//! erased: what is erased for another reason is waited for, and counted where it belongs. This room erases nothing itself:
//! `endings` begins the erasures at their pace, and `erasures` says when each one is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ahash::HashMap;

use super::account::TenantId;
use super::audit::Unregister;
use super::ids::{InstanceId, RecordId, ReplyTo};
use super::input::Whom;
use super::output::{Answer, OrderView, Refusal};
use super::schedule::Schedule;
use crate::clock::{Instant, Now, WallTime};

/// Orders remembered in one shard. The oldest of the tenant's own that is done gives way, else the oldest of all that is done;
/// while none is, a further one is told to come again.
const ORDERS_MAX: usize = 1024;
/// How long an order that is done is remembered: as long as the tombstones of its instances.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long the answer waits beyond `erasure.grace`: for the log, and for a few portions.
const ANSWER_SLACK: Duration = Duration::from_secs(3);
/// Whoever asks is told how far the order is after this long in any case.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Clients that wait for one order; further ones are told at once how far it is.
const WAITING_MAX: usize = 16;
const COME_AGAIN: Duration = Duration::from_secs(5);

/// What this room asks of the engine.
pub(crate) enum Event {
    Reply(ReplyTo, Box<Answer>),
}

/// What an order finds.
pub(crate) struct Found {
    /// What it has erased.
    pub(crate) instances: BTreeSet<InstanceId>,
    /// What is being erased already, for another reason.
    pub(crate) leaving: BTreeSet<InstanceId>,
    /// Registrations that pass through us and were ended with it: they hold no credentials.
    pub(crate) passed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct OrderId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Who waits is told how far it is.
    Answer,
    /// It is forgotten.
    Forget,
}

struct Order {
    tenant: TenantId,
    whom: Whom,
    begun: WallTime,
    ended: Option<WallTime>,
    /// Instances without a receipt yet, those of others among them.
    open: usize,
    unregister: BTreeMap<Unregister, u32>,
    logged: u32,
    passed: u32,
    waiting: Vec<ReplyTo>,
}

/// An order that waits for an instance.
#[derive(Clone, Copy)]
struct Watch {
    order: OrderId,
    /// Whether it is counted here.
    counts: bool,
}

/// The room.
#[derive(Default)]
pub(crate) struct Orders {
    orders: BTreeMap<OrderId, Order>,
    by_whom: BTreeMap<(TenantId, Whom), OrderId>,
    /// Not wiped yet. At most three orders are about one instance: its own, its device's, its tenant's.
    by_instance: HashMap<InstanceId, Vec<Watch>>,
    /// Wiped, not recorded yet.
    by_record: HashMap<RecordId, Vec<Watch>>,
    schedule: Schedule<(OrderId, Timer)>,
    events: VecDeque<Event>,
    last: u64,
}

impl Orders {
    /// An order comes in, or comes again: then what is new joins the one there is, which is not done any more. Answered when
    /// it is done, or after a while.
    pub(crate) fn give(
        &mut self,
        tenant: &TenantId,
        whom: &Whom,
        found: Found,
        grace: Duration,
        reply: ReplyTo,
        now: Now,
    ) {
        let Some(id) = self.known(tenant, whom).or_else(|| self.enter(tenant, whom, now)) else {
            let refusal = Refusal::Busy { after: COME_AGAIN };
            return self.events.push_back(Event::Reply(reply, Box::new(Answer::Refused(refusal))));
        };
        self.watch(id, found);
        let Some(order) = self.orders.get_mut(&id) else { return };
        if order.waiting.len() < WAITING_MAX {
            order.waiting.push(reply);
            let by = now.boot + (grace + ANSWER_SLACK).min(ANSWER_MAX);
            let first = self.schedule.at((id, Timer::Answer)).unwrap_or(by);
            self.schedule.set((id, Timer::Answer), Some(first));
        } else {
            let view = order.view();
            self.events.push_back(Event::Reply(reply, Box::new(Answer::Ordered(Box::new(view)))));
        }
        self.conclude(id, now);
    }

    /// Whether such an order is remembered.
    pub(crate) fn knows(&self, tenant: &TenantId, whom: &Whom) -> bool {
        self.known(tenant, whom).is_some()
    }

    /// An instance is wiped, and its record is on the way to the log.
    pub(crate) fn handle_wiped(&mut self, instance: InstanceId, unregister: Unregister, record: RecordId) {
        let Some(watches) = self.by_instance.remove(&instance) else { return };
        for watch in watches.iter().filter(|watch| watch.counts) {
            let Some(order) = self.orders.get_mut(&watch.order) else { continue };
            *order.unregister.entry(unregister).or_default() += 1;
        }
        self.by_record.insert(record, watches);
    }

    /// The log has written a record, or given up waiting.
    pub(crate) fn handle_recorded(&mut self, record: RecordId, logged: bool, now: Now) {
        for Watch { order: id, counts } in self.by_record.remove(&record).unwrap_or_default() {
            if let Some(order) = self.orders.get_mut(&id) {
                order.open -= 1;
                order.logged += u32::from(logged && counts);
            }
            self.conclude(id, now);
        }
    }

    /// Answers who has waited long enough, and forgets what is old.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, timer)) = self.schedule.pop_due(now) {
            match timer {
                Timer::Answer => self.answer(id),
                Timer::Forget => self.forget(id),
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([
            ("orders", self.orders.len()),
            ("orders.instances", self.by_instance.len()),
            ("orders.records", self.by_record.len()),
        ]);
    }

    /// An order waits for what it found. What others have erased already is counted there.
    fn watch(&mut self, id: OrderId, found: Found) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        let Found { instances, leaving, passed } = found;
        let before = order.open;
        let fresh = instances.into_iter().map(|instance| (instance, true));
        for (instance, own) in fresh.chain(leaving.into_iter().map(|instance| (instance, false))) {
            let watches = self.by_instance.entry(instance).or_default();
            if watches.iter().all(|watch| watch.order != id) {
                let counts = own && watches.iter().all(|watch| !watch.counts);
                watches.push(Watch { order: id, counts });
                order.open += 1;
            }
        }
        order.passed = order.passed.saturating_add(passed);
        if order.open > before || passed > 0 {
            order.ended = None;
            self.schedule.remove((id, Timer::Forget));
        }
    }

    fn known(&self, tenant: &TenantId, whom: &Whom) -> Option<OrderId> {
        self.by_whom.get(&(tenant.clone(), whom.clone())).copied()
    }

    /// A new order; `None` where there is no room.
    fn enter(&mut self, tenant: &TenantId, whom: &Whom, now: Now) -> Option<OrderId> {
        if self.orders.len() >= ORDERS_MAX {
            let done = || self.orders.iter().filter(|(_, order)| order.ended.is_some());
            // Nobody's orders push out another tenant's while there are own ones.
            let own = done().find(|(_, order)| order.tenant == *tenant);
            let oldest = own.or_else(|| done().next()).map(|(id, _)| *id)?;
            self.forget(oldest);
        }
        self.last += 1;
        let id = OrderId(self.last);
        let order = Order {
            tenant: tenant.clone(),
            whom: whom.clone(),
            begun: now.wall,
            ended: None,
            open: 0,
            unregister: BTreeMap::new(),
            logged: 0,
            passed: 0,
            waiting: Vec::new(),
        };
        self.by_whom.insert((tenant.clone(), whom.clone()), id);
        self.orders.insert(id, order);
        Some(id)
    }

    /// Ends an order that has nothing left to do, and answers who waits for one that is done.
    fn conclude(&mut self, id: OrderId, now: Now) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        if order.open > 0 {
            return;
        }
        if order.ended.is_none() {
            order.ended = Some(now.wall);
            self.schedule.set((id, Timer::Forget), Some(now.boot + KEPT));
        }
        self.answer(id);
    }

    fn answer(&mut self, id: OrderId) {
        self.schedule.remove((id, Timer::Answer));
        let Some(order) = self.orders.get_mut(&id) else { return };
        let view = order.view();
        for reply in std::mem::take(&mut order.waiting) {
            self.events.push_back(Event::Reply(reply, Box::new(Answer::Ordered(Box::new(view.clone())))));
        }
    }

    fn forget(&mut self, id: OrderId) {
        let Some(Order { tenant, whom, .. }) = self.orders.remove(&id) else { return };
        self.by_whom.remove(&(tenant, whom));
        self.schedule.remove((id, Timer::Forget));
    }
}

impl Order {
    fn view(&self) -> OrderView {
        OrderView {
            begun: self.begun,
            ended: self.ended,
            left: u32::try_from(self.open).unwrap_or(u32::MAX),
            unregister: self.unregister.clone(),
            logged: self.logged,
            passed: self.passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_gives_many_orders_makes_its_own_be_forgotten() {
        let mut room = Orders::default();
        let now = Now { boot: Instant::from_nanos(1), wall: WallTime::from_unix_millis(0) };
        let mut give = |tenant: &str, number: usize| {
            let whom = Whom::Device(number.to_string());
            let found = Found { instances: BTreeSet::new(), leaving: BTreeSet::new(), passed: 0 };
            room.give(&tenant.into(), &whom, found, Duration::ZERO, ReplyTo(0), now);
            while room.poll_event().is_some() {}
            (room.orders.len(), room.knows(&"acme".into(), &Whom::Device("0".to_owned())))
        };
        give("acme", 0);
        for number in 0..ORDERS_MAX * 2 {
            let (remembered, knows) = give("rival", number);
            assert!(remembered <= ORDERS_MAX && knows, "{number}");
        }
        // Who has none there takes the place of the oldest.
        assert_eq!(give("third", 0), (ORDERS_MAX, false));
    }
}
