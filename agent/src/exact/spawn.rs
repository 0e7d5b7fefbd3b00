//! Starting what the configuration asks for.

use plimsoll_shell::supervise::Supervisor;
use tokio::sync::mpsc;

use super::{
    batch::ExactReading,
    board::{ExactBoard, SourceKey, SourceKind},
    tail,
};
use crate::config::Config;

/// How many readings may wait for the window. Files and streams wait when it is full, spans are dropped and counted.
const READINGS: usize = 256;

/// What running sources feed.
#[derive(Debug)]
pub struct ExactFeeds {
    /// What they tell.
    pub readings: mpsc::Receiver<ExactReading>,
    /// How they are.
    pub board: ExactBoard,
}

/// Starts the exact sources of all endpoints.
///
/// # Errors
/// When the address for spans can't be bound.
pub async fn spawn(config: &Config, supervisor: &mut Supervisor) -> anyhow::Result<ExactFeeds> {
    let (tx, readings) = mpsc::channel(READINGS);
    let board = ExactBoard::default();
    for (engine, endpoint) in config.endpoints.iter().enumerate() {
        let key = |kind, place: String| SourceKey { engine: Some(endpoint.id.clone()), kind, place };
        if let Some(dir) = endpoint.exact.request_metrics_dir.clone() {
            let report = board.enter(key(SourceKind::RequestLog, dir.display().to_string()));
            let (tx, cancel) = (tx.clone(), supervisor.cancel().clone());
            supervisor.spawn("request log", async move {
                tail::run(engine, dir, report, tx, cancel.clone()).await;
                // A source that ended by itself says so on its row; the agent goes on without it.
                cancel.cancelled().await;
                Ok(())
            });
        }
    }
    Ok(ExactFeeds { readings, board })
}
