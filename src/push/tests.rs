//! The clients against the strict stand-ins, over real TLS and HTTP/2.

mod apns;
mod connection;
mod fcm;
mod health;
mod mailbox;
mod matrix;
mod pusher;
mod sealed_callers;
mod streams;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::*;
use crate::clock::{self, Now, PATIENCE};
use crate::engine::ids::{CallUuid, InstanceId, ShardId};
use crate::engine::input::PushPurpose;
use crate::engine::output::WakeDetail;
use crate::sandbox::apns::{ApnsOptions, ApnsStandIn};
use crate::sandbox::fcm::{FcmOptions, FcmStandIn};

const APP: &str = "com.example.phone";

/// A deadline that is meant to pass: long enough for what must come before it on a busy machine, short enough to wait for.
const SOON: Duration = Duration::from_secs(3);

/// Real clocks, moved ahead by hand.
#[derive(Clone, Default)]
struct Clocks(Arc<AtomicU64>);

impl Clocks {
    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn source(&self) -> TimeSource {
        let ahead = Arc::clone(&self.0);
        Arc::new(move || {
            let (now, ahead) = (clock::now(), Duration::from_secs(ahead.load(Ordering::Relaxed)));
            Now { boot: now.boot + ahead, wall: now.wall + ahead }
        })
    }
}

/// A push with plenty of time, for an app that is configured.
pub(crate) fn job(kind: WakeKind) -> PushJob {
    job_at(clock::now(), kind)
}

fn job_at(Now { boot, wall }: Now, kind: WakeKind) -> PushJob {
    PushJob {
        wake: WakeId(1),
        tenant: Arc::from("acme"),
        provider: Provider::Apns,
        app: APP.to_owned(),
        token: "0a1b".repeat(16).into(),
        purpose: if kind == WakeKind::Call { PushPurpose::Call } else { PushPurpose::Other },
        kind,
        call: Some(CallUuid(Uuid::from_u128(7))),
        instance: InstanceId::mint(ShardId(0), [7; 16]),
        expires_at: wall + Duration::from_secs(45),
        deadline: boot + Duration::from_secs(45),
        attach: "sip:edge.example.net:5061;transport=tls".to_owned(),
        caller: None,
        detail: WakeDetail::None,
    }
}

/// Outcomes as the observer saw them.
type Seen = Arc<Mutex<Vec<(Provider, WakeKind, PushOutcome)>>>;

fn settings(seen: &Seen) -> PushSettings {
    let seen = Arc::clone(seen);
    let observer: Observer = Arc::new(move |provider, kind, outcome, _| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push((provider, kind, outcome.clone()));
    });
    PushSettings { observer: Some(observer), drain: Duration::from_millis(200), ..PushSettings::default() }
}

fn app(provider: ProviderConfig) -> AppConfig {
    AppConfig { tenant: Arc::from("acme"), app: APP.to_owned(), provider, texts: Arc::default() }
}

fn apns_config(stand_in: &ApnsStandIn) -> ApnsConfig {
    let credentials = stand_in.credentials();
    ApnsConfig {
        team_id: credentials.team_id,
        key_id: credentials.key_id,
        key_pem: credentials.key_pem,
        environment: ApnsEnvironment::Production,
        endpoint: Some(stand_in.endpoint()),
        ca_pem: Some(stand_in.ca_pem().to_owned()),
    }
}

fn fcm_config(stand_in: &FcmStandIn) -> FcmConfig {
    FcmConfig {
        service_account_json: stand_in.credentials(),
        endpoint: Some(stand_in.endpoint()),
        ca_pem: Some(stand_in.ca_pem().to_owned()),
    }
}

/// A stand-in for Apple and a pusher that uses it, on one pair of clocks.
struct Apple {
    stand_in: ApnsStandIn,
    pusher: Pusher,
    clocks: Clocks,
    seen: Seen,
}

impl Apple {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(adjust: impl FnOnce(&mut PushSettings)) -> Self {
        let (clocks, seen) = (Clocks::default(), Seen::default());
        let options = ApnsOptions { time: clocks.source(), bundles: vec![APP.to_owned()], ..ApnsOptions::default() };
        let stand_in = ApnsStandIn::start(options).await.expect("a stand-in");
        let mut settings = PushSettings { time: clocks.source(), ..settings(&seen) };
        adjust(&mut settings);
        let apps = vec![app(ProviderConfig::Apns(apns_config(&stand_in)))];
        let pusher = Pusher::new(apps, settings).expect("a valid configuration");
        Self { stand_in, pusher, clocks, seen }
    }

    fn job(&self, kind: WakeKind) -> PushJob {
        job_at(self.clocks.source()(), kind)
    }

    async fn push(&self, kind: WakeKind) -> PushOutcome {
        outcome(&self.pusher, self.job(kind)).await
    }
}

/// A stand-in for Google and a pusher that uses it, on one pair of clocks.
struct Google {
    stand_in: FcmStandIn,
    pusher: Pusher,
    clocks: Clocks,
}

impl Google {
    async fn start() -> Self {
        Self::with(FcmOptions::default()).await
    }

    async fn with(options: FcmOptions) -> Self {
        let clocks = Clocks::default();
        let options = FcmOptions { time: clocks.source(), ..options };
        let stand_in = FcmStandIn::start(options).await.expect("a stand-in");
        let settings = PushSettings { time: clocks.source(), ..settings(&Seen::default()) };
        let apps = vec![app(ProviderConfig::Fcm(fcm_config(&stand_in)))];
        let pusher = Pusher::new(apps, settings).expect("a valid configuration");
        Self { stand_in, pusher, clocks }
    }

    fn job(&self, kind: WakeKind) -> PushJob {
        PushJob { provider: Provider::Fcm, token: "abc:DEF-1_2".into(), ..job_at(self.clocks.source()(), kind) }
    }

    async fn push(&self, kind: WakeKind) -> PushOutcome {
        outcome(&self.pusher, self.job(kind)).await
    }
}

/// Submits a push; its outcome arrives at the receiver, or never if there is none.
fn submit(pusher: &Pusher, job: PushJob) -> oneshot::Receiver<PushOutcome> {
    let (told, outcome) = oneshot::channel();
    let wake = job.wake;
    pusher.submit(Box::new(job), move |settled, outcome| {
        assert_eq!(settled, wake);
        drop(told.send(outcome));
    });
    outcome
}

async fn outcome(pusher: &Pusher, job: PushJob) -> PushOutcome {
    timeout(PATIENCE, submit(pusher, job)).await.expect("an outcome in time").expect("an outcome at all")
}

async fn outcomes(receivers: Vec<oneshot::Receiver<PushOutcome>>) -> Vec<PushOutcome> {
    let mut outcomes = Vec::with_capacity(receivers.len());
    for receiver in receivers {
        let outcome = timeout(PATIENCE, receiver).await.expect("an outcome in time");
        outcomes.push(outcome.expect("an outcome at all"));
    }
    outcomes
}

fn ours(text: &str) -> PushOutcome {
    PushOutcome::OurFault(text.to_owned())
}

fn theirs(text: &str) -> PushOutcome {
    PushOutcome::Theirs(text.to_owned())
}

fn unavailable(why: &str) -> PushOutcome {
    PushOutcome::Unavailable { why: why.to_owned(), after: None }
}
