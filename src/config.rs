//! What the operator typed, and what it means.
//!
//! A file in TOML and the environment (`REVEILLE__SECTION__KEY`) are laid over each other by the crate `config`; every
//! value carries the line it stands in, so that each mistake can be pointed at. Reading goes on after a mistake: the
//! operator gets all of them at once. What comes out is a [`Settings`], and a `Settings` cannot be wrong: addresses are
//! parsed, files were read, keys fit their certificates.
//!
//! This room opens no socket, starts nothing and writes nothing.

mod document;
mod environment;
mod files;
mod material;
mod ops;
mod report;
mod section;
mod sections;
mod settings;
mod sip;
mod suggest;
mod tenant_accounts;
mod tenants;
mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use document::Document;
use environment::Overrides;
pub use files::{TlsFiles, TlsPem};
pub use material::FileError;
use report::Report;
pub use report::{Mistake, Mistakes, Place};
pub(crate) use sections::STEP_WAIT_MAX;
pub use settings::*;

/// The longest configuration file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Reads `path` and the environment of this process.
///
/// # Errors
/// All mistakes that were found.
pub fn load(path: &Path) -> Result<Settings, Mistakes> {
    load_with(path, std::env::vars_os())
}

/// Reads `path` and the given environment.
///
/// # Errors
/// All mistakes that were found.
pub fn load_with(
    path: &Path,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, Mistakes> {
    let mut report = Report::new(path);
    let Some(text) = read_text(path, &mut report) else { return Err(report.into_mistakes()) };
    read(path, &text, environment, report)
}

/// Reads a configuration from `text`, as if it stood in the file `path`.
fn read(
    path: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    mut report: Report,
) -> Result<Settings, Mistakes> {
    let Some(document) = Document::parse(text, &mut report) else { return Err(report.into_mistakes()) };
    let overrides = Overrides::from_variables(environment, &mut report);
    let base = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let settings = sections::read(document, overrides, base, &mut report);
    report.conclude(settings)
}

fn read_text(path: &Path, report: &mut Report) -> Option<String> {
    let mut text = String::new();
    let problem = match File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text)) {
        Ok(length) if length as u64 <= FILE_MAX => return Some(text),
        Ok(_) => format!("is longer than {FILE_MAX} bytes"),
        Err(error) => format!("cannot be read: {error}"),
    };
    report.mistake(Place::File, "", problem);
    None
}
