//! The pages through their router, without a socket.

mod fixture;
mod gpus;
mod metrics;
mod pods;
mod release;
mod stream;

use std::sync::Mutex;

use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use plimsoll_common::wire::{AgentCost, HostInfo, SourceState};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::{config::Settings, gpu::GpuOptions, window::Window};

/// What the pages are made from, and the ends of the channels that feed them.
struct Agent {
    pages: Pages,
    snapshots: watch::Sender<Arc<GpuSnapshot>>,
    attribution: watch::Sender<Arc<Attribution>>,
}

impl Agent {
    fn new(snapshot: GpuSnapshot) -> Self {
        Self::with(snapshot, |_| ())
    }

    fn with(snapshot: GpuSnapshot, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { node_name: Some("node<1>".to_owned()), ..Settings::default() };
        settings.engine = vec!["http://127.0.0.1:1".to_owned()];
        change(&mut settings);
        let config = Config::load(&settings).unwrap();
        let now = Instant::now();
        let mut window = Window::new(&config.endpoints, HostInfo::default(), now, 0);
        window.close(now, 0, &snapshot, AgentCost::default());
        let (snapshots, gpus) = watch::channel(Arc::new(snapshot));
        let (_, costs) = watch::channel(OwnCost::default());
        let boot = BootId::parse("boot").unwrap();
        let window = Arc::new(Mutex::new(window));
        let (attribution, attributed) = watch::channel(Arc::default());
        let off = GpuOptions { enabled: false, ..GpuOptions::default() };
        let control = crate::gpu::spawn(off).control();
        let exact = ExactBoard::default();
        let refusals = Arc::default();
        let feeds =
            Feeds { window, gpus, control, uplink: None, costs, attribution: attributed, exact, refusals };
        Self { pages: Pages::new(&config, boot, AgentEpoch(1), feeds), snapshots, attribution }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn ask(&self, request: Request<Body>) -> (u16, String) {
        let response = router(self.pages.clone()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn no_gpu() -> GpuSnapshot {
    let why = "no NVIDIA driver".to_owned();
    GpuSnapshot::empty(Instant::now(), SourceState::Unsupported, Some(why))
}

#[tokio::test]
async fn an_engine_that_was_never_read_has_no_numbers() {
    let (_, engines) = Agent::new(no_gpu()).json("/v1/engines").await;
    let engine = &engines["engines"][0];
    assert_eq!((&engine["id"], &engine["state"]), (&"127.0.0.1:1".into(), &"pending".into()));
    assert_eq!(engine["requests_running"], Value::Null);
    assert_eq!(engine["since_agent_start"]["generation_tokens"], Value::Null);
}

#[tokio::test]
async fn every_page_answers_and_others_say_what_there_is() {
    let now = Instant::now();
    let gpus = vec![fixture::full("GPU-1", 0, now), fixture::silent("GPU-2", 1)];
    for snapshot in [no_gpu(), fixture::snapshot(gpus, now)] {
        let agent = Agent::new(snapshot);
        for path in ["/", "/status", "/v1/gpus", "/v1/topology", "/metrics"] {
            assert_eq!(agent.get(path).await.0, 200, "{path}");
        }
        let (_, page) = agent.get("/").await;
        assert!(page.contains("node&lt;1&gt;") && !page.contains("node<1>"), "names are escaped");
        assert!(!page.contains("<80GB>"), "names are escaped");
    }
    let agent = Agent::new(no_gpu());
    let (status, error) = agent.json("/v1/gpu").await;
    assert_eq!(status, 404);
    assert!(error["hint"].as_str().unwrap().contains("/v1/gpus"), "{error}");
    let (status, error) = agent.ask(Request::post("/v1/gpus").body(Body::empty()).unwrap()).await;
    assert_eq!(status, 405);
    assert!(error.contains("GET"), "{error}");
}

#[tokio::test]
async fn the_page_for_people_loads_nothing_and_says_why_there_is_no_gpu() {
    let (_, page) = Agent::new(no_gpu()).get("/").await;
    assert!(page.contains("no NVIDIA driver"));
    for reference in ["http:", "https:", "src=\"/", "url("] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[tokio::test]
async fn status_tells_how_the_budget_of_driver_calls_is_kept() {
    let mut snapshot = no_gpu();
    snapshot.governor.budget_average = std::time::Duration::from_millis(5);
    snapshot.governor.reason = Some("calls are slow".to_owned());
    let (_, status) = Agent::new(snapshot).json("/status").await;
    let governor = &status["cost"]["nvml"]["governor"];
    assert_eq!(governor["budget_seconds_per_second"], 0.005);
    assert_eq!(governor["reason"], "calls are slow");
    assert_eq!(status["cost"]["stream"]["dropped_slow_readers"], 0);
}
