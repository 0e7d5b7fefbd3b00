//! Gauges.

use super::{Families, Sight, counters::GRAPH_PHASES};
use crate::{
    api::HttpStats,
    state::{EngineState, sglang::Sglang},
};

const GIB: f64 = 1_073_741_824.0;

/// Bounds of the distributions of routing keys, which nobody sends here.
const ROUTING_BOUNDS: [&str; 12] = ["0", "1", "2", "3", "5", "7", "10", "20", "50", "100", "200", "+Inf"];

pub(super) fn http(page: &mut Families<'_>, stats: &HttpStats) {
    let name = "sglang:routing_keys_active";
    page.open(name, "gauge", "Routing keys with requests in flight.");
    page.bare(name, &[], 0.0);
    let name = "sglang:http_requests_active";
    page.open(name, "gauge", "Requests whose response has not ended.");
    for seen in &stats.endpoints {
        page.bare(name, &[("endpoint", &seen.endpoint), ("method", seen.method)], seen.active as f64);
    }
}

pub(super) fn capacity(page: &mut Families<'_>, sight: &Sight<'_>) {
    let (config, capacity) = (sight.config, sight.shown.gauges.capacity_tokens);
    let kv_bytes = capacity.saturating_mul(config.gpus.kv_bytes_per_token) as f64;
    page.gauge("sglang:max_total_num_tokens", "Tokens that the KV pool holds.", capacity as f64);
    let weights = config.gpus.weights_bytes as f64 / GIB;
    page.gauge("sglang:weight_memory_usage_gb", "Memory of the weights, GiB.", weights);
    page.gauge("sglang:kv_cache_memory_usage_gb", "Memory of the KV pool, GiB.", kv_bytes / GIB);
    let phases = GRAPH_PHASES.map(|phase| (phase, 0.0));
    let name = "sglang:graph_memory_usage_gb";
    page.series(name, "gauge", "Memory of captured graphs, GiB.", "phase", &phases);
    page.gauge("sglang:page_size", "Tokens in a KV page.", f64::from(config.engine.block_size));
    page.gauge("sglang:num_pages", "KV pages.", f64::from(config.engine.kv_blocks));
    page.gauge("sglang:context_len", "Longest request, tokens.", f64::from(config.engine.max_model_len));
    let free = (config.gpus.memory_bytes as f64 - config.gpus.weights_bytes as f64 - kv_bytes).max(0.0);
    let name = "sglang:startup_available_gpu_memory_gb";
    page.gauge(name, "Memory that was left after the start, GiB.", free / GIB);
}

pub(super) fn load(page: &mut Families<'_>, sight: &Sight<'_>) {
    let gauges = &sight.shown.gauges;
    page.gauge("sglang:num_running_reqs", "Requests that run.", gauges.running as f64);
    page.gauge("sglang:num_queue_reqs", "Requests in the queue.", gauges.queue as f64);
    page.gauge("sglang:num_grammar_queue_reqs", "Requests that wait for a grammar.", 0.0);
    page.gauge("sglang:gen_throughput", "Tokens generated per second.", gauges.gen_throughput);
    page.gauge(
        "sglang:cache_hit_rate",
        "Prefix hits of the last prefill batch, 0 to 1.",
        gauges.cache_hit_rate,
    );
    page.gauge(
        "sglang:decode_sum_seq_lens",
        "Tokens of all sequences that decode.",
        gauges.decode_sum_seq_lens as f64,
    );
    let usage = gauges.usage();
    let rounded = (usage * 100.0).round() / 100.0;
    page.gauge("sglang:token_usage", "Share of the pool that requests hold, rounded.", rounded);
    page.gauge("sglang:full_token_usage", "Share of the pool that requests hold.", usage);
    page.gauge("sglang:swa_token_usage", "Share of the sliding-window pool.", 0.0);
    page.gauge("sglang:mamba_usage", "Share of the state pool.", 0.0);
    page.gauge("sglang:num_used_tokens", "Tokens that requests hold.", gauges.used_tokens as f64);
}

pub(super) fn pools(page: &mut Families<'_>, shown: &Sglang) {
    let gauges = &shown.gauges;
    page.gauge("sglang:kv_available_tokens", "Free tokens of the pool.", gauges.available_tokens() as f64);
    let help = "Tokens of the pool that only the prefix cache holds.";
    page.gauge("sglang:kv_evictable_tokens", help, gauges.evictable_tokens as f64);
    page.gauge("sglang:kv_used_tokens", "Tokens of the pool that requests hold.", gauges.used_tokens as f64);
}

pub(super) fn unused(page: &mut Families<'_>) {
    for name in [
        "sglang:swa_available_tokens",
        "sglang:swa_evictable_tokens",
        "sglang:swa_used_tokens",
        "sglang:mamba_available_tokens",
        "sglang:mamba_evictable_tokens",
        "sglang:mamba_used_tokens",
        "sglang:spec_accept_length",
        "sglang:spec_accept_rate",
        "sglang:spec_cap_length",
        "sglang:spec_block_accept_length",
        "sglang:spec_num_steps",
        "sglang:spec_num_draft_tokens",
        "sglang:num_prefill_bootstrap_queue_reqs",
        "sglang:num_prefill_inflight_queue_reqs",
        "sglang:num_decode_prealloc_queue_reqs",
        "sglang:num_decode_transfer_queue_reqs",
        "sglang:num_decode_host_receive_queue_reqs",
        "sglang:num_decode_deferred_kv_release_reqs",
        "sglang:pending_prealloc_token_usage",
        "sglang:prealloc_full_token_usage",
        "sglang:prealloc_swa_token_usage",
        "sglang:utilization",
    ] {
        page.gauge(name, "Of a feature that is off here.", 0.0);
    }
    page.gauge("sglang:fwd_occupancy", "Occupancy of forward passes (not measured).", f64::NAN);
    page.gauge("sglang:new_token_ratio", "Share of new tokens that admission reserves.", 0.7);
    page.gauge("sglang:is_cuda_graph", "Whether the batch runs as a graph.", 0.0);
}

pub(super) fn routing_keys(page: &mut Families<'_>) {
    let name = "sglang:num_unique_running_routing_keys";
    page.gauge(name, "Routing keys of running requests.", 0.0);
    for name in ["sglang:routing_key_running_req_count", "sglang:routing_key_all_req_count"] {
        page.open(name, "gauge", "Routing keys by their number of requests, above gt and up to le.");
        for pair in ROUTING_BOUNDS.windows(2) {
            if let [above, up_to] = pair {
                page.scheduler(name, &[("gt", above), ("le", up_to)], 0.0);
            }
        }
    }
}

pub(super) fn paused(page: &mut Families<'_>, state: &EngineState) {
    let pid = std::process::id().to_string();
    let paused = if state.sleep > 0 { state.load.waiting } else { 0 };
    for (name, help, value) in [
        ("sglang:num_retracted_reqs", "Requests that lost their KV tokens in the last step.", 0.0),
        ("sglang:num_paused_reqs", "Requests held back by a pause.", f64::from(paused)),
    ] {
        page.open(name, "gauge", help);
        page.scheduler(name, &[("pid", &pid)], value);
    }
}
