//! Places: how many instances each device and each tenant holds over all shards, and how many accounts a device tries.
//!
//! The accounts of a device or tenant lie in many shards, its count in one: its home shard. A hand-over asks there for a
//! place before it is taken in, and an erasure gives the place back. This room holds counts, no instance.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;

use super::account::TenantId;
use super::ids::ShardId;
use super::input::{Holder, PeerMessage};
use super::placement::Placement;
use super::policy::Policy;
use super::schedule::Schedule;
use crate::clock::Instant;

/// Devices whose accounts are remembered at once, for each shard. Above it the one that would be forgotten first is: a flood
/// of made-up devices makes a bound looser for a while and locks nobody out.
const DEVICES_REMEMBERED_MAX: usize = 65_536;
/// How long an account counts among those its device has tried.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// When to come again where only an erasure makes room.
const NO_PLACE_WAIT: Duration = Duration::from_secs(30);

/// What this room asks of the engine.
pub(crate) enum Event {
    /// Tell another shard.
    Peer(ShardId, PeerMessage),
    /// The home shard's answer to a ticket: granted, or how long to wait.
    Answered { ticket: u64, wait: Option<Duration> },
}

/// The room.
pub(crate) struct Places {
    shard: ShardId,
    placement: Placement,
    policy: Arc<Policy>,
    counts: HashMap<Holder, u32>,
    /// By the device's fingerprint: the accounts it has tried, each until when it counts; the oldest first.
    tried: HashMap<u64, VecDeque<(u64, Instant)>>,
    forgotten: Schedule<u64>,
    events: VecDeque<Event>,
}

impl Places {
    /// Holds to the policy's `instances_per_device`, `accounts_per_device` and the tenants' `instances_max`.
    pub(crate) fn new(shard: ShardId, placement: Placement, policy: Arc<Policy>) -> Self {
        Self {
            shard,
            placement,
            policy,
            counts: HashMap::default(),
            tried: HashMap::default(),
            forgotten: Schedule::default(),
            events: VecDeque::new(),
        }
    }

    /// Asks for a place for an account; `Event::Answered` with the ticket follows.
    pub(crate) fn ask(&mut self, holder: Holder, account: u64, ticket: u64, now: Instant) {
        let home = self.home(&holder);
        self.tell(home, PeerMessage::PlaceWanted { holder, account, ticket }, now);
    }

    /// Takes the place of an instance that gives its own back at once.
    pub(crate) fn take(&mut self, holder: Holder, now: Instant) {
        let home = self.home(&holder);
        self.tell(home, PeerMessage::PlaceTaken { holder }, now);
    }

    /// Gives a place back.
    pub(crate) fn give_back(&mut self, holder: Holder, now: Instant) {
        let home = self.home(&holder);
        self.tell(home, PeerMessage::PlaceReturned { holder }, now);
    }

    /// Another shard speaks.
    pub(crate) fn handle_peer(&mut self, from: ShardId, message: PeerMessage, now: Instant) {
        match message {
            PeerMessage::PlaceWanted { holder, account, ticket } => {
                let wait = self.grant(holder, account, now).err();
                self.tell(from, PeerMessage::PlaceAnswered { ticket, wait }, now);
            }
            PeerMessage::PlaceAnswered { ticket, wait } => self.events.push_back(Event::Answered { ticket, wait }),
            PeerMessage::PlaceTaken { holder } => *self.counts.entry(holder).or_default() += 1,
            PeerMessage::PlaceReturned { holder } => {
                if let Some(count) = self.counts.get_mut(&holder) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.counts.remove(&holder);
                    }
                }
            }
            // Words of others; the engine never routes them here.
            _ => {}
        }
    }

    /// Forgets the accounts of devices whose day is over. Nothing waits for it, so it has no timer of its own.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(device) = self.forgotten.pop_due(now) {
            self.tried.remove(&device);
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([("places", self.counts.len()), ("places.tried", self.tried.len())]);
    }

    fn grant(&mut self, holder: Holder, account: u64, now: Instant) -> Result<(), Duration> {
        let most = match &holder {
            Holder::Device(tenant, device) => {
                self.count_account(tenant, device, account, now)?;
                self.policy.limits.instances_per_device
            }
            Holder::Moving(tenant, device) => return self.count_account(tenant, device, account, now),
            Holder::Tenant(tenant) => self.most_of(tenant).unwrap_or(u32::MAX),
        };
        let count = self.counts.entry(holder).or_default();
        if *count >= most {
            return Err(NO_PLACE_WAIT);
        }
        *count += 1;
        Ok(())
    }

    fn most_of(&self, tenant: &TenantId) -> Option<u32> {
        self.policy.tenant(tenant)?.instances_max
    }

    /// An account counts once, for a day from its first try.
    fn count_account(&mut self, tenant: &str, device: &str, account: u64, now: Instant) -> Result<(), Duration> {
        self.handle_timeout(now);
        let device = self.placement.fingerprint(&[tenant, device]);
        if !self.tried.contains_key(&device) && self.tried.len() >= DEVICES_REMEMBERED_MAX {
            let first = self.forgotten.pop_first();
            first.and_then(|first| self.tried.remove(&first));
        }
        let accounts = self.tried.entry(device).or_default();
        while accounts.front().is_some_and(|(_, until)| *until <= now) {
            accounts.pop_front();
        }
        if accounts.iter().any(|(known, _)| *known == account) {
            return Ok(());
        }
        if let Some((_, until)) = accounts.front()
            && accounts.len() >= self.policy.limits.accounts_per_device as usize
        {
            return Err(until.saturating_since(now));
        }
        accounts.push_back((account, now + DAY));
        self.forgotten.set(device, Some(now + DAY));
        Ok(())
    }

    fn home(&self, holder: &Holder) -> ShardId {
        match holder {
            Holder::Device(tenant, device) | Holder::Moving(tenant, device) => self.placement.device(tenant, device),
            Holder::Tenant(tenant) => self.placement.tenant(tenant),
        }
    }

    fn tell(&mut self, to: ShardId, message: PeerMessage, now: Instant) {
        if to == self.shard {
            self.handle_peer(to, message, now);
        } else {
            self.events.push_back(Event::Peer(to, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::limits::Limits;
    use crate::engine::policy::TenantPolicy;

    const NOW: Instant = Instant::from_nanos(0);

    fn room(limits: Limits, instances_max: Option<u32>) -> Places {
        let tenant = TenantPolicy { id: "acme".into(), instances_max, ..TenantPolicy::default() };
        let policy = Policy { tenants: vec![tenant], ..Policy::bare(limits) };
        Places::new(ShardId(0), Placement::new(1, [1, 2]), Arc::new(policy))
    }

    fn device(name: &str) -> Holder {
        Holder::Device("acme".into(), name.to_owned())
    }

    fn answers(room: &mut Places) -> Vec<bool> {
        let events = std::iter::from_fn(|| room.poll_event());
        events
            .filter_map(|event| match event {
                Event::Answered { wait, .. } => Some(wait.is_none()),
                Event::Peer(..) => None,
            })
            .collect()
    }

    #[test]
    fn a_device_gets_as_many_places_as_it_may_and_a_place_given_back_is_free_again() {
        let mut room = room(Limits { instances_per_device: 2, ..Limits::default() }, None);
        for account in 0..3 {
            room.ask(device("1"), account, account, NOW);
        }
        room.ask(device("2"), 0, 3, NOW);
        assert_eq!(answers(&mut room), [true, true, false, true]);

        room.give_back(device("1"), NOW);
        room.ask(device("1"), 2, 4, NOW);
        assert_eq!(answers(&mut room), [true]);
    }

    #[test]
    fn a_tenant_gets_as_many_places_as_the_operator_says() {
        let mut room = room(Limits::default(), Some(2));
        for ticket in 0..3 {
            room.ask(Holder::Tenant("acme".into()), ticket, ticket, NOW);
        }
        room.ask(Holder::Tenant("free".into()), 0, 3, NOW);
        assert_eq!(answers(&mut room), [true, true, false, true]);
        room.give_back(Holder::Tenant("acme".into()), NOW);
        room.ask(Holder::Tenant("acme".into()), 9, 4, NOW);
        assert_eq!(answers(&mut room), [true]);
    }

    #[test]
    fn a_device_tries_so_many_accounts_a_day_and_the_same_ones_as_often_as_it_likes() {
        let mut room = room(Limits { accounts_per_device: 2, instances_per_device: 100, ..Limits::default() }, None);
        for account in [1, 2, 1, 2, 3] {
            room.ask(device("1"), account, account, NOW);
            // What it tried counts, whatever came of it.
            room.give_back(device("1"), NOW);
        }
        assert_eq!(answers(&mut room), [true, true, true, true, false]);
        room.ask(device("2"), 3, 6, NOW);
        assert_eq!(answers(&mut room), [true], "another device is not concerned");
        room.ask(device("1"), 3, 7, NOW + DAY);
        assert_eq!(answers(&mut room), [true], "a day later");
        room.handle_timeout(NOW + DAY * 2);
        assert!(room.tried.is_empty());
    }

    #[test]
    fn an_account_in_place_of_another_counts_among_those_tried_and_takes_no_place() {
        let mut room = room(Limits { accounts_per_device: 2, instances_per_device: 1, ..Limits::default() }, None);
        room.ask(device("1"), 1, 1, NOW);
        let moving = || Holder::Moving("acme".into(), "1".to_owned());
        for account in [2, 2, 3, 1] {
            room.ask(moving(), account, account, NOW);
        }
        assert_eq!(answers(&mut room), [true, true, true, false, true]);
        room.give_back(device("1"), NOW);
        assert!(room.counts.is_empty());
    }

    #[test]
    fn a_full_table_forgets_the_oldest_device_and_turns_nobody_away() {
        let mut room = room(Limits { accounts_per_device: 1, ..Limits::default() }, None);
        room.ask(device("first"), 1, 1, NOW);
        for number in 0..DEVICES_REMEMBERED_MAX {
            room.ask(device(&number.to_string()), 1, 2, NOW + Duration::from_secs(1));
        }
        assert!(answers(&mut room).iter().all(|granted| *granted));
        assert_eq!((room.tried.len(), room.forgotten.len()), (DEVICES_REMEMBERED_MAX, DEVICES_REMEMBERED_MAX));
        room.ask(device("0"), 2, 3, NOW + Duration::from_secs(1));
        assert_eq!(answers(&mut room), [false], "one that is remembered");
        room.ask(device("first"), 2, 4, NOW + Duration::from_secs(1));
        assert_eq!(answers(&mut room), [true], "the one that was forgotten");
    }

    #[test]
    fn a_device_whose_home_is_elsewhere_is_counted_there() {
        let placement = Placement::new(2, [3, 4]);
        let home = placement.device("acme", "urn:uuid:1");
        let other = ShardId(1 - home.0);
        let policy = Arc::new(Policy::bare(Limits::default()));
        let mut asking = Places::new(other, placement.clone(), Arc::clone(&policy));
        let mut counting = Places::new(home, placement, policy);

        asking.ask(device("urn:uuid:1"), 1, 7, NOW);
        let Some(Event::Peer(to, wanted)) = asking.poll_event() else { panic!("nothing was asked") };
        assert_eq!(to, home);
        counting.handle_peer(other, wanted, NOW);
        let Some(Event::Peer(back, answer)) = counting.poll_event() else { panic!("nothing was answered") };
        assert_eq!((back, answer.clone()), (other, PeerMessage::PlaceAnswered { ticket: 7, wait: None }));
        asking.handle_peer(home, answer, NOW);
        assert_eq!(answers(&mut asking), [true]);
    }
}
