//! Names by version: what was renamed, doubled and dropped.

use serde_json::json;

use crate::{client, page::Page};

async fn page(engine: &str, version: &str) -> Page {
    let harness = client::start(&["--engine", engine, "--engine-version", version, "--speed", "50"]).await;
    let prompt: Vec<u32> = (0..40).collect();
    for stream in [true, false] {
        let body = json!({ "prompt": prompt, "max_tokens": 60, "stream": stream });
        client::text(harness.caller.send(hyper::Method::POST, "/v1/completions", &body.to_string()).await)
            .await;
    }
    harness.caller.page().await
}

fn has(page: &Page, name: &str) -> bool {
    page.sum(name, &[]).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn vllms_names_change_with_its_versions() {
    let names = [
        "vllm:gpu_cache_usage_perc",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hit_rate",
        "vllm:time_per_output_token_seconds_count",
        "vllm:inter_token_latency_seconds_count",
        "vllm:request_time_per_output_token_seconds_count",
        "vllm:num_requests_swapped",
        "vllm:num_requests_waiting_by_reason",
    ];
    for (version, there) in [
        ("0.7.3", [true, false, false, false, true, true, false, false, true, false]),
        ("0.8.5", [true, false, true, false, false, true, false, false, false, false]),
        ("0.10.0", [true, true, true, true, false, true, false, false, false, false]),
        ("0.10.2", [true, true, true, true, false, true, true, false, false, false]),
        ("0.11", [false, true, false, true, false, true, true, true, false, false]),
        ("0.12", [false, true, false, true, false, false, true, true, false, false]),
        ("0.32", [false, true, false, true, false, false, true, true, false, true]),
    ] {
        let page = page("vllm", version).await;
        for (name, there) in names.into_iter().zip(there) {
            assert_eq!(has(&page, name), there, "{name} in {version}");
        }
        let labelled = page.sum("vllm:num_requests_running", &[("engine", "0")]).is_some();
        assert_eq!(labelled, version != "0.7.3", "the engine's label in {version}");
        let bounds = page.families["vllm:time_to_first_token_seconds"].bound_vectors();
        let last = bounds.first().unwrap().iter().rev().nth(1).unwrap().clone();
        assert_eq!(last, if version == "0.7.3" { "10.0" } else { "2560.0" });
        // Both names of one thing tell the same.
        if there[5] && there[6] {
            let old = page.value("vllm:time_per_output_token_seconds_sum");
            assert_eq!(old.to_bits(), page.value("vllm:inter_token_latency_seconds_sum").to_bits());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sglangs_names_change_with_its_versions() {
    let names = [
        "sglang:avg_request_queue_latency",
        "sglang:queue_time_s_count",
        "sglang:queue_time_seconds_count",
        "sglang:max_total_num_tokens",
        "sglang:cache_config_info",
        "sglang:num_pages",
        "sglang:request_time_per_output_token_seconds_count",
    ];
    for (version, there) in [
        ("0.4.7", [true, false, false, false, false, false, false]),
        ("0.5.2", [true, true, false, false, false, false, false]),
        ("0.5.4", [false, false, true, false, false, false, false]),
        ("0.5.9", [false, false, true, true, true, false, false]),
        ("0.5.16", [false, false, true, true, false, true, false]),
        ("0.5.22", [false, false, true, true, false, true, true]),
        ("0.5.23", [false, false, true, true, false, true, true]),
    ] {
        let page = page("sglang", version).await;
        for (name, there) in names.into_iter().zip(there) {
            assert_eq!(has(&page, name), there, "{name} in {version}");
        }
        let split = page.sum("sglang:num_requests_total", &[("is_streaming", "true")]).is_some();
        assert_eq!(split, ["0.5.22", "0.5.23"].contains(&version), "is_streaming in {version}");
        assert!((page.value("sglang:num_requests_total") - 2.0).abs() < 1e-9);
        assert!((page.value("sglang:time_to_first_token_seconds_count") - 2.0).abs() < 1e-9);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tensorrt_llm_spelt_its_names_in_three_ways() {
    for (version, name, model) in [
        ("1.3", "trtllm_request_success_total", "tiny"),
        ("1.2", "request_success_total", "undefined"),
        ("1.2-dynamo", "trtllm:request_success_total", "tiny"),
    ] {
        let options = ["--engine", "trtllm", "--engine-version", version, "--return-perf-metrics"];
        let harness = client::start(&[&options[..], &["--speed", "50"]].concat()).await;
        harness.caller.post("/v1/completions", &json!({ "prompt": [1, 2], "max_tokens": 3 })).await;
        let page = Page::parse(&harness.caller.get("/prometheus/metrics").await.1);
        assert_eq!(page.sum(name, &[("model_name", model)]).map(|sum| sum as u64), Some(1), "{version}");
        assert_eq!(page.families.len() == 5, version != "1.3", "{version}: {:?}", page.order);
    }
}
