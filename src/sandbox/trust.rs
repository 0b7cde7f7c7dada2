//! Which servers a stand-in believes over TLS.
//!
//! Its own room because one of the answers is dangerous, and its name should be easy to search for.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::net::Believing;

/// Whom to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Chains to the public roots.
    #[default]
    PublicRoots,
    /// Chains to the public roots or to the certificates of this PEM text.
    PublicRootsAnd(String),
    /// Chains to the certificates of this PEM text alone.
    Ca(String),
    /// The one certificate with this SHA-256, whatever name it bears.
    Fingerprint([u8; 32]),
    /// Anyone. For trying things against a self-signed certificate, and nothing else.
    DangerousAnyone,
}

/// Why nobody can be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The PEM text holds no certificate.
    #[error("the CA file holds no certificate in PEM")]
    NoCertificate,
    /// rustls refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl Trust {
    /// Reads a fingerprint as `openssl x509 -fingerprint -sha256` prints it, or in plain hex.
    #[must_use]
    pub fn fingerprint(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|character| *character != ':')
            .map(|character| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let mut bytes = [0; 32];
        if digits.len() != bytes.len() * 2 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] * 16 + pair[1];
        }
        Some(Self::Fingerprint(bytes))
    }

    /// What rustls needs to open a connection.
    ///
    /// # Errors
    /// The CA file holds no certificate.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TrustError> {
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustError::Tls(error.to_string()))?;
        let mut config = match self {
            Self::PublicRoots => builder.with_root_certificates(public_roots()).with_no_client_auth(),
            Self::PublicRootsAnd(pem) => {
                let mut roots = public_roots();
                roots.extend(roots_of(pem)?.roots);
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Self::Ca(pem) => builder.with_root_certificates(roots_of(pem)?).with_no_client_auth(),
            Self::Fingerprint(expected) => builder
                .dangerous()
                .with_custom_certificate_verifier(Believing::new(pinned(*expected), provider))
                .with_no_client_auth(),
            Self::DangerousAnyone => builder
                .dangerous()
                .with_custom_certificate_verifier(Believing::new(|_| Ok(true), provider))
                .with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// A certificate's SHA-256 as people compare it.
#[must_use]
pub fn fingerprint_text(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::new();
    for (index, byte) in digest(&SHA256, certificate).as_ref().iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{byte:02X}", if index > 0 { ":" } else { "" });
    }
    text
}

/// Believes one certificate, whatever name it bears.
fn pinned(expected: [u8; 32]) -> impl Fn(&CertificateDer<'_>) -> Result<bool, rustls::Error> + Send + Sync {
    move |shown| Ok(verify_slices_are_equal(&expected, digest(&SHA256, shown).as_ref()).is_ok())
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn roots_of(pem: &str) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(TrustError::NoCertificate) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_with_and_without_colons() {
        let colons = (0..32).map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
        let Some(Trust::Fingerprint(bytes)) = Trust::fingerprint(&colons) else { panic!("not read") };
        assert_eq!(bytes.to_vec(), (0..32).collect::<Vec<u8>>());
        assert_eq!(Trust::fingerprint(&colons.replace(':', "").to_lowercase()), Some(Trust::Fingerprint(bytes)));
        for wrong in ["", "zz", &colons[1..], &format!("{colons}00")] {
            assert_eq!(Trust::fingerprint(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_ca_file_without_certificate_is_refused() {
        assert_eq!(Trust::Ca("nothing".to_owned()).client_config(&[]).err(), Some(TrustError::NoCertificate));
    }
}
