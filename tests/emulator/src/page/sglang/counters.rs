//! Counters, and the start-up times that stand among them.

use super::{Families, STREAMING, Sight};
use crate::{api::HttpStats, config::Config, page::cpu_seconds_of_this};

/// Stages of the scheduler's loop; time that the model does not know of is left at zero.
const STAGES: [&str; 9] = [
    "other",
    "recv_requests",
    "process_input_requests",
    "get_next_batch_to_run",
    "process_queue",
    "run_batch",
    "process_batch_result",
    "sanity_check_cache",
    "idle",
];

/// Phases in which the real engine captures graphs; this one captures none.
pub(super) const GRAPH_PHASES: [&str; 6] =
    ["prefill", "decode", "target_verify", "draft_prefill", "draft_decode", "draft_extend"];

pub(super) fn http(page: &mut Families<'_>, stats: &HttpStats) {
    let name = "sglang:process_cpu_seconds_total";
    page.open(name, "counter", "CPU time of the front processes, seconds.");
    page.bare(name, &[("component", "tokenizer")], cpu_seconds_of_this());
    page.bare(name, &[("component", "detokenizer")], 0.0);
    let name = "sglang:http_requests_total";
    page.open(name, "counter", "Requests by endpoint and method, counted when they come.");
    for seen in &stats.endpoints {
        page.bare(name, &[("endpoint", &seen.endpoint), ("method", seen.method)], seen.requests as f64);
    }
    let name = "sglang:http_responses_total";
    page.open(name, "counter", "Responses by endpoint, method and status, counted when they begin.");
    for seen in &stats.endpoints {
        for (status, count) in &seen.responses {
            let status = status.to_string();
            let labels = [("endpoint", &*seen.endpoint), ("method", seen.method), ("status_code", &status)];
            page.bare(name, &labels, *count as f64);
        }
    }
}

pub(super) fn answers(page: &mut Families<'_>, sight: &Sight<'_>) {
    let shown = sight.shown;
    let mut by_streaming = |name: &str, help: &str, values: [u64; 2]| {
        page.open(name, "counter", help);
        for ((value, streaming), answers) in values.into_iter().zip(STREAMING).zip(&shown.answers) {
            if answers.requests > 0 {
                page.front(name, &[("is_streaming", streaming)], value as f64);
            }
        }
    };
    let each = |pick: fn(&crate::state::sglang::Answers) -> u64| {
        let [whole, streamed] = &shown.answers;
        [pick(whole), pick(streamed)]
    };
    if shown.answers.iter().any(|answers| answers.requests > 0) {
        by_streaming(
            "sglang:prompt_tokens_total",
            "Prompt tokens of ended requests.",
            each(|answers| answers.prompt_tokens),
        );
        by_streaming(
            "sglang:generation_tokens_total",
            "Generated tokens of ended requests.",
            each(|answers| answers.generation_tokens),
        );
        by_streaming("sglang:num_requests_total", "Ended requests.", each(|answers| answers.requests));
    }
    if shown.cached_tokens > 0 {
        let name = "sglang:cached_tokens_total";
        page.open(name, "counter", "Prompt tokens of ended requests that came from the cache.");
        page.front(name, &[("cache_source", "device")], shown.cached_tokens as f64);
    }
    if shown.aborted > 0 {
        let name = "sglang:num_aborted_requests_total";
        page.open(name, "counter", "Requests whose clients left.");
        page.front(name, &[], shown.aborted as f64);
    }
}

pub(super) fn startup(page: &mut Families<'_>, config: &Config) {
    let name = "sglang:startup_time_seconds";
    page.open(name, "gauge", "Duration of the start by phase, seconds.");
    let delay = config.startup_delay.as_secs_f64();
    for (phase, seconds) in [
        ("load_weight", delay),
        ("kv_cache_allocation", 0.0),
        ("scheduler_e2e", delay),
        ("tokenizer_e2e", delay + config.warmup.as_secs_f64()),
    ] {
        page.front(name, &[("phase", phase)], seconds);
    }
    let name = "sglang:startup_cuda_graph_time_seconds";
    page.open(name, "gauge", "Capture of graphs by phase, seconds.");
    for phase in GRAPH_PHASES {
        page.front(name, &[("phase", phase)], 0.0);
    }
}

pub(super) fn scheduler(page: &mut Families<'_>, sight: &Sight<'_>) {
    let shown = sight.shown;
    let (computed, hits) = (shown.prefill_compute as f64, shown.prefill_cache as f64);
    page.series(
        "sglang:prefill_effective_tokens_total",
        "counter",
        "Tokens of prefill batches by where they came from.",
        "mode",
        &[("input", computed), ("device_hit", hits), ("host_hit", 0.0), ("storage_hit", 0.0)],
    );
    if shown.retracted > 0 {
        let name = "sglang:num_retracted_requests_total";
        page.open(name, "counter", "Times that a request lost its KV tokens.");
        page.scheduler(name, &[], shown.retracted as f64);
    }
    let idle = shown.idle_time(sight.now).as_secs_f64();
    let name = "sglang:scheduler_idle_seconds_total";
    page.open(name, "counter", "Time without work, seconds.");
    page.scheduler(name, &[], idle);
    let name = "sglang:scheduler_process_cpu_seconds_total";
    page.open(name, "counter", "CPU time of the scheduler, seconds.");
    page.scheduler(name, &[], cpu_seconds_of_this());
    stages(page, sight, idle);
    unused(page);
    let passes = [("prefill_none", shown.prefill_passes as f64), ("decode_none", shown.decode_passes as f64)];
    used(page, "sglang:cuda_graph_passes_total", "Forward passes by kind and graph.", &passes);
    let tokens = [("prefill_compute", computed), ("decode", shown.decode as f64), ("prefill_cache", hits)];
    used(page, "sglang:realtime_tokens_total", "Tokens as they are computed, by kind.", &tokens);
    if shown.evicted_tokens > 0 {
        let name = "sglang:evicted_tokens_total";
        page.open(name, "counter", "Tokens that the prefix cache forgot.");
        let labels =
            [("cache_type", "UnifiedRadixCache"), ("dp_rank", "0"), ("pp_rank", "0"), ("tp_rank", "0")];
        page.bare(name, &labels, shown.evicted_tokens as f64);
    }
}

/// A family whose series come one by one, each with its first event.
fn used(page: &mut Families<'_>, name: &str, help: &str, values: &[(&str, f64)]) {
    let values: Vec<(&str, f64)> = values.iter().copied().filter(|(_, value)| *value > 0.0).collect();
    if !values.is_empty() {
        page.series(name, "counter", help, "mode", &values);
    }
}

fn stages(page: &mut Families<'_>, sight: &Sight<'_>, idle: f64) {
    let name = "sglang:scheduler_stage_seconds_total";
    page.open(name, "counter", "Time of the scheduler's loop by stage, seconds.");
    for stage in STAGES {
        let seconds = match stage {
            "idle" => idle,
            "run_batch" => sight.now.as_secs_f64() - idle,
            _ => 0.0,
        };
        page.scheduler(name, &[("category", stage), ("forward_overlap", "none")], seconds);
    }
}

fn unused(page: &mut Families<'_>) {
    let help = "Tokens of steps in step with other ranks; there are none.";
    let kinds = [("scheduled", 0.0), ("imbalance", 0.0)];
    page.series("sglang:dp_attention_tokens_total", "counter", help, "kind", &kinds);
    let help = "Steps in step with other ranks; there are none.";
    let states = [("active", 0.0), ("idle", 0.0)];
    page.series("sglang:dp_attention_steps_total", "counter", help, "rank_state", &states);
    let help = "Pairs of tokens attended in such steps.";
    page.series("sglang:dp_attention_pairs_total", "counter", help, "kind", &kinds);
}
