//! Guesses: how often credentials of an account may be wrong before its registrar is not asked for a while.
//!
//! Whoever has an app key could try passwords at registrars through us. Each hand-over pays for one guess ahead, so that many
//! at once are no way around the bound, and gets it back when its credentials were right or nobody judged them. The account
//! is a keyed hash of tenant, registrar's host and user name: the same person under whatever transport or address of record.
//! It is counted in its home shard. This room knows no account and no credential.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;

use super::ids::ShardId;
use super::input::PeerMessage;
use super::placement::Placement;
use super::schedule::Schedule;
use crate::clock::Instant;

/// Accounts counted at once, for each shard. Above it the one that is free first is forgotten: a flood of made-up accounts
/// makes the bound looser for a while and locks nobody out.
const ACCOUNTS_MAX: usize = 65_536;
const HOUR: Duration = Duration::from_secs(3600);

/// What this room asks of the engine.
pub(crate) enum Event {
    /// Tell a shard, which may be this one.
    Peer(ShardId, PeerMessage),
    /// The home shard's answer to a ticket: granted, or how long to wait.
    Answered { ticket: u64, wait: Option<Duration> },
}

/// The room.
pub(crate) struct Guesses {
    shard: ShardId,
    placement: Placement,
    /// What one wrong guess costs.
    cost: Duration,
    /// When each account has paid for its wrong guesses; in order, since most are never looked at again.
    paid_at: Schedule<u64>,
    /// Accounts that hand-overs of this shard have paid for, by the ticket.
    paid: HashMap<u64, u64>,
    events: VecDeque<Event>,
}

impl Guesses {
    /// Each account may be guessed `per_hour` times an hour.
    pub(crate) fn new(shard: ShardId, placement: Placement, per_hour: u32) -> Self {
        Self {
            shard,
            placement,
            cost: HOUR / per_hour.max(1),
            paid_at: Schedule::default(),
            paid: HashMap::default(),
            events: VecDeque::new(),
        }
    }

    /// Pays for one guess at an account; `Event::Answered` with the ticket follows.
    pub(crate) fn ask(&mut self, account: u64, ticket: u64, now: Instant) {
        self.paid.insert(ticket, account);
        self.tell(self.placement.home(account), PeerMessage::GuessWanted { account, ticket }, now);
    }

    /// What became of a guess that was granted: where it was not wrong, its price is given back.
    pub(crate) fn settle(&mut self, ticket: u64, was_wrong: bool) {
        let Some(account) = self.paid.remove(&ticket) else { return };
        if !was_wrong {
            let home = self.placement.home(account);
            self.events.push_back(Event::Peer(home, PeerMessage::GuessReturned { account }));
        }
    }

    /// Another shard speaks.
    pub(crate) fn handle_peer(&mut self, from: ShardId, message: &PeerMessage, now: Instant) {
        match *message {
            PeerMessage::GuessWanted { account, ticket } => {
                let wait = self.pay(account, now).err();
                self.tell(from, PeerMessage::GuessAnswered { ticket, wait }, now);
            }
            PeerMessage::GuessAnswered { ticket, wait } => {
                if wait.is_some() {
                    self.paid.remove(&ticket);
                }
                self.events.push_back(Event::Answered { ticket, wait });
            }
            PeerMessage::GuessReturned { account } => {
                let Some(paid_at) = self.paid_at.at(account) else { return };
                let back = paid_at.saturating_since(now).saturating_sub(self.cost);
                self.paid_at.set(account, (!back.is_zero()).then(|| now + back));
            }
            // Words of others; the engine never routes them here.
            _ => {}
        }
    }

    /// Forgets what is paid for. Nothing waits for it, so it has no timer of its own.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while self.paid_at.pop_due(now).is_some() {}
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        out.extend([("guesses", self.paid_at.len()), ("guesses.paid", self.paid.len())]);
    }

    /// GCRA: an hour's worth may be owed, no more.
    fn pay(&mut self, account: u64, now: Instant) -> Result<(), Duration> {
        self.handle_timeout(now);
        let owed = self.paid_at.at(account).map_or(Duration::ZERO, |paid_at| paid_at.saturating_since(now)) + self.cost;
        if owed > HOUR {
            return Err(owed.saturating_sub(HOUR));
        }
        if !self.paid_at.has(account) && self.paid_at.len() >= ACCOUNTS_MAX {
            let _ = self.paid_at.pop_first();
        }
        self.paid_at.set(account, Some(now + owed));
        Ok(())
    }

    fn tell(&mut self, to: ShardId, message: PeerMessage, now: Instant) {
        if to == self.shard {
            self.handle_peer(to, &message, now);
        } else {
            self.events.push_back(Event::Peer(to, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(0);

    fn room(per_hour: u32) -> Guesses {
        Guesses::new(ShardId(0), Placement::new(1, [1, 2]), per_hour)
    }

    /// How long a guess has to wait; `None`: not at all.
    fn guess(room: &mut Guesses, account: u64, ticket: u64, now: Instant) -> Option<Duration> {
        room.ask(account, ticket, now);
        match room.poll_event() {
            Some(Event::Answered { ticket: answered, wait }) if answered == ticket => wait,
            _ => panic!("no answer"),
        }
    }

    fn settle(room: &mut Guesses, ticket: u64, was_wrong: bool) {
        room.settle(ticket, was_wrong);
        while let Some(Event::Peer(shard, message)) = room.poll_event() {
            room.handle_peer(shard, &message, NOW);
        }
    }

    #[test]
    fn wrong_guesses_of_an_hour_are_counted_and_age() {
        let mut room = room(3);
        for ticket in 0..3 {
            assert_eq!(guess(&mut room, 1, ticket, NOW), None);
            settle(&mut room, ticket, true);
        }
        assert_eq!(guess(&mut room, 1, 3, NOW), Some(HOUR / 3));
        assert_eq!(guess(&mut room, 2, 4, NOW), None, "another account is not concerned");
        assert_eq!(guess(&mut room, 1, 5, NOW + HOUR / 3), None);
        room.handle_timeout(NOW + HOUR * 2);
        assert_eq!(room.paid_at.len(), 0);
    }

    #[test]
    fn right_guesses_cost_nothing_and_those_under_way_count() {
        let mut room = room(2);
        for ticket in 0..10 {
            assert_eq!(guess(&mut room, 1, ticket, NOW), None);
            settle(&mut room, ticket, false);
        }
        assert_eq!(guess(&mut room, 1, 10, NOW), None);
        assert_eq!(guess(&mut room, 1, 11, NOW), None);
        assert!(guess(&mut room, 1, 12, NOW).is_some(), "two are under way");
        settle(&mut room, 10, false);
        assert_eq!(guess(&mut room, 1, 13, NOW), None);
        // One that was never granted gives nothing back.
        settle(&mut room, 12, false);
        assert!(guess(&mut room, 1, 14, NOW).is_some());
        assert_eq!(room.paid.len(), 2);
    }

    #[test]
    fn a_full_table_forgets_who_is_free_first() {
        let mut room = room(1);
        assert_eq!(guess(&mut room, u64::MAX, 0, NOW), None);
        for account in 0..ACCOUNTS_MAX as u64 {
            assert_eq!(guess(&mut room, account, account, NOW + Duration::from_secs(1)), None);
        }
        assert_eq!(room.paid_at.len(), ACCOUNTS_MAX);
        assert!(guess(&mut room, 0, 1, NOW + Duration::from_secs(1)).is_some());
        assert_eq!(guess(&mut room, u64::MAX, 1, NOW + Duration::from_secs(1)), None);
    }
}
