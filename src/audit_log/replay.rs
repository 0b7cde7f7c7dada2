//! Reading a log from its beginning: every line, every hash, every checkpoint.
//!
//! A log is a sequence of records (one JSON line each, hashed as the leaves of the tree) and checkpoints. The first line
//! is the checkpoint of the empty log. [`replay`] stops at the first thing that is wrong and says where; what that means
//! (refuse, or cut off what a crash left) is for its callers to say.

use std::fmt;
use std::io::{self, BufRead, Read};

use super::checkpoint::{Checkpoint, LINE_START, SignedNote};
use super::key::PublicKey;
use super::merkle::{Frontier, Hash, leaf_hash};
use crate::engine::audit::AuditRecord;

/// Our lines are a few hundred bytes; a longer one was not written by us.
pub(super) const LINE_MAX: u64 = 16 * 1024;

/// The version of the record form that is read and written here.
pub(super) const RECORD_VERSION: u8 = 1;

/// Which signatures are checked. Each checkpoint carries the hash of the one before, so the last signature alone
/// vouches for everything; checking all of them finds the very line that was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Signatures {
    All,
    Last,
}

/// What a log holds up to one of its checkpoints.
#[derive(Clone, Default)]
pub(super) struct Covered {
    /// Lines, checkpoints among them.
    pub(super) lines: u64,
    /// Bytes, line ends included.
    pub(super) bytes: u64,
    /// How many of the lines are checkpoints.
    pub(super) checkpoints: u64,
    /// The tree of the records.
    pub(super) tree: Frontier,
    /// The checkpoint.
    pub(super) last: Option<SignedNote>,
}

impl Covered {
    /// What the next checkpoint has to carry as `previous`.
    pub(super) fn previous(&self) -> Hash {
        self.last.as_ref().map(SignedNote::hash).unwrap_or_default()
    }
}

/// What reading a log found.
pub(super) struct Replay {
    /// The log up to its last good checkpoint.
    pub(super) covered: Covered,
    /// Good records behind it that no checkpoint covers.
    pub(super) unsigned: u64,
    /// What is wrong, if anything is, and where.
    pub(super) fault: Option<Fault>,
}

/// Something wrong in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line, from 1.
    pub(super) line: u64,
    pub(super) kind: FaultKind,
}

/// What can be wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    NoFirstCheckpoint,
    Unreadable,
    Unfinished,
    Size,
    Root,
    Chain,
    Origin,
    Signature,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFirstCheckpoint => "the log does not begin with the checkpoint of an empty log",
            Self::Unreadable => "neither a record nor a checkpoint as this version writes them",
            Self::Unfinished => "the last line is not finished",
            Self::Size => {
                "the checkpoint counts another number of records than stand before it: some were removed or added"
            }
            Self::Root => "the checkpoint has another root than the records before it: some were changed or swapped",
            Self::Chain => "the checkpoint does not follow the one before it: that one was changed, or one was removed",
            Self::Origin => "the checkpoint belongs to another log",
            Self::Signature => "the checkpoint's signature does not fit the key",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.kind)
    }
}

/// Reads a whole log.
///
/// # Errors
///
/// Only those of reading; what is wrong with the content stands in [`Replay::fault`].
pub(super) fn replay(log: impl BufRead, key: &PublicKey, signatures: Signatures) -> io::Result<Replay> {
    let mut reader = Reader { log, key, signatures, at: Covered::default(), covered: Covered::default(), unsigned: 0 };
    let mut fault = reader.read_all()?;
    if fault.is_none() && signatures == Signatures::Last {
        fault = reader.check_last();
    }
    Ok(Replay { covered: reader.covered, unsigned: reader.unsigned, fault })
}

struct Reader<'a, L> {
    log: L,
    key: &'a PublicKey,
    signatures: Signatures,
    /// Everything read so far.
    at: Covered,
    /// Everything up to the last checkpoint.
    covered: Covered,
    unsigned: u64,
}

impl<L: BufRead> Reader<'_, L> {
    fn read_all(&mut self) -> io::Result<Option<Fault>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            self.log.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok((self.at.lines == 0).then(|| self.fault(FaultKind::NoFirstCheckpoint)));
            }
            self.at.lines += 1;
            self.at.bytes += line.len() as u64;
            if let Err(kind) = self.take_line(&line) {
                return Ok(Some(self.fault(kind)));
            }
        }
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), FaultKind> {
        let line = line.strip_suffix(b"\n").ok_or(FaultKind::Unfinished)?;
        if line.starts_with(LINE_START.as_bytes()) {
            return self.take_checkpoint(SignedNote::parse_line(line).ok_or(FaultKind::Unreadable)?);
        }
        if self.at.checkpoints == 0 {
            return Err(FaultKind::NoFirstCheckpoint);
        }
        if !is_record(line) {
            return Err(FaultKind::Unreadable);
        }
        self.at.tree.append(leaf_hash(line));
        self.unsigned += 1;
        Ok(())
    }

    fn take_checkpoint(&mut self, note: SignedNote) -> Result<(), FaultKind> {
        let Checkpoint { origin, size, root, previous } = &note.checkpoint;
        if self.at.last.as_ref().is_some_and(|last| last.checkpoint.origin != *origin) {
            return Err(FaultKind::Origin);
        }
        if *size != self.at.tree.size() {
            return Err(FaultKind::Size);
        }
        if *root != self.at.tree.root() {
            return Err(FaultKind::Root);
        }
        if *previous != self.at.previous() {
            return Err(FaultKind::Chain);
        }
        if self.signatures == Signatures::All && !note.is_signed_by(self.key) {
            return Err(FaultKind::Signature);
        }
        self.at.checkpoints += 1;
        self.at.last = Some(note);
        self.covered = self.at.clone();
        self.unsigned = 0;
        Ok(())
    }

    /// With an unsigned last checkpoint nothing of the log is covered.
    fn check_last(&mut self) -> Option<Fault> {
        let signed = self.covered.last.as_ref().is_some_and(|last| last.is_signed_by(self.key));
        (!signed).then(|| {
            let line = self.covered.lines;
            self.covered = Covered::default();
            Fault { line, kind: FaultKind::Signature }
        })
    }

    fn fault(&self, kind: FaultKind) -> Fault {
        Fault { line: self.at.lines.max(1), kind }
    }
}

/// Whether a line is a record exactly as this version writes it.
pub(super) fn is_record(line: &[u8]) -> bool {
    serde_json::from_slice::<AuditRecord>(line).is_ok_and(|record| {
        record.v == RECORD_VERSION && serde_json::to_vec(&record).is_ok_and(|written| written == line)
    })
}
