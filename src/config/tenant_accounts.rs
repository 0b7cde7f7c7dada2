//! What the accounts of one `[[tenant]]` may be: always within what the sections above it allow for all.

use std::time::Duration;

use super::section::{Entry, Section};
use super::sections::{SECOND, TABLE_MAX};
use super::settings::TenantAccounts;
use super::values;
use crate::engine::input::Mode;

/// What is allowed for all tenants.
pub(super) struct Within<'a> {
    /// `registrars.allow`.
    pub(super) registrars_allow: &'a [String],
    /// `lease.maximum`.
    pub(super) lease_maximum: Duration,
}

pub(super) fn read(section: &mut Section<'_>, within: &Within<'_>) -> TenantAccounts {
    let (with_lease, with_maximum) = (section.has("lease_maximum"), section.has("instances_max"));
    let lease_maximum = section.duration("lease_maximum", within.lease_maximum, SECOND, within.lease_maximum);
    let instances_max = section.number("instances_max", TABLE_MAX, 1, TABLE_MAX).value;
    TenantAccounts {
        registrars_allow: registrars_allow(section, within),
        modes: modes(section),
        lease_maximum: with_lease.then_some(lease_maximum),
        tls_trunks_only: section.flag("tls_trunks_only", false),
        instances_max: with_maximum.then_some(instances_max),
    }
}

fn registrars_allow(section: &mut Section<'_>, within: &Within<'_>) -> Vec<String> {
    let empty = "is empty, so no registrar could be reached; leave it out for all of registrars.allow";
    let entries = section.list("registrars_allow", values::host_pattern, Some(empty)).unwrap_or_default();
    for Entry { place, value } in &entries {
        if !within.registrars_allow.iter().any(|whole| covers(whole, value)) {
            section.mistake(place, "registrars_allow", "lies outside of registrars.allow, which no tenant can widen");
        }
    }
    entries.into_iter().map(|entry| entry.value).collect()
}

/// Whether all hosts that `part` matches are matched by `whole`; both in lower case.
fn covers(whole: &str, part: &str) -> bool {
    let Some(domain) = whole.strip_prefix('*') else { return whole == part };
    domain.is_empty() || part.strip_prefix('*').unwrap_or(part).ends_with(domain)
}

fn modes(section: &mut Section<'_>) -> Vec<Mode> {
    let mode = |text: &str| match text {
        "always" => Ok(Mode::Always),
        "background" => Ok(Mode::Background),
        "takeover" => Ok(Mode::Takeover),
        _ => Err("must be of \"always\", \"background\" and \"takeover\"".to_owned()),
    };
    let empty = "is empty, so no account could be handed over; leave it out for all modes";
    let entries = section.list("modes", mode, Some(empty)).unwrap_or_default();
    entries.into_iter().map(|entry| entry.value).collect()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_pattern_covers_its_own_hosts_and_subdomains_alone() {
        for (whole, part) in [
            ("*", "*"),
            ("*", "*.example.com"),
            ("*", "pbx.example.com"),
            ("*.example.com", "*.example.com"),
            ("*.example.com", "*.eu.example.com"),
            ("*.example.com", "pbx.example.com"),
            ("pbx.example.com", "pbx.example.com"),
        ] {
            assert!(covers(whole, part), "{whole} {part}");
        }
        for (whole, part) in [
            ("*.example.com", "*"),
            ("*.example.com", "example.com"),
            ("*.example.com", "*.com"),
            ("*.example.com", "badexample.com"),
            ("pbx.example.com", "*.example.com"),
            ("pbx.example.com", "example.com"),
        ] {
            assert!(!covers(whole, part), "{whole} {part}");
        }
    }
}
