//! How messages are told apart on a connection: by Content-Length on a plain stream, by frames on a WebSocket.
//!
//! Its own room so that the rules of streams, the queues and the loops are the same for both. Refuses to know what a
//! message means, and why a connection closes beyond the number it has to be told.

use super::queue::Closing;
use super::websocket::{self, Decoder};
use crate::sip::framing::{Frame, FrameLimits, Framer};
use crate::sip::message::{Bounds, ParseError};
use crate::sip::outbound::PING;
use crate::sip::{Message, StatusCode, Transport};

/// What a message is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// Nothing: it follows the one before.
    Bare,
    /// A WebSocket frame from a server.
    WebSocket,
}

/// What was found in the bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One whole message.
    Message(Vec<u8>),
    /// The beginning of a message above the limit: the rest is skipped.
    Oversized(Vec<u8>),
    /// The end of a message above the limit.
    Skipped,
    /// CRLFCRLF: to be answered with CRLF.
    Ping,
    /// A sign of life, perhaps the answer to our ping.
    Pong,
    /// Bytes to be sent as they are: the answer to a WebSocket ping.
    Echo(Vec<u8>),
    /// The peer says goodbye; the answer, to be sent as it is, is the last thing it gets.
    Goodbye(Vec<u8>),
}

/// Why the bytes of a connection make no sense any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The stream cannot be cut into messages; a request may still be answered.
    Framing(StatusCode),
    /// RFC 6455 was broken; the close code that says how.
    Protocol(u16),
}

/// Cuts the bytes of one connection into messages.
pub(super) enum Cutter {
    /// A plain stream.
    Bare(Framer),
    /// A WebSocket.
    WebSocket(Decoder),
}

impl Envelope {
    /// What is used over `transport`.
    pub(super) fn of(transport: Transport) -> Self {
        if transport.is_websocket() { Self::WebSocket } else { Self::Bare }
    }

    /// Bytes a message takes.
    pub(super) fn length(self, message: &[u8]) -> usize {
        match self {
            Self::Bare => message.len(),
            Self::WebSocket => websocket::framed_length(message),
        }
    }

    /// Appends a message.
    pub(super) fn wrap(self, message: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Bare => out.extend_from_slice(message),
            Self::WebSocket => websocket::frame(message, out),
        }
    }

    /// What asks for a sign of life, as it is sent.
    pub(super) fn ping(self) -> &'static [u8] {
        match self {
            Self::Bare => PING,
            Self::WebSocket => websocket::PING,
        }
    }

    /// What is sent last, as it is sent.
    pub(super) fn goodbye(self, closing: Closing) -> Option<Vec<u8>> {
        match self {
            Self::Bare => None,
            Self::WebSocket => websocket::goodbye(closing),
        }
    }

    pub(super) fn cutter(self) -> Cutter {
        match self {
            Self::Bare => Cutter::Bare(Framer::default()),
            Self::WebSocket => Cutter::WebSocket(Decoder::default()),
        }
    }

    /// Parses what a [`Cutter`] found.
    pub(super) fn parse(self, raw: Vec<u8>, bounds: Bounds) -> Result<Message, ParseError> {
        match self {
            Self::Bare => Message::parse_frame_within(raw, bounds),
            Self::WebSocket => Message::parse_enveloped(raw, bounds),
        }
    }
}

impl Cutter {
    /// What the peer may send from the next message on.
    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        match self {
            Self::Bare(framer) => framer.set_limits(limits),
            Self::WebSocket(decoder) => decoder.set_limits(limits),
        }
    }

    /// Bytes that are kept, or will be, for the message under way.
    pub(super) fn wanted(&self) -> usize {
        match self {
            Self::Bare(framer) => framer.wanted(),
            // Its limit is that of a device, whoever the peer is.
            Self::WebSocket(_) => 0,
        }
    }

    /// Skips the message under way instead of keeping it; its beginning, if enough of it is there to be told from the next.
    pub(super) fn refuse(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Bare(framer) => framer.refuse(),
            Self::WebSocket(_) => None,
        }
    }

    /// Takes bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Bare(framer) => framer.push(bytes),
            Self::WebSocket(decoder) => decoder.push(bytes),
        }
    }

    /// The next thing found; `None` when more bytes are needed. After an error the connection must be closed.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Lost> {
        match self {
            Self::Bare(framer) => {
                let frame = framer.next_frame().map_err(|error| Lost::Framing(error.status()))?;
                Ok(frame.map(|frame| match frame {
                    Frame::Message(raw) => Found::Message(raw),
                    Frame::Oversized(head) => Found::Oversized(head),
                    Frame::Skipped => Found::Skipped,
                    Frame::Ping => Found::Ping,
                    Frame::Pong => Found::Pong,
                }))
            }
            Self::WebSocket(decoder) => decoder.next().map_err(Lost::Protocol),
        }
    }

    /// After an error: the bytes that could not be cut, from which an answer may be made.
    pub(super) fn uncut(&self) -> &[u8] {
        match self {
            Self::Bare(framer) => framer.unframed(),
            Self::WebSocket(_) => &[],
        }
    }

    /// Whether a message has begun and is not whole.
    pub(super) fn is_mid_message(&self) -> bool {
        match self {
            Self::Bare(framer) => framer.is_mid_message(),
            Self::WebSocket(decoder) => decoder.is_mid_message(),
        }
    }
}
