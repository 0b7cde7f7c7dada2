//! Wakes as they leave the engine: what a push is, why it is sent, what became of it.

use serde::{Deserialize, Serialize};

use super::super::account::TenantId;
use super::super::caller_key::CallerKey;
use super::super::ids::{CallUuid, InstanceId, WakeId};
use super::super::input::PushPurpose;
use super::super::policy::Provider;
use super::super::proof::Challenge;
use super::super::push_token::PushToken;
use crate::clock::{Instant, WallTime};
use std::time::Duration;

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
    /// What the provider calls the device.
    pub token: PushToken,
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
    pub caller: Option<ToldCaller>,
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
    /// Missed-call: how many calls it stands for.
    Missed(u32),
    /// Call-ended: why.
    Ended(&'static str),
    /// Test: which one.
    Test(uuid::Uuid),
    /// Proof: the challenge.
    Proof(Challenge),
}

/// Who calls, and how much of it the push says.
#[derive(Clone, PartialEq, Eq)]
pub enum ToldCaller {
    /// As it is.
    Clear(Caller),
    /// Sealed to the device's key, with one length whoever calls.
    Sealed(CallerKey, Caller),
}

/// Who calls, in clear.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Display name, if any.
    pub name: Option<String>,
    /// The number as an address book has it, or the user part where that is none; empty if it is not told.
    pub number: String,
}

/// Why a push is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    /// An app that registers through us must renew its registration.
    Refresh,
    /// The app must return a challenge, so that other pushes may follow.
    Proof,
}

impl WakeKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Call,
        Self::CallEnded,
        Self::MissedCall,
        Self::Message,
        Self::Voicemail,
        Self::Expiring,
        Self::Reprovision,
        Self::Test,
        Self::Refresh,
        Self::Proof,
    ];

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name used in the payload, the configuration and metrics.
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
            Self::Refresh => "refresh",
            Self::Proof => "proof",
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
    /// The provider does not know the token, which may be the token's fault or that of the configured environment.
    TokenRejected(String),
    /// Refused for a fault of ours or the operator's (key, topic, payload). Not retried.
    OurFault(String),
    /// Our access token or provider token was not taken, and the next send carries a fresh one.
    Unauthenticated(String),
    /// Lost on the way, or without an answer: it may have been delivered all the same.
    Theirs(String),
    /// The provider failed over it (5xx): it may have been delivered all the same.
    Unavailable {
        /// Status and word.
        why: String,
        /// How much later it asks to be asked again, where it says so.
        after: Option<Duration>,
    },
    /// Refused for now: the provider asks us to come later (429).
    Later {
        /// How much later, where it says so.
        after: Option<Duration>,
    },
    /// Not sent: its deadline passed, or too many were waiting.
    NotSent,
}

/// What may still come of a push that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The same answer would come again.
    None,
    /// Another send at once, which carries a fresh proof of who we are.
    FreshIdentity,
    /// Another send at once, to the token that the device has now.
    FreshToken,
    /// Another send after this long, or after a pause of our choice.
    Pause(Option<Duration>),
}

impl PushOutcome {
    /// What [`fault`](Self::fault) may say.
    pub const FAULTS: [&str; 6] =
        ["token-dead", "token-rejected", "misconfigured", "provider-failed", "provider-busy", "not-sent"];

    /// Why it was not taken, in the words of self-tests and of a call's story; `None` if it was.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Accepted => None,
            Self::TokenDead { .. } => Some("token-dead"),
            Self::TokenRejected(_) => Some("token-rejected"),
            Self::OurFault(_) | Self::Unauthenticated(_) => Some("misconfigured"),
            Self::Theirs(_) | Self::Unavailable { .. } => Some("provider-failed"),
            Self::Later { .. } => Some("provider-busy"),
            Self::NotSent => Some("not-sent"),
        }
    }

    /// Whether another send may be taken.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Accepted | Self::TokenDead { .. } | Self::TokenRejected(_) | Self::OurFault(_) | Self::NotSent => {
                Remedy::None
            }
            Self::Unauthenticated(_) => Remedy::FreshIdentity,
            Self::Theirs(_) => Remedy::Pause(None),
            Self::Unavailable { after, .. } | Self::Later { after } => Remedy::Pause(*after),
        }
    }

    /// Whether it was certainly not delivered and never will be.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TokenDead { .. }
            | Self::TokenRejected(_)
            | Self::OurFault(_)
            | Self::Unauthenticated(_)
            | Self::Later { .. }
            | Self::NotSent => true,
            Self::Accepted | Self::Theirs(_) | Self::Unavailable { .. } => false,
        }
    }
}

/// Why no push was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The instance has used its budget.
    OverBudget,
    /// The device gave no target for this purpose.
    NoTarget,
    /// The tenant does not want wakes of this kind.
    Off,
    /// The instance is restricted.
    Restricted,
    /// An earlier wake stands for this news too, and its device has not attached since.
    Told,
    /// The push token is not proven yet.
    Unproven,
    /// The push token is another device's.
    Contested,
}

impl Unsent {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 7] =
        [Self::OverBudget, Self::NoTarget, Self::Off, Self::Restricted, Self::Told, Self::Unproven, Self::Contested];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverBudget => "over-budget",
            Self::NoTarget => "no-target",
            Self::Off => "off",
            Self::Restricted => "restricted",
            Self::Told => "told",
            Self::Unproven => "unproven",
            Self::Contested => "contested",
        }
    }
}
