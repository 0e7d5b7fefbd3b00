//! The engines' families.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    units::Ratio,
    wire::EngineState,
};
use plimsoll_shell::metrics::{
    Label, MetricPage,
    MetricType::{Counter, Gauge, Histogram},
};
use tokio::time::Instant;

use super::states;
use crate::window::EngineView;

pub(super) fn gauges(page: &mut MetricPage, engines: &[EngineView], now: Instant) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&EngineView) -> Option<f64>| {
        let mut family = page.family(name, Gauge, help);
        for view in engines {
            family.maybe(&labels(view), value(view));
        }
    };
    gauge("plimsoll_engine_requests_running", "Requests in the running batch.", &|v| {
        v.gauges.running.map(|n| n as f64)
    });
    gauge("plimsoll_engine_requests_waiting", "Requests waiting to be scheduled.", &|v| {
        v.gauges.waiting.map(|n| n as f64)
    });
    gauge("plimsoll_engine_kv_cache_utilization_ratio", "KV-cache utilization, 0 to 1.", &|v| {
        v.gauges.kv_usage.map(Ratio::get)
    });
    gauge("plimsoll_engine_kv_capacity_tokens", "Tokens that the KV cache holds.", &|v| {
        v.info.kv_capacity_tokens.map(|n| n as f64)
    });
    gauge("plimsoll_engine_scrape_duration_seconds", "How long the last scrape took.", &|v| {
        v.took.map(|took| took.as_secs_f64())
    });
    gauge("plimsoll_engine_sample_age_seconds", "How old the engine's values on this page are.", &|v| {
        v.read.map(|read| now.saturating_duration_since(read).as_secs_f64())
    });
    let all = [EngineState::Ready, EngineState::Unreachable, EngineState::Unrecognised, EngineState::Pending]
        .map(EngineState::as_str);
    let rows: Vec<_> = engines.iter().map(|v| (labels(v).to_vec(), v.state.as_str())).collect();
    states(page, "plimsoll_engine_state", "How an engine is seen; 1 for the state that holds.", &rows, &all);
}

pub(super) fn counters(page: &mut MetricPage, engines: &[EngineView]) {
    let mut counter = |name: &str, help: &str, value: &dyn Fn(&EngineView) -> Option<u64>| {
        let mut family = page.family(name, Counter, help);
        for view in engines {
            family.maybe(&labels(view), value(view));
        }
    };
    counter(
        "plimsoll_engine_requests_arrived_total",
        "Requests that arrived since the agent started.",
        &|v| v.totals.arrived,
    );
    counter(
        "plimsoll_engine_prompt_tokens_total",
        "Prompt tokens processed since the agent started.",
        &|v| v.totals.prompt_tokens,
    );
    counter("plimsoll_engine_generation_tokens_total", "Tokens generated since the agent started.", &|v| {
        v.totals.generation_tokens
    });
    counter(
        "plimsoll_engine_prefix_cache_queried_tokens_total",
        "Prompt tokens looked up in the prefix cache.",
        &|v| v.totals.prefix_queries,
    );
    counter(
        "plimsoll_engine_prefix_cache_hit_tokens_total",
        "Prompt tokens found in the prefix cache.",
        &|v| v.totals.prefix_hits,
    );
    counter("plimsoll_engine_preemptions_total", "Preemptions since the agent started.", &|v| {
        v.totals.preemptions
    });
    counter("plimsoll_engine_counter_resets_total", "How often the engine's counters began again.", &|v| {
        v.totals.resets
    });
    counter(
        "plimsoll_engine_malformed_lines_total",
        "Lines of the engine's page that could not be read.",
        &|v| Some(v.quality.malformed_lines),
    );
    counter(
        "plimsoll_engine_dropped_samples_total",
        "Samples of the engine's page beyond the agent's limits.",
        &|v| Some(v.quality.dropped_samples + v.unplaced),
    );
    counter(
        "plimsoll_engine_torn_histograms_total",
        "Histograms read in the middle of a change, and read again.",
        &|v| Some(v.quality.torn_histograms),
    );
    let name = "plimsoll_engine_requests_finished_total";
    let mut family = page.family(name, Counter, "Requests that ended since the agent started, by reason.");
    for view in engines {
        let [engine, model] = labels(view);
        for (reason, value) in [
            ("stop", view.totals.finished_stop),
            ("length", view.totals.finished_length),
            ("abort", view.totals.aborted),
            ("error", view.totals.errored),
        ] {
            family.maybe(&[engine, model, ("reason", reason)], value);
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
