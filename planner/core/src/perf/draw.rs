//! Numbers that look random and are always the same: what a trial's requests are made of.

/// A stream of numbers, told by its seed.
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits of the SplitMix64 sequence (Steele, Lea, Flood 2014).
    const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform, above 0 and below 1.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// A gap with mean 1 and squared coefficient of variation `c2`: exponential up to 1, hyper-exponential with
    /// balanced means above, whose counts have the index of dispersion `c2` over long times.
    pub(super) fn gap(&mut self, c2: f64) -> f64 {
        let (branch, gap) = (self.unit(), -self.unit().ln());
        if c2 <= 1.0 {
            return gap;
        }
        let p = 0.5 * (1.0 + ((c2 - 1.0) / (c2 + 1.0)).sqrt());
        gap / (2.0 * if branch < p { p } else { 1.0 - p })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = std::iter::repeat_with(draw).take(200_000).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
        (mean, square / (mean * mean) - 1.0)
    }

    #[test]
    fn means_and_variations_are_as_asked() {
        let mut draw = Draw::new(7);
        for wanted in [0.5, 1.0, 4.0] {
            let (mean, c2) = moments(|| draw.gap(wanted));
            assert!((mean - 1.0).abs() < 0.02 && (c2 / wanted.max(1.0) - 1.0).abs() < 0.05, "{mean} {c2}");
        }
    }
}
