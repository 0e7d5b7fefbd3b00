//! The names of Triton's TensorRT-LLM backend. Read in its source, not seen on the wire.

use super::{
    dialect::{Dialect, Family, Signal, all, core, other},
    quantity::Quantity,
};

pub(super) const DIALECT: Dialect = Dialect {
    model_labels: &["model"],
    engine_label: "version",
    ranks: &[],
    role: None,
    counts: all,
    families: FAMILIES,
};

// Triton's own request counters count a request once for each model of an ensemble: nothing is read of them.
const FAMILIES: &[Family] = &[
    core(Signal::GaugeBy("request_type", request), &["nv_trt_llm_request_metrics"]),
    core(Signal::GaugeBy("kv_cache_block_type", block), &["nv_trt_llm_kv_cache_block_metrics"]),
    other(Signal::Gauge(Quantity::ProcessStart), &["process_start_time_seconds"]),
];

fn request(kind: &str) -> Option<Quantity> {
    match kind {
        "scheduled" => Some(Quantity::Running),
        "waiting" => Some(Quantity::Waiting),
        _ => None,
    }
}

fn block(kind: &str) -> Option<Quantity> {
    match kind {
        "fraction" => Some(Quantity::KvUsage),
        "max" => Some(Quantity::KvBlocks),
        "used" => Some(Quantity::KvUsedBlocks),
        "tokens_per" => Some(Quantity::KvBlockTokens),
        _ => None,
    }
}
