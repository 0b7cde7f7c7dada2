//! What the command line asks for.
//!
//! `cargo test` hands its own words to every test target. A name there means "only tests called so"; the test in here is
//! called `prove_erasure`.

use std::path::PathBuf;

/// The name of the one test.
const NAME: &str = "prove_erasure";

const USAGE: &str = "\
scripts/prove-erasure                 proves it: every way to erase, every error path, the positive controls
scripts/prove-erasure --only TEXT     only the parts with TEXT in their name (the controls always run)
scripts/prove-erasure --keep          leaves cores and files of the daemons where they were written
scripts/prove-erasure --binary FILE   proves this daemon instead of the one that is built here
scripts/prove-erasure --residues N    shows so many residues a part (5)
scripts/prove-erasure --pid PID       searches a running process for one password, read from standard input; a second
                                      and third line, user name and realm, have its HA1s searched for too
It reads the memory of other processes: run it as root. It exits with 0 only if nothing was found that should not be there,
and everything that should be found was.";

/// What to do.
pub(crate) enum Order {
    Prove(Options),
    SearchProcess(u32),
    /// Only words.
    Say(String),
    Refuse(String),
}

pub(crate) struct Options {
    pub(crate) only: String,
    pub(crate) keep: bool,
    pub(crate) binary: PathBuf,
    pub(crate) residues: usize,
}

impl Order {
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Self {
        let mut options =
            Options { only: String::new(), keep: false, binary: env!("CARGO_BIN_EXE_reveille").into(), residues: 5 };
        let mut named = None;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--help" | "-h" => return Self::Say(USAGE.to_owned()),
                "--list" => return Self::Say(format!("{NAME}: test\n")),
                "--keep" => options.keep = true,
                "--only" => options.only = words.next().unwrap_or_default(),
                "--binary" => options.binary = words.next().unwrap_or_default().into(),
                "--residues" => match words.next().and_then(|number| number.parse().ok()) {
                    Some(number) => options.residues = number,
                    None => return Self::Refuse(format!("--residues needs a number\n{USAGE}")),
                },
                "--pid" => {
                    return match words.next().and_then(|number| number.parse().ok()) {
                        Some(process) => Self::SearchProcess(process),
                        None => Self::Refuse(format!("--pid needs a process id\n{USAGE}")),
                    };
                }
                // Words for the usual harness, which have no meaning here.
                "--nocapture" | "--no-capture" | "-q" | "--quiet" | "--show-output" | "--exact" => {}
                "--test-threads" | "--format" | "--color" | "--skip" => drop(words.next()),
                word if word.starts_with("--test-threads=") || word.starts_with("--color=") => {}
                word if word.starts_with('-') => return Self::Refuse(format!("unknown option {word}\n{USAGE}")),
                word => named = Some(named.unwrap_or(false) || NAME.contains(word)),
            }
        }
        if named == Some(false) {
            return Self::Say(String::new());
        }
        Self::Prove(options)
    }
}
