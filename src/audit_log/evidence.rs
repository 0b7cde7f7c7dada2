//! `reveille audit evidence`: what an operator hands a controller or auditor (GDPR Art. 28 (3) (h)), as one signed document.
//!
//! It says what is configured, who else processes anything, and what the log holds; every number is counted from a log
//! that was checked first. It names no instance and no person.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::encoding::{base64, hex, unbase64};
use super::file::beside;
use super::key::{PublicKey, Signer};
use super::merkle::sha256_of;
use super::reading::{Extent, Log};
use super::record::Record;
use super::replay::Passed;
use super::verify::VerifyError;
use crate::clock;
use crate::config::{ApnsEnvironment, App, PushAccess, Settings};
use crate::engine::audit::{AuditEvent, AuditRecord};

const VERSION: u8 = 1;

/// The signed document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    evidence: Evidence,
    /// Ed25519, 32 bytes, base64.
    key: String,
    /// Over `reveille-evidence/v1`, a line feed, the evidence as JSON without white space, and a line feed.
    signature: String,
}

/// What it says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evidence {
    v: u8,
    made_at: String,
    program: String,
    configuration: Configuration,
    log: LogPart,
    counts: Counts,
    /// Those of the configuration, and those of the log.
    tenants: BTreeMap<String, Tenant>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    /// Of the file's bytes.
    sha256: String,
    /// As records name it.
    policy: String,
    lease_default_seconds: u64,
    lease_maximum_seconds: u64,
    erasure_grace_milliseconds: u64,
    registrars: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogPart {
    origin: String,
    /// The key as verifiers of signed notes take it.
    vkey: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    key_sha256: String,
    /// From 0.
    first_record: u64,
    records: u64,
    /// Times of the first and the last record that were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    segments: Vec<SegmentPart>,
    /// The last one, a signed note.
    checkpoint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentPart {
    file: String,
    first_record: u64,
    records: u64,
    checkpoints: u64,
}

/// Records by what they say.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    events: BTreeMap<String, u64>,
    causes: BTreeMap<String, u64>,
    unregister: BTreeMap<String, u64>,
    /// Records made under each policy; those of version 1 name none.
    policies: BTreeMap<String, u64>,
    /// Events that were only counted while the disk failed; they are counted above too.
    folded: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenant {
    events: BTreeMap<String, u64>,
    /// Who carries its pushes, by the configuration.
    sub_processors: Vec<SubProcessor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubProcessor {
    provider: String,
    app: String,
    /// Where the pushes go.
    endpoint: String,
}

/// Reads the log that the configuration names and writes the document to `out`.
///
/// # Errors
///
/// What is wrong with the log, the key or the configuration file.
pub fn evidence(settings: &Settings, out: &mut dyn Write) -> Result<(), VerifyError> {
    let Some(path) = &settings.audit.path else {
        return Err(VerifyError::NotHere { path: PathBuf::new(), reason: "no log is configured".to_owned() });
    };
    let key_file = settings.audit.signing_key.clone().unwrap_or_else(|| beside(path, "key"));
    let signer = Signer::load(&key_file).map_err(|source| VerifyError::Unreadable { path: key_file, source })?;
    let log = Log::read(path, Some(signer.public().clone()), Extent::WithEarlier)?;
    let evidence = gather(settings, &log)?;
    let signature = base64(&signer.sign(signed_text(&evidence)?.as_bytes()));
    let document = Signed { evidence, key: base64(&signer.public().0), signature };
    writeln!(out, "{}", serde_json::to_string_pretty(&document).map_err(io::Error::from)?)?;
    Ok(())
}

fn gather(settings: &Settings, log: &Log) -> Result<Evidence, VerifyError> {
    let mut tally = Tally::default();
    log.visit(0, &mut |passed| {
        if let Passed::Record { record, .. } = passed {
            tally.add(record);
        }
    })?;
    let Tally { counts, mut tenants, from, until } = tally;
    for tenant in &settings.tenants {
        let sub_processors = tenant.apps.iter().map(sub_processor).collect();
        tenants.entry(tenant.id.to_string()).or_default().sub_processors = sub_processors;
    }
    Ok(Evidence {
        v: VERSION,
        made_at: clock::now().wall.rfc3339(),
        program: format!("reveille {}", env!("CARGO_PKG_VERSION")),
        configuration: configuration(settings)?,
        log: log_part(log, from, until),
        counts,
        tenants,
    })
}

fn configuration(settings: &Settings) -> Result<Configuration, VerifyError> {
    let unreadable = |source| VerifyError::Unreadable { path: settings.file.clone(), source };
    let bytes = fs::read(&settings.file).map_err(unreadable)?;
    let policy = settings.policy(Vec::new());
    Ok(Configuration {
        sha256: hex(&sha256_of(&[&bytes])),
        policy: policy.version(),
        lease_default_seconds: policy.lease_default.as_secs(),
        lease_maximum_seconds: policy.lease_maximum.as_secs(),
        erasure_grace_milliseconds: u64::try_from(policy.erasure_grace.as_millis()).unwrap_or(u64::MAX),
        registrars: policy.registrars.allow,
    })
}

fn log_part(log: &Log, from: Option<String>, until: Option<String>) -> LogPart {
    let last = log.last();
    let segment = |segment: &super::reading::Segment| SegmentPart {
        file: segment.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        first_record: segment.covered.start(),
        records: segment.covered.records(),
        checkpoints: segment.covered.checkpoints,
    };
    LogPart {
        origin: last.checkpoint.origin.clone(),
        vkey: log.key.vkey(&last.checkpoint.origin),
        key_sha256: log.key.fingerprint(),
        first_record: log.start(),
        records: last.checkpoint.size - log.start(),
        from,
        until,
        segments: log.segments.iter().map(segment).collect(),
        checkpoint: last.note(),
    }
}

fn sub_processor(app: &App) -> SubProcessor {
    let standard = match &app.push {
        PushAccess::Apns(access) => match access.environment {
            ApnsEnvironment::Production => "https://api.push.apple.com",
            ApnsEnvironment::Sandbox => "https://api.sandbox.push.apple.com",
        },
        PushAccess::Fcm(_) => "https://fcm.googleapis.com",
        PushAccess::Sandbox => "",
    };
    SubProcessor {
        provider: app.push.provider().as_str().to_owned(),
        app: app.id.clone(),
        endpoint: app.endpoint.clone().unwrap_or_else(|| standard.to_owned()),
    }
}

#[derive(Default)]
struct Tally {
    counts: Counts,
    tenants: BTreeMap<String, Tenant>,
    from: Option<String>,
    until: Option<String>,
}

impl Tally {
    fn add(&mut self, record: &Record) {
        self.from.get_or_insert_with(|| record.since().to_owned());
        self.until = Some(record.at().to_owned());
        match record {
            Record::Life(record) => self.add_life(record),
            Record::Folded(fold) => {
                self.counts.folded += fold.count;
                add_all(&mut self.counts.events, &fold.events);
                add_all(&mut self.counts.causes, &fold.causes);
            }
        }
    }

    fn add_life(&mut self, record: &AuditRecord) {
        count(&mut self.counts.events, record.event.as_str());
        count(&mut self.tenants.entry(record.tenant.clone()).or_default().events, record.event.as_str());
        if let Some(policy) = &record.policy {
            count(&mut self.counts.policies, policy);
        }
        if let AuditEvent::Erased { cause, unregister, .. } = &record.event {
            count(&mut self.counts.causes, cause.as_str());
            count(&mut self.counts.unregister, unregister.as_str());
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

fn add_all(counts: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, more) in more {
        *counts.entry(name.clone()).or_default() += more;
    }
}

fn signed_text(evidence: &Evidence) -> io::Result<String> {
    Ok(format!("reveille-evidence/v{VERSION}\n{}\n", serde_json::to_string(evidence)?))
}

/// Checks a document; `None` if it is none.
pub(super) fn check(bytes: &[u8], key: Option<&PublicKey>) -> Option<Result<Evidence, String>> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    value.get("evidence")?;
    // Read from the text: a value has forgotten that a member stood there twice.
    Some(serde_json::from_slice(bytes).map_err(|error| error.to_string()).and_then(|signed| check_signed(signed, key)))
}

fn check_signed(Signed { evidence, key, signature }: Signed, expected: Option<&PublicKey>) -> Result<Evidence, String> {
    let named = PublicKey(unbase64(&key).ok_or("its key is not in its form")?);
    let signature = unbase64(&signature).ok_or("its signature is not in its form")?;
    if evidence.v != VERSION {
        return Err("it has a version this program does not know".to_owned());
    }
    if expected.is_some_and(|expected| *expected != named) {
        return Err("it was signed with another key".to_owned());
    }
    let text = signed_text(&evidence).map_err(|error| error.to_string())?;
    if !named.verifies(text.as_bytes(), &signature) {
        return Err("its signature does not fit its content".to_owned());
    }
    if evidence.log.key_sha256 != named.fingerprint() {
        return Err("it names another key than it was signed with".to_owned());
    }
    Ok(evidence)
}

pub(super) fn report(evidence: &Evidence, key_given: bool, out: &mut dyn Write) -> io::Result<()> {
    let Evidence { made_at, program, configuration, log, counts, tenants, .. } = evidence;
    writeln!(out, "evidence: good")?;
    writeln!(out, "  made        {made_at} by {program}")?;
    writeln!(out, "  log         {}, {} records from number {}", log.origin, log.records, log.first_record)?;
    if let (Some(from), Some(until)) = (&log.from, &log.until) {
        writeln!(out, "  span        {from} to {until}")?;
    }
    writeln!(
        out,
        "  policy      {}, leases of {} s at most",
        configuration.policy, configuration.lease_maximum_seconds
    )?;
    for (event, count) in &counts.events {
        writeln!(out, "  event       {event}: {count}")?;
    }
    for (cause, count) in &counts.causes {
        writeln!(out, "  erased      {cause}: {count}")?;
    }
    for (tenant, Tenant { sub_processors, .. }) in tenants {
        for SubProcessor { provider, app, endpoint } in sub_processors {
            writeln!(out, "  sub-processor of {tenant}: {provider} for {app}, {endpoint}")?;
        }
    }
    writeln!(out, "  signed by   {}", log.key_sha256)?;
    if !key_given {
        writeln!(out, "  The key is the one it names. Compare its fingerprint with the published one, or give --key.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_begins_with_a_fold_spans_from_the_first_event_in_it() {
        let fold = br#"{"v":2,"at":"2026-11-24T20:00:09Z","since":"2026-11-24T20:00:00Z","policy":"00","event":"folded","count":2,"events":{"erased":2},"causes":{"deleted":2}}"#;
        let mut tally = Tally::default();
        tally.add(&Record::parse(fold).expect("a record"));
        assert_eq!(tally.from.as_deref(), Some("2026-11-24T20:00:00Z"));
        assert_eq!(tally.until.as_deref(), Some("2026-11-24T20:00:09Z"));
        assert_eq!((tally.counts.folded, tally.counts.events["erased"]), (2, 2));
    }
}
