//! Any bytes as the body of a NOTIFY or MESSAGE, and as Subscription-State: no panic; what is kept of a MESSAGE is a MESSAGE
//! with the same body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reveille::clock::WallTime;
use reveille::sip::instant::{content, write_kept};
use reveille::sip::mailbox::{remaining, summary, termination};
use reveille::sip::{Message, Method};

fuzz_target!(|data: &[u8]| {
    let _ = summary(data);
    if data.len() > 8_000 {
        return;
    }
    let line: Vec<u8> = data.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let head = [b"MESSAGE sip:a SIP/2.0\r\nContent-Type: message/cpim\r\nSubscription-State: ", &line[..], b"\r\n\r\n"];
    let message = [&head.concat(), data].concat();
    let Ok(message) = Message::parse_datagram(message) else { return };
    let _ = (termination(&message), remaining(&message), content(&message));
    let mut kept = Vec::new();
    write_kept(&message, WallTime::from_unix_millis(0), &mut kept);
    let kept = Message::parse_datagram(kept).expect("what we write, we read");
    assert_eq!((kept.method(), kept.body()), (Some(Method::Message), message.body()));
});
