//! Page, request log and exact summary tell the same story, to the last digit.

use plimsoll_emulator::exact::Exact;
use serde::Deserialize;
use serde_json::json;

use crate::{
    client::{self, Caller, scratch},
    page::Page,
};

#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    model: String,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    max_tokens: u64,
    ttft_s: Option<f64>,
    queue_s: Option<f64>,
    prefill_s: Option<f64>,
    decode_s: Option<f64>,
    inference_s: Option<f64>,
    e2e_s: f64,
    tpot_s: Option<f64>,
    itl_s: Vec<f64>,
    preemptions: u64,
    finish_reason: String,
}

fn lines(path: &std::path::Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).expect("a request log");
    text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect()
}

/// Mixed requests, streamed and not, as many at once as there are.
async fn load(caller: &Caller, requests: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..requests {
        let caller = caller.clone();
        let prompt: Vec<u64> = (0..1 + index * 37 % 300).map(|token| token + index % 7).collect();
        let body = json!({ "prompt": prompt, "max_tokens": 1 + index * 13 % 60, "stream": index % 2 == 0 });
        tasks.spawn(async move {
            if index % 2 == 0 {
                caller.stream("/v1/completions", &body).await;
            } else {
                caller.post("/v1/completions", &body).await;
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("every request is answered");
    }
}

/// The histogram holds exactly these samples: the same count below each bound, the same sum.
fn assert_holds(page: &Page, family: &str, samples: &[f64]) {
    for (bound, count) in page.buckets(family) {
        let expected = samples.iter().filter(|sample| **sample <= bound).count();
        assert_eq!(count as usize, expected, "{family} up to {bound}");
    }
    // Sums of the samples' nanoseconds (or tokens) are integers, so they can be compared without an allowance.
    let nanos = |seconds: f64| (seconds * 1e9).round() as u64;
    let expected: u64 = samples.iter().copied().map(nanos).sum();
    assert_eq!(nanos(page.value(&format!("{family}_sum"))), expected, "{family}");
    assert_eq!(page.value(&format!("{family}_count")) as usize, samples.len(), "{family}");
}

#[tokio::test(flavor = "multi_thread")]
async fn page_and_log_hold_the_same_samples() {
    let path = scratch("requests.jsonl");
    let log = path.to_str().unwrap();
    // Few KV blocks, so that requests are preempted too.
    let options = [
        "--speed",
        "20",
        "--num-gpu-blocks",
        "90",
        "--max-num-seqs",
        "16",
        "--stop-fraction",
        "0.3",
        "--request-log",
        log,
    ];
    let harness = client::start(&options).await;
    load(&harness.caller, 120).await;
    let page = harness.caller.page().await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 120);

    let of = |pick: fn(&Line) -> Option<f64>| -> Vec<f64> { lines.iter().filter_map(pick).collect() };
    assert_holds(&page, "vllm:time_to_first_token_seconds", &of(|line| line.ttft_s));
    assert_holds(&page, "vllm:request_queue_time_seconds", &of(|line| line.queue_s));
    assert_holds(&page, "vllm:request_prefill_time_seconds", &of(|line| line.prefill_s));
    assert_holds(&page, "vllm:request_decode_time_seconds", &of(|line| line.decode_s));
    assert_holds(&page, "vllm:request_inference_time_seconds", &of(|line| line.inference_s));
    assert_holds(&page, "vllm:e2e_request_latency_seconds", &of(|line| Some(line.e2e_s)));
    assert_holds(&page, "vllm:request_time_per_output_token_seconds", &of(|line| line.tpot_s));
    let itl: Vec<f64> = lines.iter().flat_map(|line| line.itl_s.iter().copied()).collect();
    assert_holds(&page, "vllm:inter_token_latency_seconds", &itl);
    assert_holds(&page, "vllm:request_prompt_tokens", &of(|line| Some(line.prompt_tokens as f64)));
    assert_holds(&page, "vllm:request_generation_tokens", &of(|line| Some(line.output_tokens as f64)));
    assert_holds(&page, "vllm:request_params_max_tokens", &of(|line| Some(line.max_tokens as f64)));
    assert_holds(&page, "vllm:request_num_preemptions", &of(|line| Some(line.preemptions as f64)));

    let total = |pick: fn(&Line) -> u64| lines.iter().map(pick).sum::<u64>();
    let counter = |name: &str| page.value(name) as u64;
    assert_eq!(counter("vllm:prompt_tokens_total"), total(|line| line.prompt_tokens));
    assert_eq!(counter("vllm:prefix_cache_queries_total"), total(|line| line.prompt_tokens));
    assert_eq!(counter("vllm:prompt_tokens_cached_total"), total(|line| line.cached_tokens));
    assert_eq!(counter("vllm:prefix_cache_hits_total"), total(|line| line.cached_tokens));
    assert_eq!(counter("vllm:generation_tokens_total"), total(|line| line.output_tokens));
    assert_eq!(counter("vllm:num_preemptions_total"), total(|line| line.preemptions));
    assert!(counter("vllm:num_preemptions_total") > 0 && counter("vllm:prefix_cache_hits_total") > 0);
    // One ITL sample for each engine step output: all tokens but the first of each request.
    assert_eq!(counter("vllm:inter_token_latency_seconds_count"), total(|line| line.output_tokens) - 120);
    // Iterations count what was generated and the prompt tokens computed for it.
    let computed = total(|line| line.output_tokens + line.prompt_tokens - line.cached_tokens);
    assert_eq!(counter("vllm:iteration_tokens_total_sum"), computed);
    for reason in ["stop", "length"] {
        let on_page =
            page.sum("vllm:request_success_total", &[("finished_reason", reason)]).unwrap() as usize;
        assert_eq!(on_page, lines.iter().filter(|line| line.finish_reason == reason).count());
        assert!(on_page > 0);
    }
    assert!(lines.iter().all(|line| line.model == "tiny" && line.id.starts_with("cmpl-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn sglangs_page_holds_the_samples_of_streamed_answers() {
    let path = scratch("sglang.jsonl");
    let options = ["--engine", "sglang", "--speed", "20", "--request-log", path.to_str().unwrap()];
    let harness = client::start(&options).await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..80_u64 {
        let caller = harness.caller.clone();
        let prompt: Vec<u64> = (0..1 + index * 37 % 300).collect();
        let body = json!({ "prompt": prompt, "max_tokens": 2 + index * 13 % 60, "stream": true });
        tasks.spawn(async move { caller.stream("/v1/completions", &body).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("every request is answered");
    }
    let page = harness.caller.page().await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 80);
    let of = |pick: fn(&Line) -> Option<f64>| -> Vec<f64> { lines.iter().filter_map(pick).collect() };
    assert_holds(&page, "sglang:time_to_first_token_seconds", &of(|line| line.ttft_s));
    assert_holds(&page, "sglang:queue_time_seconds", &of(|line| line.queue_s));
    assert_holds(&page, "sglang:e2e_request_latency_seconds", &of(|line| Some(line.e2e_s)));
    assert_holds(&page, "sglang:request_time_per_output_token_seconds", &of(|line| line.tpot_s));
    let itl: Vec<f64> = lines.iter().flat_map(|line| line.itl_s.iter().copied()).collect();
    assert_holds(&page, "sglang:inter_token_latency_seconds", &itl);
    let total = |pick: fn(&Line) -> u64| lines.iter().map(pick).sum::<u64>();
    let mode = |mode| page.sum("sglang:realtime_tokens_total", &[("mode", mode)]).unwrap() as u64;
    assert_eq!(mode("decode"), total(|line| line.output_tokens) - 80);
    assert_eq!(mode("prefill_compute"), total(|line| line.prompt_tokens - line.cached_tokens));
    assert_eq!(mode("prefill_cache"), total(|line| line.cached_tokens));
    assert_eq!(page.value("sglang:prompt_tokens_total") as u64, total(|line| line.prompt_tokens));
    assert_eq!(page.value("sglang:cached_tokens_total") as u64, total(|line| line.cached_tokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exact_summary_is_that_of_the_log() {
    let path = scratch("exact.jsonl");
    let harness = client::start(&["--speed", "20", "--request-log", path.to_str().unwrap()]).await;
    load(&harness.caller, 50).await;
    let (_, text) = harness.caller.get("/emulator/exact").await;
    let exact: Exact = serde_json::from_str(&text).unwrap();
    let lines = lines(&path);
    let mut ttft: Vec<f64> = lines.iter().filter_map(|line| line.ttft_s).collect();
    ttft.sort_by(f64::total_cmp);
    let all = exact.windows.all;
    assert_eq!((exact.finished, all.ttft.count), (50, 50));
    assert_eq!(all.ttft.p50_s.map(f64::to_bits), Some(ttft[24].to_bits()));
    assert_eq!(all.ttft.p99_s.map(f64::to_bits), Some(ttft[49].to_bits()));
    assert_eq!(all.itl.count as usize, lines.iter().map(|line| line.itl_s.len()).sum::<usize>());
    assert!(all.itl.complete && exact.windows.minute.ttft.count == 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_follow_the_model_and_not_the_machine() {
    let path = scratch("alone.jsonl");
    let options = ["--profile", "qwen3-32b-h200-tp2", "--request-log", path.to_str().unwrap()];
    let harness = client::start(&options).await;
    let body = json!({ "prompt": (0..4_000).collect::<Vec<u32>>(), "max_tokens": 10 });
    harness.caller.post("/v1/completions", &body).await;
    let line = lines(&path).pop().unwrap();
    // 3.83 + 0.0514 × 4000 + 1.63e-6 × 4000² / 2 ms; and 3.83 + 7.45 + 0.12 + a little a token. A busy machine may be
    // late, never early.
    let (ttft, tpot) = (line.ttft_s.unwrap(), line.tpot_s.unwrap());
    assert!((0.222..0.8).contains(&ttft), "{ttft}");
    assert!((0.0114..0.1).contains(&tpot), "{tpot}");
}
