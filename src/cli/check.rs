//! `check-config`, and the same reading before `serve`.

use std::path::Path;

use super::exit::{Exit, complain, say};
use crate::config::{self, Settings};

/// Reads a configuration; mistakes are printed.
///
/// # Errors
/// It cannot be used.
pub fn load(file: &Path) -> Result<Settings, Exit> {
    config::load(file).map_err(|mistakes| {
        complain(mistakes);
        Exit::Configuration
    })
}

/// Says what is wrong with a configuration, or that nothing is.
#[must_use]
pub fn check_config(file: &Path) -> Exit {
    match load(file) {
        Ok(settings) => {
            for warning in &settings.warnings {
                complain(format_args!("warning: {}", warning.describe(&settings.file)));
            }
            say(format_args!("{}: ok", file.display()));
            Exit::Success
        }
        Err(exit) => exit,
    }
}
