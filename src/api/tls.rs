//! The certificate of the API and how it is exchanged while connections live.
//!
//! New handshakes get the newest certificate; live connections keep theirs. There is no way to serve the API without
//! TLS: where no certificate is configured, one is made on the spot.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Offered in this order (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate cannot be served. Never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file is not PEM with at least one certificate.
    #[error("no certificate in the PEM file")]
    NoCertificate,
    /// The key file is not PEM with a private key.
    #[error("no private key in the PEM file")]
    NoKey,
    /// The key cannot be used, or does not belong to the certificate.
    #[error("the key cannot be used with the certificate: {0}")]
    Unusable(rustls::Error),
    /// No certificate could be made.
    #[error("no self-signed certificate could be made: {0}")]
    SelfSigned(rcgen::Error),
}

/// The TLS side of the API's listeners.
#[derive(Clone)]
pub struct Tls {
    certificate: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Serves the certificate chain and key of two PEM files.
    ///
    /// # Errors
    /// Either is missing or they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::serving(certified(certificate, key)?)
    }

    /// Serves a certificate made now for `names` (domains or addresses). Nobody has a reason to trust it, of which
    /// the configuration warns.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let made = rcgen::generate_simple_self_signed(names).map_err(TlsError::SelfSigned)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let certified = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider());
        Self::serving(certified.map_err(TlsError::Unusable)?)
    }

    /// The names a self-signed certificate needs so that clients on this machine can check it too.
    #[must_use]
    pub fn self_signed_names(domain: &str) -> Vec<String> {
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let public = (!domain.is_empty() && !local.iter().any(|name| name == domain)).then(|| domain.to_owned());
        public.into_iter().chain(local).collect()
    }

    /// Takes a new certificate and key for every handshake from now on. On an error the old ones stay.
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    pub fn reload(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.certificate.0.store(Arc::new(certified(certificate, key)?));
        Ok(())
    }

    /// The certificate that is served now, for a client that has to trust exactly this one.
    #[must_use]
    pub fn end_entity(&self) -> Option<CertificateDer<'static>> {
        self.certificate.0.load().cert.first().cloned()
    }

    /// What the listeners hand to each connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    fn serving(certified: CertifiedKey) -> Result<Self, TlsError> {
        let certificate = Arc::new(Current(ArcSwap::from_pointee(certified)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Self { certificate, config: Arc::new(config) })
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|_| TlsError::NoCertificate)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_reload_takes_the_new_certificate_and_a_bad_one_leaves_the_old() {
        let (certificate, key) = pem("one.example");
        let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes()).expect("serves");
        let first = tls.end_entity();
        let (other_certificate, other_key) = pem("two.example");

        assert!(matches!(tls.reload(other_certificate.as_bytes(), key.as_bytes()), Err(TlsError::Unusable(_))));
        assert!(matches!(tls.reload(b"", other_key.as_bytes()), Err(TlsError::NoCertificate)));
        assert!(matches!(tls.reload(other_certificate.as_bytes(), b"no key"), Err(TlsError::NoKey)));
        assert_eq!(tls.end_entity(), first);

        tls.reload(other_certificate.as_bytes(), other_key.as_bytes()).expect("reloads");
        assert_ne!(tls.end_entity(), first);
    }
}
