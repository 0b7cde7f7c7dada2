//! A SIP message over one buffer, with cheap views (RFC 3261 §7).
//!
//! Parsing finds the lines and names the header fields, nothing more; a field is looked into when somebody asks for it, so
//! a proxy pays only for what it reads and forwards the rest byte-exact. Values are bytes: display names in Latin-1 occur
//! in the wild. A message costs two allocations: the buffer it came in and the table of its fields.
//!
//! Refused while parsing: more bytes or fields than the sender's [`Bounds`], a CR or LF that ends no line (the next hop might
//! see a header field where we see none), and every lie about Content-Length.

mod bounds;
mod fields;
mod method;
mod name;
mod parse;
mod reason;
mod salvage;
mod status;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroize;

pub use self::bounds::{Bounds, HEADERS_MAX, LONG_HEADERS_MAX, LONG_MESSAGE_MAX, MESSAGE_MAX};
pub use self::method::Method;
pub use self::name::HeaderName;
pub(crate) use self::parse::content_length;
pub use self::reason::Reason;
pub use self::status::StatusCode;
use super::grammar::Elements;

/// A parsed message. Folding is undone in place (CR and LF become spaces). Cloning shares everything.
#[derive(Clone)]
pub struct Message {
    buffer: Bytes,
    start: parse::StartLine,
    fields: Arc<[parse::Field]>,
    index: parse::Index,
    /// Where the body begins.
    body: usize,
}

/// One header field.
#[derive(Clone, Copy)]
pub struct Header<'a> {
    /// Which one, if known.
    pub name: HeaderName,
    /// The name as written.
    pub raw_name: &'a [u8],
    /// Folding undone, white space around it trimmed.
    pub value: &'a [u8],
}

/// The CSeq value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Counts the requests of a dialog.
    pub number: u32,
    /// Equals the request's method.
    pub method: Method<'a>,
}

/// Why bytes are no SIP message. What can be answered to such a request is `Message::salvage`'s matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Neither a request line nor a status line.
    #[error("malformed start line")]
    StartLine,
    /// A header field without a name or a colon, or a stray CR or LF.
    #[error("malformed header field")]
    HeaderField,
    /// The bytes end before the empty line.
    #[error("ends before the empty line")]
    Truncated,
    /// More bytes than its sender may use.
    #[error("too large")]
    TooLarge,
    /// More fields than its sender may use.
    #[error("too many header fields")]
    TooManyHeaders,
    /// Missing on a stream, repeated, no number, or more than there is.
    #[error("Content-Length is missing, repeated or wrong")]
    ContentLength,
    /// A well-formed request of another SIP version: 505.
    #[error("unsupported SIP version")]
    Version,
}

/// A header field that is missing, malformed, or repeated where only one may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is missing or malformed")]
pub struct FieldError {
    /// Which one.
    pub name: HeaderName,
}

impl Message {
    /// Parses one whole datagram within the widest bounds.
    ///
    /// # Errors
    /// If the bytes are no SIP message.
    pub fn parse_datagram(buffer: Vec<u8>) -> Result<Self, ParseError> {
        Self::parse_datagram_within(buffer, Bounds::WIDEST)
    }

    /// Parses one whole datagram: a body longer than Content-Length is cut, a shorter one is an error. Without
    /// Content-Length the body ends with the datagram (RFC 3261 §18.3).
    ///
    /// # Errors
    /// If the bytes are no SIP message, or one beyond `bounds`.
    pub fn parse_datagram_within(mut buffer: Vec<u8>, bounds: Bounds) -> Result<Self, ParseError> {
        let head = parse::head(&mut buffer, bounds)?;
        if let Some(length) = head.content_length {
            let length = usize::try_from(length).map_err(|_| ParseError::ContentLength)?;
            let rest = buffer.len() - head.body;
            if length > rest {
                return Err(ParseError::ContentLength);
            }
            buffer.truncate(head.body + length);
        }
        Ok(Self::assemble(buffer, &head))
    }

    /// Parses one frame within the widest bounds.
    ///
    /// # Errors
    /// If the bytes are no SIP message.
    pub fn parse_frame(buffer: Vec<u8>) -> Result<Self, ParseError> {
        Self::parse_frame_within(buffer, Bounds::WIDEST)
    }

    /// Parses one frame cut from a stream by `framing` (Content-Length must be there and exact).
    ///
    /// # Errors
    /// If the bytes are no SIP message, or one beyond `bounds`.
    pub fn parse_frame_within(mut buffer: Vec<u8>, bounds: Bounds) -> Result<Self, ParseError> {
        let head = parse::head(&mut buffer, bounds)?;
        let rest = buffer.len() - head.body;
        if head.content_length.and_then(|length| usize::try_from(length).ok()) != Some(rest) {
            return Err(ParseError::ContentLength);
        }
        Ok(Self::assemble(buffer, &head))
    }

    /// Parses one message that fills a WebSocket message. "The use of the Content-Length header in SIP messages is not
    /// necessary" there (RFC 7118 §4.2); where it stands it must be exact, as nothing may follow the message.
    ///
    /// # Errors
    /// If the bytes are no SIP message, or one beyond `bounds`.
    pub fn parse_enveloped(mut buffer: Vec<u8>, bounds: Bounds) -> Result<Self, ParseError> {
        let head = parse::head(&mut buffer, bounds)?;
        let rest = u64::try_from(buffer.len() - head.body).ok();
        if head.content_length.is_some() && head.content_length != rest {
            return Err(ParseError::ContentLength);
        }
        Ok(Self::assemble(buffer, &head))
    }

    fn assemble(buffer: Vec<u8>, head: &parse::Head) -> Self {
        let fields = head.fields();
        Self { buffer: buffer.into(), start: head.start, fields, index: head.index, body: head.body }
    }

    /// `None` for responses.
    pub fn method(&self) -> Option<Method<'_>> {
        match self.start {
            parse::StartLine::Request { method, .. } => Method::parse(method.of(&self.buffer)),
            parse::StartLine::Response { .. } => None,
        }
    }

    /// The Request-URI as it stands; `None` for responses.
    pub fn request_uri(&self) -> Option<&[u8]> {
        match self.start {
            parse::StartLine::Request { uri, .. } => Some(uri.of(&self.buffer)),
            parse::StartLine::Response { .. } => None,
        }
    }

    /// `None` for requests.
    pub fn status(&self) -> Option<StatusCode> {
        match self.start {
            parse::StartLine::Request { .. } => None,
            parse::StartLine::Response { code, .. } => Some(code),
        }
    }

    /// The reason phrase; empty for requests.
    pub fn reason_phrase(&self) -> &[u8] {
        match self.start {
            parse::StartLine::Request { .. } => &[],
            parse::StartLine::Response { reason, .. } => reason.of(&self.buffer),
        }
    }

    /// All header fields in order (folded ones joined, white space around values trimmed).
    pub fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        self.fields.iter().map(|field| Header {
            name: field.name,
            raw_name: field.raw_name.of(&self.buffer),
            value: field.value.of(&self.buffer),
        })
    }

    /// The first field of that name.
    pub fn header(&self, name: HeaderName) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The first field whose raw name equals `name` in any case (for extension headers).
    pub fn extension(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers();
        headers.find(|header| header.raw_name.eq_ignore_ascii_case(name.as_bytes())).map(|header| header.value)
    }

    /// The value of each field of that name, in order, commas not looked at.
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        let first = self.index.first(name).unwrap_or(self.fields.len());
        let fields = self.fields[first..].iter().filter(move |field| field.name == name);
        fields.map(|field| field.value.of(&self.buffer))
    }

    /// Each value of a comma-separated list header, over all its fields, in order; aware of quotes and angle brackets. An
    /// empty field has no value; between two commas with nothing between them stands an empty one.
    pub fn list(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.values(name).flat_map(Elements::of_addresses)
    }

    /// The body, byte-exact.
    pub fn body(&self) -> &[u8] {
        &self.buffer[self.body..]
    }

    /// The whole message as received (folding undone).
    pub fn bytes(&self) -> &Bytes {
        &self.buffer
    }

    /// Lets `guard` live as long as any clone of the message or its bytes: what their memory is counted by. `wipe` has no
    /// effect on such a message.
    #[must_use]
    pub fn guarded<G: Send + Sync + 'static>(self, guard: G) -> Self {
        Self { buffer: Bytes::from_owner(Guarded { bytes: self.buffer, _guard: guard }), ..self }
    }

    /// Overwrites the message, if no clone of it or its bytes is left.
    pub fn wipe(self) {
        if let Ok(mut bytes) = self.buffer.try_into_mut() {
            bytes.as_mut().zeroize();
        }
    }
}

/// Bytes and what counts their memory.
struct Guarded<G> {
    bytes: Bytes,
    _guard: G,
}

impl<G> AsRef<[u8]> for Guarded<G> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Kind and size only: a message is full of names, numbers and addresses.
impl fmt::Debug for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("Message");
        match self.status() {
            Some(status) => shown.field("status", &status.code()),
            None => shown.field("method", &self.method()),
        };
        shown.field("bytes", &self.buffer.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
