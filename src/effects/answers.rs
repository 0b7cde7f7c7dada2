//! The answers inboxes of all shards, seen from those who answer.
//!
//! Apart from traffic because an answer must never be shed: whoever is going to answer holds a place from the start.
//! Refuses to wait, except for those who have nothing else to do.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender};

use crate::engine::ids::ShardId;
use crate::engine::input::Input;

/// The way into the answers inbox of every shard, by number.
#[derive(Clone)]
pub(crate) struct Answers(Arc<[Sender<Input>]>);

/// A reserved place. Dropped without an answer (a lost task, a forgotten callback) it answers by itself, where there is
/// a refusal to answer with.
pub(crate) struct Slot {
    permit: Option<OwnedPermit<Input>>,
    refusal: Option<Input>,
}

impl Answers {
    pub(crate) fn new(inboxes: Vec<Sender<Input>>) -> Self {
        Self(inboxes.into())
    }

    /// Reserves a place for an answer; `None` if there is none.
    pub(crate) fn reserve(&self, shard: ShardId) -> Option<Slot> {
        let permit = self.inbox(shard)?.clone().try_reserve_owned().ok()?;
        Some(Slot { permit: Some(permit), refusal: None })
    }

    /// Tells now, or gives the input back where the inbox is full. A shard that is gone takes everything.
    pub(crate) fn try_tell(&self, shard: ShardId, input: Input) -> Option<Input> {
        match self.inbox(shard)?.try_send(input) {
            Ok(()) | Err(TrySendError::Closed(_)) => None,
            Err(TrySendError::Full(input)) => Some(input),
        }
    }

    /// Tells, waiting for room.
    pub(crate) async fn tell(&self, shard: ShardId, input: Input) {
        if let Some(inbox) = self.inbox(shard) {
            // A shard that is gone has nobody left to tell.
            let _ = inbox.send(input).await;
        }
    }

    fn inbox(&self, shard: ShardId) -> Option<&Sender<Input>> {
        self.0.get(usize::from(shard.0))
    }
}

impl Slot {
    /// Answers `refusal` if it is dropped without an answer.
    pub(crate) fn or(mut self, refusal: Input) -> Self {
        self.refusal = Some(refusal);
        self
    }

    /// Answers.
    pub(crate) fn fill(mut self, input: Input) {
        self.refusal = None;
        if let Some(permit) = self.permit.take() {
            permit.send(input);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let (Some(permit), Some(refusal)) = (self.permit.take(), self.refusal.take()) {
            permit.send(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::ids::{FlowId, WakeId};
    use crate::engine::output::PushOutcome;

    const SHARD: ShardId = ShardId(0);

    fn refusal(number: u64) -> Input {
        Input::Pushed(WakeId(number), PushOutcome::NotSent)
    }

    #[test]
    fn a_reserved_place_holds_against_everyone_and_answers_even_when_forgotten() {
        let (sender, mut inbox) = mpsc::channel(2);
        let answers = Answers::new(vec![sender]);
        let kept = answers.reserve(SHARD).expect("room").or(refusal(1));
        let forgotten = answers.reserve(SHARD).expect("room").or(refusal(2));
        assert!(answers.reserve(SHARD).is_none());
        assert!(answers.try_tell(SHARD, Input::FlowClosed(FlowId(1))).is_some());

        drop(forgotten);
        kept.fill(Input::Pushed(WakeId(1), PushOutcome::Accepted));
        assert!(matches!(inbox.try_recv(), Ok(Input::Pushed(WakeId(2), PushOutcome::NotSent))));
        assert!(matches!(inbox.try_recv(), Ok(Input::Pushed(WakeId(1), PushOutcome::Accepted))));
        assert!(inbox.try_recv().is_err(), "one answer each");
    }

    #[test]
    fn a_place_without_a_refusal_is_given_back_silently() {
        let (sender, mut inbox) = mpsc::channel(1);
        let answers = Answers::new(vec![sender]);
        drop(answers.reserve(SHARD).expect("room"));
        assert!(answers.reserve(SHARD).is_some());
        assert!(inbox.try_recv().is_err());
    }
}
