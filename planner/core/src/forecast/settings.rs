//! What a forecaster has to be told about its series.

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

/// What a forecaster has to be told about its series. Everything else is learned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Length of a bin. Zero counts as one microsecond.
    pub bin: Micros,
    /// How long a rate has to last to count: what is forecast is the mean over this time, rounded to bins, at least one
    /// and at most [`Settings::MOST_SUSTAINED_BINS`].
    pub sustained: Micros,
    /// What one event adds to the series, in its unit × seconds: 1 for requests a second, mean × (1 + CV²) of the
    /// prompt for prompt tokens a second. By it the variance is known that Poisson arrivals alone would have, which is
    /// left to queueing. 0 where that is unknown: then all noise is in the band. Not finite or negative counts as 0.
    pub quantum: f64,
}

impl Settings {
    /// The most bins that a sustained rate is the mean of.
    pub const MOST_SUSTAINED_BINS: usize = 30;

    /// A series of requests a second in bins of 10 s, whose rate counts when it lasts 30 s: long against the seconds
    /// that a queue may take within a TTFT goal, short against any start-up time.
    #[must_use]
    pub const fn requests() -> Self {
        Self { bin: Micros(10_000_000), sustained: Micros(30_000_000), quantum: 1.0 }
    }

    /// Length of a bin, seconds, above zero.
    pub(super) fn bin_secs(self) -> f64 {
        self.bin_micros() as f64 / 1e6
    }

    /// Length of a bin, microseconds, above zero.
    pub(super) const fn bin_micros(self) -> u64 {
        if self.bin.0 == 0 { 1 } else { self.bin.0 }
    }

    /// Bins that a sustained rate is the mean of.
    pub(super) fn sustained_bins(self) -> usize {
        let bins = self.sustained.0.saturating_add(self.bin_micros() / 2) / self.bin_micros();
        usize::try_from(bins).unwrap_or(usize::MAX).clamp(1, Self::MOST_SUSTAINED_BINS)
    }

    /// Bins of a horizon, rounded up, at least one and at most `most`.
    pub(super) fn steps(self, horizon: Micros, most: usize) -> usize {
        let bins = horizon.0.div_ceil(self.bin_micros());
        usize::try_from(bins).unwrap_or(usize::MAX).clamp(1, most)
    }

    /// Variance over rate that Poisson arrivals alone give a mean over `bins` bins.
    pub(super) fn poisson(self, bins: usize) -> f64 {
        let quantum = if self.quantum.is_finite() { self.quantum.max(0.0) } else { 0.0 };
        quantum / (self.bin_secs() * bins.max(1) as f64)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::requests()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_settings_are_bounded() {
        let settings = Settings { bin: Micros(0), sustained: Micros::MAX, quantum: f64::NAN };
        assert_eq!(settings.bin_micros(), 1);
        assert_eq!(settings.sustained_bins(), Settings::MOST_SUSTAINED_BINS);
        assert!(settings.poisson(0).abs() < 1e-300);
        assert_eq!(settings.steps(Micros::MAX, 360), 360);
        assert_eq!(settings.steps(Micros::ZERO, 360), 1);
    }

    #[test]
    fn horizons_round_up() {
        assert_eq!(Settings::default().steps(Micros(10_000_001), 360), 2);
        assert_eq!(Settings::default().sustained_bins(), 3);
    }
}
