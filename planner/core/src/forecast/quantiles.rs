//! A distribution as its quantiles.

use serde::{Deserialize, Serialize};

/// The levels of [`Quantiles`].
pub const LEVELS: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.98, 0.99, 0.995];

/// A distribution as its quantiles at [`LEVELS`]: not negative, finite, and none below the one before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    values: [f64; LEVELS.len()],
}

impl Quantiles {
    /// Takes one value a level; what falls below zero or below the one before is lifted.
    pub(super) fn new(mut values: [f64; LEVELS.len()]) -> Self {
        let mut least = 0.0;
        for value in &mut values {
            least = value.max(least);
            *value = least;
        }
        Self { values }
    }

    /// The value at `level`, linear between the levels and flat beyond the outer ones.
    #[must_use]
    pub fn at(&self, level: f64) -> f64 {
        let above = LEVELS.partition_point(|&known| known < level);
        if above == 0 {
            return self.values[0];
        }
        if above >= LEVELS.len() {
            return self.values[LEVELS.len() - 1];
        }
        let (low, high) = (LEVELS[above - 1], LEVELS[above]);
        let share = (level - low) / (high - low);
        self.values[above - 1] + share * (self.values[above] - self.values[above - 1])
    }

    /// The value at 0.5.
    #[must_use]
    pub const fn median(&self) -> f64 {
        self.values[3]
    }

    /// Levels with their values.
    pub fn iter(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        LEVELS.iter().copied().zip(self.values)
    }
}

/// The standard normal distribution's quantile, within 4.5e-4 (Abramowitz and Stegun, 26.2.23). Levels are taken between
/// 1e-6 and 1 - 1e-6.
pub(super) fn normal(level: f64) -> f64 {
    let level = if level.is_nan() { 0.5 } else { level.clamp(1e-6, 1.0 - 1e-6) };
    let tail = level.min(1.0 - level);
    let t = (-2.0 * tail.ln()).sqrt();
    let over = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let under = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = (t - over / under).max(0.0);
    if level < 0.5 { -z } else { z }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_levels_it_is_linear_and_beyond_them_flat() {
        let quantiles = Quantiles::new([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert!((quantiles.at(0.925) - 6.5).abs() < 1e-12);
        assert!((quantiles.at(0.0) - 1.0).abs() < 1e-12);
        assert!((quantiles.at(1.0) - 11.0).abs() < 1e-12);
        assert!((quantiles.at(f64::NAN) - 1.0).abs() < 1e-12, "not a number is below every level");
        assert!((quantiles.median() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn disorder_is_lifted() {
        let quantiles = Quantiles::new([-1.0, 3.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 1.0]);
        assert!(quantiles.iter().map(|(_, value)| value).is_sorted());
        assert!(quantiles.at(0.05).abs() < 1e-300);
    }

    #[test]
    fn the_normal_quantile_is_the_tables() {
        for (level, z) in
            [(0.5, 0.0), (0.9, 1.281_55), (0.95, 1.644_85), (0.995, 2.575_83), (0.05, -1.644_85)]
        {
            assert!((normal(level) - z).abs() < 5e-4, "{level}");
        }
        assert!(normal(f64::NAN).abs() < 5e-4);
    }
}
