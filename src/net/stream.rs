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

use super::bounds::{DEVICE_FRAMES, EDGE_MESSAGE, READ_CHUNK, REGISTRAR_FRAMES, REGISTRAR_MESSAGE, STRANGER_FRAMES};
use super::counters::Incident;
use super::envelope::{Cutter, Found, Lost};
use super::flows::{Enrolment, Flow, Source};
use super::long::Reserved;
use super::malformed;
use super::queue::{Closing, Untaken};
use super::rules::{Due, Opened, StreamRules};
use super::{Shared, Upward};
use crate::clock;
use crate::engine::ids::ShardId;
use crate::engine::input::Arrival;
use crate::sip::framing::FrameLimits;
use crate::sip::message::Bounds;
use crate::sip::outbound::PONG;
use crate::sip::{Message, StatusCode};

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

/// What the reading half of a connection keeps between two reads.
struct Intake<'t, 's> {
    cutter: Cutter,
    rules: StreamRules<'t>,
    /// The shards that got a message.
    seen: &'s mut Vec<ShardId>,
    /// For the long message under way.
    reserved: Option<Reserved>,
}

/// What the peer of a connection is, for what it may send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Stranger,
    /// An attached device, or another peer that showed that it knows a capability of ours.
    Proven,
    /// A registrar, or the peer of a connection that we opened.
    Registrar,
}

impl Standing {
    fn frames(self) -> FrameLimits {
        match self {
            Self::Stranger => STRANGER_FRAMES,
            Self::Proven => DEVICE_FRAMES,
            Self::Registrar => REGISTRAR_FRAMES,
        }
    }

    fn bounds(self) -> Bounds {
        match self {
            Self::Stranger | Self::Proven => EDGE_MESSAGE,
            Self::Registrar => REGISTRAR_MESSAGE,
        }
    }
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
        let cutter = self.flow().queue().envelope().cutter();
        let rules = StreamRules::new(self.opened, &self.shared.timings, clock::now().boot);
        let mut intake = Intake { cutter, rules, seen, reserved: None };
        loop {
            let now = clock::now().boot;
            match intake.rules.handle_timeout(self.is_proven(), now) {
                Due::Close(closing) => return closing,
                Due::Ping => self.control(self.flow().queue().envelope().ping()),
                Due::Nothing => {}
            }
            let wait = intake.rules.poll_timeout(self.is_proven()).saturating_since(now);
            match timeout(wait.max(Duration::from_millis(1)), read_some(reader, &mut intake.cutter)).await {
                Err(_) => continue,
                Ok(Ok(0) | Err(_)) => return Closing::Peer,
                Ok(Ok(_)) => intake.rules.handle_bytes(clock::now().boot),
            }
            if let Err(closing) = self.take_found(&mut intake).await {
                return closing;
            }
        }
    }

    async fn take_found(&self, intake: &mut Intake<'_, '_>) -> Result<(), Closing> {
        loop {
            intake.cutter.set_limits(self.standing().frames());
            match intake.cutter.next() {
                Ok(Some(Found::Ping)) => self.answer(PONG),
                Ok(Some(Found::Pong)) => intake.rules.handle_pong(),
                Ok(Some(Found::Echo(bytes))) => self.control(&bytes),
                Ok(Some(Found::Message(raw))) => self.take_message(raw, intake).await?,
                Ok(Some(Found::Oversized(head))) => self.refuse_oversized(&head, intake.seen).await,
                Ok(Some(Found::Skipped)) => intake.rules.handle_message(self.is_proven(), clock::now().boot),
                Ok(Some(Found::Goodbye(bytes))) => {
                    self.control(&bytes);
                    return Err(Closing::Peer);
                }
                Ok(None) if self.has_room(intake) => break,
                Ok(None) => {
                    let Some(head) = intake.cutter.refuse() else { return Err(Closing::FramingLost) };
                    self.refuse_oversized(&head, intake.seen).await;
                }
                Err(Lost::Framing(code)) => {
                    self.refuse(intake.cutter.uncut(), code);
                    return Err(Closing::FramingLost);
                }
                Err(Lost::Protocol(code)) => return Err(Closing::Protocol(code)),
            }
        }
        // Asked only now: while a full shard kept us from reading, the peer could not finish its message.
        intake.rules.handle_taken(intake.cutter.is_mid_message(), clock::now().boot);
        Ok(())
    }

    /// Whether what is under way may go on: as long as any message may be, or with room reserved for it.
    fn has_room(&self, intake: &mut Intake<'_, '_>) -> bool {
        let wanted = intake.cutter.wanted();
        if wanted <= EDGE_MESSAGE.bytes {
            intake.reserved = None;
            return true;
        }
        if intake.reserved.is_none() {
            // Where the length is not known yet, it is as long as there are any.
            intake.reserved = self.reserve(REGISTRAR_MESSAGE.bytes);
        }
        intake.reserved.is_some()
    }

    fn reserve(&self, bytes: usize) -> Option<Reserved> {
        self.shared.long.reserve(Source::of(self.arrival.peer.ip()), bytes)
    }

    async fn take_message(&self, raw: Vec<u8>, intake: &mut Intake<'_, '_>) -> Result<(), Closing> {
        let standing = self.standing();
        let reserved = if raw.len() > EDGE_MESSAGE.bytes {
            let Some(mut reserved) = intake.reserved.take().or_else(|| self.reserve(raw.len())) else {
                intake.rules.handle_message(true, clock::now().boot);
                self.refuse_oversized(&raw, intake.seen).await;
                return Ok(());
            };
            reserved.shrink(raw.len());
            Some(reserved)
        } else {
            None
        };
        // Parsing takes the bytes, and an answer to malformed ones needs them.
        let spare = raw.clone();
        let fault = match self.flow().queue().envelope().parse(raw, standing.bounds()) {
            Ok(message) if malformed::is_wellformed(&message) => {
                let counts = standing != Standing::Stranger || message.status().is_none();
                intake.rules.handle_message(counts, clock::now().boot);
                let message = match reserved {
                    Some(reserved) => message.guarded(reserved),
                    None => message,
                };
                self.deliver(message, intake.seen).await;
                return Ok(());
            }
            Ok(_) => StatusCode::BAD_REQUEST,
            Err(error) => error.status(),
        };
        intake.rules.handle_message(standing != Standing::Stranger, clock::now().boot);
        self.refuse(&spare, fault);
        if standing == Standing::Stranger {
            return intake.rules.handle_malformed().map_or(Ok(()), Err);
        }
        self.end_exchange(&spare, intake.seen).await;
        Ok(())
    }

    /// Hands up what stands for a response that cannot be read: the registration that waits for it shall not wait for ever.
    async fn end_exchange(&self, raw: &[u8], seen: &mut Vec<ShardId>) {
        if self.standing() == Standing::Registrar
            && let Some(stand_in) = Message::salvage_registered(raw)
        {
            self.deliver(stand_in, seen).await;
        }
    }

    async fn deliver(&self, message: Message, seen: &mut Vec<ShardId>) {
        let device = self.shared.sources.is_device(self.arrival.peer, clock::now().boot);
        let arrival = Arrival { registrar: self.is_registrar(), device, ..self.arrival.clone() };
        if let Some(shard) = self.upward.deliver(message, arrival).await
            && !seen.contains(&shard)
        {
            seen.push(shard);
        }
    }

    fn refuse(&self, raw: &[u8], code: StatusCode) {
        self.shared.counters.count(Incident::Malformed);
        if let Some(reply) = malformed::refusal(raw, code, self.arrival.peer) {
            self.answer(&reply);
        }
    }

    /// Answers a message whose body is not kept.
    async fn refuse_oversized(&self, head: &[u8], seen: &mut Vec<ShardId>) {
        self.shared.counters.count(Incident::MessageTooLarge);
        if let Some(reply) = malformed::refusal(head, StatusCode::MESSAGE_TOO_LARGE, self.arrival.peer) {
            self.answer(&reply);
        }
        self.end_exchange(head, seen).await;
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

    /// Queues a message of our own (pong, 400), which proves nothing. What does not fit is not sent: a peer that reads nothing
    /// any more is found by the write that makes no progress.
    fn answer(&self, message: &[u8]) {
        if self.flow().queue().push(message) == Err(Untaken::Full) {
            self.shared.counters.count(Incident::QueueFull);
        }
    }

    /// Queues bytes between messages (ping, goodbye), if they fit.
    fn control(&self, bytes: &[u8]) {
        if self.flow().queue().push_bare(bytes) == Err(Untaken::Full) {
            self.shared.counters.count(Incident::QueueFull);
        }
    }

    fn goodbye(&self, closing: Closing) -> Option<Vec<u8>> {
        self.flow().queue().envelope().goodbye(closing)
    }

    fn standing(&self) -> Standing {
        if self.opened == Opened::ByUs || self.is_registrar() {
            Standing::Registrar
        } else if self.flow().is_proven() {
            Standing::Proven
        } else {
            Standing::Stranger
        }
    }

    /// By its address. Registrars do not speak WebSocket to us; a reverse proxy for phones may stand beside one.
    fn is_registrar(&self) -> bool {
        !self.arrival.transport.is_websocket()
            && self.shared.sources.is_registrar(self.arrival.peer.ip(), clock::now().boot)
    }

    fn is_proven(&self) -> bool {
        self.standing() != Standing::Stranger
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
