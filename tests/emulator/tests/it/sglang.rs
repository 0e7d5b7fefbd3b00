//! SGLang's page and manners, against those captured from 0.5.23.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::{self, Caller, Harness},
    page::{Page, assert_same_shape},
};

const IDLE: &str = include_str!("../../fixtures/sglang-0.5.23-idle.prom");
const BUSY: &str = include_str!("../../fixtures/sglang-0.5.23-busy.prom");
const LOADS: &str = include_str!("../../fixtures/sglang-0.5.23-loads.json");

/// The engine of the captured pages.
const SAME_ENGINE: [&str; 10] = [
    "--engine",
    "sglang",
    "--num-gpu-blocks",
    "1280",
    "--page-size",
    "1",
    "--context-length",
    "512",
    "--max-running-requests",
    "16",
];

async fn start(options: &[&str]) -> Harness {
    client::start(&[&SAME_ENGINE[..], options].concat()).await
}

fn prompt(from: u32, tokens: u32) -> Vec<u32> {
    (from..from + tokens).collect()
}

async fn complete(caller: &Caller, prompt: Vec<u32>, tokens: u32, stream: bool) {
    let body = json!({ "prompt": prompt, "max_tokens": tokens, "stream": stream });
    if stream {
        caller.stream("/v1/completions", &body).await;
    } else {
        caller.post("/v1/completions", &body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_page_has_the_shape_of_the_real_one() {
    let harness = start(&["--speed", "50"]).await;
    // The captured engine had answered one request and said how it was.
    complete(&harness.caller, prompt(0, 3), 8, false).await;
    harness.caller.get("/v1/loads").await;
    harness.caller.get("/nonexistent").await;
    assert_same_shape(&Page::parse(IDLE), &harness.caller.page().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busy_page_has_the_shape_of_the_real_one() {
    let harness = start(&["--speed", "50"]).await;
    for from in [0, 1_000, 2_000, 3_000] {
        // Together more than the cache holds, and the second time the beginning of it is known.
        complete(&harness.caller, prompt(from, 450), 60, false).await;
        complete(&harness.caller, prompt(from, 450), 60, true).await;
    }
    harness.caller.get("/v1/loads").await;
    harness.caller.get("/nonexistent").await;
    assert_same_shape(&Page::parse(BUSY), &harness.caller.page().await);
}

#[tokio::test]
async fn loads_have_the_shape_of_the_real_ones() {
    let harness = start(&[]).await;
    let captured: Value = serde_json::from_str(LOADS).unwrap();
    let emulated = harness.caller.json("/v1/loads").await;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&captured), keys(&emulated));
    let (captured, emulated) = (&captured["loads"][0], &emulated["loads"][0]);
    assert_eq!(keys(captured), keys(emulated));
    for section in ["memory", "disaggregation", "queues"] {
        assert_eq!(keys(&captured[section]), keys(&emulated[section]));
    }
    for same in ["max_total_num_tokens", "max_running_requests", "num_running_reqs", "token_usage"] {
        assert_eq!(captured[same], emulated[same], "{same}");
    }
    let core = harness.caller.json("/v1/loads?include=core").await;
    assert!(core["loads"][0].get("memory").is_none() && core["loads"][0].get("queues").is_none());
    assert_eq!(harness.caller.json("/v1/loads?dp_rank=7").await["loads"], json!([]));
    let (_, text) = harness.caller.get("/v1/loads?format=prometheus&include=core").await;
    assert!(
        text.contains("# TYPE sglang_num_running_reqs gauge\nsglang_num_running_reqs{dp_rank=\"0\"} 0\n")
    );
    assert!(!text.contains("# HELP"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_process_hears_of_whole_answers_in_fifties() {
    let harness = start(&["--speed", "50"]).await;
    // As in the captured load: 100 tokens each, thirty streamed and thirty not, and the one before it.
    complete(&harness.caller, prompt(0, 3), 8, false).await;
    for from in 0..30 {
        complete(&harness.caller, prompt(from * 500, 40), 100, from % 2 == 0).await;
        complete(&harness.caller, prompt(from * 500 + 200, 40), 100, from % 2 == 1).await;
    }
    let page = harness.caller.page().await;
    let counted = |name: &str| page.value(name) as u64;
    assert_eq!(counted("sglang:num_requests_total"), 61);
    assert_eq!(counted("sglang:generation_tokens_total"), 6_008);
    assert_eq!(
        page.sum("sglang:realtime_tokens_total", &[("mode", "decode")]).map(|sum| sum as u64),
        Some(5_947)
    );
    assert_eq!(counted("sglang:inter_token_latency_seconds_count"), 4_470);
    assert_eq!(counted("sglang:time_to_first_token_seconds_count"), 61);
    assert_eq!(counted("sglang:request_time_per_output_token_seconds_count"), 61);
    assert_eq!(counted("sglang:queue_time_seconds_count"), 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_count_as_they_come_and_prompts_when_they_end() {
    let harness = start(&["--speed", "0.5"]).await;
    let body = json!({ "prompt": prompt(0, 40), "max_tokens": 400, "stream": true }).to_string();
    let mut streamed = harness.caller.send(Method::POST, "/v1/completions", &body).await;
    assert!(streamed.frame().await.unwrap().is_ok());
    let decoded = |page: &Page| page.sum("sglang:realtime_tokens_total", &[("mode", "decode")]);
    // The gauges were last set at the prefill batch, when nothing counted as running yet.
    let early = harness.caller.page_where(|page| decoded(page).is_some_and(|count| count > 4.5)).await;
    assert!(early.value("sglang:num_running_reqs") < 0.5);
    assert!(early.sum("sglang:num_requests_total", &[]).is_none());
    assert!(early.value("sglang:queue_time_seconds_count") > 0.5);
    assert!(early.value("sglang:time_to_first_token_seconds_count") > 0.5);
    harness
        .caller
        .until("15 decode steps published", async |caller| {
            caller.json("/v1/loads?include=core").await["loads"][0]["num_running_reqs"] == 1
        })
        .await;
    // And are set again at the 40th step.
    let late = harness.caller.page_where(|page| page.value("sglang:num_running_reqs") > 0.5).await;
    assert!(decoded(&late).is_some_and(|count| count > 39.5));
    assert!(late.value("sglang:gen_throughput") > 0.0);
    drop(streamed);
    harness.caller.page_where(|page| page.sum("sglang:num_aborted_requests_total", &[]).is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_generates_a_token_that_nobody_asked_for() {
    let harness = start(&["--speed", "50"]).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(harness.caller.get("/health").await.0, StatusCode::OK);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let page = harness.caller.page().await;
    assert!((page.value("sglang:queue_time_seconds_count") - 1.0).abs() < 1e-9);
    assert!(page.sum("sglang:num_requests_total", &[]).is_none());
    assert!(page.sum("sglang:time_to_first_token_seconds_count", &[]).is_none());
    assert_eq!(harness.caller.get("/ready").await.0, StatusCode::OK);
    for gone in ["/version", "/get_load", "/load"] {
        assert_eq!(harness.caller.get(gone).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(harness.caller.json("/server_info").await["version"], "0.5.23");
    assert_eq!(harness.caller.json("/model_info").await["served_model_name"], "tiny");
    assert_eq!(harness.caller.json("/v1/models").await["data"][0]["owned_by"], "sglang");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_shows_on_readiness_then_health_and_metrics_stay() {
    let harness = start(&["--speed", "0.1"]).await;
    let body = json!({ "prompt": [1, 2, 3], "max_tokens": 60, "stream": true }).to_string();
    let mut streamed = harness.caller.send(Method::POST, "/v1/completions", &body).await;
    assert!(streamed.frame().await.unwrap().is_ok());
    let caller = harness.caller.clone();
    let drained = tokio::spawn(harness.emulator.drain(Duration::from_secs(60)));
    caller.until("not ready", async |caller| caller.get("/ready").await.0 != StatusCode::OK).await;
    caller
        .until("unhealthy", async |caller| caller.get("/health").await.0 == StatusCode::SERVICE_UNAVAILABLE)
        .await;
    assert_eq!(caller.get("/metrics").await.0, StatusCode::OK);
    let rest = streamed.into_body().collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    drained.await.unwrap();
    assert!(caller.try_send(Method::GET, "/metrics", "").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_warms_up_it_is_not_healthy_and_the_page_is_there() {
    let harness = start(&["--warmup", "3600"]).await;
    for path in ["/health", "/ready"] {
        assert_eq!(harness.caller.get(path).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(harness.caller.get("/metrics").await.0, StatusCode::OK);
}

#[tokio::test]
async fn bucket_flags_take_the_place_of_the_engines_own() {
    let options = ["--bucket-time-to-first-token", "0.2", "0.5", "--bucket-inter-token-latency", "0.015"];
    let harness = start(&[&options[..], &["--speed", "50"]].concat()).await;
    complete(&harness.caller, prompt(0, 4), 4, true).await;
    let page = harness.caller.page().await;
    for (family, bounds) in [
        ("sglang:time_to_first_token_seconds", vec!["0.2", "0.5", "+Inf"]),
        ("sglang:inter_token_latency_seconds", vec!["0.015", "+Inf"]),
    ] {
        let expected = bounds.into_iter().map(str::to_owned).collect();
        assert!(page.families[family].bound_vectors().contains::<Vec<String>>(&expected), "{family}");
    }
}
