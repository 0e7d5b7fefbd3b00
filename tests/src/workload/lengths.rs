//! ISL and OSL.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Lognormal lengths, cut at both ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Half are shorter, tokens.
    pub median: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
    /// The shortest, tokens.
    pub least: u32,
    /// The longest, tokens.
    pub most: u32,
}

impl Lengths {
    /// One length; two draws never depend on each other.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> u32 {
        let normal: f64 = rng.sample(StandardNormal);
        let tokens = self.median * (self.sigma * normal).exp();
        // A float beyond the integer's range becomes its limit, and NaN zero.
        (tokens.round() as u32).clamp(self.least, self.most.max(self.least))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn the_median_and_the_ends_hold() {
        let lengths = Lengths { median: 600.0, sigma: 0.8, least: 16, most: 4000 };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut drawn: Vec<u32> = (0..10_000).map(|_| lengths.draw(&mut rng)).collect();
        drawn.sort_unstable();
        assert!((570..630).contains(&drawn[5_000]), "{}", drawn[5_000]);
        assert!(drawn[0] >= 16 && drawn[9_999] == 4000);
    }

    #[test]
    fn nonsense_stays_within_the_ends() {
        let lengths = Lengths { median: f64::NAN, sigma: f64::INFINITY, least: 5, most: 2 };
        assert_eq!(lengths.draw(&mut ChaCha8Rng::seed_from_u64(3)), 5);
    }
}
