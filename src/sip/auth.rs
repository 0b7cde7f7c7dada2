//! Challenges and credentials as header values (RFC 3261 §22, RFC 8760, RFC 7616).
//!
//! Reads what a peer sent, computes nothing: the arithmetic is `digest`'s. Only the Digest scheme is understood, others are
//! skipped. What is ambiguous is refused instead of guessed (a parameter given twice, auth-int, a realm that is no UTF-8),
//! because a guess would sign something the user did not mean.

use std::borrow::Cow;
use std::fmt;

use super::grammar::{self, Elements};

/// Digest algorithms, ordered weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RFC 3261's only one.
    Md5,
    /// RFC 8760.
    Sha256,
    /// RFC 8760, SHA-512/256.
    Sha512256,
}

impl Algorithm {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512256 => "SHA-512-256",
        }
    }

    /// The algorithm of that name in any case; `None` for -sess forms and unknown ones.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Md5, Self::Sha256, Self::Sha512256].into_iter().find(|known| known.as_str().eq_ignore_ascii_case(name))
    }
}

/// A Digest challenge; other schemes are skipped by the parser.
#[derive(Clone, Debug)]
pub struct Challenge<'a> {
    /// From Proxy-Authenticate.
    pub proxy: bool,
    /// Escapes undone.
    pub realm: Cow<'a, str>,
    /// Escapes undone.
    pub nonce: Cow<'a, str>,
    /// Escapes undone.
    pub opaque: Option<Cow<'a, str>>,
    /// `None`: one we refuse (-sess, unknown).
    pub algorithm: Option<Algorithm>,
    /// What the qop list allows us.
    pub qop: Qop,
    /// The credentials were right, only the nonce was old.
    pub stale: bool,
}

/// What the qop list allows us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop {
    /// No qop parameter (RFC 2069 form).
    None,
    /// The list has `auth`.
    Auth,
    /// The list has only things we refuse (auth-int).
    Unsupported,
}

/// A Digest Authorization.
#[derive(Clone)]
pub struct Credentials<'a> {
    /// Escapes undone.
    pub username: Cow<'a, str>,
    /// Escapes undone.
    pub realm: Cow<'a, str>,
    /// Escapes undone.
    pub nonce: Cow<'a, str>,
    /// Escapes undone.
    pub uri: Cow<'a, str>,
    /// As written.
    pub response: &'a str,
    /// `None`: one we refuse (-sess, unknown).
    pub algorithm: Option<Algorithm>,
    /// qop is `auth`; without it the RFC 2069 form was used.
    pub qop_auth: bool,
    /// There whenever `qop_auth`.
    pub cnonce: Option<Cow<'a, str>>,
    /// There whenever `qop_auth`.
    pub nc: Option<u32>,
}

/// All Digest challenges of one WWW-Authenticate or Proxy-Authenticate field, also several in one; malformed ones are
/// skipped.
pub fn challenges(value: &[u8], proxy: bool) -> impl Iterator<Item = Challenge<'_>> {
    let mut elements = Elements::of_parameters(value);
    let mut next_head = None;
    std::iter::from_fn(move || {
        loop {
            // The comma between two parameters and the one between two challenges look alike; a new challenge shows itself
            // by the scheme that stands before its first parameter.
            let (scheme, first) = next_head.take().or_else(|| elements.by_ref().find_map(head))?;
            let mut fields = Fields::default();
            fields.add(first);
            next_head = None;
            for element in elements.by_ref() {
                next_head = head(element);
                if next_head.is_some() {
                    break;
                }
                fields.add(element);
            }
            if scheme.eq_ignore_ascii_case("Digest")
                && let Some(challenge) = fields.challenge(proxy)
            {
                return Some(challenge);
            }
        }
    })
}

impl<'a> Credentials<'a> {
    /// Parses one Authorization or Proxy-Authorization field. `None`: another scheme, malformed, or a form we refuse
    /// (auth-int).
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut elements = Elements::of_parameters(value);
        let (scheme, first) = head(elements.next()?)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut fields = Fields::default();
        fields.add(first);
        elements.for_each(|element| fields.add(element));
        fields.credentials()
    }
}

/// Realm and algorithm only: user name and response together are what a password is guessed from.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("Credentials");
        shown.field("realm", &self.realm).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A parameter value as it stands.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Quoted(&'a [u8]),
    Bare(&'a str),
}

impl<'a> Value<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        if text.starts_with(b"\"") {
            let (inside, rest) = grammar::quoted(text)?;
            return grammar::trim(rest).is_empty().then_some(Self::Quoted(inside));
        }
        let ends = |byte: &u8| *byte <= b' ' || matches!(byte, b'"' | 0x7f..);
        if text.is_empty() || text.iter().any(ends) {
            return None;
        }
        std::str::from_utf8(text).ok().map(Self::Bare)
    }

    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Bare(text) => Some(Cow::Borrowed(text)),
            Self::Quoted(inside) => match grammar::unquote(inside) {
                Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
                Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
            },
        }
    }

    /// For values that need no escapes. Names of algorithms and qop come with and without quotes, whatever the RFC wants.
    fn word(self) -> Option<&'a str> {
        match self {
            Self::Bare(text) => Some(text),
            Self::Quoted(inside) => std::str::from_utf8(inside).ok(),
        }
    }
}

/// The parameters both header fields share, each at most once.
#[derive(Default)]
struct Fields<'a> {
    slots: [Option<Value<'a>>; NAMES.len()],
    malformed: bool,
}

const NAMES: [&str; 11] =
    ["username", "realm", "nonce", "uri", "response", "algorithm", "cnonce", "opaque", "qop", "nc", "stale"];

#[derive(Clone, Copy)]
enum Name {
    Username,
    Realm,
    Nonce,
    Uri,
    Response,
    Algorithm,
    Cnonce,
    Opaque,
    Qop,
    Nc,
    Stale,
}

impl<'a> Fields<'a> {
    /// Takes `name=value` in; empty elements are allowed in lists and ignored.
    fn add(&mut self, element: &'a [u8]) {
        if element.is_empty() {
            return;
        }
        let Some((name, value)) = parameter(element) else {
            self.malformed = true;
            return;
        };
        let Some(slot) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
            return;
        };
        let value = Value::parse(value);
        self.malformed |= value.is_none() || self.slots[slot].is_some();
        self.slots[slot] = value;
    }

    fn value(&self, name: Name) -> Option<Value<'a>> {
        self.slots[name as usize]
    }

    fn text(&self, name: Name) -> Option<Cow<'a, str>> {
        self.value(name)?.text()
    }

    /// The outer `None`: there but unreadable.
    fn optional_text(&self, name: Name) -> Option<Option<Cow<'a, str>>> {
        self.value(name).map_or(Some(None), |value| value.text().map(Some))
    }

    /// MD5 where none is named (RFC 7616 §3.3).
    fn algorithm(&self) -> Option<Algorithm> {
        self.value(Name::Algorithm).map_or(Some(Algorithm::Md5), |value| Algorithm::parse(value.word()?))
    }

    fn challenge(&self, proxy: bool) -> Option<Challenge<'a>> {
        if self.malformed {
            return None;
        }
        let qop = match self.value(Name::Qop) {
            None => Qop::None,
            Some(list) => {
                let mut options = list.word().unwrap_or_default().split(',');
                if options.any(|option| option.trim().eq_ignore_ascii_case("auth")) {
                    Qop::Auth
                } else {
                    Qop::Unsupported
                }
            }
        };
        let stale = self.value(Name::Stale).and_then(Value::word).is_some_and(|word| word.eq_ignore_ascii_case("true"));
        Some(Challenge {
            proxy,
            realm: self.text(Name::Realm)?,
            nonce: self.text(Name::Nonce)?,
            opaque: self.optional_text(Name::Opaque)?,
            algorithm: self.algorithm(),
            qop,
            stale,
        })
    }

    fn credentials(&self) -> Option<Credentials<'a>> {
        if self.malformed {
            return None;
        }
        let qop_auth = match self.value(Name::Qop) {
            None => false,
            Some(value) if value.word().is_some_and(|word| word.eq_ignore_ascii_case("auth")) => true,
            Some(_) => return None,
        };
        let cnonce = self.optional_text(Name::Cnonce)?;
        let nc = self.value(Name::Nc).and_then(Value::word).and_then(nonce_count);
        if qop_auth && (cnonce.is_none() || nc.is_none()) {
            return None;
        }
        Some(Credentials {
            username: self.text(Name::Username)?,
            realm: self.text(Name::Realm)?,
            nonce: self.text(Name::Nonce)?,
            uri: self.text(Name::Uri)?,
            response: self.value(Name::Response)?.word()?,
            algorithm: self.algorithm(),
            qop_auth,
            cnonce,
            nc,
        })
    }
}

/// `nc-value = 8LHEX`.
fn nonce_count(text: &str) -> Option<u32> {
    let is_sound = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sound.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// `name = value`.
fn parameter(element: &[u8]) -> Option<(&str, &[u8])> {
    let (name, rest) = grammar::token(element)?;
    let value = grammar::trim_start(rest).strip_prefix(b"=")?;
    Some((name, grammar::trim_start(value)))
}

/// The scheme at the beginning of a challenge and what follows it, if `element` begins one and is no parameter.
fn head(element: &[u8]) -> Option<(&str, &[u8])> {
    let (scheme, rest) = grammar::token(element)?;
    let after = grammar::trim_start(rest);
    let begins_one = after.is_empty() || (after.len() < rest.len() && !after.starts_with(b"="));
    begins_one.then_some((scheme, after))
}

#[cfg(test)]
mod tests;
