//! Opening what the daemon needs: certificates, sockets, keys, the log. Every fault names the key of the configuration.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::StartError;
use crate::audit_log::{self, AuditLog, OpenedLog};
use crate::config::{self, OpsListen, Settings, TlsFiles};
use crate::confine::{Confinement, Files, directories_of};
use crate::engine::limits::Limits;
use crate::engine::policy::Policy;
use crate::net::{self, ClientTls, Names, ServerTls, Timings};
use crate::push::{self, PushSettings, Pusher};
use crate::systemd;
use crate::telemetry::Meters;
use crate::{api, ops};

/// Every socket and certificate, before anything is served.
pub(super) struct Bound {
    pub(super) api: Vec<TcpListener>,
    pub(super) api_tls: api::Tls,
    pub(super) ops: Vec<ops::Bound>,
    pub(super) ops_access: ops::Access,
    pub(super) sip: net::Plan,
    pub(super) sip_tls: Option<ServerTls>,
    pub(super) sip_certificate: Option<Vec<u8>>,
    pub(super) sip_tls_files: Option<(ServerTls, TlsFiles)>,
    pub(super) client_tls: ClientTls,
    pub(super) names: Arc<Names>,
}

impl Bound {
    pub(super) fn new(settings: &Settings) -> Result<Self, StartError> {
        let api_tls = api_tls(settings)?;
        let ops_access = ops_access(settings)?;
        let (sip_tls, sip_certificate) = sip_tls(settings)?.unzip();
        let files = sip_tls.clone().zip(settings.sip.tls.clone());
        let extra_roots = settings.registrars.ca_pem.as_deref().map(str::as_bytes);
        let client_tls =
            ClientTls::new(extra_roots).map_err(|error| configuration("registrars.tls_ca_file", &error))?;
        let entries: Vec<net::ListenEntry> = settings
            .sip
            .listen
            .iter()
            .map(|listener| net::ListenEntry {
                transport: listener.transport,
                address: listener.address,
                advertise: listener.advertise.clone(),
            })
            .collect();
        Ok(Self {
            api: api::bind(&settings.api.listen).map_err(|error| unavailable("api.listen", &error))?,
            api_tls,
            ops: ops::bind(&settings.ops.listen).map_err(|error| unavailable("ops.listen", &error))?,
            ops_access,
            sip: net::plan_listeners(&entries).map_err(|error| unavailable("sip.listen", &error))?,
            sip_tls,
            sip_certificate,
            sip_tls_files: files,
            client_tls,
            names: Arc::new(Names::from_system()),
        })
    }
}

/// What the daemon gives up once it has opened everything: it reads its certificates again, writes its log, and opens
/// nothing else.
pub(super) fn confinement(settings: &Settings) -> Confinement {
    let certificates = [&settings.api.tls, &settings.sip.tls, &settings.ops.tls].into_iter().flatten();
    let replaced = certificates.flat_map(|files| [&files.certificate, &files.key]);
    let mut read: Vec<PathBuf> = replaced.flat_map(|file| directories_of(file)).collect();
    read.sort();
    read.dedup();
    let write = settings.audit.path.iter().flat_map(|log| directories_of(log)).collect();
    let socket = |place: &OpsListen| match place {
        OpsListen::Unix(path) => path.parent().map(Path::to_owned),
        OpsListen::Tcp(_) => None,
    };
    let remove = settings.ops.listen.iter().filter_map(socket).collect();
    let files = Files { read, write, remove, abstract_sockets: systemd::is_abstract() };
    Confinement { wanted: settings.process, files }
}

/// Where sockets were bound.
pub(super) fn addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, StartError> {
    let addresses: io::Result<_> = listeners.iter().map(TcpListener::local_addr).collect();
    addresses.map_err(|error| unavailable("listeners", &error))
}

/// Registers sockets with the runtime.
pub(super) fn registered(listeners: Vec<TcpListener>) -> Result<Vec<tokio::net::TcpListener>, StartError> {
    let registered: io::Result<_> = listeners.into_iter().map(tokio::net::TcpListener::from_std).collect();
    registered.map_err(|error| unavailable("listeners", &error))
}

fn api_tls(settings: &Settings) -> Result<api::Tls, StartError> {
    match &settings.api.tls {
        Some(files) => {
            let pem = files.load().map_err(|error| configuration("api.tls_certificate", &error))?;
            api::Tls::from_pem(&pem.certificate, &pem.key).map_err(|error| configuration("api.tls_certificate", &error))
        }
        None => api::Tls::self_signed(&api::Tls::self_signed_names(&settings.sip.domain))
            .map_err(|error| configuration("sip.domain", &error)),
    }
}

/// Who may ask at the operators' endpoints.
fn ops_access(settings: &Settings) -> Result<ops::Access, StartError> {
    let serve = |files: &TlsFiles| {
        let pem = files.load().map_err(|error| configuration("ops.tls_certificate", &error))?;
        let tls = ops::Tls::new(&pem.certificate, &pem.key, settings.ops.client_ca_pem.as_deref());
        tls.map_err(|error| configuration("ops", &error))
    };
    let tls = settings.ops.tls.as_ref().map(serve).transpose()?;
    Ok(ops::Access { token_sha256: settings.ops.token_sha256.clone(), tls })
}

/// Where operators may ask, and the listeners that wait for them.
pub(super) fn ops_listeners(bound: Vec<ops::Bound>) -> Result<(Vec<OpsListen>, Vec<ops::Listener>), StartError> {
    let fail = |error: io::Error| unavailable("ops.listen", &error);
    let places = bound.iter().map(ops::Bound::place).collect::<io::Result<_>>().map_err(fail)?;
    let listeners = bound.into_iter().map(ops::Bound::register).collect::<io::Result<_>>().map_err(fail)?;
    Ok((places, listeners))
}

/// What the TLS listeners show: the configuration to serve with, and the certificate alone.
fn sip_tls(settings: &Settings) -> Result<Option<(ServerTls, Vec<u8>)>, StartError> {
    let (certificate, key) = match &settings.sip.tls {
        Some(files) => {
            let pem = files.load().map_err(|error| configuration("sip.tls_certificate", &error))?;
            (pem.certificate, pem.key)
        }
        None if settings.sip.listen.iter().any(|listener| listener.transport.is_tls()) => {
            let names = api::Tls::self_signed_names(&settings.sip.domain);
            let made =
                rcgen::generate_simple_self_signed(names).map_err(|error| configuration("sip.domain", &error))?;
            let key = Zeroizing::new(made.signing_key.serialize_pem().into_bytes());
            (made.cert.pem().into_bytes(), key)
        }
        None => return Ok(None),
    };
    let refuse = |error: &dyn std::error::Error| configuration("sip.tls_certificate", error);
    let config = net::server_config(&certificate, &key).map_err(|error| refuse(&error))?;
    let first = CertificateDer::from_pem_slice(&certificate).map_err(|error| refuse(&error))?;
    Ok(Some((ServerTls::new(config), first.to_vec())))
}

pub(super) fn open_audit(settings: &Settings, policy: &Policy) -> Result<OpenedLog, StartError> {
    let log = audit_log::Settings {
        path: settings.audit.path.clone(),
        signing_key: settings.audit.signing_key.clone(),
        sync_wait: settings.audit.sync_wait,
        domain: settings.sip.domain.clone(),
        segment_records: settings.audit.segment_records,
        policy: policy.version(),
    };
    AuditLog::open(&log).map_err(|error| match error.is_configuration() {
        true => StartError::Configuration(error.to_string()),
        false => StartError::Unavailable(error.to_string()),
    })
}

/// Starts the threads of the log; `writable` hears when it cannot be written.
pub(super) fn start_audit(log: OpenedLog, writable: watch::Sender<bool>) -> Result<Arc<AuditLog>, StartError> {
    let on_writable = move |works: bool| {
        writable.send_replace(works);
    };
    log.start(on_writable).map(Arc::new).map_err(|error| StartError::Unavailable(error.to_string()))
}

/// What the API has to check, and what the push clients have to hold.
pub(super) fn split_tenants(
    tenants: Vec<config::Tenant>,
) -> Result<(Vec<api::Tenant>, Vec<push::AppConfig>), StartError> {
    let (mut checked, mut apps) = (Vec::new(), Vec::new());
    for tenant in tenants {
        let jwt_key = tenant
            .jwt_key
            .map(|key| api::JwtKey::from_pem(key.pem.as_bytes()))
            .transpose()
            .map_err(|error| configuration("jwt_public_key", &error))?;
        let texts = Arc::new(push::Texts::new(tenant.texts));
        for app in tenant.apps {
            apps.push(app_config(Arc::clone(&tenant.id), app, Arc::clone(&texts)));
        }
        checked.push(api::Tenant {
            id: tenant.id,
            app_key_sha256: tenant.app_keys.iter().map(|key| key.0).collect(),
            jwt_key,
            jwt_required: tenant.jwt_required,
        });
    }
    Ok((checked, apps))
}

fn app_config(tenant: Arc<str>, app: config::App, texts: Arc<push::Texts>) -> push::AppConfig {
    let config::App { id, push, endpoint, ca_pem } = app;
    let provider = match push {
        config::PushAccess::Apns(access) => push::ProviderConfig::Apns(push::ApnsConfig {
            team_id: access.team_id,
            key_id: access.key_id,
            key_pem: access.key_pem,
            environment: match access.environment {
                config::ApnsEnvironment::Production => push::ApnsEnvironment::Production,
                config::ApnsEnvironment::Sandbox => push::ApnsEnvironment::Sandbox,
            },
            endpoint,
            ca_pem,
        }),
        config::PushAccess::Fcm(access) => push::ProviderConfig::Fcm(push::FcmConfig {
            service_account_json: access.service_account_json,
            endpoint,
            ca_pem,
        }),
        config::PushAccess::Sandbox => {
            push::ProviderConfig::Sandbox(push::SandboxConfig { endpoint: endpoint.unwrap_or_default(), ca_pem })
        }
    };
    push::AppConfig { tenant, app: id, provider, texts }
}

pub(super) fn open_pusher(
    apps: Vec<push::AppConfig>,
    limits: &Limits,
    apns_expiry: Duration,
    names: Arc<Names>,
    meters: &Arc<Meters>,
) -> Result<Pusher, StartError> {
    let meters = Arc::clone(meters);
    let settings = PushSettings {
        queued: usize::try_from(limits.pushes_queued).unwrap_or(usize::MAX),
        observer: Some(Arc::new(move |provider, kind, outcome, took| {
            meters.publish_push(provider, kind, outcome, took);
        })),
        names,
        apns_expiry,
        ..PushSettings::default()
    };
    Pusher::new(apps, settings).map_err(|error| StartError::Configuration(error.to_string()))
}

pub(super) fn net_settings(
    server_tls: Option<ServerTls>,
    client_tls: ClientTls,
    names: Arc<Names>,
    limits: &Limits,
) -> net::Settings {
    net::Settings {
        server_tls,
        client_tls,
        flows_max: limits.flows,
        flows_per_source_max: limits.flows_per_source,
        timings: Timings::default(),
        names,
    }
}

pub(super) fn configuration(key: &str, error: &dyn std::error::Error) -> StartError {
    StartError::Configuration(format!("{key}: {error}"))
}

pub(super) fn unavailable(what: &str, error: &dyn std::error::Error) -> StartError {
    StartError::Unavailable(format!("{what}: {error}"))
}
