//! A log on the disk, looked at from outside: which segments it has, whether they are whole, and what stands in them.
//!
//! Segments are found from the last to the first, as each names the one before by its own first checkpoint, and gone
//! through in their order.

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checkpoint::SignedNote;
use super::file::beside;
use super::key::PublicKey;
use super::merkle::{Frontier, Hash};
use super::replay::{Covered, FaultKind, Passed, Signatures, replay, replay_seen};
use super::segments;
use super::verify::VerifyError;

/// How often the end of a log is looked at again: a daemon that runs may be between a record and its checkpoint.
const LOOKS: u32 = 10;

/// The pause between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

const UNSIGNED_TAIL: &str = "no checkpoint covers the records from here on: a crash left them (the next start of the \
    daemon puts them aside), or they were added, or their checkpoint was cut off";

/// How much of a log is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The segment that is named, and all before it that are there.
    WithEarlier,
    /// The segment that is named.
    Alone,
}

/// A log that was read and found whole.
pub(super) struct Log {
    pub(super) key: PublicKey,
    /// Nobody gave the key: it stood beside the log.
    pub(super) key_found_beside: bool,
    /// The earliest first. Never empty.
    pub(super) segments: Vec<Segment>,
}

/// A part of it, in a file of its own.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) covered: Covered,
    first: SignedNote,
    last: SignedNote,
    /// The file that was read, where its name may be another's by and by: that of the live segment.
    live: Option<File>,
}

impl Log {
    /// Reads and checks it.
    pub(super) fn read(path: &Path, key: Option<PublicKey>, extent: Extent) -> Result<Self, VerifyError> {
        let key_found_beside = key.is_none();
        let key = match key {
            Some(key) => key,
            None => key_beside(path)?,
        };
        let mut found = vec![read_named(path, &key, extent)?];
        if extent == Extent::WithEarlier {
            let log = segments::split(path).0;
            while let Some(earliest) = found.last() {
                let start = earliest.covered.start();
                let before = segments::finished(&log, start);
                if start == 0 || !before.exists() {
                    refuse_gap(&log, &before, start)?;
                    break;
                }
                let before = Segment::read(before, &key)?;
                earliest.refuse_unless_behind(&before)?;
                found.push(before);
            }
        }
        found.reverse();
        Ok(Self { key, key_found_beside, segments: found })
    }

    /// The number of the first record that is here, from 0.
    pub(super) fn start(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.covered.start())
    }

    /// The last checkpoint.
    pub(super) fn last(&self) -> &SignedNote {
        &self.segments.last().expect("a log has a segment").last
    }

    pub(super) fn checkpoints(&self) -> u64 {
        // A segment repeats the one that the segment before ended with.
        let repeated = self.segments.len() as u64 - 1;
        self.segments.iter().map(|segment| segment.covered.checkpoints).sum::<u64>() - repeated
    }

    /// Goes through all lines up to the last checkpoint, from the segment on that holds record number `from`.
    pub(super) fn visit(&self, from: u64, see: &mut dyn FnMut(Passed<'_>)) -> Result<(), VerifyError> {
        let end = self.last().checkpoint.size;
        let concerned = |segment: &&Segment| segment.covered.tree.size() > from || segment.covered.tree.size() == end;
        for segment in self.segments.iter().filter(concerned) {
            let unreadable = |source| VerifyError::Unreadable { path: segment.path.clone(), source };
            let file = BufReader::new(segment.open().map_err(unreadable)?);
            // What was written meanwhile is not looked at.
            let mut until_end = |passed: Passed<'_>| match passed {
                Passed::Record { number, .. } if number >= end => {}
                Passed::Checkpoint(note) if note.checkpoint.size > end => {}
                passed => see(passed),
            };
            replay_seen(file, &self.key, Signatures::Last, &mut until_end).map_err(unreadable)?;
        }
        Ok(())
    }

    /// The tree of the first `size` records; `None` if they are not all known here.
    pub(super) fn tree_of(&self, size: u64) -> Result<Option<Frontier>, VerifyError> {
        let mut tree = Frontier::default();
        let mut found = (size == 0).then(Frontier::default);
        self.visit(size, &mut |passed| {
            match passed {
                Passed::Seal(sealed) => tree = sealed.clone(),
                Passed::Record { leaf, .. } => tree.append(leaf),
                Passed::Checkpoint(_) => {}
            }
            if found.is_none() && tree.size() == size {
                found = Some(tree.clone());
            }
        })?;
        Ok(found)
    }

    /// The root over the first `size` records.
    pub(super) fn root_of(&self, size: u64) -> Result<Option<Hash>, VerifyError> {
        Ok(self.tree_of(size)?.map(|tree| tree.root()))
    }
}

impl Segment {
    /// Reads a file; an end that may still be being written is given time to become whole.
    fn read(path: PathBuf, key: &PublicKey) -> Result<Self, VerifyError> {
        let mut look = 1;
        loop {
            let unreadable = |source| VerifyError::Unreadable { path: path.clone(), source };
            let file = File::open(&path).map_err(unreadable)?;
            let found = replay(BufReader::new(&file), key, Signatures::All).map_err(unreadable)?;
            let (line, reason, unfinished) = match found.fault {
                Some(fault) => (fault.line, fault.kind.to_string(), fault.kind == FaultKind::Unfinished),
                None if found.unsigned > 0 => (found.covered.lines + 1, UNSIGNED_TAIL.to_owned(), true),
                None => match (found.covered.first.clone(), found.covered.last.clone()) {
                    (Some(first), Some(last)) => {
                        let live = segments::split(&path).1.is_none().then_some(file);
                        return Ok(Self { path, covered: found.covered, first, last, live });
                    }
                    _ => (1, FaultKind::NoFirstCheckpoint.to_string(), true),
                },
            };
            if !unfinished || look == LOOKS {
                return Err(VerifyError::Log { path, line, reason });
            }
            look += 1;
            #[expect(clippy::disallowed_methods, reason = "a command-line tool waits for a log that is being written")]
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    /// Its file, from the beginning on.
    fn open(&self) -> io::Result<File> {
        let Some(live) = &self.live else { return File::open(&self.path) };
        let mut live = live.try_clone()?;
        live.rewind()?;
        Ok(live)
    }

    /// The segment begins with the very checkpoint that the one before ended with.
    fn refuse_unless_behind(&self, before: &Self) -> Result<(), VerifyError> {
        if self.first == before.last {
            return Ok(());
        }
        let reason = format!("it does not go on where {} ends: one of them is not of this log", before.path.display());
        Err(VerifyError::Log { path: self.path.clone(), line: 1, reason })
    }
}

/// Reads the segment that is named. A live one is the last: the finished ones beside it end where it begins, or before.
fn read_named(path: &Path, key: &PublicKey, extent: Extent) -> Result<Segment, VerifyError> {
    let mut begun_at = None;
    loop {
        let segment = Segment::read(path.to_owned(), key)?;
        let start = segment.covered.start();
        let is_live = segments::split(path).1.is_none();
        let ends = if is_live && extent == Extent::WithEarlier { segments::ends(path) } else { Ok(Vec::new()) };
        let ends = ends.map_err(|source| VerifyError::Unreadable { path: path.to_owned(), source })?;
        let Some(end) = ends.into_iter().max().filter(|end| *end > start) else { return Ok(segment) };
        // A daemon that went on in a new file meanwhile has put one here that begins later.
        if begun_at.is_some_and(|begun_at| begun_at >= start) {
            let finished = segments::finished(path, end);
            let reason = format!(
                "it begins at record {start}, though {} beside it ends at {end}: an earlier file was put in its place",
                finished.display()
            );
            return Err(VerifyError::Log { path: path.to_owned(), line: 1, reason });
        }
        begun_at = Some(start);
    }
}

/// Segments may be missing from the beginning on, as an operator moves them away, but not from the middle.
fn refuse_gap(log: &Path, missing: &Path, start: u64) -> Result<(), VerifyError> {
    let unreadable = |source| VerifyError::Unreadable { path: log.to_owned(), source };
    let earlier = segments::ends(log).map_err(unreadable)?.into_iter().any(|end| end < start);
    if !earlier {
        return Ok(());
    }
    let reason = "it is missing, though earlier segments are there; put it back, or move those away too".to_owned();
    Err(VerifyError::Log { path: missing.to_owned(), line: 1, reason })
}

pub(super) fn load_key(path: &Path) -> Result<PublicKey, VerifyError> {
    PublicKey::load(path).map_err(|source| VerifyError::Unreadable { path: path.to_owned(), source })
}

fn key_beside(log: &Path) -> Result<PublicKey, VerifyError> {
    let public = beside(log, "pub");
    if !public.exists() {
        return Err(VerifyError::NoKey(log.to_owned()));
    }
    load_key(&public)
}
