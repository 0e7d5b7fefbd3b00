//! Starting what the configuration asks for.

use std::net::SocketAddr;

use plimsoll_shell::supervise::Supervisor;
use tokio::sync::mpsc;

use super::{
    batch::ExactReading,
    board::{ExactBoard, SourceKey, SourceKind},
    fpm::{self, Subscription},
    otlp::{self, Listener},
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
    /// Where spans are received.
    pub otlp: Option<SocketAddr>,
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
        for (stream, address) in endpoint.exact.forward_pass_metrics.iter().enumerate() {
            let report = board.enter(key(SourceKind::ForwardPass, address.to_string()));
            let (address, tx, cancel) = (address.clone(), tx.clone(), supervisor.cancel().clone());
            let subscription = Subscription { engine, stream, address, report, tx };
            supervisor.spawn("forward passes", async move {
                fpm::run(subscription, cancel).await;
                Ok(())
            });
        }
    }
    let mut otlp = None;
    if let Some(receiver) = &config.otlp {
        let listener = Listener::bind(receiver, &config.endpoints, &board, tx).await?;
        otlp = Some(listener.address);
        supervisor.spawn("otlp", otlp::serve(listener, supervisor.cancel().clone()));
    }
    Ok(ExactFeeds { readings, board, otlp })
}
