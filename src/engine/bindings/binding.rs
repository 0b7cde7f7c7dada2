//! One registration we keep: what it is, and where it stands.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::curing::Cure;
use super::cuts::Cuts;
use super::refusals::Refusals;
use super::trial::Trial;
use super::{REFUSALS_AT_HAND_OVER, UNPROVEN_DATAGRAMS_MAX};
use crate::clock::Instant;
use crate::engine::account::{Account, TrunkUri};
use crate::engine::ids::{InstanceId, QueryId};
use crate::engine::input::Located;
use crate::engine::output::{DestinationKey, RegistrationReason, RegistrationState};
use crate::engine::permits::Class;
use crate::engine::policy::Policy;
use crate::engine::register::{Exchange, Identity, Target, Terms};
use crate::vault::CredentialId;

/// The least pause from a grant to the refresh, however little is granted: a registrar that grants a second is not to be asked every
/// second.
pub(super) const REFRESH_PAUSE_MIN: Duration = Duration::from_secs(15);
/// A registration that ends less than this before the lease need not be refreshed: registrars count whole seconds.
const LEASE_SLACK: Duration = Duration::from_secs(2);
/// The least that a refresh takes, since registrars count whole seconds.
pub(super) const REFRESH_ROUND: Duration = Duration::from_secs(1);

/// One registration we keep.
pub(crate) struct Binding {
    pub(crate) identity: Identity,
    /// The device whose credentials the identity speaks with.
    pub(super) holder: InstanceId,
    /// Whose it is, as the tenant's place in the policy.
    pub(super) tenant: u16,
    /// The other devices that share the binding, each with its own copy of the credentials.
    pub(super) spare: BTreeMap<InstanceId, Spare>,
    /// The app is in the foreground; an empty slot stands for the credentials. Asks the registrar nothing but for a trial.
    pub(super) dormant: bool,
    /// Its processing is restricted; dormant too, though the credentials may be there.
    pub(super) restricted: bool,
    /// Its restriction is not told to the registrar yet.
    pub(super) parts: bool,
    /// When it may be told of one again.
    pub(super) parts_from: Instant,
    /// Where the registrar may hold our Contact.
    pub(crate) bound_at: Option<Target>,
    pub(super) target: Option<Target>,
    pub(super) next_hop: TrunkUri,
    pub(super) spki_sha256: Option<[u8; 32]>,
    pub(super) register_expires: Duration,
    pub(super) lease_ends: Instant,
    pub(super) candidates: VecDeque<Target>,
    pub(super) sources: Vec<IpAddr>,
    /// Those of the former location, good for one expiry more.
    pub(super) former_sources: (Vec<IpAddr>, Instant),
    pub(super) phase: Phase,
    /// It has no member yet, and counts as none: it is tried beside the one its holder is registered by.
    pub(super) candidate: bool,
    pub(super) permit_proven: bool,
    /// What the exchange under way was permitted as.
    pub(super) permit_class: Class,
    /// It has waited long for its permit, while others went first.
    pub(super) paced: bool,
    /// What keeping it costs, and where.
    pub(super) booked: Option<(DestinationKey, u64)>,
    /// An un-REGISTER of it may still wait for its turn.
    pub(super) farewell: bool,
    pub(super) registered_at: Option<Instant>,
    pub(super) registered_until: Option<Instant>,
    pub(super) granted: Option<Duration>,
    /// What the last exchange ended with, in words.
    pub(super) verdict: Option<String>,
    /// Why it ended so, or what is unusual about the grant.
    pub(super) judged: Option<RegistrationReason>,
    pub(super) ever_registered: bool,
    /// An exchange was cut off by its connection and went out again at once; the next cut counts as silence.
    pub(super) cut_off: bool,
    /// The connection it registered over is gone, and no REGISTER was granted since: calls may not reach us.
    pub(super) disconnected: bool,
    pub(super) cuts: Cuts,
    pub(super) unproven_attempts: u8,
    pub(super) backoff_step: u32,
    /// How often it was decided to look the registrar up again since the last grant, because its address was silent.
    pub(super) looks: u32,
    pub(super) refusals: Refusals,
    /// Whether only its app can help.
    pub(super) cure: Cure,
    /// No hand-over brings its next REGISTER forward before.
    pub(super) early_from: Instant,
    /// The registrar asked not to be asked before.
    pub(super) not_before: Instant,
    /// Rare, and larger than most of the rest together.
    pub(super) trial: Option<Box<Trial>>,
    /// No credentials of further devices are tried before.
    pub(super) trial_rest: Instant,
    /// As what the census counts it.
    pub(super) counted: RegistrationState,
    pub(super) counted_reason: Option<RegistrationReason>,
    /// As what it was last told.
    pub(super) told: RegistrationState,
}

/// A copy of the credentials that is not in use.
pub(super) struct Spare {
    pub(super) credential: CredentialId,
    pub(super) username: String,
}

pub(super) enum Phase {
    Locating(QueryId),
    Waiting(DestinationKey),
    Exchanging(Exchange),
    /// Until the refresh, or the end of a back-off.
    Resting,
}

impl Binding {
    pub(super) fn new(
        identity: Identity,
        holder: InstanceId,
        tenant: u16,
        account: &Account,
        lease_ends: Instant,
    ) -> Self {
        Self {
            identity,
            holder,
            tenant,
            spare: BTreeMap::new(),
            dormant: false,
            restricted: false,
            parts: false,
            parts_from: Instant::default(),
            bound_at: None,
            target: None,
            next_hop: next_hop(account),
            spki_sha256: account.tls_spki_sha256,
            register_expires: account.register_expires,
            lease_ends,
            candidates: VecDeque::new(),
            sources: Vec::new(),
            former_sources: (Vec::new(), Instant::default()),
            phase: Phase::Resting,
            candidate: false,
            permit_proven: false,
            permit_class: Class::First,
            paced: false,
            booked: None,
            farewell: false,
            registered_at: None,
            registered_until: None,
            granted: None,
            verdict: None,
            judged: None,
            ever_registered: false,
            cut_off: false,
            disconnected: false,
            cuts: Cuts::default(),
            unproven_attempts: 0,
            backoff_step: 0,
            looks: 0,
            refusals: Refusals::default(),
            cure: Cure::default(),
            early_from: Instant::default(),
            not_before: Instant::default(),
            trial: None,
            trial_rest: Instant::default(),
            counted: RegistrationState::Registering,
            counted_reason: None,
            told: RegistrationState::Registering,
        }
    }

    /// How many devices share it.
    pub(super) fn members(&self) -> u64 {
        if self.candidate { 0 } else { 1 + self.spare.len() as u64 }
    }

    /// Where the registration stands.
    pub(super) fn state(&self, now: Instant) -> RegistrationState {
        if self.restricted {
            RegistrationState::Restricted
        } else if self.dormant {
            RegistrationState::Foreground
        } else if self.is_registered(now) && !self.is_disconnected(now) {
            RegistrationState::Registered
        } else if self.verdict.is_some() {
            RegistrationState::Failing
        } else {
            RegistrationState::Registering
        }
    }

    /// Why it fails or waits, or what is unusual about it.
    pub(super) fn reason(&self, now: Instant) -> Option<RegistrationReason> {
        if self.dormant || self.restricted {
            None
        } else if self.is_disconnected(now) && !self.is_backing_off() {
            Some(RegistrationReason::Disconnected)
        } else if self.paced && self.judged.is_none() && matches!(self.phase, Phase::Waiting(_)) {
            Some(RegistrationReason::Pacing)
        } else {
            self.judged
        }
    }

    /// Keeps what an exchange ended with.
    pub(super) fn judge(&mut self, reason: impl Into<Option<RegistrationReason>>, verdict: String) {
        (self.judged, self.verdict) = (reason.into(), Some(verdict));
    }

    pub(super) fn is_registered(&self, now: Instant) -> bool {
        self.registered_until.is_some_and(|until| until > now)
    }

    /// How long the registration holds.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.registered_until.map_or(Duration::ZERO, |until| until.saturating_since(now))
    }

    /// The registrar may hold the registration, but calls cannot come over its connection.
    pub(super) fn is_disconnected(&self, now: Instant) -> bool {
        self.disconnected && self.is_registered(now) && !self.dormant
    }

    /// The registrar refused who we are: the same credentials would only be refused again.
    pub(super) fn refuses_credentials(&self) -> bool {
        let forbidden = || self.verdict.as_ref().is_some_and(|verdict| verdict.starts_with("403"));
        self.judged == Some(RegistrationReason::Refused) || (self.judged.is_some() && forbidden())
    }

    /// The last exchange failed, and its verdict says why.
    pub(super) fn is_backing_off(&self) -> bool {
        self.backoff_step > 0 || self.refusals.are_under_way()
    }

    /// What was granted last does not hold until the lease ends.
    pub(super) fn needs_refresh(&self) -> bool {
        self.registered_until.is_some_and(|until| self.lease_ends > until + LEASE_SLACK)
    }

    /// What is granted ends before a refresh may renew it: registered on and off.
    pub(super) fn is_intermittent(&self) -> bool {
        self.needs_refresh() && self.granted.is_some_and(|granted| granted < REFRESH_PAUSE_MIN + REFRESH_ROUND)
    }

    /// Registered, and the last exchange said so: no back-off is under way.
    pub(super) fn is_content(&self, now: Instant) -> bool {
        !self.dormant && self.is_registered(now) && !self.is_backing_off()
    }

    pub(super) fn terms(&self, now: Instant) -> Terms {
        let remaining = self.lease_ends.saturating_since(now);
        Terms {
            expires: self.register_expires.min(remaining).max(Duration::from_secs(1)),
            refusals_max: if self.ever_registered { 1 } else { REFUSALS_AT_HAND_OVER },
            datagrams_max: (!self.permit_proven && !self.ever_registered).then_some(UNPROVEN_DATAGRAMS_MAX),
        }
    }

    pub(super) fn target_at(&self, located: Located, policy: &Policy) -> Option<Target> {
        Target::at(located, &self.next_hop.host, self.spki_sha256, policy)
    }
}

/// Where REGISTERs of the account go.
pub(super) fn next_hop(account: &Account) -> TrunkUri {
    account.outbound_proxy.clone().unwrap_or_else(|| account.registrar.clone())
}

/// The destination a target belongs to, for permits.
pub(super) fn destination_of(target: &Target) -> DestinationKey {
    DestinationKey { transport: target.transport, address: target.address }
}
