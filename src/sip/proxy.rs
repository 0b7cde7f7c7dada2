//! The message side of a stateful proxy (RFC 3261 §16) with double Record-Route (RFC 5658), and of the UAS and UAC
//! around it: what is written, never when or to whom.
//!
//! Its own room because what a proxy may change in a message is a short list, and everything else has to pass byte for
//! byte. It refuses to keep state and to look into bodies.

mod field;
mod forward;
mod own;
mod reply;

pub use forward::{Forward, write_forward, write_forward_response};
pub use own::{write_ack, write_cancel, write_in_dialog};
pub use reply::{Reply, write_reply};

use std::fmt;
use std::net::SocketAddr;

use super::message::{FieldError, HeaderName, Message, Method, StatusCode};
use super::uri::Uri;
use super::via::Transport;

/// Where requests of our own, and forwarded ones that do not say, start counting hops (RFC 3261 §8.1.1.6, §16.6).
const MAX_FORWARDS: u8 = 70;

/// Why a request cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unforwardable {
    /// A field that we need is missing or malformed.
    Malformed(FieldError),
    /// Max-Forwards is used up.
    TooManyHops,
    /// It has been here before.
    Loop,
    /// Proxy-Require names an extension, or Require in a request that ends with us: we have none. The answer lists them, see [`unsupported`].
    BadExtension,
}

impl Unforwardable {
    /// The status of the answer (RFC 3261 §16.3).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooManyHops => StatusCode::TOO_MANY_HOPS,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::BadExtension => StatusCode::BAD_EXTENSION,
        }
    }
}

/// Request validation (RFC 3261 §16.3): what we need is there and well-formed, hops are left, nothing is required of us.
///
/// # Errors
/// The first check that fails.
pub fn validate(request: &Message) -> Result<(), Unforwardable> {
    let hops = mandatory_fields(request).map_err(Unforwardable::Malformed)?;
    if hops == Some(0) {
        return Err(Unforwardable::TooManyHops);
    }
    // "Ignore Require in ACK and CANCEL" (§8.2.2.3): no answer could say so.
    let answerable = !matches!(request.method(), Some(Method::Ack | Method::Cancel));
    if answerable && request.list(HeaderName::ProxyRequire).next().is_some() {
        return Err(Unforwardable::BadExtension);
    }
    Ok(())
}

/// Whether Require names an extension, for requests that end with us: we have none (RFC 3261 §8.2.2.3).
#[must_use]
pub fn requires_anything(request: &Message) -> bool {
    request.list(HeaderName::Require).next().is_some()
}

/// The value of Unsupported in a 420: everything Proxy-Require names; where it is not that, everything Require names.
#[must_use]
pub fn unsupported(request: &Message) -> String {
    let names = |name| request.list(name).map(String::from_utf8_lossy).collect::<Vec<_>>().join(", ");
    let of_proxy = names(HeaderName::ProxyRequire);
    if of_proxy.is_empty() { names(HeaderName::Require) } else { of_proxy }
}

/// Where a response goes by the top Via (RFC 3261 §18.2.2, RFC 3581): over a stream and with `rport` to where the
/// request came from; else to the port of sent-by there. `maddr` is not honoured: it would aim our answers at others.
#[must_use]
pub fn response_target(request: &Message, source: SocketAddr) -> SocketAddr {
    let Ok(via) = request.top_via() else { return source };
    match via.transport() {
        Some(Transport::Udp) if !via.wants_rport() => {
            let port = via.sent_by_port().unwrap_or(Transport::Udp.default_port());
            SocketAddr::new(source.ip(), port)
        }
        _ => source,
    }
}

/// Our Via for a forwarded or own request.
#[derive(Clone, Copy)]
pub struct OwnVia<'a> {
    /// Over which it is sent.
    pub transport: Transport,
    /// Where responses find us: `host` or `host:port`.
    pub sent_by: &'a str,
    /// The transaction's name, magic cookie included.
    pub branch: &'a str,
}

/// The Via value. Over UDP it asks for `rport`: the peer then answers through any NAT between us.
pub(crate) fn via_line(via: OwnVia<'_>) -> impl fmt::Display {
    ViaLine(via)
}

struct ViaLine<'a>(OwnVia<'a>);

impl fmt::Display for ViaLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OwnVia { transport, sent_by, branch } = self.0;
        let rport = if transport.is_reliable() { "" } else { ";rport" };
        write!(f, "SIP/2.0/{} {sent_by}{rport};branch={branch}", transport.as_via())
    }
}

/// The hops left, if the fields that every request has are there (RFC 3261 §8.1.1).
fn mandatory_fields(request: &Message) -> Result<Option<u8>, FieldError> {
    let malformed = |name| FieldError { name };
    let request_uri = request.request_uri().unwrap_or_default();
    Uri::parse(request_uri).map_err(|_| malformed(HeaderName::Other))?;
    request.top_via()?;
    request.from()?;
    request.to()?;
    request.call_id()?;
    if Some(request.cseq()?.method) != request.method() {
        return Err(malformed(HeaderName::CSeq));
    }
    request.max_forwards()
}

#[cfg(test)]
mod tests;
