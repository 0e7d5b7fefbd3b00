//! SGLang's names, from 0.3 to 0.5.23, and how to read its labels.

use plimsoll_common::engine::{DistributionKind, Role};

use super::{
    dialect::{Dialect, Family, Signal, core, histogram, live, other},
    page::Counter,
    quantity::Quantity,
};
use crate::exposition::{Labels, Sample};

pub(super) const DIALECT: Dialect = Dialect {
    // `name` in 0.3.
    model_labels: &["model_name", "name"],
    engine_label: "dp_rank",
    ranks: &["pp_rank", "tp_rank", "moe_ep_rank"],
    role: Some(("engine_type", role)),
    counts: is_total,
    families: FAMILIES,
};

const FAMILIES: &[Family] = &[
    core(Signal::Gauge(Quantity::Running), &["sglang:num_running_reqs"]),
    core(Signal::Gauge(Quantity::Waiting), &["sglang:num_queue_reqs"]),
    other(Signal::Gauge(Quantity::AlsoDeferred), &["sglang:num_grammar_queue_reqs"]),
    // Prefill engines: until the decode engine has answered.
    other(
        Signal::Gauge(Quantity::AlsoDeferred),
        &["sglang:num_prefill_bootstrap_queue_reqs", "sglang:num_prefill_prealloc_queue_reqs"],
    ),
    // Decode engines: until there is room for the prompt's KV cache, and until it has come.
    other(Signal::Gauge(Quantity::AlsoCapacity), &["sglang:num_decode_prealloc_queue_reqs"]),
    other(Signal::Gauge(Quantity::AlsoDeferred), &["sglang:num_decode_transfer_queue_reqs"]),
    other(Signal::Gauge(Quantity::Paused), &["sglang:num_paused_reqs"]),
    // `token_usage` is rounded to 0.01, and the highest of the pools; the others are not rounded.
    core(Signal::Gauge(Quantity::KvUsage), &["sglang:full_token_usage", "sglang:token_usage"]),
    other(Signal::Gauge(Quantity::OtherPool), &["sglang:swa_token_usage"]),
    other(Signal::Gauge(Quantity::OtherPool), &["sglang:mamba_usage"]),
    other(Signal::Gauge(Quantity::KvTokens), &["sglang:max_total_num_tokens"]),
    other(Signal::GaugeOf(Quantity::KvTokens, cache_config), &["sglang:cache_config_info"]),
    other(Signal::Gauge(Quantity::KvBlocks), &["sglang:num_pages"]),
    other(Signal::Gauge(Quantity::KvBlockTokens), &["sglang:page_size"]),
    other(Signal::Gauge(Quantity::OffloadUsed), &["sglang:hicache_host_used_tokens"]),
    other(Signal::Gauge(Quantity::OffloadTokens), &["sglang:hicache_host_total_tokens"]),
    other(Signal::Gauge(Quantity::PrefixHitRatio), &["sglang:cache_hit_rate"]),
    other(Signal::Gauge(Quantity::SpecAcceptance), &["sglang:spec_accept_rate"]),
    other(Signal::Gauge(Quantity::SpecAcceptLength), &["sglang:spec_accept_length"]),
    // Counted as the batches run; the totals below are counted when a request ends.
    live(
        Signal::CounterBy(&[Counter::LivePrefill, Counter::LiveCached, Counter::LiveDecoded], live_tokens),
        &["sglang:realtime_tokens_total"],
    ),
    core(Signal::Counter(Counter::PromptTokens), &["sglang:prompt_tokens_total"]),
    core(Signal::Counter(Counter::GenerationTokens), &["sglang:generation_tokens_total"]),
    other(
        Signal::CounterBy(&[Counter::PrefixHits, Counter::CachedBelow], cached),
        &["sglang:cached_tokens_total"],
    ),
    // An aborted request counts among the ended ones, too, once the scheduler has let go of it.
    core(Signal::Counter(Counter::Ended), &["sglang:num_requests_total"]),
    other(Signal::Counter(Counter::Aborted), &["sglang:num_aborted_requests_total"]),
    // A counter since 0.5.9, the sum of a histogram from 0.5.6, a gauge that only rises from 0.4.10 to 0.5.2.
    other(
        Signal::Counter(Counter::Preemptions),
        &["sglang:num_retracted_requests_total", "sglang:num_retractions_sum", "sglang:total_retracted_reqs"],
    ),
    other(Signal::CounterBy(&[Counter::Started], started), &["sglang:http_requests_total"]),
    other(Signal::CounterBy(&[Counter::Refused], refused), &["sglang:http_responses_total"]),
    // One more with every forward pass.
    other(Signal::Pulse, &["sglang:cuda_graph_passes_total"]),
    histogram(DistributionKind::Ttft, &["sglang:time_to_first_token_seconds"]),
    // One sample a token: the gap between two chunks, divided among the tokens of the later one.
    histogram(
        DistributionKind::ItlToken,
        &["sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"],
    ),
    histogram(DistributionKind::Tpot, &["sglang:request_time_per_output_token_seconds"]),
    histogram(DistributionKind::E2e, &["sglang:e2e_request_latency_seconds"]),
    histogram(DistributionKind::Queue, &["sglang:queue_time_seconds", "sglang:queue_time_s"]),
    histogram(DistributionKind::Isl, &["sglang:prompt_tokens_histogram"]),
    histogram(DistributionKind::Osl, &["sglang:generation_tokens_histogram"]),
];

/// The routes whose requests the engine works on until the answer ends.
const GENERATION_ENDPOINTS: &[&str] = &[
    "/generate",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/audio/transcriptions",
    "/api/chat",
    "/api/generate",
    "/invocations",
    "/vertex_generate",
];

/// With priorities each gauge stands once as a whole, with an empty `priority`, and once more for each priority.
fn is_total(labels: Labels<'_>, gauge: bool) -> bool {
    !gauge || labels.get("priority").is_none_or(|priority| priority.raw().is_empty())
}

fn role(engine_type: &str) -> Option<Role> {
    match engine_type {
        "unified" => Some(Role::Aggregated),
        "prefill" => Some(Role::Prefill),
        "decode" => Some(Role::Decode),
        // `dynamic`: it changes its role at run time.
        _ => None,
    }
}

fn live_tokens(labels: Labels<'_>) -> Option<Counter> {
    match labels.get("mode")?.raw() {
        "prefill_compute" => Some(Counter::LivePrefill),
        "prefill_cache" => Some(Counter::LiveCached),
        // Without the first token of a request, which its prefill gives.
        "decode" => Some(Counter::LiveDecoded),
        _ => None,
    }
}

/// The source `total` stands for requests of which nothing finer is known; nothing is in it twice.
fn cached(labels: Labels<'_>) -> Option<Counter> {
    match labels.get("cache_source").map(|source| source.raw()) {
        Some("host" | "storage") => Some(Counter::CachedBelow),
        _ => Some(Counter::PrefixHits),
    }
}

fn generates(labels: Labels<'_>) -> bool {
    labels.get("method").is_some_and(|method| method == "POST")
        && labels.get("endpoint").is_some_and(|endpoint| GENERATION_ENDPOINTS.contains(&&*endpoint.text()))
}

/// HTTP requests, counted when they come.
fn started(labels: Labels<'_>) -> Option<Counter> {
    generates(labels).then_some(Counter::Started)
}

/// Those that the API layer refused never reached the engine.
fn refused(labels: Labels<'_>) -> Option<Counter> {
    let status = labels.get("status_code")?;
    (generates(labels) && status.raw().starts_with('4')).then_some(Counter::Refused)
}

/// 0.5.9 told the capacity by labels.
fn cache_config(sample: &Sample<'_>) -> Option<f64> {
    let number = |label: &str| sample.labels.get(label)?.text().parse::<u64>().ok();
    let tokens = number("num_pages")?.checked_mul(number("page_size")?)?;
    (tokens > 0).then_some(tokens as f64)
}
