//! Challenges and credentials as header values (RFC 3261 §22, RFC 8760, RFC 7616).
//!
//! Reads what a peer sent, computes nothing: the arithmetic is `digest`'s. Only the Digest scheme is understood, others are
//! skipped. What is ambiguous is refused instead of guessed (a parameter with two values), because a guess would sign something
//! the user did not mean.
//!
//! Realm, nonce and opaque of a challenge stay the bytes they are, in whatever charset and with whatever escapes: they are
//! hashed "without the surrounding quotes" (RFC 7616 §3.4.2) and go back as they came.

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

    /// As `parse`, with whether it is the -sess form.
    fn parse_with_session(name: &str) -> Option<(Self, bool)> {
        let base = name.len().checked_sub(SESSION.len()).and_then(|at| {
            let (base, suffix) = name.split_at_checked(at)?;
            suffix.eq_ignore_ascii_case(SESSION).then_some(base)
        });
        Some((Self::parse(base.unwrap_or(name))?, base.is_some()))
    }
}

/// A realm for people: UTF-8, or else Latin-1.
#[must_use]
pub fn text_of(realm: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(realm).map_or_else(|_| realm.iter().copied().map(char::from).collect(), Cow::Borrowed)
}

/// A realm without the escapes it has between quotes.
#[must_use]
pub fn unescaped(realm: &[u8]) -> Cow<'_, [u8]> {
    grammar::unquote(realm)
}

/// What an algorithm's name ends with whose H(A1) is made for one nonce (RFC 7616 §3.4.2).
pub(super) const SESSION: &str = "-sess";

/// A Digest challenge; other schemes are skipped by the parser.
#[derive(Clone, Debug)]
pub struct Challenge<'a> {
    /// From Proxy-Authenticate.
    pub proxy: bool,
    /// As it stands between the quotes.
    pub realm: Cow<'a, [u8]>,
    /// As it stands between the quotes.
    pub nonce: Cow<'a, [u8]>,
    /// As it stands between the quotes.
    pub opaque: Option<Cow<'a, [u8]>>,
    /// `None`: one we do not know.
    pub algorithm: Option<Algorithm>,
    /// Its -sess form.
    pub session: bool,
    /// As written; empty where none is named.
    pub algorithm_text: Cow<'a, str>,
    /// What the qop list allows us.
    pub qop: Qop,
    /// The list as written; empty where there is none.
    pub qop_text: Cow<'a, str>,
    /// The credentials were right, only the nonce was old.
    pub stale: bool,
}

/// What the qop list allows us. Ordered by what we prefer: a body may be changed on its way by a B2BUA or gateway in front of
/// the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qop {
    /// The list has only things we do not know.
    Unsupported,
    /// No qop parameter, or an empty one (RFC 2069 form).
    None,
    /// The list has `auth-int`, and no `auth`.
    AuthInt,
    /// The list has `auth`.
    Auth,
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
                if fields.goes_on_with(element) {
                    continue;
                }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The bytes between the quotes. `None`: quotes cannot be put around them.
    fn raw(self) -> Option<&'a [u8]> {
        match self {
            Self::Bare(text) => (!text.contains('\\')).then_some(text.as_bytes()),
            Self::Quoted(inside) => Some(inside),
        }
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

/// The parameters both header fields share, each with one value.
#[derive(Default)]
struct Fields<'a> {
    slots: [Option<Value<'a>>; NAMES.len()],
    /// What follows the first option of a qop list without quotes.
    qop_more: Vec<&'a str>,
    /// The last parameter was such a list.
    in_qop: bool,
    malformed: bool,
}

/// Options of a qop list without quotes; more of them are malformed.
const BARE_QOPS_MAX: usize = 4;

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
    /// Takes `name=value` in; empty elements are allowed in lists and ignored, and so are parameters with nothing behind the
    /// equals sign: absent is what their senders mean.
    fn add(&mut self, element: &'a [u8]) {
        self.in_qop = false;
        if element.is_empty() {
            return;
        }
        let Some((name, value)) = parameter(element) else {
            self.malformed = true;
            return;
        };
        let known = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
        let Some(slot) = known.filter(|_| !value.is_empty()) else {
            return;
        };
        let value = Value::parse(value);
        self.malformed |= value.is_none() || self.slots[slot].is_some_and(|former| Some(former) != value);
        self.slots[slot] = value;
        self.in_qop = slot == Name::Qop as usize && matches!(value, Some(Value::Bare(_)));
    }

    /// Takes in what belongs to a qop list without quotes, of which the commas separate more than its options:
    /// `qop=auth,auth-int`. Only the options there are; anything else begins another challenge.
    fn goes_on_with(&mut self, element: &'a [u8]) -> bool {
        let option = grammar::token(element).filter(|(_, rest)| rest.is_empty()).map(|(option, _)| option);
        let known = |option: &&str| ["auth", "auth-int", "auth-conf"].iter().any(|it| it.eq_ignore_ascii_case(option));
        let Some(option) = option.filter(|option| self.in_qop && known(option)) else { return false };
        self.malformed |= self.qop_more.len() >= BARE_QOPS_MAX;
        if !self.malformed {
            self.qop_more.push(option);
        }
        true
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

    /// A value that is named in words only; bytes that are none are replaced.
    fn words(&self, name: Name) -> Cow<'a, str> {
        match self.value(name) {
            None => Cow::Borrowed(""),
            Some(Value::Bare(text)) => Cow::Borrowed(text.trim()),
            Some(Value::Quoted(inside)) => String::from_utf8_lossy(grammar::trim(inside)),
        }
    }

    fn qop(&self, list: &str) -> Qop {
        let options = list.split([',', ' ', '\t']).filter(|option| !option.is_empty());
        let known = |option: &str| {
            if option.eq_ignore_ascii_case("auth") {
                Qop::Auth
            } else if option.eq_ignore_ascii_case("auth-int") {
                Qop::AuthInt
            } else {
                Qop::Unsupported
            }
        };
        options.chain(self.qop_more.iter().copied()).map(known).max().unwrap_or(Qop::None)
    }

    fn challenge(&self, proxy: bool) -> Option<Challenge<'a>> {
        if self.malformed {
            return None;
        }
        let raw = |name: Name| self.value(name)?.raw().map(Cow::Borrowed);
        let algorithm_text = self.words(Name::Algorithm);
        // MD5 where none is named (RFC 7616 §3.3).
        let named = Some(&*algorithm_text).filter(|name| !name.is_empty()).unwrap_or(Algorithm::Md5.as_str());
        let algorithm = Algorithm::parse_with_session(named);
        let qop_text = self.words(Name::Qop);
        let stale = self.value(Name::Stale).and_then(Value::word).is_some_and(|word| word.eq_ignore_ascii_case("true"));
        Some(Challenge {
            proxy,
            realm: raw(Name::Realm)?,
            nonce: raw(Name::Nonce)?,
            opaque: match self.value(Name::Opaque) {
                None => None,
                Some(_) => Some(raw(Name::Opaque)?),
            },
            algorithm: algorithm.map(|(algorithm, _)| algorithm),
            session: algorithm.is_some_and(|(_, session)| session),
            qop: self.qop(&qop_text),
            algorithm_text,
            qop_text,
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
