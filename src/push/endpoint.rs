//! Where a provider is reached: its URL taken apart once, TLS set up once, then connected to as often as needed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::Fault;
use crate::net::Names;

/// HTTP/2 in ALPN (RFC 9113 §3.2).
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1 in ALPN (RFC 7301 §6).
pub(crate) const ALPN_HTTP11: &[u8] = b"http/1.1";

/// How long one address may take to accept: three SYNs. The next address gets its turn then.
const ADDRESS_MAX: Duration = Duration::from_secs(4);
/// How long name, TCP and TLS may take together.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A byte stream to a provider.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A provider's address.
pub(crate) struct Endpoint {
    tls: Option<(TlsConnector, ServerName<'static>, &'static [u8])>,
    host: String,
    port: u16,
    authority: String,
    path: String,
    names: Arc<Names>,
}

impl Endpoint {
    /// Takes an `https://` URL apart; `alpn` is the one protocol spoken there. A fault of the URL is one of `member`.
    pub(crate) fn https(
        member: &'static str,
        url: &str,
        ca_pem: Option<&str>,
        alpn: &'static [u8],
        names: &Arc<Names>,
    ) -> Result<Self, Fault> {
        let endpoint = Self::any(member, url, ca_pem, alpn, names)?;
        if endpoint.tls.is_none() {
            return Err((member, "must begin with https://".to_owned()));
        }
        Ok(endpoint)
    }

    /// Takes an `https://` or `http://` URL apart.
    pub(crate) fn any(
        member: &'static str,
        url: &str,
        ca_pem: Option<&str>,
        alpn: &'static [u8],
        names: &Arc<Names>,
    ) -> Result<Self, Fault> {
        let fail = |problem: &str| (member, problem.to_owned());
        let uri: Uri = url.parse().map_err(|_| fail("not a URL"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| fail("a URL with a host is needed"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(fail("must have neither query nor user"));
        }
        let (tls, port) = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| fail("not a host name or address"))?;
                let connector =
                    TlsConnector::from(Arc::new(client_config(ca_pem, alpn).map_err(|problem| ("ca_file", problem))?));
                (Some((connector, name, alpn)), 443)
            }
            Some("http") => (None, 80),
            _ => return Err(fail("must begin with https://")),
        };
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { tls, host, port: uri.port_u16().unwrap_or(port), authority, path, names: Arc::clone(names) })
    }

    /// The absolute URI of `path` below this endpoint.
    pub(crate) fn uri(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority, self.path)
    }

    /// What a Host header says.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The path alone, as HTTP/1.1 wants it.
    pub(crate) fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    /// Opens a connection. The error says at which step it failed.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Io>, String> {
        timeout(CONNECT_MAX, self.open()).await.unwrap_or_else(|_| Err("connect: timed out".to_owned()))
    }

    async fn open(&self) -> Result<Box<dyn Io>, String> {
        let addresses = self.names.addresses(&self.host).await.map_err(|_| "the name does not resolve")?;
        let tcp = first_answering(addresses.into_iter().map(|address| SocketAddr::new(address, self.port))).await?;
        // A push is one small write; waiting to fill a segment would only delay it.
        tcp.set_nodelay(true).map_err(|error| format!("connect: {}", error.kind()))?;
        let Some((connector, name, alpn)) = &self.tls else { return Ok(Box::new(tcp)) };
        let stream = connector.connect(name.clone(), tcp).await.map_err(|error| format!("TLS: {error}"))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(chosen) if chosen == *alpn => Ok(Box::new(stream)),
            // A server without ALPN speaks HTTP/1.1.
            None if *alpn == ALPN_HTTP11 => Ok(Box::new(stream)),
            _ => Err("TLS: the server does not speak HTTP/2".to_owned()),
        }
    }
}

async fn first_answering(addresses: impl Iterator<Item = SocketAddr>) -> Result<TcpStream, String> {
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match timeout(ADDRESS_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("connect: {}", error.kind()),
            Err(_) => last = "connect: timed out".to_owned(),
        }
    }
    Err(last)
}

fn client_config(ca_pem: Option<&str>, alpn: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = ca_pem {
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| "not PEM".to_owned())?;
            roots.add(certificate).map_err(|_| "not a certificate".to_owned())?;
            found = true;
        }
        if !found {
            return Err("holds no certificate".to_owned());
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_with_its_path_kept_as_a_prefix() {
        let endpoint = Endpoint::https("endpoint", "https://[::1]:2197/relay/", None, ALPN_H2, &Arc::default())
            .expect("a valid URL");
        assert_eq!(endpoint.uri("/3/device/ab"), "https://[::1]:2197/relay/3/device/ab");
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 2197));
    }

    #[test]
    fn the_port_is_that_of_the_scheme_where_none_is_given() {
        assert_eq!(
            Endpoint::any("endpoint", "http://localhost", None, ALPN_HTTP11, &Arc::default())
                .expect("a valid URL")
                .port,
            80
        );
        assert_eq!(
            Endpoint::https("endpoint", "https://localhost", None, ALPN_H2, &Arc::default()).expect("a valid URL").port,
            443
        );
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_refused() {
        for url in ["", "nonsense", "ftp://host", "https://", "https://user@host", "https://host/?a=b", "http://host"] {
            let refused = Endpoint::https("endpoint", url, None, ALPN_H2, &Arc::default()).err();
            assert_eq!(refused.map(|(member, _)| member), Some("endpoint"), "{url}");
        }
        let refused =
            Endpoint::https("endpoint", "https://host", Some("no certificate"), ALPN_H2, &Arc::default()).err();
        assert_eq!(refused, Some(("ca_file", "holds no certificate".to_owned())));
    }
}
