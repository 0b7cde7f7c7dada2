//! A disk that is full or fails, and a log that somebody else touches while it is written.

use super::*;

#[test]
fn a_full_disk_delays_no_erasure_and_loses_no_record() {
    let place = Place::with_records(1);
    let (log, writable) = place.open_on_a_full_disk();
    let (late_sender, late) = channel();

    // Both are submitted before the disk comes back, which the daemon tries only after a pause.
    let first = erase(&log, 1);
    log.submit(life(2), |_, _| ());
    let second = erase(&log, 3);

    assert!(!first.logged && !second.logged);
    assert!(!writable.recv().expect("told"));
    place.assert_receipt_good(&first);
    assert_eq!(first.receipt.inclusion, None);
    assert!(writable.recv().expect("told"), "the disk is back");
    log.submit(erasure(4), move |_, recorded| late_sender.send(recorded).expect("the test waits"));
    let late = late.recv().expect("answered");
    assert!(late.logged);
    assert_eq!(log.close(), 0);
    assert_eq!((log.backlog(), log.lost()), (0, 0));
    place.assert_receipt_good(&late);
    assert!(place.verify().expect("good").contains("records     5"));
    let text = fs::read_to_string(&place.log).expect("there");
    assert!(records(&text).contains(&first.receipt.record.as_str()));
}

#[test]
fn a_disk_that_is_full_at_start_is_told_and_asked_again_though_nothing_is_to_be_written() {
    let place = Place::with_records(1);
    let good = fs::read(&place.log).expect("there");
    let mut opened = place.opened_on_a_full_disk();
    assert!(opened.sink.probe().is_err());
    let (sender, writable) = channel();
    let tell = move |state| sender.send(state).expect("the test waits");

    let log = OpenedLog { writable: false, ..opened }.start(tell).expect("threads");

    assert!(!writable.recv().expect("told"));
    assert!(writable.recv().expect("told"), "the disk is back");
    assert_eq!(fs::read(&place.log).expect("there"), good, "nothing is left of the asking");
    assert!(erase(&log, 1).logged);
    assert_eq!(log.close(), 0);
    assert!(place.verify().expect("good").contains("records     2"));
}

#[test]
fn what_finds_no_room_while_the_disk_fails_is_counted_in_one_record_and_its_receipts_are_signed() {
    let place = Place::with_records(1);
    let log = OpenedLog { backlog_max: 2, ..place.opened_on_a_full_disk() }.start(|_| ()).expect("threads");
    let answers: Vec<Recorded> = (1..7).map(|number| erase(&log, number)).collect();

    assert_eq!(log.close(), 0);

    assert!(answers.iter().all(|answer| !answer.logged));
    answers.iter().for_each(|answer| place.assert_receipt_good(answer));
    let text = fs::read_to_string(&place.log).expect("there");
    let records = records(&text);
    assert!(place.verify().is_ok());
    let one_by_one = answers.iter().filter(|answer| records.contains(&answer.receipt.record.as_str())).count() as u64;
    let folded: Vec<serde_json::Value> = records
        .iter()
        .map(|record| serde_json::from_str::<serde_json::Value>(record).expect("JSON"))
        .filter(|record| record["event"] == "folded")
        .collect();
    let counted: u64 = folded.iter().map(|fold| fold["causes"]["deleted"].as_u64().expect("a number")).sum();
    assert!(one_by_one >= 2 && counted == 6 - one_by_one && counted == log.folded(), "{text}");
    assert_eq!(log.lost(), 0);
}

#[test]
fn a_log_that_was_replaced_is_not_written() {
    let place = Place::with_records(1);
    let (log, writable) = place.open_on_a_full_disk();
    let replacement = [b'x'; 4096];
    fs::write(&place.log, replacement).expect("written");

    let answer = erase(&log, 1);

    assert!(!answer.logged);
    assert!(!writable.recv().expect("told"));
    assert_eq!(log.close(), 1, "one record could not be written");
    assert_eq!(fs::read(&place.log).expect("there"), replacement);
}

#[test]
fn a_log_that_was_deleted_counts_as_a_failed_disk() {
    let place = Place::new();
    let (sender, writable) = channel();
    let opened = AuditLog::open(&place.settings()).expect("open");
    let log = opened.start(move |state| sender.send(state).expect("the test waits")).expect("threads");
    fs::remove_file(&place.log).expect("there");

    let answer = erase(&log, 1);

    assert!(!answer.logged);
    assert!(!writable.recv().expect("told"));
    assert_eq!(log.close(), 1);
}

#[test]
fn a_log_that_was_moved_while_it_is_written_is_written_again_only_under_its_name() {
    let place = Place::with_records(1);
    let (log, writable) = place.open_telling();
    let elsewhere = place.log.with_extension("elsewhere");
    fs::rename(&place.log, &elsewhere).expect("there");
    let moved = fs::read(&elsewhere).expect("there");

    let answer = erase(&log, 1);

    assert!(!answer.logged);
    assert!(!writable.recv().expect("told"));
    assert_eq!(fs::read(&elsewhere).expect("there"), moved);
    fs::rename(&elsewhere, &place.log).expect("there");
    assert!(writable.recv().expect("told"), "it is back");
    assert_eq!(log.close(), 0);
    assert!(place.verify().expect("good").contains("records     2"));
}

#[test]
fn a_log_that_was_emptied_while_it_is_written_is_not_written_behind_the_gap() {
    let place = Place::with_records(1);
    let (log, writable) = place.open_telling();
    fs::write(&place.log, "").expect("written");

    let answer = erase(&log, 1);

    assert!(!answer.logged);
    assert!(!writable.recv().expect("told"));
    assert_eq!(log.close(), 1);
    assert_eq!(fs::read(&place.log).expect("there"), b"");
}

#[test]
fn what_another_daemon_confirmed_while_the_disk_failed_here_is_not_cut_off() {
    let place = Place::with_records(1);
    let OpenedLog { mut sink, .. } = place.opened_on_a_full_disk();
    assert!(sink.probe().is_err());
    let other = place.open();
    assert!(erase(&other, 1).logged);
    other.close();
    let theirs = fs::read(&place.log).expect("there");

    let refused = sink.probe().expect_err("it is theirs now");

    assert!(refused.to_string().contains("another process"), "{refused}");
    assert_eq!(fs::read(&place.log).expect("there"), theirs);
}

impl Place {
    fn open_telling(&self) -> (AuditLog, Receiver<bool>) {
        let (sender, writable) = channel();
        let tell = move |state| sender.send(state).expect("the test waits");
        (AuditLog::open(&self.settings()).expect("a good log").start(tell).expect("threads"), writable)
    }

    /// The log's first write goes to a device that is always full; the next attempt finds the file itself again.
    pub(super) fn open_on_a_full_disk(&self) -> (AuditLog, Receiver<bool>) {
        let (sender, writable) = channel();
        let tell = move |state| sender.send(state).expect("the test waits");
        (self.opened_on_a_full_disk().start(tell).expect("threads"), writable)
    }

    fn opened_on_a_full_disk(&self) -> OpenedLog {
        let origin = format!("{}/reveille-audit", self.settings().domain);
        let mut file = LogFile::open(&self.log, 1_000_000).expect("a good log");
        let signer = Signer::load(&self.key("key")).expect("its key");
        let standing = file.resume(&signer, &origin).expect("a good log");
        file.write_to(fs::File::options().write(true).open("/dev/full").expect("on Linux"));
        let Settings { sync_wait: patience, policy, .. } = self.settings();
        let sink = Sink::File(file);
        OpenedLog { sink, signer, standing, origin, patience, policy, backlog_max: BACKLOG_MAX, writable: true }
    }
}
