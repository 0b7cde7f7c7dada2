//! The client behind `reveille status`: two requests to a running daemon.

use http::StatusCode;

use super::client::{AskError, Daemon, named, run, stranger};
use super::overview::{Overview, Readyz};
use crate::cli::{Exit, StatusArguments, say};

/// `reveille status`: prints how a daemon is. [`Exit::Unavailable`] if it does not answer or takes no work.
#[must_use]
pub fn status(arguments: &StatusArguments) -> Exit {
    match named(&arguments.daemon).and_then(|daemon| run(ask(&daemon))) {
        Ok(overview) => {
            say(overview.to_string().trim_end());
            if overview.is_ready() { Exit::Success } else { Exit::Unavailable }
        }
        Err(exit) => exit,
    }
}

/// Asks a daemon.
///
/// # Errors
/// Nobody answers, or not to us.
pub(super) async fn ask(daemon: &Daemon) -> Result<Overview, AskError> {
    let both = async {
        let (status, readiness) = daemon.get("/readyz").await?;
        if !matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
            return Err(format!("answered {status} to /readyz"));
        }
        let readiness = Readyz::read(&readiness).ok_or_else(stranger)?;
        let (status, metrics) = daemon.get("/metrics").await?;
        if status != StatusCode::OK {
            return Err(format!("answered {status} to /metrics"));
        }
        Overview::read(readiness, &metrics).ok_or_else(stranger)
    };
    daemon.ask(both).await
}
