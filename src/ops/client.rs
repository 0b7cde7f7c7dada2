//! Asking a running daemon: where it is, what it is shown, and one request to it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::trust;
use crate::cli::{self, Exit, OpsArguments, complain};
use crate::config::{self, OpsListen};

/// How long a daemon may take for everything one command asks.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer read; a page of metrics has some 60 KiB, a page of calls at most 300.
const ANSWER_MAX: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The URL is not one of a daemon.
    #[error("{0}: must be a URL such as http://127.0.0.1:9464 or unix:/run/reveille/ops.sock")]
    Url(String),
    /// A file that was named cannot be used.
    #[error("{0}")]
    File(String),
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
            AskError::NotServed | AskError::File(_) | AskError::Unavailable { .. } => Self::Unavailable,
        }
    }
}

/// A daemon's operators' endpoints, and what is shown there.
pub(super) struct Daemon {
    url: String,
    way: Way,
    /// The value of `Authorization`.
    authorization: Option<HeaderValue>,
}

enum Way {
    Tcp { host: String, port: u16, tls: Option<Arc<ClientConfig>> },
    Unix(PathBuf),
}

impl Daemon {
    /// The one that was named, or that a configuration names, or the default.
    ///
    /// # Errors
    /// It is no URL of a daemon, a file cannot be used, or the configuration serves nothing.
    pub(super) fn of(arguments: &OpsArguments, ops: &config::Ops) -> Result<Self, AskError> {
        let (url, own) = match &arguments.ops {
            Some(url) => (url.clone(), None),
            None => (url_of(ops)?, ops.tls.as_ref().map(|files| files.certificate.as_path())),
        };
        let way = Way::to(&url, || trust::client_config(arguments, own).map_err(AskError::File))?;
        let authorization = arguments.token_file.as_deref().map(authorization).transpose()?;
        Ok(Self { url, way, authorization })
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
        let no_way = |error: std::io::Error| format!("cannot connect: {error}");
        let (status, text) = match &self.way {
            Way::Unix(socket) => {
                self.fetch(UnixStream::connect(socket).await.map_err(no_way)?, "localhost", path).await
            }
            Way::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(no_way)?;
                match tls {
                    None => self.fetch(stream, host, path).await,
                    Some(config) => {
                        let name = ServerName::try_from(host.clone()).map_err(|_| "has no usable name".to_owned())?;
                        let connector = TlsConnector::from(Arc::clone(config));
                        self.fetch(connector.connect(name, stream).await.map_err(no_way)?, host, path).await
                    }
                }
            }
        }?;
        match status {
            StatusCode::UNAUTHORIZED => Err(
                "wants to know who asks: --token-file with the token of ops.token_sha256, or --certificate and --key"
                    .to_owned(),
            ),
            status => Ok((status, text)),
        }
    }

    async fn fetch<S>(&self, stream: S, host: &str, path: &str) -> Result<(StatusCode, String), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let broken = |error: hyper::Error| format!("broke off: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut request = Request::get(path).header(HOST, host);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| "cannot be asked".to_owned())?;
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
}

impl Way {
    fn to(url: &str, tls: impl FnOnce() -> Result<Arc<ClientConfig>, AskError>) -> Result<Self, AskError> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let base: Uri = url.parse().map_err(|_| AskError::Url(url.to_owned()))?;
        let (tls, port) = match base.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(tls()?), 443),
            _ => return Err(AskError::Url(url.to_owned())),
        };
        let host = base.host().ok_or_else(|| AskError::Url(url.to_owned()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self::Tcp { host, port: base.port_u16().unwrap_or(port), tls })
    }
}

fn authorization(file: &Path) -> Result<HeaderValue, AskError> {
    let token = cli::read_secret("token", Some(file)).map_err(|error| AskError::File(error.to_string()))?;
    let field = Zeroizing::new([b"Bearer ", token.as_slice()].concat());
    let mut value = HeaderValue::from_bytes(&field)
        .map_err(|_| AskError::File(format!("{}: is no token on one line", file.display())))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What is said of an answer that is not ours.
pub(super) fn stranger() -> String {
    "does not answer like a Reveille".to_owned()
}

/// The daemon that was named, or that a configuration names, or the default.
///
/// # Errors
/// It cannot be asked; that is said already.
pub(super) fn named(arguments: &OpsArguments) -> Result<Daemon, Exit> {
    let ops = match &arguments.config {
        Some(file) => cli::load(file)?.ops,
        None => config::Ops { listen: vec![OpsListen::Tcp(config::OPS_LISTEN)], ..config::Ops::default() },
    };
    Daemon::of(arguments, &ops).map_err(|error| told(&error))
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

/// Where a daemon with this section is asked: its Unix socket, which wants nothing shown, or else its first address.
///
/// # Errors
/// There is none.
pub(super) fn url_of(ops: &config::Ops) -> Result<String, AskError> {
    let socket = ops.listen.iter().find(|place| matches!(place, OpsListen::Unix(_)));
    match socket.or(ops.listen.first()).ok_or(AskError::NotServed)? {
        OpsListen::Unix(path) => Ok(format!("unix:{}", path.display())),
        OpsListen::Tcp(first) => {
            let mut address = *first;
            if address.ip().is_unspecified() {
                let v4 = address.is_ipv4();
                address.set_ip(if v4 { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
            }
            Ok(format!("{}://{address}", if ops.tls.is_some() { "https" } else { "http" }))
        }
    }
}
