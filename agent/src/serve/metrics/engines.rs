//! The engines' families.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::{DistributionKind, SleepState, Unit},
    units::Ratio,
};
use plimsoll_shell::metrics::{
    Label, MetricPage,
    MetricType::{Counter, Gauge, Histogram},
};
use tokio::time::Instant;

use super::states;
use crate::window::EngineView;

/// A gauge: its name, what it tells, and where it stands.
type GaugeRow = (&'static str, &'static str, fn(&EngineView) -> Option<f64>);

const GAUGES: &[GaugeRow] = &[
    ("plimsoll_engine_requests_running", "Requests in the running batch.", |v| {
        v.gauges.running.map(|n| n as f64)
    }),
    ("plimsoll_engine_requests_waiting", "Requests waiting to be scheduled.", |v| {
        v.gauges.waiting.map(|n| n as f64)
    }),
    (
        "plimsoll_engine_requests_waiting_for_capacity",
        "Of the waiting requests, those for which there is no room.",
        |v| v.gauges.waiting_capacity.map(|n| n as f64),
    ),
    (
        "plimsoll_engine_requests_waiting_deferred",
        "Of the waiting requests, those that wait for something else than room.",
        |v| v.gauges.waiting_deferred.map(|n| n as f64),
    ),
    ("plimsoll_engine_requests_paused", "Requests that keep their place while the engine is paused.", |v| {
        v.gauges.paused.map(|n| n as f64)
    }),
    ("plimsoll_engine_kv_cache_utilization_ratio", "KV-cache utilization, 0 to 1.", |v| {
        v.gauges.kv_usage.map(Ratio::get)
    }),
    (
        "plimsoll_engine_kv_cache_utilization_max_ratio",
        "KV-cache utilization of the fullest engine of the page, 0 to 1.",
        |v| v.gauges.kv_usage_max.map(Ratio::get),
    ),
    (
        "plimsoll_engine_kv_offload_utilization_ratio",
        "Utilization of the tier below the KV cache, 0 to 1.",
        |v| v.gauges.kv_offload_usage.map(Ratio::get),
    ),
    (
        "plimsoll_engine_prefix_cache_hit_ratio",
        "Share of the prompt tokens found in the prefix cache, as the engine averages it.",
        |v| v.gauges.prefix_hit_ratio.map(Ratio::get),
    ),
    (
        "plimsoll_engine_spec_acceptance_ratio",
        "Share of the drafted tokens that were accepted, as the engine averages it.",
        |v| v.gauges.spec_acceptance.map(Ratio::get),
    ),
    ("plimsoll_engine_frontend_requests_inflight", "Requests within a front-end.", |v| {
        v.gauges.frontend_inflight.map(|n| n as f64)
    }),
    ("plimsoll_engine_frontend_requests_queued", "Requests without a first token in a front-end.", |v| {
        v.gauges.frontend_queued.map(|n| n as f64)
    }),
    ("plimsoll_engine_kv_capacity_tokens", "Tokens that the KV cache holds.", |v| {
        v.info.kv_capacity_tokens.map(|n| n as f64)
    }),
    ("plimsoll_engine_scrape_duration_seconds", "How long the last scrape took.", |v| {
        v.took.map(|took| took.as_secs_f64())
    }),
];

/// A counter: its name, what it counts, and where it stands.
type CounterRow = (&'static str, &'static str, fn(&EngineView) -> Option<u64>);

const COUNTERS: &[CounterRow] = &[
    ("plimsoll_engine_requests_arrived_total", "Requests that arrived since the agent started.", |v| {
        v.totals.arrived
    }),
    ("plimsoll_engine_prompt_tokens_total", "Prompt tokens processed since the agent started.", |v| {
        v.totals.prompt_tokens
    }),
    ("plimsoll_engine_generation_tokens_total", "Tokens generated since the agent started.", |v| {
        v.totals.generation_tokens
    }),
    (
        "plimsoll_engine_prefix_cache_queried_tokens_total",
        "Prompt tokens looked up in the prefix cache.",
        |v| v.totals.prefix_queries,
    ),
    ("plimsoll_engine_prefix_cache_hit_tokens_total", "Prompt tokens found in the prefix cache.", |v| {
        v.totals.prefix_hits
    }),
    ("plimsoll_engine_preemptions_total", "Preemptions since the agent started.", |v| v.totals.preemptions),
    (
        "plimsoll_engine_requests_rejected_total",
        "Requests that the engine turned away for want of room.",
        |v| v.totals.rejected,
    ),
    (
        "plimsoll_engine_kv_offload_hit_tokens_total",
        "Prompt tokens found in a tier below the KV cache or in another engine's cache.",
        |v| v.totals.offload_hits,
    ),
    ("plimsoll_engine_spec_draft_tokens_total", "Tokens that speculative decoding proposed.", |v| {
        v.totals.draft_tokens
    }),
    ("plimsoll_engine_spec_accepted_tokens_total", "Proposed tokens that were accepted.", |v| {
        v.totals.accepted_tokens
    }),
    (
        "plimsoll_engine_frontend_requests_arrived_total",
        "Requests that arrived at a front-end: the engines' requests, seen once more.",
        |v| v.totals.frontend_arrived,
    ),
    (
        "plimsoll_engine_missed_iterations_total",
        "Iterations that TensorRT-LLM's statistics lacked, by the gaps in their numbers.",
        |v| Some(v.quality.missed_iterations).filter(|_| v.info.kind == "trtllm"),
    ),
    ("plimsoll_engine_counter_resets_total", "How often the engine's counters began again.", |v| {
        v.totals.resets
    }),
    ("plimsoll_engine_malformed_lines_total", "Lines of the engine's page that could not be read.", |v| {
        Some(v.quality.malformed_lines)
    }),
    (
        "plimsoll_engine_dropped_samples_total",
        "Samples of the engine's page beyond the agent's limits.",
        |v| Some(v.quality.dropped_samples + v.unplaced),
    ),
    (
        "plimsoll_engine_torn_histograms_total",
        "Histograms read in the middle of a change, and read again.",
        |v| Some(v.quality.torn_histograms),
    ),
];

pub(super) fn gauges(page: &mut MetricPage, engines: &[EngineView], now: Instant) {
    for (name, help, value) in GAUGES {
        let mut family = page.family(name, Gauge, help);
        engines.iter().for_each(|view| family.maybe(&labels(view), value(view)));
    }
    let mut age = |name: &str, help: &str, since: &dyn Fn(&EngineView) -> Option<Instant>| {
        let mut family = page.family(name, Gauge, help);
        for view in engines {
            let age = since(view).map(|since| now.saturating_duration_since(since).as_secs_f64());
            family.maybe(&labels(view), age);
        }
    };
    age("plimsoll_engine_sample_age_seconds", "How old the engine's values on this page are.", &|v| v.read);
    let help = "For how long nothing on the page has moved, where gauges only move when a request ends.";
    age("plimsoll_engine_signal_age_seconds", help, &|v| v.signal_since);
    let sleeping: Vec<_> =
        engines.iter().filter_map(|v| Some((labels(v).to_vec(), v.gauges.sleep?.as_str()))).collect();
    let sleeps =
        [SleepState::Awake, SleepState::WeightsOffloaded, SleepState::DiscardAll].map(SleepState::as_str);
    let help = "Whether an engine sleeps; 1 for the state that holds.";
    states(page, "plimsoll_engine_sleep_state", help, &sleeping, &sleeps);
}

pub(super) fn counters(page: &mut MetricPage, engines: &[EngineView]) {
    for (name, help, value) in COUNTERS {
        let mut family = page.family(name, Counter, help);
        engines.iter().for_each(|view| family.maybe(&labels(view), value(view)));
    }
    let name = "plimsoll_engine_requests_finished_total";
    let mut family = page.family(name, Counter, "Requests that ended since the agent started, by reason.");
    for view in engines {
        let [engine, model] = labels(view);
        for (reason, value) in [
            ("stop", view.totals.finished_stop),
            ("length", view.totals.finished_length),
            ("abort", view.totals.aborted),
            ("error", view.totals.errored),
            ("untold", view.totals.ended),
        ] {
            family.maybe(&[engine, model, ("reason", reason)], value);
        }
    }
}

/// How many samples of each distribution lie above the highest edge of the engine's buckets.
pub(super) fn saturated(page: &mut MetricPage, engines: &[EngineView]) {
    let help = "Samples above the highest edge of the engine's buckets: how long they took is not known.";
    let mut family = page.family("plimsoll_engine_saturated_samples_total", Counter, help);
    for view in engines {
        let [engine, model] = labels(view);
        for (kind, total) in &view.cumulative {
            let last = total.counts.layout().buckets() - 1;
            let above = total.counts.nonzero().find(|(bucket, _)| *bucket == last).map_or(0, |(_, n)| n);
            family.sample(&[engine, model, ("distribution", kind.as_str())], above);
        }
    }
}

/// Each engine's distributions under one name for all kinds of engines, in the engine's own buckets.
pub(super) fn distributions(page: &mut MetricPage, engines: &[EngineView]) {
    for kind in DistributionKind::ALL {
        let unit = match kind.unit() {
            Unit::Seconds => "seconds",
            Unit::Tokens => "tokens",
        };
        let name = format!("plimsoll_engine_{}_{unit}", kind.as_str());
        let help = format!("The engine's {kind} since the agent first saw it, in the engine's own buckets.");
        let mut family = page.family(&name, Histogram, &help);
        for view in engines {
            let Some(total) = view.cumulative.get(kind) else { continue };
            let [engine, model] = labels(view);
            let counts: BTreeMap<usize, u64> = total.counts.nonzero().collect();
            let mut upto = 0u64;
            for (bucket, edge) in total.counts.layout().edges().iter().enumerate() {
                upto += counts.get(&bucket).copied().unwrap_or(0);
                family.suffixed("_bucket", &[engine, model, ("le", &edge.to_string())], upto);
            }
            upto += counts.get(&total.counts.layout().edges().len()).copied().unwrap_or(0);
            family.suffixed("_bucket", &[engine, model, ("le", "+Inf")], upto);
            family.suffixed("_sum", &[engine, model], total.sum as f64 / kind.unit().per_published());
            family.suffixed("_count", &[engine, model], upto);
        }
    }
}

pub(super) fn labels(view: &EngineView) -> [Label<'_>; 2] {
    [
        ("engine", view.info.id.as_str()),
        ("model", view.info.model.as_ref().map_or("", |model| model.as_str())),
    ]
}
