//! The agent's pages: JSON for programs, `/metrics` for Prometheus, `/` for people.

mod engines;
mod gpus;
mod json;
mod metrics;
mod status;

use std::sync::{Arc, PoisonError};

use axum::{Router, extract::State, response::Html, routing::get};
use plimsoll_common::ids::{AgentEpoch, BootId, NodeName};
use plimsoll_shell::http::{self, ApiError};
use tokio::{sync::watch, time::Instant};

use crate::{
    config::Config, gpu::GpuSnapshot, own::OwnCost, reporter::SharedWindow, uplink::Uplink,
    window::EngineView,
};

const PATHS: &[&str] =
    &["/", "/metrics", "/v1/gpus", "/v1/gpus/{uuid}", "/v1/engines", "/status", "/healthz", "/readyz"];

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
    window: SharedWindow,
    gpus: watch::Receiver<Arc<GpuSnapshot>>,
    uplink: Option<Uplink>,
    costs: watch::Receiver<OwnCost>,
}

impl Pages {
    /// Pages over the running parts of an agent.
    #[must_use]
    pub fn new(
        config: &Config,
        boot: BootId,
        epoch: AgentEpoch,
        window: SharedWindow,
        gpus: watch::Receiver<Arc<GpuSnapshot>>,
        uplink: Option<Uplink>,
        costs: watch::Receiver<OwnCost>,
    ) -> Self {
        Self(Arc::new(Sources {
            node: config.node.clone(),
            boot,
            epoch,
            planner: config.planner.as_ref().map(|planner| planner.address.clone()),
            report_interval: config.report_interval,
            started: Instant::now(),
            window,
            gpus,
            uplink,
            costs,
        }))
    }

    fn gpus(&self, now: Instant) -> Arc<GpuSnapshot> {
        Arc::clone(&self.0.gpus.borrow()).as_of(now)
    }

    fn engines(&self) -> Vec<EngineView> {
        self.0.window.lock().unwrap_or_else(PoisonError::into_inner).views()
    }
}

/// All routes but the probes.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(async |State(pages): State<Pages>| http::prometheus(metrics::page(&pages))))
        .route("/v1/gpus", get(gpus::list))
        .route("/v1/gpus/{uuid}", get(gpus::one))
        .route("/v1/engines", get(engines::list))
        .route("/status", get(status::status))
        .fallback(no_such_page)
        .with_state(pages)
}

async fn no_such_page() -> ApiError {
    http::no_such_page(PATHS)
}

async fn index(State(pages): State<Pages>) -> Html<String> {
    let links: String = PATHS
        .iter()
        .filter(|path| !path.contains('{') && **path != "/")
        .map(|path| format!("<li><a href=\"{path}\">{path}</a></li>"))
        .collect();
    let gpus = pages.gpus(Instant::now());
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Plimsoll agent</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}}</style>\
         <h1>Plimsoll agent</h1><p>Node <b>{}</b>: {} GPUs, {} engines.</p><ul>{links}</ul></html>",
        escape(pages.0.node.as_str()),
        gpus.gpus.len(),
        pages.engines().len(),
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests;
