//! Cutting messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §3.5.1 keep-alives).
//!
//! Finds where a message ends and nothing else: no parsing beyond Content-Length, no IO, no clock. Each byte is searched
//! once, however it trickles in. It holds at most one unfinished message of `MESSAGE_MAX` bytes beside what one `push`
//! brought, and refuses a stream that has lost its framing for good, because whatever follows could be a smuggled message.

use zeroize::Zeroize;

use super::grammar;
use super::message::{self, MESSAGE_MAX, ParseError};

/// Collects bytes of one connection. Bounded by MESSAGE_MAX. Swallows bare CRLF, NULs and `jaK` between messages.
///
/// Drain it with `next_frame` after each `push`.
#[derive(Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Everything before it is dealt with.
    start: usize,
    /// From `start` up to here there is no end of a header section.
    searched: usize,
    /// Where the message that begins at `start` ends, once its header section is whole.
    end: Option<usize>,
    /// The last thing seen was a lone CRLF that ended the bytes at hand; a second one makes it a ping.
    half_ping: bool,
    broken: Option<ParseError>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message (give to `Message::parse_frame`).
    Message(Vec<u8>),
    /// CRLFCRLF: answer with CRLF.
    Ping,
    /// A lone CRLF: perhaps the answer to our ping. It is reported as soon as the bytes at hand end with it; should the
    /// other half of a ping arrive later after all, a `Ping` follows.
    Pong,
}

/// An idle connection keeps no more memory than this.
const IDLE_CAPACITY_MAX: usize = 256;

const HEAD_END: &[u8] = b"\r\n\r\n";

impl Framer {
    /// Takes bytes in. After an error they are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.compact();
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next message or keep-alive, `None` when more bytes are needed.
    ///
    /// # Errors
    /// Close the connection: the message is too large, has no Content-Length or a wrong one, or is no SIP at all. Every
    /// later call gives the same error.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ParseError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let frame = self.advance();
        match &frame {
            Err(error) => {
                self.broken = Some(*error);
                self.compact();
            }
            Ok(_) => self.release(),
        }
        frame
    }

    /// After an error: the bytes that could not be framed, from which `Message::salvage` may make an answer.
    pub fn unframed(&self) -> &[u8] {
        if self.broken.is_some() { &self.buffer } else { &[] }
    }

    /// Whether a message has begun and is not whole (for the 5 s rule).
    pub fn is_mid_message(&self) -> bool {
        self.buffer.get(self.start).is_some_and(|&byte| byte != b'\r')
    }

    fn advance(&mut self) -> Result<Option<Frame>, ParseError> {
        if self.end.is_none() {
            if let Some(keep_alive) = self.skip_keep_alives() {
                return Ok(Some(keep_alive));
            }
            self.end = self.find_end()?;
        }
        let Some(end) = self.end.filter(|&end| end <= self.buffer.len()) else {
            return Ok(None);
        };
        self.end = None;
        Ok(Some(Frame::Message(self.take(end))))
    }

    /// Moves `start` over what may stand between messages; stops at a ping or pong to report.
    fn skip_keep_alives(&mut self) -> Option<Frame> {
        loop {
            let rest = &self.buffer[self.start..];
            let (length, found) = match rest {
                [0, ..] => (1, None),
                [b'j', b'a', b'K', ..] => (3, None),
                [b'\r', b'\n', ..] if self.half_ping => (2, Some(Frame::Ping)),
                [b'\r', b'\n', b'\r', b'\n', ..] => (4, Some(Frame::Ping)),
                // The next byte decides between a lone CRLF and a ping; nothing is lost by reporting it at once.
                [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => {
                    self.half_ping = true;
                    self.step(2);
                    return Some(Frame::Pong);
                }
                [b'\r', b'\n', ..] => (2, Some(Frame::Pong)),
                // Half a CRLF says nothing yet, all else ends the CRLF that came before.
                [] | [b'\r'] => return None,
                _ => {
                    self.half_ping = false;
                    return None;
                }
            };
            self.half_ping = false;
            self.step(length);
            if found.is_some() {
                return found;
            }
        }
    }

    /// Where the message at `start` ends, if its header section is whole.
    fn find_end(&mut self) -> Result<Option<usize>, ParseError> {
        let rest = &self.buffer[self.start..];
        match rest {
            [] | [b'\r'] | [b'j'] | [b'j', b'a'] => return Ok(None),
            // What cannot begin a start line ends the wait: a TLS hello on a plain port, a body we were lied to about.
            [first, ..] if !grammar::is_token_byte(*first) => return Err(ParseError::StartLine),
            _ => {}
        }
        // The empty line may have begun in bytes that were searched before.
        let from = self.searched.max(self.start).saturating_sub(HEAD_END.len() - 1).max(self.start);
        let Some(found) = memchr::memmem::find(&self.buffer[from..], HEAD_END) else {
            self.searched = self.buffer.len();
            return if rest.len() > MESSAGE_MAX { Err(ParseError::TooLarge) } else { Ok(None) };
        };
        let body = from + found + HEAD_END.len();
        let length = message::content_length(&self.buffer[self.start..body])?.ok_or(ParseError::ContentLength)?;
        let room = MESSAGE_MAX.checked_sub(body - self.start).ok_or(ParseError::TooLarge)?;
        match usize::try_from(length) {
            Ok(length) if length <= room => Ok(Some(body + length)),
            _ => Err(ParseError::TooLarge),
        }
    }

    /// The bytes from `start` to `end`, in a buffer of exactly that size (so that `Bytes` needs no second allocation).
    fn take(&mut self, end: usize) -> Vec<u8> {
        let message = self.buffer[self.start..end].to_vec();
        self.step(end - self.start);
        message
    }

    fn step(&mut self, length: usize) {
        self.start += length;
        self.searched = self.start;
    }

    /// Gives an idle connection's memory back, and keeps nothing of what was said in the rest.
    fn release(&mut self) {
        if self.start == self.buffer.len() && !self.buffer.is_empty() {
            self.buffer.zeroize();
            self.buffer.shrink_to(IDLE_CAPACITY_MAX);
            self.start = 0;
            self.searched = 0;
        }
    }

    /// Moves what is unfinished to the front. Done before bytes come in, when at most one message is left to move.
    fn compact(&mut self) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.end = self.end.map(|end| end - self.start);
        self.start = 0;
    }
}

#[cfg(test)]
mod tests;
