//! Forwarding a request (RFC 3261 §16.6) and a response (§16.7).

use std::net::SocketAddr;

use super::super::encode::Encoder;
use super::super::message::{Header, HeaderName, Message, StatusCode};
use super::super::via::Transport;
use super::field::{received_via, split_first};
use super::{MAX_FORWARDS, OwnVia, via_line};

/// What changes when a request is forwarded.
#[derive(Clone, Copy)]
pub struct Forward<'a> {
    /// The new Request-URI.
    pub request_uri: &'a [u8],
    /// Our Via.
    pub via: OwnVia<'a>,
    /// How many leading Route values are ours and are dropped.
    pub routes_dropped: usize,
    /// Record-Route values to put on top, topmost first (`<sip:…;lr>`).
    pub record_routes: &'a [String],
    /// Header fields to add at the end; they take the place of fields of the same name.
    pub extra: &'a [(&'a str, String)],
}

/// Writes the forwarded request: our Via and Record-Routes on top, one hop less, everything else in its order and byte
/// for byte. `received`: where it came from, for the previous hop's Via. Writes nothing if `request` is a response.
pub fn write_forward(
    request: &Message,
    received: Option<(SocketAddr, Transport)>,
    change: &Forward<'_>,
    out: &mut Vec<u8>,
) {
    let Some(method) = request.method() else { return };
    let mut message = Encoder::request(out, method, change.request_uri);
    message.header(HeaderName::Via, via_line(change.via));
    for route in change.record_routes {
        message.header(HeaderName::RecordRoute, route);
    }
    let mut top_via = received.map(|(source, _)| source);
    let mut hops = Some(request.max_forwards().ok().flatten().map_or(MAX_FORWARDS, |hops| hops.saturating_sub(1)));
    let mut routes_dropped = change.routes_dropped;
    for header in request.headers() {
        match header.name {
            HeaderName::Via => match top_via.take() {
                Some(source) => copy_received(&mut message, header, source),
                None => drop(message.copy(header)),
            },
            // Only once: a second one is malformed, and would speak for a hop count that we did not judge.
            HeaderName::MaxForwards => {
                if let Some(hops) = hops.take() {
                    message.header(HeaderName::MaxForwards, hops);
                }
            }
            HeaderName::Route if routes_dropped > 0 => copy_routes(&mut message, header, &mut routes_dropped),
            HeaderName::ContentLength => {}
            _ if is_replaced(header, change.extra) => {}
            _ => drop(message.copy(header)),
        }
    }
    if let Some(hops) = hops {
        message.header(HeaderName::MaxForwards, hops);
    }
    for (name, value) in change.extra {
        message.extension(name, value);
    }
    message.finish(request.body());
}

/// Writes the response without its topmost Via, which is ours. `code` replaces the status where a proxy must (a 503 goes
/// on as 500). Writes nothing if `response` is a request.
pub fn write_forward_response(response: &Message, code: Option<StatusCode>, out: &mut Vec<u8>) {
    let Some(status) = response.status() else { return };
    let mut message = match code.filter(|code| *code != status) {
        Some(code) => Encoder::response(out, code, code.reason().as_bytes()),
        None => Encoder::response(out, status, response.reason_phrase()),
    };
    let mut is_top = true;
    for header in response.headers() {
        match header.name {
            HeaderName::Via if is_top => {
                is_top = false;
                if let (_, Some(others)) = split_first(header.value) {
                    message.raw(HeaderName::Via, others);
                }
            }
            HeaderName::ContentLength => {}
            _ => drop(message.copy(header)),
        }
    }
    message.finish(response.body());
}

/// The field with the previous hop's Via in front.
pub(super) fn copy_received(message: &mut Encoder<'_>, header: Header<'_>, source: SocketAddr) {
    let (first, others) = split_first(header.value);
    let mut value = received_via(first, source);
    if value == first {
        message.copy(header);
        return;
    }
    if let Some(others) = others {
        value.extend_from_slice(b", ");
        value.extend_from_slice(others);
    }
    message.raw(HeaderName::Via, &value);
}

/// The field without as many of its leading values as are still to drop.
fn copy_routes(message: &mut Encoder<'_>, header: Header<'_>, to_drop: &mut usize) {
    let mut rest = Some(header.value);
    while let (Some(value), true) = (rest, *to_drop > 0) {
        rest = split_first(value).1;
        *to_drop -= 1;
    }
    if let Some(value) = rest {
        message.raw(HeaderName::Route, value);
    }
}

fn is_replaced(header: Header<'_>, extra: &[(&str, String)]) -> bool {
    extra.iter().any(|(name, _)| header.raw_name.eq_ignore_ascii_case(name.as_bytes()))
}
