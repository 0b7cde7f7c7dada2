//! Tasks with an owner: whoever holds a [`Crew`] owns its tasks, and they end with it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// A set of running tasks that is dropped, and with it its tasks, when its owner is.
pub(crate) struct Crew {
    tasks: Mutex<JoinSet<()>>,
    runtime: Handle,
}

impl Crew {
    /// An empty crew.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new() -> Self {
        Self { tasks: Mutex::new(JoinSet::new()), runtime: Handle::current() }
    }

    /// Runs `task` until it ends or the crew does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // What has ended is let go here, so that the set never holds more than what runs.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
    }

    /// Ends all tasks and waits until they are gone.
    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

/// Lets hyper spawn the tasks of a connection into the crew that owns it. Weak, because those tasks keep a copy.
#[derive(Clone)]
pub(crate) struct CrewExecutor(Weak<Crew>);

impl CrewExecutor {
    pub(crate) fn new(crew: &Arc<Crew>) -> Self {
        Self(Arc::downgrade(crew))
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for CrewExecutor {
    fn execute(&self, task: F) {
        if let Some(crew) = self.0.upgrade() {
            crew.spawn(task);
        }
    }
}
