//! What the operator decided, in the engine's words. `config` builds it; the engine only reads it.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::account::TenantId;
use super::edge_registrar::EdgeRegistrar;
use super::ids::ListenerId;
use super::limits::Limits;
use super::output::WakeKind;
use crate::sip::{StatusCode, Transport};

/// All decisions of the operator that the engine needs.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Realm of the edge and host part of attach addresses.
    pub domain: String,
    /// The SIP listeners; a [`ListenerId`] is a place in this list.
    pub listeners: Vec<Listener>,
    /// How long a hand-over waits for the registrar's verdict before it answers 202.
    pub register_wait: Duration,
    /// Which registrars may be registered at, and how fast.
    pub registrars: RegistrarPolicy,
    /// Lease when the app asks for none.
    pub lease_default: Duration,
    /// Longest lease an app may ask for; never above the compiled-in ceiling.
    pub lease_maximum: Duration,
    /// How long an INVITE is held for its device.
    pub hold: Duration,
    /// How long an attached device may stay silent before it is woken as well.
    pub silence: Duration,
    /// Our own provisional answer once the provider has accepted the wake.
    pub early_response: Option<StatusCode>,
    /// How long an un-REGISTER may take.
    pub erasure_grace: Duration,
    /// How long held calls may finish after SIGTERM.
    pub drain_calls: Duration,
    /// How long a text message waits for its device.
    pub messages_keep: Duration,
    /// The tenants.
    pub tenants: Vec<TenantPolicy>,
    /// All bounds.
    pub limits: Limits,
}

/// A SIP listener as the engine sees it.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What is spoken there.
    pub transport: Transport,
    /// The bound socket address.
    pub local: SocketAddr,
    /// `host:port` as the world sees us; stands in Via, Contact and Record-Route. IPv6 in brackets.
    pub advertise: String,
}

/// Which registrars may be registered at.
#[derive(Clone, Debug)]
pub struct RegistrarPolicy {
    /// Host patterns: `*`, `*.example.com` or a whole name.
    pub allow: Vec<String>,
    /// Special-purpose ranges that are allowed after all.
    pub allow_special_ranges: Vec<IpNet>,
    /// Allowed ports.
    pub ports: Vec<u16>,
    /// REGISTERs a second for one destination, at most.
    pub rate: u32,
}

/// What a tenant may do.
#[derive(Clone, Debug, Default)]
pub struct TenantPolicy {
    /// Its name.
    pub id: TenantId,
    /// How much a push tells of the caller.
    pub caller_in_push: CallerInPush,
    /// Its apps.
    pub apps: Vec<AppPolicy>,
    /// Kinds of wake it does not want. `Call` is never among them.
    pub wakes_off: Vec<WakeKind>,
    /// Registrars (names, no pattern) at which its apps may register *through* us (RFC 8599).
    pub edge_registrars: Vec<EdgeRegistrar>,
}

/// An app of a tenant, with the provider that reaches it.
#[derive(Clone, Debug)]
pub struct AppPolicy {
    /// Bundle or package name.
    pub id: String,
    /// Who carries its pushes.
    pub provider: Provider,
    /// Whose it is at the provider: Apple's team, Google's project. Part of a phone's `pn-param` (RFC 8599 §10, §11).
    pub owner: Option<String>,
}

/// Who carries a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging.
    Fcm,
    /// Our own stand-in, for trying things.
    Sandbox,
}

impl Provider {
    /// The name used in the API, the configuration and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::Fcm => "fcm",
            Self::Sandbox => "sandbox",
        }
    }
}

/// How much a push tells of the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallerInPush {
    /// Nothing.
    #[default]
    None,
    /// Name and number in clear.
    Clear,
}

impl Policy {
    /// The listener with number `id`.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(usize::from(id.0))
    }

    /// The tenant called `id`.
    #[must_use]
    pub fn tenant(&self, id: &str) -> Option<&TenantPolicy> {
        self.tenants.iter().find(|tenant| &*tenant.id == id)
    }

    /// Where a woken app attaches: the TLS listener if there is one, else TCP, else UDP.
    #[must_use]
    pub fn attach_uri(&self) -> String {
        let of = |transport| self.listeners.iter().find(|listener| listener.transport == transport);
        match of(Transport::Tls).or_else(|| of(Transport::Tcp)).or_else(|| of(Transport::Udp)) {
            Some(listener) => format!("sip:{};transport={}", listener.advertise, listener.transport.as_param()),
            None => format!("sip:{}", self.domain),
        }
    }

    /// The listener whose socket or `advertise` a trunk over `transport` to an address of this family uses: same
    /// transport and family if there is one, else the same family, else the first.
    #[must_use]
    pub fn trunk_listener(&self, transport: Transport, ipv6: bool) -> Option<ListenerId> {
        let place = |test: &dyn Fn(&Listener) -> bool| self.listeners.iter().position(test);
        place(&|l| l.transport == transport && l.local.is_ipv6() == ipv6)
            .or_else(|| place(&|l| l.transport == transport))
            .or_else(|| place(&|l| l.transport != Transport::Udp && l.local.is_ipv6() == ipv6))
            .or((!self.listeners.is_empty()).then_some(0))
            .and_then(|index| u16::try_from(index).ok())
            .map(ListenerId)
    }
}
