//! Who gets what: the one way into the shards for messages, commands and everything else from outside.
//!
//! Its own room because both `net` and `api` come in through it, and neither knows how many shards there are. A message
//! finds its shard by reading (`Placement`). Refuses to queue without bound: a full shard sheds datagrams, makes streams
//! wait and tells commands to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::effects::{Answers, Replies};
use crate::engine::ids::{FlowId, ShardId};
use crate::engine::input::{Arrival, Command, Input, Malformed, TrunkFault};
use crate::engine::limits::Limits;
use crate::engine::output::{Answer, Refusal, TrunkKey};
use crate::engine::placement::Placement;
use crate::net::Upward;
use crate::sip::Message;

/// Answers that may wait for one shard, reserved places included. Above it a location or push is refused at once, and
/// who can wait waits.
const ANSWERS_QUEUED: usize = 65_536;
/// When a command that found its shard full should come again.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The way into the shards.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    placement: Placement,
    traffic: Vec<Sender<Input>>,
    answers: Answers,
    replies: Arc<Replies>,
    shed: AtomicU64,
}

/// What one shard takes its inputs from.
pub struct Inbox {
    pub(crate) shard: ShardId,
    /// Messages, commands and closed flows; shed when full.
    pub(crate) traffic: Receiver<Input>,
    /// What was asked for; never shed.
    pub(crate) answers: Receiver<Input>,
}

impl Router {
    /// Makes the router and the inbox of every shard, in order.
    #[must_use]
    pub fn new(placement: Placement, limits: &Limits) -> (Self, Vec<Inbox>) {
        let traffic_max = usize::try_from(limits.traffic_queued).unwrap_or(usize::MAX).clamp(1, mpsc_max());
        let (mut traffic_in, mut answers_in, mut inboxes) = (Vec::new(), Vec::new(), Vec::new());
        for shard in 0..placement.shards() {
            let (traffic_sender, traffic) = mpsc::channel(traffic_max);
            let (answers_sender, answers) = mpsc::channel(ANSWERS_QUEUED);
            traffic_in.push(traffic_sender);
            answers_in.push(answers_sender);
            inboxes.push(Inbox { shard: ShardId(shard), traffic, answers });
        }
        let inner = Inner {
            placement,
            traffic: traffic_in,
            answers: Answers::new(answers_in),
            replies: Arc::default(),
            shed: AtomicU64::new(0),
        };
        (Self(Arc::new(inner)), inboxes)
    }

    /// Who owns what.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.0.placement
    }

    /// Asks the engine of `shard` and waits for its answer. An asker who stops waiting is forgotten.
    pub async fn ask(&self, shard: ShardId, command: Command) -> Answer {
        let busy = || Answer::Refused(Refusal::Busy { after: BUSY_RETRY });
        let Some(traffic) = self.traffic(shard) else { return Answer::Refused(Refusal::NotFound) };
        let Some(mut place) = self.0.replies.place() else { return busy() };
        // A person or an app waits at the other end and can come again: better told now than kept in a queue.
        if traffic.try_send(Input::Command(command, place.id())).is_err() {
            self.count_shed();
            return busy();
        }
        place.answer().await.unwrap_or_else(busy)
    }

    /// Tells every shard to shut down.
    pub async fn drain(&self) {
        for shard in self.shards() {
            self.0.answers.tell(shard, Input::Drain).await;
        }
    }

    /// Tells every shard whether the audit log can be written.
    pub async fn audit_writable(&self, writable: bool) {
        for shard in self.shards() {
            self.0.answers.tell(shard, Input::AuditWritable(writable)).await;
        }
    }

    /// Messages and commands that found their shard full, since the start.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.0.shed.load(Ordering::Relaxed)
    }

    pub(crate) fn answers(&self) -> Answers {
        self.0.answers.clone()
    }

    pub(crate) fn replies(&self) -> Arc<Replies> {
        Arc::clone(&self.0.replies)
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.0.placement.shards()).map(ShardId)
    }

    fn traffic(&self, shard: ShardId) -> Option<&Sender<Input>> {
        self.0.traffic.get(usize::from(shard.0))
    }

    fn count_shed(&self) {
        self.0.shed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Upward for Router {
    async fn deliver(&self, message: Message, arrival: Arrival) -> Option<ShardId> {
        let shard = self.0.placement.message(&message, &arrival);
        let traffic = self.traffic(shard)?;
        let is_stream = arrival.flow.is_some();
        match traffic.try_send(Input::Sip(message, arrival)) {
            Ok(()) => Some(shard),
            // TCP tells the peer to slow down, if we stop reading.
            Err(TrySendError::Full(input)) if is_stream => traffic.send(input).await.is_ok().then_some(shard),
            Err(TrySendError::Full(_)) => {
                self.count_shed();
                None
            }
            Err(TrySendError::Closed(_)) => None,
        }
    }

    fn deliver_malformed(&self, malformed: Malformed, arrival: Arrival) {
        let shard = self.0.placement.message(&malformed.request, &arrival);
        let input = Input::Malformed(Box::new(malformed), arrival);
        if self.traffic(shard).is_some_and(|traffic| traffic.try_send(input).is_err()) {
            self.count_shed();
        }
    }

    /// Through the traffic inbox, because it must not overtake the flow's last message: an engine that learns of a flow
    /// after its end would keep it for ever.
    async fn flow_closed(&self, flow: FlowId, shard: ShardId) {
        if let Some(traffic) = self.traffic(shard) {
            // A shard that is gone has nobody left to tell.
            let _ = traffic.send(Input::FlowClosed(flow)).await;
        }
    }

    async fn trunk_down(&self, shard: ShardId, key: Arc<TrunkKey>, fault: TrunkFault) {
        self.0.answers.tell(shard, Input::TrunkDown(key, fault)).await;
    }
}

/// The longest queue a tokio channel can have.
const fn mpsc_max() -> usize {
    tokio::sync::Semaphore::MAX_PERMITS
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::engine::ids::ListenerId;
    use crate::sip::{StatusCode, Transport};

    const SHARD: ShardId = ShardId(0);

    fn narrow() -> (Router, Inbox) {
        let limits = Limits { traffic_queued: 1, ..Limits::default() };
        let (router, mut inboxes) = Router::new(Placement::new(1, [1, 2]), &limits);
        (router, inboxes.remove(0))
    }

    fn message() -> Message {
        let text = "OPTIONS sip:edge.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKa\r\n\
            From: <sip:a@edge.test>;tag=1\r\nTo: <sip:b@edge.test>\r\nCall-ID: one\r\nCSeq: 1 OPTIONS\r\n\r\n";
        Message::parse_datagram(text.into()).expect("well-formed")
    }

    fn arrival(flow: Option<FlowId>) -> Arrival {
        let peer: SocketAddr = "192.0.2.1:5060".parse().expect("a literal");
        let transport = if flow.is_some() { Transport::Tcp } else { Transport::Udp };
        Arrival { listener: ListenerId(0), transport, peer, flow, trunk: None, registrar: false, device: false }
    }

    fn command() -> Command {
        Command::Stories { call: None, most: 1 }
    }

    #[tokio::test]
    async fn a_full_shard_sheds_datagrams_and_commands_and_makes_streams_wait() {
        let (router, mut inbox) = narrow();
        assert_eq!(router.deliver(message(), arrival(None)).await, Some(SHARD));
        assert_eq!(router.deliver(message(), arrival(None)).await, None);
        assert!(matches!(router.ask(SHARD, command()).await, Answer::Refused(Refusal::Busy { .. })));
        assert_eq!(router.shed(), 2);

        let flow = FlowId(7);
        let stream = async {
            assert_eq!(router.deliver(message(), arrival(Some(flow))).await, Some(SHARD));
            router.flow_closed(flow, SHARD).await;
        };
        let shard = async {
            assert!(matches!(inbox.traffic.recv().await, Some(Input::Sip(_, arrival)) if arrival.flow.is_none()));
            assert!(matches!(inbox.traffic.recv().await, Some(Input::Sip(_, arrival)) if arrival.flow == Some(flow)));
            assert!(matches!(inbox.traffic.recv().await, Some(Input::FlowClosed(closed)) if closed == flow));
        };
        tokio::join!(stream, shard);
        assert_eq!(router.shed(), 2, "a stream loses nothing");
    }

    #[tokio::test]
    async fn a_malformed_request_goes_up_as_one_and_is_shed_by_a_full_shard() {
        let (router, mut inbox) = narrow();
        let malformed = || Malformed { request: message(), code: StatusCode::BAD_REQUEST, paid: 1 };
        router.deliver_malformed(malformed(), arrival(None));
        router.deliver_malformed(malformed(), arrival(None));
        assert_eq!(router.shed(), 1);
        assert!(matches!(inbox.traffic.recv().await, Some(Input::Malformed(malformed, _)) if malformed.paid == 1));
    }

    #[tokio::test]
    async fn a_command_gets_the_answer_of_its_shard() {
        let (router, mut inbox) = narrow();
        let replies = router.replies();
        let shard = async {
            if let Some(Input::Command(Command::Stories { .. }, to)) = inbox.traffic.recv().await {
                replies.answer(to, Answer::Stories(Vec::new()));
            }
        };
        let (answer, ()) = tokio::join!(router.ask(SHARD, command()), shard);
        assert!(matches!(answer, Answer::Stories(_)));
        assert!(matches!(router.ask(ShardId(1), command()).await, Answer::Refused(Refusal::NotFound)));
    }

    #[tokio::test]
    async fn every_shard_hears_of_a_drain_even_behind_full_traffic() {
        let (router, mut inboxes) = Router::new(Placement::new(3, [1, 2]), &Limits::default());
        router.drain().await;
        for inbox in &mut inboxes {
            assert!(matches!(inbox.answers.try_recv(), Ok(Input::Drain)));
        }
    }
}
