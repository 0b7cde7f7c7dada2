//! Writing REGISTER and reading its answer (RFC 3261 §10).
//!
//! Its own room because a registration is one request with rules of its own: whose Contact is ours in the answer, and
//! how long it holds. When to register is not decided here.

use std::time::Duration;

use super::encode::Encoder;
use super::grammar;
use super::message::{HeaderName, Message, Method};
use super::proxy::{OwnVia, via_line};
use super::uri;

/// The longest expiry believed. A registrar that grants more is refreshed daily all the same; one that means "for ever"
/// may forget us and would not be noticed.
pub const GRANTED_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest verdict, in bytes.
pub const VERDICT_MAX: usize = 128;

/// Where a REGISTER we write starts counting hops (RFC 3261 §8.1.1.6).
const MAX_FORWARDS: u8 = 70;

/// A REGISTER of ours.
#[derive(Clone, Copy)]
pub struct Register<'a> {
    /// The registrar's domain.
    pub request_uri: &'a str,
    /// To and From.
    pub aor: &'a str,
    /// Of From; To has none.
    pub from_tag: &'a str,
    /// One for a binding's whole life.
    pub call_id: &'a str,
    /// Grows with each request.
    pub cseq: u32,
    /// Our Via.
    pub via: OwnVia<'a>,
    /// The whole Contact value with its parameters.
    pub contact: &'a str,
    /// Asked for, in seconds; 0 removes the binding.
    pub expires: u32,
    /// Name and value of the header with our credentials.
    pub authorization: Option<(&'a str, &'a str)>,
    /// Pre-loaded Route values.
    pub route: Option<&'a str>,
}

/// Writes it: `Supported: path`, Max-Forwards, an Expires header, and nothing that tells what we are.
pub fn write_register(register: &Register<'_>, out: &mut Vec<u8>) {
    let mut message = Encoder::request(out, Method::Register, register.request_uri.as_bytes());
    message.header(HeaderName::Via, via_line(register.via));
    if let Some(route) = register.route {
        message.header(HeaderName::Route, route);
    }
    message.header(HeaderName::MaxForwards, MAX_FORWARDS);
    message.header(HeaderName::From, format_args!("<{}>;tag={}", register.aor, register.from_tag));
    message.header(HeaderName::To, format_args!("<{}>", register.aor));
    message.header(HeaderName::CallId, register.call_id);
    message.header(HeaderName::CSeq, format_args!("{} REGISTER", register.cseq));
    message.header(HeaderName::Contact, register.contact);
    message.header(HeaderName::Expires, register.expires);
    message.header(HeaderName::Supported, "path");
    if let Some((name, value)) = register.authorization {
        message.extension(name, value);
    }
    message.finish(b"");
}

/// How long our Contact holds by a 200: its `expires`, else the Expires header, else what we `asked`.
///
/// Found by its user part alone, in any case: PBXs rewrite host, port and transport. Where several have it (a binding a
/// PBX has not forgotten yet), the longest counts: the fresh one. `None`: our Contact is missing although others are
/// listed, or it was granted nothing although we asked.
#[must_use]
pub fn granted_expiry(response: &Message, contact_user: &str, asked: Duration) -> Option<Duration> {
    let otherwise = || {
        let header = response.expires().ok().flatten();
        header.map_or(asked, from_seconds)
    };
    let (mut listed, mut ours) = (false, None::<Duration>);
    for contact in response.contacts() {
        listed = true;
        let Ok(contact) = contact else { continue };
        let is_ours =
            contact.uri().user().is_some_and(|user| uri::unescape(user).eq_ignore_ascii_case(contact_user.as_bytes()));
        if is_ours {
            let granted = contact
                .param("expires")
                .flatten()
                .and_then(|text| grammar::saturating_number(text.as_bytes()))
                .map(from_seconds)
                .unwrap_or_else(otherwise);
            ours = ours.max(Some(granted));
        }
    }
    let granted = if listed { ours? } else { otherwise() };
    let refused = granted.is_zero() && !asked.is_zero();
    (!refused).then_some(granted.min(GRANTED_MAX))
}

/// The verdict as words: `403 Forbidden`. The registrar's own phrase, cut and freed of what could disturb a terminal or
/// a page; the RFC's where there is none.
#[must_use]
pub fn verdict(response: &Message) -> String {
    let Some(status) = response.status() else { return String::new() };
    let phrase = String::from_utf8_lossy(response.reason_phrase());
    let phrase = phrase.trim();
    let phrase = if phrase.is_empty() { status.reason() } else { phrase };
    let mut words = status.code().to_string();
    words.push(' ');
    for character in phrase.chars().filter(|character| !is_disturbing(*character)) {
        if words.len() + character.len_utf8() > VERDICT_MAX {
            break;
        }
        words.push(character);
    }
    words.truncate(words.trim_end().len());
    words
}

fn from_seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// Controls, and what changes the direction of the text around it.
fn is_disturbing(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
