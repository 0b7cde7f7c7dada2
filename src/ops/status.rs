//! The client behind `reveille status`: two requests to a running daemon.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::overview::{Overview, Readyz};
use crate::cli::{self, Exit, StatusArguments, complain, say};
use crate::config;

/// How long a daemon may take for both answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer read; a page of metrics has some 60 KiB.
const ANSWER_MAX: usize = 4 << 20;

/// Why there is no overview.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The URL is not one of a daemon.
    #[error("{0}: must be a URL such as http://127.0.0.1:9464")]
    Url(String),
    /// `ops.listen` is empty.
    #[error("ops.listen is empty, so there is nothing to ask")]
    NotServed,
    /// Nobody answers there.
    #[error("{at}: {problem}")]
    Unavailable {
        /// Where we asked.
        at: String,
        /// What happened instead of an answer.
        problem: String,
    },
}

/// `reveille status`: prints how a daemon is. [`Exit::Unavailable`] if it does not answer or takes no work.
#[must_use]
pub fn status(arguments: &StatusArguments) -> Exit {
    let url = match (&arguments.ops, &arguments.config) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(file)) => match cli::load(file) {
            Ok(settings) => url_of(&settings.ops.listen),
            Err(exit) => return exit,
        },
        (None, None) => url_of(&[config::OPS_LISTEN]),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::Unavailable;
        }
    };
    match url.and_then(|url| runtime.block_on(ask(&url))) {
        Ok(overview) => {
            say(&overview);
            if overview.is_ready() { Exit::Success } else { Exit::Unavailable }
        }
        Err(error) => {
            complain(&error);
            match error {
                StatusError::Url(_) => Exit::Usage,
                StatusError::NotServed | StatusError::Unavailable { .. } => Exit::Unavailable,
            }
        }
    }
}

/// The URL to ask a daemon with these `ops.listen` addresses at.
///
/// # Errors
/// There is none.
pub(super) fn url_of(listen: &[SocketAddr]) -> Result<String, StatusError> {
    let first = listen.first().ok_or(StatusError::NotServed)?;
    let mut address = *first;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    Ok(format!("http://{address}"))
}

/// Asks the daemon whose operators' endpoints are at `url`.
///
/// # Errors
/// The URL is wrong or nobody answers.
pub async fn ask(url: &str) -> Result<Overview, StatusError> {
    let unavailable = |problem: String| StatusError::Unavailable { at: url.to_owned(), problem };
    let base: Uri = url.parse().map_err(|_| StatusError::Url(url.to_owned()))?;
    let (Some("http"), Some(authority)) = (base.scheme_str(), base.authority()) else {
        return Err(StatusError::Url(url.to_owned()));
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let stranger = || "does not answer like a Reveille".to_owned();
    let both = async {
        let (status, readiness) = fetch(host, port, authority.as_str(), "/readyz").await?;
        if !matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
            return Err(format!("answered {status} to /readyz"));
        }
        let readiness = Readyz::read(&readiness).ok_or_else(stranger)?;
        let (status, metrics) = fetch(host, port, authority.as_str(), "/metrics").await?;
        if status != StatusCode::OK {
            return Err(format!("answered {status} to /metrics"));
        }
        Overview::read(readiness, &metrics).ok_or_else(stranger)
    };
    let answered = timeout(PATIENCE, both).await.unwrap_or_else(|_| Err("does not answer in time".to_owned()));
    answered.map_err(unavailable)
}

async fn fetch(host: &str, port: u16, authority: &str, path: &str) -> Result<(StatusCode, String), String> {
    let stream = TcpStream::connect((host, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    let broken = |error: hyper::Error| format!("broke off: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new());
    let request = request.map_err(|_| "cannot be asked".to_owned())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|_| "sent an answer that is cut off or too long".to_owned())?;
        let text =
            String::from_utf8(body.to_bytes().into()).map_err(|_| "sent an answer that is no text".to_owned())?;
        Ok((head.status, text))
    };
    // The connection has to be driven until the answer is here; nobody misses it afterwards.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}
