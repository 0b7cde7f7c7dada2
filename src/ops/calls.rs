//! The stories of calls for operators: as JSON at `/calls`, and as text by `reveille calls`.
//!
//! Both ends of the conversation are here, so that they cannot come to differ. Free of personal data, as stories are.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::client::{AskError, Daemon, named, run, stranger};
use crate::cli::{CallsArguments, Exit, complain, say};
use crate::engine::ids::CallUuid;
use crate::engine::story::{Moment, Story};

/// Calls told at once, the newest first. Older ones can be asked for by their id.
pub const CALLS_MAX: usize = 100;

/// Asks all shards for their stories, of one call or of all; at most [`CALLS_MAX`], the newest first. `None`: one of them
/// has no time.
pub type AskStories =
    Box<dyn Fn(Option<CallUuid>) -> Pin<Box<dyn Future<Output = Option<Vec<Story>>> + Send>> + Send + Sync>;

/// What `/calls` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// The newest first.
    calls: Vec<Call>,
}

/// What `/calls/{call}` tells of each instance that was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Call {
    call: String,
    instance: String,
    began: String,
    over: bool,
    outcome: Option<String>,
    reason: Option<String>,
    why: String,
    story: Vec<Step>,
    story_omitted: u32,
    /// Left out by a call that stands for itself alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    repeated: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    ms: u64,
    at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The newest [`CALLS_MAX`] of the shards' stories, each shard's the newest first.
pub(crate) fn newest(mut stories: Vec<Story>) -> Vec<Story> {
    // Ids break ties, so that the same stories always stand in the same order.
    stories.sort_by_key(|story| (std::cmp::Reverse(story.began), story.call, story.instance));
    stories.truncate(CALLS_MAX);
    stories
}

impl From<Vec<Story>> for Calls {
    fn from(stories: Vec<Story>) -> Self {
        Self { calls: stories.iter().map(Call::from).collect() }
    }
}

impl From<&Story> for Call {
    fn from(story: &Story) -> Self {
        let step = |moment: &Moment| Step {
            event: moment.step.as_str().to_owned(),
            reason: moment.step.reason().map(str::to_owned),
            ms: u64::try_from(moment.after.as_millis()).unwrap_or(u64::MAX),
            at: story.at(moment).rfc3339(),
        };
        Self {
            call: story.call.to_string(),
            instance: story.instance.to_string(),
            began: story.began.rfc3339(),
            over: story.is_over(),
            outcome: story.outcome.map(|outcome| outcome.as_str().to_owned()),
            reason: story.reason().map(str::to_owned),
            why: story.why(),
            story: story.moments.iter().map(step).collect(),
            story_omitted: story.omitted,
            repeated: story.repeated,
        }
    }
}

impl Calls {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: Vec<String> = self.calls.iter().map(ToString::to_string).collect();
        f.write_str(&blocks.join("\n\n"))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.outcome.as_deref().unwrap_or(if self.over { "over" } else { "under way" });
        writeln!(f, "{} {}: {}", self.began, self.call, self.why)?;
        write!(f, "  {state}, instance {}", self.instance)?;
        for step in &self.story {
            write!(f, "\n  {:>5}.{:03} s  {}", step.ms / 1000, step.ms % 1000, step.event)?;
            if let Some(reason) = &step.reason {
                write!(f, " ({reason})")?;
            }
        }
        if self.story_omitted > 0 {
            write!(f, "\n  {} steps are left out", self.story_omitted)?;
        }
        if self.repeated > 0 {
            write!(f, "\n  {} more calls ended alike", self.repeated)?;
        }
        Ok(())
    }
}

/// `reveille calls`: prints what became of the last calls, or of one. [`Exit::Unavailable`] if the daemon does not answer
/// or does not remember the call.
#[must_use]
pub fn calls(arguments: &CallsArguments) -> Exit {
    match named(&arguments.daemon).and_then(|daemon| run(ask(&daemon, arguments.call))) {
        Ok(calls) => tell(&calls, arguments),
        Err(exit) => exit,
    }
}

pub(super) fn tell(calls: &Calls, arguments: &CallsArguments) -> Exit {
    if arguments.json {
        say(serde_json::to_string(calls).expect("texts and numbers always become JSON"));
    }
    match (arguments.call, calls.is_empty()) {
        (Some(call), true) => {
            complain(format_args!(
                "{call}: no such call is remembered; calls are forgotten two minutes after their end"
            ));
            return Exit::Unavailable;
        }
        (None, true) if !arguments.json => say("no calls"),
        _ if !arguments.json => say(calls),
        _ => {}
    }
    Exit::Success
}

/// Asks a daemon for one call, or for the last ones.
///
/// # Errors
/// Nobody answers, or not to us.
pub(super) async fn ask(daemon: &Daemon, call: Option<uuid::Uuid>) -> Result<Calls, AskError> {
    let path = call.map_or_else(|| "/calls".to_owned(), |call| format!("/calls/{call}"));
    let exchange = async {
        match daemon.get(&path).await? {
            (StatusCode::OK, text) => serde_json::from_str(&text).map_err(|_| stranger()),
            (StatusCode::NOT_FOUND, _) if call.is_some() => Ok(Calls { calls: Vec::new() }),
            (status, _) => Err(format!("answered {status} to {path}")),
        }
    };
    daemon.ask(exchange).await
}
