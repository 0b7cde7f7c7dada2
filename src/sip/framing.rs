//! Cutting messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §3.5.1 keep-alives).
//!
//! Finds where a message ends and nothing else: no parsing beyond Content-Length, no IO, no clock. Each byte is searched
//! once, however it trickles in. It holds at most one unfinished message of its limit beside what one `push` brought; the
//! body of a longer one is skipped where its sender is worth it. It refuses a stream that has lost its framing for good,
//! because whatever follows could be a smuggled message.

use zeroize::Zeroize;

use super::grammar;
use super::message::{self, MESSAGE_MAX, ParseError};

/// What a sender may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest message that is kept (bytes).
    pub message: usize,
    /// Longest body of a longer message that is skipped instead of ending the stream (bytes). Where it is not zero, a message
    /// that begins like none is waited for to its end, too.
    pub skip: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { message: MESSAGE_MAX, skip: 0 }
    }
}

/// Collects bytes of one connection. Bounded by its limits. Swallows bare CRLF, NULs and `jaK` between messages.
///
/// Drain it with `next_frame` after each `push`.
#[derive(Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Everything before it is dealt with.
    start: usize,
    /// From `start` up to here there is no end of a header section.
    searched: usize,
    limits: FrameLimits,
    /// The message that begins at `start`, once its header section is whole.
    awaited: Option<Awaited>,
    /// Bytes of a refused message that have yet to come, or its end, if that is not reported yet.
    skipping: Option<usize>,
    /// The last thing seen was a lone CRLF that ended the bytes at hand; a second one makes it a ping.
    half_ping: bool,
    broken: Option<ParseError>,
}

/// A message whose length is known.
#[derive(Clone, Copy)]
struct Awaited {
    /// Where its body begins.
    body: usize,
    /// Where it ends.
    end: usize,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message (give to `Message::parse_frame`).
    Message(Vec<u8>),
    /// The header section of a message that is longer than the limit: its body is skipped.
    Oversized(Vec<u8>),
    /// The end of the message that was longer than the limit.
    Skipped,
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
    /// What the sender may send from the next header section on.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// Bytes that are kept, or will be, for the message under way. What is more than expected can be turned away by `refuse`.
    pub fn wanted(&self) -> usize {
        self.awaited.map_or(self.buffer.len(), |awaited| awaited.end) - self.start
    }

    /// Skips the message under way instead of keeping it. Returns its header section; `None` while that is not whole.
    pub fn refuse(&mut self) -> Option<Vec<u8>> {
        let Awaited { body, end } = self.awaited.take()?;
        let head = self.buffer[self.start..body].to_vec();
        self.skip(end);
        self.release();
        Some(head)
    }

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
        self.skipping.is_some() || !matches!(self.buffer[self.start..], [] | [b'\r'])
    }

    fn advance(&mut self) -> Result<Option<Frame>, ParseError> {
        if let Some(left) = self.skipping {
            self.skip(self.start + left);
            return Ok((self.skipping.take_if(|left| *left == 0)).map(|_| Frame::Skipped));
        }
        if self.awaited.is_none() {
            if let Some(keep_alive) = self.skip_keep_alives() {
                return Ok(Some(keep_alive));
            }
            self.awaited = self.find_end()?;
        }
        let Some(Awaited { end, .. }) = self.awaited else { return Ok(None) };
        if end - self.start > self.limits.message {
            return Ok(self.refuse().map(Frame::Oversized));
        }
        if end > self.buffer.len() {
            return Ok(None);
        }
        self.awaited = None;
        Ok(Some(Frame::Message(self.take(end))))
    }

    /// Moves `start` to `end`, as far as the bytes are there; the rest is skipped as it comes.
    fn skip(&mut self, end: usize) {
        let there = end.min(self.buffer.len());
        self.skipping = Some(end - there);
        self.step(there - self.start);
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

    /// Where the message at `start` ends, if its header section is whole: a message that is kept, or whose body is skipped.
    fn find_end(&mut self) -> Result<Option<Awaited>, ParseError> {
        let rest = &self.buffer[self.start..];
        match rest {
            [] | [b'\r'] | [b'j'] | [b'j', b'a'] => return Ok(None),
            // What cannot begin a start line ends the wait: a TLS hello on a plain port, a body we were lied to about.
            [first, ..] if self.limits.skip == 0 && !grammar::is_token_byte(*first) => {
                return Err(ParseError::StartLine);
            }
            _ => {}
        }
        // The empty line may have begun in bytes that were searched before.
        let from = self.searched.max(self.start).saturating_sub(HEAD_END.len() - 1).max(self.start);
        let Some(found) = memchr::memmem::find(&self.buffer[from..], HEAD_END) else {
            self.searched = self.buffer.len();
            return if rest.len() > self.limits.message { Err(ParseError::TooLarge) } else { Ok(None) };
        };
        let body = from + found + HEAD_END.len();
        let length = message::content_length(&self.buffer[self.start..body])?;
        let room = self.limits.message.checked_sub(body - self.start).ok_or(ParseError::TooLarge)?;
        match usize::try_from(length) {
            Ok(length) if length <= room.max(self.limits.skip) => Ok(Some(Awaited { body, end: body + length })),
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
        if let Some(Awaited { body, end }) = &mut self.awaited {
            (*body, *end) = (*body - self.start, *end - self.start);
        }
        self.start = 0;
    }
}

#[cfg(test)]
mod tests;
