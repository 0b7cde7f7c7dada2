//! The mailbox of provider `sandbox`: pushes are posted to it, and whoever plays the phone picks them up.
//!
//! | request | answer |
//! |---|---|
//! | `POST` (any path but `/pushes/…`) with `{"token","kind","payload"}` | 202; 410 for a revoked token; 400 for anything else |
//! | `GET /pushes/{token}?wait=30` | 200 with `{"kind","payload"}` of the oldest push, taken out; 204 if none came in time |

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::certificate::Certificate;
use super::fault::{Fault, Faults};
use super::inbox::Inbox;
use super::server::{self, Peer, Server, Service};
use crate::clock::WallTime;

/// Where pushes are picked up, before the token.
const PUSHES: &str = "/pushes/";
/// How long `GET` waits where it does not say.
const WAIT_DEFAULT: u64 = 25;
/// How long `GET` waits at most.
const WAIT_MAX: u64 = 120;
/// Largest push.
const BODY_MAX: usize = 5120;
/// Longest token.
const TOKEN_MAX: usize = 4096;
/// What `kind` may be.
const KINDS: [&str; 10] = [
    "call",
    "call-ended",
    "missed-call",
    "message",
    "voicemail",
    "expiring",
    "reprovision",
    "test",
    "refresh",
    "proof",
];

/// How a mailbox is set up.
pub struct MailboxOptions {
    /// Where it listens; port 0 for any.
    pub address: SocketAddr,
    /// Over TLS with a certificate of its own, or in clear (on loopback).
    pub tls: bool,
    /// Sees each push that is taken in.
    pub observer: Option<MailboxObserver>,
}

/// Sees each push that is taken in.
pub type MailboxObserver = Box<dyn Fn(&MailboxPush) + Send + Sync>;

impl Default for MailboxOptions {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tls: false, observer: None }
    }
}

/// A push that was posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxPush {
    /// The device's token.
    pub token: String,
    /// Why it was sent.
    pub kind: String,
    /// What it says.
    pub payload: Map<String, Value>,
}

/// A running mailbox; it ends when dropped.
pub struct Mailbox {
    server: Server,
    ca_pem: Option<String>,
    post: Arc<Post>,
}

impl Mailbox {
    /// Starts one.
    ///
    /// # Errors
    /// The address cannot be bound, it is not loopback and TLS is off, or a certificate cannot be made.
    pub async fn start(options: MailboxOptions) -> io::Result<Self> {
        if !options.tls && !options.address.ip().is_loopback() {
            return Err(io::Error::other("a mailbox without TLS listens on loopback only"));
        }
        let certificate = options.tls.then(|| Certificate::make(&[b"http/1.1"])).transpose()?;
        let (tls, ca_pem) = certificate.map(|made| (made.server, made.ca_pem)).unzip();
        let post = Arc::new(Post {
            inbox: Inbox::new(),
            faults: Faults::default(),
            revoked: Mutex::default(),
            observer: options.observer,
        });
        let server = Server::start(options.address, tls, Arc::clone(&post)).await?;
        Ok(Self { server, ca_pem, post })
    }

    /// What stands in an app's `endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/push", self.server.address)
    }

    /// What stands in the file an app's `ca_file` names, if the mailbox uses TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Takes the oldest push, waiting for one if need be.
    pub async fn next_push(&self, within: Duration) -> Option<MailboxPush> {
        self.post.inbox.next(within, |_| true).await
    }

    /// Takes the oldest push to a token, waiting for one if need be.
    pub async fn next_push_to(&self, token: &str, within: Duration) -> Option<MailboxPush> {
        self.post.inbox.next(within, |push| push.token == token).await
    }

    /// The app was removed from the device: the token gets 410.
    pub fn revoke(&self, token: &str, since: WallTime) {
        self.post.revoked.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), since);
    }

    /// Lets `passing` requests through and applies `fault` to the one after them, once what was planned before is done.
    pub fn fail_after(&self, passing: usize, fault: Fault) {
        self.post.faults.plan(passing, fault);
    }

    /// Applies a fault to every request until told otherwise.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.post.faults.last(fault);
    }
}

struct Post {
    inbox: Inbox<MailboxPush>,
    faults: Faults,
    revoked: Mutex<HashMap<String, WallTime>>,
    observer: Option<MailboxObserver>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted {
    token: String,
    kind: String,
    payload: Map<String, Value>,
}

impl Post {
    fn take_in(&self, body: &[u8]) -> Response<Bytes> {
        let refuse = |status, reason: &str| server::json(status, &json!({ "reason": reason }));
        if body.len() > BODY_MAX {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "larger than 5120 bytes");
        }
        let Ok(posted) = serde_json::from_slice::<Posted>(body) else {
            return refuse(StatusCode::BAD_REQUEST, "not an object of token, kind and payload");
        };
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if posted.token.is_empty() || posted.token.len() > TOKEN_MAX || !posted.token.bytes().all(plain) {
            return refuse(StatusCode::BAD_REQUEST, "token: not one");
        }
        if !KINDS.contains(&posted.kind.as_str()) {
            return refuse(StatusCode::BAD_REQUEST, "kind: not one of ours");
        }
        if posted.payload.get("v") != Some(&json!(1)) || posted.payload.get("kind") != Some(&json!(posted.kind)) {
            return refuse(StatusCode::BAD_REQUEST, "payload: v must be 1 and kind the same as outside");
        }
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner).get(&posted.token).copied();
        if let Some(since) = revoked {
            let body = json!({ "reason": "Unregistered", "timestamp": since.unix_millis() });
            return server::json(StatusCode::GONE, &body);
        }
        let Posted { token, kind, payload } = posted;
        let push = MailboxPush { token, kind, payload };
        if let Some(observer) = &self.observer {
            observer(&push);
        }
        self.inbox.put(push);
        server::json(StatusCode::ACCEPTED, &json!({}))
    }

    async fn hand_out(&self, token: &str, query: &str) -> Response<Bytes> {
        let wait = query.split('&').find_map(|pair| pair.strip_prefix("wait=")).map(str::parse::<u64>);
        let Ok(wait) = wait.unwrap_or(Ok(WAIT_DEFAULT)) else {
            return server::json(StatusCode::BAD_REQUEST, &json!({ "reason": "wait: whole seconds" }));
        };
        let within = Duration::from_secs(wait.min(WAIT_MAX));
        match self.inbox.next(within, |push| push.token == token).await {
            Some(push) => server::json(StatusCode::OK, &json!({ "kind": push.kind, "payload": push.payload })),
            None => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
        }
    }
}

impl Service for Post {
    async fn call(&self, request: Request<Bytes>, _peer: &Peer) -> Response<Bytes> {
        let path = request.uri().path();
        match (request.method(), path.strip_prefix(PUSHES)) {
            (&Method::GET, Some(token)) => self.hand_out(token, request.uri().query().unwrap_or("")).await,
            (&Method::POST, None) => self.take_in(request.body()),
            _ => server::json(StatusCode::NOT_FOUND, &json!({ "reason": "POST a push or GET /pushes/{token}" })),
        }
    }

    fn faults(&self, _path: &str) -> &Faults {
        &self.faults
    }

    fn refusal(&self, _path: &str, status: StatusCode, reason: &str) -> Response<Bytes> {
        server::json(status, &json!({ "reason": reason }))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;
    use crate::clock::PATIENCE;
    use crate::sandbox::probe;

    async fn ask(mailbox: &Mailbox, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .expect("a request");
        let (status, body) = probe::http1(&mailbox.endpoint(), mailbox.ca_pem(), request).await;
        (status.as_u16(), body)
    }

    fn push(token: &str) -> String {
        json!({ "token": token, "kind": "test", "payload": { "v": 1, "kind": "test" } }).to_string()
    }

    #[tokio::test]
    async fn a_push_is_picked_up_by_its_token_alone_in_clear_and_over_tls() {
        for tls in [false, true] {
            let mailbox = Mailbox::start(MailboxOptions { tls, ..MailboxOptions::default() }).await.expect("a mailbox");
            assert_eq!(ask(&mailbox, "POST", "/push", &push("one")).await.0, 202);
            assert_eq!(ask(&mailbox, "GET", "/pushes/two?wait=0", "").await, (204, Value::Null));
            let expected = json!({ "kind": "test", "payload": { "v": 1, "kind": "test" } });
            assert_eq!(ask(&mailbox, "GET", "/pushes/one", "").await, (200, expected));
            assert_eq!(ask(&mailbox, "GET", "/pushes/one?wait=0", "").await, (204, Value::Null));
        }
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_push_when_it_comes() {
        let mailbox = Mailbox::start(MailboxOptions::default()).await.expect("a mailbox");
        let push = push("one");
        let waiting = ask(&mailbox, "GET", "/pushes/one?wait=30", "");
        let (got, posted) = tokio::join!(waiting, ask(&mailbox, "POST", "/", &push));
        assert_eq!((got.0, posted.0), (200, 202));
    }

    #[tokio::test]
    async fn what_is_no_push_is_refused() {
        let mailbox = Mailbox::start(MailboxOptions::default()).await.expect("a mailbox");
        for (body, status) in [
            ("{", 400),
            ("{}", 400),
            (r#"{"token":"a","kind":"test","payload":{"v":1,"kind":"test"},"more":1}"#, 400),
            (r#"{"token":"","kind":"test","payload":{"v":1,"kind":"test"}}"#, 400),
            (r#"{"token":"a/b","kind":"test","payload":{"v":1,"kind":"test"}}"#, 400),
            (r#"{"token":"a","kind":"other","payload":{"v":1,"kind":"other"}}"#, 400),
            (r#"{"token":"a","kind":"test","payload":{"v":2,"kind":"test"}}"#, 400),
            (r#"{"token":"a","kind":"test","payload":{"v":1,"kind":"call"}}"#, 400),
            (&format!(r#"{{"token":"{}"}}"#, "x".repeat(6000)), 413),
        ] {
            assert_eq!(ask(&mailbox, "POST", "/push", body).await.0, status, "{body}");
        }
        assert_eq!(ask(&mailbox, "GET", "/pushes/a?wait=long", "").await.0, 400);
        assert_eq!(ask(&mailbox, "PUT", "/push", &push("a")).await.0, 404);
        mailbox.revoke("gone", WallTime::from_unix_millis(7));
        let gone = json!({ "reason": "Unregistered", "timestamp": 7 });
        assert_eq!(ask(&mailbox, "POST", "/push", &push("gone")).await, (410, gone));
        assert!(mailbox.next_push(Duration::ZERO).await.is_none());
        assert_eq!(ask(&mailbox, "POST", "/push", &push("a")).await.0, 202);
        assert_eq!(mailbox.next_push_to("a", PATIENCE).await.map(|push| push.kind), Some("test".to_owned()));
    }

    #[tokio::test]
    async fn it_does_not_listen_in_clear_beyond_loopback() {
        let options = MailboxOptions { address: SocketAddr::from(([0, 0, 0, 0], 0)), ..MailboxOptions::default() };
        assert!(Mailbox::start(options).await.is_err());
    }
}
