//! Aborts, limits, stopping.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::client::{self, Harness, scratch};

/// Slow enough that a long answer is still under way whatever else happens.
const SLOW: [&str; 2] = ["--speed", "0.2"];

const COMPLETIONS: [(&str, &str); 1] = [("handler", "/v1/completions")];

fn long(stream: bool) -> String {
    json!({ "prompt": [1, 2, 3, 4], "max_tokens": 5000, "stream": stream }).to_string()
}

async fn until_running(harness: &Harness, count: f64) {
    harness.caller.page_where(|page| page.value("vllm:num_requests_running") >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_aborts_its_request() {
    let path = scratch("aborts.jsonl");
    let harness = client::start(&[&SLOW[..], &["--request-log", path.to_str().unwrap()]].concat()).await;
    let mut streamed = harness.caller.send(Method::POST, "/v1/completions", &long(true)).await;
    assert!(streamed.frame().await.unwrap().is_ok());
    let caller = harness.caller.clone();
    let whole = tokio::spawn(async move { caller.send(Method::POST, "/v1/completions", &long(false)).await });
    until_running(&harness, 2.0).await;
    assert_eq!(harness.caller.get("/load").await.1, r#"{"server_load":2}"#);

    drop(streamed);
    whole.abort();
    let page = harness
        .caller
        .page_where(|page| page.sum("http_requests_total", &COMPLETIONS).is_some_and(|count| count > 1.5))
        .await;
    // The request counter moves as the connection ends; the engine hears of it at the end of its iteration.
    let idle = harness.caller.page_where(|page| page.value("vllm:num_requests_running") < 0.5).await;
    assert!(idle.value("vllm:kv_cache_usage_perc") < 1e-9);
    // As in the real engine: aborts are nobody's success and have no e2e time, but their tokens were counted.
    assert!(page.value("vllm:request_success_total") < 0.5);
    assert!(idle.value("vllm:e2e_request_latency_seconds_count") < 0.5);
    assert!(idle.value("vllm:time_to_first_token_seconds_count") > 0.5);
    assert_eq!(harness.caller.get("/load").await.1, r#"{"server_load":0}"#);

    harness.emulator.stop().await;
    let log = std::fs::read_to_string(&path).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains(r#""finish_reason":"abort""#)).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_503_and_counts_it() {
    let harness =
        client::start(&[&SLOW[..], &["--max-num-seqs", "1", "--max-num-queued-reqs", "1"]].concat()).await;
    let first = harness.caller.send(Method::POST, "/v1/completions", &long(true)).await;
    until_running(&harness, 1.0).await;
    let second = harness.caller.send(Method::POST, "/v1/completions", &long(true)).await;
    harness.caller.page_where(|page| page.value("vllm:num_requests_waiting") > 0.5).await;
    let (status, answer) = harness.caller.post("/v1/completions", &json!({ "prompt": [1] })).await;
    assert_eq!((status, answer["error"]["code"].as_u64()), (StatusCode::SERVICE_UNAVAILABLE, Some(503)));
    let page = harness.caller.page().await;
    let refused = page.sum("vllm:admission_rejections_total", &[("reason", "max_num_queued_reqs")]).unwrap();
    assert!((refused - 1.0).abs() < 1e-9);
    let capacity = page.sum("vllm:num_requests_waiting_by_reason", &[("reason", "capacity")]).unwrap();
    assert!((capacity - 1.0).abs() < 1e-9);
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_prompt_again_hits_the_prefix_cache() {
    let prompt: Vec<u32> = (0..100).collect();
    let body = json!({ "prompt": prompt, "max_tokens": 1 });
    for (options, hits) in
        [(vec!["--speed", "50"], 96.0), (vec!["--speed", "50", "--no-enable-prefix-caching"], 0.0)]
    {
        let options = [&options[..], &["--enable-prompt-tokens-details"]].concat();
        let harness = client::start(&options).await;
        harness.caller.post("/v1/completions", &body).await;
        let (_, second) = harness.caller.post("/v1/completions", &body).await;
        let told = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_f64().unwrap();
        assert!((told - hits).abs() < 1e-9);
        let page = harness.caller.page().await;
        assert!((page.value("vllm:prefix_cache_hits_total") - hits).abs() < 1e-9);
        let local = page.sum("vllm:prompt_tokens_by_source_total", &[("source", "local_compute")]).unwrap();
        assert!((local - (200.0 - hits)).abs() < 1e-9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let harness = client::start(&["--speed", "0.5"]).await;
    let body = json!({ "prompt": [1, 2, 3], "max_tokens": 100, "stream": true }).to_string();
    let mut streamed = harness.caller.send(Method::POST, "/v1/completions", &body).await;
    assert!(streamed.frame().await.unwrap().is_ok());
    let caller = harness.caller.clone();
    let drained = tokio::spawn(harness.emulator.drain(Duration::from_secs(60)));
    // The drain begins when the task first runs; until then requests are taken.
    let refused = loop {
        let (status, _) = caller.post("/v1/completions", &json!({ "prompt": [1], "max_tokens": 1 })).await;
        if status != StatusCode::OK {
            break status;
        }
    };
    assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
    let rest = streamed.into_body().collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    drained.await.unwrap();
    assert!(caller.try_send(Method::GET, "/health", "").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cuts_what_is_in_flight() {
    let harness = client::start(&SLOW).await;
    let mut streamed = harness.caller.send(Method::POST, "/v1/completions", &long(true)).await;
    assert!(streamed.frame().await.unwrap().is_ok());
    harness.emulator.stop().await;
    assert!(streamed.into_body().collect().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_activity_follows_the_load() {
    let path = scratch("activity");
    let file = path.to_str().unwrap();
    let options = ["--gpu", "GPU-a", "--gpu", "GPU-b", "--gpu-activity", file, "--weights-bytes", "2000"];
    let harness = client::start(&[&SLOW[..], &options].concat()).await;
    let streamed = harness.caller.send(Method::POST, "/v1/completions", &long(true)).await;
    let busy = async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let utilization = text
                .lines()
                .filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("util=")));
            if utilization.filter_map(|value| value.parse::<u32>().ok()).filter(|value| *value > 50).count()
                == 2
            {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(30), busy).await.expect("a busy GPU");
    assert!(text.starts_with("GPU-a util=") && text.contains("\nGPU-b util="), "{text}");
    // One block of sixteen tokens at 128 KiB, and the weights, over two GPUs.
    assert!(text.contains(&format!("mem_used={}", (2_000 + 16 * 131_072) / 2)), "{text}");
    drop(streamed);
}
