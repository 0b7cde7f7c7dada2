//! Certificates that are believed for a reason of our own instead of a chain: a pinned key, one that the operator names.
//!
//! Its own room because whoever does so has to check the handshake's signatures all the same, and that is easily left out.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// Believes the certificates that `is_believed` accepts. Name, dates and issuer do not matter; that the peer holds the
/// certificate's key does.
pub(crate) struct Believing<F> {
    is_believed: F,
    provider: Arc<CryptoProvider>,
}

impl<F> Believing<F>
where
    F: Fn(&CertificateDer<'_>) -> Result<bool, Error> + Send + Sync,
{
    pub(crate) fn new(is_believed: F, provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { is_believed, provider })
    }
}

impl<F> fmt::Debug for Believing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Believing")
    }
}

impl<F> ServerCertVerifier for Believing<F>
where
    F: Fn(&CertificateDer<'_>) -> Result<bool, Error> + Send + Sync,
{
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if (self.is_believed)(end_entity)? {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
