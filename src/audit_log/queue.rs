//! What waits: records for the disk, and erasures for their receipts.
//!
//! Shared by everyone who submits, the writer (which may hang on a disk for as long as the disk likes) and the notary
//! (which must not). The lock is held for a few pushes and pops, never during IO, signing or a callback.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::record::{Fold, Label};
use super::replay::LINE_MAX;
use crate::clock::{self, Instant};
use crate::engine::audit::Inclusion;
use crate::engine::ids::RecordId;
use crate::engine::input::Recorded;
use crate::engine::output::ReceiptJob;

/// How many records may wait for the disk: as many as the instances a process holds by default, so that a disk that
/// fails at shutdown loses none of them. Above it records are folded: counted together, in one record; their receipts are
/// still signed.
pub(super) const BACKLOG_MAX: usize = 1 << 20;

/// How many records one sync covers, at most: the memory and the time that a batch's proofs take.
pub(super) const BATCH_MAX: usize = 4096;

/// How long after a failure the disk is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A disk that takes longer for one sync counts as broken until it answers.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// Nobody sleeps longer without asking the clock: the machine may have been suspended meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Who gets a receipt.
pub(super) type Done = Box<dyn FnOnce(RecordId, Recorded) + Send>;

/// A record on its way to the disk.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) line: String,
}

/// An erasure that waits for its receipt.
pub(super) struct Waiting {
    pub(super) job: ReceiptJob,
    pub(super) line: String,
    pub(super) done: Done,
    deadline: Instant,
}

/// A receipt to sign and hand out.
pub(super) struct Due {
    pub(super) waiting: Waiting,
    pub(super) inclusion: Option<Inclusion>,
}

/// What the notary has to do next.
pub(super) struct Errands {
    pub(super) due: Vec<Due>,
    /// Whether the log can be written, where that has changed.
    pub(super) writable: Option<bool>,
}

/// The queue and its two sleepers.
pub(super) struct Queue {
    /// How many records may wait.
    backlog_max: usize,
    /// What a folded record says of the policy.
    policy: String,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes the notary.
    news: Condvar,
}

#[derive(Default)]
struct State {
    records: VecDeque<Entry>,
    /// By the number of their record, which is also the order of their deadlines.
    waiting: BTreeMap<u64, Waiting>,
    synced: Vec<Due>,
    next: u64,
    /// Records accepted and not yet synced.
    backlog: usize,
    /// What found no room since the last record that did.
    fold: Option<Fold>,
    folded: u64,
    lost: u64,
    failed: bool,
    writing_since: Option<Instant>,
    told_unwritable: bool,
    closing: bool,
    writer_gone: bool,
}

impl Queue {
    /// An empty queue for so many records.
    pub(super) fn new(backlog_max: usize, policy: String) -> Self {
        let (work, news) = (Condvar::new(), Condvar::new());
        Self { backlog_max, policy, state: Mutex::default(), work, news }
    }

    /// Takes a record in.
    ///
    /// # Errors
    ///
    /// Gives the waiting erasure back, to be answered at once, where there is no room, nobody who would write, or a
    /// line that nobody could read again. The record is folded then, if there will be somebody to write it.
    pub(super) fn push(
        &self,
        line: String,
        label: Label,
        erasure: Option<(ReceiptJob, Done)>,
        patience: Duration,
    ) -> Result<(), Option<Waiting>> {
        let deadline = clock::now().boot + patience;
        let waiting = erasure.map(|(job, done)| Waiting { job, line: line.clone(), done, deadline });
        let mut state = self.lock();
        if state.writer_gone {
            state.lost += 1;
            return Err(waiting);
        }
        // A fold that waits needs a place of its own, before this record.
        let places = 1 + usize::from(state.fold.is_some());
        if state.closing || state.backlog + places > self.backlog_max || line.len() as u64 >= LINE_MAX {
            state.fold_in(label);
            self.work.notify_one();
            return Err(waiting);
        }
        state.unfold(&self.policy);
        let number = state.enqueue(line);
        if let Some(waiting) = waiting {
            // Later ones have later deadlines: the notary already sleeps until an earlier one.
            let notary_sleeps = state.waiting.is_empty();
            state.waiting.insert(number, waiting);
            if notary_sleeps {
                self.news.notify_one();
            }
        }
        self.work.notify_one();
        Ok(())
    }

    /// The writer: waits for records and adds them to `batch`; `false` when there will be none any more. After a failure
    /// there is a pause instead: a batch that failed is not empty, and is tried again, and an empty one is there to find out
    /// whether the disk works again.
    pub(super) fn fill(&self, batch: &mut Vec<Entry>) -> bool {
        let mut state = self.lock();
        if batch.is_empty() && !state.failed {
            while state.records.is_empty() && state.fold.is_none() && !state.closing {
                state = wait(&self.work, state, None);
            }
        } else {
            let until = clock::now().boot + RETRY_AFTER;
            loop {
                let left = until.saturating_since(clock::now().boot);
                if left.is_zero() || state.closing {
                    break;
                }
                state = wait(&self.work, state, Some(left));
            }
        }
        let room = BATCH_MAX - batch.len();
        if state.records.len() < room {
            state.unfold(&self.policy);
        }
        let count = room.min(state.records.len());
        batch.extend(state.records.drain(..count));
        if batch.is_empty() && (state.closing || !state.failed) {
            return false;
        }
        state.writing_since = Some(clock::now().boot);
        self.news.notify_one();
        true
    }

    /// The writer: the batch is on the disk. Gives the erasures of it that still wait.
    pub(super) fn synced(&self, batch: &[Entry]) -> Vec<(u64, Waiting)> {
        let mut state = self.lock();
        state.backlog -= batch.len();
        state.failed = false;
        state.writing_since = None;
        self.news.notify_one();
        batch
            .iter()
            .filter_map(|entry| state.waiting.remove(&entry.number).map(|waiting| (entry.number, waiting)))
            .collect()
    }

    /// The disk failed, for the writer or before it began. `true` when it is to try no more.
    pub(super) fn failed(&self) -> bool {
        let mut state = self.lock();
        state.failed = true;
        state.writing_since = None;
        self.news.notify_one();
        state.closing
    }

    /// The writer: these receipts can be signed.
    pub(super) fn hand_over(&self, due: Vec<Due>) {
        self.lock().synced.extend(due);
        self.news.notify_one();
    }

    /// The writer: it ends, and nothing more will be synced.
    pub(super) fn writer_ends(&self) {
        self.lock().writer_gone = true;
        self.news.notify_one();
    }

    /// The notary: waits until there is something to do; `None` when there never will be again.
    pub(super) fn errands(&self) -> Option<Errands> {
        let mut state = self.lock();
        loop {
            let now = clock::now().boot;
            let errands = state.errands(now);
            if errands.writable.is_some() || !errands.due.is_empty() {
                return Some(errands);
            }
            if state.writer_gone {
                return None;
            }
            let pause = state.pause(now);
            state = wait(&self.news, state, pause);
        }
    }

    /// Takes no more records; the writer ends when it has written the rest, or failed to.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// Records that wait for the disk.
    pub(super) fn backlog(&self) -> usize {
        self.lock().backlog
    }

    /// Records that are not on the disk, those that would be counted together among them.
    pub(super) fn unwritten(&self) -> usize {
        let state = self.lock();
        let folded = state.fold.as_ref().map_or(0, |fold| usize::try_from(fold.count).unwrap_or(usize::MAX));
        state.backlog.saturating_add(folded)
    }

    /// Records that were counted together with others instead of being written one by one.
    pub(super) fn folded(&self) -> u64 {
        self.lock().folded
    }

    /// Records that are in no log, not even as a number.
    pub(super) fn lost(&self) -> u64 {
        let state = self.lock();
        let never_written = state.fold.as_ref().filter(|_| state.writer_gone).map_or(0, |fold| fold.count);
        state.lost + never_written
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; were it otherwise, the counters and queues would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The record's number.
    fn enqueue(&mut self, line: String) -> u64 {
        let number = self.next;
        self.next += 1;
        self.backlog += 1;
        self.records.push_back(Entry { number, line });
        number
    }

    fn fold_in(&mut self, label: Label) {
        self.folded += 1;
        match &mut self.fold {
            Some(fold) => fold.add(label),
            none => *none = Some(Fold::new(label)),
        }
    }

    /// What was folded becomes a record, behind all that were there before.
    fn unfold(&mut self, policy: &str) {
        if let Some(fold) = self.fold.take() {
            self.enqueue(fold.line(policy));
        }
    }

    fn errands(&mut self, now: Instant) -> Errands {
        let mut due = std::mem::take(&mut self.synced);
        while let Some(first) = self.waiting.first_entry()
            && (self.failed || self.writer_gone || first.get().deadline <= now)
        {
            due.push(Due { waiting: first.remove(), inclusion: None });
        }
        let unwritable = self.failed || self.stalled(now);
        let writable = (unwritable != self.told_unwritable).then_some(!unwritable);
        self.told_unwritable = unwritable;
        Errands { due, writable }
    }

    fn stalled(&self, now: Instant) -> bool {
        self.writing_since.is_some_and(|since| now.saturating_since(since) >= STALLED_AFTER)
    }

    /// How long the notary may sleep; `None`: until it is woken.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let patience = self.waiting.first_key_value().map(|(_, first)| first.deadline.saturating_since(now));
        let watched = self.writing_since.filter(|_| !self.told_unwritable);
        let stall = watched.map(|since| (since + STALLED_AFTER).saturating_since(now));
        patience.into_iter().chain(stall).min()
    }
}

fn wait<'a>(sleeper: &Condvar, state: MutexGuard<'a, State>, at_most: Option<Duration>) -> MutexGuard<'a, State> {
    match at_most {
        None => sleeper.wait(state).unwrap_or_else(PoisonError::into_inner),
        Some(at_most) => sleeper.wait_timeout(state, at_most.min(SLEEP_MAX)).unwrap_or_else(PoisonError::into_inner).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::{InstanceId, ShardId};

    #[test]
    fn an_erasure_whose_time_is_up_is_answered_while_the_disk_still_writes() {
        let queue = Queue::new(BACKLOG_MAX, String::new());
        assert!(queue.push("line".to_owned(), label(), Some((job(7), Box::new(|_, _| ()))), Duration::ZERO).is_ok());
        let mut batch = Vec::new();
        assert!(queue.fill(&mut batch));

        let errands = queue.errands().expect("the writer is still there");

        assert_eq!(errands.writable, None);
        assert_eq!(errands.due.len(), 1);
        assert!(errands.due[0].inclusion.is_none() && errands.due[0].waiting.line == "line");
        assert_eq!(queue.backlog(), 1);
        assert!(queue.synced(&batch).is_empty(), "nobody is answered twice");
        assert_eq!(queue.backlog(), 0);
    }

    #[test]
    fn a_disk_that_hangs_is_told_once_and_its_recovery_too() {
        let start = Instant::from_nanos(1);
        let mut state = State { writing_since: Some(start), ..State::default() };
        let late = start + STALLED_AFTER;

        assert_eq!(state.errands(start).writable, None);
        assert_eq!(state.pause(start), Some(STALLED_AFTER));
        assert_eq!(state.errands(late).writable, Some(false));
        assert_eq!(state.errands(late).writable, None);
        assert_eq!(state.pause(late), None, "nothing to watch for until the writer speaks");
        state.writing_since = None;
        assert_eq!(state.errands(late).writable, Some(true));
    }

    #[test]
    fn records_without_room_are_folded_into_one_and_their_erasures_given_back() {
        let queue = Queue::new(2, "00".to_owned());
        for number in 0..5 {
            let pushed = queue.push(number.to_string(), label(), Some((job(number), Box::new(|_, _| ()))), PATIENCE);
            let given_back = pushed.err().map(|waiting| waiting.map(|waiting| waiting.job.id));
            assert_eq!(given_back, (number >= 2).then_some(Some(RecordId(number))));
        }
        assert_eq!((queue.backlog(), queue.folded(), queue.lost()), (2, 3, 0));

        let lines = drain(&queue);

        assert_eq!(lines[..2], ["0", "1"]);
        assert!(lines[2].contains(r#""event":"folded","count":3,"events":{"erased":3},"causes":{"deleted":3}"#));
        assert_eq!((lines.len(), queue.backlog()), (3, 0));
    }

    #[test]
    fn a_fold_stands_where_its_records_would_have_stood() {
        let queue = Queue::new(3, "00".to_owned());
        let push = |line: &str| queue.push(line.to_owned(), label(), None, PATIENCE).is_ok();
        assert!(push("0") && push("1") && push("2") && !push("folded"));
        let mut batch = Vec::new();
        assert!(queue.fill(&mut batch));
        assert!(!push("no room for the fold and itself"));
        queue.synced(&batch);
        assert!(push("later"));

        let lines = drain(&queue);

        assert!(lines[0].contains(r#""count":1"#) && lines[1] == "later" && lines.len() == 2, "{lines:?}");
    }

    #[test]
    fn what_comes_while_the_log_closes_is_still_counted_and_afterwards_lost() {
        let queue = Queue::new(9, "00".to_owned());
        let too_long = "x".repeat(usize::try_from(LINE_MAX).expect("small"));
        assert!(queue.push(too_long, label(), None, PATIENCE).is_err_and(|waiting| waiting.is_none()));
        queue.close();
        assert!(queue.push("late".to_owned(), label(), None, PATIENCE).is_err());
        assert_eq!((queue.folded(), queue.lost()), (2, 0));
        let lines = drain(&queue);
        assert!(lines.len() == 1 && lines[0].contains(r#""count":2"#), "{lines:?}");
        assert!(queue.push("after the last look".to_owned(), label(), None, PATIENCE).is_err());
        queue.writer_ends();
        assert!(queue.push("too late".to_owned(), label(), None, PATIENCE).is_err());
        assert_eq!((queue.folded(), queue.lost()), (3, 2));
    }

    #[test]
    fn a_batch_has_its_limit_and_keeps_the_order() {
        let queue = Queue::new(BACKLOG_MAX, String::new());
        for number in 0..=BATCH_MAX {
            assert!(queue.push(number.to_string(), label(), None, Duration::ZERO).is_ok());
        }
        let mut batch = Vec::new();
        assert!(queue.fill(&mut batch));
        assert_eq!(batch.len(), BATCH_MAX);
        assert!(batch.iter().enumerate().all(|(place, entry)| entry.line == place.to_string()));
        batch.clear();
        assert!(queue.fill(&mut batch));
        assert_eq!(batch.len(), 1);
    }

    const PATIENCE: Duration = Duration::from_secs(600);

    /// What the writer would write.
    fn drain(queue: &Queue) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let left = queue.lock();
            if left.records.is_empty() && left.fold.is_none() {
                return lines;
            }
            drop(left);
            let mut batch = Vec::new();
            assert!(queue.fill(&mut batch));
            queue.synced(&batch);
            lines.extend(batch.into_iter().map(|entry| entry.line));
        }
    }

    fn label() -> Label {
        Label { at: "2026-11-24T20:00:00Z".to_owned(), event: "erased", cause: Some("deleted") }
    }

    fn job(number: u64) -> ReceiptJob {
        ReceiptJob { id: RecordId(number), instance: InstanceId::mint(ShardId(0), [0; 16]), salt: [0; 32] }
    }
}
