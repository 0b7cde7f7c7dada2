//! The bytes that wait for one connection.
//!
//! A room of its own because it joins two worlds: shards append without waiting, the connection's task takes everything
//! at once and waits for more. Messages are put into their envelopes here, where they are told apart last. One buffer, so an idle connection costs no memory and small messages leave in one write.
//! Refuses to grow beyond its limit.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::envelope::Envelope;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// The peer closed it, or it broke.
    Peer,
    /// A message did not come, or not whole, in time.
    MessageSlow,
    /// Too many malformed messages.
    Malformed,
    /// Messages cannot be told apart any more.
    FramingLost,
    /// The WebSocket protocol was broken: the close code that says how (RFC 6455 §7.4.1).
    Protocol(u16),
    /// A stranger that proved nothing.
    StrangerIdle,
    /// A trunk nobody uses.
    TrunkIdle,
    /// No pong.
    PongMissing,
    /// More bytes waited than we keep.
    QueueFull,
    /// The peer takes no bytes.
    WriteStalled,
    /// The engine asked for it.
    Asked,
    /// We stop.
    Stopping,
}

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untaken {
    /// They do not fit.
    Full,
    /// The connection is being closed.
    Closed,
}

/// Bytes on their way to one peer.
pub(super) struct WriteQueue {
    state: Mutex<State>,
    wake: Notify,
    limit: usize,
    envelope: Envelope,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    closing: Option<Closing>,
}

impl WriteQueue {
    pub(super) fn new(limit: usize, envelope: Envelope) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), limit, envelope }
    }

    /// What its messages are sent in.
    pub(super) fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Appends a whole message, or nothing of it.
    pub(super) fn push(&self, message: &[u8]) -> Result<(), Untaken> {
        self.append(message, self.envelope)
    }

    /// Appends bytes as they are.
    pub(super) fn push_bare(&self, bytes: &[u8]) -> Result<(), Untaken> {
        self.append(bytes, Envelope::Bare)
    }

    /// Begins to close. The first reason stays; what waits may still be sent.
    pub(super) fn close(&self, closing: Closing) {
        self.state().closing.get_or_insert(closing);
        self.wake.notify_one();
    }

    /// Waits for bytes and takes them all; the reason once it is closed and nothing waits any more.
    pub(super) async fn take(&self) -> Result<Vec<u8>, Closing> {
        loop {
            {
                let mut state = self.state();
                if !state.bytes.is_empty() {
                    return Ok(std::mem::take(&mut state.bytes));
                }
                if let Some(closing) = state.closing {
                    return Err(closing);
                }
            }
            self.wake.notified().await;
        }
    }

    /// Waits until it is being closed.
    pub(super) async fn closed(&self) -> Closing {
        loop {
            if let Some(closing) = self.state().closing {
                return closing;
            }
            self.wake.notified().await;
        }
    }

    fn append(&self, message: &[u8], envelope: Envelope) -> Result<(), Untaken> {
        {
            let mut state = self.state();
            if state.closing.is_some() {
                return Err(Untaken::Closed);
            }
            if state.bytes.len() + envelope.length(message) > self.limit {
                return Err(Untaken::Full);
            }
            envelope.wrap(message, &mut state.bytes);
        }
        self.wake.notify_one();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole messages behind: nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_leave_in_order_and_a_closed_queue_is_emptied_first() {
        let queue = WriteQueue::new(16, Envelope::Bare);
        queue.push(b"one").expect("room");
        queue.push(b"two").expect("room");
        queue.close(Closing::Asked);

        assert_eq!(queue.push(b"late"), Err(Untaken::Closed));
        assert_eq!(queue.take().await, Ok(b"onetwo".to_vec()));
        assert_eq!(queue.take().await, Err(Closing::Asked));
    }

    #[test]
    fn a_message_that_does_not_fit_is_refused_whole_and_the_first_reason_stays() {
        let queue = WriteQueue::new(4, Envelope::Bare);
        queue.push(b"one").expect("room");
        assert_eq!(queue.push(b"two"), Err(Untaken::Full));

        queue.close(Closing::QueueFull);
        queue.close(Closing::Peer);
        assert_eq!(queue.state().closing, Some(Closing::QueueFull));
        assert_eq!(queue.state().bytes, b"one");
    }
}
