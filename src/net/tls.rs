//! TLS for both sides: what we show to devices and registrars that call us, and whom we believe when we call.
//!
//! The crypto provider is passed explicitly, so that no second one can slip in. A trunk's certificate must belong to the
//! identity the engine names, by a chain to a known root or by its pinned public key; there is no third way and no way
//! back to plain TCP.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig};

use super::believing::Believing;
use crate::engine::output::TlsIdentity;

/// Why a certificate, key or CA file cannot be used. Never repeats what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in the PEM text.
    #[error("no usable certificate in the PEM text")]
    Certificate,
    /// No private key in the PEM text.
    #[error("no usable private key in the PEM text")]
    Key,
    /// The certificate and the key do not fit, or the key is of a kind we do not take.
    #[error("the certificate and the key cannot be used together: {0}")]
    Pair(Error),
    /// The provider cannot speak TLS 1.2 and 1.3.
    #[error("the crypto provider is unusable: {0}")]
    Provider(Error),
}

/// The certificate that TLS listeners show; may be replaced while they serve.
#[derive(Clone)]
pub struct ServerTls(Arc<ArcSwap<ServerConfig>>);

impl ServerTls {
    /// Listeners show `config` from now on.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }

    /// New connections get `config`; the ones that are up keep theirs.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

/// Builds what a listener shows from a chain and its key, both PEM.
///
/// # Errors
/// The texts hold no certificate or key, or they do not fit.
pub fn server_config(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsError::Key)?;
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map(Arc::new)
        .map_err(TlsError::Pair)
}

/// Whom we believe when we open a TLS trunk.
#[derive(Clone)]
pub struct ClientTls {
    chained: Arc<ClientConfig>,
    provider: Arc<CryptoProvider>,
}

impl ClientTls {
    /// Believes the public roots, the system's, and those of `extra_ca_pem`.
    ///
    /// # Errors
    /// The extra text holds no certificate.
    pub fn new(extra_ca_pem: Option<&[u8]>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = extra_ca_pem {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|_| TlsError::Certificate)?;
            }
        }
        let provider = provider();
        let chained = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Provider)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { chained: Arc::new(chained), provider })
    }

    /// How to connect to `identity`, and by which name. `None` if its host can stand in no certificate.
    pub(super) fn config(&self, identity: &TlsIdentity) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        let name = match identity.host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(identity.host.clone()).ok()?,
        };
        let config = match identity.spki_sha256 {
            Some(pin) => self.pinned(pin)?,
            None => Arc::clone(&self.chained),
        };
        Some((config, name))
    }

    fn pinned(&self, pin: [u8; 32]) -> Option<Arc<ClientConfig>> {
        // The account says who this key is.
        let verifier = Believing::new(
            move |certificate| {
                let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
                Ok(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key).as_ref() == pin)
            },
            Arc::clone(&self.provider),
        );
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Some(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TlsError::Certificate)?;
    if chain.is_empty() { Err(TlsError::Certificate) } else { Ok(chain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_does_not_fit_is_refused() {
        let (one, other) = (pair(), pair());
        assert!(server_config(one.0.as_bytes(), one.1.as_bytes()).is_ok());
        assert!(matches!(server_config(one.0.as_bytes(), other.1.as_bytes()), Err(TlsError::Pair(_))));
        assert!(matches!(server_config(one.1.as_bytes(), one.1.as_bytes()), Err(TlsError::Certificate)));
        assert!(matches!(server_config(one.0.as_bytes(), one.0.as_bytes()), Err(TlsError::Key)));
    }

    #[test]
    fn an_extra_ca_without_certificates_is_refused() {
        assert!(matches!(ClientTls::new(Some(b"nothing here")), Err(TlsError::Certificate)));
    }

    fn pair() -> (String, String) {
        let certified = rcgen::generate_simple_self_signed(["pbx.test".to_owned()]).expect("rcgen makes one");
        (certified.cert.pem(), certified.signing_key.serialize_pem())
    }
}
