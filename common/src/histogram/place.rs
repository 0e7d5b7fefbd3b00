//! Sum-constrained placement: where in their buckets an interval's samples most likely lie.

use super::{buckets::BucketLayout, layout};

/// Places the samples of one interval of one bucketed series into cells of the fleet's layout.
///
/// `counts` are `(bucket, samples)` in rising bucket order, `sum` is the growth of the series' `_sum` in whole units
/// (microseconds or tokens). One fraction `t = (sum − Σ low·n) / Σ (high − low)·n` is chosen for all buckets and each
/// bucket's samples are spread evenly over `[0, 2t]` of it (or `[2t − 1, 1]` where t is above a half), so that the
/// mean comes out exact. The shorter the interval, the more the sum tells. `t` is cut to 0..=1 where the sum is
/// impossible (a clock step can make it so). Samples above the last edge are placed at the mean that the sum leaves for
/// them, or at the last edge. Returns how many those were: a series with any is *saturated*, its tail is unknown.
pub fn place(
    bucket_layout: &BucketLayout,
    counts: &[(usize, u64)],
    sum: u64,
    mut add: impl FnMut(u16, u64),
) -> u64 {
    let unbounded: u64 =
        counts.iter().filter(|(b, _)| bucket_layout.bounds(*b).1.is_none()).map(|(_, n)| n).sum();
    let (mut floor, mut room) = (0.0, 0.0);
    for (low, high, n) in finite(bucket_layout, counts) {
        floor += low as f64 * n as f64;
        room += (high - low) as f64 * n as f64;
    }
    // With samples of unknown height the sum does not constrain the others: assume their middle.
    let t = if unbounded > 0 || room <= 0.0 { 0.5 } else { ((sum as f64 - floor) / room).clamp(0.0, 1.0) };
    for (bucket, n) in counts {
        let (low, high) = bucket_layout.bounds(*bucket);
        let (first, last) = bucket_layout.cells(*bucket);
        if *n == 0 {
            continue;
        }
        let Some(high) = high else {
            let left = (sum as f64 - (floor + room * t)) / unbounded as f64;
            let value = if left > low as f64 { left as u64 } else { low };
            add(layout::cell_of(value).clamp(first, last), *n);
            continue;
        };
        let (from, to) = if t <= 0.5 { (0.0, 2.0 * t) } else { (2.0 * t - 1.0, 1.0) };
        let width = (high - low) as f64;
        spread(low as f64 + from * width, low as f64 + to * width, *n, (first, last), &mut add);
    }
    unbounded
}

fn finite(bucket_layout: &BucketLayout, counts: &[(usize, u64)]) -> impl Iterator<Item = (u64, u64, u64)> {
    counts.iter().filter_map(|(bucket, n)| {
        let (low, high) = bucket_layout.bounds(*bucket);
        high.map(|high| (low, high, *n))
    })
}

/// Spreads `n` samples evenly over the values `from..=to`, never leaving the cells `first..=last`; costs the smaller
/// of `n` and the number of cells.
fn spread(from: f64, to: f64, n: u64, (first, last): (u16, u16), add: &mut impl FnMut(u16, u64)) {
    let cell_at = |value: f64| layout::cell_of(value.round() as u64).clamp(first, last);
    let (start, end) = (cell_at(from), cell_at(to));
    let width = to - from;
    if start == end || width <= 0.0 {
        add(end, n);
    } else if n <= u64::from(end - start) {
        for k in 0..n {
            add(cell_at(from + (k as f64 + 0.5) / n as f64 * width), 1);
        }
    } else {
        let mut placed = 0;
        for cell in start..=end {
            let share = ((layout::highest_in(cell) as f64 + 1.0 - from) / width).clamp(0.0, 1.0);
            let upto = if cell == end { n } else { (share * n as f64).round() as u64 };
            if upto > placed {
                add(cell, upto - placed);
                placed = upto;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        engine::Unit,
        histogram::{BucketCounts, LatencyHistogram, quantile_bounds},
        units::Ratio,
    };

    const VLLM_ITL: &[f64] = &[
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
        80.0,
    ];

    fn placed(layout: &BucketLayout, counts: &[(usize, u64)], sum: u64) -> (LatencyHistogram, u64) {
        let mut histogram = LatencyHistogram::new();
        let saturated = place(layout, counts, sum, |cell, n| histogram.add_cell(cell, n));
        histogram.add_sum(sum);
        (histogram, saturated)
    }

    fn itl() -> BucketLayout {
        BucketLayout::new(VLLM_ITL, Unit::Seconds).unwrap()
    }

    #[test]
    fn one_event_is_placed_exactly() {
        let (histogram, _) = placed(&itl(), &[(0, 1)], 4_300);
        let p50 = histogram.quantile(Ratio::new(0.5).unwrap()).unwrap().0;
        assert_eq!(layout::cell_of(p50), layout::cell_of(4_300));
    }

    #[test]
    fn samples_above_the_last_edge_are_flagged_and_keep_the_mean() {
        let (histogram, saturated) = placed(&itl(), &[(VLLM_ITL.len(), 2)], 400_000_000);
        assert_eq!(saturated, 2);
        let p50 = histogram.quantile(Ratio::new(0.5).unwrap()).unwrap().0;
        assert_eq!(layout::cell_of(p50), layout::cell_of(200_000_000));
        // An impossible sum (a clock step) leaves them at the last edge.
        let (histogram, _) = placed(&itl(), &[(VLLM_ITL.len(), 2)], 1);
        assert!(histogram.quantile(Ratio::new(0.5).unwrap()).unwrap().0 >= 80_000_000);
    }

    proptest! {
        /// Invariants: every sample is placed, in a cell of its own bucket; the placed mean is the true mean to a
        /// cell's width plus rounding; every quantile lies within the bounds that the buckets put on it.
        #[test]
        fn placement_keeps_counts_buckets_mean_and_bounds(
            samples in prop::collection::vec(1u64..70_000_000, 1..300),
            q in 0.0f64..=1.0,
        ) {
            let layout = itl();
            let mut counts = BucketCounts::new(layout.clone());
            for sample in &samples {
                let secs = *sample as f64 / 1e6;
                counts.add(VLLM_ITL.partition_point(|edge| *edge < secs), 1);
            }
            let sum: u64 = samples.iter().sum();
            let pairs: Vec<_> = counts.nonzero().collect();
            let (histogram, saturated) = placed(&layout, &pairs, sum);
            prop_assert_eq!(saturated, 0);
            prop_assert_eq!(histogram.count(), samples.len() as u64);
            for (bucket, n) in pairs {
                let (first, last) = layout.cells(bucket);
                let there: u64 = histogram.nonzero().filter(|(c, _)| (first..=last).contains(c)).map(|(_, n)| n).sum();
                prop_assert_eq!(there, n);
            }
            let bounds = quantile_bounds([&counts], Ratio::new(q).unwrap()).unwrap();
            let estimate = histogram.quantile(Ratio::new(q).unwrap()).unwrap();
            prop_assert!(estimate >= bounds.low);
            let high = bounds.high.unwrap().0;
            prop_assert!(estimate.0 <= layout::highest_in(layout::cell_of(high)));
            let placed_sum: f64 = histogram
                .nonzero()
                .map(|(cell, n)| (layout::lowest_in(cell) as f64 + layout::width_of(cell) as f64 / 2.0) * n as f64)
                .sum();
            prop_assert!((placed_sum - sum as f64).abs() <= 0.02 * sum as f64 + samples.len() as f64);
        }

        /// Invariant: absurd sums and counts neither panic nor lose a sample.
        #[test]
        fn absurd_input_loses_nothing(counts in prop::collection::btree_map(0usize..40, 0u64..1_000_000_000_000, 0..20), sum: u64) {
            let pairs: Vec<_> = counts.into_iter().collect();
            let (histogram, _) = placed(&itl(), &pairs, sum);
            prop_assert_eq!(histogram.count(), pairs.iter().map(|(_, n)| n).sum::<u64>());
        }
    }
}
