//! How the log names an instance or a call, for whoever has its id: as JSON at `/log-names/{id}`, and as text by
//! `reveille log-names`.
//!
//! Only ids are named, which nobody can guess. For whatever else the log hides (a number, an address) there is no
//! answer: it would tell whose lines are whose to anyone who tries all numbers.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::client::{AskError, Daemon, named, run, stranger};
use crate::cli::{Exit, LogNamesArguments, complain, say};
use crate::engine::ids::{CallUuid, InstanceId};
use crate::telemetry;

/// What `/log-names/{id}` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogNames {
    /// The oldest first; none of a day whose key is destroyed, or on which no line named anything.
    names: Vec<NameOfADay>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NameOfADay {
    /// The date in UTC.
    day: String,
    /// What stands in that day's lines.
    name: String,
}

impl LogNames {
    /// The names of an instance or a call. `None`: the text is the id of neither.
    pub(super) fn of(text: &str) -> Option<Self> {
        let names = telemetry::log_names(&as_logged(text)?);
        Some(Self { names: names.into_iter().map(|(day, name)| NameOfADay { day, name }).collect() })
    }
}

impl fmt::Display for LogNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.names.iter().map(|it| format!("{} {}", it.day, it.name)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// An id in the one form in which it goes into the log.
fn as_logged(text: &str) -> Option<String> {
    let instance = InstanceId::parse(text.as_bytes()).map(|id| id.to_string());
    instance.or_else(|| uuid::Uuid::try_parse(text).ok().map(|call| CallUuid(call).to_string()))
}

/// `reveille log-names`: prints how an instance or a call is named in the log, a line for each day. [`Exit::Unavailable`] if
/// the daemon does not answer.
#[must_use]
pub fn log_names(arguments: &LogNamesArguments) -> Exit {
    let Some(id) = as_logged(&arguments.id) else {
        complain("neither the id of an instance nor the UUID of a call");
        return Exit::Usage;
    };
    match named(&arguments.daemon).and_then(|daemon| run(ask(&daemon, &id))) {
        Ok(found) if found.names.is_empty() => {
            complain("this daemon has not logged anything about anybody yet");
            Exit::Success
        }
        Ok(found) => {
            say(found);
            Exit::Success
        }
        Err(exit) => exit,
    }
}

/// Asks a daemon.
///
/// # Errors
/// Nobody answers, or not to us.
pub(super) async fn ask(daemon: &Daemon, id: &str) -> Result<LogNames, AskError> {
    let exchange = async {
        match daemon.get(&format!("/log-names/{id}")).await? {
            (StatusCode::OK, text) => serde_json::from_str(&text).map_err(|_| stranger()),
            // The id stays out of what is said.
            (status, _) => Err(format!("answered {status} to /log-names")),
        }
    };
    daemon.ask(exchange).await
}
