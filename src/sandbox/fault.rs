//! Ways in which a provider fails, planned ahead by whoever tests a client.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;

use crate::clock::WallTime;

/// One way to fail.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Refuse with this status and the provider's word for it.
    Answer {
        /// The HTTP status.
        status: u16,
        /// APNs: `reason`; FCM: `errorCode`; OAuth: `error`.
        reason: String,
        /// The Retry-After header: seconds, or an HTTP date.
        retry_after: Option<String>,
    },
    /// Do it, but only after this long.
    Delay(Duration),
    /// Do it, but only once the gate is open.
    Hold(Gate),
    /// Never answer.
    Silence,
    /// Leave the connection open and let it fall silent, PINGs included.
    Freeze,
    /// Cut the connection and do nothing.
    CutBefore,
    /// Do it and cut the connection instead of answering.
    CutAfter,
    /// GOAWAY: neither this stream nor any later one of the connection is processed; earlier ones are answered.
    GoAway,
    /// Refuse the stream (RST_STREAM with REFUSED_STREAM), not the request.
    RefuseStream,
    /// Do nothing, and reset the stream with INTERNAL_ERROR.
    ResetStream,
}

/// What a test opens to let a request go on; clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Lets every request behind it go on, for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub(crate) async fn passed(&self) {
        // The sender is in our hands, so the wait ends by nothing but its value.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Fault {
    /// A refusal without Retry-After.
    #[must_use]
    pub fn answer(status: u16, reason: &str) -> Self {
        Self::Answer { status, reason: reason.to_owned(), retry_after: None }
    }

    /// A refusal that says when to come again.
    #[must_use]
    pub fn answer_retry_after(status: u16, reason: &str, seconds: u64) -> Self {
        Self::Answer { status, reason: reason.to_owned(), retry_after: Some(seconds.to_string()) }
    }

    /// A refusal that says at which moment to come again, as an HTTP date.
    #[must_use]
    pub fn answer_retry_at(status: u16, reason: &str, at: WallTime) -> Self {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(at.unix_millis()));
        Self::Answer { status, reason: reason.to_owned(), retry_after: Some(date) }
    }
}

/// What a stand-in will do to the requests to come.
#[derive(Default)]
pub(crate) struct Faults {
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    /// Each after so many requests that pass, in order.
    next: VecDeque<(usize, Fault)>,
    /// When nothing is planned.
    lasting: Option<Fault>,
}

impl Faults {
    /// Lets `passing` requests through and applies `fault` to the one after them, once what was planned before is done.
    pub(crate) fn plan(&self, passing: usize, fault: Fault) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).next.push_back((passing, fault));
    }

    /// Applies `fault` to every request until told otherwise.
    pub(crate) fn last(&self, fault: Option<Fault>) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).lasting = fault;
    }

    /// The fate of the request that arrives now.
    pub(crate) fn draw(&self) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        match plan.next.front_mut() {
            Some((0, _)) => plan.next.pop_front().map(|(_, fault)| fault),
            Some((passing, _)) => {
                *passing -= 1;
                plan.lasting.clone()
            }
            None => plan.lasting.clone(),
        }
    }
}
