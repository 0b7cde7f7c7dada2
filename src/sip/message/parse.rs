//! From bytes to the table of header fields: one pass, no copies.
//!
//! Its own room because it is the one place that decides where a line ends, for datagrams and for streams alike. It does
//! not look into values, except Content-Length's.

use std::sync::Arc;

use super::{Bounds, HEADERS_MAX, HeaderName, LONG_MESSAGE_MAX, ParseError, StatusCode};
use crate::sip::grammar;

/// A stretch of the buffer. `LONG_MESSAGE_MAX` fits 16 bits, so a field of the table takes ten bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

const _: () = assert!(LONG_MESSAGE_MAX <= u16::MAX as usize, "a Span holds every offset of a message");

impl Span {
    const EMPTY: Self = Self { start: 0, end: 0 };

    /// `end` lies within a buffer of at most `LONG_MESSAGE_MAX` bytes.
    fn new(start: usize, end: usize) -> Self {
        let offset = |at| u16::try_from(at).expect("head() refuses buffers longer than LONG_MESSAGE_MAX");
        Self { start: offset(start), end: offset(end) }
    }

    pub(super) fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[usize::from(self.start)..usize::from(self.end)]
    }
}

/// One header field of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: HeaderName,
    pub(super) raw_name: Span,
    pub(super) value: Span,
}

impl Field {
    const EMPTY: Self = Self { name: HeaderName::Other, raw_name: Span::EMPTY, value: Span::EMPTY };
}

/// Where each known field first stands, and whether it stands there alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index {
    first: [u8; HeaderName::COUNT],
    /// One bit a name.
    repeated: u64,
}

const ABSENT: u8 = u8::MAX;
/// Stands for itself and all places behind it: few messages have so many fields, and each message an index.
const FAR: u8 = ABSENT - 1;

const _: () = assert!(HeaderName::COUNT <= u64::BITS as usize);

impl Index {
    const EMPTY: Self = Self { first: [ABSENT; HeaderName::COUNT], repeated: 0 };

    /// Notes the field at `position`; `false` if one of that name came before.
    fn note(&mut self, name: HeaderName, position: usize) -> bool {
        let slot = &mut self.first[name as usize];
        if *slot == ABSENT {
            *slot = u8::try_from(position).unwrap_or(FAR).min(FAR);
            return true;
        }
        self.repeated |= 1 << name as u8;
        false
    }

    /// Where to look for the first field of that name: nothing of it stands before.
    pub(super) fn first(&self, name: HeaderName) -> Option<usize> {
        Some(self.first[name as usize]).filter(|&position| position != ABSENT).map(usize::from)
    }

    pub(super) fn is_repeated(&self, name: HeaderName) -> bool {
        self.repeated & (1 << name as u8) != 0
    }
}

/// The first line.
#[derive(Clone, Copy, Debug)]
pub(super) enum StartLine {
    Request { method: Span, uri: Span },
    Response { code: StatusCode, reason: Span },
}

/// Everything before the body.
pub(super) struct Head {
    pub(super) start: StartLine,
    /// As many as most messages have, without an allocation.
    table: [Field; HEADERS_MAX],
    /// The rest.
    more: Vec<Field>,
    length: u16,
    fields_max: usize,
    pub(super) index: Index,
    /// Where the body begins.
    pub(super) body: usize,
    pub(super) content_length: Option<u64>,
}

impl Head {
    pub(super) fn fields(&self) -> Arc<[Field]> {
        let first = &self.table[..usize::from(self.length).min(HEADERS_MAX)];
        if self.more.is_empty() { Arc::from(first) } else { first.iter().chain(&self.more).copied().collect() }
    }

    fn push(&mut self, field: Field, value: &[u8]) -> Result<(), ParseError> {
        let place = usize::from(self.length);
        if place >= self.fields_max.min(Bounds::WIDEST.fields) {
            return Err(ParseError::TooManyHeaders);
        }
        match self.table.get_mut(place) {
            Some(slot) => *slot = field,
            None => self.more.push(field),
        }
        let is_first = self.index.note(field.name, place);
        self.length += 1;
        if field.name == HeaderName::ContentLength {
            // Two that agree are refused as well: the next hop may read the one we do not.
            let value = grammar::number(value).filter(|_| is_first).ok_or(ParseError::ContentLength)?;
            self.content_length = Some(value);
        }
        Ok(())
    }
}

/// Parses start line and header fields; undoes folding in place.
pub(super) fn head(buffer: &mut [u8], bounds: Bounds) -> Result<Head, ParseError> {
    if buffer.len() > bounds.bytes.min(LONG_MESSAGE_MAX) {
        return Err(ParseError::TooLarge);
    }
    let end = line_end(buffer, 0).ok_or(ParseError::StartLine)?;
    let start = start_line(&buffer[..end])?;
    let table = [Field::EMPTY; HEADERS_MAX];
    let mut head = Head {
        start,
        table,
        more: Vec::new(),
        length: 0,
        fields_max: bounds.fields,
        index: Index::EMPTY,
        body: end + LINE_END.len(),
        content_length: None,
    };
    while !buffer[head.body..].starts_with(LINE_END) {
        let line = head.body;
        let (name_end, colon) = name(buffer, line)?;
        let end = unfold(buffer, line)?;
        let raw_name = Span::new(line, name_end);
        let value = trimmed(buffer, colon + 1, end);
        let name = HeaderName::parse(raw_name.of(buffer));
        head.push(Field { name, raw_name, value }, value.of(buffer))?;
        head.body = end + LINE_END.len();
    }
    head.body += LINE_END.len();
    Ok(head)
}

/// Content-Length of a header section that ends with its empty line, for framing. Agrees with `head` wherever that accepts
/// the section. Of a section that `head` refuses for anything else it is still found, so that the message after it is, too: if
/// it stands there exactly once, whether lines end with CRLF or with any LF. An empty line that only the second reading sees
/// may be where the sender's header section ends, so that no length says what follows.
pub(crate) fn content_length(section: &[u8]) -> Result<u64, ParseError> {
    let mut length = None;
    let mut rest = section.strip_suffix(LINE_END).unwrap_or(section);
    let _start_line = take_line(&mut rest);
    while let Some(line) = take_field(&mut rest) {
        if matches!(line, b"" | b"\r") {
            return Err(ParseError::HeaderField);
        }
        let Some(value) = length_value(line) else { continue };
        // Two that agree are refused as well: the next hop may read the one we do not.
        let value = grammar::number(value.trim_ascii()).filter(|_| length.is_none());
        length = Some(value.ok_or(ParseError::ContentLength)?);
    }
    length.ok_or(ParseError::ContentLength)
}

/// Takes the line up to the next LF, without a CRLF or LF at its end; the last one may lack it.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Takes a line and those folded into it, line ends between them included.
fn take_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let whole = *rest;
    let first = take_line(rest)?;
    let mut length = first.len();
    while rest.first().is_some_and(|&byte| grammar::is_space(byte)) {
        let before = rest.len();
        let Some(line) = take_line(rest) else { break };
        length = whole.len() - before + line.len();
    }
    Some(&whole[..length])
}

/// The value of a field, if it is Content-Length.
fn length_value(line: &[u8]) -> Option<&[u8]> {
    matches!(line.first(), Some(b'c' | b'C' | b'l' | b'L')).then_some(())?;
    let name_end = line.iter().position(|&byte| !grammar::is_token_byte(byte))?;
    let value = line[name_end..].trim_ascii_start().strip_prefix(b":")?;
    (HeaderName::parse(&line[..name_end]) == HeaderName::ContentLength).then_some(value)
}

const LINE_END: &[u8] = b"\r\n";

/// Where the CRLF is that ends the line beginning at `from`. `None` if a CR or LF stands alone before it, or it never comes.
fn line_end(buffer: &[u8], from: usize) -> Option<usize> {
    let at = from + memchr::memchr2(b'\r', b'\n', &buffer[from..])?;
    buffer[at..].starts_with(LINE_END).then_some(at)
}

/// The same for a line and those folded into it, whose line ends become spaces.
fn unfold(buffer: &mut [u8], from: usize) -> Result<usize, ParseError> {
    let mut end = field_line_end(buffer, from)?;
    while continues(buffer, end)? {
        buffer[end..end + LINE_END.len()].fill(b' ');
        end = field_line_end(buffer, end)?;
    }
    Ok(end)
}

fn field_line_end(buffer: &[u8], from: usize) -> Result<usize, ParseError> {
    line_end(buffer, from).ok_or_else(|| {
        let is_cut = !buffer[from..].iter().rev().skip(1).any(|byte| matches!(byte, b'\r' | b'\n'));
        if is_cut { ParseError::Truncated } else { ParseError::HeaderField }
    })
}

/// Whether the line after the CRLF at `end` begins with white space and so belongs to the one before.
fn continues(buffer: &[u8], end: usize) -> Result<bool, ParseError> {
    let next = buffer.get(end + LINE_END.len()).ok_or(ParseError::Truncated)?;
    Ok(grammar::is_space(*next))
}

/// The field name that begins at `from`: (where it ends, where its colon stands).
fn name(buffer: &[u8], from: usize) -> Result<(usize, usize), ParseError> {
    let line = &buffer[from..];
    let length = line.iter().position(|&byte| !grammar::is_token_byte(byte)).ok_or(ParseError::Truncated)?;
    let space = line[length..].iter().position(|&byte| !grammar::is_space(byte)).ok_or(ParseError::Truncated)?;
    let colon = length + space;
    if length == 0 || line[colon] != b':' {
        return Err(ParseError::HeaderField);
    }
    Ok((from + length, from + colon))
}

/// `start..end` without the white space at both ends.
fn trimmed(buffer: &[u8], start: usize, end: usize) -> Span {
    let value = grammar::trim_start(&buffer[start..end]);
    let start = end - value.len();
    Span::new(start, start + grammar::trim(value).len())
}

/// The first line, without its end.
fn start_line(line: &[u8]) -> Result<StartLine, ParseError> {
    let start_line = if is_version_like(line) { status_line(line) } else { request_line(line) };
    start_line.unwrap_or(Err(ParseError::StartLine))
}

/// `SIP-Version SP Status-Code SP Reason-Phrase`. The last space is missing where some have no reason to give.
fn status_line(line: &[u8]) -> Option<Result<StartLine, ParseError>> {
    let space = memchr::memchr(b' ', line)?;
    let (version, rest) = (&line[..space], &line[space + 1..]);
    let (digits, reason) = rest.split_at_checked(3)?;
    let code = StatusCode::new(u16::try_from(grammar::number(digits)?).ok()?)?;
    if !(reason.is_empty() || reason[0] == b' ') {
        return None;
    }
    let reason = Span::new((line.len() - reason.len() + 1).min(line.len()), line.len());
    Some(sip_2_0(version)?.map(|()| StartLine::Response { code, reason }))
}

/// `Method SP Request-URI SP SIP-Version`, one space each (RFC 4475 §3.1.2.8 wants more of them refused).
fn request_line(line: &[u8]) -> Option<Result<StartLine, ParseError>> {
    let method = memchr::memchr(b' ', line)?;
    let uri = method + 1 + memchr::memchr(b' ', &line[method + 1..])?;
    let is_uri = !line[method + 1..uri].iter().any(|&byte| byte < b' ' || byte == 0x7f);
    let is_sound = grammar::is_token(&line[..method]) && uri > method + 1 && is_uri;
    let version = sip_2_0(&line[uri + 1..]).filter(|_| is_sound)?;
    Some(version.map(|()| StartLine::Request { method: Span::new(0, method), uri: Span::new(method + 1, uri) }))
}

/// `None`: no SIP-Version at all.
fn sip_2_0(version: &[u8]) -> Option<Result<(), ParseError>> {
    if version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Some(Ok(()));
    }
    let (major, minor) = version.get(4..).filter(|_| is_version_like(version))?.split_at_checked(1)?;
    let digits = major.first().is_some_and(u8::is_ascii_digit) && minor.first() == Some(&b'.');
    let minor = minor.get(1..)?;
    (digits && grammar::number(minor).is_some()).then_some(Err(ParseError::Version))
}

/// No method holds a slash, so this tells a status line from a request line.
fn is_version_like(line: &[u8]) -> bool {
    line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
}
