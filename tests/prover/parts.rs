//! The parts of a run: each way to erase and each error path, with accounts of its own.

use crate::act::Act;
use crate::stage::PBXS;

/// One line of the table.
pub(crate) struct Part {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) setting: Setting,
    /// After all others of its setting: it waits long, or leaves nobody to erase.
    pub(crate) late: bool,
    /// Before any memory is looked at: what takes its time, and for ways the hand-over.
    pub(crate) begin: fn(&mut Act, &[usize]) -> anyhow::Result<()>,
    /// After it nothing may be left.
    pub(crate) end: fn(&mut Act, &[usize]) -> anyhow::Result<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The account is held, registered, refreshed, called, and then erased.
    Way,
    /// The account is never held, or not for long.
    ErrorPath,
    /// What it is given is for a phone, and not kept when the phone has it.
    PassedOn,
    /// The daemon is made to keep what it should not, and must be caught.
    Control,
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Way => "erased by",
            Self::ErrorPath => "error path",
            Self::PassedOn => "passed on",
            Self::Control => "control",
        }
    }
}

/// In which daemon a part takes place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Configured as usual.
    Usual,
    /// Open to debuggers, and with handlers that panic when told to.
    Debug,
    /// One that is told to end.
    Ending,
    /// One that keeps copies.
    Keeping,
}

impl Setting {
    /// The name of its daemon.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Debug => "open-to-debuggers",
            Self::Ending => "ending",
            Self::Keeping => "keeping-copies",
        }
    }
}

/// The accounts of the part with this number.
pub(crate) fn accounts_of(part: usize) -> Vec<usize> {
    (part * PBXS..(part + 1) * PBXS).collect()
}
