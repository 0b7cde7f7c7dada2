//! Client-initiated connections (RFC 5626): what a Contact and a message say about them, and the keep-alive constants.
//!
//! Its own room because trunk and edge both live by these rules. It refuses to run a keep-alive timer: whoever owns the
//! connection does.

use std::time::Duration;

use super::address::Address;
use super::message::{HeaderName, Message};

/// How often we ping an idle stream: below the 120 s of RFC 5626 §4.4.1 and of common NATs.
pub const PING_INTERVAL: Duration = Duration::from_secs(80);
/// How long a pong may take where one was ever seen (RFC 5626 §4.4.1).
pub const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client sends on an idle stream.
pub const PING: &[u8] = b"\r\n\r\n";
/// What a server answers.
pub const PONG: &[u8] = b"\r\n";

/// `+sip.instance` of a Contact, without quotes and angle brackets.
#[must_use]
pub fn instance<'a>(contact: &Address<'a>) -> Option<&'a str> {
    let value = contact.param("+sip.instance").flatten()?.trim();
    let bare = value.strip_prefix('<').and_then(|value| value.strip_suffix('>')).unwrap_or(value);
    (!bare.is_empty()).then_some(bare)
}

/// `reg-id` of a Contact: which of its flows the instance registers (1 to 2^31 − 1).
#[must_use]
pub fn reg_id(contact: &Address<'_>) -> Option<u32> {
    let id: u32 = contact.param("reg-id").flatten()?.parse().ok()?;
    (1..=i32::MAX.unsigned_abs()).contains(&id).then_some(id)
}

/// Whether the Contact's URI asks that a dialog stay on the flow it began on (`ob`, RFC 5626 §4.3).
#[must_use]
pub fn stays_on_flow(contact: &Address<'_>) -> bool {
    contact.uri().param("ob").is_some()
}

/// Flow-Timer: after so long without a keep-alive the server counts the flow as dead (RFC 5626 §4.4).
#[must_use]
pub fn flow_timer(response: &Message) -> Option<Duration> {
    let seconds: u32 = std::str::from_utf8(response.header(HeaderName::FlowTimer)?).ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_is_read_without_its_wrapping() {
        let urn = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        let contact = format!("<sip:a@192.0.2.1;ob>;reg-id=2;+SIP.Instance=\"<{urn}>\";expires=60");
        let contact = Address::parse(contact.as_bytes()).expect("a Contact");
        assert_eq!(instance(&contact), Some(urn));
        assert_eq!(reg_id(&contact), Some(2));
        assert!(stays_on_flow(&contact));
    }

    #[test]
    fn what_is_absent_or_malformed_is_not_there() {
        for text in
            ["<sip:a@b>", "<sip:a@b>;+sip.instance", "<sip:a@b>;+sip.instance=\"<>\"", "<sip:a@b>;+sip.instance=\"\""]
        {
            let contact = Address::parse(text.as_bytes()).expect("a Contact");
            assert_eq!(instance(&contact), None, "{text}");
            assert!(!stays_on_flow(&contact));
        }
        for id in ["0", "-1", "x", "", "2147483648", "4294967296"] {
            let text = format!("<sip:a@b>;reg-id={id}");
            if let Ok(contact) = Address::parse(text.as_bytes()) {
                assert_eq!(reg_id(&contact), None, "{text}");
            }
        }
    }

    #[test]
    fn the_flow_timer_is_read_in_seconds() {
        let response = |value: &str| {
            let text = format!("SIP/2.0 200 OK\r\nFlow-Timer: {value}\r\nContent-Length: 0\r\n\r\n");
            Message::parse_datagram(text.into_bytes()).expect("a response")
        };
        assert_eq!(flow_timer(&response("120")), Some(Duration::from_secs(120)));
        assert_eq!(flow_timer(&response("soon")), None);
    }
}
