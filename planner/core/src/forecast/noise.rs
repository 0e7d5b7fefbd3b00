//! The unit that errors are measured in: how noisy the series is at a rate.

use serde::{Deserialize, Serialize};

use super::running::{Running, keep};

/// Bins after which half of the noise is forgotten: an hour of 10 s. It is a unit, not a band: it may be slow.
const NOISE_BINS: f64 = 360.0;

/// Bins after which half of the usual rate is forgotten: a day of 10 s.
const USUAL_BINS: f64 = 8_640.0;

/// A rate counts as at least this share of the usual one where noise is told from it: at zero there is still noise.
const LEAST_RATE: f64 = 0.02;

/// Noise is at least this share of the rate.
const LEAST_NOISE: f64 = 0.002;

/// Errors over so many units are clipped: a step would otherwise make the unit coarse for an hour.
const OUTLIER: f64 = 4.0;

/// Bins that tell how noisy others are.
const ENOUGH: f64 = 6.0;

/// How noisy single bins are: their variance in proportion to the rate, as counts of events have it. Learned, so that
/// nothing depends on the series' own unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Noise {
    /// Squared errors one bin ahead over the rate.
    over_rate: Running,
    usual: Running,
}

impl Noise {
    /// Noise that is taken for that of Poisson arrivals, variance over rate, until something else is seen; at 0 nothing is
    /// taken for granted.
    pub(super) fn expecting(poisson: f64) -> Self {
        let mut noise = Self::default();
        if poisson > 0.0 {
            noise.over_rate.set(poisson, ENOUGH);
        }
        noise
    }

    /// Takes a bin's rate and what was forecast for it.
    pub(super) fn add(&mut self, value: f64, forecast: Option<f64>) {
        self.usual.add(value, keep(USUAL_BINS));
        let Some(forecast) = forecast else { return };
        // Of both: what comes after nothing is as noisy as what comes.
        let rate = self.rate(f64::midpoint(value, forecast));
        if rate <= 0.0 {
            return;
        }
        let mut error = value - forecast;
        if self.over_rate.weight() >= ENOUGH {
            let most = OUTLIER * self.unit(rate);
            error = error.clamp(-most, most);
        }
        self.over_rate.add(error * error / rate, keep(NOISE_BINS));
    }

    /// A rate as noise is told from it: 0 only where nothing ever came.
    pub(super) fn rate(&self, rate: f64) -> f64 {
        rate.max(LEAST_RATE * self.usual.mean().unwrap_or_default())
    }

    /// Standard deviation of a bin at `rate`; 0 only where nothing ever came.
    pub(super) fn unit(&self, rate: f64) -> f64 {
        let rate = self.rate(rate);
        (self.over_rate.mean().unwrap_or_default() * rate).sqrt().max(LEAST_NOISE * rate)
    }
}
