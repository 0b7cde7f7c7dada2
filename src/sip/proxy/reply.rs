//! Responses of our own (RFC 3261 §8.2.6).

use std::net::SocketAddr;

use super::super::address::Address;
use super::super::encode::Encoder;
use super::super::message::{FieldError, HeaderName, Message, StatusCode};
use super::forward::copy_received;

/// A response of our own.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    /// The status, with the RFC's reason phrase.
    pub code: StatusCode,
    /// Our To tag, for a request that has none; a 100 gets none.
    pub to_tag: Option<&'a str>,
    /// Where the request came from, for the top Via.
    pub source: Option<SocketAddr>,
    /// Copy Record-Route (for a 1xx that forms a dialog).
    pub record_route: bool,
    /// Header fields to add at the end.
    pub extra: &'a [(&'a str, String)],
}

/// Writes it: all Vias in their order, From, To, Call-ID and CSeq as they came, no body.
///
/// # Errors
/// One of these fields is missing: then there is no one to answer. Malformed ones are returned as they came, so that a
/// 400 can be written for them.
pub fn write_reply(request: &Message, reply: &Reply<'_>, out: &mut Vec<u8>) -> Result<(), FieldError> {
    for name in [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
        request.header(name).ok_or(FieldError { name })?;
    }
    let mut message = Encoder::response(out, reply.code, reply.code.reason().as_bytes());
    let mut top_via = reply.source;
    for header in request.headers().filter(|header| header.name == HeaderName::Via) {
        match top_via.take() {
            Some(source) => copy_received(&mut message, header, source),
            None => drop(message.copy(header)),
        }
    }
    // A field that may stand once is copied once: a second From would make our answer as malformed as the request.
    let mut left = vec![HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
    for header in request.headers() {
        if header.name == HeaderName::RecordRoute && reply.record_route {
            message.copy(header);
        }
        let Some(place) = left.iter().position(|name| *name == header.name) else { continue };
        left.swap_remove(place);
        match reply.to_tag.filter(|_| header.name == HeaderName::To && takes_tag(header.value, reply.code)) {
            Some(tag) => message.raw(HeaderName::To, &[header.value, b";tag=", tag.as_bytes()].concat()),
            None => message.copy(header),
        };
    }
    if reply.code == StatusCode::TRYING
        && let Some(timestamp) = request.extension("Timestamp")
    {
        message.extension("Timestamp", String::from_utf8_lossy(timestamp));
    }
    for (name, value) in reply.extra {
        message.extension(name, value);
    }
    message.finish(b"");
    Ok(())
}

/// Whether To lacks a tag that it must get (RFC 3261 §8.2.6.2). Behind a malformed To a tag would be one more oddity.
fn takes_tag(to: &[u8], code: StatusCode) -> bool {
    code != StatusCode::TRYING && Address::parse(to).is_ok_and(|to| to.tag().is_none())
}
