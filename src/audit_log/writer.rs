//! The two threads of the log: the writer appends and syncs, the notary signs receipts and keeps the deadlines.
//!
//! They are threads because a sync blocks for as long as the disk likes; they are two so that an erasure gets its answer
//! in time even then.

use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::file::{LogFile, Standing};
use super::key::Signer;
use super::merkle::{Batch, leaf_hash};
use super::queue::{BATCH_MAX, Due, Entry, Queue};
use super::receipt;
use crate::engine::input::Recorded;

/// Where the lines go.
pub(super) enum Sink {
    /// Nowhere: the tree alone is kept.
    Memory,
    File(LogFile),
}

impl Sink {
    fn append(&mut self, records: &[&str], checkpoint: &str) -> std::io::Result<()> {
        match self {
            Self::Memory => Ok(()),
            Self::File(file) => file.append(records, checkpoint),
        }
    }

    /// Whether there is room for more.
    pub(super) fn probe(&mut self) -> std::io::Result<()> {
        match self {
            Self::Memory => Ok(()),
            Self::File(file) => file.probe(),
        }
    }
}

/// Appends batches until the queue ends.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) signer: Arc<Signer>,
    pub(super) origin: String,
    pub(super) sink: Sink,
    pub(super) standing: Standing,
    /// The last attempt failed, and that was said.
    pub(super) failing: bool,
}

impl Writer {
    pub(super) fn run(mut self) {
        let queue = self.queue.clone();
        let _end = End(&queue);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.queue.fill(&mut batch) {
            match self.append(&batch) {
                Ok(grown) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("the audit log can be written again");
                    }
                    self.hand_over(&batch, &grown);
                    batch.clear();
                    self.rotate();
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        warn_of(&error);
                    }
                    if self.queue.failed() {
                        break;
                    }
                }
            }
        }
    }

    /// Where nothing waits, the disk is only asked whether it works again.
    fn append(&mut self, batch: &[Entry]) -> std::io::Result<Batch> {
        let lines: Vec<&str> = batch.iter().map(|entry| entry.line.as_str()).collect();
        let grown = Batch::new(&self.standing.tree, lines.iter().map(|line| leaf_hash(line.as_bytes())).collect());
        let checkpoint = Checkpoint::of(grown.after(), &self.origin, self.standing.previous).sign(&self.signer);
        if batch.is_empty() {
            self.sink.probe()?;
            return Ok(grown);
        }
        self.sink.append(&lines, &checkpoint.line())?;
        self.standing.previous = checkpoint.hash();
        Ok(grown)
    }

    /// Nobody waits for it: the receipts are out.
    fn rotate(&mut self) {
        let Sink::File(file) = &mut self.sink else { return };
        match file.rotate_when_full(&self.standing.tree) {
            Ok(None) => {}
            Ok(Some(finished)) => {
                tracing::info!(finished = %finished.display(), "the audit log goes on in a new segment")
            }
            Err(error) => {
                tracing::warn!(%error, "the audit log cannot begin a new segment; it goes on in the present one");
            }
        }
    }

    fn hand_over(&mut self, batch: &[Entry], grown: &Batch) {
        let waiting = self.queue.synced(batch);
        let first = self.standing.tree.size();
        self.standing.tree = grown.after().clone();
        let (size, root) = (grown.after().size(), grown.after().root());
        let due = waiting
            .into_iter()
            .map(|(number, waiting)| {
                // Records are numbered without gaps and a batch keeps their order.
                let index = first + (number - batch[0].number);
                Due { waiting, inclusion: Some(receipt::inclusion(index, size, &root, &grown.path(index))) }
            })
            .collect();
        self.queue.hand_over(due);
    }
}

/// Says that the disk fails.
pub(super) fn warn_of(error: &std::io::Error) {
    tracing::warn!(%error, "the audit log cannot be written; records are kept in memory");
}

/// Tells the notary that the writer is gone, even if it panicked: nobody may wait for it then.
struct End<'a>(&'a Queue);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.writer_ends();
    }
}

/// Hands out receipts, and tells when the log stops or starts being writable, until the writer is gone.
pub(super) fn run_notary(queue: &Queue, signer: &Signer, on_writable: impl Fn(bool)) {
    while let Some(errands) = queue.errands() {
        if let Some(writable) = errands.writable {
            on_writable(writable);
        }
        for due in errands.due {
            answer(due, signer);
        }
    }
}

/// Signs one receipt and hands it out.
pub(super) fn answer(Due { waiting, inclusion }: Due, signer: &Signer) {
    let logged = inclusion.is_some();
    let receipt = Box::new(receipt::issue(&waiting.job, &waiting.line, inclusion, signer));
    (waiting.done)(waiting.job.id, Recorded { receipt, logged });
}
