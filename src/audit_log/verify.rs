//! `reveille audit verify`: is this log, or this receipt, what the daemon wrote?
//!
//! It needs the file and the public key, nothing else, and says what it checked and what that cannot show.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::checkpoint::LINE_START;
use super::encoding::base64;
use super::evidence;
use super::key::PublicKey;
use super::prove::{self, GROWTH_START, PROOF_START, load_checkpoint, refuse_unless_grown};
use super::reading::{Extent, Log, load_key};
use super::receipt::{self, Checked};
use super::seal::SEAL_START;
use super::summary::{self, Summary};
use crate::engine::audit::{AuditEvent, Receipt};

/// A receipt is a few kilobytes, evidence a few hundred; what is longer is read as a log.
const DOCUMENT_MAX: u64 = 1024 * 1024;

/// What to check a file against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Against<'a> {
    /// The public key (PEM). Without one: that beside the log, or the one that the file names.
    pub key: Option<&'a Path>,
    /// A checkpoint that somebody kept: the log must have grown from it.
    pub since: Option<&'a Path>,
    /// A segment is looked at alone, without those before it.
    pub single: bool,
}

/// Why a file is not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file or the key cannot be read: nothing is known about the content.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Neither `--key` nor a public key beside the log.
    #[error("{}: no public key beside it; give one with --key", .0.display())]
    NoKey(PathBuf),
    /// A log is not what was written.
    #[error("{}: line {line}: {reason}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Where, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A receipt is not what was signed.
    #[error("{}: {reason}", path.display())]
    Receipt {
        /// The receipt.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A proof does not prove what it should, or a log has not grown from a checkpoint.
    #[error("{}: {reason}", path.display())]
    Proof {
        /// The proof or log.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What is asked about is not in the files that are there.
    #[error("{}: {reason}", path.display())]
    NotHere {
        /// The log.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The report cannot be written.
    #[error("{0}")]
    Report(#[from] io::Error),
}

impl VerifyError {
    /// Whether the content was looked at and refused, as against: could not be looked at.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Log { .. } | Self::Receipt { .. } | Self::Proof { .. } => true,
            Self::Unreadable { .. } | Self::NoKey(_) | Self::NotHere { .. } | Self::Report(_) => false,
        }
    }
}

/// Checks a log, a receipt or a summary (alone, or as DELETE answers it), a proof or evidence, and writes to `out` what was
/// checked.
///
/// # Errors
///
/// The first thing that is wrong, or why nothing could be checked.
pub fn verify(path: &Path, against: Against<'_>, out: &mut dyn Write) -> Result<(), VerifyError> {
    let given = against.key.map(load_key).transpose()?;
    let mut head = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(DOCUMENT_MAX + 1).read_to_end(&mut head));
    opened.map_err(|source| VerifyError::Unreadable { path: path.to_owned(), source })?;
    if looks_like_a_log(&head) {
        return verify_log(path, given, against, out);
    }
    if let Ok(text) = std::str::from_utf8(&head)
        && (text.starts_with(PROOF_START) || text.starts_with(GROWTH_START))
    {
        return verify_proof(path, text, given, against, out);
    }
    if let Some(checked) = evidence::check(&head, given.as_ref()) {
        let evidence = checked.map_err(|reason| VerifyError::Proof { path: path.to_owned(), reason })?;
        return Ok(evidence::report(&evidence, given.is_some(), out)?);
    }
    if let Some(summary) = summary::parse(&head) {
        let checked = summary::check(&summary, given.as_ref());
        let key = checked.map_err(|fault| VerifyError::Receipt { path: path.to_owned(), reason: fault.to_string() })?;
        report_summary(&summary, &key, given.is_some(), out)?;
        return Ok(());
    }
    let (receipt, checked) = check_receipt(&head, given.as_ref())
        .map_err(|reason| VerifyError::Receipt { path: path.to_owned(), reason })?;
    report_receipt(&receipt, &checked, given.is_some(), out)?;
    Ok(())
}

/// Checks a receipt (alone, or as DELETE answers it) that must be signed with the key `pem`.
///
/// # Errors
///
/// What is wrong with the receipt or the key.
pub fn verify_receipt(receipt: &[u8], pem: &str) -> Result<(), String> {
    let key = PublicKey::from_pem(pem).ok_or("the key is not an Ed25519 key in PEM")?;
    check_receipt(receipt, Some(&key)).map(drop)
}

/// Checks a summary (alone, or as it was answered) that must be signed with the key `pem`.
///
/// # Errors
///
/// What is wrong with the summary or the key.
pub fn verify_summary(summary: &[u8], pem: &str) -> Result<(), String> {
    let key = PublicKey::from_pem(pem).ok_or("the key is not an Ed25519 key in PEM")?;
    let summary = summary::parse(summary).ok_or("not a summary")?;
    summary::check(&summary, Some(&key)).map(drop).map_err(|fault| fault.to_string())
}

/// Whether some line begins as only a log's lines do. Anything else has to stand the test as something else.
fn looks_like_a_log(head: &[u8]) -> bool {
    let is_ours = |line: &[u8]| [LINE_START, SEAL_START].iter().any(|start| line.starts_with(start.as_bytes()));
    head.is_empty() || head.len() as u64 > DOCUMENT_MAX || head.split(|byte| *byte == b'\n').any(is_ours)
}

fn verify_log(
    path: &Path,
    given: Option<PublicKey>,
    against: Against<'_>,
    out: &mut dyn Write,
) -> Result<(), VerifyError> {
    let extent = if against.single { Extent::Alone } else { Extent::WithEarlier };
    let log = Log::read(path, given, extent)?;
    let kept = against.since.map(|since| load_checkpoint(since, &log.key)).transpose()?;
    if let Some(kept) = &kept {
        refuse_unless_grown(&log, kept, path)?;
    }
    report_log(&log, kept.map(|kept| kept.checkpoint.size), out)?;
    Ok(())
}

fn verify_proof(
    path: &Path,
    text: &str,
    given: Option<PublicKey>,
    against: Against<'_>,
    out: &mut dyn Write,
) -> Result<(), VerifyError> {
    let key = given.ok_or_else(|| VerifyError::NoKey(path.to_owned()))?;
    let wrong = |reason: &str| VerifyError::Proof { path: path.to_owned(), reason: reason.to_owned() };
    let note = if text.starts_with(PROOF_START) {
        let included = prove::check_inclusion(text, &key).map_err(wrong)?;
        writeln!(out, "inclusion proof: good")?;
        writeln!(out, "  record      {} (from 0): {}", included.index, included.record)?;
        included.note
    } else {
        let missing = "it proves nothing without the checkpoint it begins at; give that one with --since";
        let since =
            against.since.ok_or_else(|| VerifyError::NotHere { path: path.to_owned(), reason: missing.to_owned() })?;
        let old = load_checkpoint(since, &key)?;
        let note = prove::check_growth(text, &old, &key).map_err(wrong)?;
        writeln!(out, "consistency proof: good")?;
        writeln!(out, "  grown from  {} records", old.checkpoint.size)?;
        note
    };
    writeln!(out, "  log         {}", note.checkpoint.origin)?;
    writeln!(out, "  records     {}", note.checkpoint.size)?;
    writeln!(out, "  root        {}", base64(&note.checkpoint.root))?;
    writeln!(out, "  signed by   {}", key.fingerprint())?;
    Ok(())
}

/// What `DELETE /v1/instances/{id}` answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deleted {
    receipt: Value,
    logged: bool,
}

pub(super) fn check_receipt(bytes: &[u8], key: Option<&PublicKey>) -> Result<(Receipt, Checked), String> {
    let (receipt, logged) = parse_receipt(bytes)?;
    let checked = receipt::check(&receipt, key).map_err(|fault| fault.to_string())?;
    if logged.is_some_and(|logged| logged != receipt.inclusion.is_some()) {
        return Err("\"logged\" says otherwise than the receipt".to_owned());
    }
    Ok((receipt, checked))
}

fn parse_receipt(bytes: &[u8]) -> Result<(Receipt, Option<bool>), String> {
    let neither =
        |error: serde_json::Error| format!("neither an audit log nor a receipt, summary, proof or evidence: {error}");
    let value: Value = serde_json::from_slice(bytes).map_err(neither)?;
    let (value, logged) = if value.get("receipt").is_some() {
        // Read again from the text: a value has forgotten that a member stood there twice.
        let Deleted { receipt, logged } = serde_json::from_slice(bytes).map_err(neither)?;
        (receipt, Some(logged))
    } else {
        (value, None)
    };
    let receipt: Receipt = serde_json::from_value(value.clone()).map_err(neither)?;
    let written = serde_json::to_value(&receipt).map_err(neither)?;
    if written != value {
        return Err("the receipt has members that nobody signed".to_owned());
    }
    Ok((receipt, logged))
}

fn report_receipt(receipt: &Receipt, checked: &Checked, key_given: bool, out: &mut dyn Write) -> io::Result<()> {
    let Checked { record, key } = checked;
    writeln!(out, "receipt: good")?;
    writeln!(out, "  instance    {}", receipt.instance)?;
    writeln!(out, "  tenant      {}", record.tenant)?;
    writeln!(out, "  erased at   {}", record.at)?;
    if let AuditEvent::Erased { cause, unregister, .. } = &record.event {
        writeln!(out, "  cause       {}", cause.as_str())?;
        writeln!(out, "  registrar   {}", unregister.as_str())?;
    }
    if let Some(policy) = &record.policy {
        writeln!(out, "  policy      {policy}")?;
    }
    writeln!(out, "  subject     made from this instance and the receipt's salt")?;
    match &receipt.inclusion {
        Some(inclusion) => writeln!(
            out,
            "  log         leaf {} (from 0) of {} under root {}",
            inclusion.leaf_index, inclusion.tree_size, inclusion.root
        )?,
        None => writeln!(out, "  log         not included: the record was not on the disk in time")?,
    }
    writeln!(out, "  signed by   {}", key.fingerprint())?;
    if !key_given {
        writeln!(
            out,
            "  The key is the one the receipt names. Compare its fingerprint with the published one, or give --key."
        )?;
    }
    Ok(())
}

fn report_summary(summary: &Summary, key: &PublicKey, key_given: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "summary: good")?;
    writeln!(out, "  tenant      {}", summary.tenant)?;
    writeln!(out, "  whom        {}", summary.whom)?;
    writeln!(out, "  cause       {}", summary.cause)?;
    writeln!(out, "  policy      {}", summary.policy)?;
    writeln!(out, "  from        {} to {}", summary.begun, summary.ended)?;
    writeln!(out, "  erased      {}, {} of them logged in time", summary.erased, summary.logged)?;
    for (said, count) in &summary.unregister {
        writeln!(out, "  registrar   {count} {said}")?;
    }
    writeln!(out, "  signed by   {}", key.fingerprint())?;
    if !key_given {
        writeln!(
            out,
            "  The key is the one the summary names. Compare its fingerprint with the published one, or give --key."
        )?;
    }
    Ok(())
}

fn report_log(log: &Log, since: Option<u64>, out: &mut dyn Write) -> io::Result<()> {
    let last = &log.last().checkpoint;
    writeln!(out, "audit log: good")?;
    writeln!(out, "  log         {}", last.origin)?;
    writeln!(out, "  records     {}", last.size)?;
    if log.start() > 0 {
        writeln!(out, "  from        {}: earlier ones are in segments that were not looked at", log.start())?;
    }
    if log.segments.len() > 1 {
        writeln!(out, "  segments    {}, each going on where the one before ends", log.segments.len())?;
    }
    writeln!(out, "  checkpoints {}, each signed, chained and over the records before it", log.checkpoints())?;
    writeln!(out, "  root        {}", base64(&last.root))?;
    writeln!(out, "  signed by   {}", log.key.fingerprint())?;
    writeln!(out, "  as vkey     {}", log.key.vkey(&last.origin))?;
    if log.key_found_beside {
        writeln!(
            out,
            "  The key was found beside the log. Compare its fingerprint with the published one, or give --key."
        )?;
    }
    match since {
        Some(size) => writeln!(out, "  grown from  the checkpoint given, with {size} records: nothing was cut off it"),
        None => writeln!(
            out,
            "  A log that was cut right behind an earlier checkpoint looks whole: keep a checkpoint somewhere else and \
             give it with --since."
        ),
    }
}
