//! One stream connection, accepted or opened by us: bytes in, messages up, queued bytes out.
//!
//! Reading and writing are two futures of one task: a reader that waits for a full shard does not hold up what is to be
//! sent, and only the end of the writer ends the connection, so that a last answer still leaves. Refuses to know
//! what a message means.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};
use zeroize::Zeroize;

use super::bounds::READ_CHUNK;
use super::counters::Incident;
use super::envelope::{Cutter, Found, Lost};
use super::flows::{Enrolment, Flow};
use super::malformed;
use super::queue::Closing;
use super::rules::{Due, Opened, StreamRules};
use super::{Shared, Upward};
use crate::clock;
use crate::engine::ids::ShardId;
use crate::engine::input::Arrival;
use crate::sip::StatusCode;
use crate::sip::outbound::PONG;

thread_local! {
    /// What a read lands in before it is framed. Not one a connection: 100,000 idle ones need none. Empty (zeros) between
    /// two reads: it outlives every connection, and what they carried.
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_CHUNK].into_boxed_slice());
}

/// What a connection's task needs.
pub(super) struct Connection<'a, U> {
    pub(super) shared: &'a Shared,
    pub(super) upward: &'a U,
    pub(super) enrolment: &'a Enrolment,
    /// What every message on it has in common.
    pub(super) arrival: Arrival,
    pub(super) opened: Opened,
}

/// A stream, split before it is handed down: an `async fn` keeps room for each argument as long as it runs, and a TLS stream
/// is large.
pub(super) type Halves<S> = (ReadHalf<S>, WriteHalf<S>);

/// Serves a stream until it ends, tells the shards that saw it, and says why it ended.
pub(super) async fn run<S, U>((mut reader, mut writer): Halves<S>, connection: Connection<'_, U>) -> Closing
where
    S: AsyncRead + AsyncWrite + Send,
    U: Upward,
{
    let mut seen = Vec::new();
    let reading = async {
        let closing = connection.read(&mut reader, &mut seen).await;
        connection.flow().queue().close(closing);
        pending::<Infallible>().await
    };
    let closing = tokio::select! {
        closing = connection.write(&mut writer) => closing,
        never = reading => match never {},
    };
    connection.flow().queue().close(closing);
    // TLS wants its close_notify; a peer that does not take it in time has lost its claim.
    let _ = timeout(connection.shared.timings.flush, writer.shutdown()).await;
    for shard in seen {
        connection.upward.flow_closed(connection.enrolment.id, shard).await;
    }
    if let Some(incident) = incident(closing) {
        connection.shared.counters.count(incident);
    }
    if connection.goodbye(closing).is_some() {
        // RFC 6455 §7.1.1: the peer answers our goodbye. Closing over what it still sends would take ours from it.
        let _ = timeout(connection.shared.timings.flush, drain(&mut reader)).await;
    }
    closing
}

impl<U: Upward> Connection<'_, U> {
    async fn read<R: AsyncRead + Unpin>(&self, reader: &mut R, seen: &mut Vec<ShardId>) -> Closing {
        let mut cutter = self.flow().queue().envelope().cutter();
        let mut rules = StreamRules::new(self.opened, &self.shared.timings, clock::now().boot);
        loop {
            let now = clock::now().boot;
            match rules.handle_timeout(self.is_proven(), now) {
                Due::Close(closing) => return closing,
                Due::Ping => self.control(self.flow().queue().envelope().ping()),
                Due::Nothing => {}
            }
            let wait = rules.poll_timeout(self.is_proven()).saturating_since(now);
            match timeout(wait.max(Duration::from_millis(1)), read_some(reader, &mut cutter)).await {
                Err(_) => continue,
                Ok(Ok(0) | Err(_)) => return Closing::Peer,
                Ok(Ok(_)) => rules.handle_bytes(clock::now().boot),
            }
            if let Err(closing) = self.take_found(&mut cutter, &mut rules, seen).await {
                return closing;
            }
        }
    }

    async fn take_found(
        &self,
        cutter: &mut Cutter,
        rules: &mut StreamRules<'_>,
        seen: &mut Vec<ShardId>,
    ) -> Result<(), Closing> {
        loop {
            match cutter.next() {
                Ok(Some(Found::Ping)) => self.answer(PONG),
                Ok(Some(Found::Pong)) => rules.handle_pong(),
                Ok(Some(Found::Echo(bytes))) => self.control(&bytes),
                Ok(Some(Found::Message(raw))) => {
                    rules.handle_message(clock::now().boot);
                    self.take_message(raw, rules, seen).await?;
                }
                Ok(Some(Found::Goodbye(bytes))) => {
                    self.control(&bytes);
                    return Err(Closing::Peer);
                }
                Ok(None) => break,
                Err(Lost::Framing(code)) => {
                    self.refuse(cutter.uncut(), code);
                    return Err(Closing::FramingLost);
                }
                Err(Lost::Protocol(code)) => return Err(Closing::Protocol(code)),
            }
        }
        // Asked only now: while a full shard kept us from reading, the peer could not finish its message.
        rules.handle_taken(cutter.is_mid_message(), clock::now().boot);
        Ok(())
    }

    async fn take_message(
        &self,
        raw: Vec<u8>,
        rules: &mut StreamRules<'_>,
        seen: &mut Vec<ShardId>,
    ) -> Result<(), Closing> {
        // Parsing takes the bytes, and an answer to malformed ones needs them.
        let spare = raw.clone();
        let fault = match self.flow().queue().envelope().parse(raw) {
            Ok(message) if malformed::is_wellformed(&message) => {
                let arrival = Arrival { registrar: self.is_registrar(), ..self.arrival.clone() };
                if let Some(shard) = self.upward.deliver(message, arrival).await
                    && !seen.contains(&shard)
                {
                    seen.push(shard);
                }
                return Ok(());
            }
            Ok(_) => StatusCode::BAD_REQUEST,
            Err(error) => error.status(),
        };
        self.refuse(&spare, fault);
        rules.handle_malformed().map_or(Ok(()), Err)
    }

    fn refuse(&self, raw: &[u8], code: StatusCode) {
        self.shared.counters.count(Incident::Malformed);
        if let Some(reply) = malformed::refusal(raw, code, self.arrival.peer) {
            self.answer(&reply);
        }
    }

    /// Sends what waits until the connection is to end; says why.
    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> Closing {
        let queue = self.flow().queue();
        loop {
            let bytes = match queue.take().await {
                Ok(bytes) => bytes,
                Err(closing) => return self.take_leave(writer, closing).await,
            };
            let writing = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            let broken = tokio::select! {
                written = timeout(self.shared.timings.write_stall, writing) => match written {
                    Ok(Ok(())) => None,
                    Ok(Err(_)) => Some(Closing::Peer),
                    Err(_) => Some(Closing::WriteStalled),
                },
                closing = self.flush_over() => Some(closing),
            };
            if let Some(closing) = broken {
                queue.close(closing);
                return queue.closed().await;
            }
        }
    }

    /// Nothing waits any more: the last word, where there is one.
    async fn take_leave<W: AsyncWrite + Unpin>(&self, writer: &mut W, closing: Closing) -> Closing {
        if let Some(bytes) = self.goodbye(closing) {
            let _ = timeout(self.shared.timings.flush, writer.write_all(&bytes)).await;
        }
        closing
    }

    /// Waits until the connection is being closed and what waits for it has had its time.
    async fn flush_over(&self) -> Closing {
        let closing = self.flow().queue().closed().await;
        if closing != Closing::QueueFull {
            sleep(self.shared.timings.flush).await;
        }
        closing
    }

    /// Queues a message of our own (pong, 400), which proves nothing.
    fn answer(&self, message: &[u8]) {
        if self.flow().queue().push(message).is_err() {
            self.flow().queue().close(Closing::QueueFull);
        }
    }

    /// Queues bytes between messages (ping, goodbye).
    fn control(&self, bytes: &[u8]) {
        if self.flow().queue().push_bare(bytes).is_err() {
            self.flow().queue().close(Closing::QueueFull);
        }
    }

    fn goodbye(&self, closing: Closing) -> Option<Vec<u8>> {
        self.flow().queue().envelope().goodbye(closing)
    }

    fn is_registrar(&self) -> bool {
        self.shared.proven.contains(self.arrival.peer.ip(), clock::now().boot)
    }

    fn is_proven(&self) -> bool {
        self.flow().is_proven() || self.is_registrar()
    }

    fn flow(&self) -> &Flow {
        &self.enrolment.flow
    }
}

/// Reads to the end and keeps nothing.
pub(super) async fn drain<R: AsyncRead + Unpin>(reader: &mut R) {
    let _ = tokio::io::copy(reader, &mut tokio::io::sink()).await;
}

/// Reads once into the thread's buffer and hands it on; 0 at the end.
async fn read_some<R: AsyncRead + Unpin>(reader: &mut R, cutter: &mut Cutter) -> io::Result<usize> {
    poll_fn(|context| {
        CHUNK.with_borrow_mut(|chunk| {
            let mut buffer = ReadBuf::new(chunk);
            ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer))?;
            cutter.push(buffer.filled());
            let length = buffer.filled().len();
            buffer.filled_mut().zeroize();
            Poll::Ready(Ok(length))
        })
    })
    .await
}

/// What is counted of an ending; the ordinary ones are not.
fn incident(closing: Closing) -> Option<Incident> {
    match closing {
        Closing::Peer | Closing::Asked | Closing::Stopping => None,
        Closing::MessageSlow => Some(Incident::MessageSlow),
        Closing::Malformed => Some(Incident::MalformedFlow),
        Closing::FramingLost | Closing::Protocol(_) => Some(Incident::FramingLost),
        Closing::StrangerIdle => Some(Incident::StrangerIdle),
        Closing::TrunkIdle => Some(Incident::TrunkIdle),
        Closing::PongMissing => Some(Incident::PongMissing),
        Closing::QueueFull => Some(Incident::QueueFull),
        Closing::WriteStalled => Some(Incident::WriteStalled),
    }
}
