//! A log in several files: what a start needs of it, what a reader follows, what a crash between two files leaves.

use super::*;
use crate::audit_log::replay::{Signatures, replay};
use crate::audit_log::segments;
use crate::audit_log::verify::Against;

#[test]
fn a_log_goes_on_in_new_files_and_is_followed_through_all_of_them_or_read_in_parts() {
    let (place, answers) = in_segments(3, 7);

    let ends = segments::ends(&place.log).expect("readable");
    assert_eq!(ends, [3, 6]);
    let said = place.verify().expect("good");
    assert!(said.contains("records     7") && said.contains("segments    3"), "{said}");
    answers.iter().for_each(|answer| place.assert_receipt_good(answer));
    for (path, records, from) in [
        (segments::finished(&place.log, 3), 3, None),
        (segments::finished(&place.log, 6), 6, Some(3)),
        (place.log.clone(), 7, Some(6)),
    ] {
        let against = Against { key: Some(&place.key("pub")), since: None, single: true };
        let said = said_by(&path, against).expect("good by itself");
        assert!(said.contains(&format!("records     {records}\n")), "{said}");
        assert_eq!(said.contains("from        "), from.is_some(), "{said}");
        assert!(from.is_none_or(|from| said.contains(&format!("from        {from}:"))), "{said}");
    }
}

#[test]
fn a_start_needs_the_live_segment_alone() {
    let (place, _) = in_segments(3, 7);
    for end in [3, 6] {
        fs::remove_file(segments::finished(&place.log, end)).expect("there");
    }

    let log = place.open_in_segments_of(3);
    let answer = erase(&log, 7);
    log.close();

    place.assert_receipt_good(&answer);
    assert_eq!(answer.receipt.inclusion.as_ref().map(|inclusion| inclusion.leaf_index), Some(7));
    let said = place.verify().expect("good");
    assert!(said.contains("records     8") && said.contains("from        6"), "{said}");
}

#[test]
fn earlier_segments_may_be_missing_but_none_between_others() {
    let (place, _) = in_segments(2, 7);
    let key = place.key("pub");
    fs::remove_file(segments::finished(&place.log, 4)).expect("there");
    let refused = place.verify().expect_err("a gap");
    assert!(refused.is_refusal() && refused.to_string().contains("it is missing"), "{refused}");
    assert!(said_by(&place.log, Against { key: Some(&key), since: None, single: true }).is_ok());
    fs::remove_file(segments::finished(&place.log, 2)).expect("there");
    assert!(place.verify().is_ok());
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let ((place, _), (other, _)) = (in_segments(2, 5), in_segments(2, 5));
    fs::copy(segments::finished(&other.log, 2), segments::finished(&place.log, 2)).expect("copied");
    assert!(place.verify().expect_err("another key's").is_refusal());
    // Of the same log, but not the one that this one goes on from.
    fs::copy(segments::finished(&place.log, 4), segments::finished(&place.log, 2)).expect("copied");
    let refused = place.verify().expect_err("not what went before");
    assert!(refused.is_refusal() && refused.to_string().contains("does not go on where"), "{refused}");
}

#[test]
fn no_flipped_bit_of_a_segment_goes_unnoticed_its_seal_included() {
    let (place, _) = in_segments(3, 4);
    let good = fs::read(&place.log).expect("there");
    assert!(good.starts_with(b"{\"records\":3,"));
    let key = PublicKey::load(&place.key("pub")).expect("published");
    let whole = replay(&good[..], &key, Signatures::All).expect("readable");
    assert_eq!((whole.fault, whole.covered.start(), whole.covered.records()), (None, 3, 1));
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(replay(&flipped[..], &key, Signatures::All).expect("readable").fault.is_some(), "bit {bit}");
        assert!(replay(&flipped[..], &key, Signatures::Last).expect("readable").fault.is_some(), "bit {bit} at start");
    }
}

#[test]
fn a_log_whose_live_segment_is_emptied_or_gone_is_not_begun_anew() {
    let (place, _) = in_segments(3, 7);
    for damage in [Some(""), Some("{"), None] {
        match damage {
            Some(text) => fs::write(&place.log, text).expect("written"),
            None => fs::remove_file(&place.log).expect("there"),
        }
        let refused = place.try_open();
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{damage:?}");
    }
}

#[test]
fn a_seal_without_its_checkpoint_is_no_crash() {
    let (place, _) = in_segments(3, 4);
    let good = fs::read(&place.log).expect("there");
    let seal = good.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    fs::remove_file(segments::finished(&place.log, 3)).expect("there");
    for cut in [3, seal - 1, seal, seal + 20] {
        fs::write(&place.log, &good[..cut]).expect("written");
        assert!(matches!(place.try_open(), Err(OpenError::Damaged { .. })), "cut at {cut}");
        assert_eq!(fs::read(&place.log).expect("there"), good[..cut]);
    }
}

#[test]
fn a_crash_between_two_segments_leaves_a_log_that_goes_on() {
    let (place, answers) = in_segments(4, 4);
    let next = place.log.with_extension("log.next");
    // As the disk is when the finished segment has its name and the next one has not.
    fs::rename(&place.log, &next).expect("there");

    let log = place.open_in_segments_of(2);
    let later = [erase(&log, 4), erase(&log, 5)];
    log.close();

    assert_eq!((segments::ends(&place.log).expect("readable"), next.exists()), (vec![4, 6], false));
    answers.iter().chain(&later).for_each(|answer| place.assert_receipt_good(answer));
    assert!(place.verify().expect("good").contains("segments    3"));
}

#[test]
fn a_crash_at_any_step_of_a_rotation_leaves_a_log_that_goes_on_and_verifies() {
    let (after, answers) = in_segments(3, 3);
    let (before, next) =
        (fs::read(segments::finished(&after.log, 3)).expect("there"), fs::read(&after.log).expect("there"));
    let (before, next) = (&before[..], &next[..]);
    let half = &next[..next.len() / 2];
    for (what, live, finished, begun) in [
        ("nothing is done", Some(before), None, None),
        ("the next one is made", Some(before), None, Some(&b""[..])),
        ("half of the next one is written", Some(before), None, Some(half)),
        ("the next one is whole", Some(before), None, Some(next)),
        ("the present one has its new name", None, Some(before), Some(next)),
        ("an earlier version began an empty one then", Some(b""), Some(before), Some(next)),
        ("all is done", Some(next), Some(before), None),
    ] {
        for (path, content) in [
            (after.log.clone(), live),
            (segments::finished(&after.log, 3), finished),
            (after.log.with_extension("log.next"), begun),
        ] {
            let _ = fs::remove_file(&path);
            if let Some(content) = content {
                fs::write(path, content).expect("written");
            }
        }

        after.open_in_segments_of(3).close();
        let said = after.verify().expect(what);
        assert!(said.contains("records     3"), "{what}: {said}");
        let log = after.open_in_segments_of(2);
        let later = [erase(&log, 3), erase(&log, 4), erase(&log, 5)];
        log.close();

        let said = after.verify().expect(what);
        assert!(said.contains("records     6"), "{what}: {said}");
        answers.iter().chain(&later).for_each(|answer| after.assert_receipt_good(answer));
        for end in segments::ends(&after.log).expect("readable") {
            fs::remove_file(segments::finished(&after.log, end)).expect("there");
        }
    }
}

#[test]
fn a_next_segment_without_what_went_before_is_neither_continued_nor_overlooked() {
    let (place, _) = in_segments(3, 3);
    let next = place.log.with_extension("log.next");
    fs::rename(&place.log, &next).expect("there");
    let finished = fs::read(segments::finished(&place.log, 3)).expect("there");
    // Somebody moved the finished one away between the crash and the start, and put it back.
    fs::remove_file(segments::finished(&place.log, 3)).expect("there");
    assert!(matches!(place.try_open(), Err(OpenError::Damaged { .. })));
    assert!(!place.log.exists(), "nothing is begun");

    fs::write(segments::finished(&place.log, 3), finished).expect("written");
    place.open().close();
    assert!(place.verify().expect("good").contains("segments    2"));
}

#[test]
fn a_refused_start_makes_no_file_and_no_key() {
    let (place, _) = in_segments(3, 7);
    fs::remove_file(&place.log).expect("there");
    fs::remove_file(place.key("key")).expect("there");

    assert!(matches!(place.try_open(), Err(OpenError::Damaged { .. })));

    assert!(!place.log.exists() && !place.key("key").exists());
}

#[test]
fn what_was_begun_of_a_next_segment_is_no_log() {
    let place = Place::with_records(1);
    let (next, good) = (place.log.with_extension("log.next"), fs::read(&place.log).expect("there"));
    fs::write(&next, "begun").expect("written");

    let log = place.open_in_segments_of(2);
    assert!(erase(&log, 1).logged);
    log.close();

    assert_eq!((segments::ends(&place.log).expect("readable"), next.exists()), (vec![2], false));
    assert!(place.verify().is_ok());
    // Nor is it taken for the live one that is missing.
    for begun in [&b"begun"[..], &good] {
        fs::write(&next, begun).expect("written");
        let _ = fs::remove_file(&place.log);
        assert!(matches!(place.try_open(), Err(OpenError::Damaged { .. })));
    }
}

#[test]
fn a_log_that_cannot_begin_a_new_file_goes_on_in_the_present_one() {
    let place = Place::with_records(2);
    fs::create_dir(segments::finished(&place.log, 3)).expect("made");

    let log = place.open_in_segments_of(3);
    let answers = [erase(&log, 2), erase(&log, 3)];
    log.close();

    answers.iter().for_each(|answer| {
        assert!(answer.logged);
        place.assert_receipt_good(answer);
    });
    fs::remove_dir(segments::finished(&place.log, 3)).expect("empty");
    let said = place.verify().expect("good");
    assert!(said.contains("records     4") && !said.contains("segments"), "{said}");
}

#[test]
fn a_live_file_that_was_put_back_is_neither_continued_nor_called_whole() {
    let (place, _) = in_segments(3, 7);
    let (first, second) = (segments::finished(&place.log, 3), segments::finished(&place.log, 6));
    let last = fs::read(&place.log).expect("there");
    for (put_back, beside) in [(&first, "audit.log.000000000006"), (&second, "audit.log.000000000006")] {
        let former = [&fs::read(put_back).expect("there")[..], b"{\"v\":2,\"at\""].concat();
        fs::write(&place.log, &former).expect("written");

        let refused = place.try_open().map(drop).expect_err("finished ones are ahead of it");

        assert!(matches!(&refused, OpenError::Damaged { .. }) && refused.to_string().contains(beside), "{refused}");
        assert_eq!(fs::read(&place.log).expect("there"), former, "a refused log is left alone");
        fs::copy(put_back, &place.log).expect("copied");
        let refused = place.verify().expect_err("finished ones are ahead of it");
        assert!(refused.is_refusal() && refused.to_string().contains(beside), "{refused}");
        assert!(said_by(put_back, Against { key: Some(&place.key("pub")), ..Against::default() }).is_ok());
    }
    fs::write(&place.log, last).expect("written");
    assert!(place.verify().is_ok());
    place.open().close();
}

#[test]
fn a_log_of_the_first_version_goes_on_and_is_rotated() {
    let place = Place::with_records(0);
    let signer = Signer::load(&place.key("key")).expect("its key");
    let record = r#"{"v":1,"at":"2026-11-24T20:00:00Z","tenant":"acme","subject":"6ab7","event":"leased-on"}"#;
    let (mut tree, mut previous) = (merkle::Frontier::default(), merkle::Hash::default());
    let mut text = String::new();
    for records in [0, 2] {
        for _ in 0..records {
            tree.append(merkle::leaf_hash(record.as_bytes()));
            text.push_str(&format!("{record}\n"));
        }
        let note = checkpoint::Checkpoint::of(&tree, "edge.example.net/reveille-audit", previous).sign(&signer);
        previous = note.hash();
        text.push_str(&format!("{}\n", note.line()));
    }
    fs::write(&place.log, text).expect("written");
    assert!(place.verify().expect("good").contains("records     2"));

    let log = place.open_in_segments_of(3);
    let answer = erase(&log, 2);
    log.close();

    place.assert_receipt_good(&answer);
    assert!(answer.receipt.record.starts_with(r#"{"v":2,"#));
    assert_eq!(segments::ends(&place.log).expect("readable"), [3]);
    assert!(place.verify().expect("good").contains("records     3"));
}

/// A closed log of so many erasures, each in a batch of its own, in segments of `segment_records`.
pub(super) fn in_segments(segment_records: u64, count: u64) -> (Place, Vec<Recorded>) {
    let place = Place::new();
    let log = place.open_in_segments_of(segment_records);
    let answers = (0..count).map(|number| erase(&log, number)).collect();
    log.close();
    (place, answers)
}

pub(super) fn said_by(path: &Path, against: Against<'_>) -> Result<String, VerifyError> {
    let mut out = Vec::new();
    verify::verify(path, against, &mut out).map(|()| String::from_utf8(out).expect("text"))
}
