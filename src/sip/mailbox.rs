//! Message waiting (RFC 3842): reading a `simple-message-summary`, and the requests of a subscription to it (RFC 6665).
//!
//! Its own room because a mailbox says its few numbers in a format of its own. When to subscribe, and whom the numbers
//! concern, is not decided here.

use super::encode::Encoder;
use super::grammar;
use super::message::{HeaderName, Message, Method};
use super::proxy::{OwnVia, via_line};

/// The event package.
pub const EVENT: &str = "message-summary";
/// The type of its bodies.
pub const MEDIA_TYPE: &str = "application/simple-message-summary";

/// Where a request of ours starts counting hops (RFC 3261 §8.1.1.6).
const MAX_FORWARDS: u8 = 70;
/// Lines of a summary that are read: five classes and a few message headers of RFC 3842 §3.5 and more.
const LINES_MAX: usize = 64;

/// What a mailbox says of its voice messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether anything waits, of any class.
    pub waiting: bool,
    /// Voice messages not heard yet.
    pub new: u32,
    /// Voice messages heard.
    pub old: u32,
}

/// Reads a summary; `None` where it does not begin with `Messages-Waiting`. Numbers above 2^32-1 saturate; lines that
/// cannot be read are skipped.
#[must_use]
pub fn summary(body: &[u8]) -> Option<Summary> {
    let mut lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).take(LINES_MAX);
    let (name, value) = field(lines.find(|line| !line.is_empty())?)?;
    if !name.eq_ignore_ascii_case(b"messages-waiting") {
        return None;
    }
    let waiting = match value {
        value if value.eq_ignore_ascii_case(b"yes") => true,
        value if value.eq_ignore_ascii_case(b"no") => false,
        _ => return None,
    };
    // An empty line begins the headers of single messages.
    let voice = lines.take_while(|line| !line.is_empty()).filter_map(field);
    let voice =
        voice.filter(|(name, _)| name.eq_ignore_ascii_case(b"voice-message")).find_map(|(_, value)| counts(value));
    let (new, old) = voice.unwrap_or_default();
    Some(Summary { waiting, new, old })
}

/// `name : value`.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at(colon);
    Some((name.trim_ascii(), value[1..].trim_ascii()))
}

/// `new/old` and the urgent ones among them in brackets, which are counted in `new` and `old` already.
fn counts(value: &[u8]) -> Option<(u32, u32)> {
    let numbers = value.split(|&byte| byte == b'(').next().unwrap_or_default();
    let slash = numbers.iter().position(|&byte| byte == b'/')?;
    let (new, old) = numbers.split_at(slash);
    Some((grammar::saturating_number(new.trim_ascii())?, grammar::saturating_number(old[1..].trim_ascii())?))
}

/// A SUBSCRIBE or NOTIFY of ours about a mailbox.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Where it is addressed.
    pub request_uri: &'a [u8],
    /// Our Via.
    pub via: OwnVia<'a>,
    /// The route set, next hop first.
    pub routes: &'a [Vec<u8>],
    /// The whole From value.
    pub from: &'a str,
    /// The whole To value.
    pub to: &'a str,
    /// Of the dialog.
    pub call_id: &'a str,
    /// Its number.
    pub cseq: u32,
    /// The whole Contact value.
    pub contact: &'a str,
}

/// Writes a SUBSCRIBE for `expires` seconds (0 ends the subscription), signed with `authorizations`.
pub fn write_subscribe(
    request: &Request<'_>,
    expires: u32,
    authorizations: &[(HeaderName, Vec<u8>)],
    out: &mut Vec<u8>,
) {
    let mut message = begin(request, Method::Subscribe, out);
    message.header(HeaderName::Event, EVENT);
    message.header(HeaderName::Accept, MEDIA_TYPE);
    message.header(HeaderName::Expires, expires);
    for (name, value) in authorizations {
        message.raw(*name, value);
    }
    message.finish(b"");
}

/// Writes a NOTIFY that nobody subscribed to, with the body of another one.
pub fn write_notify(request: &Request<'_>, body: &[u8], out: &mut Vec<u8>) {
    let mut message = begin(request, Method::Notify, out);
    message.header(HeaderName::Event, EVENT);
    message.header(HeaderName::SubscriptionState, "terminated;reason=noresource");
    message.header(HeaderName::ContentType, MEDIA_TYPE);
    message.finish(body);
}

fn begin<'b>(request: &Request<'_>, method: Method<'_>, out: &'b mut Vec<u8>) -> Encoder<'b> {
    let mut message = Encoder::request(out, method, request.request_uri);
    message.header(HeaderName::Via, via_line(request.via));
    for route in request.routes {
        message.raw(HeaderName::Route, route);
    }
    message.header(HeaderName::MaxForwards, MAX_FORWARDS);
    message.header(HeaderName::From, request.from);
    message.header(HeaderName::To, request.to);
    message.header(HeaderName::CallId, request.call_id);
    message.header(HeaderName::CSeq, format_args!("{} {}", request.cseq, method.as_str()));
    message.header(HeaderName::Contact, request.contact);
    message
}

/// Why a subscription is over, and when another may be asked for (RFC 6665 §4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// `deactivated` or `timeout`: at once.
    AtOnce,
    /// `probation`, `giveup`, or no reason known: after so many seconds, or later as one likes.
    Later(Option<u32>),
    /// `rejected`, `noresource`, `invariant`: not again.
    Never,
}

/// Reads Subscription-State; `None` while the subscription is active or pending, or the header is missing.
#[must_use]
pub fn termination(notify: &Message) -> Option<Termination> {
    let value = notify.header(HeaderName::SubscriptionState)?;
    let mut parts = value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    if !parts.next()?.eq_ignore_ascii_case(b"terminated") {
        return None;
    }
    let parameter = |name: &[u8]| {
        value.split(|&byte| byte == b';').skip(1).find_map(|part| {
            let equals = part.iter().position(|&byte| byte == b'=')?;
            let (found, value) = part.split_at(equals);
            found.trim_ascii().eq_ignore_ascii_case(name).then(|| value[1..].trim_ascii())
        })
    };
    let after = parameter(b"retry-after").and_then(grammar::saturating_number);
    Some(match parameter(b"reason").unwrap_or_default().to_ascii_lowercase().as_slice() {
        b"deactivated" | b"timeout" => Termination::AtOnce,
        b"rejected" | b"noresource" | b"invariant" => Termination::Never,
        _ => Termination::Later(after),
    })
}

/// The span of `expires` in Subscription-State, in seconds, where the notifier says so.
#[must_use]
pub fn remaining(notify: &Message) -> Option<u32> {
    let value = notify.header(HeaderName::SubscriptionState)?;
    value.split(|&byte| byte == b';').skip(1).find_map(|part| {
        let equals = part.iter().position(|&byte| byte == b'=')?;
        let (name, number) = part.split_at(equals);
        let named = name.trim_ascii().eq_ignore_ascii_case(b"expires");
        named.then(|| grammar::saturating_number(number[1..].trim_ascii())).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_3842_is_read() {
        let body =
            b"Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\nVoice-Message: 4/8 (1/2)\r\n\
                     Fax-Message: 1/1\r\n\r\nTo: <alice@atlanta.example.com>\r\nVoice-Message: 9/9\r\n";
        assert_eq!(summary(body), Some(Summary { waiting: true, new: 4, old: 8 }));
    }

    #[test]
    fn what_others_write_is_read_too() {
        for (body, expected) in [
            (&b"Messages-Waiting: no\r\n"[..], Some((false, 0, 0))),
            (b"\r\nmessages-waiting : YES\nvoice-message:2/0(0/0)", Some((true, 2, 0))),
            (b"Messages-Waiting: yes\r\nFax-Message: 3/0\r\n", Some((true, 0, 0))),
            (b"Messages-Waiting: yes\r\nVoice-Message: 99999999999/1", Some((true, u32::MAX, 1))),
            (b"Messages-Waiting: yes\r\nVoice-Message: many/1\r\nVoice-Message: 1/2\r\n", Some((true, 1, 2))),
            (b"Messages-Waiting: perhaps\r\n", None),
            (b"Voice-Message: 4/8\r\n", None),
            (b"", None),
            (b"\xff\xfe:\0", None),
        ] {
            let expected = expected.map(|(waiting, new, old)| Summary { waiting, new, old });
            assert_eq!(summary(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_end_of_a_subscription_tells_when_to_come_again() {
        for (state, expected) in [
            ("active;expires=600", None),
            ("pending", None),
            ("terminated;reason=timeout", Some(Termination::AtOnce)),
            ("Terminated ; reason=Deactivated;retry-after=3", Some(Termination::AtOnce)),
            ("terminated;reason=rejected", Some(Termination::Never)),
            ("terminated;reason=noresource", Some(Termination::Never)),
            ("terminated;reason=probation;retry-after=40", Some(Termination::Later(Some(40)))),
            ("terminated;reason=giveup", Some(Termination::Later(None))),
            ("terminated", Some(Termination::Later(None))),
            ("", None),
        ] {
            assert_eq!(termination(&notify(state)), expected, "{state}");
        }
        assert_eq!(remaining(&notify("active;expires=600")), Some(600));
        assert_eq!(remaining(&notify("active")), None);
    }

    fn notify(state: &str) -> Message {
        let text = format!(
            "NOTIFY sip:cap@edge SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 NOTIFY\r\nSubscription-State: {state}\r\nContent-Length: 0\r\n\r\n"
        );
        Message::parse_datagram(text.into_bytes()).expect("a NOTIFY")
    }
}
