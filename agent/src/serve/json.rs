//! How values look in JSON: absent is `null`, units are in the names.

use std::time::Duration;

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    histogram::quantile_bounds,
    units::{Micros, Ratio},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::window::Distribution;

/// Seconds since an instant, to the millisecond.
pub(super) fn age_seconds(then: Instant, now: Instant) -> f64 {
    round(now.saturating_duration_since(then).as_secs_f64(), 1e3)
}

pub(super) fn seconds(duration: Duration) -> f64 {
    round(duration.as_secs_f64(), 1e6)
}

pub(super) fn watts(milliwatts: u64) -> f64 {
    milliwatts as f64 / 1e3
}

pub(super) fn joules(millijoules: u64) -> f64 {
    millijoules as f64 / 1e3
}

/// A value to so many steps a unit.
pub(super) fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// A bucketed distribution: count, mean, and of each percentile the estimate between what is certain.
pub(super) fn distribution(kind: DistributionKind, distribution: &Distribution) -> Value {
    let histogram = distribution.histogram();
    let (suffix, unit) = match kind.unit() {
        Unit::Seconds => ("seconds", 1e6),
        Unit::Tokens => ("tokens", 1.0),
    };
    let value = |v: Micros| v.0 as f64 / unit;
    let mut object = serde_json::Map::new();
    object.insert("source".to_owned(), json!("bucketed"));
    object.insert("count".to_owned(), json!(histogram.count()));
    object.insert("saturated".to_owned(), json!(distribution.saturated));
    let mean = (histogram.count() > 0)
        .then(|| round(distribution.sum().0 as f64 / unit / histogram.count() as f64, 1e6));
    object.insert(format!("mean_{suffix}"), json!(mean));
    for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        let Ok(q) = Ratio::new(q) else { continue };
        let bounds = quantile_bounds(&distribution.buckets, q);
        let percentile = histogram.quantile(q).zip(bounds).map(|(estimate, bounds)| {
            let highest = bounds.high.unwrap_or_else(|| estimate.max(bounds.low));
            json!({
                "estimate": value(estimate.clamp(bounds.low, highest)),
                "low": value(bounds.low),
                "high": bounds.high.map(value),
            })
        });
        object.insert(format!("{name}_{suffix}"), json!(percentile));
    }
    Value::Object(object)
}
