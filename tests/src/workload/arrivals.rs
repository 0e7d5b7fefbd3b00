//! Arrival times.

use std::{f64::consts::TAU, time::Duration};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A slow sine on the rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Swing {
    /// Share of the mean rate by which the rate rises and falls, 0 to 1.
    pub share: f64,
    /// From one crest to the next.
    pub period: Duration,
}

/// A Poisson process whose rate may swing: times since the begin, rising, without end.
#[derive(Debug, Clone)]
pub struct Poisson {
    rate: f64,
    swing: Swing,
    now: f64,
    rng: ChaCha8Rng,
}

impl Poisson {
    /// `rate` is the mean, requests per second; without a positive one there are no arrivals.
    #[must_use]
    pub fn new(rate: f64, swing: Option<Swing>, seed: u64) -> Self {
        let still = Swing { share: 0.0, period: Duration::from_secs(1) };
        Self { rate, swing: swing.unwrap_or(still), now: 0.0, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The rate at a time, as a share of the highest.
    fn share_of_highest(&self, at: f64) -> f64 {
        let swing = self.swing.share * (TAU * at / self.swing.period.as_secs_f64()).sin();
        (1.0 + swing) / (1.0 + self.swing.share)
    }
}

impl Iterator for Poisson {
    type Item = Duration;
    /// By thinning: arrivals at the highest rate, of which each is kept with the probability rate / highest rate.
    fn next(&mut self) -> Option<Duration> {
        let highest = self.rate * (1.0 + self.swing.share);
        if highest.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return None;
        }
        loop {
            // 1 - u is never zero, so that the logarithm is finite.
            let u: f64 = self.rng.random();
            self.now += -(1.0 - u).ln() / highest;
            if self.rng.random::<f64>() < self.share_of_highest(self.now) {
                return Duration::try_from_secs_f64(self.now).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(swing: Option<Swing>, from: f64, to: f64) -> f64 {
        let arrivals = Poisson::new(20.0, swing, 7).map(|at| at.as_secs_f64());
        arrivals.skip_while(|at| *at < from).take_while(|at| *at < to).count() as f64
    }

    #[test]
    fn the_mean_rate_is_kept() {
        let swing = Swing { share: 0.8, period: Duration::from_secs(100) };
        for swing in [None, Some(swing)] {
            // 20,000 arrivals: 3 % are more than four standard deviations.
            let rate = count(swing, 0.0, 1000.0) / 1000.0;
            assert!((rate / 20.0 - 1.0).abs() < 0.03, "{swing:?}: {rate}");
        }
    }

    #[test]
    fn the_rate_swings() {
        let swing = Some(Swing { share: 0.8, period: Duration::from_secs(100) });
        let (crest, trough) = (count(swing, 15.0, 35.0), count(swing, 65.0, 85.0));
        assert!(crest > 4.0 * trough, "{crest} {trough}");
    }

    #[test]
    fn no_rate_has_no_arrivals() {
        assert_eq!(Poisson::new(0.0, None, 1).next(), None);
        assert_eq!(Poisson::new(f64::NAN, None, 1).next(), None);
    }
}
