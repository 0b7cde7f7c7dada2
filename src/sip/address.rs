//! name-addr and addr-spec with header parameters: From, To, Contact, Route, Record-Route (RFC 3261 §20.10).
//!
//! A view over one list element. The display name may be in any charset (Latin-1 is common), so it is kept as bytes and
//! decoded only when somebody asks. It refuses what RFC 4475 §3.1.2 calls malformed: an open quote, white space inside the
//! brackets, a bare URI that would have needed brackets, stray separators.

use std::fmt;

use super::grammar::{self, Parameters};
use super::uri::Uri;

/// A display name, a URI, parameters.
#[derive(Clone, Copy)]
pub struct Address<'a> {
    raw: &'a [u8],
    display: Display<'a>,
    uri: Uri<'a>,
    params: Parameters<'a>,
}

#[derive(Clone, Copy)]
enum Display<'a> {
    None,
    /// The inside of a quoted string, escapes as they stand.
    Quoted(&'a [u8]),
    Bare(&'a [u8]),
}

/// The bytes are no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed address")]
pub struct AddressError;

impl<'a> Address<'a> {
    /// Parses one value. Without angle brackets, a `;` starts a *header* parameter (RFC 3261 §20).
    ///
    /// # Errors
    /// If the value does not follow the grammar.
    pub fn parse(raw: &'a [u8]) -> Result<Self, AddressError> {
        let raw = grammar::trim(raw);
        let (display, uri, params) = cut(raw).ok_or(AddressError)?;
        let uri = Uri::parse(uri).map_err(|_| AddressError)?;
        let params = Parameters::new(params);
        let names_nothing = params.find("tag") == Some(Some(""));
        if params.are_well_formed() && !names_nothing {
            Ok(Self { raw, display, uri, params })
        } else {
            Err(AddressError)
        }
    }

    /// The URI.
    pub fn uri(&self) -> Uri<'a> {
        self.uri
    }

    /// Display name with quotes and escapes undone, see [`decoded`].
    pub fn display(&self) -> Option<String> {
        match self.display {
            Display::None => None,
            Display::Quoted(inside) => Some(decoded(&grammar::unquote(inside))),
            Display::Bare(text) => Some(decoded(text)),
        }
    }

    /// Header parameter by name (any case); quotes of a quoted value are kept off, escapes in it stay. A value that is not
    /// UTF-8 counts as absent.
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params.find(name)
    }

    /// The `tag` of From and To.
    pub fn tag(&self) -> Option<&'a str> {
        self.param("tag").flatten()
    }

    /// The value as it stands.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// The scheme of the URI only: the rest says who somebody is and where.
impl fmt::Debug for Address<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Address").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Text that should be UTF-8 (RFC 3261 §7.3.1), and is read as Latin-1 where it is not: older phones and gateways write that,
/// and any bytes have a reading in it.
#[must_use]
pub fn decoded(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => text.iter().copied().map(char::from).collect(),
    }
}

/// Cuts a value into display name, URI and parameters.
fn cut(raw: &[u8]) -> Option<(Display<'_>, &[u8], &[u8])> {
    if raw.starts_with(b"\"") {
        let (inside, rest) = grammar::quoted(raw)?;
        let (uri, params) = bracketed(grammar::trim_start(rest))?;
        return Some((Display::Quoted(inside), uri, params));
    }
    let Some(bracket) = raw.iter().position(|&byte| byte == b'<') else {
        return bare(raw);
    };
    let name = grammar::trim(&raw[..bracket]);
    let (uri, params) = bracketed(&raw[bracket..])?;
    match name {
        [] => Some((Display::None, uri, params)),
        name if name.iter().any(|&byte| is_forbidden_in_bare_name(byte)) => None,
        name => Some((Display::Bare(name), uri, params)),
    }
}

/// RFC 3261 allows tokens only, but unquoted names with dots, parentheses or UTF-8 are common. Refused is what would read
/// differently as a list or as a URI with parameters.
const fn is_forbidden_in_bare_name(byte: u8) -> bool {
    matches!(byte, b',' | b'"' | b';' | b'>')
}

/// `<URI>` and what follows it.
fn bracketed(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"<")?;
    let end = inside.iter().position(|&byte| byte == b'>')?;
    Some((&inside[..end], &inside[end + 1..]))
}

/// An addr-spec. RFC 3261 §20: "if the URI contains a comma, question mark or semicolon, the URI MUST be enclosed in
/// angle brackets"; a semicolon therefore ends it, and the other two make it malformed (RFC 4475 §3.1.2.13).
fn bare(raw: &[u8]) -> Option<(Display<'_>, &[u8], &[u8])> {
    let end = raw.iter().position(|&byte| byte == b';').unwrap_or(raw.len());
    let uri = grammar::trim(&raw[..end]);
    let sound = !uri.iter().any(|&byte| matches!(byte, b',' | b'?'));
    sound.then_some((Display::None, uri, &raw[end..]))
}

#[cfg(test)]
mod tests;
