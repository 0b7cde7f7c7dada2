//! Keys that name files: each file is read once when the configuration is, so that a wrong one is found by
//! `check-config` and not by the first call.

use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::material::{self, FileError};
use super::section::{Entry, Section};

/// A certificate with its key, in files that may be replaced while we run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain in PEM, our own certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// A certificate with its key, as they stood in their files.
pub struct TlsPem {
    /// The chain.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Zeroizing<Vec<u8>>,
}

impl TlsFiles {
    /// Reads both files as they are now: at start, and again at SIGHUP.
    ///
    /// # Errors
    /// A file cannot be read, is not what it should be, or the key is not the certificate's.
    pub fn load(&self) -> Result<TlsPem, FileError> {
        let mut certificate = material::read(&self.certificate)?;
        let chain = material::certificates(&self.certificate, &certificate)?;
        let pem = material::read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| FileError::new(&self.key, "has no private key in PEM (-----BEGIN PRIVATE KEY-----)"))?;
        CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                FileError::new(&self.key, format!("is not the key of {}", self.certificate.display()))
            }
            rustls::Error::InvalidCertificate(_) => {
                FileError::new(&self.certificate, "has a certificate that cannot be read")
            }
            _ => FileError::new(&self.key, "has a key of a kind that TLS cannot use"),
        })?;
        Ok(TlsPem { certificate: std::mem::take(&mut *certificate), key: pem })
    }
}

/// Reads `tls_certificate` and `tls_key`; `None` if both are absent.
pub(super) fn tls(section: &mut Section<'_>) -> Option<TlsFiles> {
    let written = (section.has("tls_certificate"), section.has("tls_key"));
    let certificate = section.file("tls_certificate");
    let key = section.file("tls_key");
    match (written, certificate, key) {
        ((true, false), Some(Entry { place, .. }), _) => {
            section.mistake(&place, "tls_certificate", "needs its tls_key; set both or neither");
            None
        }
        ((false, true), _, Some(Entry { place, .. })) => {
            section.mistake(&place, "tls_key", "needs its tls_certificate; set both or neither");
            None
        }
        (_, Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate: certificate.value, key: key.value };
            if let Err(error) = files.load() {
                let (entry, name) = match error.file == files.key {
                    true => (&key.place, "tls_key"),
                    false => (&certificate.place, "tls_certificate"),
                };
                section.mistake(entry, name, error.to_string());
            }
            warn_if_readable(section, &key.place.clone(), "tls_key", &files.key);
            Some(files)
        }
        _ => None,
    }
}

/// Reads a key that names extra certificates to trust.
pub(super) fn roots(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    load(section, key, material::roots).map(|entry| entry.value)
}

/// Reads `signing_key`.
pub(super) fn signing_key(section: &mut Section<'_>) -> Option<PathBuf> {
    let loaded = secret(section, "signing_key", |path| material::check_signing_key(path).map(|()| path.to_path_buf()));
    loaded.map(|entry| entry.value)
}

/// Reads a key that names a file, and the file.
pub(super) fn load<T>(
    section: &mut Section<'_>,
    key: &'static str,
    load: impl FnOnce(&Path) -> Result<T, FileError>,
) -> Option<Entry<T>> {
    let Entry { place, value: path } = section.file(key)?;
    match load(&path) {
        Ok(value) => Some(Entry { place, value }),
        Err(error) => {
            section.mistake(&place, key, error.to_string());
            None
        }
    }
}

/// Like [`load`], for a file that only we should be able to read.
pub(super) fn secret<T>(
    section: &mut Section<'_>,
    key: &'static str,
    read: impl FnOnce(&Path) -> Result<T, FileError>,
) -> Option<Entry<T>> {
    let Entry { place, value: (path, value) } =
        load(section, key, |path| read(path).map(|value| (path.to_path_buf(), value)))?;
    warn_if_readable(section, &place, key, &path);
    Some(Entry { place, value })
}

fn warn_if_readable(section: &mut Section<'_>, place: &super::report::Place, key: &str, file: &Path) {
    if material::is_readable_by_all(file) {
        let path = section.path(key);
        let problem = format!("{} can be read by every user of this host; chmod 640 it", file.display());
        section.report.warning(place.clone(), path, problem);
    }
}
