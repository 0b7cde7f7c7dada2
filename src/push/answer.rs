//! What the answers of all providers have in common. Their texts end up in logs and verdicts, so they are tamed here.

use std::time::Duration;

use http::{StatusCode, header};

use super::channel::Reply;

/// Longest word for a fault that we repeat; the longest known one has 35 letters.
const WORD_MAX: usize = 48;
/// Longest Retry-After we repeat; beyond it the provider is simply away.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// A provider's word for a fault, if it is one: letters and `_`. Anything else could break a log line, or be the token, which
/// the other end knows, too.
pub(crate) fn word(text: &str) -> String {
    let is_word = text.len() <= WORD_MAX && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if is_word { text.to_owned() } else { String::new() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_word_is_repeated() {
        for known in ["ExpiredProviderToken", "THIRD_PARTY_AUTH_ERROR", "invalid_grant"] {
            assert_eq!(word(known), known);
        }
        for other in ["00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0", "a\r\nb", "no word", "é"] {
            assert_eq!(word(other), "", "{other}");
        }
    }
}
