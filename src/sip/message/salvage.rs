//! What is left of a malformed request: enough to answer it, or the decision to stay silent.
//!
//! A 400 helps whoever debugs a peer, and on a stream the sender is known. The reply needs Via, From, To, Call-ID and CSeq;
//! they are picked out leniently and put into a clean request of their own, so that nothing of the malformed rest travels.

use super::{HeaderName, Message, ParseError};
use crate::sip::encode::Encoder;
use crate::sip::grammar;
use crate::sip::message::{Header, Method};

/// What a reply copies (RFC 3261 §8.2.6.2).
const COPIED: [HeaderName; 5] =
    [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];

impl Message {
    /// A stand-in for a malformed request that a reply can be built from: its Vias and the first From, To, Call-ID and CSeq.
    ///
    /// `None` means silence: it is a response or an ACK, which nobody answers; its topmost Via is unreadable, so that an
    /// answer would not be recognised; or one of the other four is missing or unreadable.
    pub fn salvage(bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(super::MESSAGE_MAX)];
        let mut lines = Lines { rest: bytes };
        let method = method(lines.next()?)?;
        let mut clean = Vec::with_capacity(bytes.len());
        let mut encoder = Encoder::request(&mut clean, method, b"sip:malformed.invalid");
        let mut is_taken = [false; COPIED.len()];
        for line in lines {
            let Some(header) = header(line) else { continue };
            let Some(place) = COPIED.iter().position(|name| *name == header.name) else { continue };
            if !is_taken[place] || header.name == HeaderName::Via {
                is_taken[place] = true;
                encoder.copy(header);
            }
        }
        encoder.finish(&[]);
        let request = Self::parse_datagram(clean).ok()?;
        let is_answerable = request.top_via().is_ok()
            && request.from().is_ok()
            && request.to().is_ok()
            && request.call_id().is_ok()
            && request.cseq().is_ok();
        is_answerable.then_some(request)
    }
}

impl ParseError {
    /// What a request with this fault is answered, if it is answered at all: 505 for another version, 513 for size, else 400.
    pub fn status(self) -> super::StatusCode {
        match self {
            Self::Version => super::StatusCode::VERSION_NOT_SUPPORTED,
            Self::TooLarge => super::StatusCode::MESSAGE_TOO_LARGE,
            Self::StartLine | Self::HeaderField | Self::Truncated | Self::TooManyHeaders | Self::ContentLength => {
                super::StatusCode::BAD_REQUEST
            }
        }
    }
}

/// The method of whatever resembles a request line.
fn method(line: &[u8]) -> Option<Method<'_>> {
    let (method, rest) = grammar::token(line)?;
    let version = grammar::trim(rest).rsplit(|&byte| grammar::is_space(byte)).next()?;
    let is_request = rest.first().is_some_and(|&byte| grammar::is_space(byte))
        && version.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"SIP/"));
    Method::parse(method.as_bytes()).filter(|method| is_request && *method != Method::Ack)
}

fn header(line: &[u8]) -> Option<Header<'_>> {
    let (raw_name, rest) = grammar::token(line)?;
    let value = grammar::trim(grammar::trim_start(rest).strip_prefix(b":")?);
    Some(Header { name: HeaderName::parse(raw_name.as_bytes()), raw_name: raw_name.as_bytes(), value })
}

/// Lines up to the empty one, folds included, whatever ends them.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut from = 0;
        let end = loop {
            let Some(found) = memchr::memchr(b'\n', &self.rest[from..]) else { break self.rest.len() };
            from += found + 1;
            if !self.rest.get(from).is_some_and(|&byte| grammar::is_space(byte)) {
                break from;
            }
        };
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        let line = line.trim_ascii_end();
        (!line.is_empty()).then_some(line)
    }
}
