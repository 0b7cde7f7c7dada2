//! Everything an engine can ask of the world. The shell is a `match` over it.

mod calls;
mod held;
mod pushes;
mod registration;
mod traces;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::account::{TenantId, TrunkUri};
use super::audit::{AuditRecord, Cause, Receipt, Unregister};
use super::caller_key::CallerKey;
use super::ids::{CallUuid, FlowId, InstanceId, ListenerId, QueryId, RecordId, ReplyTo, ShardId};
use super::input::{PeerMessage, PushPurpose};
use super::permits::Crowded;
use super::policy::{CallerInPush, Provider};
use super::proof::ProofState;
use super::story::Story;
use crate::clock::WallTime;
use crate::sip::Transport;

pub use calls::{CallOutcome, CallState, CallView, Step};
pub use held::{HeldView, MailboxView};
pub use pushes::Unsent;
pub use pushes::{Caller, PushJob, PushOutcome, Remedy, ToldCaller, WakeDetail, WakeKind};
pub use registration::RegistrationReason;
pub use traces::{Consent, ConsentView, TraceEntry, TraceKind, TraceView};

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
    /// The address granted a REGISTER: it counts as a registrar for this long.
    Registrar(IpAddr, Duration),
    /// A device attached from there: it gets what it asks for, and nothing that only a registrar may have, for this long.
    Device(SocketAddr, Duration),
    /// Something an operator would notice.
    Note(Note),
    /// Everything is erased after `Input::Drain`.
    Drained,
}

/// Where bytes go.
#[derive(Clone, PartialEq, Eq)]
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
#[derive(Clone, PartialEq, Eq, Hash)]
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
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TlsIdentity {
    /// The name or address in the certificate (and SNI).
    pub host: String,
    /// The SHA-256 of the public key, instead of a chain to a known root.
    pub spki_sha256: Option<[u8; 32]>,
}

/// A trunk destination whose pacing, proof and failure state live in one home shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// Transport.
    pub transport: Transport,
    /// Pinned address.
    pub address: SocketAddr,
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
    /// To `BeginTest`.
    TestBegun(TestView),
    /// To `Test` and `TestArrived`.
    Test(TestView),
    /// To `Prove`.
    PushProof(ProofState),
    /// To `Erase`.
    Erased {
        /// The signed receipt.
        receipt: Box<Receipt>,
        /// Whether the record was synced in time.
        logged: bool,
    },
    /// To `Foreground`.
    Foreground(Box<ForegroundView>),
    /// To `Consent`.
    Consent(ConsentView),
    /// To `ReadTrace` and `ReadTraceAsTenant`.
    Trace(Box<TraceView>),
    /// To `WithdrawTrace`: whether there was one.
    TraceEnded(bool),
    /// To `EraseAll`: how far it is in this shard.
    Ordered(Box<OrderView>),
    /// To `Stories`, the newest first.
    Stories(Vec<Story>),
    /// To any.
    Refused(Refusal),
}

/// How far an administrator's order is in one shard, or in several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderView {
    /// When it was given.
    pub begun: WallTime,
    /// When the last instance was wiped and recorded; `None`: not yet.
    pub ended: Option<WallTime>,
    /// Instances that are not wiped and recorded yet.
    pub left: u32,
    /// Instances wiped, by what their registrars said.
    pub unregister: BTreeMap<Unregister, u32>,
    /// Of those recorded: whose record was synced in time.
    pub logged: u32,
    /// Registrations that pass through us and were ended; they hold no credentials.
    pub passed: u32,
}

impl OrderView {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.begun = self.begun.min(other.begun);
        self.ended = self.ended.zip(other.ended).map(|(one, another)| one.max(another));
        self.left = self.left.saturating_add(other.left);
        self.logged = self.logged.saturating_add(other.logged);
        self.passed = self.passed.saturating_add(other.passed);
        for (outcome, count) in other.unregister {
            let sum = self.unregister.entry(outcome).or_default();
            *sum = sum.saturating_add(count);
        }
        self
    }

    /// Instances wiped.
    #[must_use]
    pub fn erased(&self) -> u32 {
        self.unregister.values().copied().fold(0, u32::saturating_add)
    }
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
#[derive(Clone, PartialEq, Eq)]
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
    /// How much its pushes tell of the caller.
    pub caller_in_push: CallerInPush,
    /// How far the proof of its push token is.
    pub push_proof: ProofState,
    /// Whether it took a predecessor's place (200 instead of 201).
    pub replaced: bool,
    /// Whose app handed it over: a sealed caller is bound to it.
    pub tenant: TenantId,
}

/// The registration as the app may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationView {
    /// Where it stands.
    pub state: RegistrationState,
    /// Granted expiry, while registered.
    pub expires: Option<Duration>,
    /// Why it fails or waits, or what is unusual about it.
    pub reason: Option<RegistrationReason>,
    /// The registrar's last verdict in words, or what went wrong instead of one.
    pub verdict: Option<String>,
    /// Contacts that the registrar's last 200 listed beside ours.
    pub other_contacts: u32,
    /// Contacts the registrar knew and, before their time, no longer lists since ours came.
    pub dropped_contacts: u32,
    /// Contacts whose place ours took, as the app asked for; it is given back when ours ends.
    pub replaced_contacts: u32,
    /// A change of place that has not come about: the registration told of here is at the former place.
    pub moving: Option<MoveView>,
}

/// What became of a change of place so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveView {
    /// The new place has not decided yet.
    Waiting,
    /// The new place refused or could not be reached, in words.
    Failed(String),
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
    /// Its processing is restricted: the credentials are held, and nothing is asked of the registrar.
    Restricted,
    /// It is being removed.
    Erasing,
}

impl RegistrationState {
    /// All states, in the order of their gauges.
    pub const ALL: [Self; 6] =
        [Self::Registering, Self::Registered, Self::Failing, Self::Foreground, Self::Restricted, Self::Erasing];

    /// The name used in the API and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Failing => "failing",
            Self::Foreground => "foreground",
            Self::Restricted => "restricted",
            Self::Erasing => "erasing",
        }
    }
}

/// How a woken app attaches.
#[derive(Clone, PartialEq, Eq)]
pub struct AttachView {
    /// Registrar or outbound proxy for the app's SIP stack.
    pub uri: String,
    /// WebSocket ways to attach.
    pub alternatives: Vec<String>,
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
    /// How much its pushes tell of the caller.
    pub caller_in_push: CallerInPush,
    /// How far the proof of its push token is.
    pub push_proof: ProofState,
    /// Whether a device is attached.
    pub attached: bool,
    /// Requests to the capability that were dropped for their source.
    pub trunk_drops: u64,
    /// Whether its phone was offered media on a private address since the hand-over.
    pub private_media_address: bool,
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
    /// Push targets: purpose, provider, app, and under which name the provider knows the device (`token`, `fid`).
    pub push: Vec<(PushPurpose, Provider, String, &'static str)>,
    /// What the caller is sealed to.
    pub caller_key: Option<CallerKey>,
    /// When it was handed over.
    pub handed_over: WallTime,
    /// What came to be held since.
    pub held: HeldView,
}

/// A self-test as its app may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestView {
    /// Its name, as in the push.
    pub test: uuid::Uuid,
    /// When the app asked.
    pub requested_at: WallTime,
    /// When the provider took the push, and how long after the request.
    pub accepted: Option<(WallTime, Duration)>,
    /// When the app told of the push's arrival, and how long after the request.
    pub arrived: Option<(WallTime, Duration)>,
    /// Why the push was not sent or not taken.
    pub failure: Option<&'static str>,
}

/// Why a command was refused. `api` maps it to a problem type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such instance for that token.
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
    /// The registrar's challenge cannot be signed.
    ChallengeUnsignable {
        /// The registrar's verdict, and what stands in the way.
        verdict: String,
        /// Whether other credentials would help.
        reason: RegistrationReason,
    },
    /// No verdict came: DNS, connect, TLS and filter alike.
    RegistrarUnreachable,
    /// The instance's mode keeps the credentials in the foreground too.
    WrongMode,
    /// The instance is restricted: it is held, and nothing is done with it.
    Restricted,
    /// The instance has no such call any more, or it cannot be declined any more.
    CallOver,
    /// The instance has no such self-test any more.
    TestOver,
    /// The instance has no trace.
    NoTrace,
    /// No push target of the device takes this kind of wake.
    NoPushTarget,
    /// The operator has switched this off for the tenant.
    SwitchedOff,
    /// It is not the challenge that was pushed; so many tries are left.
    WrongChallenge {
        /// None left: another one has to be asked for.
        tries: u8,
    },
    /// The push token is not proven yet, and nothing but the challenge goes to it.
    Unproven,
    /// The account has as many devices as it may, and each of them was heard of within a day.
    TooManyDevices {
        /// When the first of their leases ends.
        after: Duration,
    },
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
    /// No further accounts can be kept registered at a registrar's address.
    RegistrarFull(Crowded),
    /// A registration changed its state.
    Registration(InstanceId, RegistrationState, Option<RegistrationReason>, Option<u16>),
    /// A call ended.
    CallEnded(CallUuid, InstanceId, CallOutcome),
    /// The same call's story, once it is over.
    CallStory(Box<Story>),
    /// Further calls that ended as one that has a story, and were only counted.
    CallsRepeated {
        /// Whose.
        instance: InstanceId,
        /// The call that has the story.
        call: CallUuid,
        /// Why they ended.
        reason: &'static str,
        /// How many since the last note of them.
        count: u32,
    },
    /// A push was refused for a fault of ours or the operator's.
    PushMisconfigured(Provider, String),
    /// An instance was erased.
    Erased(InstanceId, Cause),
}
