//! What the service manager and the operator's signals say to us, and what we say to the service manager.
//!
//! Without a service manager the notifications go nowhere, which is no fault.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::debug;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP: read the certificates again.
    Reload,
    /// SIGTERM or SIGINT: drain and end.
    Stop,
}

/// The signals we listen to.
pub(crate) struct Signals {
    hangup: UnixSignal,
    terminate: UnixSignal,
    interrupt: UnixSignal,
}

/// Has writes beyond the greatest size of a file (`RLIMIT_FSIZE`) fail like those to a full disk instead of ending the
/// process, from now on: what is installed for SIGXFSZ stays when the runtime that did it is gone. Starts no thread.
pub(crate) fn outlive_file_size_limit() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _within = runtime.enter();
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
        }
    }

    /// The next signal that means the end.
    pub(crate) async fn next_stop(&mut self) -> Signal {
        loop {
            if self.next().await == Signal::Stop {
                return Signal::Stop;
            }
        }
    }
}

/// Whether the service manager listens on an abstract Unix socket, which is no file.
pub(crate) fn is_abstract() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| socket.as_encoded_bytes().starts_with(b"@"))
}

/// Everything is served.
pub(crate) fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// SIGHUP was received.
pub(crate) fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(since) => notify(&[NotifyState::Reloading, since]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// The drain has begun.
pub(crate) fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(problem) = sd_notify::notify(states) {
        debug!(%problem, "the service manager was not told");
    }
}

/// Tells the service manager that we live, twice in each of its intervals.
pub(crate) struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
    /// Starts it if the unit asks for it. It goes on through the drain.
    #[expect(clippy::disallowed_methods, reason = "owned by the guard that ends it")]
    pub(crate) fn start(stop: &watch::Sender<bool>) -> Self {
        let Some(interval) = sd_notify::watchdog_enabled() else { return Self(None) };
        let mut stopping = stop.subscribe();
        let pause = (interval / 2).max(Duration::from_millis(100));
        Self(Some(tokio::spawn(async move {
            loop {
                notify(&[NotifyState::Watchdog]);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stopping.wait_for(|stop| *stop) => break,
                }
            }
        })))
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        if let Some(task) = self.0 {
            task.abort();
        }
    }
}
