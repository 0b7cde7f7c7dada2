//! What this process may still do once everything is opened: the last step before there is a second thread.
//!
//! A room of its own because it is the answer to "and if there is a hole in it?": memory that no debugger of the same
//! user reads, no core file, no new privileges, no file but the few that are needed (Landlock), no system call but those
//! that a server makes (seccomp). Landlock and seccomp hold for the calling thread and for those it starts, so nothing
//! may have been started before. What the kernel cannot do is told and left out: a daemon that does not run protects
//! nobody. It refuses to know what the files are for.

mod calls;
mod files;

use std::path::PathBuf;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;
use tracing::{info, warn};

use crate::clock;
use crate::config::Process;

pub use files::Files;

/// What is to be given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Which parts the operator wants.
    pub wanted: Process,
    /// What may still be opened.
    pub files: Files,
}

/// One thing that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Core files, and memory that other processes of our user read: `process.dumpable`.
    Dumps,
    /// Privileges that a program gains by being executed. There is no switch for it: nothing is ever executed.
    Privileges,
    /// Files: `process.landlock`.
    Files,
    /// System calls: `process.seccomp`.
    Calls,
}

/// How far a part was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds, in this way.
    Holds(String),
    /// The configuration says no.
    Off,
    /// The system does not let us, for this reason.
    Refused(String),
}

/// What holds from now on, and what does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Report(Vec<(Part, Outcome)>);

/// Gives up what is not needed any more, for good, and tells the log about each part. What was opened before stays open.
pub fn apply(confinement: &Confinement) -> Report {
    let Confinement { wanted, files } = confinement;
    // The first reading of a clock looks where the kernel keeps the time. Without it each later one is a system call.
    let _ = clock::now();
    // In this order: the filter of system calls forbids what the others need.
    let report = Report(vec![
        (Part::Dumps, attempt(!wanted.dumpable, forbid_dumps)),
        (Part::Privileges, attempt(true, forbid_privileges)),
        (Part::Files, attempt(wanted.landlock, || files::restrict(files))),
        (Part::Calls, attempt(wanted.seccomp, calls::restrict)),
    ]);
    report.log();
    report
}

fn attempt(is_wanted: bool, part: impl FnOnce() -> Result<String, String>) -> Outcome {
    if !is_wanted {
        return Outcome::Off;
    }
    part().map_or_else(Outcome::Refused, Outcome::Holds)
}

fn forbid_dumps() -> Result<String, String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| format!("prctl(PR_SET_DUMPABLE): {error}"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| format!("setrlimit(RLIMIT_CORE): {error}"))?;
    Ok("no core file, no debugger, no reading of memory by our own user".to_owned())
}

fn forbid_privileges() -> Result<String, String> {
    set_no_new_privs(true).map_err(|error| format!("prctl(PR_SET_NO_NEW_PRIVS): {error}"))?;
    Ok("no privileges can be gained".to_owned())
}

impl Part {
    /// Its name in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dumps => "dumps",
            Self::Privileges => "no_new_privs",
            Self::Files => "landlock",
            Self::Calls => "seccomp",
        }
    }

    /// What `/readyz` says while it does not hold.
    fn note(self) -> &'static str {
        match self {
            Self::Dumps => "not confined: the process can be dumped and debugged by its own user",
            Self::Privileges => "not confined: the process could gain privileges",
            Self::Files => "not confined by Landlock: every file of the process's user can be opened",
            Self::Calls => "not confined by seccomp: every system call can be made",
        }
    }
}

impl Report {
    /// How each part ended.
    pub fn outcomes(&self) -> &[(Part, Outcome)] {
        &self.0
    }

    /// What an operator should know: a fixed text for each part that does not hold.
    pub fn notes(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().filter(|(_, outcome)| !matches!(outcome, Outcome::Holds(_))).map(|(part, _)| part.note())
    }

    fn log(&self) {
        for (part, outcome) in &self.0 {
            let part = part.as_str();
            match outcome {
                Outcome::Holds(how) => info!(part, how, "confined"),
                Outcome::Off => warn!(part, "not confined: switched off in [process]"),
                Outcome::Refused(why) => warn!(part, why, "not confined: the system does not allow it"),
            }
        }
    }
}

/// The directories that must stay readable so that a file can be read again after it was replaced: where its name
/// stands, and where the file itself lies if the name is a symbolic link. Certificates are renewed in either way.
#[must_use]
pub fn directories_of(file: &std::path::Path) -> Vec<PathBuf> {
    let real = file.canonicalize().ok();
    let mut directories: Vec<PathBuf> =
        [Some(file), real.as_deref()].into_iter().flatten().filter_map(files::directory_of).collect();
    directories.dedup();
    directories
}
