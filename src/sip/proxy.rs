//! SKELETON. The message side of a stateful proxy (RFC 3261 §16) with double Record-Route (RFC 5658), and of a UAS/UAC around it.
use std::net::SocketAddr;
use super::message::{FieldError, Message, Method, StatusCode};
use super::via::Transport;

/// Why a request cannot be forwarded; each has its status (§16.3): 400, 483, 482, 420 …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unforwardable { Malformed(FieldError), TooManyHops, Loop, BadExtension }
impl Unforwardable { pub fn status(&self) -> StatusCode { todo!() } }
/// §16.3 request validation: mandatory headers there and well-formed, Max-Forwards not 0, Proxy-Require empty.
pub fn validate(_request: &Message) -> Result<(), Unforwardable> { todo!() }

/// Our Via line for a forwarded or own request.
#[derive(Clone, Copy)]
pub struct OwnVia<'a> { pub transport: Transport, pub sent_by: &'a str, pub branch: &'a str }

/// What changes when a request is forwarded (§16.6).
pub struct Forward<'a> {
    pub request_uri: &'a [u8],
    pub via: OwnVia<'a>,
    /// Our own leading Route values to drop (those with valid tokens, 0–2).
    pub routes_dropped: usize,
    /// Record-Route values to put on top, first = topmost (`<sip:…;lr>`), 0–2.
    pub record_routes: &'a [String],
    /// Header fields to add at the end.
    pub extra: &'a [(&'a str, String)],
}
/// Writes the forwarded request: Via on top, Max-Forwards counted down (70 if absent), body byte-exact.
pub fn write_forward(_request: &Message, _received: Option<(SocketAddr, Transport)>, _change: &Forward<'_>, _out: &mut Vec<u8>) { todo!() }
// `received`: the source, so that the previous hop's Via gets received/rport (RFC 3261 §18.2.1, RFC 3581) on the copy.

/// Writes the response with our own (topmost) Via taken off (§16.7); `code` replaces the status where a proxy must (503 → 500).
pub fn write_forward_response(_response: &Message, _code: Option<StatusCode>, _out: &mut Vec<u8>) { todo!() }

/// A response of our own to a request (§8.2.6): Vias copied (received/rport added to the top one), From, To (+ tag), Call-ID, CSeq, extra headers, no body.
pub struct Reply<'a> { pub code: StatusCode, pub to_tag: Option<&'a str>, pub source: Option<SocketAddr>, /// copy Record-Route (for a dialog-forming 1xx)
    pub record_route: bool, pub extra: &'a [(&'a str, String)] }
pub fn write_reply(_request: &Message, _reply: &Reply<'_>, _out: &mut Vec<u8>) -> Result<(), FieldError> { todo!() }

/// ACK for a non-2xx final (§17.1.1.3) from the request we sent and its response.
pub fn write_ack(_request: &Message, _response: &Message, _out: &mut Vec<u8>) -> Result<(), FieldError> { todo!() }
/// CANCEL for a request we sent (§9.1), with Reason if given.
pub fn write_cancel(_request: &Message, _reason: Option<&str>, _out: &mut Vec<u8>) -> Result<(), FieldError> { todo!() }
/// ACK (for a 2xx that nobody else will ACK) or BYE of our own as the caller's side, from the INVITE we forwarded and the 2xx: remote target = its Contact,
/// route set = its Record-Routes reversed without those in front that are ours (`own_routes` many).
pub fn write_in_dialog(_method: Method<'_>, _invite: &Message, _response: &Message, _via: OwnVia<'_>, _own_routes: usize, _out: &mut Vec<u8>) -> Result<(), FieldError> { todo!() }
/// Where a response goes by the top Via (RFC 3261 §18.2.2, RFC 3581): source address; port from rport or sent-by.
pub fn response_target(_request: &Message, _source: SocketAddr) -> SocketAddr { todo!() }
