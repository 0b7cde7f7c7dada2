//! Typed views of the header fields we act on.
//!
//! Each getter parses when asked and says `FieldError` for what is missing, malformed, or there twice where RFC 3261 §7.3.1
//! allows one (RFC 4475 §3.3.8): picking one of two would let two elements see two different requests.

use std::time::Duration;

use super::{CSeq, FieldError, HeaderName, Message, Method, Reason};
use crate::sip::address::Address;
use crate::sip::auth::{self, Challenge, Credentials};
use crate::sip::grammar;
use crate::sip::via::Via;

impl Message {
    /// The topmost Via.
    ///
    /// # Errors
    /// If there is none or it is malformed.
    pub fn top_via(&self) -> Result<Via<'_>, FieldError> {
        self.vias().next().unwrap_or(Err(FieldError { name: HeaderName::Via }))
    }

    /// All Vias, topmost first.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'_>, FieldError>> {
        self.list(HeaderName::Via).map(|value| Via::parse(value).map_err(|_| FieldError { name: HeaderName::Via }))
    }

    /// From.
    ///
    /// # Errors
    /// If it is missing, repeated or malformed.
    pub fn from(&self) -> Result<Address<'_>, FieldError> {
        self.single_address(HeaderName::From)
    }

    /// To.
    ///
    /// # Errors
    /// If it is missing, repeated or malformed.
    pub fn to(&self) -> Result<Address<'_>, FieldError> {
        self.single_address(HeaderName::To)
    }

    /// All Contacts; a lone `*` yields nothing here, see `contact_is_star`.
    pub fn contacts(&self) -> impl Iterator<Item = Result<Address<'_>, FieldError>> {
        let is_star = self.contact_is_star();
        self.addresses(HeaderName::Contact).skip(usize::from(is_star))
    }

    /// Whether the only Contact is `*` (RFC 3261 §10.2.2).
    pub fn contact_is_star(&self) -> bool {
        self.header(HeaderName::Contact) == Some(b"*") && !self.index.is_repeated(HeaderName::Contact)
    }

    /// All Routes, the next hop first.
    pub fn routes(&self) -> impl Iterator<Item = Result<Address<'_>, FieldError>> {
        self.addresses(HeaderName::Route)
    }

    /// All Record-Routes, topmost first.
    pub fn record_routes(&self) -> impl Iterator<Item = Result<Address<'_>, FieldError>> {
        self.addresses(HeaderName::RecordRoute)
    }

    /// Call-ID.
    ///
    /// # Errors
    /// If it is missing, repeated, empty, or holds white space or control characters.
    pub fn call_id(&self) -> Result<&[u8], FieldError> {
        let value = self.single(HeaderName::CallId)?.ok_or(FieldError { name: HeaderName::CallId })?;
        let is_sound = !value.is_empty() && value.iter().all(|&byte| byte > b' ' && byte != 0x7f);
        if is_sound { Ok(value) } else { Err(FieldError { name: HeaderName::CallId }) }
    }

    /// CSeq.
    ///
    /// # Errors
    /// If it is missing, repeated or malformed, or its number does not fit 32 bits.
    pub fn cseq(&self) -> Result<CSeq<'_>, FieldError> {
        let value = self.single(HeaderName::CSeq)?;
        value.and_then(cseq).ok_or(FieldError { name: HeaderName::CSeq })
    }

    /// Max-Forwards; `Ok(None)` where the header is absent.
    ///
    /// # Errors
    /// If it is repeated, no number, or above 255.
    pub fn max_forwards(&self) -> Result<Option<u8>, FieldError> {
        let error = FieldError { name: HeaderName::MaxForwards };
        let Some(value) = self.single(HeaderName::MaxForwards)? else { return Ok(None) };
        grammar::number(value).and_then(|hops| u8::try_from(hops).ok()).map(Some).ok_or(error)
    }

    /// Expires header in seconds (values above 2^32-1 saturate).
    ///
    /// # Errors
    /// If it is repeated or no number.
    pub fn expires(&self) -> Result<Option<u32>, FieldError> {
        self.seconds(HeaderName::Expires)
    }

    /// Min-Expires in seconds, saturating.
    ///
    /// # Errors
    /// If it is repeated or no number.
    pub fn min_expires(&self) -> Result<Option<u32>, FieldError> {
        self.seconds(HeaderName::MinExpires)
    }

    /// Retry-After's delta-seconds; its comment and parameters are left aside.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.header(HeaderName::RetryAfter)?;
        let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
        let (digits, rest) = value.split_at(end);
        let is_sound = matches!(grammar::trim_start(rest), [] | [b'(' | b';', ..]);
        let seconds = grammar::saturating_number(digits).filter(|_| is_sound)?;
        Some(Duration::from_secs(u64::from(seconds)))
    }

    /// The Reasons (RFC 3326); malformed ones are skipped.
    pub fn reasons(&self) -> impl Iterator<Item = Reason<'_>> {
        self.list(HeaderName::Reason).filter_map(Reason::parse)
    }

    /// All challenges of WWW-Authenticate and Proxy-Authenticate, also several in one field; malformed ones are skipped.
    pub fn challenges(&self) -> impl Iterator<Item = Challenge<'_>> {
        let in_fields = |name| {
            self.values(name).flat_map(move |value| auth::challenges(value, name == HeaderName::ProxyAuthenticate))
        };
        in_fields(HeaderName::WwwAuthenticate).chain(in_fields(HeaderName::ProxyAuthenticate))
    }

    /// The credentials of Authorization or Proxy-Authorization (`name`) for `realm`, if any.
    pub fn credentials(&self, name: HeaderName, realm: &str) -> Option<Credentials<'_>> {
        self.values(name).filter_map(Credentials::parse).find(|credentials| credentials.realm == realm)
    }

    /// Whether a Require list names the option tag.
    pub fn requires(&self, option: &str) -> bool {
        self.names(HeaderName::Require, option)
    }

    /// Whether a Supported list names the option tag.
    pub fn supports(&self, option: &str) -> bool {
        self.names(HeaderName::Supported, option)
    }

    /// The value of a field of which there may be one.
    fn single(&self, name: HeaderName) -> Result<Option<&[u8]>, FieldError> {
        if self.index.is_repeated(name) { Err(FieldError { name }) } else { Ok(self.header(name)) }
    }

    fn single_address(&self, name: HeaderName) -> Result<Address<'_>, FieldError> {
        let value = self.single(name)?.ok_or(FieldError { name })?;
        Address::parse(value).map_err(|_| FieldError { name })
    }

    fn addresses(&self, name: HeaderName) -> impl Iterator<Item = Result<Address<'_>, FieldError>> {
        self.list(name).map(move |value| Address::parse(value).map_err(|_| FieldError { name }))
    }

    fn seconds(&self, name: HeaderName) -> Result<Option<u32>, FieldError> {
        let Some(value) = self.single(name)? else { return Ok(None) };
        grammar::saturating_number(value).map(Some).ok_or(FieldError { name })
    }

    fn names(&self, name: HeaderName, option: &str) -> bool {
        self.list(name).any(|tag| tag.eq_ignore_ascii_case(option.as_bytes()))
    }
}

/// `CSeq = 1*DIGIT LWS Method`.
fn cseq(value: &[u8]) -> Option<CSeq<'_>> {
    let end = value.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = value.split_at(end);
    let method = grammar::trim_start(rest);
    if method.len() == rest.len() {
        return None;
    }
    let number = u32::try_from(grammar::number(digits)?).ok()?;
    Some(CSeq { number, method: Method::parse(method)? })
}
