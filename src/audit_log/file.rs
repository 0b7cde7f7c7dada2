//! The log's file: continued where it ends, never written behind what is damaged.
//!
//! A checkpoint is written only once the records it covers are on the disk, so a crash leaves records without a
//! checkpoint and never the reverse; whatever stands behind the last checkpoint was never confirmed to anyone and may be
//! put aside. Anything else that is wrong is not a crash, and the log is refused.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::checkpoint::{Checkpoint, SignedNote};
use super::key::{Signer, sync_directory_of};
use super::merkle::{Frontier, Hash};
use super::replay::{Covered, Fault, FaultKind, Replay, Signatures, replay};
use super::segments;
use super::torn::{TORN_MAX, is_torn, put_aside};

/// How much room there has to be for the log to count as one that can be written: more than most batches take.
const ROOM: usize = 64 * 1024;

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
        "its live segment is empty or gone, though other files of it (numbered, or .next) are there; put back what is missing, or move all of them away to begin a new log"
    )]
    LiveGone,
    #[error(
        "its live segment begins at record {start}, though {} beside it ends at {end}: an earlier file was put in its place. Put the last one back",
        finished.display()
    )]
    PutBack { start: u64, finished: PathBuf, end: u64 },
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

/// Which file it is, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// The open file.
pub(super) struct LogFile {
    path: PathBuf,
    /// Of the file that was opened under the log's name.
    identity: Identity,
    /// `None` after a failure that closed it; the next attempt opens it again.
    file: Option<File>,
    /// Everything before is synced, and ends with a checkpoint.
    synced: u64,
    /// The last line, to know the file again.
    last_line: Vec<u8>,
    /// Whether there may be something behind `synced`.
    soiled: bool,
    /// The last checkpoint that was to be written, to know it again behind `synced`.
    attempted: String,
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
        // Nothing is made where the log is to be refused.
        if segments::is_missing(path) && segments::has_others(path)? {
            return Err(ContinueError::LiveGone);
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
        lock(&file)?;
        let opened = file.metadata()?;
        if opened.len() == 0 {
            sync_directory_of(path)?;
        }
        let (path, last_line) = (path.to_owned(), Vec::new());
        Ok(Self {
            path,
            identity: Identity::of(&opened),
            file: Some(file),
            synced: 0,
            last_line,
            soiled: false,
            attempted: String::new(),
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
        let torn = self.torn_tail(&found, signer, origin)?;
        self.refuse_contradiction(&found.covered)?;
        if let Some(tail) = torn {
            self.cut_torn_tail(&tail, found.unsigned)?;
        }
        self.records = found.covered.records();
        let Covered { tree, .. } = found.covered.clone();
        let previous = found.covered.previous();
        if found.covered.last.is_some() {
            return Ok(Standing { tree, previous });
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
    /// What the disk says. What was written of them is cut off, at once if the disk lets us, else before the next attempt.
    pub(super) fn append(&mut self, records: &[&str], checkpoint: &str) -> io::Result<()> {
        let appended = self.try_append(records, checkpoint);
        if appended.is_err() {
            self.give_up();
        }
        appended
    }

    /// Finds out whether there is room for more: writes something behind the end, and takes it away again.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub(super) fn probe(&mut self) -> io::Result<()> {
        let probed = self.try_probe();
        if probed.is_err() {
            self.give_up();
        }
        probed
    }

    fn try_probe(&mut self) -> io::Result<()> {
        let (file, end) = self.ready("")?;
        // If we end here, the next start takes it for blocks that the disk never wrote.
        file.write_all_at(&[0; ROOM], end)?;
        file.sync_data()?;
        file.set_len(end)?;
        self.soiled = false;
        Ok(())
    }

    fn try_append(&mut self, records: &[&str], checkpoint: &str) -> io::Result<()> {
        let (file, end) = self.ready(checkpoint)?;
        let mut bytes = Vec::with_capacity(records.iter().map(|record| record.len() + 1).sum());
        for record in records {
            bytes.extend_from_slice(record.as_bytes());
            bytes.push(b'\n');
        }
        if !bytes.is_empty() {
            file.write_all_at(&bytes, end)?;
            file.sync_data()?;
        }
        let checkpoint = format!("{checkpoint}\n").into_bytes();
        file.write_all_at(&checkpoint, end + bytes.len() as u64)?;
        file.sync_data()?;

        self.synced += (bytes.len() + checkpoint.len()) as u64;
        self.last_line = checkpoint;
        self.soiled = false;
        self.records += records.len() as u64;
        Ok(())
    }

    /// The file, with nothing behind the end that it gives, to write this checkpoint there.
    fn ready(&mut self, checkpoint: &str) -> io::Result<(&File, u64)> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &self.file else { return Err(io::Error::other("the log is not open")) };
        // Nobody finds what is written into a file that was deleted or moved, or behind a gap.
        let named = fs::metadata(&self.path)?;
        if Identity::of(&named) != self.identity {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log was moved, and another file has its name"));
        }
        if named.len() < self.synced {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log was cut by somebody else"));
        }
        if self.newly_named {
            sync_directory_of(&self.path)?;
            self.newly_named = false;
        }
        if self.soiled {
            file.set_len(self.synced)?;
        }
        self.soiled = true;
        checkpoint.clone_into(&mut self.attempted);
        Ok((file, self.synced))
    }

    /// Closes the file after a failure. The end is cut off first: a disk that is still full at the next start has no room to
    /// put it aside.
    fn give_up(&mut self) {
        let Some(file) = self.file.take() else { return };
        if self.soiled && file.set_len(self.synced).is_ok() {
            self.soiled = false;
        }
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
        self.identity = Identity::of(&file.metadata()?);
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
        let length = file.metadata()?.len();
        if length >= self.synced {
            file.read_exact_at(&mut last_line, begin)?;
        }
        if last_line != self.last_line {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log was cut or replaced by somebody else"));
        }
        if self.is_continued(&file)? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another process went on with the log"));
        }
        self.soiled = true;
        self.identity = Identity::of(&file.metadata()?);
        self.file = Some(file);
        Ok(())
    }

    /// The live segment is the last one: the finished ones beside it end where it begins, or before.
    fn refuse_contradiction(&self, covered: &Covered) -> Result<(), ContinueError> {
        let (start, ends) = (covered.start(), segments::ends(&self.path)?);
        match ends.last() {
            Some(_) if covered.last.is_none() => Err(ContinueError::LiveGone),
            Some(&end) if end > start => {
                Err(ContinueError::PutBack { start, finished: segments::finished(&self.path, end), end })
            }
            _ => Ok(()),
        }
    }

    /// Whether a checkpoint that is not ours stands behind our last one: while the file was closed nobody was locked out, and
    /// what others confirmed is not ours to cut.
    fn is_continued(&self, mut file: &File) -> io::Result<bool> {
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(self.synced))?;
        file.take(TORN_MAX).read_to_end(&mut tail)?;
        let is_foreign = |line: &[u8]| line != self.attempted.as_bytes() && SignedNote::parse_line(line).is_some();
        Ok(tail.split(|byte| *byte == b'\n').any(is_foreign))
    }

    /// What a crash left behind the last checkpoint, if it left anything.
    fn torn_tail(&self, found: &Replay, signer: &Signer, origin: &str) -> Result<Option<Vec<u8>>, ContinueError> {
        let mut file = self.file()?;
        let length = file.metadata()?.len().saturating_sub(self.synced);
        if length == 0 {
            return Ok(None);
        }
        let mut tail = Vec::new();
        if length <= TORN_MAX {
            file.seek(SeekFrom::Start(self.synced))?;
            file.take(TORN_MAX).read_to_end(&mut tail)?;
        }
        if length > TORN_MAX || !is_torn(&tail, &found.covered, signer, origin) {
            let unfinished = Fault { line: found.covered.lines + found.unsigned, kind: FaultKind::Unfinished };
            return Err(ContinueError::Damaged(found.fault.clone().unwrap_or(unfinished)));
        }
        Ok(Some(tail))
    }

    /// Cuts off what a crash left. A disk that is full keeps nobody from starting: then it is not put aside, or cut off
    /// only before the next write.
    fn cut_torn_tail(&mut self, tail: &[u8], records: u64) -> io::Result<()> {
        let bytes = tail.len();
        match put_aside(&self.path, self.synced, tail) {
            Ok(aside) => tracing::warn!(
                records, bytes, aside = %aside.display(),
                "cut off the audit log what a crash left behind its last checkpoint"
            ),
            Err(error) => tracing::warn!(
                records, bytes, %error,
                "cut off the audit log what a crash left behind its last checkpoint; it could not be put aside"
            ),
        }
        let file = self.file()?;
        self.soiled = file.set_len(self.synced).and_then(|()| file.sync_all()).is_err();
        Ok(())
    }

    /// Makes the next write go to another file, as if the disk behind the log had changed.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: File) {
        self.file = Some(file);
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the log is not open"))
    }
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
