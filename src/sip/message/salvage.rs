//! What is left of a malformed request: enough to answer it, or the decision to stay silent.
//!
//! A 400 helps whoever debugs a peer, and on a stream the sender is known. A reply copies Via, From, To, Call-ID and CSeq;
//! they are picked out leniently and put into a clean request of their own, so that nothing of the malformed rest travels.

use super::{Header, HeaderName, MESSAGE_MAX, Message, Method, ParseError, StatusCode};
use crate::sip::encode::Encoder;
use crate::sip::grammar::{self, Elements, Parameters};
use crate::sip::via::Via;

/// What a reply copies (RFC 3261 §8.2.6.2) beside the Vias.
const COPIED: [HeaderName; 4] = [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];

impl Message {
    /// A stand-in for a malformed request that a reply can be built from: its Vias and the first From, To, Call-ID and CSeq,
    /// as far as they are there. Each of those four may be missing or malformed; a reply copies what there is
    /// (RFC 4475 §3.3.1).
    ///
    /// `None` means silence: it is a response or an ACK, which nobody answers, or it has no Via with a readable sent-by, so that
    /// an answer would not be recognised. Also works on the bytes of a message that parses but has a field that does not.
    pub fn salvage(bytes: &[u8]) -> Option<Self> {
        let text = unfolded(&bytes[..bytes.len().min(MESSAGE_MAX)]);
        let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let method = method(lines.next()?)?;
        let mut clean = Vec::with_capacity(text.len());
        let mut encoder = Encoder::request(&mut clean, method, b"sip:malformed.invalid");
        let mut is_taken = [false; COPIED.len()];
        for header in lines.take_while(|line| !line.is_empty()).filter_map(header) {
            if header.name == HeaderName::Via {
                push_vias(&mut encoder, header.value);
            } else if let Some(place) = COPIED.iter().position(|name| *name == header.name)
                && !std::mem::replace(&mut is_taken[place], true)
            {
                encoder.copy(header);
            }
        }
        encoder.finish(&[]);
        let request = Self::parse_datagram(clean).ok()?;
        request.top_via().is_ok().then_some(request)
    }
}

impl ParseError {
    /// What a request with this fault is answered, if it is answered at all: 505 for another version, 513 for size, else 400.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::VERSION_NOT_SUPPORTED,
            Self::TooLarge => StatusCode::MESSAGE_TOO_LARGE,
            Self::StartLine | Self::HeaderField | Self::Truncated | Self::TooManyHeaders | Self::ContentLength => {
                StatusCode::BAD_REQUEST
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

/// The hops of one Via field. Of a malformed one, sent-by and branch are kept: they take the answer home.
fn push_vias(encoder: &mut Encoder<'_>, value: &[u8]) {
    for hop in Elements::of_addresses(value) {
        if Via::parse(hop).is_ok() {
            encoder.raw(HeaderName::Via, hop);
            continue;
        }
        let sent_by = hop.iter().position(|&byte| byte == b';').unwrap_or(hop.len());
        let (sent_by, params) = hop.split_at(sent_by);
        let Ok(via) = Via::parse(sent_by) else { continue };
        match Parameters::new(params).find("branch").flatten() {
            Some(branch) => encoder.raw(HeaderName::Via, &[via.raw(), b";branch=", branch.as_bytes()].concat()),
            None => encoder.raw(HeaderName::Via, via.raw()),
        };
    }
}

fn header(line: &[u8]) -> Option<Header<'_>> {
    let (raw_name, rest) = grammar::token(line)?;
    let value = grammar::trim(grammar::trim_start(rest).strip_prefix(b":")?);
    Some(Header { name: HeaderName::parse(raw_name.as_bytes()), raw_name: raw_name.as_bytes(), value })
}

/// The bytes with folded lines joined; a bare LF counts as a line end here.
fn unfolded(bytes: &[u8]) -> Vec<u8> {
    let mut text = bytes.to_vec();
    for at in memchr::memchr_iter(b'\n', bytes) {
        if bytes.get(at + 1).is_some_and(|&byte| grammar::is_space(byte)) {
            text[at] = b' ';
            if at > 0 && text[at - 1] == b'\r' {
                text[at - 1] = b' ';
            }
        }
    }
    text
}
