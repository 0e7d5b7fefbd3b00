//! The pages through their router, without a socket.

use std::sync::Mutex;

use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use plimsoll_common::{
    ids::GpuUuid,
    wire::{GpuInfo, HostInfo, SourceState},
};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::{config::Settings, gpu::{GpuReading, GpuStatus}, window::Window};

fn pages(snapshot: GpuSnapshot) -> Router {
    let mut settings = Settings { node_name: Some("node<1>".to_owned()), ..Settings::default() };
    settings.engine = vec!["http://127.0.0.1:1".to_owned()];
    let config = Config::load(&settings).unwrap();
    let window = Window::new(&config.endpoints, HostInfo::default(), Instant::now(), 0);
    let (_, gpus) = watch::channel(Arc::new(snapshot));
    let (_, costs) = watch::channel(OwnCost::default());
    let boot = BootId::parse("boot").unwrap();
    router(Pages::new(&config, boot, AgentEpoch(1), Arc::new(Mutex::new(window)), gpus, None, costs))
}

fn one_gpu() -> GpuSnapshot {
    let info = GpuInfo {
        uuid: GpuUuid::parse("GPU-1").unwrap(),
        index: 3,
        name: Some("a \"GPU\"".to_owned()),
        pci_bus_id: None,
        memory_total_bytes: Some(80),
        power_limit_mw: None,
        domain: None,
    };
    let gpu = GpuReading { power_mw: Some(71_500), ..GpuReading::absent(info, GpuStatus::Degraded) };
    GpuSnapshot { gpus: vec![gpu], ..GpuSnapshot::empty(Instant::now(), SourceState::Degraded, None) }
}

async fn get(router: Router, path: &str) -> (u16, String) {
    let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get_json(router: Router, path: &str) -> (u16, Value) {
    let (status, body) = get(router, path).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn absent_values_are_null_in_json_and_no_sample_in_metrics() {
    let (status, gpu) = get_json(pages(one_gpu()), "/v1/gpus/GPU-1").await;
    assert_eq!(status, 200);
    assert_eq!(gpu["power_watts"], 71.5);
    assert_eq!(gpu["temperature_celsius"], Value::Null);
    assert_eq!(gpu["state"], "degraded");
    let (_, page) = get(pages(one_gpu()), "/metrics").await;
    assert!(page.contains("plimsoll_gpu_power_watts{gpu=\"3\",uuid=\"GPU-1\"} 71.5\n"), "{page}");
    assert!(!page.contains("temperature"), "{page}");
    assert!(page.contains("plimsoll_gpu_state{gpu=\"3\",uuid=\"GPU-1\",state=\"degraded\"} 1\n"), "{page}");
}

#[tokio::test]
async fn a_gpu_that_is_not_here_is_a_404_that_names_those_that_are() {
    let (status, error) = get_json(pages(one_gpu()), "/v1/gpus/GPU-2").await;
    assert_eq!(status, 404);
    assert!(error["hint"].as_str().unwrap().contains("GPU-1"), "{error}");
    let why = "no NVIDIA driver".to_owned();
    let none = GpuSnapshot::empty(Instant::now(), SourceState::Unsupported, Some(why));
    let (_, error) = get_json(pages(none), "/v1/gpus/GPU-2").await;
    assert!(error["hint"].as_str().unwrap().contains("no NVIDIA driver"), "{error}");
}

#[tokio::test]
async fn an_engine_that_was_never_read_has_no_numbers() {
    let (_, engines) = get_json(pages(one_gpu()), "/v1/engines").await;
    let engine = &engines["engines"][0];
    assert_eq!((&engine["id"], &engine["state"]), (&"127.0.0.1:1".into(), &"pending".into()));
    assert_eq!(engine["requests_running"], Value::Null);
    assert_eq!(engine["since_agent_start"]["generation_tokens"], Value::Null);
}

#[tokio::test]
async fn every_page_answers_and_others_say_what_there_is() {
    for path in ["/", "/status", "/v1/gpus", "/metrics"] {
        assert_eq!(get(pages(one_gpu()), path).await.0, 200, "{path}");
    }
    assert!(get(pages(one_gpu()), "/").await.1.contains("node&lt;1&gt;"), "names are escaped");
    let (status, error) = get_json(pages(one_gpu()), "/v1/gpu").await;
    assert_eq!(status, 404);
    assert!(error["hint"].as_str().unwrap().contains("/v1/gpus"), "{error}");
}
