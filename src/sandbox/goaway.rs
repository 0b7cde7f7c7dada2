//! A stream that can slip a GOAWAY frame between the frames of an HTTP/2 server.
//!
//! The real providers send GOAWAY with the number of the last stream they will answer while later ones are already on
//! their way; h2's own shutdown either answers all streams or none. So the frame is written here, below h2.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 9113 §4.1: length (3), type (1), flags (1), stream (4).
const FRAME_HEADER: usize = 9;
/// RFC 9113 §6.8.
const TYPE_GOAWAY: u8 = 0x7;
/// What Apple puts into the debug data.
const DEBUG_DATA: &[u8] = br#"{"reason":"Shutdown"}"#;

/// Tells the stream to send its GOAWAY before the next frame.
#[derive(Clone, Default)]
pub(crate) struct GoAway(Arc<Mutex<VecDeque<u8>>>);

impl GoAway {
    /// No stream above `last` will be processed. Goes out with the next write.
    pub(crate) fn after(&self, last: u32) {
        let mut frame = Vec::with_capacity(FRAME_HEADER + 8 + DEBUG_DATA.len());
        let length = u32::try_from(8 + DEBUG_DATA.len()).unwrap_or(8);
        frame.extend_from_slice(&length.to_be_bytes()[1..]);
        frame.extend_from_slice(&[TYPE_GOAWAY, 0, 0, 0, 0, 0]);
        frame.extend_from_slice(&last.to_be_bytes());
        // NO_ERROR
        frame.extend_from_slice(&0u32.to_be_bytes());
        frame.extend_from_slice(DEBUG_DATA);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(frame);
    }
}

/// The stream below an HTTP/2 server.
pub(crate) struct Slipping<S> {
    inner: S,
    goaway: GoAway,
    cursor: Cursor,
}

/// Where in the frames the written bytes are.
#[derive(Default)]
struct Cursor {
    header: [u8; FRAME_HEADER],
    have: usize,
    payload_left: usize,
}

impl<S> Slipping<S> {
    pub(crate) fn new(inner: S, goaway: GoAway) -> Self {
        Self { inner, goaway, cursor: Cursor::default() }
    }
}

impl Cursor {
    fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload_left == 0
    }

    /// How many of `bytes` reach the next boundary at most.
    fn until_boundary(&self, bytes: &[u8]) -> usize {
        let mut probe = Self { header: self.header, ..*self };
        for (index, &byte) in bytes.iter().enumerate() {
            probe.advance(&[byte]);
            if probe.at_boundary() {
                return index + 1;
            }
        }
        bytes.len()
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(bytes.len());
                self.payload_left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header[self.have] = first;
            self.have += 1;
            bytes = rest;
            if self.have == FRAME_HEADER {
                let [a, b, c, ..] = self.header;
                self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.have = 0;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Slipping<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Slipping<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut pending = this.goaway.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut most = bytes.len();
        if !pending.is_empty() {
            if this.cursor.at_boundary() {
                while !pending.is_empty() {
                    let written = ready!(Pin::new(&mut this.inner).poll_write(cx, pending.as_slices().0))?;
                    pending.drain(..written);
                }
            } else {
                most = this.cursor.until_boundary(bytes);
            }
        }
        drop(pending);
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, &bytes[..most]))?;
        this.cursor.advance(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_frame_is_slipped_in_at_the_next_boundary_and_only_there() {
        let first = [0, 0, 2, 0, 0, 0, 0, 0, 1, b'a', b'b'];
        let second = [0, 0, 0, 0, 0, 0, 0, 0, 1];
        let goaway = GoAway::default();
        let mut stream = Slipping::new(Vec::new(), goaway.clone());
        stream.write_all(&first[..10]).await.expect("a vector takes all");
        goaway.after(3);
        stream.write_all(&[&first[10..], &second].concat()).await.expect("a vector takes all");
        let frame = [&[0, 0, 29, TYPE_GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0], DEBUG_DATA].concat();
        assert_eq!(stream.inner, [&first[..], &frame, &second].concat());
    }
}
