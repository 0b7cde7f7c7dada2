//! What a configuration means. A value of these types has been checked; nothing here is checked again.

mod operators;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use operators::{OPS_LISTEN, Ops, OpsListen};

use super::files::TlsFiles;
use super::report::Mistake;
use crate::engine::account::TenantId;
use crate::engine::edge_registrar::EdgeRegistrar;
use crate::engine::input::Mode;
use crate::engine::limits::Limits;
use crate::engine::output::WakeKind;
use crate::engine::policy::{AppPolicy, CallerInPush, Listener, Policy, Provider, RegistrarPolicy, TenantPolicy};
use crate::sip::{StatusCode, Transport};

/// Everything the operator decided.
#[derive(Debug)]
pub struct Settings {
    /// The file it was read from; empty where it was built in.
    pub file: PathBuf,
    /// HTTPS for devices.
    pub api: Api,
    /// SIP, towards devices and registrars.
    pub sip: Sip,
    /// Which registrars may be registered at.
    pub registrars: Registrars,
    /// How long instances are held.
    pub lease: Lease,
    /// What happens to a call.
    pub calls: Calls,
    /// What happens to a text message.
    pub messages: Messages,
    /// What happens at the end of an instance.
    pub erasure: Erasure,
    /// The log of records and receipts.
    pub audit: Audit,
    /// How the process ends.
    pub drain: Drain,
    /// Where secrets lie.
    pub vault: Vault,
    /// What the process may do.
    pub process: Process,
    /// Metrics and health.
    pub ops: Ops,
    /// What is logged, and how.
    pub log: Log,
    /// All bounds.
    pub limits: Limits,
    /// Whose apps may use us. At least one.
    pub tenants: Vec<Tenant>,
    /// What works and is worth a second look, for the operator at start.
    pub warnings: Vec<Mistake>,
}

/// Section `[api]`.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where HTTPS is served. At least one.
    pub listen: Vec<SocketAddr>,
    /// The certificate; `None`: self-signed.
    pub tls: Option<TlsFiles>,
    /// How long a hand-over waits for the registrar's verdict.
    pub register_wait: Duration,
}

/// Section `[sip]`.
#[derive(Clone, Debug)]
pub struct Sip {
    /// Realm of the edge and host part of attach addresses, lower case.
    pub domain: String,
    /// The certificate of TLS listeners; `None`: self-signed, if there is one.
    pub tls: Option<TlsFiles>,
    /// The listeners as written: a UDP listener opens TCP on the same port too. At least one.
    pub listen: Vec<SipListener>,
}

/// One `[[sip.listen]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipListener {
    /// `Udp`, `Tcp` or `Tls`.
    pub transport: Transport,
    /// Where to bind.
    pub address: SocketAddr,
    /// `host:port` as the world sees us; `None`: the bound address, which then is a specific one.
    pub advertise: Option<String>,
}

/// Section `[registrars]`.
#[derive(Clone, Debug)]
pub struct Registrars {
    /// What the engine enforces.
    pub policy: RegistrarPolicy,
    /// Certificates (PEM) trusted for TLS trunks beside the public roots.
    pub ca_pem: Option<String>,
}

/// Section `[lease]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Lease when the app asks for none.
    pub default: Duration,
    /// Longest lease an app may ask for.
    pub maximum: Duration,
}

/// Section `[calls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// How long an INVITE is held.
    pub hold: Duration,
    /// How long an attached device may stay silent before it is woken as well.
    pub silence: Duration,
    /// Our own provisional answer.
    pub early_response: Option<StatusCode>,
    /// How long APNs may keep a call push for a phone that it does not reach at once; nothing: now or never.
    pub apns_expiry: Duration,
}

/// Section `[messages]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// How long a text message waits for its device.
    pub keep: Duration,
}

/// Section `[erasure]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// How long an un-REGISTER may take.
    pub grace: Duration,
}

/// Section `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The log's file. `None`: in memory only, which no configuration file can ask for.
    pub path: Option<PathBuf>,
    /// The key that signs receipts (PEM, Ed25519); `None`: made at start, beside the log.
    pub signing_key: Option<PathBuf>,
    /// How long an answer waits for the record to be synced.
    pub sync_wait: Duration,
    /// How many records the log's file has, at least, before the log goes on in a new one.
    pub segment_records: u64,
}

/// Section `[drain]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long held calls may finish.
    pub calls: Duration,
    /// When the process is gone, whatever is left.
    pub deadline: Duration,
}

/// Section `[vault]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    /// Whether we start where the kernel offers no secret memory.
    pub allow_plain_memory: bool,
    /// For a search of the memory that must find something: a plain copy of every password is kept.
    pub keep_a_copy: bool,
}

/// Section `[process]`: what is left open for debuggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Whether our own user may read our memory, attach a debugger, and get core files.
    pub dumpable: bool,
    /// Whether only the files we need can be opened.
    pub landlock: bool,
    /// Whether only the system calls we need can be made.
    pub seccomp: bool,
    /// Whether a client may ask for a fault of ours (header `Reveille-Fault`).
    pub debug_faults: bool,
}

/// Section `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// What is left out.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The least that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// We cannot go on.
    Error,
    /// Worth a look at three in the morning.
    Warn,
    /// What a user or operator would notice.
    #[default]
    Info,
    /// Small changes of state.
    Debug,
    /// Every message.
    Trace,
}

/// One `[[tenant]]`.
#[derive(Debug)]
pub struct Tenant {
    /// Its name, and the `iss` of its JWTs.
    pub id: TenantId,
    /// The SHA-256 of its app keys, at most [`APP_KEYS_MAX`].
    pub app_keys: Vec<AppKeyHash>,
    /// What its backend signs JWTs with.
    pub jwt_key: Option<JwtPublicKey>,
    /// Whether accounts are handed over with a JWT alone. Then there is a `jwt_key`.
    pub jwt_required: bool,
    /// How much a push tells of the caller.
    pub caller_in_push: CallerInPush,
    /// Whether its users' passwords are kept, sealed, for the whole lease.
    pub keep_password: bool,
    /// Whether a push token has to be proven before it is used.
    pub prove_push_token: bool,
    /// The kinds of wake it does not want.
    pub wakes_off: Vec<WakeKind>,
    /// What its users read in pushes, instead of our own words.
    pub texts: Vec<(WakeKind, String)>,
    /// Its apps. At least one.
    pub apps: Vec<App>,
    /// Registrars at which its apps may register through us.
    pub edge_registrars: Vec<EdgeRegistrar>,
    /// What its accounts may be.
    pub accounts: TenantAccounts,
}

/// What a tenant's accounts may be, within what all may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantAccounts {
    /// Host patterns of registrars; empty: those of all.
    pub registrars_allow: Vec<String>,
    /// Registration modes; empty: all.
    pub modes: Vec<Mode>,
    /// The longest lease; never above `lease.maximum`.
    pub lease_maximum: Option<Duration>,
    /// Whether they are registered over TLS alone.
    pub tls_trunks_only: bool,
    /// How many may be held at once.
    pub instances_max: Option<u32>,
}

/// Two app keys of a tenant live at once, so that a new one can be rolled out before the old one dies.
pub const APP_KEYS_MAX: usize = 2;

/// The SHA-256 of an app key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppKeyHash(pub [u8; 32]);

/// The public key of a tenant's backend. It fixes the algorithm of the tenant's JWTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtPublicKey {
    /// What may sign.
    pub algorithm: JwtAlgorithm,
    /// The key (SubjectPublicKeyInfo) in PEM.
    pub pem: String,
}

/// The signatures a JWT may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// One `[[tenant.app]]`.
#[derive(Debug)]
pub struct App {
    /// Bundle or package name.
    pub id: String,
    /// Who carries its pushes, with what is needed for that.
    pub push: PushAccess,
    /// Where pushes go instead of the provider's own host. Always there for `Sandbox`.
    pub endpoint: Option<String>,
    /// Certificates (PEM) trusted for that endpoint, beside the public roots.
    pub ca_pem: Option<String>,
}

/// What a provider asks of us.
#[derive(Debug)]
pub enum PushAccess {
    /// Apple: a token signing key.
    Apns(ApnsAccess),
    /// Google: a service account.
    Fcm(FcmAccess),
    /// Our stand-in: nothing.
    Sandbox,
}

/// A token signing key of Apple's.
pub struct ApnsAccess {
    /// The developer team.
    pub team_id: String,
    /// The key's name.
    pub key_id: String,
    /// The key: PEM (PKCS #8, P-256).
    pub key_pem: Zeroizing<String>,
    /// Which of Apple's hosts.
    pub environment: ApnsEnvironment,
}

/// Which of Apple's hosts carries the pushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApnsEnvironment {
    /// Apps from the App Store and TestFlight.
    #[default]
    Production,
    /// Apps installed by Xcode.
    Sandbox,
}

/// A service account of Google's.
pub struct FcmAccess {
    /// The whole key file, JSON.
    pub service_account_json: Zeroizing<String>,
}

impl fmt::Debug for ApnsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ApnsAccess");
        debug.field("team_id", &self.team_id).field("key_id", &self.key_id).field("environment", &self.environment);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Debug for FcmAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FcmAccess").finish_non_exhaustive()
    }
}

impl PushAccess {
    /// Who carries the pushes.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            Self::Apns(_) => Provider::Apns,
            Self::Fcm(_) => Provider::Fcm,
            Self::Sandbox => Provider::Sandbox,
        }
    }

    /// Whose the app is at the provider, as a phone names it in `pn-param` (RFC 8599): Apple's team, Google's project.
    #[must_use]
    pub fn owner(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Project {
            project_id: String,
        }
        match self {
            Self::Apns(access) => Some(access.team_id.clone()),
            Self::Fcm(access) => {
                let project: Option<Project> = serde_json::from_str(&access.service_account_json).ok();
                project.map(|project| project.project_id)
            }
            Self::Sandbox => None,
        }
    }
}

impl Settings {
    /// What the engine needs of this, once the SIP listeners are bound.
    #[must_use]
    pub fn policy(&self, listeners: Vec<Listener>) -> Policy {
        Policy {
            domain: self.sip.domain.clone(),
            listeners,
            register_wait: self.api.register_wait,
            registrars: self.registrars.policy.clone(),
            lease_default: self.lease.default,
            lease_maximum: self.lease.maximum,
            hold: self.calls.hold,
            silence: self.calls.silence,
            early_response: self.calls.early_response,
            erasure_grace: self.erasure.grace,
            drain_calls: self.drain.calls,
            messages_keep: self.messages.keep,
            tenants: self.tenants.iter().map(Tenant::policy).collect(),
            limits: self.limits.clone(),
        }
    }
}

impl Tenant {
    fn policy(&self) -> TenantPolicy {
        let app = |app: &App| AppPolicy { id: app.id.clone(), provider: app.push.provider(), owner: app.push.owner() };
        TenantPolicy {
            id: Arc::clone(&self.id),
            caller_in_push: self.caller_in_push,
            prove_push_token: self.prove_push_token,
            wakes_off: self.wakes_off.clone(),
            apps: self.apps.iter().map(app).collect(),
            keep_password: self.keep_password,
            edge_registrars: self.edge_registrars.clone(),
            registrars_allow: self.accounts.registrars_allow.clone(),
            modes: self.accounts.modes.clone(),
            lease_maximum: self.accounts.lease_maximum,
            tls_trunks_only: self.accounts.tls_trunks_only,
            instances_max: self.accounts.instances_max,
        }
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self { default: Duration::from_secs(3 * 24 * 3600), maximum: crate::engine::limits::LEASE_CEILING }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self { dumpable: false, landlock: true, seccomp: true, debug_faults: false }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(45),
            silence: Duration::from_millis(500),
            early_response: StatusCode::new(180),
            apns_expiry: crate::engine::limits::APNS_EXPIRY,
        }
    }
}

impl Default for Messages {
    fn default() -> Self {
        Self { keep: Duration::from_secs(24 * 3600) }
    }
}

impl Default for Erasure {
    fn default() -> Self {
        Self { grace: Duration::from_secs(2) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { calls: Duration::from_secs(10), deadline: Duration::from_secs(60) }
    }
}

impl Default for Registrars {
    fn default() -> Self {
        let policy = RegistrarPolicy {
            allow: vec!["*".to_owned()],
            allow_special_ranges: Vec::new(),
            ports: vec![5060, 5061],
            rate: 50,
            rate_max: 1_000,
            drain_rate: 100,
        };
        Self { policy, ca_pem: None }
    }
}
