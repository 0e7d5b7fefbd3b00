//! One set of tasks: the first that ends unasked takes all down in order.

use std::{future::Future, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Runs a daemon's tasks. Each is needed for as long as the daemon runs: a task that ends before the shutdown, with
/// or without an error, begins the shutdown.
#[derive(Debug)]
pub struct Supervisor {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    cancel: CancellationToken,
}

impl Supervisor {
    /// Supervises until `cancel` is cancelled.
    #[must_use]
    pub fn new(cancel: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), cancel }
    }

    /// The token that tells tasks to drain and end.
    #[must_use]
    pub const fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Adds a task.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Runs until shutdown, then gives the tasks `drain` to end and aborts those that don't.
    ///
    /// # Errors
    /// When a task failed or ended unasked, or did not end in time.
    pub async fn run(mut self, drain: Duration) -> anyhow::Result<()> {
        // Biased: a task that ends because of the shutdown must not be taken for one that ended unasked.
        let first = tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            ended = self.tasks.join_next() => ended.map(|ended| outcome(ended, false)),
        };
        self.cancel.cancel();
        let drained = timeout(drain, async {
            let mut result = Ok(());
            while let Some(ended) = self.tasks.join_next().await {
                let ended = outcome(ended, true);
                result = result.and(ended);
            }
            result
        })
        .await;
        let rest = drained.unwrap_or_else(|_| {
            Err(anyhow::anyhow!("{} task(s) did not end within {drain:?} and were aborted", self.tasks.len()))
        });
        first.unwrap_or(Ok(())).and(rest)
    }
}

fn outcome(
    ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>,
    asked: bool,
) -> anyhow::Result<()> {
    let (name, result) = ended.map_err(|error| anyhow::anyhow!("a task broke: {error}"))?;
    match result {
        Ok(()) if asked => Ok(()),
        Ok(()) => Err(anyhow::anyhow!("task '{name}' ended although nobody asked it to")),
        Err(error) => Err(error.context(format!("task '{name}' failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_unasked_takes_the_others_down_in_order() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let cancel = supervisor.cancel().clone();
        supervisor.spawn("steady", async move {
            cancel.cancelled().await;
            Ok(())
        });
        supervisor.spawn("hasty", async { Ok(()) });
        let error = supervisor.run(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("'hasty'"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_at_the_shutdown_was_asked_to() {
        for _ in 0..50 {
            let mut supervisor = Supervisor::new(CancellationToken::new());
            let cancel = supervisor.cancel().clone();
            supervisor.spawn("obedient", async move {
                cancel.cancelled().await;
                Ok(())
            });
            supervisor.cancel().cancel();
            tokio::task::yield_now().await;
            supervisor.run(Duration::from_secs(5)).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_aborted_at_the_deadline() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.spawn("stuck", std::future::pending());
        supervisor.cancel().cancel();
        let error = supervisor.run(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("did not end within 5s"), "{error}");
    }
}
