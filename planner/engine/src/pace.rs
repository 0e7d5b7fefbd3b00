//! What makes one engine faster or slower than its profile, and one iteration than the next.

use serde::{Deserialize, Serialize};

/// How an engine's iterations deviate from the model.
///
/// A throttled GPU, a noisy neighbour, a driver update: all of them are a factor on every duration. Noise is another
/// factor, drawn anew for every iteration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Every duration is multiplied by this; above 0, and 1 for the model as it is.
    pub factor: f64,
    /// Standard deviation of the noise, as a share of the duration: 0 for none, at most 0.5. The noise is bounded by
    /// 3.4 standard deviations and its mean is 1.
    pub noise: f64,
    /// What the noise is drawn from, together with the iteration's number.
    pub seed: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { factor: 1.0, noise: 0.0, seed: 0 }
    }
}

impl Pace {
    /// The factor on the duration of an engine's iteration number `iteration`; None if it is exactly 1.
    pub(crate) fn factor_of(&self, iteration: u64) -> Option<f64> {
        if self.noise > 0.0 {
            let noise = 1.0 + self.noise.min(0.5) * deviate(self.seed, iteration);
            return Some(self.sane_factor() * noise.max(0.05));
        }
        (self.factor.to_bits() != 1.0_f64.to_bits()).then(|| self.sane_factor())
    }

    fn sane_factor(&self) -> f64 {
        if self.factor.is_finite() && self.factor > 0.0 { self.factor } else { 1.0 }
    }
}

/// A number of mean 0 and variance 1, near to normal: the sum of four uniform ones. It takes no transcendental
/// function, so that it is the same on every machine.
fn deviate(seed: u64, iteration: u64) -> f64 {
    let bits = mix(seed ^ mix(iteration));
    let uniform = |shift: u32| (bits >> shift & 0xffff) as f64 / 65_536.0 + 0.5 / 65_536.0;
    let sum = uniform(0) + uniform(16) + uniform(32) + uniform(48);
    // Four uniform numbers have a mean of 2 and a variance of 1/3.
    (sum - 2.0) * 1.732_050_807_568_877_2
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output's.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_mean_and_deviation_it_says() {
        let pace = Pace { noise: 0.1, seed: 7, ..Pace::default() };
        let draws: Vec<f64> = (0..100_000).map(|i| pace.factor_of(i).unwrap()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!((mean - 1.0).abs() < 1e-3, "{mean}");
        assert!((variance.sqrt() - 0.1).abs() < 2e-3, "{variance}");
        // Neighbours are uncorrelated.
        let pairs = draws.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>();
        assert!((pairs / draws.len() as f64 / variance).abs() < 0.02);
    }

    #[test]
    fn absurd_factors_count_as_none() {
        assert_eq!(Pace::default().factor_of(3), None);
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Pace { factor, ..Pace::default() }.factor_of(3), Some(1.0));
        }
    }
}
