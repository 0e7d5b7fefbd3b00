//! Exact sources in JSON.

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    histogram::{LatencyHistogram, SparseHistogram, layout},
    ids::EngineId,
    units::{Micros, Ratio},
};
use serde_json::{Map, Value, json};

use crate::{
    exact::{SourceKey, SourceStatus},
    window::EngineView,
};

/// The quantiles that are shown.
pub(super) const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// The name of an exact distribution. The bucketed one of the same kind is called by the kind alone: the two are never
/// one.
pub(super) fn name(kind: DistributionKind) -> String {
    format!("{kind}_exact")
}

/// The exact distributions of the last 30 to 60 s, by name.
pub(super) fn distributions(view: &EngineView) -> impl Iterator<Item = (String, Value)> {
    view.exact.recent.iter().map(|(kind, samples)| (name(kind), distribution(kind, samples)))
}

fn distribution(kind: DistributionKind, samples: &SparseHistogram) -> Value {
    let (suffix, unit) = match kind.unit() {
        Unit::Seconds => ("seconds", 1e6),
        Unit::Tokens => ("tokens", 1.0),
    };
    let mut dense = LatencyHistogram::new();
    samples.add_into(&mut dense);
    let count = dense.count();
    let last = layout::CELLS as u16 - 1;
    let beyond =
        samples.cells().filter(|(cell, _)| *cell == last).fold(0, |sum, (_, n)| n.saturating_add(sum));
    let mut object = Map::new();
    object.insert("source".to_owned(), json!("exact"));
    object.insert("count".to_owned(), json!(count));
    object.insert("saturated".to_owned(), json!(beyond));
    let mean = (count > 0).then(|| samples.sum() as f64 / unit / count as f64);
    object.insert(format!("mean_{suffix}"), json!(mean));
    for (name, q) in QUANTILES {
        let at = Ratio::new(q).ok().and_then(|q| dense.quantile(q)).map(|value| shown(value, unit));
        object.insert(format!("{name}_{suffix}"), json!(at));
    }
    Value::Object(object)
}

/// The truth lies within the value's cell.
fn shown(value: Micros, unit: f64) -> Value {
    let cell = layout::cell_of(value.0);
    let high = (usize::from(cell) < layout::CELLS - 1).then(|| layout::highest_in(cell) as f64 / unit);
    json!({
        "estimate": value.0 as f64 / unit,
        "low": layout::lowest_in(cell) as f64 / unit,
        "high": high,
    })
}

/// What the schedulers tell; null where nobody listens.
pub(super) fn passes(view: &EngineView) -> Value {
    let Some(passes) = view.exact.passes else { return Value::Null };
    json!({
        "busy_ratio": passes.busy.map(Ratio::get),
        "ranks": passes.gauges.map(|gauges| gauges.ranks),
        "queued_prefill_requests": passes.gauges.map(|gauges| gauges.queued_prefill_requests),
        "queued_prefill_tokens": passes.gauges.map(|gauges| gauges.queued_prefill_tokens),
        "queued_decode_requests": passes.gauges.map(|gauges| gauges.queued_decode_requests),
        "messages_lost": passes.lost,
    })
}

/// The sources of one engine, or (`None`) those that serve all.
pub(super) fn sources(all: &[(SourceKey, SourceStatus)], engine: Option<&EngineId>) -> Vec<Value> {
    all.iter()
        .filter(|(key, _)| key.engine.as_ref() == engine)
        .map(|(key, status)| source(key, status))
        .collect()
}

/// All sources.
pub(super) fn all_sources(all: &[(SourceKey, SourceStatus)]) -> Vec<Value> {
    all.iter().map(|(key, status)| source(key, status)).collect()
}

fn source(key: &SourceKey, status: &SourceStatus) -> Value {
    json!({
        "source": key.kind.as_str(),
        "engine": key.engine,
        "place": key.place,
        "state": status.state.as_str(),
        "detail": status.detail,
        "records": status.records,
        "skipped": status.skipped,
        "malformed": status.malformed,
        "dropped": status.dropped,
        "lost": status.lost,
        "unknown_engine": status.unknown,
        "behind_bytes": status.behind_bytes,
    })
}
