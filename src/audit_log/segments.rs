//! Segments: where the earlier parts of a log lie, and how a log goes on in a new file.
//!
//! The live segment keeps the log's name. One that is finished gets the number of records up to its end as ending, so
//! that each names the one before it: the number of records in its first checkpoint. Nothing but `verify` and its
//! relatives ever reads a finished segment; whether it is kept is the operator's matter.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::file::lock;
use super::key::sync_directory_of;
use super::merkle::Frontier;
use super::seal::Seal;

/// Digits of an ending, so that names sort as their segments do.
const DIGITS: usize = 12;

/// The name of the segment of `log` that ends with record number `end` (from 1).
pub(super) fn finished(log: &Path, end: u64) -> PathBuf {
    with_ending(log, &format!("{end:0DIGITS$}"))
}

/// The log that a segment belongs to, and where the segment ends; `None` for the live one.
pub(super) fn split(segment: &Path) -> (PathBuf, Option<u64>) {
    let ending = segment.extension().and_then(|ending| ending.to_str()).filter(|ending| is_ending(ending));
    match ending.and_then(|ending| ending.parse().ok()) {
        Some(end) => (segment.with_extension(""), Some(end)),
        None => (segment.to_owned(), None),
    }
}

/// Where the finished segments beside a log end, the oldest first.
pub(super) fn ends(log: &Path) -> io::Result<Vec<u64>> {
    let Some(name) = log.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let parent = log.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut ends = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            continue;
        }
        let entry = entry.file_name();
        let ending = entry.to_str().and_then(|entry| entry.strip_prefix(name)?.strip_prefix('.'));
        ends.extend(ending.filter(|ending| is_ending(ending)).and_then(|ending| ending.parse::<u64>().ok()));
    }
    ends.sort_unstable();
    Ok(ends)
}

/// Ends the live segment, whose last line is `checkpoint` over `tree`, and begins the next one under its name. Gives the
/// new file, locked, and its length.
///
/// The next one is whole before the names change; a crash between the two changes is made good by [`complete`]. The new
/// names last only once the directory is synced: that is for the caller to do before it confirms anything.
pub(super) fn begin_next(log: &Path, tree: &Frontier, checkpoint: &str) -> io::Result<(File, u64)> {
    let (next, finished) = (next_of(log), finished(log, tree.size()));
    if finished.symlink_metadata().is_ok() {
        let taken = format!("{} is there already", finished.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, taken));
    }
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let begun = begin(&next, tree, checkpoint).and_then(|begun| {
        // Its name lasts before the present one's goes.
        sync_directory_of(log)?;
        fs::rename(log, &finished)?;
        Ok(begun)
    });
    let (file, length) = begun.inspect_err(|_| drop(fs::remove_file(&next)))?;
    if let Err(error) = sync_directory_of(log).and_then(|()| fs::rename(&next, log)) {
        // The present segment goes on. Where that fails too, the writer finds no file under the log's name and writes
        // nothing more, and the next start goes on in the next one.
        let _ = fs::rename(&finished, log);
        return Err(error);
    }
    Ok((file, length))
}

/// Makes the next segment, whole and lasting.
fn begin(next: &Path, tree: &Frontier, checkpoint: &str) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(next)?;
    lock(&file).map_err(io::Error::other)?;
    let head = format!("{}\n{checkpoint}\n", Seal::of(tree).line());
    file.write_all(head.as_bytes())?;
    file.sync_all()?;
    Ok((file, head.len() as u64))
}

/// Whether there is no live segment, or an empty one.
pub(super) fn is_missing(log: &Path) -> bool {
    log.metadata().map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |live| live.len() == 0)
}

/// Whether there are other files of the log.
pub(super) fn has_others(log: &Path) -> io::Result<bool> {
    Ok(next_of(log).exists() || !ends(log)?.is_empty())
}

/// Gives the next segment the log's name, if a crash in [`begin_next`] left none under it.
pub(super) fn complete(log: &Path) -> io::Result<()> {
    let next = next_of(log);
    if !is_missing(log) || !next.exists() {
        return Ok(());
    }
    let text = fs::read(&next)?;
    let seal = text.split(|byte| *byte == b'\n').next().and_then(Seal::parse_line);
    let size = seal.and_then(|seal| seal.tree()).map(|tree| tree.size());
    if size.is_some() && size == ends(log)?.last().copied() {
        fs::rename(&next, log)?;
        sync_directory_of(log)?;
    }
    Ok(())
}

fn next_of(log: &Path) -> PathBuf {
    with_ending(log, "next")
}

/// A number of records, as [`finished`] writes it. No log comes to 10^11 of them; a date that somebody put behind the name of
/// a copy does.
fn is_ending(ending: &str) -> bool {
    ending.len() == DIGITS && ending.starts_with('0') && ending.bytes().all(|byte| byte.is_ascii_digit())
}

fn with_ending(log: &Path, ending: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_tells_its_log_and_its_end_by_its_name() {
        let log = Path::new("/a/audit.log");
        assert_eq!(finished(log, 1_000_000), Path::new("/a/audit.log.000001000000"));
        assert_eq!(split(&finished(log, 1_000_000)), (log.to_owned(), Some(1_000_000)));
        let dated = "/a/audit.log.202611221200";
        for other in ["/a/audit.log", "/a/audit.log.torn-9", "/a/audit.log.1", "/a/audit.log.00000100000x", dated] {
            assert_eq!(split(Path::new(other)), (PathBuf::from(other), None));
        }
    }

    #[test]
    fn only_finished_segments_of_this_log_are_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("audit.log");
        for name in
            ["audit.log", "audit.log.000000000020", "audit.log.000000000003", "audit.log.torn-7", "audit.log.next"]
        {
            fs::write(directory.path().join(name), "").expect("written");
        }
        fs::write(directory.path().join("other.log.000000000009"), "").expect("written");
        assert_eq!(ends(&log).expect("readable"), [3, 20]);
    }
}
