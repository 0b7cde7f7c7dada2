//! What the answers of all providers have in common. Their texts end up in logs and verdicts, so they are tamed here.

use std::time::Duration;

use http::{StatusCode, header};

use super::channel::Reply;

/// Characters we keep of a provider's own word for a fault.
const WORD_MAX: usize = 64;
/// Longest Retry-After we repeat; beyond it the provider is simply away.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// The letters, digits and `_` of a provider's word; nothing that could break a log line.
pub(crate) fn word(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(WORD_MAX).collect()
}

/// Status and word of a refusal.
pub(crate) fn fault(status: StatusCode, word: &str) -> String {
    if word.is_empty() { status.as_str().to_owned() } else { format!("{} {word}", status.as_str()) }
}

/// The Retry-After of an answer, in its form as seconds. The date form needs the provider's clock and ours to agree.
pub(crate) fn retry_after(reply: &Reply) -> Option<Duration> {
    let seconds = reply.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}
