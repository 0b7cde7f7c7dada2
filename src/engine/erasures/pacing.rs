//! How fast a registrar is asked to forget: many leases may end at once, and no registrar is asked more often for that.
//!
//! What cannot be asked within the grace is asked after the wipe, with a request that was written before it: no secret
//! waits for a slow registrar.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::HashMap;
use bytes::Bytes;

use crate::clock::Instant;
use crate::engine::limits::share;
use crate::engine::output::{DestinationKey, Hop};
use crate::engine::register::Target;
use crate::engine::schedule::Schedule;

/// How many may go at once before they go out evenly: as long as the rate takes for them.
const BURST: Duration = Duration::from_secs(1);
/// What could not go by then does not go at all: the registration lapses by itself, and what names an account is not kept
/// for long.
const PUT_OFF_MAX: Duration = Duration::from_secs(30);
/// Requests that wait in one shard, for all destinations: some 16 MB.
const WAITING_MAX: usize = 16 * 1024;

/// When a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// Soon enough for the credentials to wait for the answer.
    At(Instant),
    /// Too late for that: to be written now and put by.
    AfterWipe(Instant),
    /// Too late for anything.
    Never,
}

/// The lines of all destinations.
pub(super) struct Pacing {
    interval: Duration,
    lines: HashMap<DestinationKey, Line>,
    /// When the first of a line goes, or an empty one is forgotten.
    schedule: Schedule<DestinationKey>,
    waiting: usize,
}

/// One destination.
#[derive(Default)]
struct Line {
    /// When the next request would be due if they went out evenly (the virtual scheduling algorithm of ITU-T I.371).
    paced: Instant,
    /// In the order of their times.
    put_off: VecDeque<(Instant, Hop, Bytes)>,
}

impl Pacing {
    /// At most this shard's share of `rate` requests a second for a destination.
    pub(super) fn new(rate: u32, shards: u16) -> Self {
        let rate = u32::try_from(share(rate, shards)).unwrap_or(u32::MAX);
        let interval = Duration::from_secs(1) / rate;
        Self { interval, lines: HashMap::default(), schedule: Schedule::default(), waiting: 0 }
    }

    /// Takes a turn at a destination.
    pub(super) fn take(&mut self, target: &Target, grace: Duration, now: Instant) -> Turn {
        let key = key(target);
        let line = self.lines.entry(key).or_default();
        let due = line.paced.max(now);
        let wait = due.saturating_since(now + BURST);
        let turn = match wait {
            Duration::ZERO => Turn::Now,
            // Half of the grace is left for the registrar's answer.
            _ if wait <= grace / 2 => Turn::At(now + wait),
            _ if wait <= PUT_OFF_MAX && self.waiting < WAITING_MAX => Turn::AfterWipe(now + wait),
            _ => return Turn::Never,
        };
        line.paced = due + self.interval;
        self.reschedule(key);
        turn
    }

    /// Keeps a request until its turn.
    pub(super) fn put(&mut self, target: Target, at: Instant, request: Bytes) {
        let key = key(&target);
        self.lines.entry(key).or_default().put_off.push_back((at, target.hop, request));
        self.waiting += 1;
        self.reschedule(key);
    }

    /// A request whose turn has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Hop, Bytes)> {
        while let Some(key) = self.schedule.pop_due(now) {
            let Some(line) = self.lines.get_mut(&key) else { continue };
            let first = line.put_off.pop_front_if(|(at, ..)| *at <= now);
            if first.is_none() && line.put_off.is_empty() && line.paced <= now {
                self.lines.remove(&key);
                continue;
            }
            self.reschedule(key);
            if let Some((_, hop, request)) = first {
                self.waiting -= 1;
                return Some((hop, request));
            }
        }
        None
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// Requests that wait for their turn after the wipe.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn reschedule(&mut self, key: DestinationKey) {
        let at = self.lines.get(&key).map(|line| line.put_off.front().map_or(line.paced, |(at, ..)| *at));
        self.schedule.set(key, at);
    }
}

fn key(target: &Target) -> DestinationKey {
    DestinationKey { transport: target.transport, address: target.address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::ListenerId;
    use crate::sip::Transport;

    const GRACE: Duration = Duration::from_secs(2);

    fn target() -> Target {
        let peer = "198.51.100.7:5060".parse().expect("a socket address");
        let hop = Hop::Datagram { listener: ListenerId(0), peer };
        Target { hop, transport: Transport::Udp, listener: ListenerId(0), address: peer }
    }

    #[test]
    fn the_first_go_at_once_the_next_within_the_grace_and_the_rest_after_the_wipe_or_never() {
        let mut pacing = Pacing::new(20, 2);
        let now = Instant::from_nanos(1);
        let turns: Vec<Turn> = (0..1_000).map(|_| pacing.take(&target(), GRACE, now)).collect();

        let count = |test: &dyn Fn(&Turn) -> bool| turns.iter().filter(|turn| test(turn)).count();
        assert_eq!(count(&|turn| *turn == Turn::Now), 11, "a second's worth, and the one that is due");
        assert_eq!(count(&|turn| matches!(turn, Turn::At(at) if *at <= now + GRACE / 2)), 10);
        assert_eq!(count(&|turn| matches!(turn, Turn::AfterWipe(at) if *at <= now + PUT_OFF_MAX)), 290);
        assert_eq!(count(&|turn| *turn == Turn::Never), 1_000 - 311);
        assert!(turns.windows(2).all(|pair| pair[0] != Turn::Never || pair[1] == Turn::Never), "in their order");
    }

    #[test]
    fn what_was_put_off_goes_out_evenly_and_leaves_nothing_behind() {
        let mut pacing = Pacing::new(10, 1);
        let now = Instant::from_nanos(1);
        for number in 0..100_u8 {
            if let Turn::AfterWipe(at) = pacing.take(&target(), GRACE, now) {
                pacing.put(target(), at, Bytes::from(vec![number]));
            }
        }
        let waiting = pacing.waiting();
        let (mut went, mut last) = (Vec::new(), now);
        while let Some(due) = pacing.poll_timeout() {
            assert_eq!(pacing.pop_due(Instant::from_nanos(due.as_nanos() - 1)), None);
            while let Some((_, request)) = pacing.pop_due(due) {
                assert!(went.is_empty() || due.saturating_since(last) >= Duration::from_millis(100));
                last = due;
                went.push(request[0]);
            }
        }
        assert!(waiting > 50 && went.len() == waiting && went.is_sorted());
        assert_eq!((pacing.waiting(), pacing.lines.len()), (0, 0));
    }

    #[test]
    fn only_so_many_wait() {
        let mut pacing = Pacing::new(1_000_000, 1);
        let now = Instant::from_nanos(1);
        let mut put_off = 0;
        for _ in 0..2_100_000 {
            if let Turn::AfterWipe(at) = pacing.take(&target(), Duration::ZERO, now) {
                pacing.put(target(), at, Bytes::new());
                put_off += 1;
            }
        }
        assert_eq!((put_off, pacing.waiting()), (WAITING_MAX, WAITING_MAX));
    }
}
