//! The audit log: what became of each instance, in a file that nobody can change unnoticed.
//!
//! Records are appended as lines of JSON and hashed into a Merkle tree (RFC 9162); after each batch the log is synced and
//! its root signed in a checkpoint that chains to the one before. An erasure gets a signed receipt: with its place in
//! the tree if the disk was in time, without if not. The room is its own because its promises are about durability: the
//! engine only says what is to be recorded.
//!
//! It refuses to write behind a damaged log, and it refuses to make an erasure wait for a disk: a broken disk stops
//! admissions (`on_writable`), never an erasure. It sees no credential and no personal data.

mod checkpoint;
mod encoding;
pub mod evidence;
mod file;
mod key;
mod merkle;
mod proof;
pub mod prove;
mod queue;
mod reading;
mod receipt;
mod record;
mod replay;
mod seal;
mod segments;
mod summary;
mod torn;
pub mod verify;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::ids::RecordId;
use crate::engine::input::Recorded;
use crate::engine::output::RecordJob;
use file::{ContinueError, LogFile, Standing, beside};
use key::Signer;
use queue::{BACKLOG_MAX, Due, Queue};
use record::Label;
use replay::FaultKind;
pub use summary::{Notary, Summary};
use writer::{Sink, Writer};

/// What a signature that does not fit may mean as well.
const OTHER_KEY: &str = " (if the signing key was replaced, put the former one back)";

/// What the configuration says of the log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file; `None` keeps nothing but the tree, for demonstrations.
    pub path: Option<PathBuf>,
    /// The private key; `None`: made at the first start, beside the log (without a log: for this run only).
    pub signing_key: Option<PathBuf>,
    /// How long an erasure waits for the disk before it is answered all the same.
    pub sync_wait: Duration,
    /// Whose log it is: `sip.domain`.
    pub domain: String,
    /// How many records a segment has, at least, before the log goes on in a new file.
    pub segment_records: u64,
    /// [`crate::engine::policy::Policy::version`], which each record tells.
    pub policy: String,
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read or made.
    #[error("audit log {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("audit log {}: another process writes it", .0.display())]
    Locked(PathBuf),
    /// Something in it was changed, or the disk lost a part of it.
    #[error("audit log {}: {reason}; nothing was written. Keep the file as evidence: move it away to begin a new log", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// It was begun under another name.
    #[error(
        "audit log {}: begun for \"{found}\", but sip.domain makes it \"{expected}\"; move it away to begin a new log",
        path.display()
    )]
    OtherOrigin {
        /// The file.
        path: PathBuf,
        /// Its name.
        found: String,
        /// The name that the configuration gives.
        expected: String,
    },
    /// The log was signed with a key that is no longer there.
    #[error("audit log {}: its signing key {} is gone; put it back, or move the log away to begin a new one", path.display(), key.display())]
    KeyGone {
        /// The log.
        path: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// The key that is configured cannot be read, or is of another kind.
    #[error("audit.signing_key {}: {source}", path.display())]
    ConfiguredKey {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The key beside the log cannot be read or made.
    #[error("audit signing key {}: {source}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// No key can be made for this run.
    #[error("audit log: {0}")]
    NoKey(io::Error),
    /// A thread cannot be started.
    #[error("audit log: no thread: {0}")]
    Thread(io::Error),
}

impl OpenError {
    /// Whether the configuration is to blame, as against what was found on the disk.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::ConfiguredKey { .. } | Self::OtherOrigin { .. } => true,
            Self::File { .. }
            | Self::Locked(_)
            | Self::Damaged { .. }
            | Self::KeyGone { .. }
            | Self::Key { .. }
            | Self::NoKey(_)
            | Self::Thread(_) => false,
        }
    }
}

/// The open log. Dropping it closes it.
pub struct AuditLog {
    queue: Arc<Queue>,
    signer: Arc<Signer>,
    patience: Duration,
    policy: String,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A log that was read, checked and locked, and that nobody writes yet: it has no threads, so that a process can confine
/// itself in between.
pub struct OpenedLog {
    sink: Sink,
    signer: Signer,
    standing: Standing,
    origin: String,
    patience: Duration,
    policy: String,
    backlog_max: usize,
    /// Whether the disk has room for records.
    writable: bool,
}

impl OpenedLog {
    /// The key that verifies checkpoints and receipts, as PEM.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.signer.public().pem()
    }

    /// Starts writing: the log's two threads are made here.
    ///
    /// `on_writable` hears `false` when the disk fails or hangs, at once if it was full when the log was opened, and `true`
    /// when it works again; until then the log counts as writable. Both it and the callbacks of [`AuditLog::submit`] run on a thread of the log and must not
    /// block.
    ///
    /// # Errors
    ///
    /// [`OpenError::Thread`].
    pub fn start(self, on_writable: impl Fn(bool) + Send + 'static) -> Result<AuditLog, OpenError> {
        let Self { sink, signer, standing, origin, patience, policy, backlog_max, writable } = self;
        let (queue, signer) = (Arc::new(Queue::new(backlog_max, policy.clone())), Arc::new(signer));
        if !writable {
            queue.failed();
        }
        let failing = !writable;
        let writer = Writer { queue: queue.clone(), signer: signer.clone(), origin, sink, standing, failing };
        let log =
            AuditLog { queue: queue.clone(), signer: signer.clone(), patience, policy, threads: Mutex::default() };
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(OpenError::Thread)?;
            log.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
            Ok(())
        };
        start("audit-writer", Box::new(move || writer.run()))?;
        start("audit-notary", Box::new(move || writer::run_notary(&queue, &signer, on_writable)))?;
        Ok(log)
    }
}

impl AuditLog {
    /// Reads and checks the existing log, or begins one. Starts no thread; [`OpenedLog::start`] does. Blocks while it
    /// reads.
    ///
    /// # Errors
    ///
    /// Anything that would make the log less than whole: see [`OpenError`]. A disk that has no room for more does not; only
    /// a new log is not begun on it.
    pub fn open(settings: &Settings) -> Result<OpenedLog, OpenError> {
        let origin = format!("{}/reveille-audit", settings.domain);
        let (mut sink, signer, standing) = match &settings.path {
            Some(path) => open_file(path, settings, &origin)?,
            None => (Sink::Memory, key_for_memory(settings.signing_key.as_deref())?, Standing::default()),
        };
        let (patience, policy) = (settings.sync_wait, settings.policy.clone());
        let probed = sink.probe().inspect_err(writer::warn_of);
        let writable = probed.is_ok();
        Ok(OpenedLog { sink, signer, standing, origin, patience, policy, backlog_max: BACKLOG_MAX, writable })
    }

    /// Appends a record. Never blocks on the disk.
    ///
    /// For an erasure `done` gets the receipt, always and once: with `logged: true` when the record is synced, with
    /// `logged: false` after `sync_wait` or when the disk fails, whichever comes first. A record whose disk failed is
    /// kept and written later.
    pub fn submit(&self, job: Box<RecordJob>, done: impl FnOnce(RecordId, Recorded) + Send + 'static) {
        let RecordJob { mut record, receipt } = *job;
        record.policy = Some(self.policy.clone());
        let label = Label::of(&record);
        let line = serde_json::to_string(&record).expect("a record is plain data and becomes JSON");
        let erasure = receipt.map(|job| (job, Box::new(done) as queue::Done));
        if let Err(refused) = self.queue.push(line, label, erasure, self.patience)
            && let Some(waiting) = refused
        {
            writer::answer(Due { waiting, inclusion: None }, &self.signer);
        }
    }

    /// Writes what waits, once, and ends. Blocks while the disk does. Returns how many records could not be written.
    pub fn close(&self) -> usize {
        self.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the audit log panicked");
            }
        }
        self.queue.unwritten()
    }

    /// Records accepted and not yet synced.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.queue.backlog()
    }

    /// Records that found no room and were counted together in one.
    #[must_use]
    pub fn folded(&self) -> u64 {
        self.queue.folded()
    }

    /// Records that came after the end, and are in no log, not even as a number.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Who signs summaries with the log's key.
    #[must_use]
    pub fn notary(&self) -> Notary {
        Notary { signer: Arc::clone(&self.signer), policy: self.policy.clone() }
    }

    /// The key that verifies checkpoints and receipts, as PEM.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        self.signer.public().pem()
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn open_file(path: &Path, settings: &Settings, origin: &str) -> Result<(Sink, Signer, Standing), OpenError> {
    let fault = |error: ContinueError| match error {
        ContinueError::Io(source) => OpenError::File { path: path.to_owned(), source },
        ContinueError::Locked => OpenError::Locked(path.to_owned()),
        ContinueError::Damaged(fault) => {
            let other_key = if fault.kind == FaultKind::Signature { OTHER_KEY } else { "" };
            OpenError::Damaged { path: path.to_owned(), reason: format!("{fault}{other_key}") }
        }
        other @ (ContinueError::LiveGone | ContinueError::PutBack { .. }) => {
            OpenError::Damaged { path: path.to_owned(), reason: other.to_string() }
        }
        ContinueError::OtherOrigin { found, expected } => {
            OpenError::OtherOrigin { path: path.to_owned(), found, expected }
        }
    };
    let mut file = LogFile::open(path, settings.segment_records).map_err(fault)?;
    let is_new = file.is_new().map_err(|error| fault(error.into()))?;
    let signer = match &settings.signing_key {
        Some(configured) => configured_key(configured)?,
        None => own_key(path, is_new)?,
    };
    let standing = file.resume(&signer, origin).map_err(fault)?;
    let public = beside(path, "pub");
    match signer.public().publish(&public) {
        Err(source) if is_new => return Err(OpenError::Key { path: public, source }),
        Err(error) => tracing::warn!(%error, path = %public.display(), "the audit log's public key cannot be written"),
        Ok(()) => {}
    }
    Ok((Sink::File(file), signer, standing))
}

/// The key beside the log, made with it.
fn own_key(log: &Path, log_is_new: bool) -> Result<Signer, OpenError> {
    let path = beside(log, "key");
    match path.try_exists() {
        Ok(true) => load_key(&path),
        Ok(false) if log_is_new => Signer::create(&path).map_err(|source| OpenError::Key { path, source }),
        Ok(false) => Err(OpenError::KeyGone { path: log.to_owned(), key: path }),
        Err(source) => Err(OpenError::Key { path, source }),
    }
}

fn key_for_memory(configured: Option<&Path>) -> Result<Signer, OpenError> {
    configured.map_or_else(|| Signer::generate().map_err(OpenError::NoKey), configured_key)
}

fn configured_key(path: &Path) -> Result<Signer, OpenError> {
    Signer::load(path).map_err(|source| OpenError::ConfiguredKey { path: path.to_owned(), source })
}

fn load_key(path: &Path) -> Result<Signer, OpenError> {
    Signer::load(path).map_err(|source| OpenError::Key { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
