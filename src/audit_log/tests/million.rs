//! A log of a million records, and what is done to it.

use std::thread;

use super::*;
use crate::audit_log::checkpoint::Checkpoint;
use crate::audit_log::merkle::{Frontier, Hash, leaf_hash};
use crate::audit_log::queue::BATCH_MAX;
use crate::audit_log::replay::{FaultKind, Signatures, replay};

const RECORDS: usize = 1_000_000;

#[test]
fn of_a_million_records_none_can_be_changed_removed_swapped_or_cut_off() {
    let signer = Signer::generate().expect("a key");
    let log = written(&signer);
    let fault = |text: &[u8]| {
        let found = replay(text, signer.public(), Signatures::All).expect("readable");
        let kind = found.fault.map(|fault| fault.kind);
        (kind.or((found.unsigned > 0).then_some(FaultKind::Unfinished)), found.covered.tree.size())
    };
    let starts = line_starts(&log);
    // A record with a record behind it, where reading soon comes by.
    let at = starts.len() / 16 + 2;
    let (begin, end, behind) = (starts[at], starts[at + 1], starts[at + 2]);
    let mut flipped = log.clone();
    // The last hex digit of a subject becomes another: the line is still a record.
    let digit = begin + log[begin..end].windows(2).position(|two| two == b"0\"").expect("a subject");
    flipped[digit] ^= 1;

    thread::scope(|scope| {
        let whole = scope.spawn(|| fault(&log));
        // What is cut anywhere but right behind a checkpoint has an end that nobody signed.
        let cut = scope.spawn(|| fault(&log[..starts[starts.len() - 1]]));
        assert_eq!(fault(&flipped).0, Some(FaultKind::Root));
        assert_eq!(fault(&[&log[..begin], &log[end..]].concat()).0, Some(FaultKind::Size));
        let swapped = [&log[..begin], &log[end..behind], &log[begin..end], &log[behind..]].concat();
        assert_eq!(fault(&swapped).0, Some(FaultKind::Root));
        assert_eq!(cut.join().expect("no panic").0, Some(FaultKind::Unfinished));
        assert_eq!(whole.join().expect("no panic"), (None, RECORDS as u64));
    });
}

/// As the writer writes it, without a disk.
fn written(signer: &Signer) -> Vec<u8> {
    let (mut tree, mut previous) = (Frontier::default(), Hash::default());
    let mut log = Vec::with_capacity(RECORDS * 256);
    let sign = |tree: &Frontier, previous: &mut Hash, log: &mut Vec<u8>| {
        let note = Checkpoint::of(tree, "edge.example.net/reveille-audit", *previous).sign(signer);
        *previous = note.hash();
        log.extend_from_slice(note.line().as_bytes());
        log.push(b'\n');
    };
    sign(&tree, &mut previous, &mut log);
    for number in 0..RECORDS {
        let start = log.len();
        log.extend_from_slice(
            format!(
                r#"{{"v":2,"at":"2026-11-24T20:00:00Z","tenant":"acme","subject":"{number:063x}0","policy":"00","event":"leased-on"}}"#
            )
            .as_bytes(),
        );
        tree.append(leaf_hash(&log[start..]));
        log.push(b'\n');
        if (number + 1) % BATCH_MAX == 0 || number + 1 == RECORDS {
            sign(&tree, &mut previous, &mut log);
        }
    }
    log
}

fn line_starts(log: &[u8]) -> Vec<usize> {
    let ends = log.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
    let mut starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
    starts.pop();
    starts
}
