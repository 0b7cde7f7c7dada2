//! Which apps may be pushed to, and with whose keys: what `config` hands over, checked once at start.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::payload::Texts;
use crate::clock::{self, Now};
use crate::engine::account::TenantId;
use crate::engine::limits::APNS_EXPIRY;
use crate::engine::output::{PushOutcome, WakeKind};
use crate::engine::policy::Provider;
use crate::net::Names;

/// An app of a tenant and what reaches it.
pub struct AppConfig {
    /// Whose app.
    pub tenant: TenantId,
    /// Bundle or package name; on APNs the topic.
    pub app: String,
    /// Who carries its pushes, and with which key.
    pub provider: ProviderConfig,
    /// What its users read.
    pub texts: Arc<Texts>,
}

/// A provider with what it demands.
pub enum ProviderConfig {
    /// Apple Push Notification service.
    Apns(ApnsConfig),
    /// Firebase Cloud Messaging.
    Fcm(FcmConfig),
    /// Our own stand-in.
    Sandbox(SandboxConfig),
}

/// Token authentication at APNs.
pub struct ApnsConfig {
    /// The ten characters of the developer team.
    pub team_id: String,
    /// The ten characters of the signing key.
    pub key_id: String,
    /// The `.p8` file: a P-256 key as PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// Which of Apple's two services knows the device tokens.
    pub environment: ApnsEnvironment,
    /// Something that stands in for Apple.
    pub endpoint: Option<String>,
    /// Certificates trusted there, beside the public roots.
    pub ca_pem: Option<String>,
}

/// Apple's two services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ApnsEnvironment {
    /// For apps from the store and TestFlight.
    #[default]
    Production,
    /// For apps run from Xcode.
    Sandbox,
}

impl ApnsEnvironment {
    pub(crate) fn endpoint(self) -> &'static str {
        match self {
            Self::Production => "https://api.push.apple.com",
            Self::Sandbox => "https://api.sandbox.push.apple.com",
        }
    }
}

/// A service account at FCM.
pub struct FcmConfig {
    /// The key file Google hands out.
    pub service_account_json: Zeroizing<String>,
    /// Something that stands in for Google.
    pub endpoint: Option<String>,
    /// Certificates trusted there and at the service account's `token_uri`, beside the public roots.
    pub ca_pem: Option<String>,
}

/// A mailbox that keeps pushes for whoever asks, for trying things.
pub struct SandboxConfig {
    /// Where pushes are posted; `http://` is allowed here alone.
    pub endpoint: String,
    /// Certificates trusted there, beside the public roots.
    pub ca_pem: Option<String>,
}

impl ProviderConfig {
    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            Self::Apns(_) => Provider::Apns,
            Self::Fcm(_) => Provider::Fcm,
            Self::Sandbox(_) => Provider::Sandbox,
        }
    }
}

/// Called once for each push with its outcome and how long it took.
pub type Observer = Arc<dyn Fn(Provider, WakeKind, &PushOutcome, Duration) + Send + Sync>;

/// Reads both clocks; tests put another one in its place.
pub type TimeSource = Arc<dyn Fn() -> Now + Send + Sync>;

/// Pushes under way or waiting at once, unless the operator says otherwise.
const QUEUED_DEFAULT: usize = 10_000;

/// How long a shutdown lets pushes under way finish, unless the caller says otherwise: a provider that answers at all
/// answers within this.
const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// Bounds and hooks of a [`Pusher`](super::Pusher).
pub struct PushSettings {
    /// Pushes under way or waiting at once; above it a push is `NotSent` at once.
    pub queued: usize,
    /// How long a shutdown lets pushes under way finish.
    pub drain: Duration,
    /// Sees every outcome.
    pub observer: Option<Observer>,
    /// The clocks.
    pub time: TimeSource,
    /// Who is asked for the providers' names; by default nobody.
    pub names: Arc<Names>,
    /// How long APNs may keep a call push for a phone that it does not reach at once; nothing: now or never.
    pub apns_expiry: Duration,
}

impl Default for PushSettings {
    fn default() -> Self {
        Self {
            queued: QUEUED_DEFAULT,
            drain: DRAIN_DEFAULT,
            observer: None,
            time: Arc::new(clock::now),
            names: Arc::default(),
            apns_expiry: APNS_EXPIRY,
        }
    }
}

/// Why the push configuration cannot be used. Names the app and the fault, never the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushConfigError {
    /// Whose app.
    pub tenant: TenantId,
    /// The app.
    pub app: String,
    /// The provider.
    pub provider: Provider,
    /// Which key of `[[tenant.app]]` is at fault.
    pub member: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for PushConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, app, provider, member, problem } = self;
        write!(f, "tenant {tenant}, app {app} ({}): {member}: {problem}", provider.as_str())
    }
}

impl std::error::Error for PushConfigError {}

/// A fault of one member, before it is known whose app it concerns.
pub(crate) type Fault = (&'static str, String);
