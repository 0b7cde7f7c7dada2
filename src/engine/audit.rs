//! Records of what became of an instance, without personal data, and the receipt for an erasure.
//!
//! An instance appears only as an HMAC under a salt that dies with it; the receipt carries the salt, so only its holder
//! can link the record to the instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::account::TenantId;
use super::output::WakeKind;
use crate::clock::WallTime;
use crate::vault::WipeReceipt;

/// Why an instance was erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The app turned push off.
    Deleted,
    /// The lease ran out.
    LeaseEnded,
    /// The push provider says the token is dead.
    DeadToken,
    /// The registrar refuses the credentials.
    Refused,
    /// The registrar could not be reached or did not register us for too long.
    Unregistrable,
    /// An administrator erased it.
    Administrator,
    /// The tenant left.
    OffBoarded,
    /// The daemon shut down.
    Shutdown,
    /// The app came to the foreground: the credentials are wiped, the instance stays.
    Foreground,
    /// A newer instance of the same account took its place: the same phone's, or where the account has as many devices as
    /// it may, that of a further one.
    Replaced,
}

impl Cause {
    /// All causes, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Deleted,
        Self::LeaseEnded,
        Self::DeadToken,
        Self::Refused,
        Self::Unregistrable,
        Self::Administrator,
        Self::OffBoarded,
        Self::Shutdown,
        Self::Foreground,
        Self::Replaced,
    ];

    /// The name used in the API, records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::LeaseEnded => "lease-ended",
            Self::DeadToken => "dead-token",
            Self::Refused => "refused",
            Self::Unregistrable => "unregistrable",
            Self::Administrator => "administrator",
            Self::OffBoarded => "off-boarded",
            Self::Shutdown => "shutdown",
            Self::Foreground => "foreground",
            Self::Replaced => "replaced",
        }
    }
}

/// What the registrar said to our un-REGISTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unregister {
    /// 200: the binding is gone.
    Confirmed,
    /// A final refusal.
    Refused,
    /// No final answer within `erasure.grace`.
    Unanswered,
    /// There was no binding to remove.
    NotNeeded,
    /// Other devices share the binding: it stays, with their copies of the credentials.
    Shared,
    /// The Contact was left at the registrar until its granted expiry, as the app asked for.
    Kept,
    /// More ended at once than may be removed in time: the credentials were wiped first, and the registrar is asked
    /// later without waiting for its answer, or not at all.
    Deferred,
}

impl Unregister {
    /// The name used in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::NotNeeded => "not-needed",
            Self::Shared => "shared",
            Self::Kept => "kept",
            Self::Deferred => "deferred",
        }
    }
}

/// How many wakes of each kind were sent to a device while its instance was held; kinds that were not are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WakeCounts(BTreeMap<WakeKind, u32>);

impl WakeCounts {
    /// Counts one more.
    pub fn add(&mut self, kind: WakeKind) {
        let count = self.0.entry(kind).or_default();
        *count = count.saturating_add(1);
    }

    /// How many of a kind.
    #[must_use]
    pub fn of(&self, kind: WakeKind) -> u32 {
        self.0.get(&kind).copied().unwrap_or_default()
    }
}

/// A life event of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum AuditEvent {
    /// The credentials came into our hands.
    HandedOver,
    /// Push target, account or preferences were changed.
    Rectified,
    /// The lease started anew.
    LeasedOn,
    /// The registrar refused the credentials.
    Refused,
    /// The instance is held, and nothing is done with it.
    Restricted,
    /// The restriction is over.
    Resumed,
    /// The device consented to a trace.
    TraceConsented,
    /// The device withdrew its consent.
    TraceWithdrawn,
    /// A trace was read.
    TraceRead {
        /// Who read it.
        by: Reader,
    },
    /// The credentials are gone.
    Erased {
        /// Why.
        cause: Cause,
        /// What the registrar said.
        unregister: Unregister,
        /// The wakes that were sent since the hand-over. Absent in records of version 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wakes: Option<WakeCounts>,
    },
}

impl AuditEvent {
    /// The name used in records.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::HandedOver => "handed-over",
            Self::Rectified => "rectified",
            Self::LeasedOn => "leased-on",
            Self::Refused => "refused",
            Self::Restricted => "restricted",
            Self::Resumed => "resumed",
            Self::TraceConsented => "trace-consented",
            Self::TraceWithdrawn => "trace-withdrawn",
            Self::TraceRead { .. } => "trace-read",
            Self::Erased { .. } => "erased",
        }
    }

    /// The cause, if it is an erasure.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Erased { cause, .. } => Some(*cause),
            Self::HandedOver
            | Self::Rectified
            | Self::LeasedOn
            | Self::Refused
            | Self::Restricted
            | Self::Resumed
            | Self::TraceConsented
            | Self::TraceWithdrawn
            | Self::TraceRead { .. } => None,
        }
    }

    /// Whether a record of this version says it, and says all of it.
    fn is_of(&self, version: u8) -> bool {
        match self {
            Self::HandedOver | Self::Rectified | Self::LeasedOn => true,
            Self::Erased { cause, wakes, .. } => {
                wakes.is_some() == (version != 1) && (*cause != Cause::Replaced || version != 1)
            }
            Self::Refused
            | Self::Restricted
            | Self::Resumed
            | Self::TraceConsented
            | Self::TraceWithdrawn
            | Self::TraceRead { .. } => version != 1,
        }
    }
}

/// The version of the record form that is written.
pub const RECORD_VERSION: u8 = 2;

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Version of this form.
    pub v: u8,
    /// When, RFC 3339 in UTC, to the second.
    pub at: String,
    /// Whose app.
    pub tenant: String,
    /// HMAC-SHA-256 of the instance id under the instance's salt, in hex.
    pub subject: String,
    /// [`super::policy::Policy::version`] at that time; the log enters it. Absent in records of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
}

impl AuditRecord {
    /// A record of anything but an erasure.
    #[must_use]
    pub fn life(event: LifeEvent, subject: String, tenant: &TenantId, at: WallTime) -> Self {
        let event = match event {
            LifeEvent::HandedOver => AuditEvent::HandedOver,
            LifeEvent::Rectified => AuditEvent::Rectified,
            LifeEvent::LeasedOn => AuditEvent::LeasedOn,
            LifeEvent::Refused => AuditEvent::Refused,
            LifeEvent::Restricted => AuditEvent::Restricted,
            LifeEvent::Resumed => AuditEvent::Resumed,
            LifeEvent::TraceConsented => AuditEvent::TraceConsented,
            LifeEvent::TraceWithdrawn => AuditEvent::TraceWithdrawn,
            LifeEvent::TraceRead(by) => AuditEvent::TraceRead { by },
        };
        Self::of(event, subject, tenant, at)
    }

    /// The record of an erasure. It can only be made from the proof that the credential was wiped.
    #[must_use]
    pub fn erased(_proof: WipeReceipt, end: Ending, subject: String, tenant: &TenantId, at: WallTime) -> Self {
        let Ending { cause, unregister, wakes } = end;
        Self::of(AuditEvent::Erased { cause, unregister, wakes: Some(wakes) }, subject, tenant, at)
    }

    /// Whether it is a record of a version that is known, with what belongs to that version and nothing else.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let has_policy = self.policy.is_some();
        match self.v {
            1 => !has_policy && self.event.is_of(1),
            RECORD_VERSION => has_policy && self.event.is_of(RECORD_VERSION),
            _ => false,
        }
    }

    fn of(event: AuditEvent, subject: String, tenant: &TenantId, at: WallTime) -> Self {
        Self { v: RECORD_VERSION, at: at.rfc3339(), tenant: tenant.to_string(), subject, policy: None, event }
    }
}

/// How an instance ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Why.
    pub cause: Cause,
    /// What the registrar said.
    pub unregister: Unregister,
    /// The wakes that were sent.
    pub wakes: WakeCounts,
}

/// Life events other than the erasure, which needs proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeEvent {
    /// The credentials came into our hands.
    HandedOver,
    /// Push target, account or preferences were changed.
    Rectified,
    /// The lease started anew.
    LeasedOn,
    /// The registrar refused the credentials.
    Refused,
    /// The instance is held, and nothing is done with it.
    Restricted,
    /// The restriction is over.
    Resumed,
    /// The device consented to a trace.
    TraceConsented,
    /// The device withdrew its consent.
    TraceWithdrawn,
    /// A trace was read.
    TraceRead(Reader),
}

/// Who read a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// The device that consented.
    Device,
    /// Its tenant's administrator, as the consent allows.
    Tenant,
}

/// Signed proof that an instance's credentials were erased, verifiable offline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this form.
    pub v: u8,
    /// The instance, as the app knows it.
    pub instance: String,
    /// The salt that links the instance to the record's subject, in hex.
    pub salt: String,
    /// The record, byte for byte as it stands in the log (one line of JSON).
    pub record: String,
    /// Where and under which root the record stands in the log; absent where it was not synced in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inclusion: Option<Inclusion>,
    /// The log's public key (Ed25519, 32 bytes), base64.
    pub key: String,
    /// Ed25519 signature over the receipt's canonical bytes, base64.
    pub signature: String,
}

/// RFC 9162 §2.1.3: a record's place in the Merkle tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inclusion {
    /// The record's number, from 0.
    pub leaf_index: u64,
    /// The number of records under the root.
    pub tree_size: u64,
    /// The root's SHA-256, base64.
    pub root: String,
    /// The hashes from the leaf's sibling up to the root's child, base64.
    pub path: Vec<String>,
}
