//! Any bytes: no panic; a Via put together again is the same Via; a list of it has one element.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reveille::sip::via::Via;
use reveille::sip::{HeaderName, Message, Transport};

fuzz_target!(|data: &[u8]| {
    let Ok(via) = Via::parse(data) else { return };
    let _ = (via.param("received"), via.wants_rport(), via.raw());
    let transport = via.transport().map_or("SCTP", Transport::as_via);
    let port = via.sent_by_port().map(|port| format!(":{port}")).unwrap_or_default();
    let branch = via.branch().map(|branch| format!(";branch=\"{branch}\"")).unwrap_or_default();
    let written = format!("SIP/2.0/{transport} {}{port}{branch}", via.sent_by());
    let again = Via::parse(written.as_bytes()).expect("what we write, we read");
    assert_eq!(
        (again.transport(), again.sent_by(), again.sent_by_port()),
        (via.transport(), via.sent_by(), via.sent_by_port())
    );
    assert_eq!((again.host(), again.branch()), (via.host(), via.branch()));

    if data.iter().any(|byte| matches!(byte, b'\r' | b'\n')) || data.len() > 16_000 {
        return;
    }
    let message = [b"OPTIONS sip:a SIP/2.0\r\nVia: ", data, b"\r\n\r\n"].concat();
    let message = Message::parse_datagram(message).expect("one header field");
    assert_eq!(message.list(HeaderName::Via).count(), 1, "a Via is one element of a list");
    assert!(message.top_via().is_ok());
});
