//! Whom `reveille status` believes when it asks over TLS, and what it shows.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::cli::OpsArguments;
use crate::net::Believing;

/// Believes the certificates of `--ca-file`, or the public roots; or, where the daemon's own configuration names its
/// certificate, exactly that one, under whatever name.
///
/// # Errors
/// A file that cannot be used, in words.
pub(super) fn client_config(arguments: &OpsArguments, own: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match (own, &arguments.ca_file) {
        (Some(file), None) => {
            let certificate = certificates(file)?.swap_remove(0);
            // Its name need not be the address we ask at.
            let verifier = Believing::new(move |shown| Ok(*shown == certificate), provider);
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        (_, Some(file)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            builder.with_root_certificates(roots)
        }
        (None, None) => {
            builder.with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
        }
    };
    let config = match (&arguments.certificate, &arguments.key) {
        (Some(certificate), Some(key)) => {
            let pem = PrivateKeyDer::from_pem_file(key);
            let pem = pem.map_err(|_| format!("{}: has no private key in PEM that can be read", key.display()))?;
            let config = builder.with_client_auth_cert(certificates(certificate)?, pem);
            config.map_err(|error| format!("{}: {error}", certificate.display()))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// All certificates of a file; at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match parsed {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(format!("{}: has no certificate in PEM that can be read", file.display())),
    }
}
