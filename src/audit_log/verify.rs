//! `reveille audit verify`: is this log, or this receipt, what the daemon wrote?
//!
//! It needs the file and the public key, nothing else, and says what it checked and what that cannot show.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::checkpoint::LINE_START;
use super::file::beside;
use super::key::PublicKey;
use super::receipt::{self, Checked};
use super::replay::{Covered, FaultKind, Signatures, replay};
use super::summary::{self, Summary};
use crate::engine::audit::{AuditEvent, Receipt};

/// A receipt is a few kilobytes; what is longer is read as a log.
const RECEIPT_MAX: u64 = 64 * 1024;

/// How often the end of a log is looked at again: a daemon that runs may be between a record and its checkpoint.
const LOOKS: u32 = 10;

/// The pause between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

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
    /// The report cannot be written.
    #[error("{0}")]
    Report(#[from] io::Error),
}

impl VerifyError {
    /// Whether the content was looked at and refused, as against: could not be looked at.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Log { .. } | Self::Receipt { .. } => true,
            Self::Unreadable { .. } | Self::NoKey(_) | Self::Report(_) => false,
        }
    }
}

/// Checks a log, a receipt or a summary (alone, or as DELETE answers it) and writes to `out` what was checked.
///
/// Without `key` a log is checked against the public key beside it, a receipt against the key it names.
///
/// # Errors
///
/// The first thing that is wrong, or why nothing could be checked.
pub fn verify(path: &Path, key: Option<&Path>, out: &mut dyn Write) -> Result<(), VerifyError> {
    let given = key.map(load_key).transpose()?;
    let mut head = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(RECEIPT_MAX + 1).read_to_end(&mut head));
    opened.map_err(|source| VerifyError::Unreadable { path: path.to_owned(), source })?;
    if looks_like_a_log(&head) {
        return verify_log(path, given, out);
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

/// Whether some line begins as only a log's lines do. Anything else has to stand the test as a receipt.
fn looks_like_a_log(head: &[u8]) -> bool {
    head.is_empty()
        || head.len() as u64 > RECEIPT_MAX
        || head.split(|byte| *byte == b'\n').any(|line| line.starts_with(LINE_START.as_bytes()))
}

fn load_key(path: &Path) -> Result<PublicKey, VerifyError> {
    PublicKey::load(path).map_err(|source| VerifyError::Unreadable { path: path.to_owned(), source })
}

fn verify_log(path: &Path, given: Option<PublicKey>, out: &mut dyn Write) -> Result<(), VerifyError> {
    let found_beside = given.is_none();
    let key = match given {
        Some(key) => key,
        None => {
            let public = beside(path, "pub");
            if !public.exists() {
                return Err(VerifyError::NoKey(path.to_owned()));
            }
            load_key(&public)?
        }
    };
    let covered = read_log(path, &key)?;
    report_log(&covered, &key, found_beside, out)?;
    Ok(())
}

/// Reads the log; an end that may still be being written is given time to become whole.
fn read_log(path: &Path, key: &PublicKey) -> Result<Covered, VerifyError> {
    let unreadable = |source| VerifyError::Unreadable { path: path.to_owned(), source };
    let mut look = 1;
    loop {
        let file = File::open(path).map_err(unreadable)?;
        let found = replay(BufReader::new(file), key, Signatures::All).map_err(unreadable)?;
        let (line, reason, unfinished) = match found.fault {
            None if found.unsigned == 0 => return Ok(found.covered),
            None => (found.covered.lines + 1, UNSIGNED_TAIL.to_owned(), true),
            Some(fault) => (fault.line, fault.kind.to_string(), fault.kind == FaultKind::Unfinished),
        };
        if !unfinished || look == LOOKS {
            return Err(VerifyError::Log { path: path.to_owned(), line, reason });
        }
        look += 1;
        #[expect(clippy::disallowed_methods, reason = "a command-line tool waits for a log that is being written")]
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}

const UNSIGNED_TAIL: &str = "no checkpoint covers the records from here on: a crash left them (the next start of the \
    daemon puts them aside), or they were added, or their checkpoint was cut off";

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
    let neither = |error: serde_json::Error| format!("neither an audit log nor a receipt: {error}");
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
    if let AuditEvent::Erased { cause, unregister } = &record.event {
        writeln!(out, "  cause       {}", cause.as_str())?;
        writeln!(out, "  registrar   {}", serde_json::to_string(unregister)?.trim_matches('"'))?;
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

fn report_log(covered: &Covered, key: &PublicKey, found_beside: bool, out: &mut dyn Write) -> io::Result<()> {
    let Some(last) = &covered.last else { return Ok(()) };
    writeln!(out, "audit log: good")?;
    writeln!(out, "  log         {}", last.checkpoint.origin)?;
    writeln!(out, "  records     {}", last.checkpoint.size)?;
    writeln!(out, "  checkpoints {}, each signed, chained and over the records before it", covered.checkpoints)?;
    writeln!(out, "  root        {}", super::encoding::base64(&last.checkpoint.root))?;
    writeln!(out, "  signed by   {}", key.fingerprint())?;
    if found_beside {
        writeln!(
            out,
            "  The key was found beside the log. Compare its fingerprint with the published one, or give --key."
        )?;
    }
    writeln!(
        out,
        "  A log that was cut right behind an earlier checkpoint looks whole: compare the number of records with a \
         receipt or a checkpoint that you kept."
    )
}
