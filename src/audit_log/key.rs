//! The log's Ed25519 key: where it is kept, what it signs, how it is told apart from another.
//!
//! Files are PEM as every tool reads them: PKCS #8 for the private key, SubjectPublicKeyInfo for the public one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::encoding::hex;
use super::merkle::sha256_of;

/// The bytes before the 32 of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// C2SP signed-note: the type of an Ed25519 signature in a key id.
const NOTE_ED25519: u8 = 0x01;

/// A key file is far shorter; a longer file is something else.
const KEY_FILE_MAX: u64 = 16 * 1024;

/// The private key.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Signer {
    /// A new key that nobody keeps.
    pub(super) fn generate() -> io::Result<Self> {
        Ed25519KeyPair::generate().map(Self::of).map_err(|_| io::Error::other("no random bytes for a key"))
    }

    /// Reads a PKCS #8 PEM file.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let text = read_pem(path)?;
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "the audit log's signing key can be read by others");
        }
        let der =
            pem_decode(&text, "PRIVATE KEY").ok_or_else(|| invalid("not a PEM file with a PRIVATE KEY (PKCS #8)"))?;
        Ed25519KeyPair::from_pkcs8(&der).map(Self::of).map_err(|_| invalid("not an Ed25519 key"))
    }

    /// Makes a key and keeps it at `path`, readable by nobody else.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let signer = Self::generate()?;
        let der = signer.pair.to_pkcs8v1().map_err(|_| io::Error::other("the new key cannot be encoded"))?;
        write_whole(path, 0o600, pem_encode(der.as_ref(), "PRIVATE KEY").as_bytes())?;
        Ok(signer)
    }

    /// The public half.
    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs; Ed25519 gives the same signature for the same bytes.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let public = PublicKey(pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"));
        Self { pair, public }
    }
}

/// The public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey(pub(super) [u8; 32]);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo PEM file.
    pub(super) fn load(path: &Path) -> io::Result<Self> {
        let text = read_pem(path)?;
        let der = pem_decode(&text, "PUBLIC KEY")
            .ok_or_else(|| invalid("not a PEM file with a PUBLIC KEY, such as the audit.pub beside the log"))?;
        der.strip_prefix(&SPKI_PREFIX)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or_else(|| invalid("not an Ed25519 key"))
    }

    /// Reads SubjectPublicKeyInfo PEM text.
    pub(super) fn from_pem(text: &str) -> Option<Self> {
        let der = pem_decode(text, "PUBLIC KEY")?;
        der.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok()).map(Self)
    }

    /// Keeps the key at `path` for whoever wants to verify, unless it is there already.
    pub(super) fn publish(&self, path: &Path) -> io::Result<()> {
        let pem = self.pem();
        if fs::read(path).is_ok_and(|present| present == pem.as_bytes()) {
            return Ok(());
        }
        write_whole(path, 0o644, pem.as_bytes())
    }

    /// As PEM text.
    pub(super) fn pem(&self) -> String {
        pem_encode(&self.spki(), "PUBLIC KEY").as_str().to_owned()
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo, in hex: `openssl pkey -pubin -outform DER | sha256sum`.
    pub(super) fn fingerprint(&self) -> String {
        hex(&sha256_of(&[&self.spki()]))
    }

    /// C2SP signed-note: the four bytes that tell the key of a signature line.
    pub(super) fn note_id(&self, name: &str) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256_of(&[name.as_bytes(), b"\n", &[NOTE_ED25519], &self.0]);
        [a, b, c, d]
    }

    /// The key as verifiers of signed notes take it: name, key id and, behind the signature's type, the key.
    pub(super) fn vkey(&self, name: &str) -> String {
        let typed = [&[NOTE_ED25519], &self.0[..]].concat();
        format!("{name}+{}+{}", hex(&self.note_id(name)), STANDARD.encode(typed))
    }

    /// Whether this key made `signature` over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    fn spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }
}

fn read_pem(path: &Path) -> io::Result<Zeroizing<String>> {
    if fs::metadata(path)?.len() > KEY_FILE_MAX {
        return Err(invalid("too long for a key file"));
    }
    fs::read_to_string(path).map(Zeroizing::new)
}

/// The content of the first block called `label`.
fn pem_decode(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let letters: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    STANDARD.decode(letters.as_bytes()).ok().map(Zeroizing::new)
}

fn pem_encode(der: &[u8], label: &str) -> Zeroizing<String> {
    // An Ed25519 key in either form has at most 48 bytes: one line of 64 letters.
    let body = Zeroizing::new(STANDARD.encode(der));
    Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", body.as_str()))
}

/// Writes a file that is either there as a whole or not at all, even after a crash.
fn write_whole(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    sync_directory_of(path)
}

/// Makes a new name in a directory last.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 8410 §10.3 and §10.1: a private key and its public key.
    const RFC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const RFC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn keys_of_other_tools_are_read_and_written_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let (private, public) = (directory.path().join("k"), directory.path().join("p"));
        fs::write(&private, RFC_PRIVATE).expect("written");
        fs::write(&public, RFC_PUBLIC).expect("written");

        let signer = Signer::load(&private).expect("a key");

        assert_eq!(*signer.public(), PublicKey::load(&public).expect("a key"));
        assert_eq!(signer.public().pem(), RFC_PUBLIC);
    }

    #[test]
    fn a_verifier_key_is_that_of_the_reference_implementation() {
        // The example of the package golang.org/x/mod/sumdb/note.
        let known = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let (_, typed) = known.rsplit_once('+').expect("three parts");
        let typed: [u8; 33] = STANDARD.decode(typed).expect("base64").try_into().expect("type and key");
        let key = PublicKey(typed[1..].try_into().expect("32 bytes"));
        assert_eq!(key.vkey("PeterNeumann"), known);
        let text =
            b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let signature: [u8; 68] = STANDARD.decode(signature).expect("base64").try_into().expect("id and signature");
        assert_eq!(signature[..4], key.note_id("PeterNeumann"));
        assert!(key.verifies(text, signature[4..].try_into().expect("64 bytes")));
    }

    #[test]
    fn a_key_made_here_is_read_again_and_readable_by_nobody_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.key");

        let made = Signer::create(&path).expect("a key");
        let read = Signer::load(&path).expect("the same key");

        assert_eq!(made.public(), read.public());
        assert!(read.public().verifies(b"m", &made.sign(b"m")));
        assert!(!read.public().verifies(b"n", &made.sign(b"m")));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1, "nothing else is left behind");
    }

    #[test]
    fn what_is_no_ed25519_key_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("k");
        for text in ["", "secret", RFC_PUBLIC, &RFC_PRIVATE.replace("MC4C", "MC4D"), &"x".repeat(20_000)] {
            fs::write(&path, text).expect("written");
            assert!(Signer::load(&path).is_err(), "{text}");
        }
        fs::write(&path, RFC_PRIVATE).expect("written");
        assert!(PublicKey::load(&path).is_err());
    }
}
