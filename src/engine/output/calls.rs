//! Calls as others see them: state, end, and the steps of their stories.

use super::super::story::Story;

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
    /// All steps, with empty reasons.
    pub const ALL: [Self; 12] = [
        Self::Invited,
        Self::WakeSent,
        Self::WakeAccepted,
        Self::WakeFailed(""),
        Self::Attached,
        Self::AttachRefused(""),
        Self::Forwarded,
        Self::Ringing,
        Self::FlowLost,
        Self::PrivateMediaAddress,
        Self::Answered,
        Self::Ended(""),
    ];

    /// Why a call may have ended.
    pub const ENDS: [&str; 11] = [
        "cancelled",
        "answered-elsewhere",
        "declined",
        "no-device",
        "no-answer",
        "failed",
        "limited",
        "unproven",
        "erased",
        "hung-up",
        "stepped-aside",
    ];

    /// Of these, what a push tells a phone that still shows the call.
    pub const TOLD_ENDS: [&str; 3] = ["cancelled", "answered-elsewhere", "declined"];

    /// Why a device may not have been let in.
    pub const ATTACH_FAULTS: [&str; 3] = ["wrong-token", "wrong-uri", "erased"];

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

/// A call as its device may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallView {
    /// Where it stands.
    pub state: CallState,
    /// Why it ended.
    pub reason: Option<&'static str>,
    /// What happened so far; `None` in the answer to `Decline`, and where it is forgotten.
    pub story: Option<Box<Story>>,
    /// Whether the instance's phone was offered media on a private address since the hand-over.
    pub private_media_address: bool,
}

impl CallView {
    /// A call without its story.
    #[must_use]
    pub fn new(state: CallState, reason: Option<&'static str>) -> Self {
        Self { state, reason, story: None, private_media_address: false }
    }
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
    /// All states, in the order of a call.
    pub const ALL: [Self; 4] = [Self::Waking, Self::Ringing, Self::Answered, Self::Ended];

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
