//! Any bytes: no panic; what parses is written and read again unchanged; what is salvaged is a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reveille::sip::encode::Encoder;
use reveille::sip::{HeaderName, Message, ParseError};

fuzz_target!(|data: &[u8]| {
    if let Some(salvaged) = Message::salvage(data) {
        assert!(salvaged.top_via().is_ok() && salvaged.method().is_some());
        look(&salvaged);
    }
    if let Some(salvaged) = Message::salvage_registered(data) {
        assert!(salvaged.top_via().is_ok() && salvaged.status().is_some());
        look(&salvaged);
    }
    let framed = Message::parse_frame(data.to_vec());
    let Ok(message) = Message::parse_datagram(data.to_vec()) else {
        assert!(framed.is_err(), "a frame is a datagram with an exact Content-Length");
        return;
    };
    look(&message);
    let written = write(&message);
    let again = match Message::parse_frame(written) {
        // Content-Length may be the one field or the few bytes too many.
        Err(ParseError::TooManyHeaders | ParseError::TooLarge) => return,
        again => again.expect("what we write, we read"),
    };
    assert_eq!((message.method(), message.request_uri()), (again.method(), again.request_uri()));
    assert_eq!((message.status(), message.reason_phrase()), (again.status(), again.reason_phrase()));
    assert_eq!(fields(&message), fields(&again));
    assert_eq!(message.body(), again.body());
    if let Ok(framed) = framed {
        assert_eq!(framed.bytes(), message.bytes());
    }
});

/// Every typed view.
fn look(message: &Message) {
    let _ = (message.from().map(|from| from.display()), message.to().map(|to| to.tag()), message.call_id());
    let _ = (message.cseq(), message.max_forwards(), message.expires(), message.min_expires(), message.retry_after());
    let _ = (message.vias().count(), message.routes().count(), message.record_routes().count());
    let _ = (message.contacts().count(), message.contact_is_star(), message.requires("path"), message.supports("path"));
    let _ = (message.challenges().count(), message.reasons().count());
    let _ = message.credentials(HeaderName::Authorization, "realm");
}

fn write(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = match (message.method(), message.request_uri(), message.status()) {
        (Some(method), Some(uri), _) => Encoder::request(&mut out, method, uri),
        (_, _, Some(code)) => Encoder::response(&mut out, code, message.reason_phrase()),
        _ => unreachable!("a message is a request or a response"),
    };
    for header in message.headers().filter(|header| header.name != HeaderName::ContentLength) {
        encoder.copy(header);
    }
    encoder.finish(message.body());
    out
}

fn fields(message: &Message) -> Vec<(&[u8], &[u8])> {
    let headers = message.headers().filter(|header| header.name != HeaderName::ContentLength);
    headers.map(|header| (header.raw_name, header.value)).collect()
}
