//! What a crash leaves behind the last checkpoint of a log: how it is told from tampering, and where it is put.
//!
//! It was confirmed to nobody, so the log goes on without it; it is kept beside the log where there is room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::checkpoint::{Checkpoint, LINE_START};
use super::key::{Signer, sync_directory_of};
use super::merkle::leaf_hash;
use super::record::is_record;
use super::replay::Covered;
use super::seal::SEAL_BEGUN;

/// A crash leaves at most the batch that was being written; more than this behind the last checkpoint is no crash.
pub(super) const TORN_MAX: u64 = 16 * 1024 * 1024;

/// Whether `tail`, what stands behind the last checkpoint, can be the work of a crash.
///
/// It can if it is records (or blocks the disk never wrote, which are zeros), and then at most the beginning of a line.
/// A complete checkpoint in it is one that was found wrong; and where a checkpoint is begun, it can only be the one that
/// we would have written there.
pub(super) fn is_torn(tail: &[u8], covered: &Covered, signer: &Signer, origin: &str) -> bool {
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

/// Keeps `tail`, which stood at byte `place` of the log, in a file of its own. What cannot be kept as a whole is not kept.
pub(super) fn put_aside(log: &Path, place: u64, tail: &[u8]) -> io::Result<PathBuf> {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".torn-{place}"));
    let aside = PathBuf::from(name);
    let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&aside)?;
    let before = file.metadata()?.len();
    let kept = file.write_all(tail).and_then(|()| file.sync_all()).and_then(|()| sync_directory_of(&aside));
    if let Err(error) = kept {
        forget(&aside, &file, before);
        return Err(error);
    }
    Ok(aside)
}

/// Leaves of the file what was in it `before`; where even that fails, it takes room and does no other harm.
fn forget(aside: &Path, file: &File, before: u64) {
    let _ = match before {
        0 => fs::remove_file(aside),
        before => file.set_len(before),
    };
}
