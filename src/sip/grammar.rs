//! Pieces of RFC 3261 §25 that several header fields share: tokens, quoted strings, comma lists, `;name=value` parameters.
//!
//! Its own room, so that a Via, a Contact and a challenge cannot disagree about where a quoted string ends. It knows no
//! header field by name, allocates nothing unless an escape must be undone, and never panics on outside bytes.

use std::borrow::Cow;

/// Whether `byte` may stand in a token (RFC 3261 §25.1).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// RFC 3261 §25.1: `token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~" )`.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        byte += 1;
    }
    table
};

/// Splits a token off the front; `None` if there is none.
pub(crate) fn token(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(text.len());
    let (token, rest) = text.split_at(end);
    if token.is_empty() {
        return None;
    }
    Some((std::str::from_utf8(token).ok()?, rest))
}

/// Whether the whole of `text` is one token.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` is white space inside a line.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Takes white space off the front.
pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_space(byte)).unwrap_or(text.len());
    &text[start..]
}

/// Takes white space off both ends.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let end = text.iter().rposition(|&byte| !is_space(byte)).map_or(0, |last| last + 1);
    &text[..end]
}

/// Reads digits only: no sign, no space, no overflow.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Reads digits only; what is too large becomes the largest value.
pub(crate) fn saturating_number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(number(text).and_then(|value| u32::try_from(value).ok()).unwrap_or(u32::MAX))
}

/// Splits a quoted string off the front of `text`, which begins with `"`: (inside, rest). `None` if it never ends.
pub(crate) fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some((&text[1..at], &text[at + 1..])),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Undoes the escapes of a quoted string's inside.
pub(crate) fn unquote(inside: &[u8]) -> Cow<'_, [u8]> {
    if !inside.contains(&b'\\') {
        return Cow::Borrowed(inside);
    }
    let mut out = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(&byte) = bytes.next() {
        out.push(if byte == b'\\' { *bytes.next().unwrap_or(&byte) } else { byte });
    }
    Cow::Owned(out)
}

/// The elements of a comma list, trimmed. A comma inside a quoted string separates nothing, nor does one between angle
/// brackets where `Commas::Outside` says so. Nothing at all gives no element; `a,,b` gives an empty one, for the caller to
/// judge.
#[derive(Clone, Debug)]
pub(crate) struct Elements<'a> {
    rest: Option<&'a [u8]>,
    brackets: bool,
}

impl<'a> Elements<'a> {
    /// A list whose elements may hold URIs in angle brackets.
    pub(crate) fn of_addresses(value: &'a [u8]) -> Self {
        Self { rest: Some(value).filter(|value| !trim(value).is_empty()), brackets: true }
    }

    /// A list in which `<` means nothing (challenges and credentials).
    pub(crate) fn of_parameters(value: &'a [u8]) -> Self {
        Self { brackets: false, ..Self::of_addresses(value) }
    }

    /// What follows the comma of the last element, if it had one.
    pub(crate) fn rest(&self) -> Option<&'a [u8]> {
        self.rest.map(trim)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.take()?;
        let mut at = 0;
        let mut in_brackets = false;
        while let Some(&byte) = text.get(at) {
            match byte {
                b'"' if !in_brackets => {
                    // An open quote swallows the rest: the element is malformed, and whoever parses it says so.
                    at = quoted(&text[at..]).map_or(text.len(), |(_, rest)| text.len() - rest.len());
                    continue;
                }
                b'<' if self.brackets => in_brackets = true,
                b'>' => in_brackets = false,
                b',' if !in_brackets => {
                    self.rest = Some(&text[at + 1..]);
                    return Some(trim(&text[..at]));
                }
                _ => {}
            }
            at += 1;
        }
        Some(trim(text))
    }
}

/// One `;name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameter<'a> {
    pub(crate) name: &'a str,
    /// Without its quotes, escapes left as they stand.
    pub(crate) value: Option<&'a [u8]>,
}

/// Header parameters: `*( SEMI generic-param )`. An `Err` ends the iteration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Parameters<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Whether every parameter is well-formed.
    pub(crate) fn are_well_formed(self) -> bool {
        self.into_iter().all(|parameter| parameter.is_ok())
    }

    /// The first parameter of that name, in any case. A value that is not UTF-8 counts as absent.
    pub(crate) fn find(self, name: &str) -> Option<Option<&'a str>> {
        let parameter = self.into_iter().map_while(Result::ok).find(|found| found.name.eq_ignore_ascii_case(name))?;
        match parameter.value {
            None => Some(None),
            Some(value) => std::str::from_utf8(value).ok().map(Some),
        }
    }

    fn parse_next(&mut self) -> Option<Parameter<'a>> {
        let rest = trim_start(self.rest.strip_prefix(b";")?);
        let (name, rest) = token(rest)?;
        let rest = trim_start(rest);
        let Some(rest) = rest.strip_prefix(b"=") else {
            self.rest = rest;
            return Some(Parameter { name, value: None });
        };
        let rest = trim_start(rest);
        // `;expires=`: an empty value, which whoever reads the parameter judges. Nothing can be misread for it.
        if rest.is_empty() || rest.starts_with(b";") {
            self.rest = rest;
            return Some(Parameter { name, value: Some(b"") });
        }
        let (value, rest) = if rest.starts_with(b"\"") { quoted(rest)? } else { bare_value(rest)? };
        self.rest = trim_start(rest);
        Some(Parameter { name, value: Some(value) })
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<Parameter<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = trim_start(self.rest);
        if self.rest.is_empty() {
            return None;
        }
        let parameter = self.parse_next().ok_or(Malformed);
        if parameter.is_err() {
            self.rest = &[];
        }
        Some(parameter)
    }
}

/// The text does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// An unquoted value. Wider than the RFC's token and host, because tags with `=`, `:` or `@` and IPv6 addresses without
/// brackets (RFC 5118 §4.5) are sent; but nothing that could end a parameter, a list element or a header field.
fn bare_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let ends = |byte: u8| byte <= b' ' || matches!(byte, b';' | b',' | b'"' | b'\\' | b'<' | b'>' | 0x7f);
    let end = text.iter().position(|&byte| ends(byte)).unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    (!value.is_empty()).then_some((value, rest))
}

#[cfg(test)]
mod tests;
