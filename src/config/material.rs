//! Keys and certificates in files: read with a bound, parsed once to see that they are what they should be.
//!
//! Nothing of a file's content appears in an error.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

use super::settings::{JwtAlgorithm, JwtPublicKey};

/// The longest key or certificate file that is read; a bundle of all public roots fits.
const FILE_MAX: usize = 1 << 20;

/// SubjectPublicKeyInfo of an uncompressed point on P-256 (RFC 5480) and of Ed25519 (RFC 8410), up to the key itself.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const SPKI_P256_LEN: usize = SPKI_P256.len() + 64;
const SPKI_ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const SPKI_ED25519_LEN: usize = SPKI_ED25519.len() + 32;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it. Never repeats its content.
    pub problem: String,
}

impl FileError {
    pub(super) fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.to_path_buf(), problem: problem.into() }
    }
}

/// A file's bytes, wiped when dropped.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let unreadable = |error: std::io::Error| FileError::new(path, format!("cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(FileError::new(path, "is a directory"));
    }
    // Room for everything from the start: a vector that grows leaves copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or(FILE_MAX).min(FILE_MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(room as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() >= room {
        return Err(FileError::new(path, format!("is longer than {FILE_MAX} bytes, or grew while it was read")));
    }
    Ok(bytes)
}

/// Whether anybody on this host may read the file.
pub(super) fn is_readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_READ: u32 = 0o004;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_READ != 0)
}

/// A file's text, wiped when dropped.
fn read_text(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let mut bytes = read(path)?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(FileError::new(path, "is not a text file"))
        }
    }
}

/// Certificates to trust, as PEM; at least one.
pub(super) fn roots(path: &Path) -> Result<String, FileError> {
    let pem = read_text(path)?;
    certificates(path, pem.as_bytes())?;
    Ok(String::clone(&pem))
}

/// All certificates of a file's content; at least one.
pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(FileError::new(path, "has no certificate in PEM (-----BEGIN CERTIFICATE-----)")),
        Err(_) => Err(FileError::new(path, "is not well-formed PEM")),
    }
}

/// A token signing key of Apple's (`AuthKey_….p8`), as PEM.
pub(super) fn apns_key(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let pem = read_text(path)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok();
    let parsed =
        der.and_then(|der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der()).ok());
    match parsed {
        Some(_) => Ok(pem),
        None => {
            Err(FileError::new(path, "is not a P-256 private key in PEM (PKCS #8), as Apple hands out in a .p8 file"))
        }
    }
}

/// The members of a service account's key file that sending needs.
#[derive(serde::Deserialize)]
struct ServiceAccount<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    project_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    client_email: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    token_uri: std::borrow::Cow<'a, str>,
    private_key: String,
}

/// A service account's key file of Google's, as JSON.
pub(super) fn service_account(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let json = read_text(path)?;
    let account: ServiceAccount<'_> = serde_json::from_str(&json).map_err(|_| {
        let members = "type, project_id, client_email, token_uri and private_key";
        FileError::new(path, format!("is not a service account's key file: JSON with {members}"))
    })?;
    let private_key = Zeroizing::new(account.private_key);
    if account.kind != "service_account" {
        return Err(FileError::new(path, "must have \"type\": \"service_account\""));
    }
    if [&account.project_id, &account.client_email].iter().any(|member| member.is_empty()) {
        return Err(FileError::new(path, "has an empty project_id or client_email"));
    }
    if super::values::endpoint(&account.token_uri).is_err() || !account.token_uri.starts_with("https://") {
        return Err(FileError::new(path, "has a token_uri that is no https URL"));
    }
    let der = PrivatePkcs8KeyDer::from_pem_slice(private_key.as_bytes()).ok();
    match der.and_then(|der| rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()) {
        Some(_) => Ok(json),
        None => Err(FileError::new(path, "has a private_key that is no RSA key in PEM (PKCS #8)")),
    }
}

/// The public key of a tenant's backend.
pub(super) fn jwt_public_key(path: &Path) -> Result<JwtPublicKey, FileError> {
    let pem = read_text(path)?;
    let problem = "is not a public key in PEM (-----BEGIN PUBLIC KEY-----) on P-256 (ES256) or Ed25519 (EdDSA)";
    let wrong = || FileError::new(path, problem);
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?;
    let is = |prefix: &[u8], length: usize| der.len() == length && der.starts_with(prefix);
    let algorithm = if is(SPKI_P256, SPKI_P256_LEN) {
        JwtAlgorithm::Es256
    } else if is(SPKI_ED25519, SPKI_ED25519_LEN) {
        JwtAlgorithm::EdDsa
    } else {
        return Err(wrong());
    };
    Ok(JwtPublicKey { algorithm, pem: String::clone(&pem) })
}

/// Whether the file holds a key that can sign receipts.
pub(super) fn check_signing_key(path: &Path) -> Result<(), FileError> {
    let pem = read(path)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).ok();
    match der.and_then(|der| Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()) {
        Some(_) => Ok(()),
        None => Err(FileError::new(path, "is not an Ed25519 private key in PEM (PKCS #8)")),
    }
}
