//! A mean that forgets.

use serde::{Deserialize, Serialize};

/// A mean that forgets exponentially, unbiased from its first value on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Running {
    sum: f64,
    weight: f64,
}

impl Running {
    /// Adds a value after `keep` (0..1) of the past was kept.
    pub(super) fn add(&mut self, value: f64, keep: f64) {
        self.sum = self.sum * keep + value;
        self.weight = self.weight * keep + 1.0;
    }

    /// Takes `mean` as if it had been seen `weight` times, and forgets all else.
    pub(super) fn set(&mut self, mean: f64, weight: f64) {
        *self = Self { sum: mean * weight, weight };
    }

    /// The mean; `None` before the first value.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// How many values it stands for.
    pub(super) const fn weight(&self) -> f64 {
        self.weight
    }
}

/// What is kept a step when half is kept after `steps`.
pub(super) fn keep(steps: f64) -> f64 {
    0.5_f64.powf(1.0 / steps.max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_the_mean_and_half_is_gone_after_a_half_life() {
        let mut mean = Running::default();
        assert!(mean.mean().is_none());
        mean.add(4.0, keep(10.0));
        assert!((mean.mean().unwrap() - 4.0).abs() < 1e-12);
        assert!((keep(10.0).powi(10) - 0.5).abs() < 1e-12);
    }
}
