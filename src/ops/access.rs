//! Who may ask: whoever reaches the Unix socket, shows a token, or shows a certificate.
//!
//! `/healthz` and `/readyz` are for probes, which have nothing to show, and say nothing that a caller could not find out by
//! calling us. Everything else tells how many people use this server and when their calls fail.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// What callers may show.
#[derive(Default)]
pub struct Access {
    /// The SHA-256 of each token that may ask.
    pub token_sha256: Vec<[u8; 32]>,
    /// TLS on TCP; without it, plain HTTP.
    pub tls: Option<Tls>,
}

/// Where a caller comes from, as far as that says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Over the Unix socket: the file's permissions let it in.
    Local,
    /// With a certificate of the client CA.
    Certified,
    /// Anybody.
    Anybody,
}

impl Access {
    /// Whether a caller may read everything. Where nothing is asked for, everybody may: then all listeners are local.
    pub(super) fn admits(&self, caller: Caller, headers: &HeaderMap) -> bool {
        let asks = !self.token_sha256.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.client_roots.is_some());
        !asks || caller != Caller::Anybody || self.has_token(headers)
    }

    /// Compares with all tokens, in constant time.
    fn has_token(&self, headers: &HeaderMap) -> bool {
        let text = headers.get(AUTHORIZATION).and_then(|field| field.to_str().ok()).unwrap_or_default();
        let (scheme, token) = text.split_once(' ').unwrap_or_default();
        let presented = digest(&SHA256, token.trim_matches(' ').as_bytes());
        let equal = |known: &[u8; 32]| verify_slices_are_equal(known, presented.as_ref()).is_ok();
        let known = self.token_sha256.iter().filter(|known| equal(known)).count();
        known > 0 && scheme.eq_ignore_ascii_case("bearer")
    }
}

/// Why a certificate or client CA cannot be used. Never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or its key.
    #[error("the certificate and its key cannot be used: {0}")]
    Own(String),
    /// The client CA.
    #[error("the client CA cannot be used: {0}")]
    Clients(String),
}

/// The certificate of the operators' endpoints, and who is known by theirs.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ArcSwap<ServerConfig>>,
    client_roots: Option<Arc<RootCertStore>>,
}

impl Tls {
    /// Serves a chain and its key, both PEM. Callers may show a certificate that leads to `client_ca`; they need not, since
    /// probes cannot.
    ///
    /// # Errors
    /// A text holds no certificate or key, or they do not fit.
    pub fn new(certificate: &[u8], key: &[u8], client_ca: Option<&str>) -> Result<Self, TlsError> {
        let client_roots = client_ca.map(roots).transpose()?.map(Arc::new);
        let config = Arc::new(ArcSwap::new(server_config(certificate, key, client_roots.as_ref())?));
        Ok(Self { config, client_roots })
    }

    /// Serves another chain and key from now on; on an error the former ones stay.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn reload(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.config.store(server_config(certificate, key, self.client_roots.as_ref())?);
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| TlsError::Clients("it is not well-formed PEM".to_owned()))?;
        roots.add(certificate).map_err(|error| TlsError::Clients(error.to_string()))?;
    }
    Ok(roots)
}

fn server_config(
    certificate: &[u8],
    key: &[u8],
    client_roots: Option<&Arc<RootCertStore>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let own = |problem: &dyn std::fmt::Display| TlsError::Own(problem.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|error| own(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| own(&error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| own(&error))?;
    let builder = match client_roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider);
            let verifier = verifier.allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Clients(error.to_string()))?)
        }
    };
    builder.with_single_cert(chain, key).map(Arc::new).map_err(|error| own(&error))
}
