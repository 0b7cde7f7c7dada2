//! Signed JSON Web Tokens (RFC 7515, RFC 7519), as far as APNs and Google need them: compact form, ES256 and RS256.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

/// A key that signs tokens. No `Debug`.
pub(crate) enum SigningKey {
    /// P-256, for APNs.
    Es256(Box<EcdsaKeyPair>),
    /// RSA, for Google.
    Rs256(Box<RsaKeyPair>),
}

impl SigningKey {
    /// Reads a `.p8` file.
    pub(crate) fn es256(pem: &str) -> Result<Self, String> {
        let key = with_pkcs8(pem, |der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok())?;
        key.map(|key| Self::Es256(Box::new(key))).ok_or_else(|| "not a P-256 private key".to_owned())
    }

    /// Reads the private key of a service account.
    pub(crate) fn rs256(pem: &str) -> Result<Self, String> {
        let key = with_pkcs8(pem, |der| RsaKeyPair::from_pkcs8(der).ok())?;
        key.map(|key| Self::Rs256(Box::new(key))).ok_or_else(|| "not an RSA private key".to_owned())
    }

    /// Signs `claims`. `None` if the library fails, which it has no documented reason to.
    pub(crate) fn sign(&self, key_id: &str, claims: &Value) -> Option<Zeroizing<String>> {
        let algorithm = match self {
            Self::Es256(_) => "ES256",
            Self::Rs256(_) => "RS256",
        };
        let header = json!({ "alg": algorithm, "kid": key_id, "typ": "JWT" });
        let mut token = Zeroizing::new(String::with_capacity(1024));
        BASE64URL.encode_string(header.to_string(), &mut token);
        token.push('.');
        BASE64URL.encode_string(claims.to_string(), &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        BASE64URL.encode_string(signature, &mut token);
        Some(token)
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

fn with_pkcs8<T>(pem: &str, read: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| "not a private key in PKCS#8 PEM form (BEGIN PRIVATE KEY)".to_owned())?;
    let key = read(der.secret_pkcs8_der());
    der.zeroize();
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_key_is_refused_without_repeating_it() {
        let planted = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        for refused in [SigningKey::es256(planted), SigningKey::rs256(planted), SigningKey::es256("c2VjcmV0")] {
            let problem = refused.err().expect("no key");
            assert!(!problem.contains("c2VjcmV0"), "{problem}");
        }
    }
}
