//! One lasting HTTP/2 connection to a provider, and a new one when it is lost.
//!
//! APNs takes rapid reconnects for an attack and loses pushes when a connection goes away under them, so both providers
//! are spoken to through this room: it keeps one [`Link`] open, detects a dead one by PING, replays what the provider
//! says it never processed, and paces new links (`pace`). A stream that fails ends its own request and not the link. It does
//! not know what a push is; whether to repeat a request that *may* have been processed is for its callers to decide.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::config::TimeSource;
use super::crew::{Crew, CrewExecutor};
use super::endpoint::Endpoint;
use super::health::Throttle;
use super::pace::{Life, Pace};
use crate::clock::Instant;

/// A PING goes out after fifteen seconds of silence and is waited for five: a half-dead connection is noticed while a
/// call that rings for 45 s can still be saved on a new one.
pub(crate) const PING: Ping = Ping { after: Duration::from_secs(15), within: Duration::from_secs(5) };
/// How long one stream may stay unanswered on a connection whose PINGs are answered. FCM asks for at least 10 s.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The largest answer we read; the documented ones have some hundred bytes.
const BODY_MAX: usize = 16 * 1024;
/// Characters of a failure we keep for the log.
const FAILURE_TEXT_MAX: usize = 200;

/// So many streams of a link may fail one after the other, with no answer between them, until the link itself is taken for
/// broken. Streams that were open side by side when one failed count as that one.
const STREAM_FAILURES_MAX: u32 = 8;
/// Pauses between attempts to open a stream that the server refused (RFC 9113 §8.7).
const REFUSED_STREAM: Backoff = Backoff { first: Duration::from_millis(50), most: Duration::from_secs(2) };

/// When a silent connection is taken for dead.
#[derive(Clone, Copy)]
pub(crate) struct Ping {
    /// After so much silence it is asked.
    pub(crate) after: Duration,
    /// And has so long to answer.
    pub(crate) within: Duration,
}

/// How a link is used.
#[derive(Clone, Copy)]
pub(crate) struct LinkRules {
    /// Streams open at once until [`Link::prove`] was called.
    pub(crate) unproved: usize,
    /// From then on. The server's own limit counts as well.
    pub(crate) proved: usize,
    /// How a dead one is noticed.
    pub(crate) ping: Ping,
}

/// An answer, whole.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A request without an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Certainly not processed: never sent, refused, or above the last stream of a GOAWAY. Replayed as often as allowed.
    Unprocessed(String),
    /// The connection broke or fell silent; nobody knows.
    Unknown(String),
    /// There was nothing to send: the request cannot be built.
    Unbuilt,
}

/// What happened to a push so far, for the moment its deadline cuts it short.
#[derive(Default)]
pub(crate) struct Trail {
    /// A request is with the provider and unanswered.
    pub(crate) in_flight: bool,
    /// The last failure.
    pub(crate) last: Option<String>,
}

/// One connection.
pub(crate) struct Link {
    number: u64,
    sender: SendRequest<Full<Bytes>>,
    gate: Semaphore,
    rules: LinkRules,
    proved: AtomicBool,
    opened: Instant,
    /// Answers so far, of any kind.
    answers: AtomicU64,
    /// Streams that failed by themselves since the last answer, one after the other.
    stream_failures: AtomicU32,
    /// The connection's tasks; they end when the last user of the link is gone.
    _crew: Arc<Crew>,
}

/// The connection to one provider under one identity, for as long as the process lives.
pub(crate) struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    rules: LinkRules,
    state: watch::Sender<State>,
    demand: Notify,
    time: TimeSource,
    pace: Mutex<Pace>,
    links: AtomicU64,
}

enum State {
    Down(Option<String>),
    Ready(Arc<Link>),
}

impl Channel {
    /// A channel whose connections are opened on demand by a task of `crew`.
    pub(crate) fn new(endpoint: Endpoint, rules: LinkRules, time: TimeSource, crew: &Crew) -> Self {
        let shared = Arc::new(Shared {
            endpoint,
            rules,
            state: watch::Sender::new(State::Down(None)),
            demand: Notify::new(),
            time,
            pace: Mutex::default(),
            links: AtomicU64::new(0),
        });
        crew.spawn(Arc::clone(&shared).keep());
        Self { shared }
    }

    /// The absolute URI of `path` at this provider.
    pub(crate) fn uri(&self, path: &str) -> String {
        self.shared.endpoint.uri(path)
    }

    /// Sends a request and waits for its answer, for as long as the caller likes: it is safe to drop. What the provider
    /// certainly did not process is sent again, up to `replays` times; those used up are subtracted. The request is built
    /// once there is a stream for it, so that what it says of the time is true.
    pub(crate) async fn exchange(
        &self,
        build: impl Fn() -> Option<Request<Full<Bytes>>>,
        replays: &mut u32,
        trail: &mut Trail,
    ) -> Result<(Arc<Link>, Reply), Lost> {
        let mut refusals = 0;
        loop {
            trail.in_flight = false;
            let link = self.link(trail).await;
            // Closed while we waited: the link was retired, and the next one is asked for.
            let Ok(permit) = link.gate.acquire().await else { continue };
            let request = build().ok_or(Lost::Unbuilt)?;
            trail.in_flight = true;
            let outcome = self.attempt(&link, request).await;
            drop(permit);
            let (why, refused) = match outcome {
                Ok(reply) => return Ok((link, reply)),
                Err(Failure::Unprocessed(why)) => (why, false),
                Err(Failure::Refused(why)) => (why, true),
                Err(Failure::Stream(why) | Failure::Link(why)) => return Err(Lost::Unknown(why)),
            };
            debug!(link = link.number, %why, "request unprocessed");
            trail.in_flight = false;
            trail.last = Some(why.clone());
            let Some(left) = replays.checked_sub(1) else { return Err(Lost::Unprocessed(why)) };
            *replays = left;
            if refused {
                refusals += 1;
                sleep(REFUSED_STREAM.pause(refusals)).await;
            }
        }
    }

    /// Sends a request on a link, which is given up if it is the link that failed.
    async fn attempt(&self, link: &Link, request: Request<Full<Bytes>>) -> Result<Reply, Failure> {
        let (answers, failures) = (link.answers.load(Ordering::Relaxed), link.stream_failures.load(Ordering::Relaxed));
        let failure = match timeout(ANSWER_MAX, link.send(request)).await {
            Ok(Ok(reply)) => {
                link.answers.fetch_add(1, Ordering::Relaxed);
                link.stream_failures.store(0, Ordering::Relaxed);
                return Ok(reply);
            }
            Ok(Err(failure)) => failure,
            Err(_) if link.answers.load(Ordering::Relaxed) != answers => {
                Failure::Stream("no answer while others had one".to_owned())
            }
            Err(_) => Failure::Link("no answer on a live connection".to_owned()),
        };
        match &failure {
            Failure::Refused(_) => {}
            Failure::Stream(_) => {
                let next = failures.saturating_add(1);
                let counted =
                    link.stream_failures.compare_exchange(failures, next, Ordering::Relaxed, Ordering::Relaxed);
                if counted.is_ok() && next >= STREAM_FAILURES_MAX {
                    self.retire(link);
                }
            }
            Failure::Unprocessed(_) | Failure::Link(_) => self.retire(link),
        }
        Err(failure)
    }

    /// The provider fails over what it is asked on this link, though it answers. The next request gets a new one, unless that
    /// would have to wait: an ailing link is better than none.
    pub(crate) fn renew(&self, link: &Link) {
        let now = (self.shared.time)().boot;
        if self.shared.pace().allows_end(link.life(), now) {
            self.retire(link);
        }
    }

    /// Opens no new stream on this link; the next request gets a new one. What is under way on it may finish.
    fn retire(&self, link: &Link) {
        self.shared.retire(link.number);
    }

    /// Lets the connection go.
    pub(crate) fn close(&self) {
        let link = match &*self.shared.state.borrow() {
            State::Ready(link) => Arc::clone(link),
            State::Down(_) => return,
        };
        self.retire(&link);
    }

    /// Why there is no connection, if one was wanted and could not be had.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.shared.state.borrow() {
            State::Down(why) => why.clone(),
            State::Ready(_) => None,
        }
    }

    async fn link(&self, trail: &mut Trail) -> Arc<Link> {
        let mut state = self.shared.state.subscribe();
        loop {
            if let State::Ready(link) = &*state.borrow_and_update() {
                return Arc::clone(link);
            }
            self.shared.demand.notify_one();
            if state.changed().await.is_err() {
                // The sender lives in `shared`, which we hold.
                std::future::pending::<()>().await;
            }
            if let State::Down(Some(why)) = &*state.borrow() {
                trail.last = Some(why.clone());
            }
        }
    }
}

impl Shared {
    /// Opens links as they are asked for. Ends with the crew that runs it.
    async fn keep(self: Arc<Self>) {
        let mut throttle = Throttle::default();
        loop {
            self.demand.notified().await;
            if matches!(&*self.state.borrow(), State::Ready(_)) {
                continue;
            }
            let wait = self.pace().wait((self.time)().boot);
            sleep(wait).await;
            let next = match self.open().await {
                Ok(link) => State::Ready(link),
                Err(why) => {
                    let now = (self.time)().boot;
                    let failures = self.pace().failed(now);
                    if let Some(times) = throttle.admit(now) {
                        warn!(provider = self.endpoint.authority(), %why, failures, times, "push provider unreachable");
                    }
                    State::Down(Some(why))
                }
            };
            self.state.send_replace(next);
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(self: &Arc<Self>) -> Result<Arc<Link>, String> {
        let io = self.endpoint.connect().await?;
        let crew = Arc::new(Crew::new());
        let (sender, connection) = Builder::new(CrewExecutor::new(&crew))
            .timer(TokioTimer::new())
            .keep_alive_interval(self.rules.ping.after)
            .keep_alive_timeout(self.rules.ping.within)
            .keep_alive_while_idle(true)
            // Until the server's SETTINGS arrive its limit is unknown, and APNs starts with one stream.
            .initial_max_send_streams(self.rules.unproved)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| describe(&error))?;
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        let watched = Arc::downgrade(self);
        crew.spawn(async move {
            let ended = connection.await;
            debug!(link = number, clean = ended.is_ok(), "push connection ended");
            if let Some(shared) = Weak::upgrade(&watched) {
                shared.retire(number);
            }
        });
        let gate = Semaphore::new(self.rules.unproved);
        Ok(Arc::new(Link {
            number,
            sender,
            gate,
            rules: self.rules,
            proved: AtomicBool::new(false),
            opened: (self.time)().boot,
            answers: AtomicU64::new(0),
            stream_failures: AtomicU32::new(0),
            _crew: crew,
        }))
    }

    fn retire(&self, number: u64) {
        // The link is dropped outside the lock, and its pause is known before anybody asks for the next one.
        let mut retired = None;
        self.state.send_if_modified(|state| {
            let State::Ready(link) = state else { return false };
            if link.number != number {
                return false;
            }
            link.gate.close();
            self.pace().ended(link.life(), (self.time)().boot);
            retired = Some(std::mem::replace(state, State::Down(None)));
            true
        });
        drop(retired);
    }
}

enum Failure {
    /// The link ended, and this request was certainly not processed.
    Unprocessed(String),
    /// The stream was refused, and not processed.
    Refused(String),
    /// The stream failed by itself.
    Stream(String),
    /// The link failed.
    Link(String),
}

impl Link {
    /// The provider took something we sent: it knows us, and more streams may be opened.
    pub(crate) fn prove(&self) {
        if !self.proved.swap(true, Ordering::Relaxed) {
            self.gate.add_permits(self.rules.proved.saturating_sub(self.rules.unproved));
        }
    }

    fn life(&self) -> Life {
        Life { opened: self.opened, useful: self.proved.load(Ordering::Relaxed) }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, Failure> {
        let response = match self.sender.clone().try_send_request(request).await {
            Ok(response) => response,
            Err(mut failed) => {
                let never_sent = failed.take_message().is_some();
                return Err(classify(never_sent, failed.error()));
            }
        };
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            // The verdict is in the status; only refusals say more in their body.
            Err(_) if head.status.is_success() => Bytes::new(),
            Err(error) => {
                return Err(match error.downcast_ref() {
                    Some(error) => broken_off(error),
                    None => Failure::Stream("the answer is too long".to_owned()),
                });
            }
        };
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}

/// Tells what was certainly not processed from what may have been, and a stream's failure from the link's. h2 gives a stream
/// the peer's GOAWAY as its error only if its number is above the last one the GOAWAY names (RFC 9113 §6.8); lower ones fail
/// by what ended the connection. A reset (§5.4.2), by either side, ends nothing but its stream.
fn classify(never_sent: bool, error: &hyper::Error) -> Failure {
    let why = describe(error);
    if never_sent {
        return Failure::Unprocessed(why);
    }
    let Some(h2) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else {
        return Failure::Link(why);
    };
    if h2.is_remote() && h2.is_go_away() {
        Failure::Unprocessed(why)
    } else if h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) {
        Failure::Refused(why)
    } else if h2.is_reset() {
        Failure::Stream(why)
    } else {
        Failure::Link(why)
    }
}

/// An answer that had begun: its request was processed, however it ended.
fn broken_off(error: &hyper::Error) -> Failure {
    let why = "the answer broke off".to_owned();
    match classify(false, error) {
        Failure::Refused(_) | Failure::Stream(_) => Failure::Stream(why),
        Failure::Unprocessed(_) | Failure::Link(_) => Failure::Link(why),
    }
}

fn describe(error: &hyper::Error) -> String {
    let text = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    text.chars().take(FAILURE_TEXT_MAX).collect()
}
