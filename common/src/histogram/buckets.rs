//! Cumulative `le` buckets as engines publish them: an engine's own layout, and the bounds it puts on a quantile.

use std::sync::Arc;

use super::{latency::rank, layout};
use crate::{
    engine::Unit,
    units::{Micros, Ratio},
};

/// The most finite edges that one family may have (vLLM's 1.1-ratio buckets have about 150).
pub const MAX_BUCKET_EDGES: usize = 512;

/// Why a list of numbers is no bucket layout.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidBuckets {
    /// No finite edge at all.
    #[error("a histogram needs at least one finite bucket edge")]
    NoEdge,
    /// More than [`MAX_BUCKET_EDGES`].
    #[error("a histogram has at most {MAX_BUCKET_EDGES} bucket edges, this one has {0}")]
    TooMany(usize),
    /// An edge was negative or not finite.
    #[error("bucket edge {0} is not a finite number of at least 0")]
    BadEdge(f64),
    /// An edge was not above the one before.
    #[error("bucket edge {0} does not rise above the edge before it")]
    NotRising(f64),
}

/// The finite upper bounds of one histogram family, and where each of its buckets lies in the fleet's layout.
///
/// Buckets are numbered from 0; bucket `edges().len()` is the one up to +Inf. A cell that an edge cuts belongs to the
/// lower bucket, so that a placed sample never leaves its bucket; buckets narrower than a cell share one.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketLayout {
    edges: Arc<[f64]>,
    unit: Unit,
    edge_cells: Arc<[u16]>,
}

impl BucketLayout {
    /// Takes upper bounds in the family's published unit (seconds or tokens), without +Inf.
    ///
    /// # Errors
    /// When there are none or too many, or when they are negative, not finite or do not rise.
    pub fn new(edges: &[f64], unit: Unit) -> Result<Self, InvalidBuckets> {
        if edges.is_empty() {
            return Err(InvalidBuckets::NoEdge);
        }
        if edges.len() > MAX_BUCKET_EDGES {
            return Err(InvalidBuckets::TooMany(edges.len()));
        }
        let mut before = f64::NEG_INFINITY;
        for edge in edges {
            if !edge.is_finite() || *edge < 0.0 {
                return Err(InvalidBuckets::BadEdge(*edge));
            }
            if *edge <= before {
                return Err(InvalidBuckets::NotRising(*edge));
            }
            before = *edge;
        }
        let edge_cells = edges.iter().map(|edge| layout::cell_of(to_whole(*edge, unit))).collect();
        Ok(Self { edges: edges.into(), unit, edge_cells })
    }

    /// The finite upper bounds, rising, in the published unit.
    #[must_use]
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// The unit of the edges.
    #[must_use]
    pub const fn unit(&self) -> Unit {
        self.unit
    }

    /// How many buckets, the one up to +Inf included.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.edges.len() + 1
    }

    /// What lies in this bucket: above the first number, at or below the second (`None`: +Inf), both in whole units
    /// (microseconds or tokens). The first bucket starts at 0. Beyond the last bucket: the last.
    ///
    /// An edge that is no whole number of units (1.1 to the power of anything is none) is rounded outwards, so that the
    /// truth stays between the two.
    #[must_use]
    pub fn bounds(&self, bucket: usize) -> (u64, Option<u64>) {
        let bucket = bucket.min(self.edges.len());
        let whole = |edge: f64| edge * self.unit.per_published();
        let low =
            bucket.checked_sub(1).map_or(0, |below| (whole(self.edges[below]) + UNIT_NOISE).floor() as u64);
        (low, self.edges.get(bucket).map(|edge| (whole(*edge) - UNIT_NOISE).ceil() as u64))
    }

    /// The first and last cell into which samples of this bucket are placed.
    pub(super) fn cells(&self, bucket: usize) -> (u16, u16) {
        let bucket = bucket.min(self.edges.len());
        let last = self.edge_cells.get(bucket).copied().unwrap_or(layout::CELLS as u16 - 1);
        let first = bucket.checked_sub(1).map_or(0, |below| self.edge_cells[below] + 1);
        (first.min(last), last)
    }
}

/// What a decimal edge may miss its own whole number of units by when doubles multiply it: 7,680 s in microseconds is
/// wrong by a few millionths at most.
const UNIT_NOISE: f64 = 1e-5;

/// A published bound in whole units. Edges are validated as finite and not negative.
fn to_whole(edge: f64, unit: Unit) -> u64 {
    (edge * unit.per_published()).round() as u64
}

/// Counts of one bucketed family over some time: how many samples fell into each bucket, not cumulative.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketCounts {
    layout: BucketLayout,
    counts: Box<[u64]>,
}

impl BucketCounts {
    /// No samples yet.
    #[must_use]
    pub fn new(layout: BucketLayout) -> Self {
        let counts = vec![0; layout.buckets()].into_boxed_slice();
        Self { layout, counts }
    }

    /// The layout of the counts.
    #[must_use]
    pub const fn layout(&self) -> &BucketLayout {
        &self.layout
    }

    /// Adds `n` samples to a bucket; a bucket beyond the layout is taken for the one up to +Inf.
    pub fn add(&mut self, bucket: usize, n: u64) {
        let slot = &mut self.counts[bucket.min(self.layout.edges.len())];
        *slot = slot.saturating_add(n);
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// The buckets that hold samples, rising, with their counts.
    pub fn nonzero(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, n)| *n > 0)
    }
}

/// Between what a quantile of bucketed samples must lie: the truth is above `low` and at or below `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantileBounds {
    /// The lower bound, exclusive unless it is 0.
    pub low: Micros,
    /// The upper bound, inclusive; `None` where only +Inf bounds the bucket.
    pub high: Option<Micros>,
}

/// The bounds of a quantile over samples counted in one or more layouts (engines of a pool may differ); `None` when
/// there are no samples.
///
/// Every sample is at least its bucket's lower and at most its upper bound, so the order statistic of rank ⌈q·n⌉ lies
/// between the same order statistics of the lower and of the upper bounds.
#[must_use]
pub fn quantile_bounds<'a>(
    parts: impl IntoIterator<Item = &'a BucketCounts>,
    q: Ratio,
) -> Option<QuantileBounds> {
    let mut lows = Vec::new();
    let mut highs = Vec::new();
    let mut total = 0u64;
    for part in parts {
        for (bucket, n) in part.nonzero() {
            let (low, high) = part.layout.bounds(bucket);
            lows.push((low, n));
            highs.push((high.unwrap_or(u64::MAX), n));
            total = total.saturating_add(n);
        }
    }
    let rank = rank(q, total)?;
    let high = order_statistic(&mut highs, rank)?;
    Some(QuantileBounds {
        low: Micros(order_statistic(&mut lows, rank)?),
        high: (high != u64::MAX).then_some(Micros(high)),
    })
}

fn order_statistic(values: &mut [(u64, u64)], rank: u64) -> Option<u64> {
    values.sort_unstable();
    let mut seen = 0u64;
    values.iter().find_map(|(value, n)| {
        seen = seen.saturating_add(*n);
        (seen >= rank).then_some(*value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(edges: &[f64]) -> BucketLayout {
        BucketLayout::new(edges, Unit::Seconds).unwrap()
    }

    #[test]
    fn hostile_layouts_are_refused() {
        let of = |edges: &[f64]| BucketLayout::new(edges, Unit::Seconds);
        assert_eq!(of(&[]), Err(InvalidBuckets::NoEdge));
        assert_eq!(of(&[0.1, 0.1]), Err(InvalidBuckets::NotRising(0.1)));
        assert_eq!(of(&[-1.0]), Err(InvalidBuckets::BadEdge(-1.0)));
        assert!(matches!(of(&[f64::NAN]), Err(InvalidBuckets::BadEdge(_))));
        assert_eq!(of(&[f64::INFINITY]), Err(InvalidBuckets::BadEdge(f64::INFINITY)));
        assert_eq!(of(&vec![0.0; MAX_BUCKET_EDGES + 1]), Err(InvalidBuckets::TooMany(MAX_BUCKET_EDGES + 1)));
    }

    #[test]
    fn bounds_are_whole_units_rounded_outwards() {
        let layout = seconds(&[0.0, 1.1e-6, 0.3, 0.7, 1.1, 7680.0]);
        assert_eq!(layout.bounds(0), (0, Some(0)));
        assert_eq!(layout.bounds(1), (0, Some(2)));
        assert_eq!(layout.bounds(2), (1, Some(300_000)));
        assert_eq!(layout.bounds(3), (300_000, Some(700_000)));
        assert_eq!(layout.bounds(4), (700_000, Some(1_100_000)));
        assert_eq!(layout.bounds(5), (1_100_000, Some(7_680_000_000)));
        assert_eq!(layout.bounds(99), (7_680_000_000, None));
    }

    #[test]
    fn buckets_own_disjoint_cells() {
        let layout = seconds(&[0.0, 0.0022, 0.0047, 0.01, 1.0, 100_000.0]);
        for bucket in 1..layout.buckets() {
            let (first, _) = layout.cells(bucket);
            let (_, last_before) = layout.cells(bucket - 1);
            // The last bucket lies beyond the fleet's layout and shares its last cell.
            assert!(first > last_before || bucket == layout.buckets() - 1, "bucket {bucket}");
        }
    }

    #[test]
    fn a_quantile_lies_between_its_buckets_edges() {
        let mut counts = BucketCounts::new(seconds(&[0.01, 0.1, 1.0]));
        counts.add(1, 98);
        counts.add(3, 2);
        let bounds = |q| quantile_bounds([&counts], Ratio::new(q).unwrap()).unwrap();
        assert_eq!(bounds(0.5), QuantileBounds { low: Micros(10_000), high: Some(Micros(100_000)) });
        assert_eq!(bounds(0.99), QuantileBounds { low: Micros(1_000_000), high: None });
        let empty = BucketCounts::new(seconds(&[1.0]));
        assert_eq!(quantile_bounds([&empty], Ratio::new(0.5).unwrap()), None);
    }

    #[test]
    fn layouts_of_one_pool_may_differ() {
        let mut coarse = BucketCounts::new(seconds(&[1.0]));
        coarse.add(0, 5);
        let mut fine = BucketCounts::new(seconds(&[0.4, 0.5]));
        fine.add(1, 5);
        let bounds = quantile_bounds([&coarse, &fine], Ratio::new(0.5).unwrap()).unwrap();
        assert_eq!(bounds, QuantileBounds { low: Micros(0), high: Some(Micros(500_000)) });
    }
}
