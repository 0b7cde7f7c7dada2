//! Asking a running daemon: where it is, and one request to it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::{self, Exit, complain};
use crate::config;

/// How long a daemon may take for everything one command asks.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer read; a page of metrics has some 60 KiB, a page of calls at most 300.
const ANSWER_MAX: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
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

impl From<&AskError> for Exit {
    fn from(error: &AskError) -> Self {
        match error {
            AskError::Url(_) => Self::Usage,
            AskError::NotServed | AskError::Unavailable { .. } => Self::Unavailable,
        }
    }
}

/// A daemon's operators' endpoints.
pub(super) struct Daemon {
    url: String,
    authority: http::uri::Authority,
}

impl Daemon {
    /// The one whose endpoints are at `url`.
    ///
    /// # Errors
    /// It is no URL of a daemon.
    pub(super) fn at(url: &str) -> Result<Self, AskError> {
        let base: Uri = url.parse().map_err(|_| AskError::Url(url.to_owned()))?;
        match (base.scheme_str(), base.authority()) {
            (Some("http"), Some(authority)) => Ok(Self { url: url.to_owned(), authority: authority.clone() }),
            _ => Err(AskError::Url(url.to_owned())),
        }
    }

    /// Runs `exchange`, which may take only so long; what it says went wrong becomes the daemon's fault.
    ///
    /// # Errors
    /// It takes too long or goes wrong.
    pub(super) async fn ask<T>(&self, exchange: impl Future<Output = Result<T, String>>) -> Result<T, AskError> {
        let answered = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("does not answer in time".to_owned()));
        answered.map_err(|problem| AskError::Unavailable { at: self.url.clone(), problem })
    }

    /// Status and text of `GET path`.
    ///
    /// # Errors
    /// What happened instead of an answer, in words.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, String), String> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        fetch(host, self.authority.port_u16().unwrap_or(80), self.authority.as_str(), path).await
    }
}

/// What is said of an answer that is not ours.
pub(super) fn stranger() -> String {
    "does not answer like a Reveille".to_owned()
}

/// The URL that was named, or that a configuration names, or the default.
///
/// # Errors
/// The configuration cannot be used, or serves nothing; that is said already.
pub(super) fn named(ops: Option<&str>, file: Option<&Path>) -> Result<String, Exit> {
    let url = match (ops, file) {
        (Some(url), _) => Ok(url.to_owned()),
        (None, Some(file)) => url_of(&cli::load(file)?.ops.listen),
        (None, None) => url_of(&[config::OPS_LISTEN]),
    };
    url.map_err(|error| told(&error))
}

/// Runs what a command asks of a daemon.
///
/// # Errors
/// There is no runtime, or no answer; that is said already.
pub(super) fn run<T>(exchange: impl Future<Output = Result<T, AskError>>) -> Result<T, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        complain(format_args!("cannot start: {error}"));
        Exit::Unavailable
    })?;
    runtime.block_on(exchange).map_err(|error| told(&error))
}

fn told(error: &AskError) -> Exit {
    complain(error);
    Exit::from(error)
}

/// The URL to ask a daemon with these `ops.listen` addresses at.
///
/// # Errors
/// There is none.
pub(super) fn url_of(listen: &[SocketAddr]) -> Result<String, AskError> {
    let first = listen.first().ok_or(AskError::NotServed)?;
    let mut address = *first;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    Ok(format!("http://{address}"))
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
