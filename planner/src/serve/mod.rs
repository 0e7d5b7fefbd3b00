//! What is served over HTTP: a JSON API, a Prometheus page and a page for people, all from the last snapshot.
//!
//! Handlers never touch the fleet: they read what was published, or put a bounded question to the driver. Whatever
//! takes time in proportion to the fleet is written on the blocking pool, so that probes and agents do not wait.

mod api;
mod metrics;
mod own;
mod page;

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use plimsoll_shell::http::{ApiError, Refusals, no_such_page, prometheus};
use tokio::sync::{mpsc, watch};

pub use own::OwnCost;

use crate::{
    clock::Clock,
    drive::{Published, Question},
    ingest::IngestStats,
};

/// All paths, for people who took a wrong one.
pub const PATHS: &[&str] = &[
    "/",
    "/api/v1/fleet",
    "/api/v1/nodes",
    "/api/v1/agents",
    "/api/v1/gpus",
    "/api/v1/gpus/{uuid}",
    "/api/v1/engines",
    "/api/v1/engines/{node}/{id}",
    "/api/v1/pools",
    "/api/v1/models",
    "/api/v1/models/{model}",
    "/api/v1/models/{model}/histograms/{distribution}",
    "/metrics",
    "/healthz",
    "/readyz",
];

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Pages {
    published: watch::Receiver<Arc<Published>>,
    questions: mpsc::Sender<Question>,
    stats: Arc<IngestStats>,
    clock: Clock,
    own: Arc<Mutex<own::OwnSampler>>,
    refusals: Arc<Refusals>,
}

impl Pages {
    /// Pages of what is published.
    #[must_use]
    pub fn new(
        published: watch::Receiver<Arc<Published>>,
        questions: mpsc::Sender<Question>,
        stats: Arc<IngestStats>,
        clock: Clock,
        refusals: Arc<Refusals>,
    ) -> Self {
        let own = Arc::new(Mutex::new(own::OwnSampler::new()));
        Self { published, questions, stats, clock, own, refusals }
    }

    fn now_shown(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }
}

/// All pages but the probes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_page))
        .nest("/api/v1", api::router())
        .fallback(|| async { no_such_page(PATHS) })
        .with_state(pages)
}

async fn index(State(pages): State<Pages>) -> Result<Response, ApiError> {
    let page = off_the_loop(move || page::render(&pages.now_shown(), pages.clock.uptime())).await?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response())
}

async fn metrics_page(State(pages): State<Pages>) -> Result<Response, ApiError> {
    let page = off_the_loop(move || {
        let own = pages.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner).sample();
        metrics::render(&pages.now_shown(), &pages.stats, &pages.refusals, own, pages.clock.uptime())
    });
    Ok(prometheus(page.await?))
}

/// Runs what takes long on the blocking pool.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError {
        status: axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        error: format!("the page can't be written: {error}"),
        hint: "look at the planner's log".to_owned(),
    })
}
