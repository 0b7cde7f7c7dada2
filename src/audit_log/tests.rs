//! The log as a whole: written, read again, tampered with, cut short, and on a disk that fails.
#![expect(clippy::disallowed_methods, reason = "the test reads what it asked for")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use aws_lc_rs::hmac;
use tempfile::TempDir;

use super::checkpoint::LINE_START;
use super::encoding::{hex, unbase64};
use super::key::PublicKey;
use super::verify::VerifyError;
use super::*;
use crate::clock::WallTime;
use crate::engine::audit::{AuditRecord, Cause, Ending, LifeEvent, Receipt, Unregister, WakeCounts};
use crate::engine::ids::{InstanceId, ShardId};
use crate::engine::output::{ReceiptJob, WakeKind};
use crate::vault::{Keep, Material, Vault};

#[test]
fn an_erasure_gets_a_receipt_that_proves_its_place_in_the_log() {
    let place = Place::new();
    let log = place.open();
    let life = log_life(&log, 1);

    let answer = erase(&log, 1);

    drop(log);
    assert_eq!(life.try_recv().err(), Some(std::sync::mpsc::TryRecvError::Disconnected), "no receipt for other events");
    assert!(answer.logged);
    assert!(
        answer.receipt.record.contains(r#","policy":"0123456789abcdef","event":"erased","#),
        "{}",
        answer.receipt.record
    );
    assert!(answer.receipt.record.ends_with(r#","wakes":{"call":1}}"#), "{}", answer.receipt.record);
    let inclusion = answer.receipt.inclusion.clone().expect("synced in time");
    assert_eq!((inclusion.leaf_index, inclusion.tree_size), (1, 2));
    place.assert_receipt_good(&answer);
    let text = fs::read_to_string(&place.log).expect("there");
    assert_eq!(records(&text)[1], answer.receipt.record, "the record stands in the log as in the receipt");
    assert!(place.verify().expect("good").contains("records     2"));
}

#[test]
fn the_log_goes_on_after_a_restart_and_earlier_receipts_stay_good() {
    let place = Place::new();
    let answers: Vec<Recorded> = (0..4)
        .map(|number| {
            let log = place.open();
            let answer = erase(&log, number);
            assert_eq!(log.close(), 0);
            answer
        })
        .collect();

    for (number, answer) in answers.iter().enumerate() {
        place.assert_receipt_good(answer);
        assert_eq!(answer.receipt.inclusion.as_ref().map(|inclusion| inclusion.leaf_index), Some(number as u64));
    }
    assert!(place.verify().expect("good").contains("records     4"));
}

#[test]
fn what_is_submitted_together_shares_syncs_and_each_gets_its_own_receipt() {
    let place = Place::new();
    let log = place.open();
    let (sender, answers) = channel();
    for number in 0..500 {
        let sender = sender.clone();
        log.submit(erasure(number), move |id, recorded| sender.send((id, recorded)).expect("the test waits"));
    }
    drop(sender);
    assert_eq!(log.close(), 0);

    let answers: Vec<(RecordId, Recorded)> = answers.iter().collect();

    assert_eq!(answers.len(), 500);
    for (number, (id, answer)) in answers.iter().enumerate() {
        assert_eq!(id.0, number as u64);
        assert!(answer.logged);
    }
    for (_, answer) in answers.iter().step_by(37) {
        place.assert_receipt_good(answer);
    }
    place.verify().expect("good");
}

#[test]
fn two_daemons_do_not_write_one_log() {
    let place = Place::new();
    let first = place.open();
    assert!(matches!(place.try_open(), Err(OpenError::Locked(_))));
    first.close();
    drop(first);
    place.open().close();
}

#[test]
fn a_log_without_its_key_or_name_is_not_continued() {
    let place = Place::with_records(1);
    let other = Place::with_records(1);
    let elsewhere = Settings { domain: "other.example.net".to_owned(), ..place.settings() };
    assert!(matches!(AuditLog::open(&elsewhere), Err(OpenError::OtherOrigin { .. })));

    let with_other_key = Settings { signing_key: Some(other.key("key")), ..place.settings() };
    let refused = AuditLog::open(&with_other_key).map(drop).expect_err("another key's");
    assert!(
        matches!(&refused, OpenError::Damaged { .. }) && refused.to_string().contains("key was replaced"),
        "{refused}"
    );

    fs::rename(place.key("key"), place.key("gone")).expect("there");
    assert!(matches!(place.try_open(), Err(OpenError::KeyGone { .. })));
    fs::write(place.key("key"), "no key").expect("written");
    assert!(matches!(place.try_open(), Err(OpenError::Key { .. })));
    fs::rename(place.key("gone"), place.key("key")).expect("there");
    place.open().close();
}

#[test]
fn a_name_that_no_checkpoint_can_carry_begins_no_log() {
    let place = Place::new();
    let settings = Settings { domain: "two words".to_owned(), ..place.settings() };
    assert!(matches!(AuditLog::open(&settings), Err(OpenError::File { .. })));
    assert_eq!(fs::read(&place.log).expect("made"), b"");
}

#[test]
fn the_private_key_is_readable_by_nobody_else() {
    let place = Place::with_records(0);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&place.key("key")), 0o600);
    assert_eq!(mode(&place.log) & 0o007, 0);
}

#[test]
fn after_the_end_an_erasure_still_gets_its_receipt() {
    let place = Place::new();
    let log = place.open();
    log.close();
    let answer = erase(&log, 1);
    assert!(!answer.logged);
    assert_eq!(log.lost(), 1);
    place.assert_receipt_good(&answer);
}

#[test]
fn a_log_in_memory_gives_the_same_receipts() {
    let settings = Settings { path: None, ..Place::new().settings() };
    let log = started(&settings);
    let answers = [erase(&log, 1), erase(&log, 2), erase(&log, 3)];
    for answer in &answers {
        assert!(answer.logged);
        assert_eq!(receipt_text_is_good(&serde_json::to_vec(&answer.receipt).expect("JSON")), Ok(()));
    }
}

#[test]
fn no_flipped_bit_of_a_receipt_goes_unnoticed() {
    let log = started(&Settings { path: None, ..Place::new().settings() });
    erase(&log, 1);
    erase(&log, 2);
    let answer = erase(&log, 3);
    let answered = serde_json::json!({ "receipt": answer.receipt, "logged": answer.logged });
    for good in [serde_json::to_vec(&answer.receipt), serde_json::to_vec(&answered)].map(|text| text.expect("JSON")) {
        assert_eq!(receipt_text_is_good(&good), Ok(()));
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(receipt_text_is_good(&flipped).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&flipped));
        }
    }
}

#[test]
fn a_receipt_with_more_than_was_signed_is_refused() {
    let log = started(&Settings { path: None, ..Place::new().settings() });
    let good = serde_json::to_string(&erase(&log, 1).receipt).expect("JSON");
    for changed in [
        good.replacen('{', r#"{"note":"x","#, 1),
        format!(r#"{{"receipt":{good},"logged":false}}"#),
        format!(r#"{{"receipt":{good},"logged":true,"note":"x"}}"#),
        format!(r#"{{"receipt":{good},"receipt":{good},"logged":true}}"#),
        good.replacen(r#""v":1"#, r#""v":2"#, 1),
        String::new(),
        "[]".to_owned(),
    ] {
        assert!(receipt_text_is_good(changed.as_bytes()).is_err(), "{changed}");
    }
}

#[test]
fn a_receipt_of_another_key_is_refused_where_a_key_is_given() {
    let (place, other) = (Place::with_records(1), Place::with_records(1));
    let log = place.open();
    let answer = erase(&log, 5);
    let file = place.directory.path().join("receipt.json");
    fs::write(&file, serde_json::to_vec(&answer.receipt).expect("JSON")).expect("written");

    let without = verify_text(&file, None).expect("good by its own key");
    let with = verify_text(&file, Some(&place.key("pub"))).expect("good");
    let refused = verify_text(&file, Some(&other.key("pub"))).expect_err("another key");

    assert!(without.contains("Compare its fingerprint") && !with.contains("Compare its fingerprint"));
    assert!(refused.is_refusal());
    assert!(!verify_text(&file, Some(&file)).expect_err("no key").is_refusal());
}

#[test]
fn what_cannot_be_read_is_not_called_wrong() {
    let place = Place::with_records(1);
    assert!(!verify_text(&place.directory.path().join("nothing"), None).expect_err("no file").is_refusal());
    fs::remove_file(place.key("pub")).expect("there");
    assert!(matches!(place.verify(), Err(VerifyError::NoKey(_))));
}

mod disk;
mod evidence;
mod independent;
mod million;
mod proving;
mod segments;
mod tampering;

/// A directory with a log and its keys.
struct Place {
    directory: TempDir,
    log: PathBuf,
}

impl Place {
    fn new() -> Self {
        // In memory where there is such a place: these tests sync thousands of times.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let log = directory.path().join("audit.log");
        Self { directory, log }
    }

    /// A closed log of erasures, each in a batch of its own.
    fn with_records(count: u64) -> Self {
        let place = Self::new();
        let log = place.open();
        for number in 0..count {
            assert!(erase(&log, number).logged);
        }
        log.close();
        place
    }

    fn settings(&self) -> Settings {
        Settings {
            path: Some(self.log.clone()),
            signing_key: None,
            // Long enough for the slowest disk: only a failure answers without the log.
            sync_wait: Duration::from_secs(600),
            domain: "edge.example.net".to_owned(),
            segment_records: 1_000_000,
            policy: "0123456789abcdef".to_owned(),
        }
    }

    fn open(&self) -> AuditLog {
        self.try_open().expect("a good log")
    }

    fn open_in_segments_of(&self, segment_records: u64) -> AuditLog {
        started(&Settings { segment_records, ..self.settings() })
    }

    fn try_open(&self) -> Result<AuditLog, OpenError> {
        AuditLog::open(&self.settings())?.start(|_| ())
    }

    fn key(&self, ending: &str) -> PathBuf {
        self.log.with_extension(ending)
    }

    fn verify(&self) -> Result<String, VerifyError> {
        verify_text(&self.log, None)
    }

    fn assert_receipt_good(&self, answer: &Recorded) {
        let file = self.directory.path().join("answer.json");
        let answered = serde_json::json!({ "receipt": answer.receipt, "logged": answer.logged });
        fs::write(&file, serde_json::to_vec_pretty(&answered).expect("JSON")).expect("written");
        let said = verify_text(&file, Some(&self.key("pub"))).expect("a good receipt");
        assert!(said.contains("receipt: good") && said.contains("cause       deleted"), "{said}");
    }
}

fn started(settings: &Settings) -> AuditLog {
    AuditLog::open(settings).expect("open").start(|_| ()).expect("threads")
}

fn verify_text(path: &Path, key: Option<&Path>) -> Result<String, VerifyError> {
    let mut out = Vec::new();
    let against = verify::Against { key, ..verify::Against::default() };
    verify::verify(path, against, &mut out).map(|()| String::from_utf8(out).expect("text"))
}

fn receipt_text_is_good(text: &[u8]) -> Result<(), String> {
    verify::check_receipt(text, None).map(|(receipt, checked)| {
        let Receipt { key, .. } = receipt;
        assert_eq!(unbase64(&key), Some(checked.key.0));
    })
}

fn erase(log: &AuditLog, number: u64) -> Recorded {
    let (sender, answer) = channel();
    log.submit(erasure(number), move |id, recorded| {
        assert_eq!(id.0, number);
        sender.send(recorded).expect("the test waits");
    });
    answer.recv().expect("an answer, always")
}

fn log_life(log: &AuditLog, number: u64) -> Receiver<()> {
    let (sender, answer) = channel();
    log.submit(life(number), move |_, _| sender.send(()).expect("the test waits"));
    answer
}

fn erasure(number: u64) -> Box<RecordJob> {
    let mut vault = Vault::plain();
    let id = vault.admit(Material::Ha1(Vec::new()), Keep::UntilAccepted);
    let proof = vault.wipe(id);
    let (instance, salt, at) = about(number);
    let subject = subject(&salt, &instance);
    let tenant = "acme".into();
    let mut wakes = WakeCounts::default();
    wakes.add(WakeKind::Call);
    let end = Ending { cause: Cause::Deleted, unregister: Unregister::Confirmed, wakes };
    let record = AuditRecord::erased(proof, end, subject, &tenant, at);
    Box::new(RecordJob { record, receipt: Some(ReceiptJob { id: RecordId(number), instance, salt }) })
}

fn life(number: u64) -> Box<RecordJob> {
    let (instance, salt, at) = about(number);
    let record = AuditRecord::life(LifeEvent::HandedOver, subject(&salt, &instance), &"acme".into(), at);
    Box::new(RecordJob { record, receipt: None })
}

fn about(number: u64) -> (InstanceId, [u8; 32], WallTime) {
    let byte = u8::try_from(number % 256).expect("in range");
    (InstanceId::mint(ShardId(0), [byte; 16]), [byte; 32], WallTime::from_unix_millis(1_795_550_400_000))
}

fn subject(salt: &[u8; 32], instance: &InstanceId) -> String {
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), instance.to_string().as_bytes()).as_ref())
}

fn records(log: &str) -> Vec<&str> {
    log.lines().filter(|line| !line.starts_with(LINE_START)).collect()
}
