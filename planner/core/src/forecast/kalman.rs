//! A local linear trend, whose noise is learned: a bank of Kalman filters.

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use super::{
    Forecaster,
    running::{Running, keep},
};

/// Variance of the level's walk over variance of the noise, one filter each. With steady gains of about 0.03, 0.09, 0.27
/// and 0.62 they remember from five minutes to a few bins.
const RATIOS: [f64; 4] = [0.001, 0.01, 0.1, 1.0];

/// Bins after which half of an innovation's weight in the choice between filters is gone: five minutes of 10 s.
const CHOICE_BINS: f64 = 30.0;

/// Bins after which half of an innovation's weight in the noise is gone.
const NOISE_BINS: f64 = 60.0;

/// An innovation of so many standard deviations is an outlier: clipped when alone, a step when the next agrees.
const OUTLIER: f64 = 3.5;

/// The noise is at least this share of the level: so that a noiseless series divides by something.
const LEAST_NOISE: f64 = 0.002;

/// A local linear trend with damped slope, as a mixture of four filters whose process noise differs. Recent innovations
/// choose between them, which is how process and observation noise are learned without a fit that could diverge.
///
/// A single bin far from the forecast is a burst and moves little; a second on the same side is a step: the level
/// follows at once and the slope does not, since a step is no trend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kalman {
    filters: [Filter; RATIOS.len()],
    /// Squared innovations over the level.
    noise: Running,
    seen: u32,
    /// Outliers in a row, negative below the forecast.
    run: i32,
}

/// One filter: level and slope (a bin) with their covariance in units of the observation noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Filter {
    ratio: f64,
    damping: f64,
    level: f64,
    slope: f64,
    level_variance: f64,
    covariance: f64,
    slope_variance: f64,
    /// Squared innovations over the level.
    error: Running,
}

impl Kalman {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { filters: RATIOS.map(Filter::new), noise: Running::default(), seen: 0, run: 0 }
    }

    /// The rate as it is now, noise taken out; 0 before the first value.
    #[must_use]
    pub fn level(&self) -> f64 {
        let weights = self.weights();
        self.filters.iter().zip(weights).map(|(filter, weight)| filter.level * weight).sum::<f64>().max(0.0)
    }

    /// Whether the newest value was taken as a step.
    pub(super) const fn stepped(&self) -> bool {
        self.run.unsigned_abs() >= 2
    }

    /// Shares of the filters: the likelihood of the recent innovations under each, tempered to half of the bins since
    /// neighbouring innovations tell much the same.
    fn weights(&self) -> [f64; RATIOS.len()] {
        let power = f64::from(self.seen.min(2 * CHOICE_BINS as u32)) / 4.0;
        let errors = self.filters.map(|filter| filter.error.mean().unwrap_or_default());
        let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
        let weights = errors.map(|error| if least > 0.0 { (least / error).powf(power) } else { 1.0 });
        let total: f64 = weights.iter().sum();
        weights.map(|weight| weight / total)
    }

    /// Standard deviation of an innovation at `level`, above zero where the level is.
    fn deviation(&self, level: f64) -> f64 {
        let learned = (self.noise.mean().unwrap_or_default() * level).sqrt();
        learned.max(LEAST_NOISE * level)
    }

    /// Takes an innovation of the mixture for what it is: how much of it each filter is shown, and whether it is a step.
    fn judge(&mut self, innovation: f64, level: f64) -> (f64, bool) {
        let deviation = self.deviation(level);
        // Three values tell nothing of the noise yet, and at a level of zero there is none to compare with.
        if self.seen < 4 || deviation <= 0.0 {
            self.noise.add(innovation * innovation / level.max(f64::MIN_POSITIVE), keep(NOISE_BINS));
            return (f64::INFINITY, false);
        }
        let limit = OUTLIER * deviation;
        self.run = match innovation {
            up if up > limit => self.run.max(0).saturating_add(1),
            down if down < -limit => self.run.min(0).saturating_sub(1),
            _ => 0,
        };
        let clipped = innovation.clamp(-limit, limit);
        self.noise.add(clipped * clipped / level, keep(NOISE_BINS));
        let step = self.stepped();
        (if step { f64::INFINITY } else { limit }, step)
    }
}

impl Default for Kalman {
    fn default() -> Self {
        Self::new()
    }
}

impl Forecaster for Kalman {
    fn learn(&mut self, _: Micros, value: f64) {
        if self.seen == 0 {
            for filter in &mut self.filters {
                filter.level = value;
            }
            self.seen = 1;
            return;
        }
        let mut next = [0.0];
        self.path(&mut next);
        let reference = next[0].max(value);
        if reference > 0.0 {
            let (limit, step) = self.judge(value - next[0], reference);
            for filter in &mut self.filters {
                filter.learn(value, limit, step, reference);
            }
        }
        self.seen = self.seen.saturating_add(1);
    }

    fn skip(&mut self, bins: u64) {
        for filter in &mut self.filters {
            filter.skip(bins);
        }
    }

    fn path(&self, path: &mut [f64]) -> bool {
        path.fill(0.0);
        for (filter, weight) in self.filters.iter().zip(self.weights()) {
            let (mut level, mut slope) = (filter.level, filter.slope);
            for value in &mut *path {
                slope *= filter.damping;
                level += slope;
                *value += weight * level;
            }
        }
        for value in path {
            *value = value.max(0.0);
        }
        self.seen > 0
    }
}

impl Filter {
    fn new(ratio: f64) -> Self {
        // The steady gain of a local level with this ratio; a slope is believed for ten times the filter's memory.
        let gain = 0.5 * ((ratio * ratio + 4.0 * ratio).sqrt() - ratio);
        Self {
            ratio,
            damping: 1.0 - gain / 10.0,
            level: 0.0,
            slope: 0.0,
            level_variance: 1.0,
            covariance: 0.0,
            slope_variance: ratio / 16.0,
            error: Running::default(),
        }
    }

    fn learn(&mut self, value: f64, limit: f64, step: bool, reference: f64) {
        let damping = self.damping;
        self.slope *= damping;
        self.level += self.slope;
        self.level_variance +=
            2.0 * damping * self.covariance + damping * damping * self.slope_variance + self.ratio;
        self.covariance = damping * (self.covariance + damping * self.slope_variance);
        // The slope's walk that makes a filter of this gain critically damped: gain⁴/16, where gain² is about the ratio.
        self.slope_variance = damping * damping * self.slope_variance + self.ratio * self.ratio / 16.0;
        if step {
            self.level_variance = self.level_variance.max(20.0);
        }
        let innovation = value - self.level;
        // Each filter answers for its own forecast: the clip is wide enough for all, and equal.
        let shown = innovation.clamp(-2.0 * limit, 2.0 * limit);
        let least = LEAST_NOISE * LEAST_NOISE * reference;
        self.error.add(shown * shown / reference + least, keep(CHOICE_BINS));
        let taken = innovation.clamp(-limit, limit);
        let total = self.level_variance + 1.0;
        let (level_gain, slope_gain) = (self.level_variance / total, self.covariance / total);
        self.level += level_gain * taken;
        self.slope += slope_gain * taken;
        self.slope_variance -= slope_gain * self.covariance;
        self.covariance *= 1.0 - level_gain;
        self.level_variance *= 1.0 - level_gain;
    }

    /// Holds the level, lets the slope fade and the uncertainty grow, up to where the next value is taken as it is.
    fn skip(&mut self, bins: u64) {
        let bins = bins.min(100_000) as f64;
        self.slope *= self.damping.powf(bins);
        self.level_variance = (self.level_variance + bins * (self.ratio + self.slope_variance)).min(100.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: impl IntoIterator<Item = f64>) -> Kalman {
        let mut kalman = Kalman::new();
        for value in values {
            kalman.learn(Micros::ZERO, value);
        }
        kalman
    }

    fn ahead(kalman: &Kalman, bins: usize) -> f64 {
        let mut path = vec![0.0; bins];
        assert!(kalman.path(&mut path));
        path[bins - 1]
    }

    #[test]
    fn a_ramp_is_followed() {
        let kalman = after((0..120).map(|bin| 10.0 + 0.2 * f64::from(bin)));
        let expected = 10.0 + 0.2 * 127.0;
        assert!((ahead(&kalman, 8) / expected - 1.0).abs() < 0.03, "{} of {expected}", ahead(&kalman, 8));
    }

    #[test]
    fn one_burst_is_noise_and_two_bins_are_a_step() {
        // A level of 20 with a little noise of its own.
        let quiet = (0..60).map(|bin| 20.0 + f64::from(bin % 3) - 1.0);
        let burst = after(quiet.clone().chain([160.0]));
        assert!(burst.level() < 24.0, "{}", burst.level());
        let step = after(quiet.chain([160.0, 160.0, 160.0]));
        assert!((step.level() - 160.0).abs() < 8.0, "{}", step.level());
        let later = ahead(&step, 36);
        assert!((later - 160.0).abs() < 24.0, "a step is no trend: {later}");
    }

    #[test]
    fn zeros_are_zeros_and_what_comes_after_is_taken() {
        let kalman = after((0..50).map(|_| 0.0));
        assert!(ahead(&kalman, 8).abs() < 1e-300);
        let woken = after((0..50).map(|_| 0.0).chain([5.0, 5.0, 5.0]));
        assert!(ahead(&woken, 1) > 3.0, "{}", ahead(&woken, 1));
    }

    #[test]
    fn a_gap_holds_the_level_and_forgets_the_slope() {
        let mut kalman = after((0..120).map(|bin| 10.0 + 0.2 * f64::from(bin)));
        let level = kalman.level();
        kalman.skip(100_000_000_000);
        assert!((ahead(&kalman, 30) - level).abs() < 0.2, "{} of {level}", ahead(&kalman, 30));
    }
}
