//! A small HTTP client: one request, one connection, JSON both ways.
//!
//! What a stand-in needs to talk to the API and to a mailbox, and nothing more: no redirects, no cookies, no pool.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::trust::{Trust, TrustError};

/// The longest answer that is read.
const ANSWER_MAX: usize = 1 << 20;
/// How long connecting may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to ask, and whom to believe there.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) base: Uri,
    pub(crate) trust: Trust,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

/// One question.
pub(crate) struct Question<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    /// The bearer token.
    pub(crate) bearer: Option<&'a str>,
    /// JSON; wiped after it was sent, since it may hold a password.
    pub(crate) body: Option<Zeroizing<Vec<u8>>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// `Null` where the body is empty or no JSON.
    pub(crate) body: Value,
}

/// Why nothing came back. Holds nothing of what was sent.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The URL names no host.
    #[error("the URL must be http:// or https:// with a host")]
    Url,
    /// Nobody can be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No connection, or the certificate is not to be believed.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// The exchange broke.
    #[error("the exchange with {host} broke: {why}")]
    Exchange {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("{host} did not answer in time")]
    Timeout {
        /// Host and port.
        host: String,
    },
}

impl Site {
    /// Asks.
    pub(crate) async fn ask(&self, question: Question<'_>) -> Result<Reply, HttpsError> {
        let host = self.base.host().ok_or(HttpsError::Url)?;
        let https = match self.base.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(HttpsError::Url),
        };
        let port = self.base.port_u16().unwrap_or(if https { 443 } else { 80 });
        let authority = format!("{host}:{port}");
        let request = self.request(question, &authority)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = connect(bare, port, &authority).await?;
        let exchange = async {
            if https {
                let stream = self.handshake(bare, stream, &authority).await?;
                exchange(stream, request, &authority).await
            } else {
                exchange(stream, request, &authority).await
            }
        };
        timeout(self.patience, exchange).await.map_err(|_| HttpsError::Timeout { host: authority.clone() })?
    }

    fn request(&self, question: Question<'_>, authority: &str) -> Result<Request<Full<Bytes>>, HttpsError> {
        let path = format!("{}{}", self.base.path().trim_end_matches('/'), question.path);
        let mut request = Request::builder()
            .method(question.method)
            .uri(path)
            .header(HOST, authority)
            .header(ACCEPT, "application/json");
        if let Some(token) = question.bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| HttpsError::Url)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = match question.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from_owner(body)
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|_| HttpsError::Url)
    }

    async fn handshake(
        &self,
        host: &str,
        stream: TcpStream,
        authority: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, HttpsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| HttpsError::Url)?;
        let config = self.trust.client_config(&[b"http/1.1"])?;
        let connecting = TlsConnector::from(config).connect(name, stream);
        connecting.await.map_err(|error| HttpsError::Connect { host: authority.to_owned(), why: error.to_string() })
    }
}

async fn connect(host: &str, port: u16, authority: &str) -> Result<TcpStream, HttpsError> {
    let failed = |why: String| HttpsError::Connect { host: authority.to_owned(), why };
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
        .await
        .map_err(|_| failed("no answer".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    Ok(stream)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, authority: &str) -> Result<Reply, HttpsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |why: String| HttpsError::Exchange { host: authority.to_owned(), why };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
    let conversation = async {
        let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX);
        let bytes = body.collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
        Ok(Reply { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    };
    // The connection's own future carries the bytes; the answer ends the wait for it.
    let mut conversation = std::pin::pin!(conversation);
    tokio::select! {
        reply = &mut conversation => reply,
        _ended = connection => conversation.await,
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::clock::PATIENCE;
    use crate::sandbox::mailbox::{Mailbox, MailboxOptions};

    #[tokio::test]
    async fn a_server_is_believed_by_its_ca_and_by_nothing_else() {
        let mailbox = tls_mailbox().await;
        let other = tls_mailbox().await;
        let own_ca = mailbox.ca_pem().expect("over TLS").to_owned();
        let other_ca = other.ca_pem().expect("over TLS").to_owned();
        for trust in [Trust::Ca(own_ca.clone()), Trust::PublicRootsAnd(own_ca.clone()), Trust::DangerousAnyone] {
            assert_eq!(ask(&mailbox, trust).await.expect("believed").status, StatusCode::NO_CONTENT);
        }
        let ca = CertificateDer::from_pem_slice(own_ca.as_bytes()).expect("a certificate");
        let mut ca_hash = [0; 32];
        ca_hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &ca).as_ref());
        // A fingerprint means the server's own certificate, not one that signed it.
        for trust in [Trust::Ca(other_ca), Trust::PublicRoots, Trust::Fingerprint(ca_hash)] {
            assert!(matches!(ask(&mailbox, trust).await, Err(HttpsError::Connect { .. })));
        }
    }

    #[tokio::test]
    async fn nobody_at_home_and_no_url_are_told_apart() {
        // Bound, and so nobody else's; but nobody listens.
        let deaf = tokio::net::TcpSocket::new_v4().expect("a socket");
        deaf.bind("127.0.0.1:0".parse().expect("a literal")).expect("a free port");
        let gone = format!("http://{}", deaf.local_addr().expect("bound"));
        let site =
            |base: &str| Site { base: base.parse().expect("a URI"), trust: Trust::PublicRoots, patience: PATIENCE };
        assert!(matches!(site(&gone).ask(question()).await, Err(HttpsError::Connect { .. })));
        assert!(matches!(site("ftp://127.0.0.1").ask(question()).await, Err(HttpsError::Url)));
        assert!(matches!(site("/path").ask(question()).await, Err(HttpsError::Url)));
    }

    async fn tls_mailbox() -> Mailbox {
        Mailbox::start(MailboxOptions { tls: true, ..MailboxOptions::default() }).await.expect("a mailbox")
    }

    async fn ask(mailbox: &Mailbox, trust: Trust) -> Result<Reply, HttpsError> {
        let base = mailbox.endpoint().trim_end_matches("/push").parse().expect("a URL");
        Site { base, trust, patience: PATIENCE }.ask(question()).await
    }

    fn question() -> Question<'static> {
        Question { method: Method::GET, path: "/pushes/one?wait=0", bearer: None, body: None }
    }
}
