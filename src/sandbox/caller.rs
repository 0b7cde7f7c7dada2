//! Someone at the PBX who calls: what a call is told, and what is heard of it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::agent::{CallEvent, CallId};
use super::registrar::{Command, canned_sdp};
use crate::clock::Instant;
use crate::sip::StatusCode;

/// News of one call that nobody has taken yet. A call makes fewer, as only changes count; what exceeds it is dropped.
const NEWS_QUEUED: usize = 64;

/// How a call is made.
#[derive(Clone)]
pub struct CallPlan {
    /// The caller's name.
    pub name: String,
    /// The caller's number: the user part of From.
    pub number: String,
    /// The session description offered.
    pub sdp: Bytes,
    /// Unanswered for so long, the caller hangs up.
    pub give_up: Duration,
}

impl Default for CallPlan {
    fn default() -> Self {
        Self {
            name: "Bob".to_owned(),
            number: "bob".to_owned(),
            sdp: canned_sdp("bob", 40_000),
            give_up: Duration::from_secs(60),
        }
    }
}

/// Something heard of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Since the INVITE.
    pub at: Duration,
    /// What.
    pub what: Heard,
}

/// What the caller hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The other side is at work (100).
    Trying,
    /// It rings there (180), or something like it.
    Ringing(StatusCode),
    /// Someone answered.
    Answered {
        /// The callee's session description.
        sdp: Bytes,
    },
    /// Nobody will: the final answer. The call is over.
    Refused {
        /// The status.
        code: StatusCode,
        /// Status and phrase as they came.
        phrase: String,
    },
    /// No final answer came at all. The call is over.
    Lost,
    /// The talk is over.
    Ended {
        /// Who hung up.
        by: Side,
    },
}

/// The two ends of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who called.
    Caller,
    /// Who was called.
    Callee,
}

/// One call, in the hands of whoever placed it.
pub struct Caller {
    call: CallId,
    began: Instant,
    news: mpsc::Receiver<News>,
    commands: mpsc::Sender<Command>,
}

impl Caller {
    /// The next thing heard; `None` after the end.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// When the INVITE went out.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Hangs up: CANCEL while it rings, BYE once it is answered.
    pub async fn hang_up(&self) {
        // A PBX that is gone has hung up already.
        let _ = self.commands.send(Command::HangUp(self.call)).await;
    }

    pub(super) fn id(&self) -> CallId {
        self.call
    }
}

/// The PBX's side of a call.
pub(super) struct Line {
    began: Instant,
    give_up_at: Option<Instant>,
    news: mpsc::Sender<News>,
}

pub(super) fn pair(call: CallId, give_up: Duration, now: Instant, commands: mpsc::Sender<Command>) -> (Line, Caller) {
    let (sender, news) = mpsc::channel(NEWS_QUEUED);
    let line = Line { began: now, give_up_at: Some(now + give_up), news: sender };
    (line, Caller { call, began: now, news, commands })
}

impl Line {
    /// Passes on what happened; whether the call is over with it.
    pub(super) fn tell(&mut self, event: CallEvent, now: Instant) -> bool {
        let Some((what, over)) = heard(event) else { return false };
        if over || matches!(what, Heard::Answered { .. }) {
            self.give_up_at = None;
        }
        // Nobody listens, or not in time: the call goes on without them.
        let _ = self.news.try_send(News { at: now.saturating_since(self.began), what });
        over
    }

    /// When the caller loses patience.
    pub(super) fn due(&self) -> Option<Instant> {
        self.give_up_at
    }

    /// Whether the caller loses patience now; says so once.
    pub(super) fn gives_up(&mut self, now: Instant) -> bool {
        let tired = self.give_up_at.is_some_and(|due| due <= now);
        if tired {
            self.give_up_at = None;
        }
        tired
    }

    /// The caller has hung up and waits for nothing any more.
    pub(super) fn hung_up(&mut self) {
        self.give_up_at = None;
    }
}

fn heard(event: CallEvent) -> Option<(Heard, bool)> {
    Some(match event {
        CallEvent::Progress(StatusCode::TRYING) => (Heard::Trying, false),
        CallEvent::Progress(code) => (Heard::Ringing(code), false),
        CallEvent::Answered { sdp } => (Heard::Answered { sdp }, false),
        CallEvent::Refused { code, phrase } => (Heard::Refused { code, phrase }, true),
        CallEvent::Lost => (Heard::Lost, true),
        CallEvent::HungUp => (Heard::Ended { by: Side::Callee }, true),
        CallEvent::Over => (Heard::Ended { by: Side::Caller }, true),
        CallEvent::Offered { .. } | CallEvent::Cancelled { .. } | CallEvent::Confirmed => return None,
    })
}
