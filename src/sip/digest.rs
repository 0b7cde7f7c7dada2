//! Digest arithmetic of both sides: answering a challenge and checking an answer (RFC 7616, RFC 8760, and the form
//! without qop of RFC 2069).
//!
//! Its own room because it is the only one that touches passwords and H(A1): what it derives from them is wiped before it
//! returns, but for what the hash functions leave on the stack; that is for the lender to overwrite. It refuses algorithms and
//! qop it does not know instead of signing something else, and it keeps no secret.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest as sha;
use md5::{Digest as _, Md5};
use zeroize::{Zeroize, Zeroizing};

use super::auth::{Algorithm, Challenge, Credentials, Qop, SESSION};
use super::grammar::{self, Elements};

/// The longest nonce we carry: it is kept for each binding and sent in each request.
pub const NONCE_MAX: usize = 2048;
/// The longest opaque we carry, for the same reason.
pub const OPAQUE_MAX: usize = 2048;
/// The longest realm we answer to.
pub const REALM_MAX: usize = 256;

/// What proves the user.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// The password itself.
    Password(&'a [u8]),
    /// H(username:realm:password) in lower-case hex.
    Ha1(&'a str),
}

/// What is signed of a request.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// Its method.
    pub method: &'a str,
    /// The digest uri, byte for byte.
    pub uri: &'a str,
    /// Its body, which `auth-int` covers.
    pub body: &'a [u8],
}

impl<'a> Signed<'a> {
    /// A request without a body.
    #[must_use]
    pub fn bare(method: &'a str, uri: &'a str) -> Self {
        Self { method, uri, body: b"" }
    }
}

/// H(username:realm:password) in lower-case hex.
#[must_use]
pub fn ha1(algorithm: Algorithm, username: &str, realm: impl AsRef<[u8]>, password: &[u8]) -> Zeroizing<String> {
    hash(algorithm, &[username.as_bytes(), realm.as_ref(), password])
}

/// A challenge kept for later requests, for which the nonce count goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whether it is answered in Proxy-Authorization.
    pub proxy: bool,
    /// Whose password is asked for, as it stands between the quotes.
    pub realm: Vec<u8>,
    /// The server's nonce, as it stands between the quotes.
    pub nonce: Vec<u8>,
    /// Returned as it came.
    pub opaque: Option<Vec<u8>>,
    /// What hashes.
    pub algorithm: Algorithm,
    /// With the -sess form: the client nonce that H(A1) is made with, once there is one. All requests use it, since servers
    /// take either that of the first request or that of the one they check.
    pub session: Option<String>,
    /// Without one, the form of RFC 2069. Never `Unsupported`.
    pub qop: Qop,
    /// Requests signed under this nonce so far.
    pub nc: u32,
}

impl Session {
    /// The strongest of `challenges` that we can answer and for which `usable(realm, algorithm)` holds; among equals the one
    /// with the better qop, then the first.
    #[must_use]
    pub fn choose<'a>(
        challenges: impl Iterator<Item = Challenge<'a>>,
        usable: impl Fn(&[u8], Algorithm) -> bool,
    ) -> Option<Self> {
        let mut best: Option<Self> = None;
        for challenge in challenges {
            let Some(session) = Self::answering(&challenge) else { continue };
            let strength = |session: &Self| (session.algorithm, session.qop);
            let better = best.as_ref().is_none_or(|best| strength(&session) > strength(best));
            if better && usable(&session.realm, session.algorithm) {
                best = Some(session);
            }
        }
        best
    }

    /// The answers to a challenge; `None`: we do not compute what it wants, or it is too long to be kept.
    #[must_use]
    pub fn answering(challenge: &Challenge<'_>) -> Option<Self> {
        let algorithm = challenge.algorithm.filter(|_| challenge.qop != Qop::Unsupported)?;
        let fits = carriable(&challenge.nonce, NONCE_MAX)
            && carriable(&challenge.realm, REALM_MAX)
            && challenge.opaque.as_deref().is_none_or(|opaque| carriable(opaque, OPAQUE_MAX));
        fits.then(|| Self {
            proxy: challenge.proxy,
            realm: challenge.realm.to_vec(),
            nonce: challenge.nonce.to_vec(),
            opaque: challenge.opaque.as_deref().map(<[u8]>::to_vec),
            algorithm,
            session: challenge.session.then(String::new),
            qop: challenge.qop,
            nc: 0,
        })
    }

    /// Takes (Proxy-)Authentication-Info's nextnonce (RFC 7616 §3.5): the count starts anew. Not with the -sess form, of
    /// which the first nonce stays part of H(A1) for some servers and not for others: the next challenge decides.
    pub fn handle_authentication_info(&mut self, value: &[u8]) {
        let next = parameter(value, "nextnonce").filter(|nonce| self.session.is_none() && carriable(nonce, NONCE_MAX));
        if let Some(nonce) = next {
            self.nonce = nonce;
            self.nc = 0;
        }
    }

    /// Goes on with the count of a former session under the same nonce.
    pub fn go_on_from(&mut self, former: &Self) {
        if former.nonce == self.nonce && former.algorithm == self.algorithm {
            self.nc = former.nc;
            self.session = self.session.take().and(former.session.clone());
        }
    }

    /// The value of (Proxy-)Authorization for a request; counts up.
    #[must_use]
    pub fn authorize(&mut self, username: &str, secret: Secret<'_>, signed: Signed<'_>, cnonce: &str) -> Vec<u8> {
        self.nc = self.nc.saturating_add(1);
        let cnonce = match &mut self.session {
            None => cnonce.to_owned(),
            Some(first) => {
                if first.is_empty() {
                    cnonce.clone_into(first);
                }
                first.clone()
            }
        };
        let nc = nonce_count(self.nc);
        let response = self.response(username, secret, signed, &nc, &cnonce);

        let mut value = Vec::with_capacity(256 + self.nonce.len());
        value.extend_from_slice(b"Digest ");
        quoted(&mut value, "username", username);
        as_it_came(&mut value, ", realm", &self.realm);
        as_it_came(&mut value, ", nonce", &self.nonce);
        quoted(&mut value, ", uri", signed.uri);
        quoted(&mut value, ", response", &response);
        value.extend_from_slice(b", algorithm=");
        value.extend_from_slice(self.algorithm.as_str().as_bytes());
        if self.session.is_some() {
            value.extend_from_slice(SESSION.as_bytes());
        }
        if self.qop != Qop::None || self.session.is_some() {
            quoted(&mut value, ", cnonce", &cnonce);
        }
        if self.qop != Qop::None {
            let qop = if self.qop == Qop::AuthInt { "auth-int" } else { "auth" };
            value.extend_from_slice(format!(", qop={qop}, nc={nc}").as_bytes());
        }
        if let Some(opaque) = &self.opaque {
            as_it_came(&mut value, ", opaque", opaque);
        }
        value
    }

    fn response(
        &self,
        username: &str,
        secret: Secret<'_>,
        signed: Signed<'_>,
        nc: &str,
        cnonce: &str,
    ) -> Zeroizing<String> {
        let computed;
        let mut ha1 = match secret {
            Secret::Ha1(ha1) => ha1,
            Secret::Password(password) => {
                computed = ha1(self.algorithm, username, &self.realm, password);
                computed.as_str()
            }
        };
        let of_session;
        if self.session.is_some() {
            // "H( unq(username) ":" unq(realm) ":" passwd ) ":" unq(nonce-prime) ":" unq(cnonce-prime)" (RFC 7616 §3.4.2)
            of_session = hash(self.algorithm, &[ha1.as_bytes(), &self.nonce, cnonce.as_bytes()]);
            ha1 = of_session.as_str();
        }
        let count = (self.qop != Qop::None).then_some((nc, cnonce));
        let body = (self.qop == Qop::AuthInt).then_some(signed.body);
        let proof = Proof { nonce: &self.nonce, count, method: signed.method, uri: signed.uri, body };
        proof.response(self.algorithm, ha1)
    }
}

/// A challenge of our own, as the value of WWW-Authenticate or Proxy-Authenticate. Short, because a 401 over UDP may not
/// be longer than the request.
#[must_use]
pub fn challenge(realm: &str, nonce: &str, algorithm: Algorithm, stale: bool) -> String {
    let mut parts = Vec::new();
    quoted(&mut parts, "realm", realm);
    quoted(&mut parts, ",nonce", nonce);
    let parts = String::from_utf8(parts).expect("made of texts");
    let stale = if stale { ",stale=true" } else { "" };
    format!("Digest {parts},algorithm={},qop=\"auth\"{stale}", algorithm.as_str())
}

/// For the side that challenged: whether the credentials prove knowledge of `ha1`, compared in constant time. Realm,
/// nonce, uri and nonce count are the caller's to judge; an answer under another algorithm than asked for is refused.
#[must_use]
pub fn verify(credentials: &Credentials<'_>, ha1: &str, algorithm: Algorithm, method: &str) -> bool {
    if credentials.algorithm != Some(algorithm) {
        return false;
    }
    let given = credentials.response.to_ascii_lowercase();
    let proves = |count: Option<(&str, &str)>| {
        let nonce = credentials.nonce.as_bytes();
        let proof = Proof { nonce, count, method, uri: &credentials.uri, body: None };
        let expected = proof.response(algorithm, ha1);
        verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_ok()
    };
    if !credentials.qop_auth {
        return proves(None);
    }
    let (Some(nc), Some(cnonce)) = (credentials.nc, credentials.cnonce.as_deref()) else { return false };
    // "LHEX" says lower case; phones that count in capitals hash what they wrote.
    let (lower, upper) = (nonce_count(nc), format!("{nc:08X}"));
    proves(Some((&lower, cnonce))) || (upper != lower && proves(Some((&upper, cnonce))))
}

/// What a response proves, beside the password (RFC 7616 §3.4.1).
struct Proof<'a> {
    nonce: &'a [u8],
    /// Nonce count as written and client nonce, with a qop.
    count: Option<(&'a str, &'a str)>,
    method: &'a str,
    uri: &'a str,
    /// With `qop=auth-int`.
    body: Option<&'a [u8]>,
}

impl Proof<'_> {
    fn response(&self, algorithm: Algorithm, ha1: &str) -> Zeroizing<String> {
        let (method, uri) = (self.method.as_bytes(), self.uri.as_bytes());
        let ha2 = match self.body {
            None => hash(algorithm, &[method, uri]),
            Some(body) => hash(algorithm, &[method, uri, hash(algorithm, &[body]).as_bytes()]),
        };
        let qop: &[u8] = if self.body.is_some() { b"auth-int" } else { b"auth" };
        let (ha1, nonce, ha2) = (ha1.as_bytes(), self.nonce, ha2.as_bytes());
        match self.count {
            Some((nc, cnonce)) => hash(algorithm, &[ha1, nonce, nc.as_bytes(), cnonce.as_bytes(), qop, ha2]),
            None => hash(algorithm, &[ha1, nonce, ha2]),
        }
    }
}

/// "The nc value is the hexadecimal count", eight digits (RFC 7616 §3.4).
fn nonce_count(nc: u32) -> String {
    format!("{nc:08x}")
}

/// Lower-case hex of the hash over `parts`, joined by colons.
fn hash(algorithm: Algorithm, parts: &[&[u8]]) -> Zeroizing<String> {
    match algorithm {
        Algorithm::Md5 => md5_hex(parts),
        Algorithm::Sha256 => sha_hex(&sha::SHA256, parts),
        Algorithm::Sha512256 => sha_hex(&sha::SHA512_256, parts),
    }
}

fn md5_hex(parts: &[&[u8]]) -> Zeroizing<String> {
    // Reset instead of consumed: a moved hasher would leave its block, with the end of the password, behind.
    let mut hasher = Md5::new();
    joined(parts, |bytes| hasher.update(bytes));
    let mut output = hasher.finalize_reset();
    let text = hex(&output);
    output.as_mut_slice().zeroize();
    text
}

fn sha_hex(algorithm: &'static sha::Algorithm, parts: &[&[u8]]) -> Zeroizing<String> {
    let mut context = sha::Context::new(algorithm);
    joined(parts, |bytes| context.update(bytes));
    // `Digest` offers no way to wipe it.
    hex(context.finish().as_ref())
}

fn joined(parts: &[&[u8]], mut take: impl FnMut(&[u8])) {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            take(b":");
        }
        take(part);
    }
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // The capacity is exact, so that growing leaves no copy behind.
    let mut digits = Vec::with_capacity(bytes.len() * 2);
    for byte in bytes {
        digits.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    Zeroizing::new(String::from_utf8(digits).expect("digits are ASCII"))
}

/// `name="value"` with quotes and backslashes escaped.
fn quoted(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    for &byte in value.as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// `name="value"` with what stood between quotes before.
fn as_it_came(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    out.extend_from_slice(value);
    out.push(b'"');
}

/// Short enough to keep, and free of what a header field cannot carry.
fn carriable(text: &[u8], max: usize) -> bool {
    text.len() <= max && !text.iter().any(u8::is_ascii_control)
}

/// The value of a parameter in a comma-separated list, as it stands between its quotes.
fn parameter(list: &[u8], wanted: &str) -> Option<Vec<u8>> {
    Elements::of_parameters(list).find_map(|element| {
        let (name, rest) = grammar::token(element)?;
        let value = grammar::trim_start(grammar::trim_start(rest).strip_prefix(b"=")?);
        if !name.eq_ignore_ascii_case(wanted) {
            return None;
        }
        if value.starts_with(b"\"") {
            return Some(grammar::quoted(value)?.0.to_vec());
        }
        (!value.iter().any(|byte| b"\"\\".contains(byte))).then(|| value.to_vec())
    })
}

#[cfg(test)]
mod tests;
