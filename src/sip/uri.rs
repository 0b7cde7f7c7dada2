//! URIs (RFC 3261 §19.1), views over bytes.
//!
//! A URI is cut once and then read without copying. Any scheme is accepted, since a proxy forwards what it does not
//! understand; only sip: and sips: have parts. It refuses what could be read in two ways: white space, quotes, angle
//! brackets, an IPv6 address without brackets, a host name that ends in a number yet is no IPv4 address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::grammar;

/// A parsed URI.
#[derive(Clone, Copy)]
pub struct Uri<'a> {
    raw: &'a [u8],
    scheme: &'a str,
    /// Of other schemes than sip: and sips:, nothing more is known.
    parts: Option<Parts<'a>>,
}

#[derive(Clone, Copy)]
struct Parts<'a> {
    user: Option<&'a [u8]>,
    password: Option<&'a [u8]>,
    host: Host<'a>,
    port: Option<u16>,
    /// Begins with `;` or is empty.
    params: &'a str,
    /// What follows `?`.
    headers: &'a [u8],
}

/// Where a URI or a Via points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name to be looked up.
    Name(&'a str),
    /// An address literal.
    Address(IpAddr),
}

/// The bytes are no URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed URI")]
pub struct UriError;

impl<'a> Uri<'a> {
    /// Cuts a URI into its parts. Any scheme parses; only sip:/sips: have parts (others: `host()` is an empty name, and
    /// there is no user, port or parameter).
    ///
    /// # Errors
    /// If there is no scheme, a byte that no URI may hold, or no sound host in a sip: or sips: URI.
    pub fn parse(raw: &'a [u8]) -> Result<Self, UriError> {
        let colon = raw.iter().position(|&byte| byte == b':').ok_or(UriError)?;
        let scheme = scheme(&raw[..colon])?;
        let rest = &raw[colon + 1..];
        if rest.is_empty() || rest.iter().any(|&byte| is_forbidden(byte)) {
            return Err(UriError);
        }
        let has_parts = scheme.eq_ignore_ascii_case("sip") || scheme.eq_ignore_ascii_case("sips");
        let parts = if has_parts { Some(Parts::parse(rest).ok_or(UriError)?) } else { None };
        Ok(Self { raw, scheme, parts })
    }

    /// The URI as it stands.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The scheme as written, without the colon.
    pub fn scheme(&self) -> &'a str {
        self.scheme
    }

    /// `sip:`, case-insensitive (not sips).
    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sip")
    }

    /// `sips:`, case-insensitive.
    pub fn is_sips(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sips")
    }

    /// User part as written, without password.
    pub fn user(&self) -> Option<&'a [u8]> {
        self.parts.and_then(|parts| parts.user)
    }

    /// The password that RFC 3261 §19.1.1 calls "NOT RECOMMENDED", as written.
    pub fn password(&self) -> Option<&'a [u8]> {
        self.parts.and_then(|parts| parts.password)
    }

    /// The host; an empty name in a URI of another scheme.
    pub fn host(&self) -> Host<'a> {
        self.parts.map_or(Host::Name(""), |parts| parts.host)
    }

    /// The port, if one is written.
    pub fn port(&self) -> Option<u16> {
        self.parts.and_then(|parts| parts.port)
    }

    /// A URI parameter by name (any case, escapes undone): `None` absent, `Some(None)` without value.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params().find(|(found, _)| same_name(found, name)).map(|(_, value)| value)
    }

    /// All URI parameters in order, as written.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        params(self.parts.map_or("", |parts| parts.params))
    }

    /// What follows `?`, as written.
    pub fn headers(&self) -> &'a [u8] {
        self.parts.map_or(&[], |parts| parts.headers)
    }

    /// Whether the URI is a loose router's (RFC 3261 §19.1.1).
    pub fn has_lr(&self) -> bool {
        self.param("lr").is_some()
    }
}

impl<'a> Parts<'a> {
    fn parse(rest: &'a [u8]) -> Option<Self> {
        // The user part may hold `;`, `?`, `/` and `:`, but never `@` (RFC 3261 §25.1), so the first one ends it.
        let (user, password, rest) = match rest.iter().position(|&byte| byte == b'@') {
            None => (None, None, rest),
            Some(at) => {
                let (user, password) = split_once(&rest[..at], b':');
                (Some(user), password, &rest[at + 1..])
            }
        };
        let (host, rest) = host(rest)?;
        let (port, rest) = match rest.strip_prefix(b":") {
            None => (None, rest),
            Some(rest) => port(rest).map(|(port, rest)| (Some(port), rest))?,
        };
        let (params, headers) = split_once(rest, b'?');
        let params = std::str::from_utf8(params).ok()?;
        let has_params =
            params.is_empty() || params.starts_with(';') && self::params(params).all(|(name, _)| !name.is_empty());
        let has_headers = headers
            .is_none_or(|headers| headers.split(|&byte| byte == b'&').all(|field| !matches!(field, [] | [b'=', ..])));
        let sound = has_params && has_headers;
        sound.then_some(Self { user, password, host, port, params, headers: headers.unwrap_or_default() })
    }

    fn is_excessive(&self) -> bool {
        let separators = |text: &[u8], separator| text.iter().filter(|&&byte| byte == separator).count();
        separators(self.params.as_bytes(), b';') > COMPARED_MAX || separators(self.headers, b'&') > COMPARED_MAX
    }
}

/// The scheme only: the rest says who somebody is and where.
impl fmt::Debug for Uri<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Uri").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// How many parameters, and how many headers, are matched against each other: more than any known URI has. The work grows
/// with the square.
const COMPARED_MAX: usize = 32;

/// RFC 3261 §19.1.4. URIs with an absurd number of parameters or headers are equivalent only if they are equal.
pub fn equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    if a.raw == b.raw {
        return true;
    }
    if !a.scheme.eq_ignore_ascii_case(b.scheme) {
        return false;
    }
    let (Some(left), Some(right)) = (a.parts, b.parts) else {
        return a.raw[a.scheme.len()..] == b.raw[b.scheme.len()..];
    };
    if left.is_excessive() || right.is_excessive() {
        return false;
    }
    same_text(left.user, right.user)
        && same_text(left.password, right.password)
        && same_host(left.host, right.host)
        && left.port == right.port
        && params_match(a, b)
        && params_match(b, a)
        && headers_match(left.headers, right.headers)
}

/// Undoes %-escapes; a `%` without two hexadecimal digits stays.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    unescaped(text).collect()
}

fn unescaped(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escaped = if byte == b'%' { text.get(at + 1..at + 3).and_then(hex_pair) } else { None };
        at += if escaped.is_some() { 3 } else { 1 };
        Some(escaped.unwrap_or(byte))
    })
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(digits[0])? * 16 + digit(digits[1])?)
}

/// `scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`.
fn scheme(text: &[u8]) -> Result<&str, UriError> {
    let sound = text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if sound { std::str::from_utf8(text).map_err(|_| UriError) } else { Err(UriError) }
}

/// Bytes that would end the URI where it is written. Others that RFC 3261 wants escaped (`#`, `|`, UTF-8) do come unescaped
/// and cannot be misread.
const fn is_forbidden(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, b'<' | b'>' | b'"' | 0x7f)
}

/// Reads a host off the front. Shared with Via.
pub(crate) fn host(text: &[u8]) -> Option<(Host<'_>, &[u8])> {
    if let Some(inside) = text.strip_prefix(b"[") {
        let end = inside.iter().position(|&byte| byte == b']')?;
        return Some((Host::Address(IpAddr::V6(reference(&inside[..end])?)), &inside[end + 1..]));
    }
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let end = text.iter().position(|&byte| !is_host_byte(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = std::str::from_utf8(name).ok()?;
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Some((Host::Address(IpAddr::V4(address)), rest));
    }
    is_name(name).then_some((Host::Name(name), rest))
}

/// The inside of `[…]`.
fn reference(text: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    // RFC 5118 §4.10: the grammar of RFC 3261 yields three colons before an IPv4 part, and such senders exist.
    let (front, ipv4) = text.rsplit_once(":::")?;
    let ipv4: Ipv4Addr = ipv4.parse().ok()?;
    format!("{front}::{ipv4}").parse().ok()
}

/// A host name whose last label is a number (decimal or `0x…`) would be taken for an IPv4 address by some resolvers and
/// not by others, so none is accepted.
fn is_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let last = labels.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    !is_number && labels.split('.').all(|label| !label.is_empty())
}

/// Reads a port off the front. Shared with Via.
pub(crate) fn port(text: &[u8]) -> Option<(u16, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((u16::try_from(grammar::number(digits)?).ok()?, rest))
}

fn split_once(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&byte| byte == separator) {
        None => (text, None),
        Some(at) => (&text[..at], Some(&text[at + 1..])),
    }
}

fn params(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> + use<'_> {
    let text = text.strip_prefix(';');
    text.into_iter().flat_map(|text| text.split(';')).map(|param| match param.split_once('=') {
        None => (param, None),
        Some((name, value)) => (name, Some(value)),
    })
}

fn same_name(written: &str, name: &str) -> bool {
    unescaped(written.as_bytes())
        .map(|byte| byte.to_ascii_lowercase())
        .eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

fn same_text(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => unescaped(a).eq(unescaped(b)),
        _ => false,
    }
}

fn same_host(a: Host<'_>, b: Host<'_>) -> bool {
    match (a, b) {
        (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
        (Host::Address(a), Host::Address(b)) => a == b,
        _ => false,
    }
}

/// Parameters that make URIs differ when only one has them. RFC 3261 §19.1.4 names user, ttl, method and maddr in its
/// rules; its examples add transport ("can resolve to different transports").
const DECISIVE: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

/// Whether each parameter of `a` that counts stands in `b` too.
fn params_match(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.params().all(|(name, value)| {
        let other = b.params().find(|(found, _)| same_unescaped(found.as_bytes(), name.as_bytes()));
        match other {
            Some((_, other)) => same_unescaped(value.unwrap_or("").as_bytes(), other.unwrap_or("").as_bytes()),
            None => !DECISIVE.iter().any(|decisive| same_name(name, decisive)),
        }
    })
}

fn same_unescaped(a: &[u8], b: &[u8]) -> bool {
    unescaped(a).map(|byte| byte.to_ascii_lowercase()).eq(unescaped(b).map(|byte| byte.to_ascii_lowercase()))
}

/// RFC 3261 §19.1.4: "URI header components are never ignored"; their order does not count.
fn headers_match(a: &[u8], b: &[u8]) -> bool {
    let fields = |text| <[u8]>::split(text, |&byte| byte == b'&');
    let holds = |all, one| fields(all).any(|field| same_header(field, one));
    fields(a).count() == fields(b).count()
        && fields(a).all(|field| holds(b, field))
        && fields(b).all(|field| holds(a, field))
}

fn same_header(a: &[u8], b: &[u8]) -> bool {
    let ((name, value), (other_name, other_value)) = (split_once(a, b'='), split_once(b, b'='));
    same_unescaped(name, other_name) && same_text(value, other_value)
}

#[cfg(test)]
mod tests;
