//! Instant messages (RFC 3428): what a MESSAGE is, and the form in which one waits.
//!
//! Its own room because it reads no further than the type of a body: whether it is a text, a note that somebody types
//! (RFC 3994) or a notice that a text was delivered or read (RFC 5438), be it wrapped in CPIM (RFC 3862) or not. What is
//! kept, and for how long, is not decided here.

use super::encode::Encoder;
use super::message::{HeaderName, Message, Method};
use crate::clock::WallTime;

/// What a MESSAGE is, as far as its content type tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Something for a person: whatever is neither of the others.
    Text,
    /// Somebody is typing (RFC 3994): worth nothing a minute later.
    Composing,
    /// A delivery or display notification (RFC 5438).
    Notice,
}

/// What `request` is.
#[must_use]
pub fn content(request: &Message) -> Content {
    let media = media_type(request.header(HeaderName::ContentType).unwrap_or_default());
    if media.eq_ignore_ascii_case(b"message/cpim") {
        return of_type(enclosed_type(request.body()).unwrap_or_default());
    }
    of_type(media)
}

/// Writes a MESSAGE as it waits for its device: all its fields but those of the way it came by, and the date of its
/// arrival where it bears none. The Request-URI is to be replaced, Via and Max-Forwards are to be added.
pub fn write_kept(request: &Message, arrived: WallTime, out: &mut Vec<u8>) {
    let mut message = Encoder::request(out, Method::Message, b"sip:device.invalid");
    for header in request.headers() {
        match header.name {
            HeaderName::Via
            | HeaderName::Route
            | HeaderName::RecordRoute
            | HeaderName::MaxForwards
            | HeaderName::ContentLength
            | HeaderName::Authorization
            | HeaderName::ProxyAuthorization
            | HeaderName::ProxyRequire => {}
            _ => drop(message.copy(header)),
        }
    }
    if request.header(HeaderName::Date).is_none() {
        message.header(HeaderName::Date, date(arrived));
    }
    message.finish(request.body());
}

/// A date as SIP writes it (RFC 3261 §20.17): `Sat, 21 Nov 2026 20:00:00 GMT`.
#[must_use]
pub fn date(at: WallTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = at.unix_seconds() / 86_400;
    // RFC 3339 has the calendar's work done: `2026-11-21T20:00:00Z`.
    let text = at.rfc3339();
    let month = text.get(5..7).and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let weekday = usize::try_from(days % 7).unwrap_or(0);
    let month = MONTHS[month.clamp(1, 12) - 1];
    format!("{}, {} {month} {} {} GMT", DAYS[weekday], part(8..10), part(0..4), part(11..19))
}

fn of_type(media: &[u8]) -> Content {
    if media.eq_ignore_ascii_case(b"application/im-iscomposing+xml") {
        Content::Composing
    } else if media.eq_ignore_ascii_case(b"message/imdn+xml") {
        Content::Notice
    } else {
        Content::Text
    }
}

/// `type/subtype` of a Content-Type, parameters cut off.
fn media_type(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

/// The content type inside a CPIM message: after the message's own headers and an empty line come the MIME headers of
/// what it encloses (RFC 3862 §2.1).
fn enclosed_type(body: &[u8]) -> Option<&[u8]> {
    let mut lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    lines.by_ref().find(|line| line.is_empty())?;
    lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(colon);
        name.trim_ascii().eq_ignore_ascii_case(b"content-type").then(|| media_type(&value[1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_the_body_tells_what_a_message_is() {
        for (media, expected) in [
            ("text/plain;charset=utf-8", Content::Text),
            ("Application/IM-isComposing+xml", Content::Composing),
            ("message/imdn+xml ; charset=\"utf-8\"", Content::Notice),
            ("multipart/mixed;boundary=message/imdn+xml", Content::Text),
            ("", Content::Text),
        ] {
            assert_eq!(content(&message(media, b"body")), expected, "{media}");
        }
    }

    #[test]
    fn a_wrapped_body_is_judged_by_what_is_wrapped() {
        let wrapped = |inner: &str| {
            let body = format!(
                "From: <sip:a@b>\r\nimdn.Message-ID: 1\r\nContent-type: not/this\r\n\r\n{inner}\r\n\r\n\
                 Content-type: message/imdn+xml\r\n"
            );
            content(&message("message/CPIM", body.as_bytes()))
        };
        assert_eq!(wrapped("Content-Length: 9\r\ncontent-TYPE : message/imdn+xml;x=y"), Content::Notice);
        assert_eq!(wrapped("Content-Type: application/im-iscomposing+xml"), Content::Composing);
        assert_eq!(wrapped("Content-Type: text/plain"), Content::Text);
        assert_eq!(wrapped("Disposition-Notification: positive-delivery"), Content::Text);
        assert_eq!(content(&message("message/cpim", b"no empty line\xff")), Content::Text);
    }

    #[test]
    fn what_is_kept_has_no_trace_of_the_way_it_came() {
        let request = message("text/plain", b"hello\0\xff");
        let mut out = Vec::new();
        write_kept(&request, WallTime::from_unix_millis(1_795_291_200_000), &mut out);
        let kept = Message::parse_datagram(out).expect("a message");
        for name in [HeaderName::Via, HeaderName::Route, HeaderName::MaxForwards, HeaderName::ProxyAuthorization] {
            assert!(kept.header(name).is_none(), "{name:?}");
        }
        assert_eq!(kept.body(), b"hello\0\xff");
        assert_eq!(kept.call_id().ok(), request.call_id().ok());
        assert_eq!(kept.header(HeaderName::From), request.header(HeaderName::From));
        assert_eq!(kept.header(HeaderName::Date), Some(&b"Sat, 21 Nov 2026 20:00:00 GMT"[..]));

        let mut again = Vec::new();
        write_kept(&kept, WallTime::from_unix_millis(0), &mut again);
        let again = Message::parse_datagram(again).expect("a message");
        assert_eq!(again.header(HeaderName::Date), kept.header(HeaderName::Date), "a date stays");
    }

    #[test]
    fn dates_are_those_of_rfc_3261() {
        assert_eq!(date(WallTime::from_unix_millis(1_289_690_940_000)), "Sat, 13 Nov 2010 23:29:00 GMT");
        assert_eq!(date(WallTime::from_unix_millis(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    fn message(media: &str, body: &[u8]) -> Message {
        let head = format!(
            "MESSAGE sip:cap@edge.example SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nRoute: <sip:p;lr>\r\n\
             Max-Forwards: 9\r\nFrom: \"Carol\" <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\n\
             Proxy-Authorization: Digest username=\"u\"\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Message::parse_datagram([head.as_bytes(), body].concat()).expect("a message")
    }
}
