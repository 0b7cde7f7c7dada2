//! What the engine counts. The shell takes the tally after each batch and publishes it.

use std::time::Duration;

use super::audit::Cause;
use super::output::{CallOutcome, RegistrationReason, RegistrationState, Unsent};

/// What became of a REGISTER exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// 200.
    Granted,
    /// A challenge on the way (401, 407, 423 included).
    Challenged,
    /// Refused credentials.
    Refused,
    /// A challenge that nothing held signs.
    Unsignable,
    /// Another final answer.
    Failed,
    /// No answer.
    Silent,
}

impl RegisterOutcome {
    /// All outcomes, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Granted, Self::Challenged, Self::Refused, Self::Unsignable, Self::Failed, Self::Silent];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Challenged => "challenged",
            Self::Refused => "refused",
            Self::Unsignable => "unsignable",
            Self::Failed => "failed",
            Self::Silent => "silent",
        }
    }
}

/// A milestone of a call, timed from the INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A wake was handed to the provider.
    PushSent,
    /// The provider accepted the wake.
    PushAccepted,
    /// The device attached.
    Attached,
    /// The INVITE was forwarded.
    Forwarded,
    /// The device rings.
    Ringing,
    /// The device answered.
    Answered,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 6] =
        [Self::PushSent, Self::PushAccepted, Self::Attached, Self::Forwarded, Self::Ringing, Self::Answered];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PushSent => "push-sent",
            Self::PushAccepted => "push-accepted",
            Self::Attached => "attached",
            Self::Forwarded => "forwarded",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
        }
    }
}

/// What became of a text message (MESSAGE outside a dialog), for one of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextOutcome {
    /// Its device had it at once.
    Passed,
    /// Kept for its device.
    Kept,
    /// Kept, and told later.
    Delivered,
    /// Its device refused it for good.
    Refused,
    /// A limit was reached, or the process is about to end.
    Limited,
    /// Too large to be kept.
    TooLarge,
    /// A note that somebody types, for a device that sleeps.
    Dropped,
    /// Its time was over before its device came.
    Expired,
    /// Wiped with its instance.
    Erased,
}

impl TextOutcome {
    /// All outcomes, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Passed,
        Self::Kept,
        Self::Delivered,
        Self::Refused,
        Self::Limited,
        Self::TooLarge,
        Self::Dropped,
        Self::Expired,
        Self::Erased,
    ];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Kept => "kept",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::TooLarge => "too-large",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
            Self::Erased => "erased",
        }
    }
}

/// Why something was shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// A request from a stranger without capability or token.
    Stranger,
    /// The source is not one the account takes calls from.
    Source,
    /// All addresses that a registrar's name led to are ones that no trunk may have.
    Filtered,
    /// Malformed, or against the protocol.
    Malformed,
    /// Several bindings bear the called name at that source, and nothing tells which is meant.
    Ambiguous,
    /// A REGISTER at the edge with a wrong token, beyond what its source may try.
    WrongTokens,
    /// A first registration at an address where no further account could be refreshed in time.
    Crowded,
}

impl Shed {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Stranger,
        Self::Source,
        Self::Filtered,
        Self::Malformed,
        Self::Ambiguous,
        Self::WrongTokens,
        Self::Crowded,
    ];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Source => "source",
            Self::Filtered => "filtered",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::WrongTokens => "wrong-tokens",
            Self::Crowded => "registrar-full",
        }
    }
}

/// Counts since the last take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By [`RegisterOutcome::ALL`].
    pub registers: [u64; RegisterOutcome::ALL.len()],
    /// By [`CallOutcome::ALL`].
    pub calls: [u64; 8],
    /// By [`Cause::ALL`].
    pub erasures: [u64; Cause::ALL.len()],
    /// By [`Shed::ALL`].
    pub shed: [u64; Shed::ALL.len()],
    /// Wakes that had a cause and were not sent, by [`Unsent::ALL`].
    pub unsent: [u64; Unsent::ALL.len()],
    /// By [`TextOutcome::ALL`].
    pub texts: [u64; 9],
    /// Milestones passed, with the time since the INVITE.
    pub stages: Vec<(Stage, Duration)>,
    /// From the trigger to the wipe.
    pub erasure_times: Vec<Duration>,
}

impl Tally {
    /// Counts a REGISTER exchange.
    pub fn register(&mut self, outcome: RegisterOutcome) {
        self.registers[outcome as usize] += 1;
    }

    /// Counts a call's end.
    pub fn call(&mut self, outcome: CallOutcome) {
        self.calls[outcome as usize] += 1;
    }

    /// Counts an erasure.
    pub fn erasure(&mut self, cause: Cause, took: Duration) {
        self.erasures[cause as usize] += 1;
        self.erasure_times.push(took);
    }

    /// Counts something shed.
    pub fn shed(&mut self, reason: Shed) {
        self.shed[reason as usize] += 1;
    }

    /// Counts a wake that had a cause and was not sent.
    pub fn unsent(&mut self, why: Unsent) {
        self.unsent[why as usize] += 1;
    }

    /// Counts what became of a text message.
    pub fn text(&mut self, outcome: TextOutcome) {
        self.texts[outcome as usize] += 1;
    }

    /// Times a call's milestone.
    pub fn stage(&mut self, stage: Stage, since_invite: Duration) {
        self.stages.push((stage, since_invite));
    }
}

/// What an engine holds right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Instances, by [`RegistrationState::ALL`].
    pub instances: [u64; RegistrationState::ALL.len()],
    /// Registrations that have a reason to be told, by [`RegistrationReason::ALL`].
    pub reasons: [u64; RegistrationReason::ALL.len()],
    /// Devices attached.
    pub flows: u64,
    /// Calls held.
    pub held_calls: u64,
    /// Text messages held.
    pub texts: u64,
}
