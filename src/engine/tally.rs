//! What the engine counts. The shell takes the tally after each batch and publishes it.

use std::time::Duration;

use super::audit::Cause;
use super::output::{CallOutcome, RegistrationState};

/// What became of a REGISTER exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// 200.
    Granted,
    /// A challenge on the way (401, 407, 423 included).
    Challenged,
    /// Refused credentials.
    Refused,
    /// Another final answer.
    Failed,
    /// No answer.
    Silent,
}

impl RegisterOutcome {
    /// All outcomes, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::Granted, Self::Challenged, Self::Refused, Self::Failed, Self::Silent];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Challenged => "challenged",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Silent => "silent",
        }
    }
}

/// A milestone of a call, timed from the INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
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
    pub const ALL: [Self; 5] = [Self::PushAccepted, Self::Attached, Self::Forwarded, Self::Ringing, Self::Answered];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PushAccepted => "push-accepted",
            Self::Attached => "attached",
            Self::Forwarded => "forwarded",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
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
    /// A limit of the process.
    Full,
    /// Malformed, or against the protocol.
    Malformed,
    /// Several bindings bear the called name at that source, and nothing tells which is meant.
    Ambiguous,
}

impl Shed {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 5] = [Self::Stranger, Self::Source, Self::Full, Self::Malformed, Self::Ambiguous];

    /// The name used in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Source => "source",
            Self::Full => "full",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// Counts since the last take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By [`RegisterOutcome::ALL`].
    pub registers: [u64; 5],
    /// By [`CallOutcome::ALL`].
    pub calls: [u64; 8],
    /// By [`Cause::ALL`].
    pub erasures: [u64; Cause::ALL.len()],
    /// By [`Shed::ALL`].
    pub shed: [u64; Shed::ALL.len()],
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
    /// Devices attached.
    pub flows: u64,
    /// Calls held.
    pub held_calls: u64,
}
