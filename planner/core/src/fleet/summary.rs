//! What is shown of a window: gains, rates and distributions, with units in the names.

use std::collections::BTreeMap;

use plimsoll_common::{engine::Unit, units::Micros};
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    counters::{Counts, Rates},
    observation::DistributionKey,
    series::DistributionTotal,
};

/// The quantiles that are shown: name and share.
pub const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// What a window really covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its begin.
    pub from: Micros,
    /// Its end: that of the last observation while they come, else now.
    pub to: Micros,
}

impl Span {
    /// How long it is.
    #[must_use]
    pub const fn seconds(&self) -> f64 {
        self.to.saturating_sub(self.from).as_secs_f64()
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("seconds", &self.seconds())?;
        map.serialize_entry("from_unix_seconds", &self.from.as_secs_f64())?;
        map.serialize_entry("to_unix_seconds", &self.to.as_secs_f64())?;
        map.end()
    }
}

/// What happened in a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowSummary {
    /// What it covers.
    #[serde(rename = "window")]
    pub span: Span,
    /// What the counters gained.
    pub gained: Counts,
    /// The same per second.
    pub rates: Rates,
    /// Prompt tokens found in the prefix cache, of those looked up; absent where none was looked up.
    pub prefix_cache_hit_ratio: Option<f64>,
    /// Tokens of speculative decoding that were accepted, of those proposed; absent where none was proposed.
    pub spec_acceptance_ratio: Option<f64>,
    /// The distributions.
    pub distributions: BTreeMap<DistributionKey, DistributionSummary>,
}

/// A quantile and what is certain about it, in microseconds or tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantile {
    /// The most likely value; never outside the bounds.
    pub estimate: Micros,
    /// The truth is not below this.
    pub low: Micros,
    /// The truth is not above this; `None` where nothing bounds it.
    pub high: Option<Micros>,
}

impl Quantile {
    /// An estimate, brought within its bounds.
    #[must_use]
    pub fn new(estimate: Micros, (low, high): (Micros, Option<Micros>)) -> Self {
        let high = high.map(|high| high.max(low));
        let estimate = high.map_or(estimate, |high| estimate.min(high)).max(low);
        Self { estimate, low, high }
    }
}

/// One distribution over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DistributionSummary {
    /// What is distributed, and what it was made from.
    pub key: DistributionKey,
    /// How many samples.
    pub count: u64,
    /// Their sum, microseconds or tokens: exact.
    pub sum: u64,
    /// In the order of [`QUANTILES`]; `None` where there are no samples.
    pub quantiles: [Option<Quantile>; 3],
    /// How many samples lie above the highest edge, so that nothing bounds them from above.
    pub saturated: u64,
}

impl DistributionSummary {
    /// A value of this distribution in its published unit: seconds or tokens.
    #[must_use]
    pub const fn published(&self, value: Micros) -> f64 {
        value.0 as f64 / self.key.kind.unit().per_published()
    }

    /// The mean in the published unit; `None` where there are no samples.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.published(Micros(self.sum)) / self.count as f64)
    }
}

#[derive(Serialize)]
struct Shown {
    estimate: f64,
    low: f64,
    high: Option<f64>,
}

impl Serialize for DistributionSummary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mean, names) = match self.key.kind.unit() {
            Unit::Seconds => ("mean_seconds", ["p50_seconds", "p95_seconds", "p99_seconds"]),
            Unit::Tokens => ("mean_tokens", ["p50_tokens", "p95_tokens", "p99_tokens"]),
        };
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("source", &self.key.source)?;
        map.serialize_entry("count", &self.count)?;
        map.serialize_entry(mean, &self.mean())?;
        for (name, quantile) in names.iter().zip(&self.quantiles) {
            let shown = quantile.map(|quantile| Shown {
                estimate: self.published(quantile.estimate),
                low: self.published(quantile.low),
                high: quantile.high.map(|high| self.published(high)),
            });
            map.serialize_entry(name, &shown)?;
        }
        map.serialize_entry("saturated", &self.saturated)?;
        map.end()
    }
}

/// What was gained since something was first seen by this planner.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// The begin of the first window.
    pub since: Micros,
    /// What the counters gained.
    pub counts: Counts,
    /// What the distributions gained.
    pub distributions: Vec<(DistributionKey, DistributionTotal)>,
}

impl Serialize for Totals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Distributions<'a>(&'a [(DistributionKey, DistributionTotal)]);
        impl Serialize for Distributions<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(key, total)| (key, shown(*key, *total))))
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("since_unix_seconds", &self.since.as_secs_f64())?;
        map.serialize_entry("counters", &self.counts)?;
        map.serialize_entry("distributions", &Distributions(&self.distributions))?;
        map.end()
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum ShownTotal {
    Seconds { count: u64, sum_seconds: f64 },
    Tokens { count: u64, sum_tokens: u64 },
}

fn shown(key: DistributionKey, total: DistributionTotal) -> ShownTotal {
    let DistributionTotal { count, sum } = total;
    match key.kind.unit() {
        Unit::Seconds => ShownTotal::Seconds { count, sum_seconds: Micros(sum).as_secs_f64() },
        Unit::Tokens => ShownTotal::Tokens { count, sum_tokens: sum },
    }
}
