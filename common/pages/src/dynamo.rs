//! The names of NVIDIA Dynamo 1.6: what its workers add to the page of the engine that they run, and its front-end.

use plimsoll_common::engine::{DistributionKind, Role};

use super::{
    dialect::{Dialect, Signal, all, core, histogram, live, other},
    page::Counter,
    quantity::Quantity,
};
use crate::exposition::Labels;

/// A worker's own families. The engine's families stand on the same page once it has served a request.
pub(super) const WORKER: Dialect = Dialect {
    model_labels: &[],
    engine_label: "worker_id",
    ranks: &[],
    role: Some(("dynamo_component", role)),
    counts: serves,
    families: &[
        // Counted when a request comes.
        core(Signal::Counter(Counter::Started), &["dynamo_component_requests_total"]),
        core(Signal::Gauge(Quantity::Inflight), &["dynamo_component_inflight_requests"]),
        other(Signal::Gauge(Quantity::InFront), &["dynamo_work_handler_queue_depth"]),
        other(Signal::Counter(Counter::Rejected), &["dynamo_work_handler_enqueue_rejected_total"]),
        other(Signal::Gauge(Quantity::Uptime), &["dynamo_component_uptime_seconds"]),
    ],
};

/// The front-end: the queue in front of all engines of a model, and its users' view of them.
pub(super) const FRONTEND: Dialect = Dialect {
    model_labels: &["model"],
    engine_label: "model",
    ranks: &[],
    role: None,
    counts: all,
    families: &[
        // Stands on the page before the first request, and is the only one of these that does.
        core(Signal::Gauge(Quantity::ModelReady), &["dynamo_frontend_model_ready"]),
        core(
            Signal::Gauge(Quantity::FrontendInflight),
            &["dynamo_frontend_active_requests", "dynamo_frontend_inflight_requests"],
        ),
        core(Signal::Gauge(Quantity::FrontendQueued), &["dynamo_frontend_queued_requests"]),
        core(Signal::Counter(Counter::FrontendStarted), &["dynamo_frontend_requests_started_total"]),
        core(Signal::Counter(Counter::FrontendEnded), &["dynamo_frontend_requests_total"]),
        live(Signal::Pulse, &["dynamo_frontend_output_tokens_total"]),
        other(Signal::Gauge(Quantity::Uptime), &["dynamo_component_uptime_seconds"]),
        histogram(DistributionKind::FrontendTtft, &["dynamo_frontend_time_to_first_token_seconds"]),
        histogram(DistributionKind::FrontendItl, &["dynamo_frontend_inter_token_latency_seconds"]),
        histogram(DistributionKind::FrontendE2e, &["dynamo_frontend_request_duration_seconds"]),
        histogram(DistributionKind::FrontendIsl, &["dynamo_frontend_input_sequence_tokens"]),
        histogram(DistributionKind::FrontendOsl, &["dynamo_frontend_output_sequence_tokens"]),
    ],
};

/// A worker repeats its families for endpoints that serve no tokens, such as `worker_kv_query_source_…`.
fn serves(labels: Labels<'_>, _: bool) -> bool {
    labels.get("dynamo_endpoint").is_none_or(|endpoint| endpoint == "generate")
}

/// Decode workers and those that do both are components of the same name.
fn role(component: &str) -> Option<Role> {
    (component == "prefill").then_some(Role::Prefill)
}
