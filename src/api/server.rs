//! Listeners and connections: TLS, HTTP/1.1 and HTTP/2, with a deadline for each thing a client can be slow at.
//!
//! Every connection has an owner (its listener's loop), a handshake deadline, a header deadline, an idle deadline and a
//! last deadline for leaving. A response that follows a secret ends its connection, so that the buffers which held the
//! secret are freed. This room does not know what the API means.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::sources::{ConnectionCount, Counted, Source};
use super::tasks::{Tasks, report};
use crate::net::bind_stream;
use crate::vault::scrubbed_task;

/// How long a client may take for each thing.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    /// The TLS handshake.
    pub(crate) handshake: Duration,
    /// A whole HTTP/1.1 request head; also how long such a connection may idle.
    pub(crate) head: Duration,
    /// A whole body.
    pub(crate) body: Duration,
    /// A connection without a new request for this long is closed.
    pub(crate) idle: Duration,
    /// How long a connection that is being closed may take to finish what it began: the longest wait for an engine's
    /// answer and then some.
    pub(crate) linger: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(15),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            linger: Duration::from_secs(75),
        }
    }
}

/// How long to wait after the system could not give us a connection (file descriptors used up).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/1.1: most of a request head.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// HTTP/2: requests of one connection at once.
const STREAMS_MAX: u32 = 16;
/// HTTP/2: streams that a client reset before we took them up; above it the connection ends ("rapid reset").
const RESETS_PENDING_MAX: usize = 16;
/// HTTP/2: resets of ours that a client's errors may provoke before the connection ends.
const RESETS_PROVOKED_MAX: usize = 64;
/// HTTP/2: requests of one connection that their client gave up before the answer; above it the connection is cut.
const GIVEN_UP_MAX: u64 = 100;
/// HTTP/2 flow control: a stream may be one whole body ahead of us, a connection four.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024;
const FRAME_BYTES_MAX: u32 = 16 * 1024;
const SEND_BUFFER_MAX: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Marks a response whose request may have carried a secret.
#[derive(Clone, Copy)]
pub(crate) struct AfterSecret;

/// What all listeners share.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) sources: Arc<ConnectionCount>,
    /// `limits.api_connections`, for all listeners together.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) deadlines: Deadlines,
}

/// Binds the API's addresses, ready for a runtime (non-blocking). An IPv6 address listens for IPv6 alone.
///
/// # Errors
/// An address cannot be bound; the error names it.
pub fn bind(addresses: &[SocketAddr]) -> std::io::Result<Vec<std::net::TcpListener>> {
    let bind = |address: &SocketAddr| {
        bind_stream(*address).map_err(|error| std::io::Error::new(error.kind(), format!("{address}: {error}")))
    };
    addresses.iter().map(bind).collect()
}

/// Serves one listener until `stop` turns true (or its sender is gone), then lets its connections finish.
pub(crate) async fn listen(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let stopping = stop.clone();
    loop {
        tokio::select! {
            biased;
            () = requested(&mut stop) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let source = Source::from(peer.ip());
                    // No room: the connection is closed by being dropped, before a handshake has cost anything.
                    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else { continue };
                    let Some(counted) = shared.sources.enter(source) else { continue };
                    let seat = Seat { source, _permit: permit, _counted: counted };
                    // A secret may go through its hands.
                    let task = connection(stream, seat, Arc::clone(&shared), stopping.clone());
                    connections.spawn(scrubbed_task(task));
                }
                Err(error) => {
                    tracing::warn!(%error, "the API cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

/// Ready once the end is requested, or nobody is left who could request it.
async fn requested(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A connection's place among all and among its source's.
struct Seat {
    source: Source,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

/// What a connection's requests tell the task that drives it.
#[derive(Default)]
struct Link {
    requests: AtomicU64,
    close: Notify,
    given_up: AtomicU64,
    cut: Notify,
}

/// A request without its answer: dropped before it has one, its client gave it up.
struct Unanswered(Option<Arc<Link>>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(link) = self.0.take() else { return };
        if link.given_up.fetch_add(1, Ordering::Relaxed) >= GIVEN_UP_MAX {
            link.cut.notify_one();
        }
    }
}

async fn connection(stream: TcpStream, seat: Seat, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match timeout(shared.deadlines.handshake, shared.acceptor.accept(stream)).await {
        Ok(Ok(tls)) => drive(tls, &seat, &shared, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

async fn drive(tls: TlsStream<TcpStream>, seat: &Seat, shared: &Shared, mut stop: watch::Receiver<bool>) {
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let link = Arc::new(Link::default());
    let service = {
        let (link, router, source) = (Arc::clone(&link), TowerToHyperService::new(shared.router.clone()), seat.source);
        service_fn(move |mut request: Request<Incoming>| {
            link.requests.fetch_add(1, Ordering::Relaxed);
            let version = request.version();
            request.extensions_mut().insert(source);
            let (answer, link) = (router.call(request), Arc::clone(&link));
            let unanswered = Unanswered(Some(Arc::clone(&link)));
            async move {
                let mut response = answer.await?;
                unanswered.answered();
                close_after_secret(&mut response, version, &link);
                Ok::<_, Infallible>(response)
            }
        })
    };
    let builder = http_builder(http2, shared.deadlines.head);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(tls), service));
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            _ended = serving.as_mut() => return,
            () = link.close.notified() => break,
            () = link.cut.notified() => {
                tracing::debug!("a connection of the API gave up too many requests and is cut");
                return;
            }
            () = requested(&mut stop) => break,
            () = sleep(shared.deadlines.idle) => {
                let requests = link.requests.load(Ordering::Relaxed);
                if requests == seen {
                    break;
                }
                seen = requests;
            }
        }
    }
    serving.as_mut().graceful_shutdown();
    if timeout(shared.deadlines.linger, serving).await.is_err() {
        tracing::debug!("a connection of the API did not finish and is cut");
    }
}

/// HTTP/1.1 says so in the response; HTTP/2 in a GOAWAY, which the connection's own task sends.
fn close_after_secret(response: &mut Response, version: Version, link: &Link) {
    if response.extensions_mut().remove::<AfterSecret>().is_some() {
        if version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        link.close.notify_one();
    }
}

fn http_builder(http2: bool, head: Duration) -> auto::Builder<Tasks> {
    // HTTP/2 runs each stream as a task: at most STREAMS_MAX, and they end with their connection.
    let builder = auto::Builder::new(Tasks::default());
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES_MAX as usize)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_PROVOKED_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}
