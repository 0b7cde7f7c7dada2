//! Pushes: carries out the engine's `Output::Push` at Apple, Google, or our own stand-in.
//!
//! It is its own room because everything here is about the providers' rules: lasting connections, signed tokens, what
//! may be repeated and what must not. Every job gets exactly one outcome, whatever happens to its connection, its task
//! or the process. It does not decide whom to wake, and it never logs a token, a key or a caller.

mod answer;
mod apns;
mod backoff;
mod channel;
mod config;
mod crew;
mod endpoint;
mod fcm;
mod health;
mod jwt;
mod mailbox;
mod oneshot;
mod pace;
pub(crate) mod payload;
pub(crate) mod sealed;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug, debug_span, warn};

use crate::clock::Instant;
use crate::engine::account::TenantId;
use crate::engine::ids::WakeId;
use crate::engine::output::{PushJob, PushOutcome, WakeKind};
use crate::engine::policy::Provider;
use apns::Apns;
use channel::Trail;
use crew::Crew;
use fcm::Fcm;
use health::{Health, Throttle};
use mailbox::Mailbox;

pub(crate) use backoff::Backoff;
pub use payload::Texts;

pub use config::{
    ApnsConfig, ApnsEnvironment, AppConfig, FcmConfig, Observer, ProviderConfig, PushConfigError, PushSettings,
    SandboxConfig, TimeSource,
};

/// Timers stop while a machine is suspended and the boot clock does not, so no sleep is longer than this.
const NAP: Duration = Duration::from_secs(1);

/// One part in so many of the room is kept for calls: a hundred thousand phones told to hand over again must not keep
/// one from ringing.
const CALLS_SHARE: u32 = 4;

/// All push clients, and the tasks of the pushes under way.
pub struct Pusher {
    lanes: HashMap<(TenantId, Provider, String), Served>,
    room: Arc<Semaphore>,
    /// The part of the room that is not kept for calls.
    room_for_others: Arc<Semaphore>,
    queued: u32,
    drain: Duration,
    observer: Option<Observer>,
    time: TimeSource,
    closed: AtomicBool,
    /// Pushes for apps that are not there.
    unconfigured: Mutex<Throttle>,
    /// One task for each push; ends before the clients it uses.
    pushes: Crew,
    /// The tasks that keep connections and tokens.
    keepers: Crew,
}

/// An app that is configured.
#[derive(Clone)]
struct Served {
    lane: Lane,
    texts: Arc<Texts>,
    health: Arc<Health>,
}

#[derive(Clone)]
enum Lane {
    Apns(Arc<Apns>),
    Fcm(Arc<Fcm>),
    Mailbox(Arc<Mailbox>),
}

impl Pusher {
    /// Sets the clients up; nothing is connected before the first push. Apps with the same key share a connection.
    ///
    /// # Errors
    /// The first app whose configuration cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(apps: Vec<AppConfig>, settings: PushSettings) -> Result<Self, PushConfigError> {
        let keepers = Crew::new();
        let mut shared = SharedClients::default();
        let mut lanes = HashMap::new();
        for AppConfig { tenant, app, provider: config, texts } in apps {
            let provider = config.provider();
            let fail = |(member, problem)| PushConfigError {
                tenant: Arc::clone(&tenant),
                app: app.clone(),
                provider,
                member,
                problem,
            };
            let lane = shared.lane(config, &settings, &keepers).map_err(fail)?;
            let key = (Arc::clone(&tenant), provider, app.clone());
            let health = Health::new(Arc::clone(&tenant), provider, app.clone(), Arc::clone(&settings.time));
            if lanes.insert(key, Served { lane, texts, health: Arc::new(health) }).is_some() {
                return Err(fail(("id", "configured twice for this provider".to_owned())));
            }
        }
        let queued = u32::try_from(settings.queued.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Ok(Self {
            lanes,
            room: Arc::new(Semaphore::new(queued as usize)),
            room_for_others: Arc::new(Semaphore::new((queued - queued / CALLS_SHARE) as usize)),
            queued,
            drain: settings.drain,
            observer: settings.observer,
            time: settings.time,
            closed: AtomicBool::new(false),
            unconfigured: Mutex::default(),
            pushes: Crew::new(),
            keepers,
        })
    }

    /// Sends a push and calls `done` with its outcome, once, in any case: before this returns if there is no room, and
    /// from a task otherwise. Never blocks.
    pub fn submit(&self, job: Box<PushJob>, done: impl FnOnce(WakeId, PushOutcome) + Send + 'static) {
        let pending = Pending::new(&job, self.observer.clone(), Arc::clone(&self.time), done);
        // A wake that cannot be sent now is worth nothing later: the caller hears 480 instead of silence.
        if self.closed.load(Ordering::Acquire) {
            return pending.settle(PushOutcome::NotSent);
        }
        let key = (Arc::clone(&job.tenant), job.provider, job.app.clone());
        let Some(Served { lane, texts, health }) = self.lanes.get(&key).cloned() else {
            self.warn_unconfigured(job.provider);
            return pending.settle(PushOutcome::OurFault("the app is not configured".to_owned()));
        };
        let Some(permits) = self.admit(job.kind) else {
            health.note(&PushOutcome::NotSent);
            return pending.settle(PushOutcome::NotSent);
        };
        let time = Arc::clone(&self.time);
        let span = debug_span!("push", provider = job.provider.as_str(), kind = job.kind.as_str());
        let carry = async move {
            let outcome = carry(&lane, &job, &texts, &time).await;
            debug!(?outcome, "push settled");
            health.note(&outcome);
            pending.settle(outcome);
            drop(permits);
        };
        self.pushes.spawn(carry.instrument(span));
    }

    /// Takes no more pushes, lets those under way finish for a while, and closes the connections. Pushes still under way
    /// then are `NotSent`.
    pub async fn shutdown(&self) {
        self.closed.store(true, Ordering::Release);
        // All permits are back when the last push is settled.
        let all_settled = self.room.acquire_many(self.queued);
        drop(timeout(self.drain, all_settled).await);
        self.pushes.stop().await;
        self.keepers.stop().await;
        for served in self.lanes.values() {
            served.lane.close();
        }
    }

    /// What keeps pushes from being sent at present, for whoever asks whether we are well.
    #[must_use]
    pub fn troubles(&self) -> Vec<(Provider, String)> {
        let trouble = |served: &Served| served.lane.trouble().or_else(|| served.health.trouble());
        let mut troubles: Vec<_> =
            self.lanes.iter().filter_map(|((_, provider, _), served)| Some((*provider, trouble(served)?))).collect();
        troubles.sort();
        // Apps that share a client share its troubles.
        troubles.dedup();
        troubles
    }

    fn warn_unconfigured(&self, provider: Provider) {
        let mut throttle = self.unconfigured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = throttle.admit((self.time)().boot) {
            warn!(provider = provider.as_str(), times, "a push is for an app that is not configured");
        }
    }

    fn admit(&self, kind: WakeKind) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let share = match kind {
            WakeKind::Call => None,
            _ => Some(Arc::clone(&self.room_for_others).try_acquire_owned().ok()?),
        };
        let place = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some((place, share))
    }
}

impl Lane {
    fn close(&self) {
        match self {
            Self::Apns(client) => client.close(),
            Self::Fcm(client) => client.close(),
            Self::Mailbox(_) => {}
        }
    }

    fn trouble(&self) -> Option<String> {
        match self {
            Self::Apns(client) => client.trouble(),
            Self::Fcm(client) => client.trouble(),
            Self::Mailbox(_) => None,
        }
    }
}

/// Clients that several apps use together, while they are being set up.
#[derive(Default)]
struct SharedClients {
    /// By team, key, environment and stand-in.
    apns: Vec<(ApnsConfig, Arc<Apns>)>,
    fcm: Vec<(FcmConfig, Arc<Fcm>)>,
}

impl SharedClients {
    fn lane(&mut self, config: ProviderConfig, settings: &PushSettings, keepers: &Crew) -> Result<Lane, config::Fault> {
        match config {
            ProviderConfig::Apns(config) => {
                let same = |known: &&(ApnsConfig, Arc<Apns>)| {
                    let known = &known.0;
                    (&known.team_id, &known.key_id, known.environment)
                        == (&config.team_id, &config.key_id, config.environment)
                        && (&known.endpoint, &known.ca_pem) == (&config.endpoint, &config.ca_pem)
                };
                if let Some((known, client)) = self.apns.iter().find(same) {
                    if known.key_pem != config.key_pem {
                        return Err(("key_file", "differs from that of another app with the same key_id".to_owned()));
                    }
                    return Ok(Lane::Apns(Arc::clone(client)));
                }
                let client = Arc::new(Apns::new(&config, settings, keepers)?);
                self.apns.push((config, Arc::clone(&client)));
                Ok(Lane::Apns(client))
            }
            ProviderConfig::Fcm(config) => {
                let same = |known: &&(FcmConfig, Arc<Fcm>)| {
                    let known = &known.0;
                    known.service_account_json == config.service_account_json
                        && (&known.endpoint, &known.ca_pem) == (&config.endpoint, &config.ca_pem)
                };
                if let Some((_, client)) = self.fcm.iter().find(same) {
                    return Ok(Lane::Fcm(Arc::clone(client)));
                }
                let client = Arc::new(Fcm::new(&config, settings, keepers)?);
                self.fcm.push((config, Arc::clone(&client)));
                Ok(Lane::Fcm(client))
            }
            ProviderConfig::Sandbox(config) => Ok(Lane::Mailbox(Arc::new(Mailbox::new(&config, settings)?))),
        }
    }
}

/// A push that still owes its outcome. Dropped without one, because its task was ended, it says `NotSent`.
struct Pending<F: FnOnce(WakeId, PushOutcome)> {
    wake: WakeId,
    provider: Provider,
    kind: WakeKind,
    since: Instant,
    observer: Option<Observer>,
    time: TimeSource,
    done: Option<F>,
}

impl<F: FnOnce(WakeId, PushOutcome)> Pending<F> {
    fn new(job: &PushJob, observer: Option<Observer>, time: TimeSource, done: F) -> Self {
        let since = time().boot;
        Self { wake: job.wake, provider: job.provider, kind: job.kind, since, observer, time, done: Some(done) }
    }

    fn settle(mut self, outcome: PushOutcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: PushOutcome) {
        let Some(done) = self.done.take() else { return };
        if let Some(observer) = &self.observer {
            let took = (self.time)().boot.saturating_since(self.since);
            observer(self.provider, self.kind, &outcome, took);
        }
        done(self.wake, outcome);
    }
}

impl<F: FnOnce(WakeId, PushOutcome)> Drop for Pending<F> {
    fn drop(&mut self) {
        self.tell(PushOutcome::NotSent);
    }
}

async fn carry(lane: &Lane, job: &PushJob, texts: &Texts, time: &TimeSource) -> PushOutcome {
    if job.deadline <= time().boot {
        return PushOutcome::NotSent;
    }
    let mut trail = Trail::default();
    let settled = tokio::select! {
        outcome = deliver(lane, job, texts, &mut trail) => Some(outcome),
        () = passed(job.deadline, time) => None,
    };
    settled.unwrap_or_else(|| match trail {
        Trail { in_flight: true, .. } => PushOutcome::Theirs("no answer before the deadline".to_owned()),
        Trail { last: Some(why), .. } => PushOutcome::Theirs(why),
        Trail { last: None, .. } => PushOutcome::NotSent,
    })
}

async fn deliver(lane: &Lane, job: &PushJob, texts: &Texts, trail: &mut Trail) -> PushOutcome {
    match lane {
        Lane::Apns(client) => client.deliver(job, texts, trail).await,
        Lane::Fcm(client) => client.deliver(job, texts, trail).await,
        Lane::Mailbox(client) => client.deliver(job, texts, trail).await,
    }
}

async fn passed(deadline: Instant, time: &TimeSource) {
    loop {
        let left = deadline.saturating_since(time().boot);
        if left.is_zero() {
            return;
        }
        sleep(left.min(NAP)).await;
    }
}
