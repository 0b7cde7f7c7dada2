//! Who may register: digest challenges, their nonces and nonce counts.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Instant;
use crate::sandbox::agent::random_token;
use crate::sip::auth::{Algorithm, Credentials};
use crate::sip::{HeaderName, Message, digest};

/// Nonces remembered at once; the oldest is forgotten first and then counts as stale.
const NONCES_MAX: usize = 10_000;

pub(super) struct Guard {
    realm: String,
    algorithms: Vec<Algorithm>,
    nonce_life: Duration,
    nonces: HashMap<String, Nonce>,
    by_age: VecDeque<String>,
}

struct Nonce {
    issued: Instant,
    /// The highest nonce count seen; a repeated one is a replay.
    count: u32,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// No credentials for our realm, or wrong ones.
    Unproven,
    /// The credentials are right, but the nonce is not usable any more.
    Stale,
}

impl Guard {
    pub(super) fn new(realm: String, algorithms: Vec<Algorithm>, nonce_life: Duration) -> Self {
        Self { realm, algorithms, nonce_life, nonces: HashMap::new(), by_age: VecDeque::new() }
    }

    /// Checks the credentials of a request against the user's password.
    pub(super) fn check(&mut self, request: &Message, user: &str, password: &str, now: Instant) -> Result<(), Denial> {
        let method = request.method().ok_or(Denial::Unproven)?;
        let credentials = request.credentials(HeaderName::Authorization, &self.realm).ok_or(Denial::Unproven)?;
        let algorithm = credentials.algorithm.filter(|one| self.algorithms.contains(one)).ok_or(Denial::Unproven)?;
        let ha1 = digest::ha1(algorithm, user, &self.realm, password.as_bytes());
        let same_uri = request.request_uri() == Some(credentials.uri.as_bytes());
        let proven =
            same_uri && credentials.username == user && digest::verify(&credentials, &ha1, algorithm, method.as_str());
        if !proven {
            return Err(Denial::Unproven);
        }
        self.take_count(&credentials, now)
    }

    /// Values of WWW-Authenticate under a new nonce, one for each algorithm.
    pub(super) fn challenge(&mut self, stale: bool, now: Instant) -> Vec<String> {
        let nonce = random_token();
        if self.by_age.len() >= NONCES_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.nonces.remove(&oldest);
        }
        self.nonces.insert(nonce.clone(), Nonce { issued: now, count: 0 });
        self.by_age.push_back(nonce.clone());
        let one = |algorithm: &Algorithm| digest::challenge(&self.realm, &nonce, *algorithm, stale);
        self.algorithms.iter().map(one).collect()
    }

    /// A nonce may be used again as long as its count grows (RFC 7616 §3.4.3).
    fn take_count(&mut self, credentials: &Credentials<'_>, now: Instant) -> Result<(), Denial> {
        let nonce = self.nonces.get_mut(credentials.nonce.as_ref()).ok_or(Denial::Stale)?;
        let count = credentials.nc.unwrap_or(nonce.count.saturating_add(1));
        if count <= nonce.count || now.saturating_since(nonce.issued) > self.nonce_life {
            return Err(Denial::Stale);
        }
        nonce.count = count;
        Ok(())
    }
}
