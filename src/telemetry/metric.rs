//! The names of all metrics, each with what it says.

/// A metric. Its labels come from closed sets, so the number of series never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Instances held, by state of their registration.
    Instances,
    /// Registrations that fail, wait or are unusual, by reason.
    RegistrationReasons,
    /// REGISTER exchanges, by outcome.
    Registers,
    /// Calls that ended, by outcome.
    Calls,
    /// From the INVITE to a milestone of its call, by stage.
    CallStageSeconds,
    /// Pushes, by provider, kind and outcome.
    Pushes,
    /// Wakes that had a cause and were not sent, by reason.
    WakesUnsent,
    /// From a push's start to its outcome, by provider.
    PushSeconds,
    /// Erasures, by cause.
    Erasures,
    /// From the trigger of an erasure to the wipe.
    ErasureSeconds,
    /// Devices attached.
    Flows,
    /// Calls that wait for their device.
    HeldCalls,
    /// Text messages, by outcome.
    TextsTotal,
    /// Text messages that wait for their device.
    Texts,
    /// What was dropped, refused or closed, by reason.
    Shed,
    /// How late a shard does what is due.
    ShardLagSeconds,
    /// Records that wait to be on disk.
    AuditBacklog,
    /// What keeps the vault's key, by kind: 1 for the one that does.
    SecretMemory,
}

/// What kind of numbers a metric gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Counted by size, in these buckets.
    Histogram(&'static [f64]),
}

/// A caller gives up after a minute at the latest; a good wake takes one to five seconds.
const CALL_BUCKETS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// A provider answers in 50 ms to a second; ten is its time-out.
const PUSH_BUCKETS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Between an answer of a registrar next door and `erasure.grace` with some room.
const ERASURE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0];
/// Below a millisecond all is well; above a second calls suffer.
const LAG_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 18] = [
        Self::Instances,
        Self::RegistrationReasons,
        Self::Registers,
        Self::Calls,
        Self::CallStageSeconds,
        Self::Pushes,
        Self::WakesUnsent,
        Self::PushSeconds,
        Self::Erasures,
        Self::ErasureSeconds,
        Self::Flows,
        Self::HeldCalls,
        Self::TextsTotal,
        Self::Texts,
        Self::Shed,
        Self::ShardLagSeconds,
        Self::AuditBacklog,
        Self::SecretMemory,
    ];

    /// The name that is published.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instances => "reveille_instances",
            Self::RegistrationReasons => "reveille_registration_reasons",
            Self::Registers => "reveille_registers_total",
            Self::Calls => "reveille_calls_total",
            Self::CallStageSeconds => "reveille_call_stage_seconds",
            Self::Pushes => "reveille_pushes_total",
            Self::WakesUnsent => "reveille_wakes_unsent_total",
            Self::PushSeconds => "reveille_push_seconds",
            Self::Erasures => "reveille_erasures_total",
            Self::ErasureSeconds => "reveille_erasure_seconds",
            Self::Flows => "reveille_flows",
            Self::HeldCalls => "reveille_held_calls",
            Self::TextsTotal => "reveille_texts_total",
            Self::Texts => "reveille_texts",
            Self::Shed => "reveille_shed_total",
            Self::ShardLagSeconds => "reveille_shard_lag_seconds",
            Self::AuditBacklog => "reveille_audit_backlog",
            Self::SecretMemory => "reveille_secret_memory",
        }
    }

    /// What it says, for the `HELP` line.
    #[must_use]
    pub const fn help(self) -> &'static str {
        match self {
            Self::Instances => "Instances held, by state of their registration.",
            Self::RegistrationReasons => "Registrations that fail, wait or are unusual, by reason.",
            Self::Registers => "REGISTER exchanges, by outcome.",
            Self::Calls => "Calls that ended, by outcome.",
            Self::CallStageSeconds => "From the INVITE to a milestone of its call, by stage.",
            Self::Pushes => "Pushes, by provider, kind and outcome.",
            Self::WakesUnsent => "Wakes that had a cause and were not sent, by reason.",
            Self::PushSeconds => "From a push's start to its outcome, by provider.",
            Self::Erasures => "Erasures, by cause.",
            Self::ErasureSeconds => "From the trigger of an erasure to the wipe.",
            Self::Flows => "Devices attached.",
            Self::HeldCalls => "Calls that wait for their device.",
            Self::TextsTotal => "Text messages, by outcome.",
            Self::Texts => "Text messages that wait for their device.",
            Self::Shed => "What was dropped, refused or closed, by reason.",
            Self::ShardLagSeconds => "How late a shard does what is due.",
            Self::AuditBacklog => "Records that wait to be on disk.",
            Self::SecretMemory => "What keeps the vault's key, by kind: 1 for the one that does.",
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(self) -> MetricKind {
        match self {
            Self::Registers
            | Self::Calls
            | Self::Pushes
            | Self::WakesUnsent
            | Self::Erasures
            | Self::TextsTotal
            | Self::Shed => MetricKind::Counter,
            Self::Instances
            | Self::RegistrationReasons
            | Self::Flows
            | Self::HeldCalls
            | Self::Texts
            | Self::AuditBacklog
            | Self::SecretMemory => MetricKind::Gauge,
            Self::CallStageSeconds => MetricKind::Histogram(CALL_BUCKETS),
            Self::PushSeconds => MetricKind::Histogram(PUSH_BUCKETS),
            Self::ErasureSeconds => MetricKind::Histogram(ERASURE_BUCKETS),
            Self::ShardLagSeconds => MetricKind::Histogram(LAG_BUCKETS),
        }
    }
}
