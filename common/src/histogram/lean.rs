//! Bucketed samples of many intervals, each with a word for where in its bucket it most likely lies: a form that adds up
//! exactly, costs one addition a bucket, and is laid out into cells only when somebody looks.
//!
//! One interval's samples lean by the `t` of [`place`](super::place()): `n` of them are spread evenly over `[0, 2t]` of their bucket
//! (or `[2t − 1, 1]` where t is above a half), so that the mean comes out. Here `t` is kept to 1/64, and a
//! single sample is kept as the point that it is. Counts stay whole numbers of a bucket, so sums do not depend on
//! their order.

use std::sync::Arc;

use super::{
    BucketCounts, BucketLayout,
    layout::{CELLS, cell_of, highest_in},
};

/// How many places a bucket has: the first half for several samples of one interval, the second for single ones. In the
/// bucket without an upper bound a place stands for [`CELLS_A_PLACE`] cells above the last edge.
pub const PLACES: usize = 2 * STEPS;

/// To what share of a bucket a lean is kept.
const STEPS: usize = 64;
/// 64 places then reach 16 octaves above the last edge.
const CELLS_A_PLACE: u16 = 16;

/// A layout that is ready to lean samples by.
#[derive(Debug, Clone, PartialEq)]
pub struct LeanLayout {
    layout: BucketLayout,
    spans: Arc<[Span]>,
}

/// A bucket with an upper bound, whole units.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    low: f64,
    width: f64,
}

impl LeanLayout {
    /// Makes a layout ready.
    #[must_use]
    pub fn new(layout: BucketLayout) -> Self {
        let span = |bucket: usize| {
            let (low, high) = layout.bounds(bucket);
            Span { low: low as f64, width: high.unwrap_or(low).saturating_sub(low) as f64 }
        };
        let spans = (0..layout.edges().len()).map(span).collect();
        Self { layout, spans }
    }

    /// The layout.
    #[must_use]
    pub const fn layout(&self) -> &BucketLayout {
        &self.layout
    }

    /// Says for every bucket of one interval where its samples lie: `add(bucket × PLACES + place, samples)`.
    ///
    /// `counts` are `(bucket, samples)` in rising bucket order, `sum` is the growth of the series' `_sum` in whole units
    /// (microseconds or tokens). What is added rises as the buckets do, and holds every sample.
    pub fn lean(&self, counts: &[(usize, u64)], sum: u64, mut add: impl FnMut(usize, u64)) {
        let (mut floor, mut room, mut unbounded) = (0.0, 0.0, 0u64);
        for (bucket, n) in counts {
            let Some(span) = self.spans.get(*bucket) else {
                unbounded = unbounded.saturating_add(*n);
                continue;
            };
            floor += span.low * *n as f64;
            room += span.width * *n as f64;
        }
        // With samples of unknown height the sum does not constrain the others: assume their middle.
        let known = unbounded == 0 && room > 0.0;
        let t = if known { ((sum as f64 - floor) / room).clamp(0.0, 1.0) } else { 0.5 };
        let steps = t * STEPS as f64;
        let several = (steps.round() as usize).clamp(1, STEPS) - 1;
        let single = STEPS + (steps as usize).min(STEPS - 1);
        for (bucket, n) in counts.iter().filter(|(_, n)| *n > 0) {
            let place = match self.spans.get(*bucket) {
                Some(_) if *n == 1 => single,
                Some(_) => several,
                None => self.above((sum as f64 - (floor + room * t)) / unbounded as f64),
            };
            add((*bucket).min(self.spans.len()) * PLACES + place, *n);
        }
    }

    /// The place above the last edge of samples with this mean.
    fn above(&self, mean: f64) -> usize {
        let (first, last) = self.layout.cells(self.spans.len());
        let cell = cell_of(mean.max(0.0) as u64).clamp(first, last);
        usize::from((cell - first) / CELLS_A_PLACE).min(PLACES - 1)
    }
}

/// The sum of what [`LeanLayout::lean`] said of any number of intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct LeanCounts {
    layout: LeanLayout,
    places: Box<[u64]>,
}

impl LeanCounts {
    /// No samples yet.
    #[must_use]
    pub fn new(layout: LeanLayout) -> Self {
        let places = vec![0; layout.layout.buckets() * PLACES].into_boxed_slice();
        Self { layout, places }
    }

    /// Adds `n` samples at `bucket × PLACES + place`; what is beyond the layout is taken for its last place.
    pub fn add(&mut self, place: usize, n: u64) {
        let last = self.places.len() - 1;
        let slot = &mut self.places[place.min(last)];
        *slot = slot.saturating_add(n);
    }

    /// Adds all of another one of the same layout.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.places.iter_mut().zip(&other.places) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// How many samples each bucket holds: exact.
    #[must_use]
    pub fn buckets(&self) -> BucketCounts {
        let mut counts = BucketCounts::new(self.layout.layout.clone());
        for (bucket, places) in self.places.chunks_exact(PLACES).enumerate() {
            counts.add(bucket, total(places));
        }
        counts
    }

    /// Lays all samples into cells of the fleet's layout; each stays in its bucket.
    pub fn lay(&self, mut add: impl FnMut(u16, u64)) {
        for (bucket, places) in self.places.chunks_exact(PLACES).enumerate() {
            let n = total(places);
            if n == 0 {
                continue;
            }
            let (first, last) = self.layout.layout.cells(bucket);
            match self.layout.spans.get(bucket) {
                Some(span) if first < last && span.width > 0.0 => {
                    Density::of(places).lay(*span, n, (first, last), &mut add);
                }
                Some(_) => add(last, n),
                None => {
                    for (place, n) in places.iter().enumerate().filter(|(_, n)| **n > 0) {
                        // The middle of the cells that it stands for.
                        let above = place as u16 * CELLS_A_PLACE + CELLS_A_PLACE / 2;
                        add(first.saturating_add(above).min(CELLS as u16 - 1), *n);
                    }
                }
            }
        }
    }
}

fn total(places: &[u64]) -> u64 {
    places.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

/// How densely the samples of one bucket lie in each of its 64 parts.
struct Density([f64; STEPS]);

impl Density {
    fn of(places: &[u64]) -> Self {
        // Written as what begins and ends at each part, and added up at the end.
        let mut steps = [0.0; STEPS + 1];
        for (place, n) in places.iter().enumerate().filter(|(_, n)| **n > 0) {
            let (from, to) = parts_of(place);
            let each = *n as f64 / (to - from) as f64;
            steps[from] += each;
            steps[to] -= each;
        }
        let mut density = [0.0; STEPS];
        let mut level = 0.0;
        for (part, step) in density.iter_mut().zip(steps) {
            level += step;
            // What is left of sums and differences that cancel is no sample.
            *part = if level > 1e-6 { level } else { 0.0 };
        }
        Self(density)
    }

    /// Lays `n` samples over the cells `first..=last`: the k-th lies where a share of (k + ½)/n lies below it.
    fn lay(&self, span: Span, n: u64, (first, last): (u16, u16), add: &mut impl FnMut(u16, u64)) {
        let whole: f64 = self.0.iter().sum();
        let scale = STEPS as f64 / span.width;
        let empty = self.0.iter().take_while(|part| **part <= 0.0).count();
        let begin = cell_of((span.low + empty as f64 / scale) as u64).clamp(first, last);
        let (mut part, mut below, mut placed) = (0, 0.0, 0);
        for cell in begin..=last {
            let upto = if cell == last {
                n
            } else {
                let end = ((highest_in(cell) as f64 + 1.0 - span.low) * scale).clamp(0.0, STEPS as f64);
                while part < STEPS && (part + 1) as f64 <= end {
                    below += self.0[part];
                    part += 1;
                }
                let within = self.0.get(part).map_or(0.0, |density| density * (end - part as f64));
                ((below + within) / whole * n as f64).round() as u64
            };
            if upto > placed {
                add(cell, upto.min(n) - placed);
                placed = upto.min(n);
            }
            if placed == n {
                return;
            }
        }
    }
}

/// Which parts of its bucket a place covers: from the first to before the second.
fn parts_of(place: usize) -> (usize, usize) {
    if place >= STEPS {
        let part = (place - STEPS).min(STEPS - 1);
        return (part, part + 1);
    }
    let twice = 2 * (place + 1);
    if twice <= STEPS { (0, twice) } else { ((twice - STEPS).min(STEPS - 1), STEPS) }
}

const _: () = assert!(PLACES * CELLS_A_PLACE as usize <= CELLS, "places above the last edge are cells");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        engine::Unit,
        histogram::{LatencyHistogram, layout, quantile_bounds},
        units::Ratio,
    };

    const VLLM_ITL: &[f64] = &[
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
        80.0,
    ];

    fn itl() -> LeanLayout {
        LeanLayout::new(BucketLayout::new(VLLM_ITL, Unit::Seconds).unwrap())
    }

    fn counted(samples: &[u64]) -> Vec<(usize, u64)> {
        let mut counts = BucketCounts::new(itl().layout().clone());
        for sample in samples {
            counts.add(VLLM_ITL.partition_point(|edge| *edge < *sample as f64 / 1e6), 1);
        }
        counts.nonzero().collect()
    }

    fn leaned(intervals: &[Vec<u64>]) -> LeanCounts {
        let mut leaned = LeanCounts::new(itl());
        for samples in intervals {
            itl().lean(&counted(samples), samples.iter().sum(), |place, n| leaned.add(place, n));
        }
        leaned
    }

    fn laid(leaned: &LeanCounts) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        leaned.lay(|cell, n| histogram.add_cell(cell, n));
        histogram
    }

    #[test]
    fn single_samples_stay_where_they_are() {
        // To a 128th of the bucket of 10 to 25 ms, however many intervals there are.
        let intervals: Vec<_> = (0..100).map(|_| vec![17_000]).collect();
        let histogram = laid(&leaned(&intervals));
        let at = |q| histogram.quantile(Ratio::new(q).unwrap()).unwrap().0;
        assert!(at(0.01) >= 16_850 && at(1.0) <= 17_300, "{histogram:?}");
    }

    #[test]
    fn samples_above_the_last_edge_keep_their_mean_to_an_eighth() {
        let histogram = laid(&leaned(&[vec![200_000_000; 2]]));
        let p50 = histogram.quantile(Ratio::new(0.5).unwrap()).unwrap().0 as f64;
        assert!((p50 / 2e8 - 1.0).abs() < 0.125, "{p50}");
        let mut impossible = LeanCounts::new(itl());
        itl().lean(&[(VLLM_ITL.len(), 2)], 1, |place, n| impossible.add(place, n));
        assert!(laid(&impossible).quantile(Ratio::new(0.5).unwrap()).unwrap().0 >= 80_000_000);
        let mut endless = LeanCounts::new(itl());
        itl().lean(&[(VLLM_ITL.len(), 1)], u64::MAX, |place, n| endless.add(place, n));
        assert_eq!(laid(&endless).count(), 1);
    }

    proptest! {
        /// Invariants: every sample is laid into a cell of its own bucket; the mean is the true mean to a 32nd of the
        /// buckets' widths and a cell; every quantile lies within the bounds that the buckets put on it.
        #[test]
        fn laying_keeps_counts_buckets_mean_and_bounds(
            intervals in prop::collection::vec(prop::collection::vec(1u64..70_000_000, 1..40), 1..20),
            q in 0.0f64..=1.0,
        ) {
            let leaned = leaned(&intervals);
            let (buckets, histogram) = (leaned.buckets(), laid(&leaned));
            let all = intervals.concat();
            prop_assert_eq!(buckets.nonzero().collect::<Vec<_>>(), counted(&all));
            prop_assert_eq!(histogram.count(), all.len() as u64);
            let mut slack = 0.0;
            for (bucket, n) in buckets.nonzero() {
                let (first, last) = buckets.layout().cells(bucket);
                let there: u64 = histogram.nonzero().filter(|(c, _)| (first..=last).contains(c)).map(|(_, n)| n).sum();
                prop_assert_eq!(there, n);
                let (low, high) = buckets.layout().bounds(bucket);
                slack += n as f64 * ((high.unwrap() - low) as f64 / 32.0 + high.unwrap() as f64 / 128.0);
            }
            let bounds = quantile_bounds([&buckets], Ratio::new(q).unwrap()).unwrap();
            let estimate = histogram.quantile(Ratio::new(q).unwrap()).unwrap();
            prop_assert!(estimate >= bounds.low);
            prop_assert!(estimate.0 <= highest_in(cell_of(bounds.high.unwrap().0)));
            let mean: f64 = histogram
                .nonzero()
                .map(|(cell, n)| (layout::lowest_in(cell) as f64 + layout::width_of(cell) as f64 / 2.0) * n as f64)
                .sum();
            let sum: u64 = all.iter().sum();
            prop_assert!((mean - sum as f64).abs() <= slack, "{} for {}, slack {}", mean, sum, slack);
        }

        /// Invariant: the order of intervals, and how they are grouped before they are added up, changes nothing.
        #[test]
        fn order_and_grouping_are_irrelevant(
            mut intervals in prop::collection::vec(prop::collection::vec(1u64..70_000_000, 1..10), 1..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = leaned(&intervals);
            let (left, right) = intervals.split_at(cut.index(intervals.len()));
            let mut merged = leaned(right);
            merged.merge(&leaned(left));
            prop_assert_eq!(&merged, &whole);
            intervals.reverse();
            prop_assert_eq!(leaned(&intervals), whole);
        }

        /// Invariant: absurd sums and counts neither panic nor lose a sample.
        #[test]
        fn absurd_input_loses_nothing(
            counts in prop::collection::btree_map(0usize..40, 0u64..1_000_000_000_000, 0..20),
            sum: u64,
        ) {
            let pairs: Vec<_> = counts.into_iter().collect();
            let mut leaned = LeanCounts::new(itl());
            itl().lean(&pairs, sum, |place, n| leaned.add(place, n));
            prop_assert_eq!(laid(&leaned).count(), pairs.iter().map(|(_, n)| n).sum::<u64>());
        }
    }
}
