//! Any bytes: no panic; an address put into brackets again has the same URI and tag; a list of it has one element.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reveille::sip::address::Address;
use reveille::sip::{HeaderName, Message};

fuzz_target!(|data: &[u8]| {
    let Ok(address) = Address::parse(data) else { return };
    let _ = address.display();
    let mut written = b"<".to_vec();
    written.extend_from_slice(address.uri().raw());
    written.push(b'>');
    if let Some(tag) = address.tag() {
        // Quoted: a tag may be a quoted string with anything inside.
        written.extend_from_slice(format!(";tag=\"{tag}\"").as_bytes());
    }
    let again = Address::parse(&written).expect("what we write, we read");
    assert_eq!((again.uri().raw(), again.tag()), (address.uri().raw(), address.tag()));
    assert_eq!(again.display(), None);

    if data.iter().any(|byte| matches!(byte, b'\r' | b'\n')) || data.len() > 16_000 {
        return;
    }
    let message = [b"OPTIONS sip:a SIP/2.0\r\nContact: ", data, b"\r\n\r\n"].concat();
    let message = Message::parse_datagram(message).expect("one header field");
    assert_eq!(message.list(HeaderName::Contact).count(), 1, "an address is one element of a list");
    assert!(message.contacts().all(|contact| contact.is_ok()));
});
