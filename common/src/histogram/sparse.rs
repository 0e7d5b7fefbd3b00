//! The fleet's layout where most cells are empty.

use super::{LatencyHistogram, layout::CELLS};

/// Counts in the fleet's layout, kept as the rising list of the cells that hold any: a few dozen bytes for a quiet
/// engine's second where [`LatencyHistogram`] takes 27 KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparseHistogram {
    cells: Vec<(u16, u64)>,
    sum: u64,
}

impl SparseHistogram {
    /// Adds `n` samples to a cell; a cell beyond the layout is taken for the last. The sum is added apart.
    pub fn add_cell(&mut self, cell: u16, n: u64) {
        if n == 0 {
            return;
        }
        let cell = cell.min(CELLS as u16 - 1);
        // Placement emits rising cells, so the common case is an append.
        match self.cells.last_mut() {
            Some((last, count)) if *last == cell => *count = count.saturating_add(n),
            Some((last, _)) if *last > cell => match self.cells.binary_search_by_key(&cell, |(c, _)| *c) {
                Ok(at) => self.cells[at].1 = self.cells[at].1.saturating_add(n),
                Err(at) => self.cells.insert(at, (cell, n)),
            },
            _ => self.cells.push((cell, n)),
        }
    }

    /// Adds to the sum of the samples, in microseconds (or tokens).
    pub fn add_sum(&mut self, sum: u64) {
        self.sum = self.sum.saturating_add(sum);
    }

    /// Adds all of this to a dense histogram.
    pub fn add_into(&self, dense: &mut LatencyHistogram) {
        for (cell, n) in &self.cells {
            dense.add_cell(*cell, *n);
        }
        dense.add_sum(self.sum);
    }

    /// How many samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// The sum of the samples, in microseconds (or tokens).
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// Whether it holds no sample.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The cells that hold samples, in rising order, with their counts.
    pub fn cells(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.cells.iter().copied()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.sum = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{histogram::layout, units::Micros};

    proptest! {
        /// Invariant: whatever the order of the samples, sparse and dense hold the same counts, and the cells rise.
        #[test]
        fn sparse_and_dense_agree(values in prop::collection::vec(0u64..9_000_000_000, 0..60)) {
            let (mut sparse, mut direct) = (SparseHistogram::default(), LatencyHistogram::new());
            for value in &values {
                sparse.add_cell(layout::cell_of(*value), 1);
                sparse.add_sum(*value);
                direct.record(Micros(*value));
            }
            let mut dense = LatencyHistogram::new();
            sparse.add_into(&mut dense);
            prop_assert_eq!(&dense, &direct);
            prop_assert_eq!(sparse.count(), values.len() as u64);
            prop_assert!(sparse.cells().map(|(cell, _)| cell).is_sorted_by(|a, b| a < b));
        }
    }
}
