//! HTTP for a test: one request, one connection, the answer as JSON or text.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::process::PATIENCE;

/// One server and how to reach it.
pub(crate) struct Server {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// All of them, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON; `null` where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The value of a metric in this answer, summed over the series with `label` (`name="value"`; empty: all); `None` if none
    /// is shown yet.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (key, labels) = series.split_once('{').unwrap_or((series, ""));
            (key == name && labels.contains(label)).then(|| value.parse::<f64>().ok()).flatten()
        });
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

impl Server {
    /// A server on 127.0.0.1 that speaks plain HTTP.
    pub(crate) fn plain(port: u16) -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), tls: None }
    }

    /// A server on 127.0.0.1 that must show a certificate from this authority.
    pub(crate) fn secure(port: u16, ca_file: &Path) -> Self {
        let config = client_config(ca_file);
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), tls: Some(TlsConnector::from(Arc::new(config))) }
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    ///
    /// When nobody listens, the certificate is a stranger's or the answer is cut off.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        bearer: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        if let Some(token) = bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))?;
        let stream = TcpStream::connect(self.address).await?;
        match &self.tls {
            None => send(stream, request).await,
            Some(tls) => {
                let name = ServerName::from(self.address.ip());
                send(tls.connect(name, stream).await?, request).await
            }
        }
    }
}

/// TLS without HTTP, for what no HTTP library would say. The server is asked for by `name` and need not bear it.
pub(crate) fn tls_stream(
    stream: std::net::TcpStream,
    ca_file: &Path,
    name: &str,
) -> StreamOwned<ClientConnection, std::net::TcpStream> {
    let mut config = client_config(ca_file);
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a sound configuration"), stream)
}

/// Takes every certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ED25519]
    }
}

fn client_config(ca_file: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca_file).expect("the authority was written at the start of the test");
    roots.add(ca).expect("the authority is one");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection works while it is polled, so it runs beside the question and ends with it.
    let question = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut headers: Vec<_> = response.headers().iter().map(header).collect();
        headers.sort();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, headers, text: String::from_utf8_lossy(&body).into_owned() })
    };
    tokio::pin!(question);
    tokio::select! {
        answer = &mut question => answer,
        // The server may close as soon as it has answered; then what it said is already here.
        _ = connection => question.await,
    }
}
