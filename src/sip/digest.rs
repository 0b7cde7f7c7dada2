//! Digest arithmetic of both sides: answering a challenge and checking an answer (RFC 7616, RFC 8760, and the form
//! without qop of RFC 2069).
//!
//! Its own room because it is the only one that touches passwords and H(A1): what it derives from them is wiped before it
//! returns, but for what the hash functions leave on the stack; that is for the lender to overwrite. It refuses `auth-int`,
//! `-sess` and algorithms it does not know instead of signing something else, and it keeps no secret.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest as sha;
use md5::{Digest as _, Md5};
use zeroize::{Zeroize, Zeroizing};

use super::auth::{Algorithm, Challenge, Credentials, Qop};
use super::grammar::{self, Elements};

/// The longest nonce we carry: it is kept for each binding and sent in each request.
pub const NONCE_MAX: usize = 512;
/// The longest opaque we carry, for the same reason.
pub const OPAQUE_MAX: usize = 512;
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

/// H(username:realm:password) in lower-case hex.
#[must_use]
pub fn ha1(algorithm: Algorithm, username: &str, realm: &str, password: &[u8]) -> Zeroizing<String> {
    hash(algorithm, &[username.as_bytes(), realm.as_bytes(), password])
}

/// A challenge kept for later requests, for which the nonce count goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whether it is answered in Proxy-Authorization.
    pub proxy: bool,
    /// Whose password is asked for.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// Returned as it came.
    pub opaque: Option<String>,
    /// What hashes.
    pub algorithm: Algorithm,
    /// With `qop=auth`; without, the form of RFC 2069.
    pub qop_auth: bool,
    /// Requests signed under this nonce so far.
    pub nc: u32,
}

impl Session {
    /// The strongest of `challenges` that we can answer and for which `usable(realm, algorithm)` holds; among equals one
    /// with qop, then the first.
    #[must_use]
    pub fn choose<'a>(
        challenges: impl Iterator<Item = Challenge<'a>>,
        usable: impl Fn(&str, Algorithm) -> bool,
    ) -> Option<Self> {
        let mut best: Option<Self> = None;
        for challenge in challenges {
            let Some(session) = Self::answering(&challenge) else { continue };
            let strength = |session: &Self| (session.algorithm, session.qop_auth);
            let better = best.as_ref().is_none_or(|best| strength(&session) > strength(best));
            if better && usable(&session.realm, session.algorithm) {
                best = Some(session);
            }
        }
        best
    }

    /// Takes Authentication-Info's nextnonce (RFC 7616 §3.5): the count starts anew.
    pub fn handle_authentication_info(&mut self, value: &[u8]) {
        if let Some(nonce) = parameter(value, "nextnonce").filter(|nonce| carriable(nonce, NONCE_MAX)) {
            self.nonce = nonce;
            self.nc = 0;
        }
    }

    /// The value of (Proxy-)Authorization for a request; counts up. `uri` is the digest uri, byte for byte.
    #[must_use]
    pub fn authorize(&mut self, username: &str, secret: Secret<'_>, method: &str, uri: &str, cnonce: &str) -> String {
        self.nc = self.nc.saturating_add(1);
        let computed;
        let ha1 = match secret {
            Secret::Ha1(ha1) => ha1,
            Secret::Password(password) => {
                computed = ha1(self.algorithm, username, &self.realm, password);
                computed.as_str()
            }
        };
        let nc = nonce_count(self.nc);
        let count = self.qop_auth.then_some((nc.as_str(), cnonce));
        let proof = Proof { nonce: &self.nonce, count, method, uri };
        let response = proof.response(self.algorithm, ha1);

        let mut value = String::with_capacity(256 + self.nonce.len());
        value.push_str("Digest ");
        quoted(&mut value, "username", username);
        quoted(&mut value, ", realm", &self.realm);
        quoted(&mut value, ", nonce", &self.nonce);
        quoted(&mut value, ", uri", uri);
        quoted(&mut value, ", response", &response);
        value.push_str(", algorithm=");
        value.push_str(self.algorithm.as_str());
        if self.qop_auth {
            quoted(&mut value, ", cnonce", cnonce);
            value.push_str(", qop=auth, nc=");
            value.push_str(&nc);
        }
        if let Some(opaque) = &self.opaque {
            quoted(&mut value, ", opaque", opaque);
        }
        value
    }

    fn answering(challenge: &Challenge<'_>) -> Option<Self> {
        let algorithm = challenge.algorithm?;
        let qop_auth = match challenge.qop {
            Qop::Auth => true,
            Qop::None => false,
            Qop::Unsupported => return None,
        };
        let fits = carriable(&challenge.nonce, NONCE_MAX)
            && carriable(&challenge.realm, REALM_MAX)
            && challenge.opaque.as_deref().is_none_or(|opaque| carriable(opaque, OPAQUE_MAX));
        fits.then(|| Self {
            proxy: challenge.proxy,
            realm: challenge.realm.clone().into_owned(),
            nonce: challenge.nonce.clone().into_owned(),
            opaque: challenge.opaque.clone().map(std::borrow::Cow::into_owned),
            algorithm,
            qop_auth,
            nc: 0,
        })
    }
}

/// A challenge of our own, as the value of WWW-Authenticate or Proxy-Authenticate. Short, because a 401 over UDP may not
/// be longer than the request.
#[must_use]
pub fn challenge(realm: &str, nonce: &str, algorithm: Algorithm, stale: bool) -> String {
    let mut value = String::from("Digest ");
    quoted(&mut value, "realm", realm);
    quoted(&mut value, ",nonce", nonce);
    value.push_str(",algorithm=");
    value.push_str(algorithm.as_str());
    value.push_str(",qop=\"auth\"");
    if stale {
        value.push_str(",stale=true");
    }
    value
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
        let proof = Proof { nonce: &credentials.nonce, count, method, uri: &credentials.uri };
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
    nonce: &'a str,
    /// Nonce count as written and client nonce, with `qop=auth`.
    count: Option<(&'a str, &'a str)>,
    method: &'a str,
    uri: &'a str,
}

impl Proof<'_> {
    fn response(&self, algorithm: Algorithm, ha1: &str) -> Zeroizing<String> {
        let ha2 = hash(algorithm, &[self.method.as_bytes(), self.uri.as_bytes()]);
        let (ha1, nonce, ha2) = (ha1.as_bytes(), self.nonce.as_bytes(), ha2.as_bytes());
        match self.count {
            Some((nc, cnonce)) => hash(algorithm, &[ha1, nonce, nc.as_bytes(), cnonce.as_bytes(), b"auth", ha2]),
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
fn quoted(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\')) {
        out.push_str(&rest[..at]);
        out.push('\\');
        out.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Short enough to keep, and free of what a header field cannot carry.
fn carriable(text: &str, max: usize) -> bool {
    text.len() <= max && !text.chars().any(|character| character.is_ascii_control())
}

/// The value of a parameter in a comma-separated list, with quotes and escapes undone.
fn parameter(list: &[u8], wanted: &str) -> Option<String> {
    Elements::of_parameters(list).find_map(|element| {
        let (name, rest) = grammar::token(element)?;
        let value = grammar::trim_start(grammar::trim_start(rest).strip_prefix(b"=")?);
        if !name.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let value = if value.starts_with(b"\"") { grammar::unquote(grammar::quoted(value)?.0) } else { value.into() };
        String::from_utf8(value.into_owned()).ok()
    })
}

#[cfg(test)]
mod tests;
