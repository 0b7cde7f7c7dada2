//! SKELETON. URIs (RFC 3261 §19.1), views over bytes.

use std::net::IpAddr;

/// A parsed URI.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> { raw: &'a [u8] }

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> { Name(&'a str), Address(IpAddr) }

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed URI")]
pub struct UriError;

impl<'a> Uri<'a> {
    /// Any scheme parses; only sip:/sips: have parts (others: `host()` is an empty name, no user, port, params).
    pub fn parse(_raw: &'a [u8]) -> Result<Self, UriError> { todo!() }
    pub fn raw(&self) -> &'a [u8] { self.raw }
    pub fn scheme(&self) -> &'a str { todo!() }
    /// `sip:`, case-insensitive (not sips).
    pub fn is_sip(&self) -> bool { todo!() }
    pub fn is_sips(&self) -> bool { todo!() }
    /// User part as written, without password.
    pub fn user(&self) -> Option<&'a [u8]> { todo!() }
    pub fn host(&self) -> Host<'a> { todo!() }
    pub fn port(&self) -> Option<u16> { todo!() }
    /// A URI parameter by name (any case): `None` absent, `Some(None)` without value.
    pub fn param(&self, _name: &str) -> Option<Option<&'a str>> { todo!() }
    pub fn has_lr(&self) -> bool { self.param("lr").is_some() }
}

/// RFC 3261 §19.1.4.
pub fn equivalent(_a: &Uri<'_>, _b: &Uri<'_>) -> bool { todo!() }
/// Undoes %-escapes.
pub fn unescape(_text: &[u8]) -> Vec<u8> { todo!() }
