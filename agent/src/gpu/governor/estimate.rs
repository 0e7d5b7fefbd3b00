//! What a question costs, as far as one can tell.

use std::time::Duration;

/// Mean and mean deviation of what a question took, both smoothed exponentially with the weights of TCP's round-trip
/// estimator (Jacobson 1988), which answers the same question: how long may the next one take?
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Estimate {
    mean_s: f64,
    deviation_s: f64,
    samples: u32,
    /// The last ones, in no order.
    recent: [Duration; Self::RECENT],
    typical: Duration,
}

impl Estimate {
    /// What a question is taken to cost before it was ever asked.
    pub(super) const UNKNOWN: Duration = Duration::from_micros(100);

    const RECENT: usize = 5;
    /// A mean beyond so many times the median is the work of single calls.
    const TRUSTED: u32 = 4;
    const MEAN_WEIGHT: f64 = 1.0 / 8.0;
    const DEVIATION_WEIGHT: f64 = 1.0 / 4.0;

    /// Learns from one more.
    pub(super) fn add(&mut self, took: Duration) {
        self.recent[self.samples as usize % Self::RECENT] = took;
        let took = took.as_secs_f64();
        if self.samples == 0 {
            self.mean_s = took;
            self.deviation_s = took / 8.0;
        } else {
            let error = took - self.mean_s;
            self.mean_s += error * Self::MEAN_WEIGHT;
            self.deviation_s += (error.abs() - self.deviation_s) * Self::DEVIATION_WEIGHT;
        }
        self.samples = self.samples.saturating_add(1);
        let count = Self::RECENT.min(self.samples as usize);
        let mut recent = self.recent;
        recent[..count].sort_unstable();
        self.typical = recent[(count - 1) / 2];
    }

    /// How often it was asked.
    pub(super) const fn samples(&self) -> u32 {
        self.samples
    }

    /// What it takes usually: the median of the last five times, the lower one of an even number. A machine that was busy
    /// for a moment does not change it.
    pub(super) const fn typical(&self) -> Duration {
        self.typical
    }

    /// What it takes on average, but not what it takes on a machine that was busy for a moment.
    pub(super) fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.mean_s).min(self.typical * Self::TRUSTED)
    }

    /// What it hardly ever exceeds, with the same exception.
    pub(super) fn upper(&self) -> Duration {
        Duration::from_secs_f64(self.mean_s + 2.0 * self.deviation_s).min(self.typical * Self::TRUSTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hiccup_among_many_changes_little_and_a_change_for_good_is_learned() {
        let mut estimate = Estimate::default();
        for _ in 0..50 {
            estimate.add(Duration::from_micros(10));
        }
        assert!(estimate.upper() < Duration::from_micros(11));
        estimate.add(Duration::from_millis(20));
        assert_eq!(estimate.mean(), Duration::from_micros(40));
        assert_eq!(estimate.typical(), Duration::from_micros(10));
        for _ in 0..100 {
            estimate.add(Duration::from_millis(1));
        }
        let mean = estimate.mean().as_secs_f64();
        assert!((mean - 1e-3).abs() < 1e-5, "{mean}");
    }

    #[test]
    fn the_typical_time_is_the_median_of_the_last_five() {
        let mut estimate = Estimate::default();
        for (took, typical) in [(900, 900), (10, 10), (10, 10), (700, 10), (800, 700), (20, 20), (900, 700)] {
            estimate.add(Duration::from_micros(took));
            assert_eq!(estimate.typical(), Duration::from_micros(typical), "after {took}");
        }
    }
}
