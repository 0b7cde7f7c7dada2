//! Destinations: how fast, and whether at all, REGISTERs may go to one trunk address.
//!
//! What must be global about a destination (pacing, proof that it ever answered, failure state) lives in its home shard;
//! every shard, the home one included, asks it for permits and reports what came of them. So one probe serves a hundred
//! thousand bindings. This room sends no REGISTER and knows no account.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::{HashMap, HashSet};

use super::ids::{BindingId, ShardId};
use super::input::{PeerMessage, PermitOutcome};
use super::output::DestinationKey;
use super::placement::Placement;
use super::random::Random;
use super::schedule::{BACKOFF_MAX, Schedule, backoff};
use crate::clock::Instant;

/// Exchanges under way at a destination that never answered: it may be somebody's victim.
const UNPROVEN_OUTSTANDING_MAX: u32 = 3;
/// After this long without use a destination is forgotten; it then has to prove itself again.
const IDLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// One that never answered is forgotten sooner: whoever names many of them must not fill the table.
const IDLE_UNPROVEN_MAX: Duration = Duration::from_secs(3600);

/// Destinations one shard is the home of. Above it the one that would be forgotten first goes, of those that never answered
/// and that nobody uses; whatever is in use is bounded by the bindings that use it.
const HOMES_MAX: usize = 65_536;

/// What this room asks of the engine.
pub(crate) enum Event {
    /// Tell another shard.
    Peer(ShardId, PeerMessage),
    /// The binding may send one REGISTER exchange there.
    Permit { destination: DestinationKey, binding: BindingId, proven: bool },
}

/// The room.
pub(crate) struct Destinations {
    shard: ShardId,
    placement: Placement,
    rate: u32,
    homes: HashMap<DestinationKey, Home>,
    /// Those that never answered and that nobody uses, by when they are forgotten.
    idle_unproven: Schedule<DestinationKey>,
    waiting: HashMap<DestinationKey, Queue>,
    schedule: Schedule<DestinationKey>,
    events: VecDeque<Event>,
}

/// The bindings of this shard that wait for a permit.
#[derive(Default)]
struct Queue {
    bindings: VecDeque<BindingId>,
    /// Those among them that are passed over: searching the line for each would take long when all leave at once.
    withdrawn: HashSet<BindingId>,
    asked: u32,
    /// The destination was silent when a permit was last asked for.
    withheld: bool,
}

/// A destination whose home is here.
#[derive(Default)]
struct Home {
    proven: bool,
    wanted: VecDeque<(ShardId, u32)>,
    outstanding: u32,
    /// When the next permit would be due if they went out evenly (the virtual scheduling algorithm of ITU-T I.371).
    paced: Instant,
    down: Option<Down>,
}

struct Down {
    until: Instant,
    step: u32,
    probing: bool,
    /// It did not answer; else it asked for the pause itself.
    silent: bool,
}

impl Destinations {
    pub(crate) fn new(shard: ShardId, placement: Placement, rate: u32) -> Self {
        Self {
            shard,
            placement,
            rate: rate.max(1),
            homes: HashMap::default(),
            idle_unproven: Schedule::default(),
            waiting: HashMap::default(),
            schedule: Schedule::default(),
            events: VecDeque::new(),
        }
    }

    /// A binding wants to send a REGISTER exchange; `Event::Permit` follows when it may.
    pub(crate) fn want(&mut self, destination: DestinationKey, binding: BindingId, random: &mut Random, now: Instant) {
        let queue = self.waiting.entry(destination).or_default();
        queue.withdrawn.remove(&binding);
        queue.bindings.push_back(binding);
        queue.asked += 1;
        self.tell_home(destination, PeerMessage::PermitsWanted { destination, count: 1 }, random, now);
    }

    /// The binding does not want it any more. Its permit, when it comes, is given back.
    pub(crate) fn withdraw(&mut self, destination: DestinationKey, binding: BindingId) {
        if let Some(queue) = self.waiting.get_mut(&destination) {
            queue.withdrawn.insert(binding);
        }
    }

    /// What came of a permit.
    pub(crate) fn report(
        &mut self,
        destination: DestinationKey,
        outcome: PermitOutcome,
        random: &mut Random,
        now: Instant,
    ) {
        self.tell_home(destination, PeerMessage::PermitUsed { destination, outcome }, random, now);
    }

    /// Another shard speaks.
    pub(crate) fn handle_peer(&mut self, from: ShardId, message: &PeerMessage, random: &mut Random, now: Instant) {
        match *message {
            PeerMessage::PermitsWanted { destination, count } => {
                self.home(destination).wanted.push_back((from, count));
                self.grant(destination, random, now);
                if self.homes.get(&destination).is_some_and(|home| home.is_silent(now)) {
                    self.tell(from, PeerMessage::PermitsWithheld(destination), random, now);
                }
            }
            PeerMessage::PermitUsed { destination, outcome } => {
                self.home(destination).settle(outcome, random, now);
                self.grant(destination, random, now);
            }
            PeerMessage::PermitsGranted { destination, count, proven } => {
                self.hand_out(destination, count, proven, random, now);
            }
            PeerMessage::PermitsWithheld(destination) => {
                if let Some(queue) = self.waiting.get_mut(&destination) {
                    queue.withheld = true;
                }
            }
            // Words of others; the engine never routes them here.
            _ => {}
        }
    }

    /// Hands out permits that are due.
    pub(crate) fn handle_timeout(&mut self, random: &mut Random, now: Instant) {
        while let Some(destination) = self.schedule.pop_due(now) {
            if self.homes.get(&destination).is_some_and(|home| home.is_forgettable(now)) {
                self.homes.remove(&destination);
                self.idle_unproven.remove(destination);
            } else {
                self.grant(destination, random, now);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// Whether those that wait for a permit wait for a destination that says nothing, rather than for their turn.
    pub(crate) fn is_withheld(&self, destination: &DestinationKey) -> bool {
        self.waiting.get(destination).is_some_and(|queue| queue.withheld)
    }

    /// How full each table is.
    pub(crate) fn tables(&self, out: &mut Vec<(&'static str, usize)>) {
        let outstanding: u32 = self.homes.values().map(|home| home.outstanding).sum();
        out.extend([
            ("destinations", self.homes.len()),
            ("destinations.waiting", self.waiting.len()),
            ("destinations.outstanding", usize::try_from(outstanding).unwrap_or(usize::MAX)),
        ]);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn hand_out(&mut self, destination: DestinationKey, count: u32, proven: bool, random: &mut Random, now: Instant) {
        let mut unused = 0;
        if let Some(queue) = self.waiting.get_mut(&destination) {
            queue.withheld = false;
            for _ in 0..count {
                queue.asked = queue.asked.saturating_sub(1);
                match queue.pop() {
                    Some(binding) => self.events.push_back(Event::Permit { destination, binding, proven }),
                    None => unused += 1,
                }
            }
            if queue.asked == 0 && queue.bindings.is_empty() {
                self.waiting.remove(&destination);
            }
        }
        for _ in 0..unused {
            self.report(destination, PermitOutcome::Unused, random, now);
        }
    }

    fn tell_home(&mut self, destination: DestinationKey, message: PeerMessage, random: &mut Random, now: Instant) {
        let home = self.placement.destination(&destination);
        self.tell(home, message, random, now);
    }

    fn tell(&mut self, to: ShardId, message: PeerMessage, random: &mut Random, now: Instant) {
        if to == self.shard {
            self.handle_peer(to, &message, random, now);
        } else {
            self.events.push_back(Event::Peer(to, message));
        }
    }

    /// What is known of a destination; where that is nothing, there is room for it.
    fn home(&mut self, destination: DestinationKey) -> &mut Home {
        if self.homes.len() >= HOMES_MAX
            && !self.homes.contains_key(&destination)
            && let Some(stale) = self.idle_unproven.pop_first()
        {
            self.homes.remove(&stale);
            self.schedule.remove(stale);
        }
        self.homes.entry(destination).or_default()
    }

    /// Grants what may go now, and schedules the next look.
    fn grant(&mut self, destination: DestinationKey, random: &mut Random, now: Instant) {
        let Some(home) = self.homes.get_mut(&destination) else { return };
        let mut granted: Vec<(ShardId, u32)> = Vec::new();
        let look = loop {
            let Some(&(shard, _)) = home.wanted.front() else { break home.idle_look(now) };
            match home.permit(self.rate, now) {
                Ok(()) => {
                    home.pop_wanted();
                    match granted.last_mut() {
                        Some((last, count)) if *last == shard => *count += 1,
                        _ => granted.push((shard, 1)),
                    }
                }
                Err(look) => break look,
            }
        };
        let proven = home.proven;
        self.idle_unproven.set(destination, look.filter(|_| !proven && home.is_idle()));
        self.schedule.set(destination, look);
        for (shard, count) in granted {
            self.tell(shard, PeerMessage::PermitsGranted { destination, count, proven }, random, now);
        }
    }
}

impl Queue {
    fn pop(&mut self) -> Option<BindingId> {
        loop {
            let binding = self.bindings.pop_front()?;
            if !self.withdrawn.remove(&binding) {
                return Some(binding);
            }
        }
    }
}

impl Home {
    /// Takes one permit, or tells when to look again (`None`: when an outcome comes).
    fn permit(&mut self, rate: u32, now: Instant) -> Result<(), Option<Instant>> {
        if let Some(down) = &mut self.down {
            if now < down.until {
                return Err(Some(down.until));
            }
            if down.probing {
                return Err(None);
            }
            down.probing = true;
        } else if !self.proven && self.outstanding >= UNPROVEN_OUTSTANDING_MAX {
            return Err(None);
        }
        let burst = Duration::from_secs(1);
        let interval = burst / rate;
        let due = self.paced.max(now);
        if due > now + burst {
            if let Some(down) = &mut self.down {
                down.probing = false;
            }
            return Err(Some(Instant::from_nanos(due.as_nanos().saturating_sub(nanos(burst)))));
        }
        self.paced = due + interval;
        self.outstanding += 1;
        Ok(())
    }

    fn pop_wanted(&mut self) {
        if let Some((_, count)) = self.wanted.front_mut() {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.wanted.pop_front();
            }
        }
    }

    fn settle(&mut self, outcome: PermitOutcome, random: &mut Random, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match outcome {
            PermitOutcome::Answered => {
                self.proven = true;
                self.down = None;
            }
            PermitOutcome::RetryAfter(span) => {
                self.proven = true;
                let span = span.min(BACKOFF_MAX);
                self.down = Some(Down { until: now + span, step: 0, probing: false, silent: false });
            }
            PermitOutcome::Silent => {
                let step = match &self.down {
                    Some(down) if down.probing => down.step + 1,
                    Some(_) => return,
                    None => 0,
                };
                self.down = Some(Down { until: now + backoff(step, random), step, probing: false, silent: true });
            }
            PermitOutcome::Unused => {
                if let Some(down) = &mut self.down {
                    down.probing = false;
                }
            }
        }
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.down.as_ref().is_some_and(|down| down.silent && now < down.until)
    }

    fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.outstanding == 0
    }

    /// Nobody wants anything of it, and nothing keeps anyone away any more.
    fn is_forgettable(&self, now: Instant) -> bool {
        self.is_idle() && self.down.as_ref().is_none_or(|down| down.until <= now)
    }

    fn idle_look(&self, now: Instant) -> Option<Instant> {
        let from = self.down.as_ref().map_or(now, |down| down.until.max(now));
        self.is_idle().then(|| from + if self.proven { IDLE_MAX } else { IDLE_UNPROVEN_MAX })
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Transport;

    fn room(rate: u32) -> (Destinations, Random, DestinationKey) {
        let placement = Placement::new(1, [1, 2]);
        let key = DestinationKey {
            transport: Transport::Udp,
            address: "198.51.100.7:5060".parse().expect("a socket address"),
        };
        (Destinations::new(ShardId(0), placement, rate), Random::new([7; 32]), key)
    }

    fn binding(number: u8) -> BindingId {
        BindingId(number.into())
    }

    fn permits(room: &mut Destinations) -> usize {
        std::iter::from_fn(|| room.poll_event()).filter(|event| matches!(event, Event::Permit { .. })).count()
    }

    #[test]
    fn a_destination_that_never_answered_gets_few_exchanges_at_once() {
        let (mut room, mut random, key) = room(50);
        let now = Instant::from_nanos(1);
        for number in 0..20 {
            room.want(key, binding(number), &mut random, now);
        }
        assert_eq!(permits(&mut room), UNPROVEN_OUTSTANDING_MAX as usize);
    }

    #[test]
    fn a_dead_destination_is_probed_by_one_exchange_and_its_answer_frees_all() {
        let (mut room, mut random, key) = room(50);
        let mut now = Instant::from_nanos(1);
        room.want(key, binding(0), &mut random, now);
        assert_eq!(permits(&mut room), 1);
        room.report(key, PermitOutcome::Answered, &mut random, now);
        room.want(key, binding(0), &mut random, now);
        assert_eq!(permits(&mut room), 1);
        room.report(key, PermitOutcome::Silent, &mut random, now);
        for number in 0..10 {
            room.want(key, binding(number), &mut random, now);
        }
        assert_eq!(permits(&mut room), 0, "the destination is down");

        now = room.poll_timeout().expect("a probe is due");
        room.handle_timeout(&mut random, now);
        assert_eq!(permits(&mut room), 1, "one probe");

        room.report(key, PermitOutcome::Answered, &mut random, now);
        assert_eq!(permits(&mut room), 9);
    }

    #[test]
    fn a_full_table_forgets_who_never_answered_and_is_not_used() {
        let (mut room, mut random, proven) = room(50);
        let now = Instant::from_nanos(1);
        let other = |number: usize| {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(number).expect("few"));
            DestinationKey { transport: Transport::Udp, address: (address, 5060).into() }
        };
        room.want(proven, binding(0), &mut random, now);
        room.report(proven, PermitOutcome::Answered, &mut random, now);
        room.want(other(0), binding(0), &mut random, now);
        for number in 1..HOMES_MAX + 10 {
            room.want(other(number), binding(0), &mut random, now);
            room.report(other(number), PermitOutcome::Unused, &mut random, now);
        }
        assert_eq!(room.homes.len(), HOMES_MAX);
        assert!(room.homes.contains_key(&proven) && room.homes.contains_key(&other(0)), "proven, in use");
        assert!(!room.homes.contains_key(&other(1)) && room.homes.contains_key(&other(HOMES_MAX)));
        assert_eq!((room.schedule.next().is_some(), room.idle_unproven.has(other(1))), (true, false));
    }

    #[test]
    fn permits_go_out_at_the_rate_once_the_burst_is_used() {
        let (mut room, mut random, key) = room(10);
        let mut now = Instant::from_nanos(1);
        room.want(key, binding(0), &mut random, now);
        permits(&mut room);
        room.report(key, PermitOutcome::Answered, &mut random, now);
        for number in 0..60 {
            room.want(key, binding(number), &mut random, now);
        }
        let mut granted = permits(&mut room);
        assert!(granted <= 11, "{granted} at once");
        let start = now;
        while granted < 60 {
            now = room.poll_timeout().expect("more are due");
            room.handle_timeout(&mut random, now);
            granted += permits(&mut room);
        }
        let took = now.saturating_since(start);
        assert!(took >= Duration::from_millis(4800), "{took:?}");
    }

    #[test]
    fn a_withdrawn_want_gives_its_permit_back() {
        let (mut room, mut random, key) = room(50);
        let now = Instant::from_nanos(1);
        for number in 0..4 {
            room.want(key, binding(number), &mut random, now);
        }
        permits(&mut room);
        room.withdraw(key, binding(3));
        room.report(key, PermitOutcome::Answered, &mut random, now);
        assert_eq!(permits(&mut room), 0);
        assert_eq!(room.homes[&key].outstanding, 2);
    }

    #[test]
    fn a_withdrawn_want_is_passed_over_and_a_new_one_is_not() {
        let (mut room, mut random, key) = room(50);
        let now = Instant::from_nanos(1);
        for number in 0..5 {
            room.want(key, binding(number), &mut random, now);
        }
        permits(&mut room);
        // The permit is out already, and 3 and 4 wait: 0 is in no line any more.
        room.withdraw(key, binding(0));
        room.withdraw(key, binding(3));
        room.want(key, binding(0), &mut random, now);
        room.report(key, PermitOutcome::Answered, &mut random, now);

        let permitted: Vec<BindingId> = std::iter::from_fn(|| room.poll_event())
            .filter_map(|event| match event {
                Event::Permit { binding, .. } => Some(binding),
                Event::Peer(..) => None,
            })
            .collect();
        assert_eq!(permitted, [binding(4), binding(0)]);
    }
}
