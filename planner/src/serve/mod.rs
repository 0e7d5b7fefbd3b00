//! What is served over HTTP: a JSON API, a Prometheus page and a page for people, all from one snapshot.
//!
//! Handlers never touch the fleet: they put bounded questions to the driver. Whatever
//! takes time in proportion to the fleet is written on the blocking pool, so that probes and agents do not wait.

mod advice;
mod api;
mod journaled;
mod metrics;
mod own;
mod page;

use std::sync::{Arc, LazyLock, Mutex};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use plimsoll_core::fleet::Detail;
use plimsoll_shell::http::{ApiError, Refusals, no_such_page, prometheus};
use tokio::sync::{mpsc, oneshot, watch};

pub use own::OwnCost;

use crate::{
    advise::Advice,
    clock::Clock,
    drive::{Published, Question},
    ingest::IngestStats,
    journal,
};

/// All paths, for people who took a wrong one.
pub const PATHS: &[&str] = &[
    "/",
    "/api/v1/fleet",
    "/api/v1/plan",
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
    questions: mpsc::Sender<Question>,
    stats: Arc<IngestStats>,
    clock: Clock,
    own: Arc<Mutex<own::OwnSampler>>,
    refusals: Arc<Refusals>,
    advice: Option<watch::Receiver<Arc<Advice>>>,
    journal: Option<Arc<journal::Stats>>,
}

impl Pages {
    /// Pages of what is published.
    #[must_use]
    pub fn new(
        questions: mpsc::Sender<Question>,
        stats: Arc<IngestStats>,
        clock: Clock,
        refusals: Arc<Refusals>,
    ) -> Self {
        let own = Arc::new(Mutex::new(own::OwnSampler::new()));
        Self { questions, stats, clock, own, refusals, advice: None, journal: None }
    }

    /// The same with what is advised, where there is a policy.
    #[must_use]
    pub fn with_advice(self, advice: Option<watch::Receiver<Arc<Advice>>>) -> Self {
        Self { advice, ..self }
    }

    /// The same with what became of the journal, where one is kept.
    #[must_use]
    pub fn with_journal(self, journal: Option<Arc<journal::Stats>>) -> Self {
        Self { journal, ..self }
    }

    /// What is seen now, ready to be looked at.
    async fn shown(&self, detail: Detail) -> Result<Arc<Published>, ApiError> {
        let shown = self.ask(|reply| Question::Show { detail, reply }).await?;
        off_the_loop(move || {
            // The first look does the rest of the work.
            LazyLock::force(&shown.snapshot);
            shown
        })
        .await
    }

    /// Puts a question to the driver and waits for its answer.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let going_away = || ApiError {
            status: axum::http::StatusCode::SERVICE_UNAVAILABLE,
            error: "the planner is going away".to_owned(),
            hint: "ask again in a moment".to_owned(),
        };
        self.questions.send(question(reply)).await.map_err(|_| going_away())?;
        answer.await.map_err(|_| going_away())
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
    let shown = pages.shown(Detail::Rows).await?;
    let page =
        off_the_loop(move || page::render(&shown, pages.advice().as_deref(), pages.clock.uptime())).await?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response())
}

async fn metrics_page(State(pages): State<Pages>) -> Result<Response, ApiError> {
    let shown = pages.shown(Detail::Sums).await?;
    let page = off_the_loop(move || {
        let own = pages.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner).sample();
        let refusals = &pages.refusals;
        let advice = pages.advice();
        let journal = pages.journal.as_ref().map(|stats| stats.totals());
        metrics::render(&shown, &pages.stats, refusals, own, pages.clock.uptime(), advice.as_deref(), journal)
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
