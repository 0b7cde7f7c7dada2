//! Devices: how many instances each one holds, over all shards.
//!
//! A device's accounts lie in many shards, its count in one: its home shard. A hand-over asks there for a place before it
//! is taken in, and an erasure gives the place back. This room holds counts, no instance.

use std::collections::VecDeque;

use ahash::HashMap;

use super::account::TenantId;
use super::ids::ShardId;
use super::input::PeerMessage;
use super::placement::Placement;

/// What this room asks of the engine.
pub(crate) enum Event {
    /// Tell another shard.
    Peer(ShardId, PeerMessage),
    /// The home shard's answer to a ticket.
    Answered { ticket: u64, granted: bool },
}

/// The room.
pub(crate) struct Devices {
    shard: ShardId,
    placement: Placement,
    most: u32,
    tickets: u64,
    counts: HashMap<(TenantId, String), u32>,
    events: VecDeque<Event>,
}

impl Devices {
    /// Each device may hold `most` instances.
    pub(crate) fn new(shard: ShardId, placement: Placement, most: u32) -> Self {
        Self { shard, placement, most, tickets: 0, counts: HashMap::default(), events: VecDeque::new() }
    }

    /// Asks for a place; `Event::Answered` with the ticket follows.
    pub(crate) fn ask(&mut self, tenant: &TenantId, device: &str) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        let home = self.placement.device(tenant, device);
        let wanted = PeerMessage::PlaceWanted { tenant: tenant.clone(), device: device.to_owned(), ticket };
        self.tell(home, wanted);
        ticket
    }

    /// Gives a place back.
    pub(crate) fn give_back(&mut self, tenant: &TenantId, device: &str) {
        let home = self.placement.device(tenant, device);
        self.tell(home, PeerMessage::PlaceReturned { tenant: tenant.clone(), device: device.to_owned() });
    }

    /// Another shard speaks.
    pub(crate) fn handle_peer(&mut self, from: ShardId, message: PeerMessage) {
        match message {
            PeerMessage::PlaceWanted { tenant, device, ticket } => {
                let count = self.counts.entry((tenant, device)).or_default();
                let granted = *count < self.most;
                *count += u32::from(granted);
                self.tell(from, PeerMessage::PlaceAnswered { ticket, granted });
            }
            PeerMessage::PlaceAnswered { ticket, granted } => {
                self.events.push_back(Event::Answered { ticket, granted });
            }
            PeerMessage::PlaceReturned { tenant, device } => {
                let key = (tenant, device);
                if let Some(count) = self.counts.get_mut(&key) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.counts.remove(&key);
                    }
                }
            }
            // Words of others; the engine never routes them here.
            _ => {}
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.push(("devices", self.counts.len()));
    }

    fn tell(&mut self, to: ShardId, message: PeerMessage) {
        if to == self.shard {
            self.handle_peer(to, message);
        } else {
            self.events.push_back(Event::Peer(to, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(room: &mut Devices) -> Vec<bool> {
        let events = std::iter::from_fn(|| room.poll_event());
        events
            .filter_map(|event| match event {
                Event::Answered { granted, .. } => Some(granted),
                Event::Peer(..) => None,
            })
            .collect()
    }

    #[test]
    fn a_device_gets_as_many_places_as_it_may_and_a_place_given_back_is_free_again() {
        let mut room = Devices::new(ShardId(0), Placement::new(1, [1, 2]), 2);
        let tenant: TenantId = "acme".into();
        for _ in 0..3 {
            room.ask(&tenant, "urn:uuid:1");
        }
        room.ask(&tenant, "urn:uuid:2");
        assert_eq!(answers(&mut room), [true, true, false, true]);

        room.give_back(&tenant, "urn:uuid:1");
        room.ask(&tenant, "urn:uuid:1");
        assert_eq!(answers(&mut room), [true]);
    }

    #[test]
    fn a_device_whose_home_is_elsewhere_is_counted_there() {
        let placement = Placement::new(2, [3, 4]);
        let tenant: TenantId = "acme".into();
        let home = placement.device(&tenant, "urn:uuid:1");
        let other = ShardId(1 - home.0);
        let mut asking = Devices::new(other, placement.clone(), 1);
        let mut counting = Devices::new(home, placement, 1);

        let ticket = asking.ask(&tenant, "urn:uuid:1");
        let Some(Event::Peer(to, wanted)) = asking.poll_event() else { panic!("nothing was asked") };
        assert_eq!(to, home);
        counting.handle_peer(other, wanted);
        let Some(Event::Peer(back, answer)) = counting.poll_event() else { panic!("nothing was answered") };
        assert_eq!((back, answer.clone()), (other, PeerMessage::PlaceAnswered { ticket, granted: true }));
        asking.handle_peer(home, answer);
        assert_eq!(answers(&mut asking), [true]);
    }
}
