//! The HTTPS interface for apps and their backends: `docs/api.md`, `/openapi.json`.
//!
//! A room of its own because it is where strangers' bytes become commands: it authenticates, parses, asks one engine and
//! maps the answer. It decides nothing about an instance, keeps no state of one, opens no plaintext listener, and never
//! lets a value that a client sent into a log or an error.

mod account;
mod administration;
mod body;
mod caller_key;
mod faults;
mod hand_over;
mod handlers;
mod jwt;
mod link;
mod openapi;
mod preferences;
mod problem;
mod push_proof;
mod push_targets;
mod rights;
mod secret;
mod server;
mod sources;
mod tasks;
mod tenants;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::Method;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub use self::jwt::{JwtKey, JwtKeyError};
pub use self::server::bind;
pub use self::tenants::{Tenant, Tenants};
pub use self::tls::{Tls, TlsError};

use self::link::AfterSecret;
use self::problem::{LogLine, Problem};
use self::server::Deadlines;
use self::sources::{ConnectionCount, HandOverRate, Source};
use self::tasks::{Tasks, report};
use crate::audit_log::Notary;
use crate::engine::account::TenantId;
use crate::engine::ids::ShardId;
use crate::engine::input::Command;
use crate::engine::output::Answer;
use crate::engine::placement::Placement;
use crate::engine::policy::Policy;
use crate::vault::ProcessKey;

/// Whoever carries commands to the engines.
pub trait Ask: Send + Sync + 'static {
    /// Puts one command to one shard and waits for its answer; a shard that cannot take it answers `Refused(Busy)`.
    fn ask(&self, shard: ShardId, command: Command) -> impl Future<Output = Answer> + Send;
}

/// What the API needs to know to serve.
pub struct ApiConfig {
    /// The operator's decisions: leases, apps and limits are used here.
    pub policy: Arc<Policy>,
    /// Which shard owns what.
    pub placement: Placement,
    /// Who may ask.
    pub tenants: Tenants,
    /// Signs what an administrator's order did.
    pub notary: Notary,
    /// Makes fingerprints of the bodies that JWTs were used with.
    pub key: Arc<ProcessKey>,
    /// Whether a request may ask for a fault of ours: `process.debug_faults`.
    pub debug_faults: bool,
}

/// What every request sees.
pub(crate) struct Api<A> {
    pub(crate) ask: A,
    pub(crate) policy: Arc<Policy>,
    pub(crate) placement: Placement,
    pub(crate) tenants: Tenants,
    pub(crate) notary: Notary,
    pub(crate) key: Arc<ProcessKey>,
    pub(crate) rate: HandOverRate<Source>,
    pub(crate) tenant_rate: HandOverRate<TenantId>,
    pub(crate) failed_administrators: HandOverRate<Source>,
    pub(crate) bodies: Semaphore,
    pub(crate) deadlines: Deadlines,
    /// What goes on although its client leaves: one for each hand-over, one a shard for each order of an administrator.
    pub(crate) tasks: Tasks,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) debug_faults: bool,
}

/// Serves the API on `listeners` (see [`bind`]) until `stop` turns true; then accepts nothing more and lets running
/// requests finish. The task ends when the last connection has.
pub fn serve<A: Ask>(
    config: ApiConfig,
    listeners: Vec<TcpListener>,
    ask: A,
    tls: &Tls,
    stop: &watch::Receiver<bool>,
) -> JoinHandle<()> {
    serve_within(Deadlines::default(), config, listeners, ask, tls, stop)
}

#[expect(clippy::disallowed_methods, reason = "handed to the owner, who awaits it")]
fn serve_within<A: Ask>(
    deadlines: Deadlines,
    config: ApiConfig,
    listeners: Vec<TcpListener>,
    ask: A,
    tls: &Tls,
    stop: &watch::Receiver<bool>,
) -> JoinHandle<()> {
    let ApiConfig { policy, placement, tenants, notary, key, debug_faults } = config;
    let limits = &policy.limits;
    let connections = usize::try_from(limits.api_connections).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let sources = Arc::new(ConnectionCount::new(limits.flows_per_source));
    let rate = HandOverRate::new(limits.posts_per_source);
    let tenant_rate = HandOverRate::new(limits.posts_per_tenant);
    let failed_administrators = HandOverRate::new(limits.posts_per_source);
    let bodies = Semaphore::new(body::BODIES_AT_ONCE);
    let tasks = Tasks::default();
    let api = Api {
        ask,
        policy,
        placement,
        tenants,
        notary,
        key,
        rate,
        tenant_rate,
        failed_administrators,
        bodies,
        deadlines,
        tasks: tasks.clone(),
        stop: stop.clone(),
        debug_faults,
    };
    let shared = Arc::new(server::Shared {
        router: router(api),
        acceptor: TlsAcceptor::from(tls.config()),
        sources,
        connections: Arc::new(Semaphore::new(connections)),
        deadlines,
    });
    let mut loops: JoinSet<()> = JoinSet::new();
    for listener in listeners {
        loops.spawn(server::listen(listener, Arc::clone(&shared), stop.clone()));
    }
    tokio::spawn(async move {
        while let Some(ended) = loops.join_next().await {
            report(ended);
        }
        tasks.finish().await;
    })
}

fn router<A: Ask>(api: Api<A>) -> Router {
    // Whatever is answered to these two, the request may have carried a secret.
    let secrets = Router::new()
        .route("/v1/instances", post(handlers::hand_over::<A>))
        .route("/v1/instances/{id}", axum::routing::patch(handlers::rectify::<A>))
        .layer(middleware::map_response(mark_secret));
    Router::new()
        .merge(secrets)
        .route("/v1/instances/{id}", get(handlers::show::<A>).delete(handlers::erase::<A>))
        .route("/v1/instances/{id}/refresh", post(handlers::refresh::<A>))
        .route("/v1/instances/{id}/foreground", post(handlers::foreground::<A>))
        .route("/v1/instances/{id}/restrict", post(rights::restrict::<A>).delete(rights::resume::<A>))
        .route("/v1/instances/{id}/data", get(handlers::data::<A>))
        .route("/v1/instances/{id}/calls/{call}", get(handlers::call::<A>))
        .route("/v1/instances/{id}/calls/{call}/decline", post(handlers::decline::<A>))
        .route("/v1/instances/{id}/test", post(handlers::begin_test::<A>))
        .route("/v1/instances/{id}/test/{test}", get(handlers::test::<A>).post(handlers::test_arrived::<A>))
        .route("/v1/instances/{id}/push-proof", post(push_proof::push_proof::<A>))
        .route(
            "/v1/instances/{id}/trace",
            post(traces::consent::<A>).get(traces::read::<A>).delete(traces::withdraw::<A>),
        )
        .route("/v1/tenants/self/instances/{id}/trace", get(traces::read_as_tenant::<A>))
        .route("/v1/tenants/self/instances", delete(administration::erase_all::<A>))
        .route("/v1/tenants/self/instances/{id}", delete(administration::erase_one::<A>))
        .route("/openapi.json", get(handlers::description))
        .fallback(handlers::no_such_path)
        .layer(middleware::from_fn(faults::survive))
        .layer(middleware::from_fn(finish))
        .with_state(Arc::new(api))
}

async fn mark_secret(mut response: Response) -> Response {
    response.extensions_mut().insert(AfterSecret);
    response
}

/// A method's name, if it is one that everybody uses: the others are what a client made up.
fn known(method: &Method) -> &'static str {
    const KNOWN: [Method; 6] = [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT, Method::HEAD];
    const NAMES: [&str; 6] = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD"];
    KNOWN.iter().position(|known| known == method).map_or("another", |place| NAMES[place])
}

/// The last step of every request: a wrong method gets its problem, and our log gets its own text. No address, id or
/// value of a request is written.
async fn finish(method: Method, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let carried = !request.body().is_end_stream();
    let mut response = next.run(request).await;
    if response.status() == http::StatusCode::METHOD_NOT_ALLOWED && response.extensions().get::<LogLine>().is_none() {
        // The router adds the Allow header outside of this layer.
        let marks = std::mem::take(response.extensions_mut());
        response = Problem::wrong_method().into_response();
        response.extensions_mut().extend(marks);
    }
    if carried && (path.is_none() || response.status() == http::StatusCode::METHOD_NOT_ALLOWED) {
        // A secret that was sent to the wrong place.
        response.extensions_mut().insert(AfterSecret);
    }
    let status = response.status().as_u16();
    let path = path.as_ref().map_or("-", MatchedPath::as_str);
    let method = known(&method);
    match response.extensions().get::<LogLine>() {
        Some(LogLine { kind, text }) if response.status().is_server_error() => {
            tracing::warn!(method, path, status, problem = kind.name(), why = %text, "request refused");
        }
        Some(LogLine { kind, text }) => {
            tracing::debug!(method, path, status, problem = kind.name(), why = %text, "request refused");
        }
        None => tracing::debug!(method, path, status, "request answered"),
    }
    response
}
