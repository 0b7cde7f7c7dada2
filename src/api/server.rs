//! Listeners and connections: TLS, HTTP/1.1 and HTTP/2, with a deadline for each thing a client can be slow at.
//!
//! Every connection has an owner (its listener's loop), a handshake deadline, a header deadline, an idle deadline and a
//! last deadline for leaving. A response that follows a secret ends its connection, so that the buffers which held the
//! secret are freed: whether the client takes part in that or not. This room does not know what the API means.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::handlers::ANSWER_WAIT_MAX;
use super::link::Link;
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
    /// How long a connection that carried a secret stays after its last answer, for a client that takes it and leaves in
    /// order. One round trip does; whoever is silent keeps the secret in our buffers.
    pub(crate) after_secret: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(15),
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            linger: ANSWER_WAIT_MAX.saturating_add(Duration::from_secs(15)),
            after_secret: Duration::from_secs(2),
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
/// HTTP/2 flow control: a stream may be one whole body ahead of us, a connection four.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024;
const FRAME_BYTES_MAX: u32 = 16 * 1024;
const SEND_BUFFER_MAX: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);

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
pub(super) async fn requested(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A connection's place among all and among its source's.
struct Seat {
    source: Source,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
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
    let link = Link::default();
    let service = {
        let (link, router, source) = (link.clone(), TowerToHyperService::new(shared.router.clone()), seat.source);
        service_fn(move |mut request: Request<Incoming>| {
            let call = link.begin(request.version(), !request.body().is_end_stream());
            request.extensions_mut().insert(source);
            let answer = router.call(request);
            async move { Ok::<_, Infallible>(call.answered(answer.await?)) }
        })
    };
    let deadlines = &shared.deadlines;
    let builder = http_builder(http2, deadlines.head);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(tls), service));
    tokio::select! {
        biased;
        _ended = serving.as_mut() => return,
        () = link.misused() => return cut("gave up too many requests"),
        () = link.carried_secret() => {}
        () = requested(&mut stop) => {}
        () = link.idle(deadlines.idle) => {}
    }
    serving.as_mut().graceful_shutdown();
    // HTTP/2 waits for the client to answer a ping before it ends in order, and would do so for as long as keep-alive does.
    tokio::select! {
        biased;
        _ended = serving.as_mut() => {}
        () = link.misused() => cut("gave up too many requests"),
        () = link.silent_after_secret(deadlines.after_secret) => cut("did not leave after a secret"),
        () = sleep(deadlines.linger) => cut("did not finish"),
    }
}

/// A connection is cut by being dropped: what it holds is freed, and overwritten with that.
fn cut(why: &'static str) {
    tracing::debug!(why, "a connection of the API is cut");
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
