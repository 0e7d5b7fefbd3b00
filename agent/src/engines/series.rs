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

/// What was told of one histogram series, and its last good numbers.
#[derive(Debug, Clone)]
pub(super) struct Series {
    layout: BucketLayout,
    /// The last good numbers, cumulative.
    seen: Vec<u64>,
    /// Samples told of each bucket, the baseline included; together as many as were seen.
    told: Vec<u64>,
    sum: Sum,
    /// Whether the last page had other buckets.
    relaid: bool,
}

/// A growing sum of fractions, told in whole units: what was told never drifts from what grew.
#[derive(Debug, Clone, Copy)]
struct Sum {
    /// Where the sum stood when the telling began.
    origin: f64,
    last: f64,
    told: u64,
}

/// How new numbers of a series go with its last good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// They can follow them.
    On,
    /// A cumulative count fell: this is another series under the old name, which began at zero.
    Restarted,
    /// The buckets are others, and no fewer samples. A restart with other buckets shows elsewhere (its start time moved,
    /// its port refused, it has fewer samples); without that, a damaged page shows the same.
    Relaid,
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
        let seen = cumulative(&now.buckets).collect();
        Some(Self { layout, seen, told: now.buckets.clone(), sum, relaid: false })
    }

    /// A series of which nothing was counted yet.
    pub(super) fn empty(kind: DistributionKind, page: &HistogramSeries) -> Option<Self> {
        let layout = BucketLayout::new(&page.edges, kind.unit()).ok()?;
        let zeros = vec![0; layout.buckets()];
        let sum = Sum { origin: 0.0, last: 0.0, told: 0 };
        Some(Self { layout, seen: zeros.clone(), told: zeros, sum, relaid: false })
    }

    /// How numbers of the next page go with the last ones.
    ///
    /// Only cumulative counts tell a restart. A page that is written while samples come in may show a cumulative count
    /// from before a sample next to one from after it; none of them ever falls, but the difference between two may, and
    /// to take that for a restart would count the whole life of the series once more.
    pub(super) fn follow(&self, page: &HistogramSeries, now: &HistogramCounts) -> Follow {
        let same_edges = self.layout.edges().iter().map(|edge| edge.to_bits());
        let fell = |before: Option<&u64>, now: Option<u64>| now < before.copied();
        if !same_edges.eq(page.edges.iter().map(|edge| edge.to_bits())) {
            let fewer = fell(self.seen.last(), cumulative(&now.buckets).last());
            return if fewer { Follow::Restarted } else { Follow::Relaid };
        }
        if cumulative(&now.buckets).zip(&self.seen).any(|(now, before)| now < *before) {
            Follow::Restarted
        } else {
            Follow::On
        }
    }

    /// Notes that a page had other buckets; whether the page before it had, too.
    pub(super) const fn relaid(&mut self) -> bool {
        std::mem::replace(&mut self.relaid, true)
    }

    /// Takes numbers that follow the last ones and adds what they gained.
    ///
    /// As many samples are told as the count gained. Where the page before showed a sample in a bucket too high (see
    /// [`Self::follow`]), it was told there and is not told again; the bucket that it belongs to gets the next one.
    pub(super) fn advance(&mut self, now: &HistogramCounts, gained: &mut Gained) {
        self.relaid = false;
        let kind_total = gained.of(&self.layout);
        self.seen.clear();
        self.seen.extend(cumulative(&now.buckets));
        let told: u64 = self.told.iter().sum();
        let samples = self.seen.last().copied().unwrap_or(0).saturating_sub(told);
        let mut left = samples;
        for ((told, now), total) in self.told.iter_mut().zip(&now.buckets).zip(&mut kind_total.0) {
            let gain = now.saturating_sub(*told).min(left);
            *told += gain;
            *total = total.saturating_add(gain);
            left -= gain;
        }
        kind_total.1 =
            kind_total.1.saturating_add(self.sum.advance(now.sum, samples > 0, self.layout.unit()));
    }
}

/// Counts of buckets added up from the lowest.
fn cumulative(buckets: &[u64]) -> impl Iterator<Item = u64> + '_ {
    buckets.iter().scan(0u64, |below, n| {
        *below = below.saturating_add(*n);
        Some(*below)
    })
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

    fn series(edges: &[f64], buckets: &[u64], sum: f64) -> (HistogramSeries, HistogramCounts) {
        let counts = HistogramCounts { buckets: buckets.to_vec(), sum };
        (HistogramSeries { edges: edges.to_vec(), counts: Some(counts.clone()) }, counts)
    }

    fn told(series: &mut Series, now: &HistogramCounts) -> Vec<(usize, u64)> {
        let mut gained = Gained::default();
        series.advance(now, &mut gained);
        gained.into_deltas(DistributionKind::Ttft).flat_map(|delta| delta.buckets).collect()
    }

    #[test]
    fn a_sample_seen_in_two_buckets_counts_once() {
        let of = |buckets: &[u64]| series(&[0.1, 1.0], buckets, 1.0);
        let (page, start) = of(&[5, 2, 0]);
        let mut known = Series::baseline(DistributionKind::Ttft, &page, &start).unwrap();
        // Of a new sample below 0.1 s the page shows the later cumulative counts, but not yet the first.
        let (page, torn) = of(&[5, 3, 0]);
        assert_eq!(known.follow(&page, &torn), Follow::On);
        assert_eq!(told(&mut known, &torn), [(1, 1)]);
        let (page, whole) = of(&[6, 2, 0]);
        assert_eq!(known.follow(&page, &whole), Follow::On);
        assert_eq!(told(&mut known, &whole), []);
        // The next sample of either bucket sets it right.
        assert_eq!(told(&mut known, &of(&[6, 3, 1]).1), [(0, 1), (2, 1)]);
        assert_eq!(known.told, [6, 3, 1]);
    }

    #[test]
    fn restarts_and_other_buckets_are_told_apart() {
        let (page, start) = series(&[0.1, 1.0], &[5, 2, 0], 1.0);
        let known = Series::baseline(DistributionKind::Ttft, &page, &start).unwrap();
        let follow = |edges: &[f64], buckets: &[u64]| {
            let (page, counts) = series(edges, buckets, 1.0);
            known.follow(&page, &counts)
        };
        assert_eq!(follow(&[0.1, 1.0], &[4, 3, 0]), Follow::Restarted);
        assert_eq!(follow(&[0.1, 1.0], &[5, 1, 0]), Follow::Restarted);
        assert_eq!(follow(&[0.1, 1.0], &[9, 0, 0]), Follow::On);
        assert_eq!(follow(&[0.1, 2.0], &[0, 0, 6]), Follow::Restarted);
        assert_eq!(follow(&[0.1, 2.0], &[5, 2, 0]), Follow::Relaid);
        assert_eq!(follow(&[0.1], &[5, 3]), Follow::Relaid);
    }

    #[test]
    fn growth_without_samples_waits_for_them() {
        let mut sum = Sum { origin: 5.0, last: 5.0, told: 0 };
        assert_eq!(sum.advance(6.0, false, Unit::Tokens), 0);
        assert_eq!(sum.advance(6.0, true, Unit::Tokens), 1);
    }

    proptest! {
        /// Invariant: as many samples are told as the count grew by, never more in a bucket than it showed at some time,
        /// however the samples were spread over the buckets in between.
        #[test]
        fn totals_are_told_exactly(pages in prop::collection::vec(prop::collection::vec(0u64..6, 3), 1..40)) {
            let (page, start) = series(&[0.1, 1.0], &[0, 0, 0], 0.0);
            let mut known = Series::baseline(DistributionKind::Ttft, &page, &start).unwrap();
            let (mut shown, mut highest, mut all) = (vec![0u64; 3], vec![0u64; 3], vec![0u64; 3]);
            for more in pages {
                // A page may show what came in the lowest bucket one bucket too high.
                let total: u64 = more.iter().sum();
                shown = shown.iter().zip(&more).map(|(a, b)| a + b).collect();
                let mut seen = shown.clone();
                let late = (total % 3).min(more[0]);
                seen[0] -= late;
                seen[1] += late;
                let (page, counts) = series(&[0.1, 1.0], &seen, 1.0);
                prop_assert_eq!(known.follow(&page, &counts), Follow::On);
                highest.iter_mut().zip(&seen).for_each(|(a, b)| *a = (*a).max(*b));
                for (bucket, n) in told(&mut known, &counts) {
                    all[bucket] += n;
                }
                prop_assert_eq!(all.iter().sum::<u64>(), shown.iter().sum::<u64>());
                prop_assert!(all.iter().zip(&highest).all(|(told, most)| told <= most));
            }
        }

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
