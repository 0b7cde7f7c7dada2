//! Tasks with an owner: they are reaped as new ones come, reported when they panic, and end with their owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::{JoinError, JoinSet};

use crate::vault::scrubbed_task;

/// Tasks that belong to one connection, or to the whole API. Whoever adds them keeps their number bounded.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Runs one more. A secret may go through its hands: the stack it ran on is overwritten.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock();
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        tasks.spawn(scrubbed_task(task));
    }

    /// Waits for all that run now.
    pub(crate) async fn finish(&self) {
        let mut tasks = std::mem::take(&mut *self.lock());
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.run(task);
    }
}

/// A panic is a bug of ours and ends its own task alone.
pub(crate) fn report(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a task of the API panicked");
    }
}
