//! SKELETON. A message over one buffer, with cheap views. At most two allocations: the header table and the buffer.

use std::time::Duration;

use bytes::Bytes;

use super::address::Address;
use super::auth::{Challenge, Credentials};
use super::via::Via;

/// Longest message (bytes).
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Most header fields in a message.
pub const HEADERS_MAX: usize = 64;

/// A parsed message. Folding is undone in place (CR, LF and the leading white space become spaces).
#[derive(Clone, Debug)]
pub struct Message {
    buffer: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method<'a> { Invite, Ack, Bye, Cancel, Register, Options, Info, Update, Prack, Message, Notify, Subscribe, Refer, Publish, Other(&'a str) }

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

/// Known names; compact forms are mapped; others are `Other` (compare `Header::raw_name`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rustfmt::skip]
pub enum HeaderName { Accept, Allow, AllowEvents, AuthenticationInfo, Authorization, CallId, Contact, ContentLength, ContentType, CSeq, Date, Event,
    Expires, From, MaxForwards, MinExpires, Path, ProxyAuthenticate, ProxyAuthorization, ProxyRequire, Reason, RecordRoute, ReferTo, Replaces, Require,
    RetryAfter, Route, RSeq, RAck, ServiceRoute, SessionExpires, SubscriptionState, Supported, To, Unsupported, Via, Warning, WwwAuthenticate, FlowTimer, SipEtag, Other }

#[derive(Clone, Copy)]
pub struct Header<'a> { pub name: HeaderName, pub raw_name: &'a [u8], pub value: &'a [u8] }

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> { pub number: u32, pub method: Method<'a> }

/// Why bytes are no SIP message. Variants to be refined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError { #[error("malformed start line")] StartLine, #[error("malformed header field")] HeaderField, #[error("too large")] TooLarge,
    #[error("too many header fields")] TooManyHeaders, #[error("Content-Length is missing, repeated or wrong")] ContentLength, #[error("unsupported SIP version")] Version }

/// A header field that is missing or malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is missing or malformed")]
pub struct FieldError { pub name: HeaderName }

impl Message {
    /// Parses one whole datagram: a body longer than Content-Length is cut, a shorter one is an error.
    pub fn parse_datagram(_buffer: Vec<u8>) -> Result<Self, ParseError> { todo!() }
    /// Parses one frame cut from a stream by `framing` (Content-Length must be there and exact).
    pub fn parse_frame(_buffer: Vec<u8>) -> Result<Self, ParseError> { todo!() }
    /// `None` for responses.
    pub fn method(&self) -> Option<Method<'_>> { todo!() }
    /// The Request-URI as it stands; `None` for responses.
    pub fn request_uri(&self) -> Option<&[u8]> { todo!() }
    /// `None` for requests.
    pub fn status(&self) -> Option<StatusCode> { todo!() }
    /// The reason phrase; empty for requests.
    pub fn reason_phrase(&self) -> &[u8] { todo!() }
    /// All header fields in order (folded ones joined, white space around values trimmed).
    pub fn headers(&self) -> impl Iterator<Item = Header<'_>> { std::iter::empty() }
    /// The first field of that name.
    pub fn header(&self, _name: HeaderName) -> Option<&[u8]> { todo!() }
    /// The first field whose raw name equals `name` in any case (for extension headers).
    pub fn extension(&self, _name: &str) -> Option<&[u8]> { todo!() }
    /// Each value of a comma-separated list header, over all its fields, in order; aware of quotes and angle brackets.
    pub fn list(&self, _name: HeaderName) -> impl Iterator<Item = &[u8]> { std::iter::empty() }
    pub fn top_via(&self) -> Result<Via<'_>, FieldError> { todo!() }
    pub fn from(&self) -> Result<Address<'_>, FieldError> { todo!() }
    pub fn to(&self) -> Result<Address<'_>, FieldError> { todo!() }
    /// All Contacts; a lone `*` yields nothing here, see `contact_is_star`.
    pub fn contacts(&self) -> impl Iterator<Item = Result<Address<'_>, FieldError>> { std::iter::empty() }
    pub fn contact_is_star(&self) -> bool { todo!() }
    pub fn routes(&self) -> impl Iterator<Item = Result<Address<'_>, FieldError>> { std::iter::empty() }
    pub fn call_id(&self) -> Result<&[u8], FieldError> { todo!() }
    pub fn cseq(&self) -> Result<CSeq<'_>, FieldError> { todo!() }
    /// `Ok(None)` where the header is absent.
    pub fn max_forwards(&self) -> Result<Option<u8>, FieldError> { todo!() }
    /// Expires header in seconds (values above 2^32-1 saturate; malformed is an error).
    pub fn expires(&self) -> Result<Option<u32>, FieldError> { todo!() }
    pub fn min_expires(&self) -> Result<Option<u32>, FieldError> { todo!() }
    /// Retry-After's delta-seconds.
    pub fn retry_after(&self) -> Option<Duration> { todo!() }
    /// All challenges of WWW-Authenticate and Proxy-Authenticate, also several in one field; malformed ones are skipped.
    pub fn challenges(&self) -> impl Iterator<Item = Challenge<'_>> { std::iter::empty() }
    /// The credentials of Authorization or Proxy-Authorization for `realm`, if any.
    pub fn credentials(&self, _name: HeaderName, _realm: &str) -> Option<Credentials<'_>> { todo!() }
    /// Whether a Require / Supported / Proxy-Require list names the option tag.
    pub fn requires(&self, _option: &str) -> bool { todo!() }
    pub fn supports(&self, _option: &str) -> bool { todo!() }
    pub fn body(&self) -> &[u8] { todo!() }
    /// The whole message as received (folding undone).
    pub fn bytes(&self) -> &Bytes { &self.buffer }
}

impl<'a> Method<'a> {
    pub fn parse(_token: &'a [u8]) -> Option<Self> { todo!() }
    pub fn as_str(&self) -> &'a str { todo!() }
}

impl StatusCode {
    pub const TRYING: Self = Self(100);
    pub const RINGING: Self = Self(180);
    pub const OK: Self = Self(200);
    // … every code of RFC 3261 §21 that is used, by its name in capitals
    /// 100..=699
    pub const fn new(code: u16) -> Option<Self> { if code >= 100 && code <= 699 { Some(Self(code)) } else { None } }
    pub const fn code(self) -> u16 { self.0 }
    pub const fn is_provisional(self) -> bool { self.0 < 200 }
    pub const fn is_success(self) -> bool { self.0 >= 200 && self.0 < 300 }
    /// The RFC's reason phrase.
    pub fn reason(self) -> &'static str { todo!() }
}

impl HeaderName {
    /// The canonical long name; empty for `Other`.
    pub fn as_str(self) -> &'static str { todo!() }
}
