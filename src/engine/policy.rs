//! What the operator decided, in the engine's words. `config` builds it; the engine only reads it.

mod version;

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::account::TenantId;
use super::edge_registrar::EdgeRegistrar;
use super::ids::ListenerId;
use super::input::Mode;
use super::limits::Limits;
use super::output::WakeKind;
use crate::sip::{StatusCode, Transport};
use crate::vault::Keep;

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
    /// Requests a second for one destination, unless what is held there needs more.
    pub rate: u32,
    /// Requests a second for one destination, however much is held there.
    pub rate_max: u32,
    /// Un-REGISTERs a second for one destination while the process ends.
    pub drain_rate: u32,
}

/// What a tenant may do.
#[derive(Clone, Debug, Default)]
pub struct TenantPolicy {
    /// Its name.
    pub id: TenantId,
    /// How much a push tells of the caller.
    pub caller_in_push: CallerInPush,
    /// Whether a push token has to be proven before it is used.
    pub prove_push_token: bool,
    /// Its apps.
    pub apps: Vec<AppPolicy>,
    /// Kinds of wake it does not want. `Call` is never among them.
    pub wakes_off: Vec<WakeKind>,
    /// Whether passwords are kept, sealed, after the registrar has accepted them.
    pub keep_password: bool,
    /// Registrars (names, no pattern) at which its apps may register *through* us (RFC 8599).
    pub edge_registrars: Vec<EdgeRegistrar>,
    /// Host patterns its accounts' registrars must match besides [`RegistrarPolicy::allow`]; empty: none of its own.
    pub registrars_allow: Vec<String>,
    /// Registration modes its apps may ask for; empty: all.
    pub modes: Vec<Mode>,
    /// Its longest lease, where it is shorter than the one of all.
    pub lease_maximum: Option<Duration>,
    /// Whether its accounts are registered over TLS alone.
    pub tls_trunks_only: bool,
    /// Instances it may hold at once, over all shards; above it a hand-over gets `rate-limited`.
    pub instances_max: Option<u32>,
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
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Apns, Self::Fcm, Self::Sandbox];

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
    /// Name and number, sealed to a key of the device; nothing where it gave none.
    Sealed,
}

impl CallerInPush {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::None, Self::Clear, Self::Sealed];

    /// The name used in the API and the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Clear => "clear",
            Self::Sealed => "sealed",
        }
    }
}

/// Which way devices attach best: encrypted streams, then streams, then datagrams; WebSocket where there is nothing else.
const ATTACH_ORDER: [Transport; 5] = [Transport::Tls, Transport::Tcp, Transport::Udp, Transport::Wss, Transport::Ws];

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

    /// The place of a tenant among all of them.
    pub(crate) fn tenant_place(&self, id: &str) -> u16 {
        let place = self.tenants.iter().position(|tenant| &*tenant.id == id);
        place.and_then(|place| u16::try_from(place).ok()).unwrap_or(0)
    }

    /// How long a tenant's passwords are kept.
    #[must_use]
    pub fn keep(&self, tenant: &str) -> Keep {
        let keeps = self.tenant(tenant).is_some_and(|tenant| tenant.keep_password);
        if keeps { Keep::Always } else { Keep::UntilAccepted }
    }

    /// Whether a tenant does not want wakes of a kind. Calls, and what calls depend on, are always wanted.
    #[must_use]
    pub fn is_off(&self, tenant: &str, kind: WakeKind) -> bool {
        !matches!(kind, WakeKind::Call | WakeKind::Refresh | WakeKind::Proof)
            && self.tenant(tenant).is_some_and(|tenant| tenant.wakes_off.contains(&kind))
    }

    /// Where a woken app attaches: the first listener of the best transport there is.
    #[must_use]
    pub fn attach_uri(&self) -> String {
        match self.best_listener() {
            Some(best) => format!("sip:{};transport={}", best.advertise, best.transport.as_uri_param()),
            None => format!("sip:{}", self.domain),
        }
    }

    /// The WebSocket ways to attach, encrypted ones first, as stacks for it take them: `wss://HOST:PORT`. Other listeners
    /// than the best are not told: they may be meant for registrars alone.
    #[must_use]
    pub fn attach_alternatives(&self) -> Vec<String> {
        let listeners = [Transport::Wss, Transport::Ws].into_iter().flat_map(|transport| self.listeners_of(transport));
        listeners.map(|listener| format!("{}://{}", listener.transport.as_param(), listener.advertise)).collect()
    }

    fn best_listener(&self) -> Option<&Listener> {
        ATTACH_ORDER.iter().find_map(|&transport| self.listeners_of(transport).next())
    }

    fn listeners_of(&self, transport: Transport) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(move |listener| listener.transport == transport)
    }

    /// The listener whose socket or `advertise` a trunk over `transport` to an address of this family uses: same
    /// transport and family if there is one, else the same transport, else another stream of the family, else the first.
    /// Never a WebSocket: only devices speak it.
    #[must_use]
    pub fn trunk_listener(&self, transport: Transport, ipv6: bool) -> Option<ListenerId> {
        let place = |test: &dyn Fn(&Listener) -> bool| self.listeners.iter().position(test);
        place(&|l| l.transport == transport && l.local.is_ipv6() == ipv6)
            .or_else(|| place(&|l| l.transport == transport))
            .or_else(|| place(&|l| matches!(l.transport, Transport::Tcp | Transport::Tls) && l.local.is_ipv6() == ipv6))
            .or_else(|| place(&|l| !l.transport.is_websocket()))
            .and_then(|index| u16::try_from(index).ok())
            .map(ListenerId)
    }
}

#[cfg(test)]
impl Policy {
    /// One that decides nothing but its limits.
    pub(crate) fn bare(limits: Limits) -> Self {
        Self {
            domain: "edge.test".to_owned(),
            listeners: vec![],
            register_wait: Duration::ZERO,
            registrars: RegistrarPolicy {
                allow: vec![],
                allow_special_ranges: vec![],
                ports: vec![],
                rate: 1,
                rate_max: 1,
                drain_rate: 1,
            },
            lease_default: Duration::ZERO,
            lease_maximum: Duration::ZERO,
            hold: Duration::ZERO,
            silence: Duration::ZERO,
            early_response: None,
            erasure_grace: Duration::ZERO,
            drain_calls: Duration::ZERO,
            messages_keep: Duration::ZERO,
            tenants: vec![],
            limits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(listeners: &[(Transport, &str)]) -> Policy {
        let listener = |(place, &(transport, ip)): (usize, &(Transport, &str))| Listener {
            transport,
            local: SocketAddr::new(ip.parse().expect("an address"), 5060),
            advertise: format!("edge{place}.test:5060"),
        };
        let listeners = listeners.iter().enumerate().map(listener).collect();
        Policy { listeners, ..Policy::bare(Limits::default()) }
    }

    #[test]
    fn websocket_is_told_beside_better_ways_and_alone_where_there_is_none() {
        let all = [Transport::Ws, Transport::Udp, Transport::Wss, Transport::Tls].map(|transport| (transport, "::"));
        assert_eq!(policy(&all).attach_uri(), "sip:edge3.test:5060;transport=tls");
        assert_eq!(policy(&all).attach_alternatives(), ["wss://edge2.test:5060", "ws://edge0.test:5060"]);
        assert_eq!(policy(&all[..2]).attach_uri(), "sip:edge1.test:5060;transport=udp");
        assert_eq!(policy(&all[2..3]).attach_uri(), "sip:edge0.test:5060;transport=ws");
        assert!(policy(&all[3..]).attach_alternatives().is_empty());
    }

    #[test]
    fn no_trunk_goes_over_websocket() {
        let listeners = [(Transport::Wss, "192.0.2.1"), (Transport::Ws, "::1"), (Transport::Tls, "192.0.2.1")];
        let policy = policy(&listeners);
        for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
            assert_eq!(policy.trunk_listener(transport, false), Some(ListenerId(2)));
            assert_eq!(policy.trunk_listener(transport, true), Some(ListenerId(2)));
        }
        let alone = Policy { listeners: policy.listeners[..2].to_vec(), ..policy };
        assert_eq!(alone.trunk_listener(Transport::Tcp, false), None);
    }
}
