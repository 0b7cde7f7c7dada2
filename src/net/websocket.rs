//! SIP in WebSocket messages (RFC 7118 over RFC 6455), the server's side of it.
//!
//! The protocol is the library's: header, masks, reserved bits, fragments, control frames, close codes, UTF-8. This room
//! feeds it one frame at a time, each bounded before a byte of it is kept, and lends it a pipe instead of a socket, so that
//! the tasks, times and queues are those of every other stream. It refuses extensions, and to look into a message further
//! than to tell keep-alives from SIP.

mod handshake;
mod skip;
#[cfg(test)]
mod tests;

use std::io::{self, Cursor, Read, Write};

use tungstenite::error::Error;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader, Utf8Bytes};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use zeroize::Zeroize;

pub(super) use self::handshake::upgrade;
use self::skip::Skip;

use super::envelope::Found;
use super::queue::Closing;
use crate::sip::framing::FrameLimits;
use crate::sip::message::MESSAGE_MAX;
use crate::sip::outbound::{PING as CRLF_PING, PONG as CRLF_PONG};

/// A ping frame without a payload (RFC 6455 §5.5.2): FIN and opcode 9, no mask, length 0.
pub(super) const PING: &[u8] = &[0x89, 0x00];

/// An idle connection keeps no more memory than this.
const IDLE_CAPACITY_MAX: usize = 256;

/// Finds messages in the bytes of a client. Holds at most one frame and one message of `MESSAGE_MAX` bytes beside what one
/// `push` brought; of a longer one that is skipped, so much of its beginning.
#[derive(Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Everything before it is dealt with.
    start: usize,
    /// There while a message is under way in fragments: an idle connection needs none.
    context: Option<Box<WebSocketContext>>,
    broken: Option<u16>,
    limits: FrameLimits,
    skip: Option<Skip>,
    /// The end of a skipped message is not reported yet.
    has_skipped: bool,
    /// Bytes of the fragments that came of the message under way.
    kept: u64,
}

/// A frame's payload.
#[derive(Clone, Copy)]
struct Payload {
    /// Where it begins.
    begins: usize,
    bytes: u64,
}

impl Decoder {
    /// Takes bytes in. After an error they are dropped.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next thing found, `None` when more bytes are needed.
    ///
    /// # Errors
    /// Close the connection with this code. Every later call gives the same.
    pub(super) fn next(&mut self) -> Result<Option<Found>, u16> {
        if let Some(code) = self.broken {
            return Err(code);
        }
        self.advance().map_err(|code| {
            let code = u16::from(code);
            self.broken = Some(code);
            code
        })
    }

    /// Whether a message has begun and is not whole.
    pub(super) fn is_mid_message(&self) -> bool {
        self.start < self.buffer.len() || self.context.is_some() || self.skip.is_some()
    }

    /// What the peer may send from the next message on.
    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    fn advance(&mut self) -> Result<Option<Found>, CloseCode> {
        loop {
            if std::mem::take(&mut self.has_skipped) {
                return Ok(Some(Found::Skipped));
            }
            if let Some(skip) = self.skip.as_mut().filter(|skip| skip.is_in_frame()) {
                self.start += skip.take(&mut self.buffer[self.start..]);
                self.release();
                if self.skip.as_ref().is_some_and(Skip::is_in_frame) {
                    return Ok(None);
                }
            }
            if let Some(skip) = self.skip.take_if(|skip| skip.is_over()) {
                self.has_skipped = true;
                return Ok(Some(Found::Oversized(skip.into_head())));
            }
            let Some((header, payload)) = self.parse_header()? else { return Ok(None) };
            if self.is_skipped(&header, payload)? {
                continue;
            }
            let Some(end) = self.find_end(payload)? else { return Ok(None) };
            let found = self.feed(&header, payload, end);
            self.start = end;
            self.release();
            if let Some(found) = found? {
                return Ok(Some(found));
            }
        }
    }

    /// The header of the frame at `start` and the bytes of its payload, if the header is whole.
    fn parse_header(&self) -> Result<Option<(FrameHeader, Payload)>, CloseCode> {
        let mut cursor = Cursor::new(&self.buffer[self.start..]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)?;
        let head = usize::try_from(cursor.position()).map_err(|_| CloseCode::Size)?;
        Ok(parsed.map(|(header, bytes)| (header, Payload { begins: self.start + head, bytes })))
    }

    /// Whether a frame belongs to a message that is skipped, or makes it one; if so, its header is taken.
    fn is_skipped(&mut self, header: &FrameHeader, payload: Payload) -> Result<bool, CloseCode> {
        let OpCode::Data(_) = header.opcode else { return Ok(false) };
        let kept = self.kept.saturating_add(payload.bytes);
        match &mut self.skip {
            Some(skip) => {
                skip.go_on(header, payload.bytes).then_some(()).ok_or(CloseCode::Size)?;
            }
            None if kept <= MESSAGE_MAX as u64 || self.limits.skip == 0 => return Ok(false),
            None => {
                let skip = Skip::begin(header, payload.bytes, self.limits.skip).ok_or(CloseCode::Size)?;
                self.skip = Some(skip);
                // Fragments that came before are gone with it, and so is the answer.
                self.context = None;
                self.kept = 0;
            }
        }
        self.start = payload.begins;
        Ok(true)
    }

    /// Where a frame that is kept ends, if it is whole.
    fn find_end(&self, payload: Payload) -> Result<Option<usize>, CloseCode> {
        let length =
            usize::try_from(payload.bytes).ok().filter(|length| *length <= MESSAGE_MAX).ok_or(CloseCode::Size)?;
        let end = payload.begins + length;
        Ok((end <= self.buffer.len()).then_some(end))
    }

    /// Hands the library one whole frame.
    fn feed(&mut self, header: &FrameHeader, payload: Payload, end: usize) -> Result<Option<Found>, CloseCode> {
        let mut pipe = Pipe { input: &self.buffer[self.start..end], output: Vec::new() };
        let in_fragments = self.context.is_some();
        let mut context = self.context.take().unwrap_or_else(|| Box::new(context(pipe.input.len())));
        let taken = take(&mut context, &mut pipe)?;
        let goes_on = match header.opcode {
            OpCode::Data(_) => !header.is_final,
            // A control frame may stand between fragments (RFC 6455 §5.4).
            OpCode::Control(_) => in_fragments,
        };
        if let OpCode::Data(_) = header.opcode {
            self.kept = if goes_on { self.kept + payload.bytes } else { 0 };
        }
        self.context = goes_on.then_some(context);
        Ok(taken)
    }

    /// Gives an idle connection's memory back, and keeps nothing of what was said in the rest.
    fn release(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.zeroize();
            self.buffer.shrink_to(IDLE_CAPACITY_MAX);
            self.start = 0;
        }
    }
}

/// Bytes `message` takes as a frame.
pub(super) fn framed_length(message: &[u8]) -> usize {
    FrameHeader::default().len(message.len() as u64) + message.len()
}

/// Appends `message` as one frame: text where it is text, which is what scripts in browsers expect, else binary.
pub(super) fn frame(message: &[u8], out: &mut Vec<u8>) {
    let kind = if std::str::from_utf8(message).is_ok() { Data::Text } else { Data::Binary };
    let header = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
    // A Vec never refuses.
    let _ = header.format(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// The close frame that tells why we close (RFC 6455 §7.4.1); none where the peer closed, or takes no bytes.
pub(super) fn goodbye(closing: Closing) -> Option<Vec<u8>> {
    let code = match closing {
        Closing::Peer | Closing::QueueFull | Closing::WriteStalled => return None,
        Closing::Asked | Closing::TrunkIdle => CloseCode::Normal,
        Closing::Stopping | Closing::PongMissing => CloseCode::Away,
        Closing::MessageSlow | Closing::Malformed | Closing::FramingLost | Closing::StrangerIdle => CloseCode::Policy,
        Closing::Protocol(code) => CloseCode::from(code),
    };
    let mut out = Vec::new();
    let close = CloseFrame { code, reason: Utf8Bytes::default() };
    Frame::close(Some(close)).format(&mut out).ok()?;
    Some(out)
}

/// Reads one frame from the pipe. The library answers pings and goodbyes by itself, into the pipe.
fn take(context: &mut WebSocketContext, pipe: &mut Pipe<'_>) -> Result<Option<Found>, CloseCode> {
    use tungstenite::protocol::Message;
    match context.read(pipe) {
        Ok(Message::Text(text)) => Ok(sort(text.as_bytes())),
        Ok(Message::Binary(bytes)) => Ok(sort(&bytes)),
        Ok(Message::Ping(_)) => {
            context.flush(pipe).map_err(|error| close_code(&error))?;
            Ok(Some(Found::Echo(std::mem::take(&mut pipe.output))))
        }
        Ok(Message::Pong(_)) => Ok(Some(Found::Pong)),
        Ok(Message::Close(_)) => match context.flush(pipe) {
            Ok(()) | Err(Error::ConnectionClosed) => Ok(Some(Found::Goodbye(std::mem::take(&mut pipe.output)))),
            Err(error) => Err(close_code(&error)),
        },
        // The library hands raw frames out only where it is asked to.
        Ok(Message::Frame(_)) => Ok(None),
        // A fragment that is not the last.
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(close_code(&error)),
    }
}

/// What a whole WebSocket message is. Keep-alives of RFC 5626 are for other transports (RFC 7118 §6), and some stacks send
/// them here too.
fn sort(message: &[u8]) -> Option<Found> {
    let filler = message.iter().take_while(|byte| matches!(byte, 0 | b'\r' | b'\n')).count();
    match message {
        _ if message == CRLF_PING => Some(Found::Ping),
        _ if message == CRLF_PONG => Some(Found::Pong),
        _ if filler == message.len() || message == b"jaK" => None,
        _ => Some(Found::Message(message.to_vec())),
    }
}

/// How a peer is told what it broke.
fn close_code(error: &Error) -> CloseCode {
    match error {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => CloseCode::Protocol,
    }
}

/// A context for one message whose first frame has `length` bytes.
fn context(length: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(length)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    WebSocketContext::new(Role::Server, Some(config))
}

/// What the library takes for a socket: one frame to read, and room for what it answers.
struct Pipe<'f> {
    input: &'f [u8],
    output: Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
