//! The command line: what can be typed, and the exit codes that say what came of it.
//!
//! It reads arguments, asks for secrets and prints for people. Running anything is `main`'s: this room knows no daemon.
//! No secret can be an argument, as every user of a host sees the arguments of all processes.

mod arguments;
mod check;
mod exit;
mod secrets;
#[cfg(test)]
mod tests;

pub use arguments::{
    Arguments, AttachTransport, AuditCommand, CallsArguments, Command, DemoArguments, LogNamesArguments, OnCall,
    OpsArguments, PhoneArguments, ProveArguments, SandboxArguments, StatusArguments, Wanted,
};
pub use check::{check_config, load};
pub use exit::{Exit, complain, say};
pub use secrets::{SecretError, read_secret};

use std::ffi::OsString;

use clap::Parser;

/// Reads the arguments of a process, its own name first.
///
/// # Errors
/// There is nothing to run: help or the version was asked for and printed, or the arguments are wrong and that was said.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => Ok(arguments.command),
        Err(error) if error.use_stderr() => {
            complain(error.render().to_string().trim_end());
            Err(Exit::Usage)
        }
        Err(help) => {
            say(help.render().to_string().trim_end());
            Err(Exit::Success)
        }
    }
}
