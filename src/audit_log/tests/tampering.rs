//! Logs that were changed, and logs that a crash cut short.

use std::fs;

use super::*;
use crate::audit_log::checkpoint::Checkpoint;
use crate::audit_log::merkle::{Frontier, Hash, leaf_hash};
use crate::audit_log::replay::{FaultKind, Signatures, replay};

#[test]
fn no_flipped_bit_of_a_log_goes_unnoticed() {
    let place = Place::with_records(2);
    let good = fs::read(&place.log).expect("there");
    let key = PublicKey::load(&place.key("pub")).expect("published");
    let whole = replay(&good[..], &key, Signatures::All).expect("readable");
    assert_eq!(whole.fault, None);

    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = replay(&flipped[..], &key, Signatures::All).expect("readable");
        let line = good[..bit / 8].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        let found_at = found.fault.map(|fault| fault.line);
        assert!(found_at >= Some(line), "bit {bit} of line {line}: {found_at:?}");
    }
}

#[test]
fn no_daemon_starts_on_a_log_with_a_flipped_bit() {
    let place = Place::with_records(1);
    let good = fs::read(&place.log).expect("there");
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&place.log, &flipped).expect("written");

        let refused = place.try_open();

        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "bit {bit} of {}", good.len() * 8);
        assert_eq!(fs::read(&place.log).expect("there"), flipped, "a refused log is left alone");
    }
}

#[test]
fn no_line_can_be_removed_repeated_or_swapped() {
    let place = Place::with_records(3);
    let good = fs::read_to_string(&place.log).expect("there");
    let lines: Vec<&str> = good.lines().collect();
    let changed = |change: &dyn Fn(&mut Vec<&str>)| {
        let mut copy = lines.clone();
        change(&mut copy);
        copy.iter().map(|line| format!("{line}\n")).collect::<String>()
    };

    for at in 0..lines.len() {
        let mut cases = vec![("repeated", changed(&|lines| lines.insert(at, lines[at])))];
        if at + 1 < lines.len() {
            // Without its last line the log ends in a record that no checkpoint covers: see the test of cuts.
            cases.push((
                "removed",
                changed(&|lines| {
                    lines.remove(at);
                }),
            ));
            cases.push(("swapped", changed(&|lines| lines.swap(at, at + 1))));
        }
        for (what, text) in cases {
            fs::write(&place.log, text).expect("written");
            assert!(matches!(place.verify(), Err(VerifyError::Log { .. })), "line {at} {what}");
            assert!(matches!(place.try_open(), Err(OpenError::Damaged { .. })), "line {at} {what}");
        }
    }
}

#[test]
fn a_log_cut_anywhere_but_behind_a_checkpoint_is_not_confirmed() {
    let place = Place::with_records(2);
    let good = fs::read(&place.log).expect("there");
    let key = PublicKey::load(&place.key("pub")).expect("published");
    let whole_at = checkpoint_ends(&good);
    assert_eq!(whole_at.len(), 3);

    for cut in 0..good.len() {
        let found = replay(&good[..cut], &key, Signatures::All).expect("readable");
        let confirmed = found.fault.is_none() && found.unsigned == 0;
        assert_eq!(confirmed, whole_at.contains(&cut), "cut at {cut}");
    }
}

#[test]
fn what_a_crash_leaves_behind_the_last_checkpoint_is_put_aside_and_the_log_goes_on() {
    let place = Place::with_records(2);
    let good = fs::read(&place.log).expect("there");
    let whole_at = checkpoint_ends(&good);

    for cut in (0..good.len()).step_by(7) {
        fs::write(&place.log, &good[..cut]).expect("written");
        let kept = whole_at.iter().copied().filter(|end| *end <= cut).max().unwrap_or(0);

        let log = place.open();
        let answer = erase(&log, 9);
        log.close();

        place.assert_receipt_good(&answer);
        assert_eq!(place.verify().err().map(|error| error.to_string()), None, "cut at {cut}");
        let now = fs::read(&place.log).expect("there");
        assert_eq!(now[..kept], good[..kept]);
        let aside = place.log.with_file_name(format!("audit.log.torn-{kept}"));
        if kept < cut {
            assert_eq!(fs::read(&aside).expect("put aside"), good[kept..cut], "cut at {cut}");
            fs::remove_file(aside).expect("there");
        } else {
            assert!(!aside.exists());
        }
    }
}

#[test]
fn what_a_crash_left_is_cut_off_also_where_it_cannot_be_put_aside() {
    let place = Place::with_records(1);
    let good = fs::read(&place.log).expect("there");
    fs::create_dir(place.log.with_file_name(format!("audit.log.torn-{}", good.len()))).expect("made");
    fs::write(&place.log, [&good[..], b"{\"v\":2,"].concat()).expect("written");

    let log = place.open();

    assert_eq!(fs::read(&place.log).expect("there"), good);
    assert!(erase(&log, 1).logged);
    log.close();
    assert!(place.verify().expect("good").contains("records     2"));
}

#[test]
fn blocks_that_the_disk_never_wrote_are_a_crash_and_not_tampering() {
    let place = Place::with_records(1);
    let good = fs::read(&place.log).expect("there");
    let text = String::from_utf8(good.clone()).expect("text");
    let record = records(&text)[0];
    for tail in [
        [&b"\0"[..]; 700].concat(),
        [record.as_bytes(), b"\n", &[0; 700], &record.as_bytes()[40..], b"\n"].concat(),
        [record.as_bytes(), b"\n", LINE_START.as_bytes(), &[0; 9]].concat(),
    ] {
        fs::write(&place.log, [&good[..], &tail].concat()).expect("written");
        place.open().close();
        assert_eq!(fs::read(&place.log).expect("there"), good);
    }
}

#[test]
fn a_record_added_by_someone_else_is_never_signed() {
    let place = Place::with_records(1);
    let good = fs::read_to_string(&place.log).expect("there");
    let forged = records(&good)[0].replace("\"acme\"", "\"evil\"");
    fs::write(&place.log, format!("{good}{forged}\n")).expect("written");

    let added = good.lines().count() as u64 + 1;
    assert!(matches!(place.verify(), Err(VerifyError::Log { line, .. }) if line == added));
    place.open().close();

    assert_eq!(fs::read_to_string(&place.log).expect("there"), good);
}

#[test]
fn a_checkpoint_that_we_would_not_have_written_there_is_no_crash() {
    let place = Place::with_records(2);
    let good = fs::read_to_string(&place.log).expect("there");
    let last = good.lines().last().expect("a checkpoint");
    // Begun behind the last checkpoint, but with the size and root of an earlier one.
    fs::write(&place.log, format!("{good}{}", &last[..last.len() - 20])).expect("written");

    assert!(matches!(place.try_open(), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_log_of_another_key_is_refused_at_its_first_line() {
    let (place, other) = (Place::with_records(1), Place::with_records(1));
    let log = fs::read(&place.log).expect("there");
    let key = PublicKey::load(&other.key("pub")).expect("a key");
    let fault = replay(&log[..], &key, Signatures::All).expect("readable").fault.expect("refused");
    assert_eq!((fault.line, fault.kind), (1, FaultKind::Signature));
}

#[test]
fn each_kind_of_change_is_told_by_its_name() {
    let signer = Signer::generate().expect("a key");
    let lines = written(&[&[], &[1, 2], &[3]], &signer);
    let kind = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        replay(text.as_bytes(), signer.public(), Signatures::All).expect("readable").fault.map(|fault| fault.kind)
    };

    assert_eq!(kind(&|_| ()), None);
    assert_eq!(kind(&|lines| lines.clear()), Some(FaultKind::NoFirstCheckpoint));
    assert_eq!(kind(&|lines| drop(lines.remove(0))), Some(FaultKind::NoFirstCheckpoint));
    assert_eq!(kind(&|lines| drop(lines.remove(1))), Some(FaultKind::Size));
    assert_eq!(kind(&|lines| lines.swap(1, 2)), Some(FaultKind::Root));
    assert_eq!(kind(&|lines| drop(lines.remove(3))), Some(FaultKind::Chain));
    assert_eq!(kind(&|lines| lines[1].insert(5, ' ')), Some(FaultKind::Unreadable));
    assert_eq!(kind(&|lines| lines.last_mut().expect("there").clear()), Some(FaultKind::Unreadable));
}

/// The lines of a log whose batches hold erasures of these numbers.
fn written(batches: &[&[u64]], signer: &Signer) -> Vec<String> {
    let (mut tree, mut previous, mut lines) = (Frontier::default(), Hash::default(), Vec::new());
    for batch in batches {
        for number in *batch {
            let mut record = erasure(*number).record;
            record.policy = Some("0123456789abcdef".to_owned());
            let line = serde_json::to_string(&record).expect("JSON");
            tree.append(leaf_hash(line.as_bytes()));
            lines.push(line);
        }
        let note = Checkpoint::of(&tree, "edge.example.net/reveille-audit", previous).sign(signer);
        previous = note.hash();
        lines.push(note.line());
    }
    lines
}

/// The places right behind a checkpoint.
fn checkpoint_ends(log: &[u8]) -> Vec<usize> {
    let mut end = 0;
    log.split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| {
            end += line.len();
            line.starts_with(LINE_START.as_bytes()).then_some(end)
        })
        .collect()
}
