//! Writing REGISTER and reading its answer (RFC 3261 §10).
//!
//! Its own room because a registration is one request with rules of its own: whose Contact is ours in the answer, and
//! how long it holds. When to register is not decided here.

use std::time::Duration;

use super::address::Address;
use super::encode::Encoder;
use super::grammar;
use super::message::{HeaderName, Message, Method};
use super::outbound;
use super::proxy::{OwnVia, via_line};
use super::uri::{self, Host, Uri};

/// The longest expiry believed. A registrar that grants more is refreshed daily all the same; one that means "for ever"
/// may forget us and would not be noticed.
pub const GRANTED_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest verdict, in bytes.
pub const VERDICT_MAX: usize = 128;

/// A registrar that counts down in whole seconds lists a grant of a moment ago as one second less.
const COUNTED_DOWN: Duration = Duration::from_secs(1);

/// The port of a SIP URI that names none (RFC 3261 §19.1.2).
const DEFAULT_PORT: u16 = 5060;

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
    /// The whole Contact value with its parameters, or several with commas between them. Empty: a query (RFC 3261 §10.2.3),
    /// which changes nothing and is answered with the present contacts.
    pub contact: &'a str,
    /// Asked for, in seconds; 0 removes the binding. A query asks for nothing.
    pub expires: u32,
    /// The fields with our credentials, one for each protection space on the way (RFC 3261 §22.3).
    pub authorizations: &'a [(HeaderName, Vec<u8>)],
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
    if !register.contact.is_empty() {
        message.header(HeaderName::Contact, register.contact);
        message.header(HeaderName::Expires, register.expires);
    }
    message.header(HeaderName::Supported, "path");
    for (name, value) in register.authorizations {
        message.raw(*name, value);
    }
    message.finish(b"");
}

/// How our Contact is told from other people's in a 200.
#[derive(Clone, Copy)]
pub struct OwnContact<'a> {
    /// The unguessable name: the user part, or the URI parameter `cap`.
    pub unguessable: &'a str,
    /// Our Contact's URI, where its user part is the account's own name: others may bear that name elsewhere.
    pub named: Option<&'a str>,
    /// Its `+sip.instance` (RFC 5626 §4.1), without brackets; empty if it has none.
    pub instance: &'a str,
}

impl OwnContact<'_> {
    /// Whether a listed Contact is ours: by the unguessable name or `+sip.instance` alone, since PBXs rewrite host, port
    /// and transport; by the account's name only where host and port are ours too.
    #[must_use]
    pub fn is(&self, contact: &Address<'_>) -> bool {
        let uri = contact.uri();
        let bears = |text: &[u8]| uri::unescape(text).eq_ignore_ascii_case(self.unguessable.as_bytes());
        uri.user().is_some_and(bears)
            || uri.param("cap").flatten().is_some_and(|cap| bears(cap.as_bytes()))
            || (!self.instance.is_empty() && outbound::instance(contact) == Some(self.instance))
            || self.named.is_some_and(|own| Uri::parse(own.as_bytes()).is_ok_and(|own| same_place(&own, &uri)))
    }
}

fn same_host(a: Host<'_>, b: Host<'_>) -> bool {
    match (a, b) {
        (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
        (a, b) => a == b,
    }
}

fn same_place(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let user = |uri: &Uri<'_>| uri.user().map(uri::unescape);
    let port = |uri: &Uri<'_>| uri.port().unwrap_or(DEFAULT_PORT);
    user(a) == user(b) && a.host() == b.host() && port(a) == port(b)
}

/// How long our Contact holds by a 200: its `expires`, else the Expires header, else what we `asked`.
///
/// Where several are ours (a binding a PBX has not forgotten yet), the longest counts: the fresh one. `None`: our Contact is
/// missing although others are listed, or it was granted nothing although we asked. A registrar that lists none at all is
/// believed.
#[must_use]
pub fn granted(response: &Message, own: &OwnContact<'_>, asked: Duration) -> Option<Duration> {
    let otherwise = response.expires().ok().flatten().map_or(asked, from_seconds);
    let mut contacts = response.contacts().peekable();
    let listed = contacts.peek().is_some();
    let ours = contacts.flatten().filter(|contact| own.is(contact));
    let longest = ours.map(|contact| remaining(&contact).unwrap_or(otherwise)).max();
    let granted = if listed { longest? } else { otherwise };
    let refused = granted.is_zero() && !asked.is_zero();
    (!refused).then_some(granted.min(GRANTED_MAX))
}

/// Whether a 200 lists our Contact, or none at all.
#[must_use]
pub fn lists(response: &Message, own: &OwnContact<'_>) -> bool {
    let mut contacts = response.contacts().peekable();
    contacts.peek().is_none() || contacts.flatten().any(|contact| own.is(&contact))
}

/// The Contact of a 200 that can only be the one we `sent` under another URI, and how long it holds: no other is listed, it
/// bears no `+sip.instance`, its host is ours or its user part is ours or that of the address of record (`named`, unescaped), and
/// it was granted just now. That shows in a full expiry, by the Expires header or else by what we `asked`: a Contact that was
/// there before has less of it left.
#[must_use]
pub fn rewritten<'a>(
    response: &'a Message,
    sent: &Uri<'_>,
    named: &[u8],
    asked: Duration,
) -> Option<(Address<'a>, Duration)> {
    let mut contacts = response.contacts();
    let (Some(Ok(contact)), None) = (contacts.next(), contacts.next()) else { return None };
    if outbound::instance(&contact).is_some() {
        return None;
    }
    let header = response.expires().ok().flatten().map(from_seconds);
    let full = header.unwrap_or(asked);
    let expires = remaining(&contact).or(header).filter(|expires| !expires.is_zero())?;
    let fresh = expires <= full && expires + COUNTED_DOWN >= full;
    let uri = contact.uri();
    let user = uri.user().map(uri::unescape);
    let of_ours = user.as_deref() == Some(named) || (user.is_some() && user == sent.user().map(uri::unescape));
    (fresh && uri.is_sip() && (of_ours || same_host(uri.host(), sent.host())))
        .then_some((contact, expires.min(GRANTED_MAX)))
}

/// As [`granted`], for a Contact that is known by its user part alone.
#[must_use]
pub fn granted_expiry(response: &Message, contact_user: &str, asked: Duration) -> Option<Duration> {
    granted(response, &OwnContact { unguessable: contact_user, named: None, instance: "" }, asked)
}

/// The other contacts that a 200 lists for the address of record, each with how long it holds: its `expires`, else the
/// Expires header, else nothing.
pub fn others<'a>(response: &'a Message, own: &OwnContact<'_>) -> impl Iterator<Item = (Address<'a>, Duration)> {
    let otherwise = response.expires().ok().flatten().map_or(Duration::ZERO, from_seconds);
    let contacts = response.contacts().flatten().filter(|contact| !own.is(contact));
    contacts.map(move |contact| (contact, remaining(&contact).unwrap_or(otherwise).min(GRANTED_MAX)))
}

fn remaining(contact: &Address<'_>) -> Option<Duration> {
    let text = contact.param("expires").flatten()?;
    grammar::saturating_number(text.as_bytes()).map(from_seconds)
}

/// The verdict as words: `403 Forbidden`. The registrar's own phrase, cut and freed of what could disturb a terminal or
/// a page; the RFC's where there is none.
#[must_use]
pub fn verdict(response: &Message) -> String {
    let Some(status) = response.status() else { return String::new() };
    let phrase = String::from_utf8_lossy(response.reason_phrase());
    let phrase = phrase.trim();
    let phrase = if phrase.is_empty() { status.reason() } else { phrase };
    cut(&format!("{} {phrase}", status.code()), VERDICT_MAX)
}

/// A peer's text, freed of what could disturb a terminal or a page, of `max` bytes at most.
pub(super) fn cut(text: &str, max: usize) -> String {
    let mut words = String::new();
    for character in text.chars().filter(|character| !is_disturbing(*character)) {
        if words.len() + character.len_utf8() > max {
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
