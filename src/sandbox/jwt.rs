//! Checking signed tokens, with a library the daemon does not sign with: a mistake would have to be made twice.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD as BASE64, BASE64_URL_SAFE_NO_PAD as BASE64URL};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Characters of a line (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// A key that checks signatures of one algorithm.
pub(crate) struct VerifyingKey {
    algorithm: Algorithm,
    key_id: String,
    key: DecodingKey,
}

/// What is wrong with a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// Not three parts of base64url with JSON in them, or not our algorithm.
    Form,
    /// Signed by a key we do not know.
    KeyId,
    /// The signature does not fit, or the claims are not what they should be.
    Signature,
}

impl VerifyingKey {
    /// A P-256 key, from the uncompressed point.
    pub(crate) fn es256(key_id: &str, point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
        let key = DecodingKey::from_ec_components(&BASE64URL.encode(x), &BASE64URL.encode(y)).ok()?;
        Some(Self { algorithm: Algorithm::ES256, key_id: key_id.to_owned(), key })
    }

    /// An RSA key, from modulus and exponent.
    pub(crate) fn rs256(key_id: &str, modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let key = DecodingKey::from_rsa_components(&BASE64URL.encode(modulus), &BASE64URL.encode(exponent)).ok()?;
        Some(Self { algorithm: Algorithm::RS256, key_id: key_id.to_owned(), key })
    }

    /// The claims of a token that this key signed. Their times are for the caller to check.
    pub(crate) fn claims<C: DeserializeOwned + Clone>(&self, token: &str) -> Result<C, Invalid> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Invalid::Form)?;
        if header.alg != self.algorithm {
            return Err(Invalid::Form);
        }
        if header.kid.as_deref() != Some(&self.key_id) {
            return Err(Invalid::KeyId);
        }
        let mut validation = Validation::new(self.algorithm);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let checked = jsonwebtoken::decode::<C>(token, &self.key, &validation);
        checked.map(|token| token.claims).map_err(|_| Invalid::Signature)
    }
}

/// A PKCS#8 key in the PEM form that key files have.
pub(crate) fn private_key_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(BASE64.encode(pkcs8));
    let mut pem = Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / PEM_LINE + 64));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(PEM_LINE.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}
