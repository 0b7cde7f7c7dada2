//! Requests of our own within a call that we forwarded: ACK, CANCEL, BYE.

use super::super::address::Address;
use super::super::encode::Encoder;
use super::super::message::{FieldError, HeaderName, Message, Method};
use super::field::split_first;
use super::{MAX_FORWARDS, OwnVia, via_line};

/// Writes the ACK for a final other than 2xx, from the request we sent and its response (RFC 3261 §17.1.1.3).
///
/// # Errors
/// A field that the ACK is made of is missing or malformed.
pub fn write_ack(request: &Message, response: &Message, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let to = raw(response, HeaderName::To)?;
    write_like(Method::Ack, request, to, None, out)
}

/// Writes the CANCEL for a request we sent (RFC 3261 §9.1), with Reason if given.
///
/// # Errors
/// A field that the CANCEL is made of is missing or malformed.
pub fn write_cancel(request: &Message, reason: Option<&str>, out: &mut Vec<u8>) -> Result<(), FieldError> {
    let to = raw(request, HeaderName::To)?;
    write_like(Method::Cancel, request, to, reason, out)
}

/// Writes an ACK or BYE of our own in the caller's place, for a 2xx that nobody else will acknowledge.
///
/// `invite` is the INVITE as we sent it, `response` the 2xx, `own_routes` how many Record-Routes on top of the INVITE are
/// ours. The remote target is the response's Contact. Its Record-Routes from ours on lead back to the caller; those
/// above were added by proxies beyond us and, reversed, are the route set.
///
/// # Errors
/// A field that the request is made of is missing or malformed.
pub fn write_in_dialog(
    method: Method<'_>,
    invite: &Message,
    response: &Message,
    via: OwnVia<'_>,
    own_routes: usize,
    out: &mut Vec<u8>,
) -> Result<(), FieldError> {
    let from = raw(invite, HeaderName::From)?;
    let to = raw(response, HeaderName::To)?;
    let call_id = invite.call_id()?;
    let contact = response.contacts().next().ok_or(FieldError { name: HeaderName::Contact })??;
    let target = contact.uri().raw();
    // An ACK has the INVITE's number (§13.2.2.4), any other request the next one.
    let number = invite.cseq()?.number;
    let number = if method == Method::Ack { number } else { number.saturating_add(1) };

    let mut routes = routes_beyond(invite, response, own_routes);
    let request_uri = strict_route(&mut routes, target)?;

    let mut message = Encoder::request(out, method, &request_uri);
    message.header(HeaderName::Via, via_line(via));
    for route in &routes {
        message.raw(HeaderName::Route, route);
    }
    message.header(HeaderName::MaxForwards, MAX_FORWARDS);
    message.raw(HeaderName::From, from);
    message.raw(HeaderName::To, to);
    message.raw(HeaderName::CallId, call_id);
    message.header(HeaderName::CSeq, format_args!("{number} {}", method.as_str()));
    message.finish(b"");
    Ok(())
}

/// The route set from us on. Ours is found by its text, since phones may drop or add values; where it is missing, as
/// many as the INVITE had are taken for ours and the caller's side.
fn routes_beyond(invite: &Message, response: &Message, own_routes: usize) -> Vec<Vec<u8>> {
    let recorded: Vec<&[u8]> = response.list(HeaderName::RecordRoute).collect();
    let ours = invite.list(HeaderName::RecordRoute).take(own_routes).next();
    let beyond = ours
        .and_then(|ours| recorded.iter().position(|route| *route == ours))
        .unwrap_or_else(|| recorded.len().saturating_sub(invite.list(HeaderName::RecordRoute).count()));
    recorded[..beyond].iter().rev().map(|route| route.to_vec()).collect()
}

/// The Request-URI. Where the first hop is a strict router it is that hop, and the target goes to the end of the routes
/// (RFC 3261 §12.2.1.1).
fn strict_route(routes: &mut Vec<Vec<u8>>, target: &[u8]) -> Result<Vec<u8>, FieldError> {
    let Some(first) = routes.first() else { return Ok(target.to_vec()) };
    let first = Address::parse(first).map_err(|_| FieldError { name: HeaderName::RecordRoute })?;
    if first.uri().has_lr() {
        return Ok(target.to_vec());
    }
    let hop = first.uri().raw().to_vec();
    routes.remove(0);
    routes.push([b"<", target, b">"].concat());
    Ok(hop)
}

/// A request that shares transaction, route and dialog with `request`: "the single top Via", Route, From, Call-ID and
/// CSeq number are the same (RFC 3261 §9.1, §17.1.1.3).
fn write_like(
    method: Method<'_>,
    request: &Message,
    to: &[u8],
    reason: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), FieldError> {
    let request_uri = request.request_uri().ok_or(FieldError { name: HeaderName::Other })?;
    let (via, _) = split_first(raw(request, HeaderName::Via)?);
    let from = raw(request, HeaderName::From)?;
    let call_id = request.call_id()?;
    let number = request.cseq()?.number;

    let mut message = Encoder::request(out, method, request_uri);
    message.raw(HeaderName::Via, via);
    for header in request.headers().filter(|header| header.name == HeaderName::Route) {
        message.copy(header);
    }
    message.header(HeaderName::MaxForwards, MAX_FORWARDS);
    message.raw(HeaderName::From, from);
    message.raw(HeaderName::To, to);
    message.raw(HeaderName::CallId, call_id);
    message.header(HeaderName::CSeq, format_args!("{number} {}", method.as_str()));
    if let Some(reason) = reason {
        message.header(HeaderName::Reason, reason);
    }
    message.finish(b"");
    Ok(())
}

fn raw(message: &Message, name: HeaderName) -> Result<&[u8], FieldError> {
    message.header(name).ok_or(FieldError { name })
}
