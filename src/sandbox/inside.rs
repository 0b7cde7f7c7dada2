//! The real daemon inside this process, with embedded defaults: nothing on disk, temporary certificates, free ports.
//!
//! Demo and phone use it where no daemon of the user's own is named. It changes settings, never code.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::agent::random_token;
use super::https::Site;
use super::phone::handset::{AttachAt, Daemon};
use super::trust::Trust;
use crate::app::{self, Running, StartError};
use crate::config::{self, App, AppKeyHash, Settings, Tenant};
use crate::engine::policy::CallerInPush;
use crate::sip::Transport;

/// The daemon's own name, as realm and in attach addresses.
const DOMAIN: &str = "reveille.localhost";
/// How long the API may take: longer than it waits for a registrar.
const API_PATIENCE: Duration = Duration::from_secs(15);

/// What differs between those who run a daemon inside.
pub(super) struct Plan {
    /// Where SIP is served.
    pub(super) listen: SocketAddr,
    /// Ports a registrar may have.
    pub(super) ports: Vec<u16>,
    /// Special-purpose ranges a registrar may lie in.
    pub(super) ranges: Vec<IpNet>,
    /// Certificates trusted at TLS registrars, beside the public roots.
    pub(super) registrar_ca: Option<String>,
    /// The apps of its only tenant.
    pub(super) apps: Vec<App>,
}

/// A daemon inside.
pub(super) struct Inside {
    pub(super) running: Running,
    pub(super) app_key: Zeroizing<String>,
}

impl Inside {
    /// Starts it.
    pub(super) fn start(plan: Plan) -> Result<Self, StartError> {
        let app_key = Zeroizing::new(random_token());
        let running = app::start(settings(plan, &app_key))?;
        Ok(Self { running, app_key })
    }

    /// How a phone of ours reaches it; it believes exactly the certificates this daemon has made.
    pub(super) fn daemon(&self, attach: Transport) -> Option<Daemon> {
        let api = self.running.api.first()?;
        let base = format!("https://{api}").parse().ok()?;
        let trust = pinned(self.running.api_certificate.as_deref()?);
        let sip_trust = self.running.sip_certificate.as_deref().map_or(Trust::PublicRoots, pinned);
        let listener = self.running.sip.iter().find(|listener| listener.transport == attach)?;
        Some(Daemon {
            api: Site { base, trust, patience: API_PATIENCE },
            app_key: self.app_key.clone(),
            sip_trust,
            attach: AttachAt::At(format!("sip:{};transport={}", listener.local, attach.as_param())),
        })
    }
}

fn pinned(certificate: &[u8]) -> Trust {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
    Trust::Fingerprint(fingerprint)
}

fn settings(plan: Plan, app_key: &str) -> Settings {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let tls = SocketAddr::new(plan.listen.ip(), 0);
    let mut registrars = config::Registrars::default();
    registrars.policy.allow_special_ranges = plan.ranges;
    registrars.policy.ports = plan.ports;
    registrars.ca_pem = plan.registrar_ca;
    Settings {
        file: PathBuf::new(),
        api: config::Api { listen: vec![free], tls: None, register_wait: Duration::from_secs(3) },
        sip: config::Sip {
            domain: DOMAIN.to_owned(),
            tls: None,
            listen: vec![
                config::SipListener { transport: Transport::Udp, address: plan.listen, advertise: None },
                config::SipListener { transport: Transport::Tls, address: tls, advertise: None },
            ],
        },
        registrars,
        lease: config::Lease::default(),
        calls: config::Calls::default(),
        messages: config::Messages::default(),
        erasure: config::Erasure::default(),
        audit: config::Audit {
            path: None,
            signing_key: None,
            sync_wait: Duration::from_secs(1),
            segment_records: u64::MAX,
        },
        drain: config::Drain { calls: Duration::ZERO, deadline: Duration::from_secs(5) },
        vault: config::Vault { allow_plain_memory: true, keep_a_copy: false },
        process: config::Process::default(),
        ops: config::Ops { listen: vec![free] },
        log: config::Log::default(),
        limits: crate::engine::limits::Limits::default(),
        tenants: vec![tenant(plan.apps, app_key)],
        warnings: Vec::new(),
    }
}

fn tenant(apps: Vec<App>, app_key: &str) -> Tenant {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, app_key.as_bytes()).as_ref());
    Tenant {
        id: Arc::from("demo"),
        app_keys: vec![AppKeyHash(hash)],
        jwt_key: None,
        caller_in_push: CallerInPush::None,
        prove_push_token: false,
        wakes_off: Vec::new(),
        texts: Vec::new(),
        apps,
        keep_password: false,
        edge_registrars: Vec::new(),
    }
}

/// The loopback ranges of both families.
pub(super) fn loopback() -> Vec<IpNet> {
    ranges(&["127.0.0.0/8", "::1/128"])
}

/// All addresses.
pub(super) fn anywhere() -> Vec<IpNet> {
    ranges(&["0.0.0.0/0", "::/0"])
}

fn ranges(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The address of ours that packets to `there` leave from.
pub(super) fn way_to(there: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if there.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
    let socket = std::net::UdpSocket::bind(any)?;
    // Connecting a datagram socket sends nothing; it asks the routing table.
    socket.connect(there)?;
    Ok(socket.local_addr()?.ip())
}
