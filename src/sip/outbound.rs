//! SKELETON. RFC 5626: reading reg-id, +sip.instance, ob; keep-alive constants; Flow-Timer.
use super::address::Address;
use std::time::Duration;
/// How often we ping an idle stream (below the 120 s of RFC 5626 §4.4.1 and of common NATs).
pub const PING_INTERVAL: Duration = Duration::from_secs(80);
/// How long a pong may take where one was ever seen (RFC 5626 §4.4.1).
pub const PONG_TIMEOUT: Duration = Duration::from_secs(10);
pub const PING: &[u8] = b"\r\n\r\n";
pub const PONG: &[u8] = b"\r\n";
/// `+sip.instance` of a Contact, without quotes and angle brackets.
pub fn instance<'a>(_contact: &Address<'a>) -> Option<&'a str> { todo!() }
