//! The lines of the log that are records: those of one instance, and the one that stands for many which found no room.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::audit::{AuditRecord, RECORD_VERSION};

/// A record as it is read.
pub(super) enum Record {
    /// A life event of an instance.
    Life(AuditRecord),
    /// Many that were not written one by one.
    Folded(FoldedRecord),
}

impl Record {
    /// Reads a line, without its line end. Only what a version of this program writes, and exactly as it does.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if let Ok(record) = serde_json::from_slice::<AuditRecord>(line) {
            return (record.is_sound() && is_written_so(&record, line)).then_some(Self::Life(record));
        }
        let folded = serde_json::from_slice::<FoldedRecord>(line).ok()?;
        (folded.v == RECORD_VERSION && is_written_so(&folded, line)).then_some(Self::Folded(folded))
    }

    /// When.
    pub(super) fn at(&self) -> &str {
        match self {
            Self::Life(record) => &record.at,
            Self::Folded(record) => &record.at,
        }
    }

    /// When, or of many when the first of them was.
    pub(super) fn since(&self) -> &str {
        match self {
            Self::Life(record) => &record.at,
            Self::Folded(record) => &record.since,
        }
    }
}

fn is_written_so(record: &impl Serialize, line: &[u8]) -> bool {
    serde_json::to_vec(record).is_ok_and(|written| written == line)
}

/// Whether a line is a record.
pub(super) fn is_record(line: &[u8]) -> bool {
    Record::parse(line).is_some()
}

/// Records that found no room while the disk failed, as one: how many, by event and by cause. It names nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FoldedRecord {
    v: u8,
    /// Of the last of them.
    pub(super) at: String,
    /// Of the first of them.
    pub(super) since: String,
    policy: String,
    event: Event,
    pub(super) count: u64,
    pub(super) events: BTreeMap<String, u64>,
    /// Of the erasures among them.
    pub(super) causes: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    Folded,
}

/// What a fold has to know of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) at: String,
    pub(super) event: &'static str,
    pub(super) cause: Option<&'static str>,
}

impl Label {
    pub(super) fn of(record: &AuditRecord) -> Self {
        let cause = record.event.cause().map(|cause| cause.as_str());
        Self { at: record.at.clone(), event: record.event.as_str(), cause }
    }
}

/// Records that are being folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fold {
    since: String,
    at: String,
    pub(super) count: u64,
    events: BTreeMap<&'static str, u64>,
    causes: BTreeMap<&'static str, u64>,
}

impl Fold {
    /// Begins with the first.
    pub(super) fn new(first: Label) -> Self {
        let since = first.at.clone();
        let mut fold =
            Self { since, at: String::new(), count: 0, events: BTreeMap::default(), causes: BTreeMap::default() };
        fold.add(first);
        fold
    }

    /// One more.
    pub(super) fn add(&mut self, Label { at, event, cause }: Label) {
        self.at = at;
        self.count += 1;
        *self.events.entry(event).or_default() += 1;
        if let Some(cause) = cause {
            *self.causes.entry(cause).or_default() += 1;
        }
    }

    /// The line of the log.
    pub(super) fn line(self, policy: &str) -> String {
        let owned = |counts: BTreeMap<&'static str, u64>| {
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
        };
        let record = FoldedRecord {
            v: RECORD_VERSION,
            at: self.at,
            since: self.since,
            policy: policy.to_owned(),
            event: Event::Folded,
            count: self.count,
            events: owned(self.events),
            causes: owned(self.causes),
        };
        serde_json::to_string(&record).expect("a record is plain data and becomes JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first version of this program wrote them.
    const FIRST_VERSION: [&str; 2] = [
        r#"{"v":1,"at":"2026-11-24T20:00:00Z","tenant":"acme","subject":"6ab7","event":"handed-over"}"#,
        r#"{"v":1,"at":"2026-11-24T20:00:00Z","tenant":"acme","subject":"6ab7","event":"erased","cause":"deleted","unregister":"confirmed"}"#,
    ];
    const PRESENT: [&str; 3] = [
        r#"{"v":2,"at":"2026-11-24T20:00:00Z","tenant":"acme","subject":"6ab7","policy":"00","event":"refused"}"#,
        r#"{"v":2,"at":"2026-11-24T20:00:00Z","tenant":"acme","subject":"6ab7","policy":"00","event":"erased","cause":"deleted","unregister":"confirmed","wakes":{"call":3,"message":1}}"#,
        r#"{"v":2,"at":"2026-11-24T20:00:09Z","since":"2026-11-24T20:00:00Z","policy":"00","event":"folded","count":2,"events":{"erased":2},"causes":{"deleted":2}}"#,
    ];

    #[test]
    fn records_of_both_versions_are_read() {
        for line in FIRST_VERSION.into_iter().chain(PRESENT) {
            assert!(is_record(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn no_version_is_given_what_it_did_not_have_or_spared_what_it_must_have() {
        for line in FIRST_VERSION {
            assert!(!is_record(line.replacen(r#""v":1"#, r#""v":2"#, 1).as_bytes()), "{line}");
        }
        for line in PRESENT {
            assert!(!is_record(line.replacen(r#""v":2"#, r#""v":1"#, 1).as_bytes()), "{line}");
            assert!(!is_record(line.replacen(r#""v":2"#, r#""v":3"#, 1).as_bytes()), "{line}");
            assert!(!is_record(line.replacen(r#","policy":"00""#, "", 1).as_bytes()), "{line}");
        }
        assert!(!is_record(PRESENT[1].replacen(r#","wakes":{"call":3,"message":1}"#, "", 1).as_bytes()));
        assert!(!is_record(PRESENT[1].replacen(r#""call":3,"message":1"#, r#""message":1,"call":3"#, 1).as_bytes()));
        assert!(!is_record(PRESENT[2].replacen("folded", "erased", 1).as_bytes()));
    }

    #[test]
    fn a_fold_counts_by_event_and_cause_and_tells_from_when_to_when() {
        let label = |at: &str, event, cause| Label { at: at.to_owned(), event, cause };
        let mut fold = Fold::new(label("2026-11-24T20:00:00Z", "erased", Some("deleted")));
        fold.add(label("2026-11-24T20:00:09Z", "erased", Some("deleted")));
        assert_eq!(fold.line("00"), PRESENT[2]);
        let read = Record::parse(PRESENT[2].as_bytes()).expect("a record");
        assert_eq!((read.since(), read.at()), ("2026-11-24T20:00:00Z", "2026-11-24T20:00:09Z"));
    }
}
