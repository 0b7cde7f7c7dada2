//! Commands that wait for their answer.
//!
//! Its own room because the asker and the shard that answers never meet: the one leaves a place, the other fills it. A
//! place goes with its asker, so one who hangs up leaves nothing behind. Refuses more askers than it has places.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::oneshot;

use crate::engine::ids::ReplyTo;
use crate::engine::output::Answer;

/// Commands under way at once; above it a command is answered with `Refusal::Busy`. Far above what `api_connections`
/// lets in, so only a shard that hangs fills it.
const COMMANDS_MAX: usize = 65_536;

/// The places.
#[derive(Default)]
pub(crate) struct Replies {
    next: AtomicU64,
    waiting: DashMap<ReplyTo, oneshot::Sender<Answer>, ahash::RandomState>,
}

/// An asker's place; empties it when dropped.
pub(crate) struct Place {
    replies: Arc<Replies>,
    id: ReplyTo,
    answer: oneshot::Receiver<Answer>,
}

impl Replies {
    /// Takes a place; `None` if there is none.
    pub(crate) fn place(self: &Arc<Self>) -> Option<Place> {
        if self.waiting.len() >= COMMANDS_MAX {
            return None;
        }
        let id = ReplyTo(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.waiting.insert(id, sender);
        Some(Place { replies: Arc::clone(self), id, answer })
    }

    /// Answers, if the asker is still there.
    pub(crate) fn answer(&self, to: ReplyTo, answer: Answer) {
        if let Some((_, asker)) = self.waiting.remove(&to) {
            // Gone since: as if it had gone before.
            let _ = asker.send(answer);
        }
    }
}

impl Place {
    pub(crate) fn id(&self) -> ReplyTo {
        self.id
    }

    /// Waits for the answer; `None` if the shard that owed it is gone.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.replies.waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::output::Refusal;

    #[tokio::test]
    async fn an_answer_reaches_its_asker_and_an_asker_who_left_is_no_trouble() {
        let replies = Arc::new(Replies::default());
        let mut stays = replies.place().expect("a place");
        let leaves = replies.place().expect("a place");
        let left = leaves.id();
        drop(leaves);

        replies.answer(left, Answer::Refused(Refusal::NotFound));
        replies.answer(stays.id(), Answer::Stories(Vec::new()));
        assert!(matches!(stays.answer().await, Some(Answer::Stories(_))));
        assert!(replies.waiting.is_empty());
    }
}
