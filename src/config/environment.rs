//! Variables `REVEILLE__SECTION__KEY` that stand above the file.
//!
//! A variable must name a key that exists, so that a misspelt one cannot be silently without effect. Lists are written
//! with commas. Tables in lists (`[[sip.listen]]`, `[[tenant]]`) have no variable.

use std::ffi::OsString;

use config::{Environment, Map};

use super::report::{Place, Report};
use super::section::{Keys, SECTIONS, SIP_LISTEN, TENANT};
use super::suggest::nearest;

/// What every variable of ours starts with.
pub(super) const PREFIX: &str = "REVEILLE__";

/// Variables that name existing keys.
#[derive(Debug, Default)]
pub(super) struct Overrides(Map<String, String>);

impl Overrides {
    /// Takes the variables that are ours; the ones that name nothing are mistakes.
    pub(super) fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        report: &mut Report,
    ) -> Self {
        let mut known = Map::new();
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(PREFIX) {
                continue;
            }
            if let Err(problem) = check(&name) {
                report.mistake(Place::Variable(name), "", problem);
            } else if let Ok(value) = value.into_string() {
                known.insert(name, value);
            } else {
                report.mistake(Place::Variable(name), "", "is not UTF-8");
            }
        }
        Self(known)
    }

    /// As a layer for `config`.
    pub(super) fn into_source(self) -> Environment {
        let prefix = PREFIX.trim_end_matches('_');
        Environment::with_prefix(prefix).prefix_separator("__").separator("__").source(Some(self.0))
    }
}

/// The variable that sets `key` of `section`.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
}

fn check(name: &str) -> Result<(), String> {
    let all = || SECTIONS.iter().flat_map(|Keys { section, keys }| keys.iter().map(|key| variable(section, key)));
    if all().any(|known| known == name) {
        return Ok(());
    }
    let tables = [(SIP_LISTEN.section, "[[sip.listen]]"), (TENANT.section, "[[tenant]]")];
    for (section, written) in tables {
        let prefix = format!("{PREFIX}{}", section.to_ascii_uppercase().replace('.', "__"));
        if name == prefix || name.starts_with(&format!("{prefix}__")) {
            return Err(format!("{written} can only be set in the file"));
        }
    }
    let known: Vec<String> = all().collect();
    Err(match nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("names no key; did you mean {meant}?"),
        None => format!("names no key; variables are {PREFIX}SECTION__KEY, such as {}", variable("sip", "domain")),
    })
}
