//! The agent's pages: JSON for programs, `/metrics` for Prometheus, `/` for people.

mod engine_state;
mod engines;
mod exact;
mod gpu_json;
mod gpus;
mod json;
mod metrics;
mod page;
mod pods;
mod release;
mod status;
mod stream;
mod topology;

use std::sync::{Arc, PoisonError};

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use plimsoll_common::ids::{AgentEpoch, BootId, NodeName};
use plimsoll_shell::http::{self, ApiError, Refusals};
use tokio::{sync::watch, time::Instant};

use crate::{
    attribution::Attribution,
    config::Config,
    exact::ExactBoard,
    gpu::{GpuControl, GpuSnapshot},
    own::OwnCost,
    reporter::SharedWindow,
    topology::Topology,
    uplink::Uplink,
    window::EngineView,
};

use self::stream::Hub;
pub use self::stream::run as run_stream;

const PATHS: &[&str] = &[
    "/",
    "/metrics",
    "/v1/gpus",
    "/v1/gpus/{uuid}",
    "/v1/topology",
    "/v1/stream",
    "/v1/gpu-source/release",
    "/v1/gpu-source/resume",
    "/v1/engines",
    "/status",
    "/healthz",
    "/readyz",
];

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages(Arc<Sources>);

#[derive(Debug)]
struct Sources {
    node: NodeName,
    boot: BootId,
    epoch: AgentEpoch,
    planner: Option<String>,
    report_interval: std::time::Duration,
    started: Instant,
    feeds: Feeds,
    hub: Hub,
    dcgm_names: bool,
}

/// The running parts of an agent that the pages look at.
#[derive(Debug)]
pub struct Feeds {
    /// The window, for the engines and how the GPUs are connected.
    pub window: SharedWindow,
    /// What the GPU source saw.
    pub gpus: watch::Receiver<Arc<GpuSnapshot>>,
    /// Gives the driver free and takes it back.
    pub control: GpuControl,
    /// The way to the planner, where there is one.
    pub uplink: Option<Uplink>,
    /// What the agent costs.
    pub costs: watch::Receiver<OwnCost>,
    /// Whose the GPUs are.
    pub attribution: watch::Receiver<Arc<Attribution>>,
    /// How the exact sources are.
    pub exact: ExactBoard,
    /// Whom the pages' server refused.
    pub refusals: Arc<Refusals>,
}

impl Pages {
    /// Pages over the running parts of an agent.
    #[must_use]
    pub fn new(config: &Config, boot: BootId, epoch: AgentEpoch, feeds: Feeds) -> Self {
        Self(Arc::new(Sources {
            node: config.node.clone(),
            boot,
            epoch,
            planner: config.planner.as_ref().map(|planner| planner.address.clone()),
            report_interval: config.report_interval,
            started: Instant::now(),
            feeds,
            hub: Hub::default(),
            dcgm_names: config.dcgm_names,
        }))
    }

    fn gpus(&self, now: Instant) -> Arc<GpuSnapshot> {
        Arc::clone(&self.0.feeds.gpus.borrow()).as_of(now)
    }

    fn topology(&self) -> Arc<Topology> {
        self.0.feeds.window.lock().unwrap_or_else(PoisonError::into_inner).topology()
    }

    fn attribution(&self) -> Arc<Attribution> {
        Arc::clone(&self.0.feeds.attribution.borrow())
    }

    fn engines(&self, now: Instant) -> Vec<EngineView> {
        self.0.feeds.window.lock().unwrap_or_else(PoisonError::into_inner).views(now)
    }
}

/// All routes but the probes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/metrics", get(async |State(pages): State<Pages>| http::prometheus(metrics::page(&pages))))
        .route("/v1/gpus", get(gpus::list))
        .route("/v1/gpus/{uuid}", get(gpus::one))
        .route("/v1/topology", get(topology::topology))
        .route("/v1/gpu-source/release", post(release::release))
        .route("/v1/gpu-source/resume", post(release::resume))
        .route("/v1/stream", get(stream::stream))
        .route("/v1/engines", get(engines::list))
        .route("/status", get(status::status))
        .fallback(no_such_page)
        .method_not_allowed_fallback(release::wrong_method)
        .with_state(pages)
}

async fn no_such_page() -> ApiError {
    http::no_such_page(PATHS)
}

#[cfg(test)]
mod tests;
