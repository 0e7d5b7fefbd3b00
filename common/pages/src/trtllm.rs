//! TensorRT-LLM's names on the Prometheus page of `trtllm-serve`. Read in its source, not seen on the wire, but for
//! those that Dynamo's simulated engine publishes in its place.

use plimsoll_common::engine::DistributionKind;

use super::{
    dialect::{Dialect, Family, Signal, all, core, histogram, other},
    page::Counter,
    quantity::Quantity,
    vllm::finished,
};

pub(super) const DIALECT: Dialect = Dialect {
    model_labels: &["model_name"],
    engine_label: "engine",
    ranks: &[],
    role: None,
    counts: all,
    families: FAMILIES,
};

/// A name in the three spellings that it had: `trtllm_x`, `trtllm:x`, and bare `x` from 1.0 to 1.2.
macro_rules! spelled {
    ($name:literal) => {
        &[concat!("trtllm_", $name), concat!("trtllm:", $name), $name]
    };
}

// Nothing here is live: counters and histograms are written when a request ends, and so are the gauges, since the loop
// that reads the iterations wakes only then.
const FAMILIES: &[Family] = &[
    core(Signal::Gauge(Quantity::Running), spelled!("num_requests_running")),
    core(Signal::Gauge(Quantity::Waiting), spelled!("num_requests_waiting")),
    other(Signal::Gauge(Quantity::Paused), spelled!("num_paused_requests")),
    core(
        Signal::Gauge(Quantity::KvUsage),
        &[
            "trtllm_kv_cache_utilization",
            "trtllm:kv_cache_utilization",
            "kv_cache_utilization",
            // Dynamo's simulated engine.
            "trtllm:kv_cache_usage_perc",
            "trtllm:gpu_cache_usage_perc",
        ],
    ),
    other(Signal::Gauge(Quantity::KvBlocks), spelled!("kv_cache_max_blocks")),
    other(Signal::Gauge(Quantity::KvUsedBlocks), spelled!("kv_cache_used_blocks")),
    other(Signal::Gauge(Quantity::KvBlockTokens), spelled!("kv_cache_tokens_per_block")),
    other(Signal::Gauge(Quantity::PrefixHitRatio), spelled!("kv_cache_hit_rate")),
    core(Signal::Counter(Counter::PromptTokens), spelled!("prompt_tokens_total")),
    core(Signal::Counter(Counter::GenerationTokens), spelled!("generation_tokens_total")),
    other(Signal::Counter(Counter::PrefixHits), spelled!("prompt_cached_tokens_total")),
    core(Signal::CounterBy(&Counter::FINISHED, finished), spelled!("request_success_total")),
    other(Signal::Counter(Counter::Errored), spelled!("request_error_total")),
    other(Signal::Gauge(Quantity::ProcessStart), &["process_start_time_seconds"]),
    histogram(DistributionKind::Ttft, spelled!("time_to_first_token_seconds")),
    // The mean of a request, though it has the name of vLLM's old per-step family.
    histogram(DistributionKind::Tpot, spelled!("time_per_output_token_seconds")),
    // Dynamo's simulated engine; the real one has none.
    histogram(DistributionKind::ItlToken, &["trtllm:inter_token_latency_seconds"]),
    histogram(DistributionKind::E2e, spelled!("e2e_request_latency_seconds")),
    histogram(DistributionKind::Queue, spelled!("request_queue_time_seconds")),
    histogram(DistributionKind::Prefill, spelled!("request_prefill_time_seconds")),
    histogram(DistributionKind::Decode, spelled!("request_decode_time_seconds")),
    histogram(DistributionKind::Inference, spelled!("request_inference_time_seconds")),
];
