//! Tasks that end with the engine.

use tokio::task::JoinHandle;

use crate::fault::{Fault, Result};

/// A task that ends when this is dropped.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(task: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// What it ended with.
    pub(super) async fn result(&mut self) -> Result<T> {
        (&mut self.0).await.map_err(|error| Fault::bug(format!("a task has ended: {error}")))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Task<Fault> {
    /// The fault that it ended with.
    pub(super) async fn fault(&mut self) -> Fault {
        self.result().await.unwrap_or_else(|fault| fault)
    }
}
