//! `GET /metrics`, `/healthz`, `/readyz`, `/calls` and `/log-names`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::access::{Access, Caller};
use super::calls::{AskStories, Calls};
use super::listener::{Connection, Listener};
use super::log_names::LogNames;
use crate::engine::ids::CallUuid;
use crate::telemetry::{Meters, Readiness};

/// Connections at once for one listener; a further one is closed. A scraper, a probe and an operator need three.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take, the wait for a further request included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live, whatever it does; afterwards scrapers open a new one.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// The longest request head. Probes send a few hundred bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Pause after `accept` has failed, so that a full file-descriptor table is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the shards may take to tell their stories.
const STORIES_PATIENCE: Duration = Duration::from_secs(3);
/// How often histograms are sorted in and gauges of others are read.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

const PATHS: &str = "/metrics, /healthz, /readyz, /calls, /calls/{call} and /log-names/{id} are here\n";
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is told.
pub struct Endpoints {
    /// For `/metrics`.
    pub meters: Arc<Meters>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
    /// Reads into the meters what nobody pushes, before each scrape and every few seconds. Must not block.
    pub refresh: Box<dyn Fn(&Meters) + Send + Sync>,
    /// For `/calls`.
    pub stories: AskStories,
    /// Who may ask.
    pub access: Access,
}

/// Serves until `stop` turns true or its sender is gone; then all connections are closed. Without listeners it still
/// keeps the meters up.
pub async fn serve(endpoints: Endpoints, listeners: Vec<Listener>, mut stop: watch::Receiver<bool>) {
    let endpoints = Arc::new(endpoints);
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, Arc::clone(&endpoints)));
    }
    let mut upkeep = interval(UPKEEP_INTERVAL);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = upkeep.tick() => {
                (endpoints.refresh)(&endpoints.meters);
                endpoints.meters.keep_up();
            }
            Some(Err(_)) = loops.join_next() => warn!("a listener of the operators' endpoints panicked"),
        }
    }
    // Every listener and connection is gone when this returns, and a Unix socket's file with it.
    loops.shutdown().await;
}

async fn accept(listener: Listener, endpoints: Arc<Endpoints>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                while connections.try_join_next().is_some() {}
                if connections.len() < CONNECTIONS_MAX {
                    connections.spawn(connection(stream, Arc::clone(&endpoints)));
                }
            }
            Err(error) => {
                warn!(kind = %error.kind(), "cannot accept connections to the operators' endpoints");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(connection: Connection, endpoints: Arc<Endpoints>) {
    match (connection, &endpoints.access.tls) {
        (Connection::Unix(stream), _) => http(stream, Caller::Local, endpoints).await,
        (Connection::Tcp(stream), None) => http(stream, Caller::Anybody, endpoints).await,
        (Connection::Tcp(stream), Some(tls)) => {
            let handshake = TlsAcceptor::from(tls.current()).accept(stream);
            let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, handshake).await else { return };
            // One that leads to no client CA has failed the handshake.
            let certified = stream.get_ref().1.peer_certificates().is_some();
            http(stream, if certified { Caller::Certified } else { Caller::Anybody }, endpoints).await;
        }
    }
}

async fn http<S>(stream: S, caller: Caller, endpoints: Arc<Endpoints>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let endpoints = Arc::clone(&endpoints);
        async move { Ok::<_, Infallible>(respond(&request, caller, &endpoints).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // However it ends, it is the peer's business: we owe nobody anything here.
    let _ = timeout(CONNECTION_MAX, served).await;
}

async fn respond<B>(request: &Request<B>, caller: Caller, endpoints: &Endpoints) -> Response<Full<Bytes>> {
    const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let path = request.uri().path();
    let admitted = endpoints.access.admits(caller, request.headers());
    if !admitted && !matches!(path, "/healthz" | "/readyz") {
        return unauthorized();
    }
    let (call, named) = (path.strip_prefix("/calls/"), path.strip_prefix("/log-names/"));
    if call.or(named).is_none() && !matches!(path, "/metrics" | "/healthz" | "/readyz" | "/calls") {
        return answer(StatusCode::NOT_FOUND, TEXT, PATHS);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/metrics" => {
            (endpoints.refresh)(&endpoints.meters);
            answer(StatusCode::OK, METRICS, endpoints.meters.render())
        }
        "/readyz" => ready(admitted, endpoints),
        // That we answer is the answer.
        "/healthz" => answer(StatusCode::OK, TEXT, "ok\n"),
        _ => match named {
            Some(id) => respond_log_names(id),
            None => respond_calls(call, endpoints).await,
        },
    }
}

fn unauthorized() -> Response<Full<Bytes>> {
    let what =
        "show the token of ops.token_sha256 (Authorization: Bearer TOKEN) or a certificate of ops.client_ca_file\n";
    let mut refusal = answer(StatusCode::UNAUTHORIZED, TEXT, what);
    refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refusal
}

/// Whoever has shown nothing learns whether we take work, and not why.
fn ready(admitted: bool, endpoints: &Endpoints) -> Response<Full<Bytes>> {
    let mut state = endpoints.readiness.state();
    if !admitted {
        state.notes.clear();
    }
    let status = if state.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, JSON, serde_json::to_string(&state).expect("a flag and texts always become JSON"))
}

/// `/calls`, or `/calls/{call}`.
async fn respond_calls(call: Option<&str>, endpoints: &Endpoints) -> Response<Full<Bytes>> {
    let call = match call.map(uuid::Uuid::try_parse) {
        Some(Ok(call)) => Some(CallUuid(call)),
        Some(Err(_)) => return answer(StatusCode::BAD_REQUEST, TEXT, "a call's id is a UUID\n"),
        None => None,
    };
    let Ok(Some(stories)) = timeout(STORIES_PATIENCE, (endpoints.stories)(call)).await else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "busy\n");
    };
    let status = if call.is_some() && stories.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    let body = serde_json::to_string(&Calls::from(stories)).expect("texts and numbers always become JSON");
    answer(status, JSON, body)
}

/// `/log-names/{id}`.
fn respond_log_names(id: &str) -> Response<Full<Bytes>> {
    let Some(names) = LogNames::of(id) else {
        return answer(StatusCode::BAD_REQUEST, TEXT, "the id of an instance or the UUID of a call is wanted\n");
    };
    answer(StatusCode::OK, JSON, serde_json::to_string(&names).expect("texts always become JSON"))
}

fn answer(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
