//! Log lines on standard error, for people or for machines.
//!
//! Only our own lines are written. Other crates log what they see, and they see names, addresses and headers of users;
//! what matters of their troubles we say ourselves.

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat, LogLevel};

/// The prefix of our own targets.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Logging was started before.
#[derive(Debug, thiserror::Error)]
#[error("logging runs already")]
pub struct StartError;

/// Starts logging to standard error.
///
/// # Errors
/// It was started before.
pub fn start(log: Log) -> Result<(), StartError> {
    subscriber(log, std::io::stderr).try_init().map_err(|_| StartError)
}

fn subscriber<W>(log: Log, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let ours = Targets::new().with_target(OURS, level(log.level));
    // It would tell on standard error that standard error cannot be written, and panic: a full disk must not end us.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).log_internal_errors(false);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(ours))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{debug, error, info, info_span};

    use super::*;

    #[test]
    fn json_lines_carry_fields_and_spans() {
        let lines = logged(Log { format: LogFormat::Json, level: LogLevel::Info }, || {
            let _span = info_span!("binding", binding = "abc").entered();
            info!(cause = "deleted", "binding erased");
        });
        let line: serde_json::Value = serde_json::from_str(lines.trim()).expect("one JSON object");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "binding erased");
        assert_eq!(line["cause"], "deleted");
        assert_eq!(line["spans"][0]["binding"], "abc");
    }

    #[test]
    fn what_is_below_the_level_is_left_out() {
        let lines = logged(Log { format: LogFormat::Text, level: LogLevel::Warn }, || {
            info!("left out");
            debug!("left out");
            error!(reason = "disk", "kept");
        });
        assert_eq!(lines.lines().count(), 1);
        assert!(lines.contains("ERROR") && lines.contains("kept") && lines.contains("reason=\"disk\""), "{lines}");
    }

    #[test]
    fn other_crates_are_not_heard_at_any_level() {
        let lines = logged(Log { format: LogFormat::Text, level: LogLevel::Trace }, || {
            error!(target: "hickory_resolver", "user.example.com");
            error!(target: "hyper::client", "Authorization: …");
        });
        assert_eq!(lines, "");
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: Log, act: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        tracing::subscriber::with_default(subscriber(log, move || writer.clone()), act);
        let bytes = buffer.0.lock().expect("nobody panics with it").clone();
        String::from_utf8(bytes).expect("log lines are text")
    }
}
