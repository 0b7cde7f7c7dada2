//! What waits: records for the disk, and erasures for their receipts.
//!
//! Shared by everyone who submits, the writer (which may hang on a disk for as long as the disk likes) and the notary
//! (which must not). The lock is held for a few pushes and pops, never during IO, signing or a callback.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::replay::LINE_MAX;
use crate::clock::{self, Instant};
use crate::engine::audit::Inclusion;
use crate::engine::ids::RecordId;
use crate::engine::input::Recorded;
use crate::engine::output::ReceiptJob;

/// How many records may wait for the disk: as many as the instances a process holds by default, so that a disk that
/// fails at shutdown loses none of them. Above it a record is not logged, only counted; its receipt is still signed.
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
#[derive(Default)]
pub(super) struct Queue {
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
    lost: u64,
    failed: bool,
    writing_since: Option<Instant>,
    told_unwritable: bool,
    closing: bool,
    writer_gone: bool,
}

impl Queue {
    /// Takes a record in.
    ///
    /// # Errors
    ///
    /// Gives the waiting erasure back, to be answered at once, where there is no room, nobody who would write, or a
    /// line that nobody could read again.
    pub(super) fn push(
        &self,
        line: String,
        erasure: Option<(ReceiptJob, Done)>,
        patience: Duration,
    ) -> Result<(), Option<Waiting>> {
        let deadline = clock::now().boot + patience;
        let waiting = erasure.map(|(job, done)| Waiting { job, line: line.clone(), done, deadline });
        let mut state = self.lock();
        if state.closing || state.backlog >= BACKLOG_MAX || line.len() as u64 >= LINE_MAX {
            state.lost += 1;
            return Err(waiting);
        }
        let number = state.next;
        state.next += 1;
        state.backlog += 1;
        state.records.push_back(Entry { number, line });
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

    /// The writer: waits for records and adds them to `batch`; `false` when there will be none any more. A batch that
    /// failed is not empty, and is tried again after a pause.
    pub(super) fn fill(&self, batch: &mut Vec<Entry>) -> bool {
        let mut state = self.lock();
        if batch.is_empty() {
            while state.records.is_empty() && !state.closing {
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
        let count = room.min(state.records.len());
        batch.extend(state.records.drain(..count));
        if batch.is_empty() {
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

    /// The writer: the disk failed. `true` when it is to try no more.
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

    pub(super) fn backlog(&self) -> usize {
        self.lock().backlog
    }

    pub(super) fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; were it otherwise, the counters and queues would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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
        let queue = Queue::default();
        assert!(queue.push("line".to_owned(), Some((job(7), Box::new(|_, _| ()))), Duration::ZERO).is_ok());
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
    fn a_record_without_room_is_counted_and_its_erasure_given_back() {
        let queue = Queue::default();
        queue.lock().backlog = BACKLOG_MAX;
        let refused = queue.push("line".to_owned(), Some((job(7), Box::new(|_, _| ()))), Duration::ZERO);
        assert!(refused.is_err_and(|waiting| waiting.is_some_and(|waiting| waiting.job.id == RecordId(7))));
        queue.lock().backlog = 0;
        let too_long = "x".repeat(usize::try_from(LINE_MAX).expect("small"));
        assert!(queue.push(too_long, None, Duration::ZERO).is_err_and(|waiting| waiting.is_none()));
        assert_eq!((queue.lost(), queue.backlog()), (2, 0));
    }

    #[test]
    fn a_batch_has_its_limit_and_keeps_the_order() {
        let queue = Queue::default();
        for number in 0..=BATCH_MAX {
            assert!(queue.push(number.to_string(), None, Duration::ZERO).is_ok());
        }
        let mut batch = Vec::new();
        assert!(queue.fill(&mut batch));
        assert_eq!(batch.len(), BATCH_MAX);
        assert!(batch.iter().enumerate().all(|(place, entry)| entry.line == place.to_string()));
        batch.clear();
        assert!(queue.fill(&mut batch));
        assert_eq!(batch.len(), 1);
    }

    fn job(number: u64) -> ReceiptJob {
        ReceiptJob { id: RecordId(number), instance: InstanceId::mint(ShardId(0), [0; 16]), salt: [0; 32] }
    }
}
