//! The erasure prover: an outside process that gives the real daemon passwords, has them erased in every way there is, and
//! searches the daemon's memory, its cores and its files for every eight bytes of them. `docs/privacy.md` tells how to read
//! what it prints; `scripts/prove-erasure` runs it.
//!
//! | file | what it is |
//! |---|---|
//! | `run`, `parts`, `ways`, `faults` | the order of things; every way to erase; every error path |
//! | `silence`, `texts` | apps that keep their connection and say nothing; text messages |
//! | `act`, `calls`, `daemon`, `client`, `stage` | one daemon and its accounts; calls to them; the binary; an app; PBXs and mailbox |
//! | `secrets`, `text`, `needles` | passwords and HA1s; the forms they can have; every window of them |
//! | `memory`, `cores`, `tally`, `table` | where it is looked; what was found; what is shown |

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an outside process waits on the real clock for real processes, fails by panicking and says what it sees"
)]

mod act;
mod calls;
mod client;
mod cores;
mod daemon;
mod faults;
#[path = "../../src/api/tests/frames.rs"]
#[allow(dead_code, reason = "the tests of the API send more")]
mod frames;
#[path = "../e2e/http.rs"]
#[allow(dead_code, reason = "the end-to-end tests ask for more")]
mod http;
mod memory;
mod needles;
mod options;
mod parts;
#[path = "../e2e/process.rs"]
#[allow(dead_code, reason = "the end-to-end tests start more")]
mod process;
mod run;
mod secrets;
mod silence;
mod stage;
mod table;
mod tally;
mod text;
mod texts;
mod ways;
#[path = "../e2e/world.rs"]
#[allow(dead_code, reason = "the end-to-end tests have more around them")]
mod world;

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use reveille::sip::auth::Algorithm;

use crate::needles::Needles;
use crate::options::{Options, Order};
use crate::parts::Group;
use crate::run::Outcome;
use crate::secrets::Secret;
use crate::table::Row;

fn main() -> ExitCode {
    if std::env::var_os("PROVE_ERASURE").is_some_and(|when| when == "apart") {
        println!(
            "prove-erasure: PROVE_ERASURE=apart: whoever set this runs scripts/prove-erasure in a step of its own"
        );
        return ExitCode::SUCCESS;
    }
    let done = match Order::read(std::env::args().skip(1)) {
        Order::Say(words) => {
            print!("{words}");
            Ok(true)
        }
        Order::Refuse(words) => {
            eprintln!("{words}");
            Ok(false)
        }
        Order::SearchProcess(process) => search_process(process),
        Order::Prove(options) => prove(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("prove-erasure: nothing is proven: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prove(options: &Options) -> anyhow::Result<bool> {
    let started = Instant::now();
    println!("prove-erasure: {}", options.binary.display());
    let Outcome { rows, checks } = run::run(options)?;
    println!("\n{}", table::render(&rows));
    let mut proven = true;
    for (words, holds) in &checks {
        println!("{} {words}", if *holds { "yes:" } else { "NO: " });
        proven &= holds;
    }
    println!();
    for row in &rows {
        proven &= judge(row, options);
    }
    let seconds = started.elapsed().as_secs();
    let windows: usize = rows.iter().map(|row| row.windows).sum();
    let verdict = if proven { "proven: 0 hits" } else { "NOT PROVEN" };
    println!("{verdict} ({} parts, {windows} windows, {seconds} s)", rows.len());
    Ok(proven)
}

/// Whether a row is as it has to be; says why not.
fn judge(row: &Row, options: &Options) -> bool {
    if row.part.group == Group::Control {
        let caught = row.after.is_some_and(|[password, _]| password > 0) && row.core.is_some_and(|hits| hits > 0);
        if !caught {
            println!("{}: it was not: the search is blind, and what it did not find means nothing\n", row.part.name);
        }
        return caught;
    }
    if row.hits() > 0 {
        println!("{}: {} hits", row.part.name, row.hits());
        row.residues.iter().take(options.residues).for_each(|residue| println!("  {residue}"));
        println!();
    }
    row.hits() == 0
}

/// Searches any process for a password that whoever runs this knows.
fn search_process(process: u32) -> anyhow::Result<bool> {
    let line = || {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line.trim_end_matches(['\r', '\n']).to_owned())
    };
    let (password, user, realm) = (line()?, line()?, line()?);
    anyhow::ensure!(password.len() >= text::WINDOW, "the password must have eight bytes at least");
    let all = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512256];
    let asked: &[(&str, &[Algorithm])] = if realm.is_empty() { &[] } else { &[(&realm, &all)] };
    let needles = Needles::new(&[Secret::known(&user, password, asked)]);
    needles.prove()?;
    let tally = memory::search(process, &needles).context("the process was not searched")?;
    let hits = tally.all_hits(&[0]);
    tally.residues(&[0]).for_each(|residue| println!("{residue}"));
    println!("{hits} hits of {} windows in {:.1} MB", needles.windows_of(&[0]), tally.bytes as f64 / 1e6);
    Ok(hits == 0)
}
