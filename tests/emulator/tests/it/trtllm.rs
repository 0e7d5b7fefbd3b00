//! TensorRT-LLM's pages: off, drained, and moving only when a request ends.

use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::{self, Harness},
    page::Page,
};

const BOTH: [&str; 2] = ["--return-perf-metrics", "--enable-iter-perf-stats"];

async fn start(options: &[&str]) -> Harness {
    client::start(&[&["--engine", "trtllm"], options].concat()).await
}

async fn complete(harness: &Harness, tokens: u32) {
    let body = json!({ "prompt": [1, 2, 3, 4], "max_tokens": tokens });
    harness.caller.post("/v1/completions", &body).await;
}

async fn page(harness: &Harness) -> Page {
    let (status, text) = harness.caller.get("/prometheus/metrics").await;
    assert_eq!(status, StatusCode::OK);
    Page::parse(&text)
}

fn numbers(iterations: &Value) -> Vec<u64> {
    iterations.as_array().expect("a list").iter().filter_map(|iteration| iteration["iter"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_there_is_nothing_to_see() {
    let harness = start(&["--speed", "50"]).await;
    complete(&harness, 5).await;
    assert_eq!(harness.caller.get("/prometheus/metrics").await.0, StatusCode::NOT_FOUND);
    assert_eq!(harness.caller.json("/metrics").await, json!([]));
    assert_eq!(harness.caller.get("/perf_metrics").await.0, StatusCode::NOT_FOUND);
    assert_eq!(harness.caller.json("/version").await["version"], "1.3.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pollers_steal_iterations_from_each_other() {
    for options in [&BOTH[..], &BOTH[1..]] {
        let harness = start(&[options, &["--speed", "50"]].concat()).await;
        complete(&harness, 20).await;
        let first = numbers(&harness.caller.json("/metrics").await);
        complete(&harness, 20).await;
        let second = numbers(&harness.caller.json("/metrics").await);
        // Nobody sees an iteration twice, and together they see all.
        let all: Vec<u64> = first.iter().chain(&second).copied().collect();
        assert_eq!(all, (1..=40).collect::<Vec<u64>>(), "{options:?}");
        assert!(!first.is_empty() && !second.is_empty());
        assert_eq!(harness.caller.json("/metrics").await, json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ring_forgets_the_oldest() {
    let harness =
        start(&["--enable-iter-perf-stats", "--iter-stats-max-iterations", "7", "--speed", "50"]).await;
    complete(&harness, 20).await;
    let kept = harness.caller.json("/metrics").await;
    assert_eq!(numbers(&kept), (14..=20).collect::<Vec<u64>>());
    let last = &kept[6];
    assert_eq!(last["numCompletedRequests"], 1);
    assert_eq!(last["inflightBatchingStats"]["numGenRequests"], 1);
    for key in ["maxNumBlocks", "freeNumBlocks", "usedNumBlocks", "tokensPerBlock", "cacheHitRate"] {
        assert!(last["kvCacheStats"][key].is_number(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_move_only_when_a_request_ends_and_stay() {
    let harness = start(&[&BOTH[..], &["--speed", "5"]].concat()).await;
    let body = json!({ "prompt": [1, 2, 3], "max_tokens": 4000, "stream": true }).to_string();
    let mut long = harness.caller.send(Method::POST, "/v1/completions", &body).await;
    assert!(long.frame().await.unwrap().is_ok());
    assert!(page(&harness).await.sum("trtllm_num_requests_running", &[]).is_none());
    complete(&harness, 5).await;
    let seen = page(&harness).await;
    assert!((seen.value("trtllm_num_requests_running") - 1.0).abs() < 1e-9);
    assert!((seen.value("trtllm_time_to_first_token_seconds_count") - 1.0).abs() < 1e-9);
    assert!((seen.value("trtllm_generation_tokens_total") - 5.0).abs() < 1e-9);
    // The long one is gone, but nothing ended by itself.
    drop(long);
    harness.caller.until("idle", async |caller| caller.json("/emulator/exact").await["running"] == 0).await;
    assert!((page(&harness).await.value("trtllm_num_requests_running") - 1.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_are_left_out_of_histograms() {
    let harness = start(&[&BOTH[..], &["--speed", "50"]].concat()).await;
    complete(&harness, 1).await;
    let page = page(&harness).await;
    assert!(page.sum("trtllm_time_per_output_token_seconds_count", &[]).is_none());
    assert!(page.sum("trtllm_request_decode_time_seconds_count", &[]).is_none());
    assert!((page.value("trtllm_time_to_first_token_seconds_count") - 1.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_once_up_to_1_2() {
    let options = ["--engine-version", "1.2", "--return-perf-metrics", "--speed", "50"];
    let harness = start(&[&options[..], &["--perf-metrics-max-requests", "2"]].concat()).await;
    for tokens in [3, 4, 5] {
        complete(&harness, tokens).await;
    }
    let told = harness.caller.json("/perf_metrics").await;
    assert_eq!(told.as_array().map(Vec::len), Some(2));
    let timing = &told[1]["perf_metrics"]["timing_metrics"];
    let at = |name: &str| timing[name].as_f64().unwrap();
    assert!(at("arrival_time") <= at("first_scheduled_time"));
    assert!(at("first_scheduled_time") < at("first_token_time"));
    assert!(at("first_token_time") < at("last_token_time"));
    assert_eq!(harness.caller.json("/perf_metrics").await, json!([]));
}
