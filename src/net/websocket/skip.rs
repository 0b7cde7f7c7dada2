//! A WebSocket message that is too large and passes by: its beginning is kept for an answer, the rest is not.
//!
//! Its own room because the library knows whole messages only. Refuses to skip without end: frames and fragments count alike.

use tungstenite::protocol::frame::FrameHeader;
use zeroize::Zeroize;

use crate::sip::message::MESSAGE_MAX;

/// A message that is being skipped.
pub(super) struct Skip {
    /// The beginning, unmasked.
    head: Vec<u8>,
    /// Bytes the present frame has yet to bring.
    left: usize,
    /// How many of its bytes came: the mask goes on with them.
    came: usize,
    mask: [u8; 4],
    is_final: bool,
    /// Bytes that may still be skipped, after this frame.
    room: usize,
}

impl Skip {
    /// Begins to skip a message with a frame of `payload` bytes; `None`: it is too long even for that, or not masked.
    pub(super) fn begin(header: &FrameHeader, payload: u64, room: usize) -> Option<Self> {
        let mut skip = Self { head: Vec::new(), left: 0, came: 0, mask: [0; 4], is_final: false, room };
        skip.go_on(header, payload).then_some(skip)
    }

    /// Goes on with the next frame; `false` where `begin` would say `None`.
    pub(super) fn go_on(&mut self, header: &FrameHeader, payload: u64) -> bool {
        let room = usize::try_from(payload).ok().and_then(|payload| self.room.checked_sub(payload));
        let (Some(room), Some(mask)) = (room, header.mask) else { return false };
        (self.left, self.came) = (self.room - room, 0);
        (self.room, self.mask, self.is_final) = (room, mask, header.is_final);
        true
    }

    /// Whether a frame is under way.
    pub(super) fn is_in_frame(&self) -> bool {
        self.left > 0
    }

    /// Whether the last frame is over.
    pub(super) fn is_over(&self) -> bool {
        self.is_final && self.left == 0
    }

    /// Takes what came of the present frame; says how many bytes that were.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> usize {
        let length = bytes.len().min(self.left);
        let kept = length.min(MESSAGE_MAX.saturating_sub(self.head.len()));
        let mask = self.mask.iter().cycle().skip(self.came % self.mask.len());
        self.head.extend(bytes[..kept].iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        bytes[..length].zeroize();
        self.left -= length;
        self.came += length;
        length
    }

    /// The beginning of the message.
    pub(super) fn into_head(self) -> Vec<u8> {
        self.head
    }
}
