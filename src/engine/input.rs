//! Everything the world can tell an engine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::account::{Account, TenantId};
use super::audit::{Cause, Receipt};
use super::caller_key::CallerKey;
use super::ids::{BindingId, CallUuid, FlowId, InstanceId, ListenerId, QueryId, RecordId, ReplyTo, ShardId, WakeId};
use super::output::{Consent, DestinationKey, PushOutcome, TrunkKey};
use super::permits::PermitMessage;
use super::policy::Provider;
use super::proof::TokenMessage;
use super::push_token::PushToken;
use crate::sip::{Message, StatusCode, Transport};
use crate::vault::Material;

/// One thing that happened.
pub enum Input {
    /// Someone asks through the API; answered with `Output::Reply`.
    Command(Command, ReplyTo),
    /// A SIP message came in.
    Sip(Message, Arrival),
    /// A datagram of a registrar's that is meant to be a request and cannot be read.
    Malformed(Box<Malformed>, Arrival),
    /// The way to the peer of a request of ours is up and cannot take it for its size. The response that stands for the peer's.
    Unsent(Message),
    /// A stream connection is gone.
    FlowClosed(FlowId),
    /// A connection we were asked to open could not be opened, or one we had opened is gone.
    TrunkDown(Arc<TrunkKey>, TrunkFault),
    /// The resolver's answer.
    Located(QueryId, Result<Vec<Located>, LocateFault>),
    /// A provider's answer, or that it never came.
    Pushed(WakeId, PushOutcome),
    /// The audit log has written (or given up waiting for) an erasure's record.
    Recorded(RecordId, Recorded),
    /// Another shard asks or answers.
    Peer(ShardId, PeerMessage),
    /// Whether the audit log can be written; admissions stop while it cannot.
    AuditWritable(bool),
    /// Shut down: let held calls finish, erase every instance.
    Drain,
}

/// How a message came in.
#[derive(Clone)]
pub struct Arrival {
    /// The listener (for connections we opened: the one whose `advertise` they use).
    pub listener: ListenerId,
    /// The transport it came over.
    pub transport: Transport,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The connection, for streams.
    pub flow: Option<FlowId>,
    /// The trunk, where we opened the connection ourselves.
    pub trunk: Option<Arc<TrunkKey>>,
    /// Whether the source has granted a REGISTER, and the granted expiry is not over.
    pub registrar: bool,
    /// Whether a device is attached at this very socket address. Says nothing of others behind the same address.
    pub device: bool,
}

impl Arrival {
    /// Whether the source receives what is sent to it, so that it may get more bytes than came.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.registrar || self.device || self.transport.is_reliable()
    }
}

/// What is left of a request that cannot be read.
pub struct Malformed {
    /// A stand-in with everything an answer copies, and the Request-URI if that can be read.
    pub request: Message,
    /// What it is to be answered, if it is worth it.
    pub code: StatusCode,
    /// The bytes that came.
    pub paid: usize,
}

/// One address found for a trunk, in order of preference.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Located {
    /// Transport to use.
    pub transport: Transport,
    /// Socket address.
    pub address: SocketAddr,
}

/// Why a trunk could not be located.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocateFault {
    /// The name does not exist or has no address.
    NoSuchName,
    /// No resolver answered in time.
    Unanswered,
}

/// Why a trunk connection is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkFault {
    /// Refused, unreachable or timed out while connecting.
    Connect,
    /// The TLS handshake failed, or the certificate is not the destination's.
    Tls,
    /// It was up and is gone.
    Closed,
    /// More bytes wait for it than we keep.
    Congested,
}

/// What the audit log says of an erasure's record.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The signed receipt.
    pub receipt: Box<Receipt>,
    /// Whether the record was synced to disk before `audit.sync_wait`.
    pub logged: bool,
}

/// What shards say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Between a shard and the home shard of a destination.
    Permit(DestinationKey, PermitMessage),
    /// To the home shard of a device or tenant: one more instance wants to be held for it.
    PlaceWanted {
        /// Whose.
        holder: Holder,
        /// The fingerprint of its account.
        account: u64,
        /// Names the answer.
        ticket: u64,
    },
    /// From the home shard of a device or tenant.
    PlaceAnswered {
        /// Which question.
        ticket: u64,
        /// How long to wait where there was no place.
        wait: Option<Duration>,
    },
    /// To the home shard of a tenant: a newer instance has the place of one that is about to be gone.
    PlaceTaken {
        /// Whose.
        holder: Holder,
    },
    /// To the home shard of a device or tenant: an instance of it is gone.
    PlaceReturned {
        /// Whose.
        holder: Holder,
    },
    /// To the home shard of an account: credentials for it are about to be tried.
    GuessWanted {
        /// The account's fingerprint.
        account: u64,
        /// Names the answer.
        ticket: u64,
    },
    /// From the home shard of an account.
    GuessAnswered {
        /// Which question.
        ticket: u64,
        /// How long to wait where too many were wrong.
        wait: Option<Duration>,
    },
    /// To the home shard of an account: credentials that were tried were not wrong.
    GuessReturned {
        /// The account's fingerprint.
        account: u64,
    },
    /// To the home shard of a called name and source: a binding bears that name there.
    NameBorne {
        /// The user part, unescaped.
        user: Vec<u8>,
        /// The registrar's or proxy's address.
        address: IpAddr,
        /// The connection it registered over, for streams.
        trunk: Option<Arc<TrunkKey>>,
        /// Which.
        binding: BindingId,
    },
    /// To the home shard of a called name and source: a binding bears it there no more.
    NameLaidDown {
        /// The user part, unescaped.
        user: Vec<u8>,
        /// The registrar's or proxy's address.
        address: IpAddr,
        /// Which.
        binding: BindingId,
    },
    /// From the home shard of a called name and source: a request for a binding of yours.
    Called {
        /// Which.
        binding: BindingId,
        /// The request, and how it came in.
        request: Box<CalledByName>,
    },
    /// To the shard of a sender: a request from a registrar's address that calls none of the names known there.
    Nameless(Box<CalledByName>),
    /// Between an instance's shard and the home shard of its push token.
    Token(TokenMessage),
}

/// Who holds instances, as far as they are counted over all shards.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A device of a tenant.
    Device(TenantId, String),
    /// The same device with another account in a place it has: the account counts among those it tries, and no place.
    Moving(TenantId, String),
    /// A whole tenant.
    Tenant(TenantId),
}

/// Nothing of it: a device's id is personal.
impl std::fmt::Debug for Holder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Holder")
    }
}

/// A request that named an account, not a capability.
#[derive(Clone)]
pub struct CalledByName {
    /// The request.
    pub request: Message,
    /// How it came in.
    pub arrival: Arrival,
}

impl PartialEq for CalledByName {
    fn eq(&self, other: &Self) -> bool {
        self.request.bytes() == other.request.bytes() && self.arrival.peer == other.arrival.peer
    }
}

impl Eq for CalledByName {}

/// Nothing of it: requests hold names and numbers.
impl std::fmt::Debug for CalledByName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CalledByName").finish_non_exhaustive()
    }
}

/// SHA-256 of an instance token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

/// What can be asked of an engine. Instance calls carry the hash of the presented token.
pub enum Command {
    /// `POST /v1/instances`.
    HandOver(Box<HandOver>),
    /// `GET /v1/instances/{id}`.
    Show(InstanceId, TokenHash),
    /// `PATCH /v1/instances/{id}`.
    Rectify(InstanceId, TokenHash, Box<Rectification>),
    /// `POST /v1/instances/{id}/refresh`.
    Refresh(InstanceId, TokenHash),
    /// `POST /v1/instances/{id}/foreground`.
    Foreground(InstanceId, TokenHash, Parting),
    /// `POST /v1/instances/{id}/restrict`.
    Restrict(InstanceId, TokenHash),
    /// `DELETE /v1/instances/{id}/restrict`.
    Resume(InstanceId, TokenHash),
    /// `POST /v1/instances/{id}/trace`.
    Consent(InstanceId, TokenHash, Consent),
    /// `GET /v1/instances/{id}/trace`.
    ReadTrace(InstanceId, TokenHash),
    /// `DELETE /v1/instances/{id}/trace`.
    WithdrawTrace(InstanceId, TokenHash),
    /// `GET /v1/tenants/self/instances/{id}/trace`.
    ReadTraceAsTenant(TenantId, InstanceId),
    /// `DELETE /v1/instances/{id}`.
    Erase(InstanceId, TokenHash),
    /// `GET /v1/instances/{id}/data`.
    Data(InstanceId, TokenHash),
    /// `GET /v1/instances/{id}/calls/{call}`.
    Call(InstanceId, TokenHash, CallUuid),
    /// `POST /v1/instances/{id}/calls/{call}/decline`.
    Decline(InstanceId, TokenHash, CallUuid, Decline),
    /// `POST /v1/instances/{id}/test`.
    BeginTest(InstanceId, TokenHash),
    /// `GET /v1/instances/{id}/test/{test}`.
    Test(InstanceId, TokenHash, uuid::Uuid),
    /// `POST /v1/instances/{id}/test/{test}`: its push arrived.
    TestArrived(InstanceId, TokenHash, uuid::Uuid),
    /// `POST /v1/instances/{id}/push-proof`: the challenge, or none to ask for another.
    Prove(InstanceId, TokenHash, Option<String>),
    /// The stories of calls, for the operator.
    Stories {
        /// Only this call's.
        call: Option<CallUuid>,
        /// At most so many, the newest first.
        most: usize,
    },
    /// `DELETE /v1/tenants/self/instances`, of all, of a device or of one instance.
    EraseAll {
        /// The tenant.
        tenant: TenantId,
        /// Which of its instances.
        whom: Whom,
    },
}

/// Which of its instances a tenant's administrator means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// All: the tenant leaves.
    Tenant,
    /// Those of one device, by its `urn:uuid:`.
    Device(String),
    /// One.
    Instance(InstanceId),
}

impl Whom {
    /// What the records say of the erasures.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Tenant => Cause::OffBoarded,
            Self::Device(_) | Self::Instance(_) => Cause::Administrator,
        }
    }
}

/// An account handed over. Member checks that need no state are done.
pub struct HandOver {
    /// Whose app.
    pub tenant: TenantId,
    /// The device's `urn:uuid:`.
    pub device: String,
    /// `ios`, `android` or what the app says.
    pub platform: String,
    /// The account.
    pub account: Account,
    /// Its credentials.
    pub material: Material,
    /// Where pushes go; at least one is usable.
    pub push: Vec<PushTarget>,
    /// What the caller is sealed to, where the tenant wants that.
    pub caller_key: Option<CallerKey>,
    /// How long we may hold it.
    pub lease: Duration,
    /// How the app wants it.
    pub preferences: Preferences,
}

/// How an app wants its instance to be kept and its calls handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Registration mode.
    pub mode: Mode,
    /// How a held call reaches the woken device.
    pub hand_over: CallHandOver,
    /// Whether we subscribe to the mailbox's state (RFC 3842) for it; unsolicited news is always taken.
    pub voicemail_subscribe: bool,
}

/// Changes of an instance; absent members stay.
#[derive(Default)]
pub struct Rectification {
    /// New push targets.
    pub push: Option<Vec<PushTarget>>,
    /// A new key for the caller, or none any more.
    pub caller_key: Option<Option<CallerKey>>,
    /// A new account; if its destination or user differ, `material` must be there.
    pub account: Option<Account>,
    /// New credentials.
    pub material: Option<Material>,
    /// New preferences.
    pub preferences: Option<Preferences>,
}

/// What becomes of the binding when the app comes to the foreground.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parting {
    /// It is removed at the registrar.
    #[default]
    Release,
    /// It stays at the registrar until its granted expiry.
    Keep,
}

/// Registration mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// We keep the registration for the whole lease.
    #[default]
    Always,
    /// Only while the app is in the background; `POST …/foreground` wipes the secret.
    Background,
    /// For PBXs that allow one contact: ours takes the place of the existing one, and hands it back.
    Takeover,
}

impl Mode {
    /// The name used in the API and the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Background => "background",
            Self::Takeover => "takeover",
        }
    }
}

/// How a held call reaches the woken device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallHandOver {
    /// The device attaches at our edge and gets the INVITE there.
    #[default]
    Relay,
    /// The device registers at its PBX by itself, which forks the call to it late; our branch is cancelled.
    Reregister,
}

/// Provider, app and token of a device.
#[derive(Clone, PartialEq, Eq)]
pub struct PushTarget {
    /// For calls, or for everything else.
    pub purpose: PushPurpose,
    /// Who carries it.
    pub provider: Provider,
    /// The app's id at the provider.
    pub app: String,
    /// What the provider calls the device.
    pub token: PushToken,
}

/// What a push target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushPurpose {
    /// `"for": "call"`.
    Call,
    /// `"for": "other"`.
    Other,
}

/// How a device declines over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decline {
    /// Why.
    pub reason: DeclineReason,
    /// Decline for all devices of the callee: 603 instead of 486.
    pub everywhere: bool,
}

/// Why a device declines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeclineReason {
    /// 486.
    Busy,
    /// 486, or 603 if everywhere.
    Decline,
    /// 480.
    Unavailable,
}
