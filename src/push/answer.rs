//! What the answers of all providers have in common. Their texts end up in logs and verdicts, so they are tamed here.

use std::time::{Duration, UNIX_EPOCH};

use http::{StatusCode, header};

use super::channel::Reply;
use crate::clock::WallTime;

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

/// The Retry-After of an answer (RFC 9110 §10.2.3). A date is measured against the provider's own `Date`, where there is
/// one, since its clock and ours need not agree; else against `now`.
pub(crate) fn retry_after(reply: &Reply, now: WallTime) -> Option<Duration> {
    let text = reply.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let theirs = reply.headers.get(header::DATE).and_then(|value| date(value.to_str().ok()?));
    let since = theirs.unwrap_or_else(|| Duration::from_millis(now.unix_millis()));
    Some(date(text)?.saturating_sub(since).min(RETRY_AFTER_MAX))
}

/// An HTTP date in any of its three forms, since 1970.
fn date(text: &str) -> Option<Duration> {
    httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

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

    #[test]
    fn a_retry_after_is_read_in_seconds_and_as_a_date_by_the_providers_own_clock() {
        const NOW: WallTime = WallTime::from_unix_millis(784_111_777_000);
        let after = |retry_after: &'static str, date: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(retry_after));
            date.map(|date| headers.insert("date", HeaderValue::from_static(date)));
            retry_after_of(headers, NOW)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(after("7", None), seconds(7));
        assert_eq!(after(" 7 ", None), seconds(7));
        assert_eq!(after("99999999999999999999", None), Some(RETRY_AFTER_MAX));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:38 GMT", None), seconds(1));
        assert_eq!(after("Sunday, 06-Nov-94 08:49:40 GMT", None), seconds(3));
        assert_eq!(after("Sun Nov  6 08:49:47 1994", None), seconds(10));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:47 GMT", Some("Sun, 06 Nov 1994 08:49:45 GMT")), seconds(2));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:00 GMT", None), seconds(0), "it is past");
        assert_eq!(after("Tue, 06 Nov 2114 08:49:00 GMT", None), Some(RETRY_AFTER_MAX));
        for unreadable in ["", "soon", "-1", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(after(unreadable, None), None, "{unreadable}");
        }
    }

    fn retry_after_of(headers: HeaderMap, now: WallTime) -> Option<Duration> {
        retry_after(&Reply { status: StatusCode::SERVICE_UNAVAILABLE, headers, body: bytes::Bytes::new() }, now)
    }
}
