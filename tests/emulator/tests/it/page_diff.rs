//! The emulated page against pages captured from vLLM 0.32.0.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    client,
    page::{Page, assert_same_shape},
};

const IDLE: &str = include_str!("../../fixtures/vllm-0.32.0-idle.prom");
const BUSY: &str = include_str!("../../fixtures/vllm-0.32.0-busy.prom");

/// The engine of the captured pages.
const SAME_ENGINE: [&str; 10] = [
    "--num-gpu-blocks",
    "40",
    "--block-size",
    "32",
    "--max-model-len",
    "512",
    "--max-num-seqs",
    "8",
    "--max-num-batched-tokens",
    "512",
];

#[tokio::test]
async fn the_idle_page_has_the_shape_of_the_real_one() {
    let harness = client::start(&SAME_ENGINE).await;
    // The captured engine had been asked for these before.
    harness.caller.get("/v1/models").await;
    harness.caller.get("/nonexistent").await;
    let captured = Page::parse(IDLE);
    let emulated = harness
        .caller
        .page_where(|page| page.sum("http_requests_total", &[("handler", "none")]).is_some())
        .await;
    assert_same_shape(&captured, &emulated);
}

#[tokio::test]
async fn the_busy_page_has_the_shape_of_the_real_one() {
    let harness = client::start(&SAME_ENGINE).await;
    harness.caller.get("/v1/models").await;
    harness.caller.get("/nonexistent").await;
    let body = json!({ "prompt": [1, 2, 3], "max_tokens": 2 });
    harness.caller.post("/v1/completions", &body).await;
    let post = [("handler", "/v1/completions")];
    let emulated = harness.caller.page_where(|page| page.sum("http_requests_total", &post).is_some()).await;
    assert_same_shape(&Page::parse(BUSY), &emulated);
}

#[tokio::test]
async fn the_cache_configuration_tells_the_same_numbers() {
    let harness = client::start(&SAME_ENGINE).await;
    let labels = |page: &Page| -> BTreeMap<String, String> {
        page.families["vllm:cache_config_info"].samples[0].labels.clone()
    };
    let (captured, emulated) = (labels(&Page::parse(BUSY)), labels(&harness.caller.page().await));
    for label in [
        "block_size",
        "num_gpu_blocks",
        "num_gpu_blocks_override",
        "kv_cache_size_tokens",
        "kv_cache_max_concurrency",
    ] {
        assert_eq!(captured[label], emulated[label], "{label}");
    }
}

#[tokio::test]
async fn custom_buckets_take_the_place_of_the_engines_own() {
    let buckets = r#"{"time_to_first_token":[0.2,0.3],"inter_token_latency":[0.015],"request_latency":[2]}"#;
    let harness = client::start(&["--custom-histogram-buckets", buckets]).await;
    let page = harness.caller.page().await;
    for (family, bounds) in [
        ("vllm:time_to_first_token_seconds", vec!["0.2", "0.3", "+Inf"]),
        ("vllm:inter_token_latency_seconds", vec!["0.015", "+Inf"]),
        ("vllm:request_time_per_output_token_seconds", vec!["0.015", "+Inf"]),
        ("vllm:e2e_request_latency_seconds", vec!["2.0", "+Inf"]),
        ("vllm:request_queue_time_seconds", vec!["2.0", "+Inf"]),
    ] {
        let expected = bounds.into_iter().map(str::to_owned).collect();
        assert!(page.families[family].bound_vectors().contains::<Vec<String>>(&expected), "{family}");
    }
}

#[tokio::test]
async fn both_paths_serve_the_page_each_with_its_content_type() {
    let harness = client::start(&[]).await;
    for (path, version) in [("/metrics", "version=1.0.0"), ("/metrics/", "version=0.0.4")] {
        let response = harness.caller.send(hyper::Method::GET, path, "").await;
        assert!(response.headers()["content-type"].to_str().unwrap().contains(version));
        let (_, text) = client::text(response).await;
        assert!(text.contains("vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0.0\n"));
    }
}
