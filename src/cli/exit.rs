//! Exit codes, after BSD's sysexits where one fits, and the two ways of speaking to people.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// A step of the demo failed.
    DemoFailed = 1,
    /// The arguments are wrong.
    Usage = 64,
    /// A log or receipt was looked at and refused.
    Refused = 65,
    /// Something we need is not there: a file, a port, a daemon.
    Unavailable = 69,
    /// A bug of ours.
    Bug = 70,
    /// The configuration is wrong.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Writes a line to standard output. A reader that has gone away is no error of ours.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a line to standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
