//! Tokens of a tenant's backend: JWTs (RFC 7519) under one configured key.
//!
//! A few lines of our own, since what a general library offers is what must not happen here: the algorithm comes from
//! the configured key and the token's `alg` must agree; `none`, symmetric algorithms, keys inside the token and critical
//! extensions are not understood at all. Each token is good for one request, and for the same request again: its answer may have
//! been lost.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

/// Longest life of a token.
const LIFE_MAX_SECONDS: u64 = 600;
/// How far the backend's clock may be from ours.
const LEEWAY_SECONDS: u64 = 30;
/// Longest `jti`.
const JTI_BYTES_MAX: usize = 128;
/// Tokens remembered as spent, each with the fingerprint of its request at most, for each tenant, so that none can fill the
/// table for the others. When all are still alive a
/// further one has to wait: forgetting a live one would let it be used twice.
const SPENT_MAX: usize = 100_000;
/// What `scope` says for calls about a whole tenant.
const ADMIN_SCOPE: &str = "admin";

/// The public key of a tenant's backend, with the one algorithm it is used for.
pub struct JwtKey {
    algorithm: &'static str,
    key: ParsedPublicKey,
}

/// Why a key file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PEM public key (SubjectPublicKeyInfo) for ES256 (P-256) or EdDSA (Ed25519)")]
pub struct JwtKeyError;

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JwtFault {
    /// Not three parts of base64url JSON.
    Malformed,
    /// Not signed with the tenant's key and its algorithm, or of nobody we know.
    Signature,
    /// The signature is right; a claim is not. One sentence for the backend's developer.
    Claim(&'static str),
    /// Used before, for something else.
    Replayed,
    /// Too many live tokens to remember one more; the first is over after so long.
    ReplaysFull(Duration),
}

/// The claims we understand; others are ignored, as RFC 7519 §4 asks.
#[derive(Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    aud: Audience,
    exp: u64,
    iat: u64,
    #[serde(default)]
    nbf: Option<u64>,
    jti: String,
    #[serde(default)]
    scope: Option<String>,
}

/// RFC 7519 §4.1.3: one string, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// What a token claims before anything of it is proven: only good for finding the key that can prove it.
pub(crate) struct Unverified {
    pub(crate) issuer: String,
    algorithm: String,
}

impl Unverified {
    pub(crate) fn read(token: &str) -> Result<Self, JwtFault> {
        let mut parts = token.split('.');
        let (Some(header), Some(payload)) = (parts.next(), parts.next()) else { return Err(JwtFault::Malformed) };
        let (header, Issuer { iss: issuer }) = (json::<Header>(header)?, json(payload)?);
        Ok(Self { issuer, algorithm: header.alg })
    }
}

impl JwtKey {
    /// Reads a PEM public key; its kind fixes the algorithm.
    ///
    /// # Errors
    /// Not a P-256 or Ed25519 public key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, JwtKeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| JwtKeyError)?;
        let ed25519 = ParsedPublicKey::new(&ED25519, der.as_ref()).map(|key| Self { algorithm: "EdDSA", key });
        let p256 = |_| ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der.as_ref());
        ed25519.or_else(|error| p256(error).map(|key| Self { algorithm: "ES256", key })).map_err(|_| JwtKeyError)
    }

    /// Whether this is the key of the algorithm that a token claims.
    pub(crate) fn suits(&self, token: &Unverified) -> bool {
        token.algorithm == self.algorithm
    }

    /// The claims of a token signed with this key.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, JwtFault> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtFault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtFault::Malformed)?;
        let header: Header = json(header)?;
        // RFC 7515 §4.1.11: what `crit` names and we do not know makes the token invalid; we know nothing of it.
        if header.alg != self.algorithm || header.crit.is_some() {
            return Err(JwtFault::Signature);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtFault::Malformed)?;
        self.key.verify_sig(signed.as_bytes(), &signature).map_err(|_| JwtFault::Signature)?;
        json(payload).map_err(|_| {
            JwtFault::Claim("The JWT must carry iss, sub, aud and jti as strings, exp and iat as whole seconds.")
        })
    }
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, JwtFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtFault::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtFault::Malformed)
}

impl Claims {
    /// Whether the token is meant for us and alive.
    pub(crate) fn check(&self, audience: &str, now: u64) -> Result<(), JwtFault> {
        let for_us = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        };
        if !for_us {
            return Err(JwtFault::Claim("The JWT's aud must be this service's sip.domain."));
        }
        if self.exp <= self.iat || self.exp - self.iat > LIFE_MAX_SECONDS {
            return Err(JwtFault::Claim("The JWT's exp must lie after iat, by at most 600 seconds."));
        }
        if self.exp.saturating_add(LEEWAY_SECONDS) <= now {
            return Err(JwtFault::Claim("The JWT has expired; make a new one for each request."));
        }
        let begins = self.iat.max(self.nbf.unwrap_or(0));
        if begins > now.saturating_add(LEEWAY_SECONDS) {
            return Err(JwtFault::Claim("The JWT's iat or nbf lies in the future; check the backend's clock."));
        }
        if self.sub.is_empty() {
            return Err(JwtFault::Claim("The JWT's sub must be the device id."));
        }
        if self.jti.is_empty() || self.jti.len() > JTI_BYTES_MAX {
            return Err(JwtFault::Claim("The JWT's jti must have 1 to 128 bytes."));
        }
        Ok(())
    }

    /// Whether `scope` (a list separated by spaces, RFC 8693 §4.2) holds `admin`.
    pub(crate) fn is_admin(&self) -> bool {
        self.scope.as_deref().is_some_and(|scope| scope.split(' ').any(|one| one == ADMIN_SCOPE))
    }
}

/// The tokens of one tenant that were used and have not expired yet.
#[derive(Default)]
pub(crate) struct Replays {
    spent: Mutex<Spent>,
}

type Fingerprint = [u8; 32];

/// What a token was used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A call without a body, which is never good twice.
    Once,
    /// A hand-over whose body has not arrived yet.
    Unknown,
    /// A hand-over with this token and this body.
    HandOver(Fingerprint),
}

/// A use of a token, whose body is still to come.
pub(crate) struct Use(Fingerprint);

#[derive(Default)]
struct Spent {
    all: HashMap<Fingerprint, Purpose>,
    /// The same, by the second after which the token is refused for its age.
    by_end: BTreeSet<(u64, Fingerprint)>,
    /// The latest end of a token that is forgotten. A clock that is set back makes such tokens young again, so one that ends
    /// by then may have been used.
    forgotten: u64,
}

impl Replays {
    /// Takes note that a token is used, for a call that must not come twice.
    pub(crate) fn spend(&self, claims: &Claims, now: u64) -> Result<(), JwtFault> {
        self.remember(jti(claims), claims.exp.saturating_add(LEEWAY_SECONDS), Purpose::Once, now)
    }

    /// Takes note that a token is used for a hand-over. It may have been before: [`settle`](Self::settle) tells when the body is
    /// there.
    pub(crate) fn begin(&self, claims: &Claims, now: u64) -> Result<Use, JwtFault> {
        let end = claims.exp.saturating_add(LEEWAY_SECONDS);
        self.remember(jti(claims), end, Purpose::Unknown, now).map(|()| Use(jti(claims)))
    }

    /// Whether a token may be used for what `request` is the fingerprint of: the first whole request it came with, or that very
    /// one again.
    pub(crate) fn settle(&self, used: &Use, request: Fingerprint) -> Result<(), JwtFault> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        match spent.all.get_mut(&used.0) {
            Some(purpose @ Purpose::Unknown) => {
                *purpose = Purpose::HandOver(request);
                Ok(())
            }
            Some(Purpose::HandOver(first)) if verify_slices_are_equal(first, &request).is_ok() => Ok(()),
            // What has expired meanwhile is good for nothing more.
            Some(Purpose::HandOver(_) | Purpose::Once) | None => Err(JwtFault::Replayed),
        }
    }

    #[cfg(test)]
    pub(crate) fn fill(&self, now: u64) {
        for number in 0..SPENT_MAX as u64 {
            let mut fingerprint = [0; 32];
            fingerprint[..8].copy_from_slice(&number.to_be_bytes());
            self.remember(fingerprint, now + LIFE_MAX_SECONDS, Purpose::Once, now).expect("there is room");
        }
    }

    fn remember(&self, fingerprint: Fingerprint, end: u64, purpose: Purpose, now: u64) -> Result<(), JwtFault> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(&(ended, oldest)) = spent.by_end.first()
            && ended <= now
        {
            spent.by_end.pop_first();
            spent.all.remove(&oldest);
            spent.forgotten = spent.forgotten.max(ended);
        }
        match spent.all.get(&fingerprint) {
            Some(Purpose::Unknown | Purpose::HandOver(_)) if purpose == Purpose::Unknown => return Ok(()),
            Some(_) => return Err(JwtFault::Replayed),
            None if end <= spent.forgotten => return Err(JwtFault::Replayed),
            None => {}
        }
        if spent.all.len() >= SPENT_MAX {
            let first = spent.by_end.first().map_or(now, |&(end, _)| end);
            return Err(JwtFault::ReplaysFull(Duration::from_secs(first.saturating_sub(now))));
        }
        spent.all.insert(fingerprint, purpose);
        spent.by_end.insert((end, fingerprint));
        Ok(())
    }
}

fn jti(claims: &Claims) -> Fingerprint {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, claims.jti.as_bytes()).as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(number: usize) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    #[test]
    fn a_spent_token_is_remembered_until_its_age_refuses_it() {
        let replays = Replays::default();
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Once, 100), Ok(()));
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Once, 699), Err(JwtFault::Replayed));
        assert_eq!(replays.remember(fingerprint(1), 1400, Purpose::Once, 700), Ok(()));
        assert_eq!(replays.spent.lock().expect("no panic").all.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_spent_token_good_again() {
        let replays = Replays::default();
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Once, 100), Ok(()));
        // An hour ahead, the token is over and forgotten.
        assert_eq!(replays.remember(fingerprint(2), 4_300, Purpose::Once, 3_700), Ok(()));
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Once, 110), Err(JwtFault::Replayed));
        assert_eq!(
            replays.remember(fingerprint(3), 701, Purpose::Once, 110),
            Ok(()),
            "one that cannot have been forgotten"
        );
    }

    #[test]
    fn a_full_table_refuses_newcomers_and_forgets_no_live_token() {
        let replays = Replays::default();
        for number in 0..SPENT_MAX {
            assert_eq!(replays.remember(fingerprint(number), 700, Purpose::Once, 100), Ok(()));
        }
        assert_eq!(
            replays.remember(fingerprint(SPENT_MAX), 700, Purpose::Once, 100),
            Err(JwtFault::ReplaysFull(Duration::from_secs(600)))
        );
        assert_eq!(replays.remember(fingerprint(0), 700, Purpose::Once, 100), Err(JwtFault::Replayed));
        assert_eq!(replays.remember(fingerprint(SPENT_MAX), 1400, Purpose::Once, 700), Ok(()));
    }

    #[test]
    fn a_hand_over_may_come_again_with_its_body_and_with_no_other() {
        let replays = Replays::default();
        let begin = || replays.remember(fingerprint(1), 700, Purpose::Unknown, 100);
        let settle = |request| replays.settle(&Use(fingerprint(1)), fingerprint(request));
        assert_eq!(begin(), Ok(()));
        // The first body broke off; the token is good for the first that is whole.
        assert_eq!((begin(), settle(7)), (Ok(()), Ok(())));
        assert_eq!((begin(), settle(7)), (Ok(()), Ok(())));
        assert_eq!((begin(), settle(8)), (Ok(()), Err(JwtFault::Replayed)));
        assert_eq!(settle(7), Ok(()), "another body changes nothing");
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Once, 100), Err(JwtFault::Replayed));
    }

    #[test]
    fn a_call_without_a_body_comes_once() {
        let replays = Replays::default();
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Once, 100), Ok(()));
        for purpose in [Purpose::Once, Purpose::Unknown] {
            assert_eq!(replays.remember(fingerprint(1), 700, purpose, 100), Err(JwtFault::Replayed));
        }
        assert_eq!(replays.settle(&Use(fingerprint(1)), fingerprint(7)), Err(JwtFault::Replayed));
    }

    #[test]
    fn a_token_that_expired_before_its_body_came_is_good_for_nothing() {
        let replays = Replays::default();
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Unknown, 699), Ok(()));
        assert_eq!(replays.remember(fingerprint(2), 1400, Purpose::Unknown, 700), Ok(()));
        assert_eq!(replays.settle(&Use(fingerprint(1)), fingerprint(7)), Err(JwtFault::Replayed));
        assert_eq!(replays.remember(fingerprint(1), 700, Purpose::Unknown, 700), Err(JwtFault::Replayed));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        assert_eq!(JwtKey::from_pem(p384.public_key_pem().as_bytes()).err(), Some(JwtKeyError));
        assert_eq!(JwtKey::from_pem(b"no key").err(), Some(JwtKeyError));
        for (kind, algorithm) in [(&rcgen::PKCS_ECDSA_P256_SHA256, "ES256"), (&rcgen::PKCS_ED25519, "EdDSA")] {
            let pair = rcgen::KeyPair::generate_for(kind).expect("a key");
            assert_eq!(JwtKey::from_pem(pair.public_key_pem().as_bytes()).map(|key| key.algorithm), Ok(algorithm));
        }
    }
}
