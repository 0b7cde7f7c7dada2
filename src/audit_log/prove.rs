//! `reveille audit prove`: proofs under the log's last checkpoint, in forms that others read too.
//!
//! That a record is in the log is told as C2SP `tlog-proof`; that the log only grew since a checkpoint that somebody kept,
//! as the body of C2SP `tlog-witness`'s `add-checkpoint`. Both end with the checkpoint itself.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::SignedNote;
use super::encoding::{base64, unbase64};
use super::key::PublicKey;
use super::merkle::{Frontier, Hash, leaf_hash, root_of_path};
use super::proof::{Tracker, has_grown};
use super::reading::{Extent, Log, load_key};
use super::record::is_record;
use super::replay::Passed;
use super::verify::{VerifyError, check_receipt};

/// The first line of an inclusion proof.
pub(super) const PROOF_START: &str = "c2sp.org/tlog-proof@v1\n";

/// How a consistency proof begins.
pub(super) const GROWTH_START: &str = "old ";

/// What is to be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// That the log holds record number so and so, from 0.
    Record(u64),
    /// That it holds the record of this receipt.
    Receipt(PathBuf),
    /// That it has grown from the log of this checkpoint.
    Since(PathBuf),
}

/// Writes a proof to `out`. The log is checked first.
///
/// # Errors
///
/// What is wrong with the log or the file that is given, or that the log does not hold what is to be proven.
pub fn prove(path: &Path, key: Option<&Path>, wanted: &Wanted, out: &mut dyn Write) -> Result<(), VerifyError> {
    let log = Log::read(path, key.map(load_key).transpose()?, Extent::WithEarlier)?;
    let text = match wanted {
        Wanted::Record(number) => inclusion(&log, *number, path)?,
        Wanted::Receipt(file) => {
            let number = find(&log, &receipt_record(file, &log.key)?, path)?;
            inclusion(&log, number, path)?
        }
        Wanted::Since(file) => growth(&log, &load_checkpoint(file, &log.key)?, path)?,
    };
    out.write_all(text.as_bytes())?;
    Ok(())
}

fn receipt_record(file: &Path, key: &PublicKey) -> Result<String, VerifyError> {
    let bytes = fs::read(file).map_err(|source| VerifyError::Unreadable { path: file.to_owned(), source })?;
    let refused = |reason| VerifyError::Receipt { path: file.to_owned(), reason };
    check_receipt(&bytes, Some(key)).map(|(receipt, _)| receipt.record).map_err(refused)
}

/// A checkpoint that somebody kept: the signed note by itself.
pub(super) fn load_checkpoint(file: &Path, key: &PublicKey) -> Result<SignedNote, VerifyError> {
    let text = fs::read_to_string(file).map_err(|source| VerifyError::Unreadable { path: file.to_owned(), source })?;
    let note = SignedNote::parse(&text).filter(|note| note.is_signed_by(key));
    note.ok_or_else(|| {
        let reason = "no checkpoint that this key signed: the signed note is wanted, as \"jq -j .checkpoint\" gives it";
        VerifyError::Proof { path: file.to_owned(), reason: reason.to_owned() }
    })
}

/// The number of the record that is written so.
fn find(log: &Log, record: &str, path: &Path) -> Result<u64, VerifyError> {
    let mut found = None;
    log.visit(0, &mut |passed| {
        if let Passed::Record { number, line, .. } = passed
            && line == record.as_bytes()
        {
            found = Some(number);
        }
    })?;
    let missing = "it does not hold the receipt's record, which may wait for its disk, have been folded into a count, or \
                   stand in an earlier segment";
    found.ok_or_else(|| VerifyError::NotHere { path: path.to_owned(), reason: missing.to_owned() })
}

fn inclusion(log: &Log, wanted: u64, path: &Path) -> Result<String, VerifyError> {
    let mut tree = Frontier::default();
    let mut found: Option<(Vec<u8>, Tracker)> = None;
    log.visit(wanted, &mut |passed| match (passed, &mut found) {
        (Passed::Seal(sealed), None) => tree = sealed.clone(),
        (Passed::Record { number, line, leaf, .. }, None) if number == wanted => {
            found = Some((line.to_owned(), Tracker::of_leaf(std::mem::take(&mut tree), leaf)));
        }
        (Passed::Record { leaf, .. }, None) => tree.append(leaf),
        (Passed::Record { leaf, .. }, Some((_, tracker))) => tracker.append(leaf),
        (Passed::Seal(_), Some(_)) | (Passed::Checkpoint(_), _) => {}
    })?;
    let reason = match log.last().checkpoint.size.checked_sub(1).filter(|last| *last >= log.start()) {
        Some(last) => format!("it holds the records {} to {last} (from 0)", log.start()),
        None => "it holds no record".to_owned(),
    };
    let (line, tracker) = found.ok_or_else(|| VerifyError::NotHere { path: path.to_owned(), reason })?;
    // What is needed to make the leaf, as the form has it: the record itself.
    let extra = STANDARD.encode(line);
    let hashes = lines(&tracker.path());
    Ok(format!("{PROOF_START}extra {extra}\nindex {wanted}\n{hashes}\n{}", log.last().note()))
}

fn growth(log: &Log, old: &SignedNote, path: &Path) -> Result<String, VerifyError> {
    let size = old.checkpoint.size;
    refuse_unless_grown(log, old, path)?;
    let tree = log.tree_of(size)?.unwrap_or_default();
    let mut tracker = Tracker::of_tree(tree);
    log.visit(size, &mut |passed| {
        if let (Passed::Record { number, leaf, .. }, Some(tracker)) = (passed, &mut tracker)
            && number >= size
        {
            tracker.append(leaf);
        }
    })?;
    let grown = size < log.last().checkpoint.size;
    let proof = tracker.filter(|_| grown).map(|tracker| tracker.path()).unwrap_or_default();
    Ok(format!("{GROWTH_START}{size}\n{}\n{}", lines(&proof), log.last().note()))
}

/// The log holds what it held at the time of the checkpoint.
pub(super) fn refuse_unless_grown(log: &Log, old: &SignedNote, path: &Path) -> Result<(), VerifyError> {
    let (size, last) = (old.checkpoint.size, &log.last().checkpoint);
    let wrong = |reason: String| VerifyError::Proof { path: path.to_owned(), reason };
    if old.checkpoint.origin != last.origin {
        return Err(wrong(format!("the checkpoint belongs to \"{}\"", old.checkpoint.origin)));
    }
    if size > last.size {
        return Err(wrong(format!("it has {} records, and had {size} at the checkpoint: it was cut", last.size)));
    }
    let Some(root) = log.root_of(size)? else {
        let reason = format!("the segment that held record {size} is not here");
        return Err(VerifyError::NotHere { path: path.to_owned(), reason });
    };
    if root != old.checkpoint.root {
        return Err(wrong("the records up to the checkpoint are not those that it was signed for".to_owned()));
    }
    Ok(())
}

fn lines(hashes: &[Hash]) -> String {
    hashes.iter().map(|hash| format!("{}\n", base64(hash))).collect()
}

/// What a good inclusion proof says.
pub(super) struct Included {
    pub(super) record: String,
    pub(super) index: u64,
    pub(super) note: SignedNote,
}

/// Checks an inclusion proof as [`prove`] writes it.
pub(super) fn check_inclusion(text: &str, key: &PublicKey) -> Result<Included, &'static str> {
    let form = "not an inclusion proof in the form of C2SP tlog-proof with the record as its extra data";
    let rest = text.strip_prefix(PROOF_START).ok_or(form)?;
    let (head, note) = rest.split_once("\n\n").ok_or(form)?;
    let mut lines = head.split('\n');
    let extra = lines.next().and_then(|line| line.strip_prefix("extra ")).ok_or(form)?;
    let record = STANDARD.decode(extra).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(form)?;
    let index = lines.next().and_then(|line| number(line.strip_prefix("index ")?)).ok_or(form)?;
    let path: Vec<Hash> = lines.map(unbase64).collect::<Option<_>>().ok_or(form)?;
    let note = signed(note, key)?;
    if !is_record(record.as_bytes()) {
        return Err("its record is not a record of an audit log");
    }
    let reached = root_of_path(leaf_hash(record.as_bytes()), index, note.checkpoint.size, &path);
    if reached != Some(note.checkpoint.root) {
        return Err("its path does not lead from the record to the checkpoint's root");
    }
    Ok(Included { record, index, note })
}

/// Checks a consistency proof as [`prove`] writes it, from `old` on.
pub(super) fn check_growth(text: &str, old: &SignedNote, key: &PublicKey) -> Result<SignedNote, &'static str> {
    let form = "not a consistency proof";
    let (size, rest) = text.strip_prefix(GROWTH_START).and_then(|rest| rest.split_once('\n')).ok_or(form)?;
    let (path, note) = match rest.strip_prefix('\n') {
        Some(note) => ("", note),
        None => rest.split_once("\n\n").ok_or(form)?,
    };
    let path: Vec<Hash> = path.lines().map(unbase64).collect::<Option<_>>().ok_or(form)?;
    let note = signed(note, key)?;
    if number(size) != Some(old.checkpoint.size) {
        return Err("it begins at another size than the checkpoint");
    }
    let (was, is) = (&old.checkpoint, &note.checkpoint);
    if was.origin != is.origin || !has_grown(was.size, &was.root, is.size, &is.root, &path) {
        return Err("its path does not lead from the one checkpoint to the other");
    }
    Ok(note)
}

fn signed(note: &str, key: &PublicKey) -> Result<SignedNote, &'static str> {
    SignedNote::parse(note).filter(|note| note.is_signed_by(key)).ok_or("its checkpoint is not signed with the key")
}

/// A number in its one form.
fn number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}
