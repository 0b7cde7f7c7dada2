//! A panic in a handler: our bug, answered like any other fault and kept to its one request.
//!
//! The answer is the same for every panic, says nothing of its cause, and ends the connection, since the request may have
//! carried a secret. What the panic says is not looked at: it may quote the request. Its place was told by the hook.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::link::AfterSecret;
use super::problem::MEDIA_TYPE;

/// RFC 9457 §4.2.1: "about:blank" says that there is no more to it than the status.
const BODY: &str = r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#;

/// Where `process.debug_faults` is on, a request asks for a fault with this header.
const FAULT: &str = "reveille-fault";

/// Runs a request, whatever becomes of it.
pub(crate) async fn survive(request: Request, next: Next) -> Response {
    let mut answer = pin!(next.run(request));
    // What the handler shared with others is behind locks whose users do without poisoning; the rest is dropped with it.
    let caught = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
        Ok(Poll::Ready(answer)) => Poll::Ready(Some(answer)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_told_by_the_hook) => Poll::Ready(None),
    });
    match caught.await {
        Some(answer) => answer,
        None => internal_error(),
    }
}

fn internal_error() -> Response {
    tracing::error!("a request ended in a panic");
    let mut response = Response::new(BODY.into());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(AfterSecret);
    response
}

/// Whether a request asks for a panic.
pub(crate) fn wants_panic(headers: &HeaderMap) -> bool {
    headers.get(FAULT).is_some_and(|fault| fault.as_bytes() == b"panic")
}

/// Panics as a bug in a handler would, with a part of the request in its message.
#[expect(clippy::panic, reason = "what the operator asked for with process.debug_faults")]
pub(crate) fn panic_over(body: &[u8]) {
    panic!("asked for by the client: {}", String::from_utf8_lossy(body));
}
