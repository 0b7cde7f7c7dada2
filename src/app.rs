//! The daemon put together: settings in, a running process out.
//!
//! Parses everything first, then binds everything, then serves, and only then has threads; what was started here is stopped here, in the order of
//! `drain`. It decides nothing about calls or instances.

mod notes;
mod open;
mod secrets;
mod stories;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use open::{
    Bound, addresses, net_settings, open_audit, open_pusher, ops_listeners, registered, split_tenants, start_audit,
    unavailable,
};
use secrets::Secrets;

use crate::api::{self, ApiConfig};
use crate::audit_log::{AuditLog, OpenedLog};
use crate::cli::Exit;
use crate::config::{OpsListen, Settings, TlsFiles};
use crate::effects::Sinks;
use crate::engine::ids::ShardId;
use crate::engine::input::Command;
use crate::engine::output::Answer;
use crate::engine::placement::Placement;
use crate::engine::policy::{Listener, Policy};
use crate::engine::{Engine, Start};
use crate::net::{self, Net, ServerTls};
use crate::push::{self, Pusher};
use crate::router::Router;
use crate::shard::{Observation, Shards, Wiring};
use crate::telemetry::{Meters, Readiness};
use crate::{confine, drain, ops, systemd, telemetry};

/// Reasons of `shed_total` besides those of the network side: shards that had no room, audit records that are only
/// counted in the log, and those that are in no log.
const OWN_INCIDENTS: [&str; 3] = ["shard-full", "audit-folded", "audit-lost"];

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something in the configuration that only shows when it is used.
    #[error("{0}")]
    Configuration(String),
    /// Something outside: a port, a disk, the system's generator.
    #[error("{0}")]
    Unavailable(String),
}

/// A running daemon.
pub struct Running {
    /// Where the API is served.
    pub api: Vec<SocketAddr>,
    /// The API's certificate in DER, for clients that have to trust exactly this one.
    pub api_certificate: Option<Vec<u8>>,
    /// The certificate of SIP over TLS in DER, if there is a TLS listener.
    pub sip_certificate: Option<Vec<u8>>,
    /// The SIP listeners, UDP listeners followed by their TCP twins.
    pub sip: Vec<Listener>,
    /// Where metrics and health are served.
    pub ops: Vec<OpsListen>,
    /// The public key that verifies receipts, PEM.
    pub audit_key: String,
    pub(crate) parts: Parts,
}

/// What has to be stopped.
pub(crate) struct Parts {
    pub(crate) router: Router,
    pub(crate) net: Net,
    pub(crate) shards: Shards,
    pub(crate) pusher: Arc<Pusher>,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) readiness: Arc<Readiness>,
    /// Turned true: API and ops end.
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) tasks: Vec<(&'static str, JoinHandle<()>)>,
    pub(crate) deadline: Duration,
    certificates: Certificates,
}

/// The certificates that SIGHUP reads again.
struct Certificates {
    api: (api::Tls, Option<TlsFiles>),
    sip: Option<(ServerTls, TlsFiles)>,
    ops: Option<(ops::Tls, TlsFiles)>,
}

impl api::Ask for Router {
    fn ask(&self, shard: ShardId, command: Command) -> impl Future<Output = Answer> + Send {
        Self::ask(self, shard, command)
    }
}

/// Runs the daemon until it is told to stop. Logging is started already.
#[must_use]
pub fn serve(settings: Settings) -> Exit {
    // Before anything is written.
    if let Err(problem) = systemd::outlive_file_size_limit() {
        error!(%problem, "signals cannot be received");
        return Exit::Unavailable;
    }
    let confinement = open::confinement(&settings);
    let opened = match Opened::new(settings) {
        Ok(opened) => opened,
        Err(problem) => return problem.tell(),
    };
    // Nothing is opened behind this line, and no thread was started before it.
    let confined = confine::apply(&confinement);
    let threads = usize::from(opened.shards);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .thread_name("reveille")
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!(%problem, "no runtime");
            return Exit::Unavailable;
        }
    };
    let code = runtime.block_on(async {
        let signals = match systemd::Signals::new() {
            Ok(signals) => signals,
            Err(problem) => {
                error!(%problem, "signals cannot be received");
                return Exit::Unavailable;
            }
        };
        match opened.run() {
            Ok(running) => {
                for note in confined.notes() {
                    running.parts.readiness.note(note, true);
                }
                running.until_told(signals).await
            }
            Err(problem) => problem.tell(),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// Starts the daemon within a tokio runtime.
///
/// # Errors
/// Anything that cannot be parsed, bound or opened; nothing keeps running then.
pub fn start(settings: Settings) -> Result<Running, StartError> {
    Opened::new(settings)?.run()
}

impl StartError {
    fn tell(self) -> Exit {
        match self {
            Self::Configuration(problem) => {
                error!(problem, "the configuration cannot be used");
                Exit::Configuration
            }
            Self::Unavailable(problem) => {
                error!(problem, "cannot start");
                Exit::Unavailable
            }
        }
    }
}

/// Everything parsed, opened and bound, and nothing running: no thread, no runtime.
struct Opened {
    bound: Bound,
    policy: Arc<Policy>,
    audit: OpenedLog,
    secrets: Secrets,
    tenants: Vec<api::Tenant>,
    apps: Vec<push::AppConfig>,
    api_files: Option<TlsFiles>,
    ops_files: Option<TlsFiles>,
    deadline: Duration,
    debug_faults: bool,
    apns_expiry: Duration,
    /// As many as the process may use cores.
    shards: u16,
}

impl Opened {
    fn new(settings: Settings) -> Result<Self, StartError> {
        let bound = Bound::new(&settings)?;
        let policy = Arc::new(settings.policy(bound.sip.listeners()));
        let audit = open_audit(&settings, &policy)?;
        let secrets = Secrets::new(&settings.vault)?;
        let (tenants, apps) = split_tenants(settings.tenants)?;
        Ok(Self {
            bound,
            policy,
            audit,
            secrets,
            tenants,
            apps,
            api_files: settings.api.tls,
            ops_files: settings.ops.tls,
            deadline: settings.drain.deadline,
            debug_faults: settings.process.debug_faults,
            apns_expiry: settings.calls.apns_expiry,
            shards: shard_count(),
        })
    }

    /// Starts everything within a tokio runtime.
    fn run(self) -> Result<Running, StartError> {
        let Self {
            bound,
            policy,
            audit,
            secrets,
            tenants,
            apps,
            api_files,
            ops_files,
            deadline,
            debug_faults,
            apns_expiry,
            shards,
        } = self;
        let placement = Placement::new(shards, [random_u64()?, random_u64()?]);
        let meters = Arc::new(Meters::new(&incident_names()));
        let readiness = Arc::new(Readiness::new());
        secrets.tell(&meters, &readiness);
        let (stop, stopping) = watch::channel(false);
        let (writable, writable_changes) = watch::channel(true);
        let audit = start_audit(audit, writable)?;
        let pusher = Arc::new(open_pusher(apps, &policy.limits, apns_expiry, Arc::clone(&bound.names), &meters)?);

        let (router, inboxes) = Router::new(placement.clone(), &policy.limits);
        let sip = bound.sip.listeners();
        let certificates = Certificates {
            api: (bound.api_tls.clone(), api_files),
            sip: bound.sip_tls_files,
            ops: bound.ops_access.tls.clone().zip(ops_files),
        };
        let net_settings = net_settings(bound.sip_tls, bound.client_tls, bound.names, &policy.limits);
        let net = Net::start(bound.sip, net_settings, router.clone()).map_err(|error| unavailable("SIP", &error))?;
        let wiring = Wiring {
            router: router.clone(),
            net: net.handle(),
            sinks: Arc::new(sinks(&pusher, &audit)),
            observer: observer(&meters),
        };
        let shards = Shards::start(engines(&placement, &policy, &secrets)?, inboxes, &wiring);

        let api_config = ApiConfig {
            policy: Arc::clone(&policy),
            placement,
            tenants: api::Tenants::new(tenants, policy.domain.clone()),
            notary: audit.notary(),
            key: secrets.key(),
            debug_faults,
        };
        let api = addresses(&bound.api)?;
        let (ops, ops_listeners) = ops_listeners(bound.ops)?;
        let api_task = api::serve(api_config, registered(bound.api)?, router.clone(), &bound.api_tls, &stopping);
        let endpoints = ops::Endpoints {
            meters,
            readiness: Arc::clone(&readiness),
            refresh: Box::new(refresh(net.handle(), router.clone(), Arc::clone(&audit), &pusher, &readiness)),
            stories: stories::ask(router.clone()),
            access: bound.ops_access,
        };
        let ops_task = ops::serve(endpoints, ops_listeners, stopping.clone());
        let audit_watch = watch_audit(router.clone(), Arc::clone(&readiness), writable_changes, stopping);
        let tasks = vec![("api", api_task), ("ops", owned(ops_task)), ("audit watch", owned(audit_watch))];
        readiness.note("process.debug_faults is on: clients can make requests fail on purpose", debug_faults);
        readiness.set_ready(true);
        let api_certificate = bound.api_tls.end_entity().map(|certificate| certificate.to_vec());
        let audit_key = audit.public_key_pem();
        let parts = Parts { router, net, shards, pusher, audit, readiness, stop, tasks, deadline, certificates };
        Ok(Running { api, api_certificate, sip_certificate: bound.sip_certificate, sip, ops, audit_key, parts })
    }
}

/// A task that `drain` awaits by its name.
#[expect(clippy::disallowed_methods, reason = "named and awaited by its owner")]
fn owned(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

impl Running {
    /// Serves until SIGTERM or SIGINT, then drains. SIGHUP reads the certificates again.
    pub(crate) async fn until_told(mut self, mut signals: systemd::Signals) -> Exit {
        for listener in &self.sip {
            info!(transport = listener.transport.as_param(), address = %listener.local, "SIP is served");
        }
        for address in &self.api {
            info!(%address, "the API is served");
        }
        for address in &self.ops {
            info!(%address, "metrics and health are served");
        }
        systemd::notify_ready();
        let watchdog = systemd::Watchdog::start(&self.parts.stop);
        let code = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    systemd::Signal::Reload => self.reload(),
                    systemd::Signal::Stop => break Exit::Success,
                },
                () = self.parts.failed() => break Exit::Bug,
            }
        };
        systemd::notify_stopping();
        // A second signal means: now.
        let drained = tokio::select! {
            drained = drain::drain(self.parts) => drained,
            _ = signals.next_stop() => false,
        };
        watchdog.stop();
        if code == Exit::Success && !drained {
            warn!("the shutdown did not finish everything");
        }
        code
    }

    /// Drains and stops, as on SIGTERM. `false`: something was left at the deadline.
    pub async fn shutdown(self) -> bool {
        drain::drain(self.parts).await
    }

    fn reload(&self) {
        systemd::notify_reloading();
        let Certificates { api, sip, ops } = &self.parts.certificates;
        if let (tls, Some(files)) = api {
            let taken = files
                .load()
                .map_err(|error| error.to_string())
                .and_then(|pem| tls.reload(&pem.certificate, &pem.key).map_err(|error| error.to_string()));
            report_reload("api", taken);
        }
        if let Some((tls, files)) = sip {
            let taken = files.load().map_err(|error| error.to_string()).and_then(|pem| {
                net::server_config(&pem.certificate, &pem.key)
                    .map(|config| tls.replace(config))
                    .map_err(|error| error.to_string())
            });
            report_reload("sip", taken);
        }
        if let Some((tls, files)) = ops {
            let taken = files.load().map_err(|error| error.to_string());
            let taken = taken.and_then(|pem| tls.reload(&pem.certificate, &pem.key).map_err(|error| error.to_string()));
            report_reload("ops", taken);
        }
        systemd::notify_ready();
    }
}

impl Parts {
    /// Waits until a part ends although nobody stopped it: a bug of ours, already told by the panic hook.
    async fn failed(&mut self) {
        let part = tokio::select! {
            _ = self.shards.failed() => "shard",
            _ = self.net.failed() => "net",
        };
        error!(part, "a part of the daemon ended by itself");
    }
}

/// Publishes what other rooms count, when somebody asks.
fn refresh(
    net: net::Handle,
    router: Router,
    audit: Arc<AuditLog>,
    pusher: &Arc<Pusher>,
    readiness: &Arc<Readiness>,
) -> impl Fn(&Meters) + Send + Sync + use<> {
    let (pusher, readiness) = (Arc::clone(pusher), Arc::clone(readiness));
    move |meters| {
        telemetry::forget_old_log_keys();
        meters.publish_audit_backlog(audit.backlog());
        let counters = net.counters();
        let totals = net::Incident::ALL.iter().map(|incident| counters.total(*incident));
        meters.publish_incidents(totals.chain([router.shed(), audit.folded(), audit.lost()]));
        readiness.note("a push provider refuses us or cannot be reached", !pusher.troubles().is_empty());
    }
}

/// Tells the shards and `/readyz` whether the audit log can be written.
async fn watch_audit(
    router: Router,
    readiness: Arc<Readiness>,
    mut writable: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            changed = writable.changed() => if changed.is_err() { break },
            _ = stopping.wait_for(|stop| *stop) => break,
        }
        let works = *writable.borrow_and_update();
        readiness.note("the audit log cannot be written: no hand-overs are taken", !works);
        if works {
            info!("the audit log can be written again");
        } else {
            error!("the audit log cannot be written; no hand-overs are taken until it can");
        }
        router.audit_writable(works).await;
    }
}

fn sinks(pusher: &Arc<Pusher>, audit: &Arc<AuditLog>) -> Sinks {
    let (pusher, audit) = (Arc::clone(pusher), Arc::clone(audit));
    Sinks {
        push: Box::new(move |job, done| pusher.submit(job, move |_, outcome| done(outcome))),
        record: Box::new(move |job, done| {
            audit.submit(job, move |_, recorded| {
                if let Some(done) = done {
                    done(recorded);
                }
            });
        }),
        note: Box::new(|_, note| notes::log(&note)),
    }
}

fn observer(meters: &Arc<Meters>) -> crate::shard::Observer {
    let meters = Arc::clone(meters);
    Arc::new(move |observation: Observation| {
        meters.publish_tally(&observation.tally);
        meters.publish_lag(observation.lag);
        if let Some(census) = observation.census {
            meters.publish_census(observation.shard, &census);
        }
    })
}

fn engines(placement: &Placement, policy: &Arc<Policy>, secrets: &Secrets) -> Result<Vec<Engine>, StartError> {
    (0..placement.shards())
        .map(|shard| {
            let mut seed = [0; 32];
            aws_lc_rs::rand::fill(&mut seed).map_err(|_| no_randomness())?;
            let (shard, vault) = (ShardId(shard), secrets.vault());
            let start = Start { shard, policy: Arc::clone(policy), placement: placement.clone(), seed, vault };
            Ok(Engine::new(start))
        })
        .collect()
}

fn shard_count() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(cores).unwrap_or(u16::MAX)
}

fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| no_randomness())?;
    Ok(u64::from_ne_bytes(bytes))
}

fn no_randomness() -> StartError {
    StartError::Unavailable("the system gives no randomness".to_owned())
}

fn incident_names() -> Vec<&'static str> {
    net::Incident::ALL.iter().map(|incident| incident.as_str()).chain(OWN_INCIDENTS).collect()
}

fn report_reload(which: &'static str, taken: Result<(), String>) {
    match taken {
        Ok(()) => info!(which, "certificate read again"),
        Err(problem) => error!(which, problem, "the new certificate cannot be used; the former one stays"),
    }
}

#[cfg(test)]
mod tests;
