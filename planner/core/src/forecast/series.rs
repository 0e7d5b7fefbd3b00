//! Generated series for tests: rates, and counts drawn from them.

use plimsoll_common::units::Micros;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, Gamma, Poisson};

use super::{Ensemble, Settings};

/// A bin of 10 s.
pub(super) const BIN: Micros = Micros(10_000_000);

/// Draws what arrives in bins.
pub(super) struct Arrivals {
    rng: ChaCha8Rng,
    /// Variance of the counts over their mean: 1 is Poisson, more are bursts.
    dispersion: f64,
}

impl Arrivals {
    pub(super) fn new(seed: u64, dispersion: f64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), dispersion }
    }

    /// Mean rate of a bin at a true rate.
    pub(super) fn draw(&mut self, rate: f64) -> f64 {
        let mean = rate * 10.0;
        if mean <= 0.0 {
            return 0.0;
        }
        // A gamma-mixed Poisson: its variance is the mean and the mixture's.
        let extra = self.dispersion - 1.0;
        let mixed =
            if extra > 0.0 { Gamma::new(mean / extra, extra).unwrap().sample(&mut self.rng) } else { mean };
        if mixed <= 0.0 { 0.0 } else { Poisson::new(mixed).unwrap().sample(&mut self.rng) / 10.0 }
    }
}

/// The end of a bin, counted from 1.
pub(super) fn end(bin: u64) -> Micros {
    Micros(bin * BIN.0)
}

/// A forecaster that saw `bins` bins of a series.
pub(super) fn after(settings: Settings, bins: u64, mut rate: impl FnMut(u64) -> f64) -> Ensemble {
    let mut ensemble = Ensemble::new(settings);
    for bin in 1..=bins {
        ensemble.observe(end(bin), rate(bin));
    }
    ensemble
}

/// Seconds.
pub(super) const fn secs(secs: u64) -> Micros {
    Micros(secs * 1_000_000)
}
