//! Dense counts in the fleet's layout.

use std::fmt;

use super::layout::{self, CELLS};
use crate::units::{Micros, Ratio};

/// A distribution of latencies (or of token counts: one token for one microsecond) in the fleet's one layout.
///
/// Counts and the sum are whole numbers, so merging is exact, commutative and associative; nothing is lost but the
/// position of a value within its cell (≤ 0.78 %). 27 KiB, whatever it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct LatencyHistogram {
    cells: Box<[u64]>,
    count: u64,
    sum: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyHistogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self { cells: vec![0; CELLS].into_boxed_slice(), count: 0, sum: 0 }
    }

    /// Counts one value. What is above [`layout::MAX_VALUE`] is counted in the last cell, with its true sum.
    pub fn record(&mut self, value: Micros) {
        self.add_cell(layout::cell_of(value.0), 1);
        self.add_sum(value.0);
    }

    /// Adds `n` samples to a cell without touching the sum (which bucketed sources know exactly: see
    /// [`Self::add_sum`]). A cell beyond the layout is taken for the last.
    pub fn add_cell(&mut self, cell: u16, n: u64) {
        let slot = &mut self.cells[usize::from(cell).min(CELLS - 1)];
        *slot = slot.saturating_add(n);
        self.count = self.count.saturating_add(n);
    }

    /// Adds to the sum of the samples, in microseconds.
    pub fn add_sum(&mut self, sum: u64) {
        self.sum = self.sum.saturating_add(sum);
    }

    /// Adds all of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.cells.iter_mut().zip(&other.cells) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.cells.fill(0);
        self.count = 0;
        self.sum = 0;
    }

    /// How many samples.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all samples.
    #[must_use]
    pub const fn sum(&self) -> Micros {
        Micros(self.sum)
    }

    /// Whether it holds no sample.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The mean of all samples; `None` when there are none.
    #[must_use]
    pub fn mean(&self) -> Option<Micros> {
        self.sum.checked_div(self.count).map(Micros)
    }

    /// The value at a quantile: the highest value of the cell that holds the sample of rank ⌈q·n⌉ (at least 1), which
    /// is HdrHistogram's definition. `None` when there are no samples.
    #[must_use]
    pub fn quantile(&self, q: Ratio) -> Option<Micros> {
        let rank = rank(q, self.count)?;
        let mut seen = 0u64;
        for (cell, n) in self.nonzero() {
            seen = seen.saturating_add(n);
            if seen >= rank {
                return Some(Micros(layout::highest_in(cell)));
            }
        }
        None
    }

    /// How many samples lie in cells that end at or below `value`: the samples that certainly attain such a limit.
    #[must_use]
    pub fn count_at_or_below(&self, value: Micros) -> u64 {
        self.nonzero()
            .take_while(|(cell, _)| layout::highest_in(*cell) <= value.0)
            .fold(0, |sum, (_, n)| sum.saturating_add(n))
    }

    /// The cells that hold samples, in rising order, with their counts.
    pub fn nonzero(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.cells.iter().enumerate().filter(|(_, n)| **n > 0).map(|(cell, n)| (cell as u16, *n))
    }
}

/// The rank of the sample at quantile `q` of `count` samples, from 1; `None` when there are none.
pub(super) fn rank(q: Ratio, count: u64) -> Option<u64> {
    (count > 0).then(|| ((q.get() * count as f64).ceil() as u64).clamp(1, count))
}

impl fmt::Debug for LatencyHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatencyHistogram")
            .field("count", &self.count)
            .field("sum", &self.sum)
            .field("cells", &self.nonzero().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        for value in values {
            histogram.record(Micros(*value));
        }
        histogram
    }

    #[test]
    fn an_empty_histogram_knows_nothing() {
        let empty = LatencyHistogram::new();
        assert_eq!(empty.quantile(Ratio::new(0.5).unwrap()), None);
        assert_eq!(empty.mean(), None);
        assert!(empty.is_empty());
    }

    #[test]
    fn attainment_counts_only_what_is_certain() {
        let histogram = of(&[100, 200, 10_000]);
        assert_eq!(histogram.count_at_or_below(Micros(200)), 2);
        // 10,000 µs shares a cell with 10,047 µs, so 10,000 µs alone does not prove attainment.
        assert_eq!(histogram.count_at_or_below(Micros(10_000)), 2);
        assert_eq!(histogram.count_at_or_below(Micros(10_047)), 3);
    }

    proptest! {
        /// Invariant: merging is lossless and does not care about order or grouping.
        #[test]
        fn merge_is_exact_commutative_and_associative(
            a in prop::collection::vec(0u64..9_000_000_000, 0..40),
            b in prop::collection::vec(0u64..9_000_000_000, 0..40),
            c in prop::collection::vec(0u64..9_000_000_000, 0..40),
        ) {
            let (ha, hb, hc) = (of(&a), of(&b), of(&c));
            let all = of(&[a, b, c].concat());
            let mut left = ha.clone();
            left.merge(&hb);
            left.merge(&hc);
            let mut right = hc;
            right.merge(&hb);
            right.merge(&ha);
            prop_assert_eq!(&left, &all);
            prop_assert_eq!(&right, &all);
        }

        /// Invariant: every quantile is within a cell's width of the exact order statistic, and is what
        /// HdrHistogram answers.
        #[test]
        fn quantiles_are_the_exact_ones_to_a_cell(
            mut values in prop::collection::vec(0u64..7_000_000_000, 1..200),
            q in 0.0f64..=1.0,
        ) {
            let ours = of(&values).quantile(Ratio::new(q).unwrap()).unwrap().0;
            values.sort_unstable();
            let exact = values[rank(Ratio::new(q).unwrap(), values.len() as u64).unwrap() as usize - 1];
            prop_assert_eq!(ours, layout::highest_in(layout::cell_of(exact)));
        }
    }
}
