//! Exact sources.

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    histogram::LatencyHistogram,
    units::Ratio,
};
use plimsoll_shell::metrics::{
    Label, MetricPage,
    MetricType::{Counter, Gauge, Summary},
};

use super::{engines::labels, states};
use crate::{
    exact::{PassGauges, SourceKey, SourceState, SourceStatus},
    serve::exact::{QUANTILES, name},
    window::EngineView,
};

/// Each engine's exact distributions: quantiles of the last 30 to 60 s, sum and count since the agent started. A
/// histogram of the fleet's 3,456 cells would be no page.
pub(super) fn distributions(page: &mut MetricPage, engines: &[EngineView]) {
    for kind in DistributionKind::ALL {
        let unit = match kind.unit() {
            Unit::Seconds => "seconds",
            Unit::Tokens => "tokens",
        };
        let per_published = kind.unit().per_published();
        let full = format!("plimsoll_engine_{}_{unit}", name(*kind));
        let help = format!(
            "The engine's {kind} from single records: quantiles of the last half minute, sum and count since the agent \
             started."
        );
        let mut family = page.family(&full, Summary, &help);
        for view in engines {
            let Some(total) = view.exact.totals.get(kind) else { continue };
            let [engine, model] = labels(view);
            let mut recent = LatencyHistogram::new();
            if let Some(samples) = view.exact.recent.get(*kind) {
                samples.add_into(&mut recent);
            }
            for (_, q) in QUANTILES {
                let value = Ratio::new(q).ok().and_then(|q| recent.quantile(q));
                let value = value.map_or(f64::NAN, |value| value.0 as f64 / per_published);
                family.sample(&[engine, model, ("quantile", &q.to_string())], value);
            }
            family.suffixed("_sum", &[engine, model], total.sum as f64 / per_published);
            family.suffixed("_count", &[engine, model], total.count);
        }
    }
}

/// What the schedulers tell in their forward-pass metrics.
pub(super) fn passes(page: &mut MetricPage, engines: &[EngineView]) {
    type Value = fn(&PassGauges) -> u64;
    let gauges: [(&str, &str, Value); 4] = [
        ("forward_pass_ranks", "Ranks whose forward passes are heard.", |g| g.ranks),
        ("queued_prefill_requests", "Requests queued for prefill, by the scheduler's own count.", |g| {
            g.queued_prefill_requests
        }),
        ("queued_prefill_tokens", "Prompt tokens of the requests queued for prefill.", |g| {
            g.queued_prefill_tokens
        }),
        (
            "queued_decode_requests",
            "Requests queued for decode: preempted, or waiting for their KV cache.",
            |g| g.queued_decode_requests,
        ),
    ];
    for (name, help, value) in gauges {
        let name = format!("plimsoll_engine_{name}");
        let mut family = page.family(&name, Gauge, help);
        for view in engines {
            let told = view.exact.passes.and_then(|passes| passes.gauges);
            family.maybe(&labels(view), told.map(|gauges| value(&gauges)));
        }
    }
    let help = "Share of the last window that was spent in forward passes, the mean of the ranks.";
    let mut busy = page.family("plimsoll_engine_forward_pass_busy_ratio", Gauge, help);
    for view in engines {
        busy.maybe(&labels(view), view.exact.passes.and_then(|passes| passes.busy).map(Ratio::get));
    }
    let help = "Forward-pass messages that were sent and never came.";
    let mut lost = page.family("plimsoll_engine_forward_pass_messages_lost_total", Counter, help);
    for view in engines {
        lost.maybe(&labels(view), view.exact.passes.map(|passes| passes.lost));
    }
}

/// How the sources are.
pub(super) fn sources(page: &mut MetricPage, sources: &[(SourceKey, SourceStatus)]) {
    let all = SourceState::ALL.map(SourceState::as_str);
    let rows: Vec<_> =
        sources.iter().map(|(key, status)| (source_labels(key).to_vec(), status.state.as_str())).collect();
    let help = "How an exact source is; 1 for the state that holds.";
    states(page, "plimsoll_exact_source_state", help, &rows, &all);
    type Value = fn(&SourceStatus) -> u64;
    let counters: [(&str, &str, Value); 6] = [
        ("records", "Records of requests or forward passes that were counted.", |s| s.records),
        ("skipped", "Records that are none to be counted: aborted requests, other spans, heartbeats.", |s| {
            s.skipped
        }),
        ("malformed", "Records, or values in them, that can't be read or can't be true.", |s| s.malformed),
        ("dropped", "Records that were not counted for want of room.", |s| s.dropped),
        ("lost", "Records that were sent and never came.", |s| s.lost),
        ("unknown_engine", "Records of engines that are not among the endpoints.", |s| s.unknown),
    ];
    for (name, help, value) in counters {
        let name = format!("plimsoll_exact_source_{name}_total");
        let mut family = page.family(&name, Counter, help);
        sources.iter().for_each(|(key, status)| family.sample(&source_labels(key), value(status)));
    }
    let help = "Bytes of request logs that are written and not read yet.";
    let mut behind = page.family("plimsoll_exact_source_behind_bytes", Gauge, help);
    sources.iter().for_each(|(key, status)| behind.maybe(&source_labels(key), status.behind_bytes));
}

fn source_labels(key: &SourceKey) -> [Label<'_>; 3] {
    [
        ("source", key.kind.as_str()),
        ("engine", key.engine.as_ref().map_or("", |engine| engine.as_str())),
        ("place", key.place.as_str()),
    ]
}
