//! Carrying out what an engine decided: one `match` over its outputs.
//!
//! Nothing in here waits. An effect that is answered later reserves its place in the answers inbox first; where there is
//! none, the shard gets the refusal at once as its next input, so that the engine never waits for an answer that cannot
//! come. Refuses to decide, to retry and to know what an output means.

mod answers;
mod replies;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) use answers::Answers;
pub(crate) use replies::Replies;

use crate::engine::account::TrunkUri;
use crate::engine::ids::{QueryId, ShardId};
use crate::engine::input::{Input, LocateFault, PeerMessage, Recorded};
use crate::engine::output::{Note, Output, PushJob, PushOutcome, RecordJob};
use crate::net::{self, Unsent};

/// Takes the outcome of a push. Dropped uncalled, it counts as not sent.
pub type PushDone = Box<dyn FnOnce(PushOutcome) + Send>;
/// Takes the receipt of an erasure.
pub type RecordDone = Box<dyn FnOnce(Recorded) + Send>;

/// Where effects go that are not SIP. Each is called from a shard's loop and must not wait.
pub struct Sinks {
    /// Sends a push, and calls back once.
    pub push: Box<dyn Fn(Box<PushJob>, PushDone) + Send + Sync>,
    /// Appends a record; calls back once where a receipt is wanted.
    pub record: Box<dyn Fn(Box<RecordJob>, Option<RecordDone>) + Send + Sync>,
    /// Tells the operator.
    pub note: Box<dyn Fn(ShardId, Note) + Send + Sync>,
}

/// The effects of one shard.
pub(crate) struct Effects {
    shard: ShardId,
    net: net::Handle,
    answers: Answers,
    replies: Arc<Replies>,
    sinks: Arc<Sinks>,
    /// Erasures' records that found no place for their receipt. An instance is erased once, so `limits.instances` bounds
    /// it; none may be dropped.
    held_records: VecDeque<Box<RecordJob>>,
    /// Words to shards whose inbox is full. A binding has at most one permit and one
    /// name under way, so `limits.instances` bounds it.
    held_words: VecDeque<(ShardId, PeerMessage)>,
    is_drained: bool,
}

impl Effects {
    pub(crate) fn new(
        shard: ShardId,
        net: net::Handle,
        answers: Answers,
        replies: Arc<Replies>,
        sinks: Arc<Sinks>,
    ) -> Self {
        Self {
            shard,
            net,
            answers,
            replies,
            sinks,
            held_records: VecDeque::new(),
            held_words: VecDeque::new(),
            is_drained: false,
        }
    }

    /// Carries out one output; `bytes` is what the engine has appended to. What it returns is the engine's next input.
    pub(crate) fn run(&mut self, output: Output, bytes: &[u8]) -> Option<Input> {
        match output {
            Output::Send(hop, range) => {
                match self.net.send(&hop, bytes.get(range.clone()).unwrap_or_default(), self.shard) {
                    Ok(()) => None,
                    Err(Unsent::Flow(flow)) => Some(Input::FlowClosed(flow)),
                    Err(Unsent::TooLarge) => net::unsent_response(bytes.get(range)?).map(Input::Unsent),
                    Err(Unsent::Trunk(key, fault)) => Some(Input::TrunkDown(key, fault)),
                }
            }
            Output::Reply(to, answer) => {
                self.replies.answer(to, *answer);
                None
            }
            Output::Locate(query, uri) => self.locate(query, uri),
            Output::Push(job) => self.push(job),
            Output::Record(job) => {
                self.record(job);
                None
            }
            Output::Peer(shard, message) => self.tell(shard, message),
            Output::CloseFlow(flow) => {
                self.net.close_flow(flow);
                None
            }
            Output::Registrar(address, span) => {
                self.net.remember_registrar(address, span);
                None
            }
            Output::Device(peer, span) => {
                self.net.remember_device(peer, span);
                None
            }
            Output::Note(note) => {
                (self.sinks.note)(self.shard, note);
                None
            }
            Output::Drained => {
                self.is_drained = true;
                None
            }
        }
    }

    /// Whether something found a full inbox and is to be tried again.
    pub(crate) fn holds_back(&self) -> bool {
        !self.held_words.is_empty() || !self.held_records.is_empty()
    }

    /// Tries again what found a full inbox.
    pub(crate) fn retry(&mut self) {
        for _ in 0..self.held_words.len() {
            let Some((shard, message)) = self.held_words.pop_front() else { break };
            self.say(shard, message);
        }
        for _ in 0..self.held_records.len() {
            let Some(job) = self.held_records.pop_front() else { break };
            self.record(job);
        }
    }

    /// Whether the engine said that everything is erased; says so once.
    pub(crate) fn take_drained(&mut self) -> bool {
        std::mem::take(&mut self.is_drained)
    }

    fn locate(&self, query: QueryId, uri: TrunkUri) -> Option<Input> {
        let refusal = Input::Located(query, Err(LocateFault::Unanswered));
        let Some(slot) = self.answers.reserve(self.shard) else { return Some(refusal) };
        let slot = slot.or(refusal);
        self.net.locate(uri, Box::new(move |found| slot.fill(Input::Located(query, found))));
        None
    }

    fn push(&self, job: Box<PushJob>) -> Option<Input> {
        let wake = job.wake;
        let refusal = Input::Pushed(wake, PushOutcome::NotSent);
        let Some(slot) = self.answers.reserve(self.shard) else { return Some(refusal) };
        let slot = slot.or(refusal);
        (self.sinks.push)(job, Box::new(move |outcome| slot.fill(Input::Pushed(wake, outcome))));
        None
    }

    fn record(&mut self, job: Box<RecordJob>) {
        let Some(id) = job.receipt.as_ref().map(|receipt| receipt.id) else {
            return (self.sinks.record)(job, None);
        };
        match self.answers.reserve(self.shard) {
            Some(slot) => {
                let done: RecordDone = Box::new(move |recorded| slot.fill(Input::Recorded(id, recorded)));
                (self.sinks.record)(job, Some(done));
            }
            None => self.held_records.push_back(job),
        }
    }

    fn tell(&mut self, shard: ShardId, message: PeerMessage) -> Option<Input> {
        if shard == self.shard {
            return Some(Input::Peer(shard, message));
        }
        if let PeerMessage::Called { .. } | PeerMessage::Nameless(_) = message {
            // Traffic: it is shed when the shard is full, and who needs an answer asks again.
            let _ = self.answers.try_tell(shard, Input::Peer(self.shard, message));
            return None;
        }
        // Words to one shard stay in order.
        if self.held_words.iter().any(|(held, _)| *held == shard) {
            self.held_words.push_back((shard, message));
        } else {
            self.say(shard, message);
        }
        None
    }

    fn say(&mut self, shard: ShardId, message: PeerMessage) {
        if let Some(Input::Peer(_, message)) = self.answers.try_tell(shard, Input::Peer(self.shard, message)) {
            self.held_words.push_back((shard, message));
        }
    }
}
