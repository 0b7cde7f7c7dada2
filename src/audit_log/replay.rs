//! Reading a log from its beginning: every line, every hash, every checkpoint.
//!
//! A log is a sequence of records (one JSON line each, hashed as the leaves of the tree) and checkpoints. It begins with
//! the checkpoint of the empty log, and a segment that continues one with its seal: the tree so far, and the checkpoint
//! that the segment before ended with. [`replay`] stops at the first thing that is wrong and says where; what that means
//! (refuse, or cut off what a crash left) is for its callers to say.

use std::fmt;
use std::io::{self, BufRead, Read};

use super::checkpoint::{Checkpoint, LINE_START, SignedNote};
use super::key::PublicKey;
use super::merkle::{Frontier, Hash, leaf_hash};
use super::record::Record;
use super::seal::{SEAL_START, Seal};

/// Our lines are a few hundred bytes; a longer one was not written by us.
pub(super) const LINE_MAX: u64 = 16 * 1024;

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
    /// The tree of the records, those of earlier segments too.
    pub(super) tree: Frontier,
    /// The checkpoint that it begins with.
    pub(super) first: Option<SignedNote>,
    /// The checkpoint.
    pub(super) last: Option<SignedNote>,
}

impl Covered {
    /// What the next checkpoint has to carry as `previous`.
    pub(super) fn previous(&self) -> Hash {
        self.last.as_ref().map(SignedNote::hash).unwrap_or_default()
    }

    /// How many records earlier segments hold.
    pub(super) fn start(&self) -> u64 {
        self.first.as_ref().map_or(0, |first| first.checkpoint.size)
    }

    /// How many records stand here.
    pub(super) fn records(&self) -> u64 {
        self.tree.size() - self.start()
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
    Seal,
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
            Self::NoFirstCheckpoint => "the log does not begin with the checkpoint of an empty log, or with a seal",
            Self::Seal => "the seal does not fit the checkpoint behind it",
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

/// A good line, as it is passed.
pub(super) enum Passed<'a> {
    /// The tree so far, from a seal.
    Seal(&'a Frontier),
    /// A record, with its number (from 0) and hash.
    Record { number: u64, line: &'a [u8], leaf: Hash, record: &'a Record },
    /// A checkpoint.
    Checkpoint(&'a SignedNote),
}

/// Reads a whole log, or one segment of it.
///
/// # Errors
///
/// Only those of reading; what is wrong with the content stands in [`Replay::fault`].
pub(super) fn replay(log: impl BufRead, key: &PublicKey, signatures: Signatures) -> io::Result<Replay> {
    replay_seen(log, key, signatures, &mut |_| ())
}

/// Like [`replay`], and shows each good line to `see`. Nothing shown is certain before a checkpoint follows.
///
/// # Errors
///
/// Only those of reading.
pub(super) fn replay_seen(
    log: impl BufRead,
    key: &PublicKey,
    signatures: Signatures,
    see: &mut dyn FnMut(Passed<'_>),
) -> io::Result<Replay> {
    let (at, covered) = (Covered::default(), Covered::default());
    let mut reader = Reader { log, key, signatures, see, at, sealed: false, covered, unsigned: 0 };
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
    see: &'a mut dyn FnMut(Passed<'_>),
    /// Everything read so far.
    at: Covered,
    /// It begins with a seal.
    sealed: bool,
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
        if self.at.lines == 1 && line.starts_with(SEAL_START.as_bytes()) {
            return self.take_seal(&Seal::parse_line(line).ok_or(FaultKind::Unreadable)?);
        }
        if self.at.checkpoints == 0 {
            return Err(FaultKind::NoFirstCheckpoint);
        }
        let record = Record::parse(line).ok_or(FaultKind::Unreadable)?;
        let (number, leaf) = (self.at.tree.size(), leaf_hash(line));
        self.at.tree.append(leaf);
        self.unsigned += 1;
        (self.see)(Passed::Record { number, line, leaf, record: &record });
        Ok(())
    }

    /// What it says is certain only with the checkpoint behind it.
    fn take_seal(&mut self, seal: &Seal) -> Result<(), FaultKind> {
        self.at.tree = seal.tree().ok_or(FaultKind::Seal)?;
        self.sealed = true;
        (self.see)(Passed::Seal(&self.at.tree));
        Ok(())
    }

    fn take_checkpoint(&mut self, note: SignedNote) -> Result<(), FaultKind> {
        let Checkpoint { origin, size, root, previous } = &note.checkpoint;
        if self.at.last.as_ref().is_some_and(|last| last.checkpoint.origin != *origin) {
            return Err(FaultKind::Origin);
        }
        let behind_seal = self.sealed && self.at.checkpoints == 0;
        if *size != self.at.tree.size() {
            return Err(if behind_seal { FaultKind::Seal } else { FaultKind::Size });
        }
        if *root != self.at.tree.root() {
            return Err(if behind_seal { FaultKind::Seal } else { FaultKind::Root });
        }
        // That before a seal stands in the segment before.
        if *previous != self.at.previous() && !behind_seal {
            return Err(FaultKind::Chain);
        }
        if self.signatures == Signatures::All && !note.is_signed_by(self.key) {
            return Err(FaultKind::Signature);
        }
        (self.see)(Passed::Checkpoint(&note));
        self.at.checkpoints += 1;
        self.at.first.get_or_insert_with(|| note.clone());
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
