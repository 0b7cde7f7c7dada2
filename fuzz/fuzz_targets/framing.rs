//! Any stream: no panic; how it is cut into pieces changes neither messages nor pings nor the error; every frame parses or
//! fails the same way alone, and never over Content-Length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reveille::sip::framing::{Frame, FrameLimits, Framer};
use reveille::sip::{Message, ParseError};

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    for limits in [FrameLimits::default(), FrameLimits { message: 100, skip: 1000 }] {
        let whole = frames(stream.chunks(stream.len().max(1)), limits);
        assert_eq!(whole, frames(stream.chunks(usize::from(size).max(1)), limits));
        assert_eq!(whole, frames(stream.chunks(1), limits));
        for frame in whole.0 {
            if let Frame::Message(bytes) = frame {
                assert_ne!(Message::parse_frame(bytes).err(), Some(ParseError::ContentLength));
            }
        }
    }
});

/// What came out, pongs aside: half a ping is a pong until its other half arrives.
fn frames<'p>(pieces: impl Iterator<Item = &'p [u8]>, limits: FrameLimits) -> (Vec<Frame>, Option<ParseError>) {
    let mut framer = Framer::default();
    framer.set_limits(limits);
    let mut frames = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Pong)) => {}
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
