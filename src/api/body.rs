//! Reading a request's body: bounded in size and time, wiped after use, refused with the place of the fault.
//!
//! Errors name the member, line and column, and what was expected there; never what was found, which may be a password
//! in the wrong member.

use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::error::Category;
use tokio::sync::Semaphore;
use zeroize::{Zeroize, Zeroizing};

use super::problem::{Kind, Problem};

/// Longest body.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;
/// How much of a body that is too long is read and thrown away, so that its sender finishes and sees the 413 instead of
/// a reset connection.
const DISCARDED_BYTES_MAX: usize = 256 * 1024;
/// Bodies read at once. Above it a request is answered `busy`: 16 MiB of buffers is what we are ready to hold.
pub(crate) const BODIES_AT_ONCE: usize = 1024;
/// Longest path of a member that an error repeats.
const PATH_CHARS_MAX: usize = 120;

/// What a body may call itself.
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/merge-patch+json"];

/// Reads a whole JSON body, which has to arrive `within` this time; the buffer is wiped when dropped.
pub(crate) async fn read(
    request: Request,
    bodies: &Semaphore,
    within: Duration,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let Ok(_permit) = bodies.try_acquire() else {
        return Err(Problem::busy("too many bodies are being read"));
    };
    let (head, body) = request.into_parts();
    check_media_type(&head.headers)?;
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match tokio::time::timeout(within, collect(body, declared)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(
            Kind::InvalidRequest,
            format!("The body did not arrive within {} seconds.", within.as_secs_f32()),
            "slow body",
        )),
    }
}

/// Parses a body that [`read`] returned. What borrows from it stays in the buffer that is wiped.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        misfit(error.inner(), &path)
    })?;
    json.end().map_err(|error| misfit(&error, ""))?;
    Ok(value)
}

/// The problem for a JSON error at `path`, without any value of the body.
pub(crate) fn misfit(error: &serde_json::Error, path: &str) -> Problem {
    let path = if path == "." { String::new() } else { printable(path) };
    let what = match error.classify() {
        Category::Syntax => format!("this is not JSON: {}", without_place(&error.to_string())),
        Category::Eof => "the JSON ends too early".to_owned(),
        Category::Io => "the body cannot be read".to_owned(),
        Category::Data => expected(&error.to_string()),
    };
    let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
    let detail = format!("{place}{what} (line {}, column {})", error.line(), error.column());
    let problem = Problem::new(Kind::InvalidRequest, detail, "malformed body").at_line(error.line(), error.column());
    if path.is_empty() { problem } else { problem.at_path(path) }
}

/// What serde wanted, without what it found: everything up to the last ", expected" may quote the body.
fn expected(message: &str) -> String {
    let message = without_place(message);
    // These two quote names of our own only.
    for ours in ["missing field `", "duplicate field `"] {
        if message.starts_with(ours) {
            return message.to_owned();
        }
    }
    let unknown = message.starts_with("unknown field `");
    match message.rsplit_once(", expected ") {
        Some((_, wanted)) if unknown => format!("unknown member, expected {wanted}"),
        Some((_, wanted)) => format!("expected {}", in_json_words(wanted)),
        None if unknown => "unknown member".to_owned(),
        None => "the value does not fit".to_owned(),
    }
}

/// Serde speaks of our types; whoever reads the error only knows JSON.
fn in_json_words(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" => "a whole number, not negative and not too large",
        _ if wanted.starts_with("struct ") => "an object",
        "a sequence" => "a list",
        _ => wanted,
    }
}

fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(text, _)| text)
}

fn printable(path: &str) -> String {
    path.chars().filter(|character| !character.is_control()).take(PATH_CHARS_MAX).collect()
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail| Err(Problem::new(Kind::InvalidRequest, detail, "unusable media type or encoding"));
    let essence =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(|text| text.split(';').next());
    if !essence.is_some_and(|essence| MEDIA_TYPES.iter().any(|known| essence.trim().eq_ignore_ascii_case(known))) {
        return refuse("Send the body as JSON, with \"Content-Type: application/json\".");
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            refuse("Send the body as it is, without Content-Encoding.")
        }
        _ => Ok(()),
    }
}

async fn collect(mut body: axum::body::Body, declared: Option<usize>) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // One allocation: a buffer that grows leaves copies of what it held.
    let room = declared.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let mut received = 0usize;
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::new(Kind::InvalidRequest, "The body broke off.", "the body broke off");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received <= room {
            bytes.extend_from_slice(&data);
        }
        wipe(data);
        if received > room && received.max(declared.unwrap_or(0)) > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if received > room {
        let detail = format!("A body may have {BODY_BYTES_MAX} bytes at most.");
        return Err(Problem::new(Kind::TooLarge, detail, "body too large"));
    }
    Ok(bytes)
}

/// Overwrites a frame where nobody else holds its memory; the rest is freed with the connection.
fn wipe(data: Bytes) {
    if let Ok(mut own) = data.try_into_mut() {
        own.as_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its type matters")]
        inner: Inner,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its type matters")]
        number: u8,
    }

    fn detail(json: &str) -> serde_json::Value {
        use axum::response::IntoResponse;
        let response = parse::<Outer>(json.as_bytes()).expect_err("a problem").into_response();
        let body = response.into_body().collect();
        let bytes = futures_now(body).to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// The body of a problem is in memory: its future is ready at once.
    fn futures_now<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(Ok(value)) => value,
            std::task::Poll::Ready(Err(error)) => unreachable!("{error:?}"),
            std::task::Poll::Pending => unreachable!("a full body is ready"),
        }
    }

    #[test]
    fn an_unknown_member_is_named_with_its_path_and_place() {
        let problem = detail("{\"inner\": {\"number\": 1,\n \"nubmer\": 2}}");
        assert_eq!(problem["path"], "inner.nubmer");
        assert_eq!(problem["line"], 2);
        assert_eq!(problem["detail"], "inner.nubmer: unknown member, expected `number` (line 2, column 9)");
    }

    #[test]
    fn a_value_in_the_wrong_place_is_never_repeated() {
        for wrong in [
            "{\"inner\": {\"number\": \"CANARY\"}}",
            "{\"inner\": {\"number\": \"CANARY, expected CANARY at line 3\"}}",
            "{\"inner\": \"CANARY\"}",
            "\"CANARY\"",
            "{\"inner\": {\"number\": 1}} CANARY",
            "{\"inner\": CANARY}",
        ] {
            let text = detail(wrong).to_string();
            assert!(!text.contains("CANARY"), "{text}");
        }
        assert_eq!(
            detail("{\"inner\": {\"number\": \"CANARY\"}}")["detail"],
            "inner.number: expected a whole number, not negative and not too large (line 1, column 29)"
        );
        assert_eq!(detail("{\"inner\": {}}")["detail"], "inner: missing field `number` (line 1, column 12)");
    }
}
