//! SKELETON. Building and reading REGISTER (RFC 3261 §10).
use super::message::{Message, StatusCode};
use super::proxy::OwnVia;
use std::time::Duration;
pub struct Register<'a> { pub request_uri: &'a str, /// To and From
    pub aor: &'a str, pub from_tag: &'a str, pub call_id: &'a str, pub cseq: u32, pub via: OwnVia<'a>, /// whole Contact value with parameters
    pub contact: &'a str, pub expires: u32, /// header name and value
    pub authorization: Option<(&'a str, &'a str)>, /// pre-loaded Route values
    pub route: Option<&'a str> }
/// Writes it: `Supported: path`, Max-Forwards 70, Expires header, no User-Agent.
pub fn write_register(_register: &Register<'_>, _out: &mut Vec<u8>) { todo!() }
/// The granted expiry of our Contact in a 200: found by its user part; its `expires`, else the Expires header, else `asked`. `None`: our Contact is missing although others are listed.
pub fn granted_expiry(_response: &Message, _contact_user: &str, _asked: Duration) -> Option<Duration> { todo!() }
/// The verdict as words: `403 Forbidden`.
pub fn verdict(_response: &Message) -> String { todo!() }
pub const _X: Option<StatusCode> = None;
