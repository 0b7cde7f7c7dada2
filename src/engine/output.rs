//! Everything an engine can ask of the world. The shell is a `match` over it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::account::{TenantId, TrunkUri};
use super::audit::{AuditRecord, Cause, Receipt};
use super::ids::{CallUuid, FlowId, InstanceId, ListenerId, QueryId, RecordId, ReplyTo, ShardId, WakeId};
use super::input::{PeerMessage, PushPurpose};
use super::policy::Provider;
use crate::clock::{Instant, WallTime};
use crate::sip::Transport;

/// One effect.
pub enum Output {
    /// Send the bytes of this range of the caller's buffer.
    Send(Hop, Range<usize>),
    /// Answer a command.
    Reply(ReplyTo, Box<Answer>),
    /// Locate a trunk (RFC 3263); answered with `Input::Located`.
    Locate(QueryId, TrunkUri),
    /// Send a push; answered with `Input::Pushed`, always.
    Push(Box<PushJob>),
    /// Append a record. With an id, the receipt comes back as `Input::Recorded`, always.
    Record(Box<RecordJob>),
    /// Tell another shard.
    Peer(ShardId, PeerMessage),
    /// Close a connection: a stranger's, or one that broke the rules.
    CloseFlow(FlowId),
    /// The address answered our REGISTER: it counts as a registrar for this long.
    Proven(IpAddr, Duration),
    /// Something an operator would notice.
    Note(Note),
    /// Everything is erased after `Input::Drain`.
    Drained,
}

/// Where bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// From a UDP listener to a peer.
    Datagram {
        /// The listener's socket.
        listener: ListenerId,
        /// The receiver.
        peer: SocketAddr,
    },
    /// Down a live connection.
    Flow(FlowId),
    /// Down the shared connection to a destination, opened if there is none.
    Trunk(Arc<TrunkKey>),
}

impl Hop {
    /// The shared connection, if it is one.
    #[must_use]
    pub fn trunk(&self) -> Option<&Arc<TrunkKey>> {
        match self {
            Self::Trunk(key) => Some(key),
            Self::Datagram { .. } | Self::Flow(_) => None,
        }
    }
}

/// Which connections to a destination may be shared: all members equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrunkKey {
    /// `Tcp` or `Tls`.
    pub transport: Transport,
    /// The pinned address.
    pub remote: SocketAddr,
    /// The listener whose `advertise` stands in our Via and Contact.
    pub listener: ListenerId,
    /// For TLS: who must be at the other end.
    pub identity: Option<TlsIdentity>,
}

/// Who must be at the other end of a TLS trunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsIdentity {
    /// The name or address in the certificate (and SNI).
    pub host: String,
    /// The SHA-256 of the public key, instead of a chain to a known root.
    pub spki_sha256: Option<[u8; 32]>,
}

/// A trunk destination whose pacing, proof and failure state live in one home shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// Transport.
    pub transport: Transport,
    /// Pinned address.
    pub address: SocketAddr,
}

/// One push to send.
pub struct PushJob {
    /// Names the outcome.
    pub wake: WakeId,
    /// Whose app.
    pub tenant: TenantId,
    /// Who carries it.
    pub provider: Provider,
    /// The app at the provider.
    pub app: String,
    /// The device's token.
    pub token: String,
    /// Which of the device's targets this is (on APNs it chooses VoIP or alert).
    pub purpose: PushPurpose,
    /// Why.
    pub kind: WakeKind,
    /// The call, for the kinds about one.
    pub call: Option<CallUuid>,
    /// The instance.
    pub instance: InstanceId,
    /// When the push is worth nothing any more (payload and provider expiry).
    pub expires_at: WallTime,
    /// When its outcome is worth nothing any more.
    pub deadline: Instant,
    /// The attach URI.
    pub attach: String,
    /// The caller, as far as the tenant wants it told.
    pub caller: Option<Caller>,
    /// What this kind tells besides.
    pub detail: WakeDetail,
}

/// What a wake of one kind tells besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WakeDetail {
    /// Nothing.
    #[default]
    None,
    /// Voicemail: messages in the mailbox (RFC 3842 §3.5, `voice-message`).
    Voicemail {
        /// Not heard yet.
        new: u32,
        /// Heard.
        old: u32,
    },
    /// Expiring: when the lease ends, and whether the user is shown it.
    Expiring {
        /// Lease end.
        lease_ends: WallTime,
        /// Whether the user sees it; else only the app.
        visible: bool,
    },
    /// Call-ended: why.
    Ended(&'static str),
    /// Test: which one.
    Test(uuid::Uuid),
}

/// A moment in a call's story. Free of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The INVITE came in.
    Invited,
    /// A wake was handed to the provider.
    WakeSent,
    /// The provider accepted it.
    WakeAccepted,
    /// No wake could be sent, or the provider refused it.
    WakeFailed(&'static str),
    /// The device attached.
    Attached,
    /// A REGISTER for the instance was refused.
    AttachRefused(&'static str),
    /// The INVITE was forwarded to the device.
    Forwarded,
    /// The device rings.
    Ringing,
    /// The device's flow ended before it answered.
    FlowLost,
    /// A phone was offered media on a private address: a PBX counts us among its local networks.
    PrivateMediaAddress,
    /// The device answered.
    Answered,
    /// It ended without an answer of this device, for this reason.
    Ended(&'static str),
}

impl Step {
    /// The name used in the API, the log and `reveille calls`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::WakeSent => "wake-sent",
            Self::WakeAccepted => "wake-accepted",
            Self::WakeFailed(_) => "wake-failed",
            Self::Attached => "attached",
            Self::AttachRefused(_) => "attach-refused",
            Self::Forwarded => "forwarded",
            Self::Ringing => "ringing",
            Self::FlowLost => "flow-lost",
            Self::PrivateMediaAddress => "private-media-address",
            Self::Answered => "answered",
            Self::Ended(_) => "ended",
        }
    }

    /// Why, for the steps that have a reason.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::WakeFailed(reason) | Self::AttachRefused(reason) | Self::Ended(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Who calls, in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    /// Display name, if any.
    pub name: Option<String>,
    /// User part or whole URI.
    pub number: String,
}

/// Why a push is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeKind {
    /// A call is held.
    Call,
    /// The call a wake was sent for is over.
    CallEnded,
    /// A call was missed.
    MissedCall,
    /// A text message waits.
    Message,
    /// The mailbox changed.
    Voicemail,
    /// The lease is about to end.
    Expiring,
    /// The app must hand over again.
    Reprovision,
    /// The app asked for a test.
    Test,
}

impl WakeKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Call,
        Self::CallEnded,
        Self::MissedCall,
        Self::Message,
        Self::Voicemail,
        Self::Expiring,
        Self::Reprovision,
        Self::Test,
    ];

    /// The name used in the payload and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::CallEnded => "call-ended",
            Self::MissedCall => "missed-call",
            Self::Message => "message",
            Self::Voicemail => "voicemail",
            Self::Expiring => "expiring",
            Self::Reprovision => "reprovision",
            Self::Test => "test",
        }
    }
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The provider took it.
    Accepted,
    /// The token is dead; since when, where the provider says so.
    TokenDead {
        /// The provider's timestamp.
        since: Option<WallTime>,
    },
    /// Refused for a fault of ours or the operator's (key, topic, payload). Not retried.
    OurFault(String),
    /// Refused or lost for a fault of the provider's, after what retrying made sense.
    Theirs(String),
    /// The provider asks us to come later.
    Later {
        /// How much later, where it says so.
        after: Option<Duration>,
    },
    /// Not sent: its deadline passed, or too many were waiting.
    NotSent,
}

/// Why no push was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The instance has used its budget.
    OverBudget,
    /// The device gave no target for this purpose.
    NoTarget,
}

/// A record to append.
pub struct RecordJob {
    /// The record.
    pub record: AuditRecord,
    /// For an erasure: what the receipt needs besides.
    pub receipt: Option<ReceiptJob>,
}

/// What a receipt needs besides the record.
pub struct ReceiptJob {
    /// Names the answer.
    pub id: RecordId,
    /// The instance.
    pub instance: InstanceId,
    /// The salt of the record's subject.
    pub salt: [u8; 32],
}

/// The answer to a command.
pub enum Answer {
    /// To a hand-over.
    HandedOver(Box<HandedOver>),
    /// To `Show`, `Rectify` and `Refresh`.
    Instance(Box<InstanceView>),
    /// To `Data`.
    Data(Box<DataView>),
    /// To `Call` and `Decline`.
    Call(CallView),
    /// To `Erase`.
    Erased {
        /// The signed receipt.
        receipt: Box<Receipt>,
        /// Whether the record was synced in time.
        logged: bool,
    },
    /// To `Foreground`.
    Foreground(Box<ForegroundView>),
    /// To `EraseAll`: how many.
    ErasedAll(u32),
    /// To any.
    Refused(Refusal),
}

/// What became of an instance whose app came to the foreground.
#[derive(Clone)]
pub struct ForegroundView {
    /// The signed receipt of the wipe.
    pub receipt: Box<Receipt>,
    /// Whether the record was synced in time.
    pub logged: bool,
    /// What became of the binding.
    pub kept: Option<KeptContact>,
}

/// A Contact that was left at the registrar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptContact {
    /// Its URI.
    pub contact: String,
    /// How long the registrar holds it.
    pub expires: Duration,
}

/// What a hand-over returns.
pub struct HandedOver {
    /// The instance.
    pub instance: InstanceId,
    /// The bearer token, once and never again.
    pub token: Zeroizing<String>,
    /// The lease's end.
    pub lease_ends: WallTime,
    /// What the registrar said so far.
    pub registration: RegistrationView,
    /// Where the woken app attaches.
    pub attach: AttachView,
    /// Whether it took a predecessor's place (200 instead of 201).
    pub replaced: bool,
}

/// The registration as the app may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationView {
    /// Where it stands.
    pub state: RegistrationState,
    /// Granted expiry, while registered.
    pub expires: Option<Duration>,
    /// The registrar's last verdict in words, or what went wrong instead of one.
    pub verdict: Option<String>,
    /// Contacts that the registrar's last 200 listed beside ours.
    pub other_contacts: u32,
    /// Contacts the registrar knew and, before their time, no longer lists since ours came.
    pub dropped_contacts: u32,
    /// Contacts whose place ours took, as the app asked for; it is given back when ours ends.
    pub replaced_contacts: u32,
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegistrationState {
    /// The first REGISTER is under way.
    Registering,
    /// The registrar granted an expiry that is not over.
    Registered,
    /// It failed; we try again by and by.
    Failing,
    /// The app is in the foreground: no credentials are held, nothing is refreshed.
    Foreground,
    /// It is being removed.
    Erasing,
}

impl RegistrationState {
    /// All states, in the order of their gauges.
    pub const ALL: [Self; 5] = [Self::Registering, Self::Registered, Self::Failing, Self::Foreground, Self::Erasing];

    /// The name used in the API and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Failing => "failing",
            Self::Foreground => "foreground",
            Self::Erasing => "erasing",
        }
    }
}

/// How a woken app attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachView {
    /// Registrar or outbound proxy for the app's SIP stack.
    pub uri: String,
    /// To and From of its REGISTER.
    pub aor: String,
    /// Digest user name.
    pub username: String,
    /// Digest realm.
    pub realm: String,
}

/// An instance as its app may see it.
pub struct InstanceView {
    /// The instance.
    pub instance: InstanceId,
    /// The registration.
    pub registration: RegistrationView,
    /// The lease's end.
    pub lease_ends: WallTime,
    /// How to attach.
    pub attach: AttachView,
    /// Whether a device is attached.
    pub attached: bool,
    /// Requests to the capability that were dropped for their source.
    pub trunk_drops: u64,
}

/// Everything held about an instance; secrets only as present or absent.
pub struct DataView {
    /// What `Show` tells.
    pub view: InstanceView,
    /// Whose app.
    pub tenant: TenantId,
    /// The device.
    pub device: String,
    /// The device's platform.
    pub platform: String,
    /// The account, without credentials.
    pub account: super::account::Account,
    /// How the app wants it kept and its calls handed over.
    pub preferences: super::input::Preferences,
    /// Whether a password is held.
    pub password: bool,
    /// Realms and algorithms an HA1 is held for.
    pub ha1: Vec<(String, &'static str)>,
    /// Push targets: purpose, provider, app. The token only as present.
    pub push: Vec<(PushPurpose, Provider, String)>,
    /// When it was handed over.
    pub handed_over: WallTime,
}

/// A call as its device may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallView {
    /// Where it stands.
    pub state: CallState,
    /// Why it ended.
    pub reason: Option<&'static str>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallState {
    /// The INVITE waits for its device.
    Waking,
    /// It was forwarded.
    Ringing,
    /// The device answered.
    Answered,
    /// It is over.
    Ended,
}

impl CallState {
    /// The name used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waking => "waking",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
            Self::Ended => "ended",
        }
    }
}

/// Why a command was refused. `api` maps it to a problem type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such instance for that token, or no such call.
    NotFound,
    /// The token is right; the instance is erased.
    Gone {
        /// Why.
        cause: Cause,
        /// The receipt, once there is one.
        receipt: Option<Box<Receipt>>,
    },
    /// The account cannot be used as given.
    InvalidAccount(String),
    /// The registrar or proxy is not one that may be registered at.
    RegistrarNotAllowed(String),
    /// The registrar's verdict, verbatim.
    RegistrarRefused(String),
    /// No verdict came: DNS, connect, TLS and filter alike.
    RegistrarUnreachable,
    /// The account was moved, its former credentials are wiped, and the new place refused: the instance is erased.
    ErasedByMove(Box<Refusal>),
    /// The instance's mode keeps the credentials in the foreground too.
    WrongMode,
    /// The call cannot be declined any more.
    CallOver,
    /// A bound of the device, tenant or source.
    RateLimited {
        /// When to come again.
        after: Duration,
    },
    /// A bound of the process, a drain, or an audit log that cannot be written.
    Busy {
        /// When to come again.
        after: Duration,
    },
}

/// What an operator would notice. Holds nothing personal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An instance was handed over.
    HandedOver(InstanceId),
    /// A registration changed its state.
    Registration(InstanceId, RegistrationState, Option<u16>),
    /// A call ended.
    CallEnded(CallUuid, InstanceId, CallOutcome),
    /// A push was refused for a fault of ours or the operator's.
    PushMisconfigured(Provider, String),
    /// An instance was erased.
    Erased(InstanceId, Cause),
}

/// How a call ended, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// The device answered.
    Answered,
    /// The caller hung up first.
    Cancelled,
    /// The device declined.
    Declined,
    /// No device came in time.
    NoDevice,
    /// The device came and failed.
    Failed,
    /// The wake could not be delivered.
    NoPush,
    /// A limit was reached.
    Limited,
    /// Erased or shut down meanwhile.
    Erased,
}

impl CallOutcome {
    /// All outcomes, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Answered,
        Self::Cancelled,
        Self::Declined,
        Self::NoDevice,
        Self::Failed,
        Self::NoPush,
        Self::Limited,
        Self::Erased,
    ];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::Declined => "declined",
            Self::NoDevice => "no-device",
            Self::Failed => "failed",
            Self::NoPush => "no-push",
            Self::Limited => "limited",
            Self::Erased => "erased",
        }
    }
}
