//! `audit prove`, and `audit verify` of what it writes.

use std::path::PathBuf;

use super::segments::{in_segments, said_by};
use super::*;
use crate::audit_log::prove::{Wanted, prove};
use crate::audit_log::reading::{Extent, Log};
use crate::audit_log::replay::Passed;
use crate::audit_log::verify::Against;

#[test]
fn each_record_of_each_segment_is_proven_under_the_last_checkpoint() {
    let (place, answers) = in_segments(3, 8);
    for (number, answer) in answers.iter().enumerate() {
        let by_number = proof(&place, &Wanted::Record(number as u64)).expect("it is there");
        let receipt = place.keep("receipt.json", &serde_json::to_string(&answer.receipt).expect("JSON"));
        assert_eq!(proof(&place, &Wanted::Receipt(receipt)).expect("it is there"), by_number);

        let said = place.verify_kept("one.tlog-proof", &by_number, None).expect("good");
        assert!(said.contains("inclusion proof: good") && said.contains("records     8"), "{said}");
        assert!(said.contains(&answer.receipt.record), "{said}");
    }
    let refused = proof(&place, &Wanted::Record(8)).expect_err("there is none");
    assert!(!refused.is_refusal() && refused.to_string().contains("records 0 to 7"), "{refused}");
}

#[test]
fn a_receipt_that_was_signed_before_its_record_was_on_disk_gets_its_proof_later() {
    let place = Place::with_records(2);
    let (log, _writable) = place.open_on_a_full_disk();
    let late = erase(&log, 2);
    assert!(!late.logged);
    let receipt = place.keep("receipt.json", &serde_json::to_string(&late.receipt).expect("JSON"));
    // Closing tries the disk once more, and it is back.
    assert_eq!(log.close(), 0);

    let proven = proof(&place, &Wanted::Receipt(receipt)).expect("it is there now");

    assert!(place.verify_kept("late.tlog-proof", &proven, None).expect("good").contains(&late.receipt.record));
}

#[test]
fn a_changed_inclusion_proof_is_refused() {
    let (place, _) = in_segments(9, 5);
    let good = proof(&place, &Wanted::Record(2)).expect("it is there");
    for (from, to) in [("index 2", "index 3"), ("index 2", "index 02"), ("extra ", "extra eyJ2"), ("\n5\n", "\n4\n")] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good);
        assert!(place.verify_kept("bad", &changed, None).expect_err(from).is_refusal(), "{from}");
    }
    let other = Place::with_records(0);
    let elsewhere = other.keep("good", &good);
    let against = Against { key: Some(&other.key("pub")), ..Against::default() };
    assert!(said_by(&elsewhere, against).expect_err("another key").is_refusal());
    assert!(!said_by(&elsewhere, Against::default()).expect_err("no key").is_refusal());
}

#[test]
fn a_log_is_proven_to_have_grown_from_every_kept_checkpoint() {
    let (place, _) = in_segments(3, 8);
    let kept = place.checkpoints();
    assert_eq!(kept.len(), 9, "that of the empty log, and one for each record");
    for (size, note) in kept.iter().enumerate() {
        let since = place.keep("kept", note);
        let grown = proof(&place, &Wanted::Since(since.clone())).expect("it has grown");

        let said = place.verify_kept("grown", &grown, Some(&since)).expect("good");
        assert!(said.contains(&format!("grown from  {size} records")), "{said}");
        let said = said_by(&place.log, Against { since: Some(&since), ..Against::default() }).expect("good");
        assert!(said.contains("nothing was cut off it"), "{said}");

        let another = place.keep("another", &kept[(size + 1) % kept.len()]);
        assert!(place.verify_kept("grown", &grown, Some(&another)).expect_err("another").is_refusal());
        assert!(!place.verify_kept("grown", &grown, None).expect_err("nothing to compare with").is_refusal());
    }
}

#[test]
fn a_log_that_was_cut_behind_an_earlier_checkpoint_has_not_grown_from_a_later_one() {
    let place = Place::with_records(3);
    let last = place.checkpoints().pop().expect("there");
    let since = place.keep("kept", &last);
    let text = fs::read_to_string(&place.log).expect("there");
    let shorter: Vec<&str> = text.lines().collect();
    fs::write(&place.log, shorter[..shorter.len() - 2].join("\n") + "\n").expect("written");

    assert!(place.verify().is_ok(), "it looks whole");
    let refused = said_by(&place.log, Against { since: Some(&since), ..Against::default() }).expect_err("it was cut");
    assert!(refused.is_refusal() && refused.to_string().contains("it was cut"), "{refused}");
    assert!(proof(&place, &Wanted::Since(since)).expect_err("it was cut").is_refusal());
}

#[test]
fn what_was_read_stays_the_same_though_the_log_goes_on_in_a_new_file_meanwhile() {
    let place = Place::with_records(3);
    let read = Log::read(&place.log, None, Extent::WithEarlier).expect("good");

    let log = place.open_in_segments_of(4);
    let later = [erase(&log, 3), erase(&log, 4)];
    log.close();

    assert!(later.iter().all(|answer| answer.logged));
    let mut seen = Vec::new();
    let mut see = |passed: Passed<'_>| {
        if let Passed::Record { number, .. } = passed {
            seen.push(number);
        }
    };
    read.visit(0, &mut see).expect("readable");
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn what_stands_in_a_segment_that_was_moved_away_is_not_called_wrong() {
    let (place, answers) = in_segments(3, 8);
    let since = place.keep("kept", &place.checkpoints()[2]);
    fs::remove_file(crate::audit_log::segments::finished(&place.log, 3)).expect("there");
    let receipt = place.keep("receipt.json", &serde_json::to_string(&answers[0].receipt).expect("JSON"));
    for wanted in [Wanted::Record(0), Wanted::Receipt(receipt), Wanted::Since(since)] {
        assert!(!proof(&place, &wanted).expect_err("it is not here").is_refusal(), "{wanted:?}");
    }
    assert!(proof(&place, &Wanted::Record(3)).is_ok());
}

fn proof(place: &Place, wanted: &Wanted) -> Result<String, VerifyError> {
    let mut out = Vec::new();
    prove(&place.log, None, wanted, &mut out).map(|()| String::from_utf8(out).expect("text"))
}

impl Place {
    /// A file beside the log.
    pub(super) fn keep(&self, name: &str, text: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::write(&file, text).expect("written");
        file
    }

    fn verify_kept(&self, name: &str, text: &str, since: Option<&Path>) -> Result<String, VerifyError> {
        let file = self.keep(name, text);
        said_by(&file, Against { key: Some(&self.key("pub")), since, single: false })
    }

    /// All checkpoints of the log, as somebody would keep them.
    pub(super) fn checkpoints(&self) -> Vec<String> {
        let ends = crate::audit_log::segments::ends(&self.log).expect("readable");
        let finished = ends.into_iter().map(|end| crate::audit_log::segments::finished(&self.log, end));
        let mut notes = Vec::new();
        for segment in finished.chain([self.log.clone()]) {
            for line in fs::read_to_string(segment).expect("there").lines().filter(|line| line.starts_with(LINE_START))
            {
                let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                notes.push(line["checkpoint"].as_str().expect("text").to_owned());
            }
        }
        notes.dedup();
        notes
    }
}
