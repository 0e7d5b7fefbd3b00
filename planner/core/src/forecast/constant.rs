//! The rate stays what it was: the median of the last five minutes.

use std::collections::VecDeque;

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::Forecaster;

/// Bins that the median is taken over: five minutes of 10 s. A median of 31 stands still when 15 of them are bursts.
const BINS: usize = 31;

/// The rate stays what it was: the median of the last 31 bins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    recent: VecDeque<f64>,
    median: f64,
}

impl Constant {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Forecaster for Constant {
    fn learn(&mut self, _: Micros, value: f64) {
        self.recent.push_back(value);
        while self.recent.len() > BINS {
            self.recent.pop_front();
        }
        let mut sorted = [0.0; BINS];
        let count = self.recent.len();
        for (slot, value) in sorted.iter_mut().zip(&self.recent) {
            *slot = *value;
        }
        let (_, middle, _) = sorted[..count].select_nth_unstable_by(count / 2, f64::total_cmp);
        self.median = *middle;
    }

    fn skip(&mut self, _: u64) {}

    fn step_to(&mut self, level: f64) {
        self.recent.clear();
        self.recent.push_back(level);
        self.median = level;
    }

    fn path(&self, path: &mut [f64]) -> bool {
        path.fill(self.median);
        !self.recent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_do_not_move_it_and_a_new_level_does() {
        let mut constant = Constant::new();
        let mut path = [0.0; 2];
        assert!(!constant.path(&mut path));
        for bin in 0..60 {
            constant.learn(Micros(bin), if bin % 4 == 0 { 90.0 } else { 10.0 });
        }
        constant.skip(1_000);
        assert!(constant.path(&mut path));
        assert!((path[1] - 10.0).abs() < 1e-12);
        for bin in 60..76 {
            constant.learn(Micros(bin), 20.0);
        }
        constant.path(&mut path);
        assert!(path[0] > 19.0, "{path:?}");
    }
}
