//! Distributions of an engine as the agent's own pages show them: since the start, and lately.

use std::{collections::BTreeMap, time::Duration};

use plimsoll_common::{
    engine::DistributionKind,
    histogram::{BucketCounts, BucketLayout, LatencyHistogram, SparseHistogram, place},
    units::Micros,
};
use tokio::time::Instant;

use crate::{engines::HistogramDelta, exact::ExactSamples};

/// The most `(kind, layout)` pairs of one engine in one window; an engine that changes its buckets starts a new pair.
pub(super) const MAX_DISTRIBUTIONS: usize = 64;
/// How long the recent distributions reach back at least; at most twice as long.
const RECENT: Duration = Duration::from_secs(30);

/// One distribution since the agent first saw the engine, in the newest of its bucket layouts.
#[derive(Debug, Clone)]
pub struct Cumulative {
    /// Samples by bucket.
    pub counts: BucketCounts,
    /// Their sum, microseconds or tokens.
    pub sum: u64,
}

impl Cumulative {
    /// Adds one scrape's gain. Other buckets start anew, as a restarted engine's counters do: scrapers of our page see
    /// a counter reset.
    pub(super) fn add(&mut self, delta: &HistogramDelta) {
        if *self.counts.layout() != delta.layout {
            *self = Self::new(&delta.layout);
        }
        delta.buckets.iter().for_each(|(bucket, n)| self.counts.add(*bucket, *n));
        self.sum = self.sum.saturating_add(delta.sum);
    }

    pub(super) fn new(layout: &BucketLayout) -> Self {
        Self { counts: BucketCounts::new(layout.clone()), sum: 0 }
    }
}

/// A bucketed distribution: an estimate and what is certain.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    /// Where the samples most likely lie.
    pub placed: SparseHistogram,
    /// In which buckets they lie for sure, one entry a layout.
    pub buckets: Vec<BucketCounts>,
    /// Samples above the last finite edge.
    pub saturated: u64,
}

impl Distribution {
    fn add(&mut self, delta: &HistogramDelta) {
        let placed = &mut self.placed;
        self.saturated += place(&delta.layout, &delta.buckets, delta.sum, |cell, n| placed.add_cell(cell, n));
        self.placed.add_sum(delta.sum);
        self.count(&delta.layout, delta.buckets.iter().copied());
    }

    fn merge(&mut self, other: &Self) {
        other.placed.cells().for_each(|(cell, n)| self.placed.add_cell(cell, n));
        self.placed.add_sum(other.placed.sum());
        self.saturated = self.saturated.saturating_add(other.saturated);
        other.buckets.iter().for_each(|counts| self.count(counts.layout(), counts.nonzero()));
    }

    fn count(&mut self, layout: &BucketLayout, buckets: impl Iterator<Item = (usize, u64)>) {
        let at = match self.buckets.iter().position(|counts| counts.layout() == layout) {
            Some(at) => at,
            None if self.buckets.len() < MAX_DISTRIBUTIONS => {
                self.buckets.push(BucketCounts::new(layout.clone()));
                self.buckets.len() - 1
            }
            None => return,
        };
        buckets.for_each(|(bucket, n)| self.buckets[at].add(bucket, n));
    }

    /// The samples, dense, for quantiles.
    #[must_use]
    pub fn histogram(&self) -> LatencyHistogram {
        let mut dense = LatencyHistogram::new();
        self.placed.add_into(&mut dense);
        dense
    }

    /// The sum of the samples, microseconds or tokens.
    #[must_use]
    pub const fn sum(&self) -> Micros {
        Micros(self.placed.sum())
    }
}

/// What can be added up over time.
pub(super) trait Merge: Clone + Default {
    /// Adds all of another.
    fn merge(&mut self, other: &Self);
}

/// Two halves that take turns, so that "recent" reaches back between one and two times [`RECENT`].
#[derive(Debug)]
pub(super) struct Recent<T = BTreeMap<DistributionKind, Distribution>> {
    filling: T,
    full: T,
    filling_since: Instant,
    full_since: Instant,
}

impl<T: Merge> Recent<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self { filling: T::default(), full: T::default(), filling_since: now, full_since: now }
    }

    pub(super) fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.filling_since) >= RECENT {
            self.full = std::mem::take(&mut self.filling);
            self.full_since = self.filling_since;
            self.filling_since = now;
        }
    }

    /// What is being filled.
    pub(super) const fn filling(&mut self) -> &mut T {
        &mut self.filling
    }

    pub(super) fn merged(&self) -> T {
        let mut merged = self.full.clone();
        merged.merge(&self.filling);
        merged
    }

    /// Since when the recent distributions count.
    pub(super) const fn since(&self) -> Instant {
        self.full_since
    }
}

impl Merge for BTreeMap<DistributionKind, Distribution> {
    fn merge(&mut self, other: &Self) {
        for (kind, distribution) in other {
            self.entry(*kind).or_default().merge(distribution);
        }
    }
}

impl Recent {
    pub(super) fn add(&mut self, delta: &HistogramDelta) {
        self.filling.entry(delta.kind).or_default().add(delta);
    }
}

impl Merge for ExactSamples {
    fn merge(&mut self, other: &Self) {
        self.merge(other);
    }
}
