//! What is left of a malformed message: enough to answer a request or to end an exchange, or the decision to stay silent.
//!
//! A 400 helps whoever debugs a peer, and on a stream the sender is known. A reply copies Via, From, To, Call-ID and CSeq;
//! they are picked out leniently and put into a clean message of their own, so that nothing of the malformed rest travels.

use super::{Header, HeaderName, LONG_MESSAGE_MAX, Message, Method, ParseError, StatusCode};
use crate::sip::encode::Encoder;
use crate::sip::grammar::{self, Elements, Parameters};
use crate::sip::via::Via;

/// What a reply copies (RFC 3261 §8.2.6.2) beside the Vias.
const COPIED: [HeaderName; 4] = [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];

impl Message {
    /// A stand-in for a malformed request that a reply can be built from: its Request-URI, if it can be read, its Vias and the
    /// first From, To, Call-ID and CSeq, as far as they are there. Each of those four may be missing or malformed; a reply
    /// copies what there is (RFC 4475 §3.3.1).
    ///
    /// `None` means silence: it is a response or an ACK, which nobody answers, or it has no Via with a readable sent-by, so that
    /// an answer would not be recognised. Also works on the bytes of a message that parses but has a field that does not.
    pub fn salvage(bytes: &[u8]) -> Option<Self> {
        let text = unfolded(bytes);
        let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let (method, uri) = request_line(lines.next()?)?;
        let mut clean = Vec::new();
        let mut encoder = Encoder::request(&mut clean, method, uri);
        copy_fields(lines, &mut encoder);
        encoder.finish(&[]);
        let request = Self::parse_datagram(clean).ok()?;
        request.top_via().is_ok().then_some(request)
    }

    /// A stand-in for the malformed final response to a REGISTER: a 502 that says what cannot be read, for the exchange that
    /// waits for it. It neither grants nor refuses anything, whatever the response said.
    ///
    /// `None`: it is something else, or does not say which exchange it belongs to.
    pub fn salvage_registered(bytes: &[u8]) -> Option<Self> {
        let text = unfolded(bytes);
        let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
        let code = final_status(lines.next()?)?;
        let reason = format!("The registrar's response ({code}) cannot be read");
        let mut clean = Vec::new();
        let mut encoder = Encoder::response(&mut clean, StatusCode::new(502)?, reason.as_bytes());
        copy_fields(lines, &mut encoder);
        encoder.finish(&[]);
        let response = Self::parse_datagram(clean).ok()?;
        let is_register = response.cseq().is_ok_and(|cseq| cseq.method == Method::Register);
        (is_register && response.top_via().is_ok()).then_some(response)
    }
}

/// Copies what a reply copies.
fn copy_fields<'a>(lines: impl Iterator<Item = &'a [u8]>, encoder: &mut Encoder<'_>) {
    let mut is_taken = [false; COPIED.len()];
    for header in lines.take_while(|line| !line.is_empty()).filter_map(header) {
        if header.name == HeaderName::Via {
            push_vias(encoder, header.value);
        } else if let Some(place) = COPIED.iter().position(|name| *name == header.name)
            && !std::mem::replace(&mut is_taken[place], true)
        {
            encoder.copy(header);
        }
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

/// Method and Request-URI of whatever resembles a request line.
fn request_line(line: &[u8]) -> Option<(Method<'_>, &[u8])> {
    let (method, rest) = grammar::token(grammar::trim_start(line))?;
    let text = grammar::trim(rest);
    let version = text.rsplit(|&byte| grammar::is_space(byte)).next()?;
    let is_request = rest.first().is_some_and(|&byte| grammar::is_space(byte))
        && version.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"SIP/"));
    let uri = grammar::trim(&text[..text.len() - version.len()]);
    let is_readable = !uri.is_empty() && uri.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    let method = Method::parse(method.as_bytes()).filter(|method| is_request && *method != Method::Ack)?;
    Some((method, if is_readable { uri } else { b"sip:malformed.invalid" }))
}

/// The code of whatever resembles the status line of a final response.
fn final_status(line: &[u8]) -> Option<u16> {
    let (version, rest) = line.split_at_checked(4)?;
    let code = rest.split(|&byte| grammar::is_space(byte)).nth(1)?;
    let code = u16::try_from(grammar::number(code)?).ok().filter(|code| (200..=699).contains(code))?;
    version.eq_ignore_ascii_case(b"SIP/").then_some(code)
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
    let bytes = &bytes[..bytes.len().min(LONG_MESSAGE_MAX)];
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
