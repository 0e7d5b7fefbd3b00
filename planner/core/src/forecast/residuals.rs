//! How wrong a forecast was, as a distribution that forgets.

use serde::{Deserialize, Serialize};

/// Cells of the distribution.
const CELLS: usize = 64;

/// The outer edge on the stretched axis asinh(error): cells are narrow where errors are small and reach to ±100 units.
const EDGE: f64 = 5.3;

/// Width of a cell on the stretched axis.
const WIDTH: f64 = 2.0 * EDGE / CELLS as f64;

/// The level that is kept beside the median.
pub(super) const UPPER: f64 = 0.9;

/// Weights below this are nothing: they would end as denormal numbers, which processors are slow with.
const NOTHING: f32 = 1e-20;

/// A distribution of errors, in units of the series' noise, that forgets exponentially: 64 cells over asinh(error).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Residuals {
    cells: Vec<f32>,
    total: f32,
    /// The quantiles that every bin asks for, kept since they change only when an error comes.
    median: f64,
    upper: f64,
}

impl Residuals {
    pub(super) fn new() -> Self {
        Self { cells: vec![0.0; CELLS], total: 0.0, median: 0.0, upper: 0.0 }
    }

    /// Whether it has the cells that this build gives it.
    pub(super) fn fits(&self) -> bool {
        self.cells.len() == CELLS
            && self.total.is_finite()
            && self.cells.iter().all(|cell| cell.is_finite() && *cell >= 0.0)
    }

    /// Adds an error that counts `weight` after `keep` of the past was kept; not a number is no error.
    pub(super) fn add(&mut self, error: f64, weight: f64, keep: f64) {
        if error.is_nan() {
            return;
        }
        let (weight, keep) = (weight as f32, keep as f32);
        for cell in &mut self.cells {
            let kept = *cell * keep;
            *cell = if kept < NOTHING { 0.0 } else { kept };
        }
        let place = ((error.asinh() + EDGE) / WIDTH).max(0.0) as usize;
        if let Some(cell) = self.cells.get_mut(place.min(CELLS - 1)) {
            *cell += weight;
        }
        self.total = self.total * keep + weight;
        [self.median, self.upper] = self.scan([0.5, UPPER]);
    }

    /// How many errors it stands for.
    pub(super) fn weight(&self) -> f64 {
        f64::from(self.total)
    }

    /// The error at `level`, linear within a cell of the stretched axis; 0 while there is none.
    pub(super) fn quantile(&self, level: f64) -> f64 {
        match level {
            same if (same - 0.5).abs() < 1e-12 => self.median,
            same if (same - UPPER).abs() < 1e-12 => self.upper,
            other => self.scan([other])[0],
        }
    }

    /// The errors at levels, the lowest first, in one pass.
    fn scan<const N: usize>(&self, levels: [f64; N]) -> [f64; N] {
        let mut found = [0.0; N];
        let mut wanted = found.iter_mut().zip(levels).peekable();
        let mut below = 0.0_f32;
        let mut end = 0.0;
        for (index, &cell) in self.cells.iter().enumerate() {
            if cell <= 0.0 {
                continue;
            }
            while let Some((value, level)) = wanted.peek_mut() {
                let target = self.total * *level as f32;
                if below + cell < target {
                    break;
                }
                let share = f64::from((target - below) / cell).clamp(0.0, 1.0);
                **value = ((index as f64 + share) * WIDTH - EDGE).sinh();
                wanted.next();
            }
            if wanted.peek().is_none() {
                return found;
            }
            below += cell;
            end = (index + 1) as f64 * WIDTH - EDGE;
        }
        // Rounding may leave a target a hair above the sum: then it is the end of the last cell that holds anything.
        for (value, _) in wanted {
            *value = end.sinh();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut residuals = Residuals::new();
        assert!(residuals.quantile(0.9).abs() < 1e-300);
        for index in 0..10_000 {
            residuals.add(f64::from(index) / 10_000.0 * 4.0 - 2.0, 1.0, 1.0);
        }
        // Within a cell, whose width grows with the error, they are exact to its half.
        for (level, cell) in [(0.05, 0.4), (0.25, 0.3), (0.5, 0.05), (0.75, 0.3), (0.9, 0.4), (0.99, 0.4)] {
            let exact = level * 4.0 - 2.0;
            assert!(
                (residuals.quantile(level) - exact).abs() < cell / 2.0,
                "{level}: {}",
                residuals.quantile(level)
            );
        }
        assert!((residuals.weight() - 10_000.0).abs() < 1.0);
    }

    #[test]
    fn the_absurd_lands_in_the_outer_cells() {
        let mut residuals = Residuals::new();
        for error in [f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, f64::NAN] {
            residuals.add(error, 1.0, 0.9);
        }
        assert!(residuals.fits());
        assert!(residuals.quantile(0.999).is_finite() && residuals.quantile(0.001) < -90.0);
    }

    #[test]
    fn the_past_is_forgotten_and_leaves_no_denormals() {
        let mut residuals = Residuals::new();
        residuals.add(50.0, 1.0, 0.5);
        for _ in 0..500 {
            residuals.add(0.1, 1.0, 0.5);
        }
        assert!(residuals.quantile(1.0) < 0.2);
        assert_eq!(residuals.cells.iter().filter(|cell| **cell > 0.0).count(), 1);
    }
}
