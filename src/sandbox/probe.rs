//! A client that says exactly what it is told to, for showing that the stand-ins refuse it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// An HTTP/2 connection to a stand-in.
pub(crate) struct Probe {
    sender: http2::SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

impl Probe {
    /// Connects to an `https://address` endpoint.
    pub(crate) async fn connect(endpoint: &str, ca_pem: &str) -> Self {
        let stream = tls(endpoint, ca_pem, b"h2").await;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("the stand-in speaks HTTP/2");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        Self { sender, _connection: tasks }
    }

    /// Sends a request; the answer's status and JSON body.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Value), hyper::Error> {
        let response = self.sender.clone().send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}

/// One request over HTTP/1.1, in clear or over TLS.
pub(crate) async fn http1(endpoint: &str, ca_pem: Option<&str>, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
    match ca_pem {
        Some(ca_pem) => over_http1(tls(endpoint, ca_pem, b"http/1.1").await, request).await,
        None => over_http1(tcp(endpoint).await, request).await,
    }
}

async fn over_http1(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> (StatusCode, Value) {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("the stand-in speaks HTTP/1.1");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn tcp(endpoint: &str) -> TcpStream {
    let (_, rest) = endpoint.split_once("://").expect("a URL");
    TcpStream::connect(rest.split('/').next().expect("a first part")).await.expect("the stand-in listens")
}

async fn tls(endpoint: &str, ca_pem: &str, alpn: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("a provider with TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = tcp(endpoint).await;
    let name = ServerName::from(stream.peer_addr().expect("connected").ip());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("the stand-in speaks TLS")
}
