//! One histogram series while its page is read.

use plimsoll_common::histogram::MAX_BUCKET_EDGES;

use super::{
    dialect::Part,
    page::{HistogramCounts, HistogramSeries},
    quantity::{Ranks, whole},
};
use crate::exposition::{Sample, parse_float};

/// A histogram series while its page is read.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    edges: Vec<f64>,
    /// Cumulative counts of the finite edges.
    cumulative: Vec<u64>,
    infinite: Option<u64>,
    count: Option<u64>,
    sum: Option<f64>,
    ranks: Ranks,
    /// Whether a number was no count, or the buckets were no layout.
    broken: bool,
}

impl Gathered {
    /// A series of a copy.
    pub(super) fn of(ranks: Ranks) -> Self {
        Self { ranks, ..Self::default() }
    }

    /// Takes a sample of a copy: of several copies the one with the lowest ranks counts.
    pub(super) fn take(&mut self, ranks: Ranks, part: Part, sample: &Sample<'_>) {
        if ranks > self.ranks {
            return;
        }
        if ranks < self.ranks {
            *self = Self::of(ranks);
        }
        match part {
            Part::Bucket => {
                let le = sample.labels.get("le").and_then(|le| parse_float(&le.text()));
                match (le, whole(sample.value)) {
                    (Some(le), Some(count)) if le == f64::INFINITY => self.infinite = Some(count),
                    (Some(le), Some(count)) if self.edges.len() < MAX_BUCKET_EDGES => {
                        self.edges.push(le);
                        self.cumulative.push(count);
                    }
                    _ => self.broken = true,
                }
            }
            Part::Count => self.count = whole(sample.value),
            Part::Sum => self.sum = Some(sample.value).filter(|sum| sum.is_finite()),
            Part::Whole => self.broken = true,
        }
    }

    /// Turns cumulative counts into counts a bucket, if they can be any: rising over the edges, and +Inf's the count.
    pub(super) fn finish(mut self) -> HistogramSeries {
        let edges = std::mem::take(&mut self.edges);
        let counts = self.counts(&edges);
        HistogramSeries { edges, counts }
    }

    fn counts(mut self, edges: &[f64]) -> Option<HistogramCounts> {
        let (infinite, sum) = (self.infinite?, self.sum?);
        let layout =
            edges.is_sorted_by(|a, b| a < b) && edges.iter().all(|edge| edge.is_finite() && *edge >= 0.0);
        if self.broken || edges.is_empty() || !layout || self.count != Some(infinite) {
            return None;
        }
        let mut buckets = std::mem::take(&mut self.cumulative);
        buckets.push(infinite);
        let mut below = 0;
        for bucket in &mut buckets {
            let cumulative = *bucket;
            *bucket = cumulative.checked_sub(below)?;
            below = cumulative;
        }
        Some(HistogramCounts { buckets, sum })
    }
}
