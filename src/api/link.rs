//! What a connection's requests tell the task that drives it: how many there are, and whether a secret came with one.
//!
//! A room of its own because both ends of it are tasks: each request of HTTP/2 has one. Refuses to touch the connection.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Version};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// HTTP/2: requests of one connection that their client gave up before the answer; above it the connection is cut.
const GIVEN_UP_MAX: u64 = 100;

/// Marks a response whose request may have carried a secret.
#[derive(Clone, Copy)]
pub(crate) struct AfterSecret;

/// One connection's requests.
#[derive(Clone, Default)]
pub(super) struct Link(Arc<watch::Sender<Traffic>>);

#[derive(Default)]
struct Traffic {
    begun: u64,
    open: u64,
    given_up: u64,
    /// A request that may have carried one is over.
    secret: bool,
}

/// A request without its answer: dropped before it has one, its client gave it up.
pub(super) struct Call {
    link: Link,
    version: Version,
    /// Whether it may have carried one. Of a request that was given up nobody says so, and its body may have.
    secret: bool,
    given_up: bool,
}

impl Link {
    /// A request begins, with a body or without.
    pub(super) fn begin(&self, version: Version, has_body: bool) -> Call {
        self.0.send_modify(|traffic| {
            traffic.begun += 1;
            traffic.open += 1;
        });
        Call { link: self.clone(), version, secret: has_body, given_up: true }
    }

    /// Waits until a request that may have carried a secret is over.
    pub(super) async fn carried_secret(&self) {
        self.until(|traffic| traffic.secret).await;
    }

    /// Waits until, after a secret, no request has been open for so long.
    pub(super) async fn silent_after_secret(&self, long: Duration) {
        let mut traffic = self.0.subscribe();
        loop {
            let _ = traffic.wait_for(|traffic| traffic.secret && traffic.open == 0).await;
            if timeout(long, traffic.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until no request has begun for so long.
    pub(super) async fn idle(&self, long: Duration) {
        let mut seen = 0;
        loop {
            sleep(long).await;
            let begun = self.0.borrow().begun;
            if begun == seen {
                return;
            }
            seen = begun;
        }
    }

    /// Waits until its client has given up more requests than one may.
    pub(super) async fn misused(&self) {
        self.until(|traffic| traffic.given_up > GIVEN_UP_MAX).await;
    }

    async fn until(&self, test: impl FnMut(&Traffic) -> bool) {
        // It cannot be closed while this holds it.
        let _ = self.0.subscribe().wait_for(test).await;
    }
}

impl Call {
    /// The answer, which goes out. HTTP/1.1 says in it that the connection ends; HTTP/2 says so in a GOAWAY, which the
    /// connection's own task sends.
    pub(super) fn answered(mut self, mut response: Response) -> Response {
        self.given_up = false;
        self.secret = response.extensions_mut().remove::<AfterSecret>().is_some();
        if self.secret && self.version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.link.0.send_modify(|traffic| {
            traffic.open -= 1;
            traffic.given_up += u64::from(self.given_up);
            traffic.secret |= self.secret;
        });
    }
}
