//! The ways to read a percentile from buckets, and what each says of one family of one load.

use std::collections::BTreeMap;

use plimsoll_common::{
    engine::DistributionKind,
    histogram::{BucketCounts, BucketLayout, InvalidBuckets, LatencyHistogram, place, quantile_bounds},
    units::Ratio,
};

use crate::load::Sample;

/// The percentiles that are measured.
pub(crate) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// How samples are placed within their buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    /// Evenly, as Prometheus' `histogram_quantile` does it; the interval is irrelevant.
    Linear,
    /// Evenly in the logarithm; the first bucket evenly.
    LogLinear,
    /// So that the mean comes out, by the sum of so many seconds; 0: of the whole load.
    Sum(u64),
}

/// In the order of the tables.
pub(crate) const METHODS: [Method; 7] = [
    Method::Linear,
    Method::LogLinear,
    Method::Sum(0),
    Method::Sum(60),
    Method::Sum(10),
    Method::Sum(2),
    Method::Sum(1),
];

impl Method {
    /// The name in the tables.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Linear => "linear".to_owned(),
            Self::LogLinear => "log-linear".to_owned(),
            Self::Sum(0) => "by sum, whole load".to_owned(),
            Self::Sum(seconds) => format!("by sum, each {seconds} s"),
        }
    }
}

/// One family of one load: the truth in nanoseconds, and what the methods make of its buckets in seconds.
#[derive(Debug)]
pub(crate) struct Measured {
    /// How many samples.
    pub(crate) count: u64,
    /// The exact percentiles, seconds.
    pub(crate) exact: [f64; 3],
    /// The exact mean, seconds.
    pub(crate) mean: f64,
    /// Between what each percentile lies for sure, seconds.
    pub(crate) bounds: [(f64, f64); 3],
    /// Each method's percentiles and mean, seconds.
    pub(crate) said: BTreeMap<Method, ([f64; 3], f64)>,
}

/// The counts and the sum of one interval: microseconds, as the agent tells them.
pub(crate) type Interval = (Vec<(usize, u64)>, u64);

/// Measures one family. Each second of the load is one scrape.
pub(crate) fn measure(
    kind: DistributionKind,
    edges: &[f64],
    samples: &[Sample],
) -> Result<Measured, InvalidBuckets> {
    let layout = BucketLayout::new(edges, kind.unit())?;
    let mut seconds: BTreeMap<u64, (BTreeMap<usize, u64>, u64)> = BTreeMap::new();
    for (at, nanos) in samples {
        let second = seconds.entry(at.0 / 1_000_000).or_default();
        let bucket = edges.partition_point(|edge| *edge < *nanos as f64 / 1e9);
        *second.0.entry(bucket).or_default() += 1;
        second.1 += nanos;
    }
    let scrapes = seconds
        .into_iter()
        .map(|(second, (buckets, nanos))| (second, (buckets.into_iter().collect(), nanos / 1000)))
        .collect();
    let mut exact: Vec<u64> = samples.iter().map(|(_, nanos)| *nanos).collect();
    exact.sort_unstable();
    Ok(compare(&layout, &scrapes, &exact))
}

/// Compares what the scrapes of each second tell with the exact samples, sorted nanoseconds.
pub(crate) fn compare(layout: &BucketLayout, scrapes: &BTreeMap<u64, Interval>, exact: &[u64]) -> Measured {
    let mut counts = BucketCounts::new(layout.clone());
    scrapes.values().flat_map(|(buckets, _)| buckets).for_each(|(bucket, n)| counts.add(*bucket, *n));
    let quantiles = |of: &dyn Fn(f64) -> f64| QUANTILES.map(of);
    let truth = |q: f64| {
        let rank = ((q * exact.len() as f64).ceil() as usize).clamp(1, exact.len().max(1));
        exact.get(rank - 1).map_or(f64::NAN, |nanos| *nanos as f64 / 1e9)
    };
    let bound = |q: f64| {
        let bounds = Ratio::new(q).ok().and_then(|q| quantile_bounds([&counts], q));
        bounds.map_or((f64::NAN, f64::NAN), |bounds| {
            (bounds.low.as_secs_f64(), bounds.high.map_or(f64::INFINITY, |high| high.as_secs_f64()))
        })
    };
    let total: u128 = exact.iter().map(|nanos| u128::from(*nanos)).sum();
    let said = METHODS.map(|method| {
        let told = match method {
            Method::Linear => quantiles(&|q| interpolate(layout, &counts, q, false)),
            Method::LogLinear => quantiles(&|q| interpolate(layout, &counts, q, true)),
            Method::Sum(seconds) => {
                let placed = placed(layout, scrapes, seconds);
                quantiles(&|q| {
                    let value = Ratio::new(q).ok().and_then(|q| placed.quantile(q));
                    value.map_or(f64::NAN, |value| value.as_secs_f64())
                })
            }
        };
        let mean = match method {
            Method::Linear => mean_of_middles(layout, &counts, false),
            Method::LogLinear => mean_of_middles(layout, &counts, true),
            Method::Sum(_) => {
                let sum: u64 = scrapes.values().map(|(_, sum)| sum).sum();
                sum as f64 / 1e6 / exact.len() as f64
            }
        };
        (method, (told, mean))
    });
    Measured {
        count: exact.len() as u64,
        exact: quantiles(&truth),
        mean: total as f64 / 1e9 / exact.len() as f64,
        bounds: QUANTILES.map(bound),
        said: said.into_iter().collect(),
    }
}

/// The samples placed into cells, each `seconds` by their own sum.
fn placed(layout: &BucketLayout, scrapes: &BTreeMap<u64, Interval>, seconds: u64) -> LatencyHistogram {
    let mut merged: BTreeMap<u64, (BTreeMap<usize, u64>, u64)> = BTreeMap::new();
    for (second, (buckets, sum)) in scrapes {
        let into = merged.entry(second.checked_div(seconds).unwrap_or(0)).or_default();
        buckets.iter().for_each(|(bucket, n)| *into.0.entry(*bucket).or_default() += n);
        into.1 += sum;
    }
    let mut histogram = LatencyHistogram::new();
    for (buckets, sum) in merged.into_values() {
        let buckets: Vec<_> = buckets.into_iter().collect();
        place(layout, &buckets, sum, |cell, n| histogram.add_cell(cell, n));
    }
    histogram
}

/// A quantile as Prometheus computes it, evenly or evenly in the logarithm within the bucket; above the last edge the
/// last edge.
fn interpolate(layout: &BucketLayout, counts: &BucketCounts, q: f64, logarithmic: bool) -> f64 {
    let total: u64 = counts.nonzero().map(|(_, n)| n).sum();
    let rank = q * total as f64;
    let mut below = 0.0;
    for (bucket, n) in counts.nonzero() {
        let n = n as f64;
        if below + n >= rank {
            let (low, high) = edges_of(layout, bucket);
            let share = (rank - below) / n;
            return if logarithmic && low > 0.0 {
                low * (high / low).powf(share)
            } else {
                low + share * (high - low)
            };
        }
        below += n;
    }
    f64::NAN
}

fn mean_of_middles(layout: &BucketLayout, counts: &BucketCounts, logarithmic: bool) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (bucket, n) in counts.nonzero() {
        let (low, high) = edges_of(layout, bucket);
        // Of samples even in the logarithm the mean is the logarithmic mean of the edges.
        let middle = if logarithmic && low > 0.0 && high > low {
            (high - low) / (high / low).ln()
        } else {
            f64::midpoint(low, high)
        };
        sum += middle * n as f64;
        total += n as f64;
    }
    sum / total
}

fn edges_of(layout: &BucketLayout, bucket: usize) -> (f64, f64) {
    let edges = layout.edges();
    let last = edges.last().copied().unwrap_or(0.0);
    let low = bucket.checked_sub(1).and_then(|below| edges.get(below).copied()).unwrap_or(0.0);
    (low, edges.get(bucket).copied().unwrap_or(last))
}
