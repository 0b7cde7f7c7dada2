//! When a stream connection is pinged and when it is closed: logic without IO.
//!
//! Its own room so that every rule is tested with a clock that jumps. Refuses to read bytes; the connection's task tells
//! it what came and asks what is due.

use super::bounds::{MALFORMED_MAX, Timings};
use super::queue::Closing;
use crate::clock::Instant;

/// Which side opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The peer: it has to show soon what it wants.
    ByPeer,
    /// We: the peer owes nothing.
    ByUs,
}

/// The rules of one connection.
pub(super) struct StreamRules<'t> {
    timings: &'t Timings,
    opened: Opened,
    /// The last byte that came, or the opening.
    heard: Instant,
    /// The last whole message that came, or the opening.
    message: Instant,
    opened_at: Instant,
    first_message_came: bool,
    /// Since when a message is under way.
    started: Option<Instant>,
    /// Since when a ping waits for any sign of life.
    pinged: Option<Instant>,
    pong_seen: bool,
    malformed: u8,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// Send a ping.
    Ping,
    /// Close.
    Close(Closing),
}

impl<'t> StreamRules<'t> {
    pub(super) fn new(opened: Opened, timings: &'t Timings, now: Instant) -> Self {
        Self {
            timings,
            opened,
            heard: now,
            message: now,
            opened_at: now,
            first_message_came: false,
            started: None,
            pinged: None,
            pong_seen: false,
            malformed: 0,
        }
    }

    /// Bytes came: any byte is a sign of life.
    pub(super) fn handle_bytes(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A whole message came. `counts`: it says that the peer is worth its connection. A stranger's well-formed request does; its
    /// responses and what is malformed do not, for we asked it nothing.
    pub(super) fn handle_message(&mut self, counts: bool, now: Instant) {
        if counts {
            self.message = now;
            self.first_message_came = true;
        }
        self.started = None;
        self.pinged = None;
    }

    /// A lone CRLF came: the answer to our ping, if there was one.
    pub(super) fn handle_pong(&mut self) {
        if self.pinged.take().is_some() {
            self.pong_seen = true;
        }
    }

    /// All that came is taken; `mid_message` says whether the beginning of another message is left.
    pub(super) fn handle_taken(&mut self, mid_message: bool, now: Instant) {
        if !mid_message {
            self.started = None;
        } else if self.started.is_none() {
            self.started = Some(now);
        }
    }

    /// A malformed message of a stranger's came; the reason to close after too many.
    pub(super) fn handle_malformed(&mut self) -> Option<Closing> {
        self.malformed += 1;
        (self.malformed >= MALFORMED_MAX).then_some(Closing::Malformed)
    }

    /// Says what is due. `proven`: the peer is no stranger.
    pub(super) fn handle_timeout(&mut self, proven: bool, now: Instant) -> Due {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(self.message_deadline()) {
            return Due::Close(Closing::MessageSlow);
        }
        if is_due(self.idle_deadline(proven)) {
            return Due::Close(match self.opened {
                Opened::ByPeer => Closing::StrangerIdle,
                Opened::ByUs => Closing::TrunkIdle,
            });
        }
        if is_due(self.pong_deadline()) {
            return Due::Close(Closing::PongMissing);
        }
        if is_due(Some(self.ping_deadline())) {
            self.pinged = Some(now);
            return Due::Ping;
        }
        Due::Nothing
    }

    /// When `handle_timeout` has something to say, if nothing comes until then.
    pub(super) fn poll_timeout(&self, proven: bool) -> Instant {
        [self.message_deadline(), self.idle_deadline(proven), self.pong_deadline()]
            .into_iter()
            .flatten()
            .fold(self.ping_deadline(), Instant::min)
    }

    fn message_deadline(&self) -> Option<Instant> {
        let first = (self.opened == Opened::ByPeer && !self.first_message_came).then_some(self.message);
        first.or(self.started).map(|since| since + self.timings.message)
    }

    fn idle_deadline(&self, proven: bool) -> Option<Instant> {
        match self.opened {
            Opened::ByPeer if proven => None,
            Opened::ByPeer => {
                Some((self.message + self.timings.stranger_idle).min(self.opened_at + self.timings.stranger))
            }
            Opened::ByUs => Some(self.message + self.timings.trunk_idle),
        }
    }

    fn pong_deadline(&self) -> Option<Instant> {
        let pinged = self.pinged.filter(|_| self.pong_seen)?;
        (self.heard < pinged).then(|| pinged + self.timings.pong)
    }

    fn ping_deadline(&self) -> Instant {
        self.pinged.map_or(self.heard, |pinged| pinged.max(self.heard)) + self.timings.ping
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn after(span: Duration) -> Instant {
        START + span
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Jumps from deadline to deadline until something other than nothing is due.
    fn next_due(rules: &mut StreamRules<'_>, proven: bool) -> (Due, Instant) {
        let now = rules.poll_timeout(proven);
        let due = rules.handle_timeout(proven, now);
        assert_ne!(due, Due::Nothing, "a deadline without anything due would spin");
        (due, now)
    }

    #[test]
    fn a_stranger_must_send_its_first_message_soon_even_if_it_pings() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        rules.handle_bytes(after(secs(4)));
        rules.handle_taken(false, after(secs(4)));
        assert_eq!(next_due(&mut rules, false), (Due::Close(Closing::MessageSlow), after(timings.message)));
    }

    #[test]
    fn a_message_that_dribbles_is_measured_from_its_beginning() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByUs, &timings, START);
        for second in 10..14 {
            rules.handle_bytes(after(secs(second)));
            rules.handle_taken(true, after(secs(second)));
        }
        assert_eq!(next_due(&mut rules, true), (Due::Close(Closing::MessageSlow), after(secs(10) + timings.message)));

        rules.handle_message(true, after(secs(14)));
        rules.handle_taken(true, after(secs(14)));
        assert_eq!(rules.poll_timeout(true), after(secs(14) + timings.message), "the next message has its own time");
    }

    #[test]
    fn a_stranger_leaves_and_a_proven_peer_stays() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        rules.handle_message(true, START);
        assert_eq!(rules.handle_timeout(false, after(timings.stranger_idle)), Due::Close(Closing::StrangerIdle));
        assert_eq!(rules.handle_timeout(true, after(timings.stranger_idle)), Due::Nothing);
    }

    #[test]
    fn what_a_stranger_sends_unasked_does_not_keep_its_connection() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        rules.handle_message(false, after(secs(4)));
        assert_eq!(next_due(&mut rules, false), (Due::Close(Closing::MessageSlow), after(timings.message)));

        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        rules.handle_message(true, after(secs(1)));
        for second in 1..8 {
            rules.handle_message(false, after(secs(4 * second)));
        }
        let due = rules.handle_timeout(false, after(secs(1) + timings.stranger_idle));
        assert_eq!(due, Due::Close(Closing::StrangerIdle));
    }

    #[test]
    fn a_stranger_that_goes_on_asking_leaves_in_the_end() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        for second in 0..128 {
            rules.handle_message(true, after(secs(second)));
            assert!(!matches!(rules.handle_timeout(false, after(secs(second))), Due::Close(_)));
        }
        assert_eq!(rules.handle_timeout(false, after(timings.stranger)), Due::Close(Closing::StrangerIdle));
        assert!(!matches!(rules.handle_timeout(true, after(timings.stranger)), Due::Close(_)));
    }

    #[test]
    fn a_missing_pong_counts_only_where_one_was_seen() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        rules.handle_message(true, START);
        for round in 1..=3 {
            assert_eq!(next_due(&mut rules, true), (Due::Ping, after(timings.ping * round)), "silence is borne");
        }

        let heard = after(timings.ping * 3 + secs(1));
        rules.handle_bytes(heard);
        rules.handle_pong();
        assert_eq!(next_due(&mut rules, true), (Due::Ping, heard + timings.ping));
        let (due, now) = next_due(&mut rules, true);
        assert_eq!((due, now), (Due::Close(Closing::PongMissing), heard + timings.ping + timings.pong));
    }

    #[test]
    fn a_lone_crlf_without_a_ping_is_no_pong() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        rules.handle_message(true, START);
        rules.handle_bytes(START);
        rules.handle_pong();
        assert_eq!(next_due(&mut rules, true).0, Due::Ping);
        assert_eq!(next_due(&mut rules, true).0, Due::Ping, "no pong was ever promised");
    }

    #[test]
    fn the_third_malformed_message_closes() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByPeer, &timings, START);
        let verdicts: Vec<_> = (0..MALFORMED_MAX).map(|_| rules.handle_malformed()).collect();
        assert_eq!(verdicts, [None, None, Some(Closing::Malformed)]);
    }

    #[test]
    fn an_unused_trunk_is_given_up() {
        let timings = Timings::default();
        let mut rules = StreamRules::new(Opened::ByUs, &timings, START);
        let closed = loop {
            if let (Due::Close(closing), now) = next_due(&mut rules, true) {
                break (closing, now);
            }
        };
        assert_eq!(closed, (Closing::TrunkIdle, after(timings.trunk_idle)));
    }
}
