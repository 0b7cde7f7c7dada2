//! Where the text of a body becomes a credential: the last step of a hand-over, after everything else has been accepted.
//!
//! Until here a secret is a span of the body that nobody looked into. This room undoes the JSON string itself, into a
//! buffer that is wiped and never grows, since a JSON library unescapes through buffers it does not wipe. Errors name
//! the member and never its value.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::body;
use super::problem::Problem;
use crate::vault::{HA1S_MAX, Ha1, Ha1Algorithm, Material, PASSWORD_BYTES_MAX, Password};

/// Longest realm.
const REALM_BYTES_MAX: usize = 256;

/// The hashes a registrar may ask for, as the API calls them.
pub(crate) const ALGORITHMS: [&str; 3] = ["MD5", "SHA-256", "SHA-512-256"];

/// H(username:realm:password) instead of the password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Ha1)]
pub(crate) struct Ha1Body<'a> {
    /// The registrar's realm.
    #[serde(borrow)]
    #[schema(max_length = 256)]
    realm: Cow<'a, str>,
    #[schema(schema_with = super::openapi::words::algorithm)]
    algorithm: Cow<'a, str>,
    /// The hash in hexadecimal digits.
    #[serde(borrow)]
    #[schema(value_type = String, write_only)]
    value: &'a RawValue,
}

/// The members of an account that carry its secret, not looked into.
#[derive(Clone, Copy)]
pub(crate) struct Sealed<'a> {
    pub(crate) password: Option<&'a RawValue>,
    pub(crate) ha1: Option<&'a RawValue>,
}

/// The one of the two secrets that is there.
pub(crate) enum SealedSecret<'a> {
    Password(&'a RawValue),
    Ha1(&'a RawValue),
}

impl<'a> Sealed<'a> {
    /// The secret, if any; both at once are refused.
    pub(crate) fn one(self) -> Result<Option<SealedSecret<'a>>, Problem> {
        match (self.password, self.ha1) {
            (Some(_), Some(_)) => Err(Problem::account("ha1", "stands instead of password; send one of the two")),
            (Some(password), None) => Ok(Some(SealedSecret::Password(password))),
            (None, Some(ha1)) => Ok(Some(SealedSecret::Ha1(ha1))),
            (None, None) => Ok(None),
        }
    }
}

impl SealedSecret<'_> {
    /// Looks into the secret and moves it into a type of the vault.
    pub(crate) fn open(self) -> Result<Material, Problem> {
        match self {
            Self::Password(raw) => password(raw).map(Material::Password),
            Self::Ha1(raw) => ha1(raw).map(Material::Ha1),
        }
    }
}

fn password(raw: &RawValue) -> Result<Password, Problem> {
    let bytes = unescape(raw).ok_or_else(|| Problem::request("account.password", "must be a string"))?;
    if bytes.is_empty() {
        return Err(Problem::account("password", "must not be empty"));
    }
    if bytes.iter().any(|byte| b"\0\r\n".contains(byte)) {
        return Err(Problem::account("password", "must not hold NUL, CR or LF; was it read with its line end?"));
    }
    Password::new(bytes)
        .ok_or_else(|| Problem::account("password", format_args!("may have {PASSWORD_BYTES_MAX} bytes at most")))
}

fn ha1(raw: &RawValue) -> Result<Vec<Ha1>, Problem> {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let list: Vec<Ha1Body<'_>> = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let inside = error.path().to_string();
        let path = if inside == "." { "account.ha1".to_owned() } else { format!("account.ha1{inside}") };
        body::misfit(error.inner(), &path)
    })?;
    if list.is_empty() || list.len() > HA1S_MAX {
        return Err(Problem::account("ha1", format_args!("must hold 1 to {HA1S_MAX} entries")));
    }
    let mut known: Vec<Ha1> = Vec::with_capacity(list.len());
    for entry in list {
        let entry = one_ha1(&entry)?;
        if known.iter().any(|other| other.realm() == entry.realm() && other.algorithm() == entry.algorithm()) {
            return Err(Problem::account("ha1", "holds two entries for one realm and algorithm"));
        }
        known.push(entry);
    }
    Ok(known)
}

fn one_ha1(entry: &Ha1Body<'_>) -> Result<Ha1, Problem> {
    let algorithm = match entry.algorithm.to_ascii_uppercase().as_str() {
        "MD5" => Ha1Algorithm::Md5,
        "SHA-256" => Ha1Algorithm::Sha256,
        "SHA-512-256" => Ha1Algorithm::Sha512256,
        _ => return Err(Problem::account("ha1", "the algorithm must be MD5, SHA-256 or SHA-512-256")),
    };
    if entry.realm.is_empty() || entry.realm.len() > REALM_BYTES_MAX || entry.realm.contains(char::is_control) {
        return Err(Problem::account(
            "ha1",
            format_args!("a realm has 1 to {REALM_BYTES_MAX} bytes and no control character"),
        ));
    }
    let mut hash =
        unescape(entry.value).ok_or_else(|| Problem::request("account.ha1", "every value must be a string"))?;
    // The same buffer: JSON is UTF-8.
    let digits = Zeroizing::new(String::from_utf8(std::mem::take(&mut *hash)).unwrap_or_default());
    Ha1::new(&*entry.realm, algorithm, digits).ok_or_else(|| {
        let wrong = "every value must be the hash in hexadecimal digits, as long as its algorithm makes it";
        Problem::account("ha1", wrong)
    })
}

/// The bytes of a JSON string, or `None` if it is something else or escapes half a surrogate pair.
fn unescape(raw: &RawValue) -> Option<Zeroizing<Vec<u8>>> {
    let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    // An escape is never shorter than what it stands for, so this never grows.
    let mut out = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'\\' {
            out.push(*first);
            rest = tail;
            continue;
        }
        let (&escape, tail) = tail.split_first()?;
        rest = tail;
        out.push(match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, tail) = unicode_escape(rest)?;
                rest = tail;
                let mut utf8 = Zeroizing::new([0; 4]);
                out.extend_from_slice(character.encode_utf8(&mut *utf8).as_bytes());
                continue;
            }
            _ => return None,
        });
    }
    Some(out)
}

/// The character after `\u`, and what follows it (RFC 8259 §7: beyond the basic plane as a surrogate pair).
fn unicode_escape(text: &[u8]) -> Option<(char, &[u8])> {
    let (high, rest) = four_digits(text)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high)?, rest));
    }
    let (low, rest) = four_digits(rest.strip_prefix(b"\\u")?)?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)?, rest))
}

fn four_digits(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let value = digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?));
    value.map(|value| (value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("JSON")
    }

    #[test]
    fn half_a_surrogate_pair_and_other_types_are_no_strings() {
        for json in [r#""\ud83d""#, r#""\ud83dx""#, r#""\ud83d\u0041""#, r#""\ude00""#, "12", "[]", "{}", "true"] {
            assert!(unescape(&raw(json)).is_none(), "{json}");
        }
    }

    #[test]
    fn every_escape_of_json_is_undone() {
        let bytes = unescape(&raw(r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#)).expect("a string");
        assert_eq!(&bytes[..], "a\"\\/\u{8}\u{c}\n\r\té😀é".as_bytes());
    }

    proptest! {
        #[test]
        fn unescaping_agrees_with_the_json_library(text in any::<String>(), json in "\"(\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|[a-z])*\"") {
            let ours = unescape(&raw(&serde_json::to_string(&text).expect("JSON"))).expect("a string");
            prop_assert_eq!(&ours[..], text.as_bytes());
            let theirs = serde_json::from_str::<String>(&json).ok();
            prop_assert_eq!(unescape(&raw(&json)).map(|bytes| bytes.to_vec()), theirs.map(String::into_bytes));
        }
    }

    #[test]
    fn an_ha1_is_taken_in_either_case_and_only_as_long_as_its_algorithm() {
        let md5 = "939E7578ED9E3C518A452ACEE763BCE9";
        let entry = |algorithm: &str, value: &str| {
            raw(&format!(r#"[{{"realm":"example.com","algorithm":"{algorithm}","value":"{value}"}}]"#))
        };
        let taken = ha1(&entry("md5", md5)).ok().expect("taken");
        assert_eq!(taken[0].value(), md5.to_ascii_lowercase());
        assert!(ha1(&entry("SHA-256", md5)).is_err());
        assert!(ha1(&entry("SHA-1", md5)).is_err());
        assert!(ha1(&entry("MD5", &md5.replace('9', "x"))).is_err());
        assert!(ha1(&raw("[]")).is_err());
    }
}
