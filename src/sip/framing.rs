//! SKELETON. Cutting messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §3.5.1 keep-alives).
use super::message::ParseError;
/// Collects bytes of one connection. Bounded by MESSAGE_MAX. Swallows bare CRLF, NULs and `jaK` between messages.
#[derive(Default)]
pub struct Framer { buffer: Vec<u8> }
/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message (give to `Message::parse_frame`).
    Message(Vec<u8>),
    /// CRLFCRLF: answer with CRLF.
    Ping,
    /// A lone CRLF: perhaps the answer to our ping.
    Pong,
}
impl Framer {
    pub fn push(&mut self, bytes: &[u8]) { self.buffer.extend_from_slice(bytes); }
    /// `Err`: close the connection (too large, no/conflicting Content-Length).
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ParseError> { todo!() }
    /// Whether a message has begun and is not whole (for the 5 s rule).
    pub fn is_mid_message(&self) -> bool { todo!() }
}
