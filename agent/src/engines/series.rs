//! What single series gain from page to page.

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    histogram::BucketLayout,
};

use super::{
    page::{HistogramCounts, HistogramSeries},
    update::HistogramDelta,
};

/// What was last seen of one histogram series.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// It existed when the agent first looked, but its numbers contradicted each other: the first page on which they
    /// agree is its baseline.
    Torn,
    /// Its last good numbers.
    Series(Series),
}

/// The last good numbers of one histogram series.
#[derive(Debug, Clone)]
pub(super) struct Series {
    layout: BucketLayout,
    buckets: Vec<u64>,
    sum: Sum,
}

/// A growing sum of fractions, told in whole units: what was told never drifts from what grew.
#[derive(Debug, Clone, Copy)]
struct Sum {
    /// Where the sum stood when the telling began.
    origin: f64,
    last: f64,
    told: u64,
}

impl Series {
    /// A series whose samples so far do not count.
    pub(super) fn baseline(
        kind: DistributionKind,
        page: &HistogramSeries,
        now: &HistogramCounts,
    ) -> Option<Self> {
        let layout = BucketLayout::new(&page.edges, kind.unit()).ok()?;
        let sum = Sum { origin: now.sum, last: now.sum, told: 0 };
        Some(Self { layout, buckets: now.buckets.clone(), sum })
    }

    /// A series of which nothing was counted yet.
    pub(super) fn empty(kind: DistributionKind, page: &HistogramSeries) -> Option<Self> {
        let layout = BucketLayout::new(&page.edges, kind.unit()).ok()?;
        let buckets = vec![0; layout.buckets()];
        Some(Self { layout, buckets, sum: Sum { origin: 0.0, last: 0.0, told: 0 } })
    }

    /// Whether these numbers can't follow the last ones: a bucket fell, or the buckets are others.
    pub(super) fn restarted(&self, page: &HistogramSeries) -> bool {
        let same_edges = self.layout.edges().iter().map(|edge| edge.to_bits());
        if !same_edges.eq(page.edges.iter().map(|edge| edge.to_bits())) {
            return true;
        }
        let Some(now) = &page.counts else { return false };
        now.buckets.iter().zip(&self.buckets).any(|(now, before)| now < before)
    }

    /// Takes new numbers of the same buckets and adds what they gained.
    pub(super) fn advance(&mut self, now: &HistogramCounts, gained: &mut Gained) {
        let kind_total = gained.of(&self.layout);
        let mut samples = 0u64;
        for ((before, now), total) in self.buckets.iter_mut().zip(&now.buckets).zip(&mut kind_total.0) {
            let gain = now.saturating_sub(*before);
            *before = *now;
            *total += gain;
            samples += gain;
        }
        kind_total.1 =
            kind_total.1.saturating_add(self.sum.advance(now.sum, samples > 0, self.layout.unit()));
    }
}

impl Sum {
    /// What the sum grew by, in whole units. Growth without samples (a scrape between the two writes) is told with
    /// the samples. A sum that fell (the engine's wall clock was set back) starts anew from where it is.
    fn advance(&mut self, now: f64, samples: bool, unit: Unit) -> u64 {
        if now < self.last {
            *self = Self { origin: now, last: now, told: 0 };
            return 0;
        }
        self.last = now;
        if !samples {
            return 0;
        }
        // A thousandth of a unit is added, since the double of a sum like 0.3 may lie a hair below the true number.
        let grown = ((now - self.origin) * unit.per_published() + 1e-3).floor() as u64;
        let gain = grown.saturating_sub(self.told);
        self.told = self.told.max(grown);
        gain
    }
}

/// What the series of one kind gained together. Engines of one page share their buckets as a rule; where not, each
/// layout is kept apart.
#[derive(Debug, Default)]
pub(super) struct Gained {
    layouts: Vec<(BucketLayout, (Vec<u64>, u64))>,
}

impl Gained {
    fn of(&mut self, layout: &BucketLayout) -> &mut (Vec<u64>, u64) {
        let at = self.layouts.iter().position(|(known, _)| known == layout).unwrap_or_else(|| {
            self.layouts.push((layout.clone(), (vec![0; layout.buckets()], 0)));
            self.layouts.len() - 1
        });
        &mut self.layouts[at].1
    }

    /// The deltas of all layouts that gained samples.
    pub(super) fn into_deltas(self, kind: DistributionKind) -> impl Iterator<Item = HistogramDelta> {
        self.layouts.into_iter().filter_map(move |(layout, (buckets, sum))| {
            let buckets: Vec<_> = buckets.into_iter().enumerate().filter(|(_, n)| *n > 0).collect();
            (!buckets.is_empty()).then_some(HistogramDelta { kind, layout, buckets, sum })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sum_that_falls_starts_anew() {
        let mut sum = Sum { origin: 0.0, last: 0.0, told: 0 };
        assert_eq!(sum.advance(10.0, true, Unit::Seconds), 10_000_000);
        assert_eq!(sum.advance(-3590.0, true, Unit::Seconds), 0);
        assert_eq!(sum.advance(-3589.5, true, Unit::Seconds), 500_000);
    }

    #[test]
    fn growth_without_samples_waits_for_them() {
        let mut sum = Sum { origin: 5.0, last: 5.0, told: 0 };
        assert_eq!(sum.advance(6.0, false, Unit::Tokens), 0);
        assert_eq!(sum.advance(6.0, true, Unit::Tokens), 1);
    }

    proptest! {
        /// Invariant: whatever the steps, what was told differs from what grew by less than one unit.
        #[test]
        fn sums_never_drift(origin in 0.0f64..1e6, steps in prop::collection::vec(0.0f64..3.0, 1..500)) {
            let mut sum = Sum { origin, last: origin, told: 0 };
            let mut now = origin;
            let mut told = 0;
            for step in steps {
                now += step;
                told += sum.advance(now, true, Unit::Seconds);
            }
            prop_assert!(((now - origin) * 1e6 - told as f64).abs() <= 1.01);
        }
    }
}
