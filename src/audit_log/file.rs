//! The log's file: continued where it ends, never written behind what is damaged.
//!
//! A checkpoint is written only once the records it covers are on the disk, so a crash leaves records without a
//! checkpoint and never the reverse; whatever stands behind the last checkpoint was never confirmed to anyone and may be
//! put aside. Anything else that is wrong is not a crash, and the log is refused.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::checkpoint::{Checkpoint, LINE_START, SignedNote};
use super::key::{Signer, sync_directory_of};
use super::merkle::{Frontier, Hash, leaf_hash};
use super::record::is_record;
use super::replay::{Covered, Fault, FaultKind, Replay, Signatures, replay};
use super::seal::SEAL_BEGUN;
use super::segments;

/// A crash leaves at most the batch that was being written; more than this behind the last checkpoint is no crash.
const TORN_MAX: u64 = 16 * 1024 * 1024;

/// Why a log cannot be continued.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContinueError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("another process writes it")]
    Locked,
    #[error("{0}")]
    Damaged(Fault),
    #[error(
        "its live segment is empty or gone, though finished ones are there; put it back, or move all of them away to begin a new log"
    )]
    LiveGone,
    #[error("it belongs to \"{found}\", not to \"{expected}\"")]
    OtherOrigin { found: String, expected: String },
}

/// Where a log stands: what the next batch builds on.
#[derive(Clone, Default)]
pub(super) struct Standing {
    pub(super) tree: Frontier,
    /// Hash of the last checkpoint.
    pub(super) previous: Hash,
}

/// The open file.
pub(super) struct LogFile {
    path: PathBuf,
    /// `None` after a failure that closed it; the next attempt opens it again.
    file: Option<File>,
    /// Everything before is synced, and ends with a checkpoint.
    synced: u64,
    /// The last line, to know the file again.
    last_line: Vec<u8>,
    /// Whether there may be something behind `synced`.
    soiled: bool,
    /// The file took the log's name, which may not last yet.
    newly_named: bool,
    /// How many records a segment has, at least, when the log goes on in a new one.
    segment_records: u64,
    /// How many it has.
    records: u64,
}

impl LogFile {
    /// Opens or makes the file and locks it.
    pub(super) fn open(path: &Path, segment_records: u64) -> Result<Self, ContinueError> {
        segments::complete(path)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
        lock(&file)?;
        if file.metadata()?.len() == 0 {
            sync_directory_of(path)?;
        }
        let (path, last_line) = (path.to_owned(), Vec::new());
        Ok(Self {
            path,
            file: Some(file),
            synced: 0,
            last_line,
            soiled: false,
            newly_named: false,
            segment_records,
            records: 0,
        })
    }

    /// Whether nothing was ever written.
    pub(super) fn is_new(&self) -> io::Result<bool> {
        Ok(self.file()?.metadata()?.len() == 0)
    }

    /// Reads and checks what is there, puts aside what a crash left, and begins the log if it is new.
    pub(super) fn resume(&mut self, signer: &Signer, origin: &str) -> Result<Standing, ContinueError> {
        let found = replay(BufReader::new(self.file()?), signer.public(), Signatures::Last)?;
        if let Some(last) = &found.covered.last
            && last.checkpoint.origin != origin
        {
            return Err(ContinueError::OtherOrigin {
                found: last.checkpoint.origin.clone(),
                expected: origin.to_owned(),
            });
        }
        self.synced = found.covered.bytes;
        self.last_line =
            found.covered.last.as_ref().map(|last| format!("{}\n", last.line()).into_bytes()).unwrap_or_default();
        let length = self.file()?.metadata()?.len();
        if length > self.synced {
            self.cut_torn_tail(&found, length - self.synced, signer, origin)?;
        }
        self.records = found.covered.records();
        let Covered { tree, .. } = found.covered.clone();
        let previous = found.covered.previous();
        if found.covered.last.is_some() {
            return Ok(Standing { tree, previous });
        }
        if !segments::ends(&self.path)?.is_empty() {
            return Err(ContinueError::LiveGone);
        }
        let first = Checkpoint::of(&tree, origin, previous).sign(signer);
        if SignedNote::parse_line(first.line().as_bytes()).is_none() {
            let reason =
                format!("\"{origin}\" cannot be the name of a log: neither white space nor + is allowed in it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason).into());
        }
        self.append(&[], &first.line())?;
        Ok(Standing { tree, previous: first.hash() })
    }

    /// Writes records and the checkpoint that covers them, each synced before the next.
    ///
    /// # Errors
    ///
    /// What the disk says. The file is then as before for whoever reads it next: the rest is cut off first.
    pub(super) fn append(&mut self, records: &[&str], checkpoint: &str) -> io::Result<()> {
        let appended = self.try_append(records, checkpoint);
        if appended.is_err() {
            self.file = None;
        }
        appended
    }

    fn try_append(&mut self, records: &[&str], checkpoint: &str) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &self.file else { return Err(io::Error::other("the log is not open")) };
        if file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log was deleted"));
        }
        if self.newly_named {
            sync_directory_of(&self.path)?;
            self.newly_named = false;
        }
        if self.soiled {
            file.set_len(self.synced)?;
        }
        self.soiled = true;

        let mut bytes = Vec::with_capacity(records.iter().map(|record| record.len() + 1).sum());
        for record in records {
            bytes.extend_from_slice(record.as_bytes());
            bytes.push(b'\n');
        }
        if !bytes.is_empty() {
            file.write_all_at(&bytes, self.synced)?;
            file.sync_data()?;
        }
        let checkpoint = format!("{checkpoint}\n").into_bytes();
        file.write_all_at(&checkpoint, self.synced + bytes.len() as u64)?;
        file.sync_data()?;

        self.synced += (bytes.len() + checkpoint.len()) as u64;
        self.last_line = checkpoint;
        self.soiled = false;
        self.records += records.len() as u64;
        Ok(())
    }

    /// Goes on in a new segment if this one has all its records; `tree` is what the last checkpoint covers.
    ///
    /// # Errors
    ///
    /// What the disk says. The log then goes on in the segment as it is, and this is tried again after as many records.
    pub(super) fn rotate_when_full(&mut self, tree: &Frontier) -> io::Result<Option<PathBuf>> {
        if self.records < self.segment_records {
            return Ok(None);
        }
        self.records = 0;
        let Some(checkpoint) = self.last_line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok())
        else {
            return Ok(None);
        };
        let (file, length) = segments::begin_next(&self.path, tree, checkpoint)?;
        self.file = Some(file);
        self.synced = length;
        self.newly_named = true;
        Ok(Some(segments::finished(&self.path, tree.size())))
    }

    /// After a failure the old handle may be of no use (a volume that went away and came back): takes a new one, if it
    /// is still our log.
    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        lock(&file).map_err(io::Error::other)?;
        let mut last_line = vec![0; self.last_line.len()];
        let begin = self.synced - self.last_line.len() as u64;
        file.read_exact_at(&mut last_line, begin)?;
        if last_line != self.last_line {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log was replaced by another file"));
        }
        self.soiled = true;
        self.file = Some(file);
        Ok(())
    }

    fn cut_torn_tail(
        &mut self,
        found: &Replay,
        length: u64,
        signer: &Signer,
        origin: &str,
    ) -> Result<(), ContinueError> {
        let unfinished = Fault { line: found.covered.lines + found.unsigned, kind: FaultKind::Unfinished };
        let fault = found.fault.clone().unwrap_or(unfinished);
        if length > TORN_MAX {
            return Err(ContinueError::Damaged(fault));
        }
        let mut tail = Vec::new();
        let mut file = self.file()?;
        file.seek(SeekFrom::Start(self.synced))?;
        file.take(TORN_MAX).read_to_end(&mut tail)?;
        if !is_torn(&tail, &found.covered, signer, origin) {
            return Err(ContinueError::Damaged(fault));
        }
        let aside = self.put_aside(&tail)?;
        self.file()?.set_len(self.synced)?;
        self.file()?.sync_all()?;
        tracing::warn!(
            records = found.unsigned, bytes = length, aside = %aside.display(),
            "cut off the audit log what a crash left behind its last checkpoint"
        );
        Ok(())
    }

    /// Makes the next write go to another file, as if the disk behind the log had changed.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: File) {
        self.file = Some(file);
    }

    fn put_aside(&self, tail: &[u8]) -> io::Result<PathBuf> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".torn-{}", self.synced));
        let aside = PathBuf::from(name);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&aside)?;
        file.write_all(tail)?;
        file.sync_all()?;
        sync_directory_of(&aside)?;
        Ok(aside)
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the log is not open"))
    }
}

/// Whether `tail`, what stands behind the last checkpoint, can be the work of a crash.
///
/// It can if it is records (or blocks the disk never wrote, which are zeros), and then at most the beginning of a line.
/// A complete checkpoint in it is one that was found wrong; and where a checkpoint is begun, it can only be the one that
/// we would have written there.
fn is_torn(tail: &[u8], covered: &Covered, signer: &Signer, origin: &str) -> bool {
    let mut lines = tail.split(|byte| *byte == b'\n');
    let unfinished = lines.next_back().unwrap_or_default();
    let mut tree = covered.tree.clone();
    let mut whole = true;
    for line in lines {
        if is_record(line) {
            tree.append(leaf_hash(line));
        } else if line.contains(&0) && !line.starts_with(LINE_START.as_bytes()) {
            whole = false;
        } else {
            return false;
        }
    }
    // A segment is there with its seal or not at all.
    if covered.last.is_none() && unfinished.starts_with(SEAL_BEGUN.as_bytes()) {
        return false;
    }
    let written = unfinished.iter().rposition(|byte| *byte != 0).map_or(&[][..], |last| &unfinished[..=last]);
    if !written.starts_with(LINE_START.as_bytes()) {
        return true;
    }
    let expected = Checkpoint::of(&tree, origin, covered.previous()).sign(signer).line();
    whole && expected.as_bytes().starts_with(written)
}

pub(super) fn lock(file: &File) -> Result<(), ContinueError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => ContinueError::Locked,
        TryLockError::Error(error) => ContinueError::Io(error),
    })
}

/// The file that stands beside the log, or beside a segment of it, under another ending.
pub(super) fn beside(log: &Path, ending: &str) -> PathBuf {
    segments::split(log).0.with_extension(ending)
}
