//! Traces as those may see them who may.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::WallTime;

/// What a device consents to have written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consent {
    /// SIP messages, redacted.
    pub sip: bool,
    /// What was decided, and why.
    pub decisions: bool,
    /// Names, numbers, hosts and addresses in the messages.
    pub identities: bool,
    /// For how long.
    pub span: Duration,
    /// Whether the tenant's administrator may read it too.
    pub tenant_may_read: bool,
}

/// A consent that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsentView {
    /// To what.
    pub consent: Consent,
    /// Since when.
    pub since: WallTime,
    /// When it ends by itself.
    pub until: WallTime,
}

/// A trace.
pub struct TraceView {
    /// By what right it exists.
    pub consent: ConsentView,
    /// What was written, the oldest first.
    pub entries: Vec<TraceEntry>,
    /// Older entries that gave way.
    pub omitted: u64,
}

/// One entry. No `Debug`: it holds what its device alone may read.
#[derive(Clone)]
pub struct TraceEntry {
    /// When.
    pub at: WallTime,
    /// What.
    pub kind: TraceKind,
    /// A redacted message, or a decision in words.
    pub text: Zeroizing<String>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// A message that came in.
    Received,
    /// A message that went out.
    Sent,
    /// Something that was decided.
    Decision,
}

impl TraceKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Received, Self::Sent, Self::Decision];

    /// The name used in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
            Self::Decision => "decision",
        }
    }
}
