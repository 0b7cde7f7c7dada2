//! SKELETON. Digest arithmetic, both sides (RFC 7616, RFC 8760, RFC 2069 form without qop). Intermediate secrets are zeroized.
use super::auth::{Algorithm, Challenge, Credentials};
use zeroize::Zeroizing;
/// What proves the user.
#[derive(Clone, Copy)]
pub enum Secret<'a> { Password(&'a [u8]), /// lower-case hex of H(user:realm:password)
    Ha1(&'a str) }
/// Lower-case hex of H(username:realm:password).
pub fn ha1(_algorithm: Algorithm, _username: &str, _realm: &str, _password: &[u8]) -> Zeroizing<String> { todo!() }
/// A challenge we keep for later requests (nonce count goes on).
#[derive(Clone, Debug)]
pub struct Session { pub proxy: bool, pub realm: String, pub nonce: String, pub opaque: Option<String>, pub algorithm: Algorithm, pub qop_auth: bool, pub nc: u32 }
impl Session {
    /// The strongest challenge we can answer among `challenges`, for which `usable(realm, algorithm)` holds. nonce ≤ 512 bytes.
    pub fn choose<'a>(_challenges: impl Iterator<Item = Challenge<'a>>, _usable: impl Fn(&str, Algorithm) -> bool) -> Option<Self> { todo!() }
    /// Takes Authentication-Info's nextnonce (RFC 7616 §3.5): nc starts anew.
    pub fn handle_authentication_info(&mut self, _value: &[u8]) { todo!() }
    /// The (Proxy-)Authorization value; counts nc up (8 hex digits on the wire).
    pub fn authorize(&mut self, _username: &str, _secret: Secret<'_>, _method: &str, _uri: &str, _cnonce: &str) -> String { todo!() }
}
/// For the answering side: checks a response against HA1, constant time.
pub fn verify(_credentials: &Credentials<'_>, _ha1: &str, _algorithm: Algorithm, _method: &str) -> bool { todo!() }
