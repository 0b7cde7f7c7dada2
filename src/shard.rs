//! The loop that drives one engine: wait, feed, drain, observe, again.
//!
//! One task a shard, so an engine needs no locks. Within a turn the order is written down: due timers, refusals of its own
//! effects, answers, traffic; each takes at most [`BATCH`], so that none starves another, and after each single input
//! everything the engine decided is carried out. Refuses to know what an input or output means.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::sleep;
use tracing::Instrument;
use zeroize::Zeroize;

use crate::clock::{self, Instant, Now};
use crate::effects::{Effects, Sinks};
use crate::engine::Engine;
use crate::engine::ids::ShardId;
use crate::engine::input::Input;
use crate::engine::tally::{Census, Tally};
use crate::net;
use crate::router::{Inbox, Router};

/// Inputs of one kind in one turn.
const BATCH: usize = 64;
/// Longest sleep. Tokio's timers stand still while a virtual machine is suspended, the boot clock does not: a shard that
/// looks at it this often is never later than this.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How soon an effect is tried again that found another shard's inbox full.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How often the census is taken.
const CENSUS_INTERVAL: Duration = Duration::from_secs(1);
/// What the buffer of outgoing bytes keeps between turns.
const BUFFER_KEPT: usize = 256 * 1024;

/// What a shard has to tell about itself after each turn.
pub struct Observation {
    /// Which one.
    pub shard: ShardId,
    /// What was counted in this turn.
    pub tally: Tally,
    /// What is held, about once a second.
    pub census: Option<Census>,
    /// How late things are: by how much the due timer was missed, or how long the turn kept others waiting.
    pub lag: Duration,
}

/// Receives observations; must not wait.
pub type Observer = Arc<dyn Fn(Observation) + Send + Sync>;

/// What shards work with.
pub struct Wiring {
    /// The way into the shards.
    pub router: Router,
    /// The network side.
    pub net: net::Handle,
    /// Everything else that effects need.
    pub sinks: Arc<Sinks>,
    /// Who publishes.
    pub observer: Observer,
}

/// All running shards; owns their tasks.
pub struct Shards {
    tasks: JoinSet<()>,
    count: usize,
    stop: watch::Sender<bool>,
    drained: watch::Receiver<usize>,
}

impl Shards {
    /// Starts one task for each inbox with the engine of the same place.
    #[must_use]
    pub fn start(engines: Vec<Engine>, inboxes: Vec<Inbox>, wiring: &Wiring) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (drained_sender, drained) = watch::channel(0);
        let drained_sender = Arc::new(drained_sender);
        let mut tasks = JoinSet::new();
        for (engine, inbox) in engines.into_iter().zip(inboxes) {
            let span = tracing::info_span!("shard", number = inbox.shard.0);
            let shard = Shard::new(engine, inbox, wiring, Arc::clone(&drained_sender));
            tasks.spawn(shard.run(stopping.clone()).instrument(span));
        }
        Self { count: tasks.len(), tasks, stop, drained }
    }

    /// Waits until every engine has said that it is drained, or all shards are gone.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut drained, count) = (self.drained.clone(), self.count);
        async move {
            let _ = drained.wait_for(|drained| *drained >= count).await;
        }
    }

    /// Waits until a shard ends although nobody stopped it: a bug of ours.
    pub async fn failed(&mut self) -> Option<JoinError> {
        self.tasks.join_next().await.and_then(Result::err)
    }

    /// Stops all and waits for them.
    ///
    /// # Errors
    /// A shard panicked.
    pub async fn stop(mut self) -> Result<(), JoinError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// One shard's loop.
struct Shard {
    /// When the engine was last asked what is due.
    asked: Instant,
    engine: Engine,
    effects: Effects,
    inbox: Inbox,
    observer: Observer,
    drained: Arc<watch::Sender<usize>>,
    /// Refusals of effects, which are inputs like any other.
    refusals: VecDeque<Input>,
    /// What the engine writes into.
    bytes: Vec<u8>,
    census_due: Instant,
}

/// How a wait ended.
enum Woken {
    Stop,
    Timer,
    Answer(Input),
    Traffic(Input),
}

impl Shard {
    fn new(engine: Engine, inbox: Inbox, wiring: &Wiring, drained: Arc<watch::Sender<usize>>) -> Self {
        let (router, net) = (&wiring.router, wiring.net.clone());
        let sinks = Arc::clone(&wiring.sinks);
        Self {
            engine,
            effects: Effects::new(inbox.shard, net, router.answers(), router.replies(), sinks),
            inbox,
            observer: Arc::clone(&wiring.observer),
            drained,
            refusals: VecDeque::new(),
            bytes: Vec::new(),
            census_due: Instant::default(),
            asked: Instant::default(),
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.drain();
        loop {
            let first = match self.wait(&mut stop).await {
                Woken::Stop => return,
                Woken::Timer => None,
                Woken::Answer(input) | Woken::Traffic(input) => Some(input),
            };
            let now = clock::now();
            let late = self.engine.poll_timeout().map_or(Duration::ZERO, |due| now.boot.saturating_since(due));
            let is_full = self.turn(first, now);
            self.observe(late, now.boot);
            if is_full {
                // Other tasks of this thread would wait for as long as there is traffic.
                yield_now().await;
            }
        }
    }

    /// Waits for something to do.
    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Woken {
        let span = self.sleep_span(clock::now().boot);
        if *stop.borrow() {
            return Woken::Stop;
        }
        if span.is_zero() {
            return Woken::Timer;
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Woken::Stop,
            Some(input) = self.inbox.answers.recv() => Woken::Answer(input),
            Some(input) = self.inbox.traffic.recv() => Woken::Traffic(input),
            () = sleep(span) => Woken::Timer,
        }
    }

    fn sleep_span(&self, now: Instant) -> Duration {
        if !self.refusals.is_empty() {
            return Duration::ZERO;
        }
        let longest = if self.effects.holds_back() { RETRY_PAUSE } else { SLEEP_MAX };
        self.engine.poll_timeout().map_or(longest, |due| due.saturating_since(now).min(longest))
    }

    /// One turn; `true` if it left work behind.
    fn turn(&mut self, first: Option<Input>, now: Now) -> bool {
        // Once a second in any case: a lease also ends by the wall clock, which no deadline knows.
        let due = self.engine.poll_timeout().is_some_and(|due| due <= now.boot);
        if due || now.boot.saturating_since(self.asked) >= SLEEP_MAX {
            self.asked = now.boot;
            self.engine.handle_timeout(now);
            self.drain();
        }
        for _ in 0..BATCH {
            let Some(input) = self.refusals.pop_front() else { break };
            self.feed(input, now);
        }
        if let Some(input) = first {
            self.feed(input, now);
        }
        let (mut answers, mut traffic) = (0, 0);
        while answers < BATCH
            && let Ok(input) = self.inbox.answers.try_recv()
        {
            self.feed(input, now);
            answers += 1;
        }
        while traffic < BATCH
            && let Ok(input) = self.inbox.traffic.try_recv()
        {
            self.feed(input, now);
            traffic += 1;
        }
        self.effects.retry();
        answers == BATCH || traffic == BATCH
    }

    fn feed(&mut self, input: Input, now: Now) {
        self.engine.handle_input(input, now);
        self.drain();
    }

    /// Carries out everything the engine decided.
    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output(&mut self.bytes) {
            self.refusals.extend(self.effects.run(output, &self.bytes));
        }
        // Only what was written: overwriting all that is kept would cost more than most inputs do.
        self.bytes.as_mut_slice().zeroize();
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_KEPT);
        if self.effects.take_drained() {
            self.drained.send_modify(|drained| *drained += 1);
        }
    }

    fn observe(&mut self, late: Duration, began: Instant) {
        let now = clock::now().boot;
        let census = (self.census_due <= now).then(|| self.engine.census());
        if census.is_some() {
            self.census_due = now + CENSUS_INTERVAL;
        }
        let lag = late.max(now.saturating_since(began));
        let tally = self.engine.take_tally();
        (self.observer)(Observation { shard: self.inbox.shard, tally, census, lag });
    }
}

#[cfg(test)]
mod tests;
