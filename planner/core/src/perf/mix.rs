//! What the requests of a pool are like.

use serde::{Deserialize, Serialize};

/// How many levels lengths are known at.
const COUNT: usize = 13;

/// The levels at which lengths are known; between them the logarithm is linear, beyond them nothing is. Both ends are
/// fine: a promise about 99 % is broken at the ends.
const LEVELS: [f64; COUNT] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997, 0.999];

/// Normal deviates at [`LEVELS`].
const DEVIATES: [f64; COUNT] =
    [-3.090, -2.748, -2.326, -1.881, -1.282, -0.674, 0.0, 0.674, 1.282, 1.881, 2.326, 2.748, 3.090];

/// Lengths of prompts or outputs, tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Their mean, tokens; at least 1.
    pub mean: f64,
    /// Quantiles at [`LEVELS`], tokens; rising.
    quantiles: [f64; COUNT],
    /// The mean of x² over the mean of x, tokens: worked out once, since much asks for it.
    seen_by_a_token: f64,
}

impl Lengths {
    /// Log-normal lengths of this mean, 1 to 2^24 tokens, and coefficient of variation, 0 to 5. What is no number counts
    /// as the least.
    #[must_use]
    pub fn log_normal(mean: f64, cv: f64) -> Self {
        let bounded = |value: f64, low: f64, high: f64| if value >= low { value.min(high) } else { low };
        let (mean, cv) = (bounded(mean, 1.0, f64::from(1 << 24)), bounded(cv, 0.0, 5.0));
        let variance = (1.0 + cv * cv).ln();
        let quantile = |deviate: f64| mean * (deviate * variance.sqrt() - variance / 2.0).exp();
        Self::of_shape(DEVIATES.map(quantile), mean)
    }

    /// Lengths by counts in buckets, `(upper edge, count)` by rising edge, and their mean, which the buckets only tell
    /// roughly; none without any.
    #[must_use]
    pub fn of_buckets(mean: f64, buckets: &[(f64, f64)]) -> Option<Self> {
        let total: f64 = buckets.iter().map(|(_, count)| count).sum();
        if !(total > 0.0 && total.is_finite() && mean >= 1.0) {
            return None;
        }
        let quantile = |level: f64| {
            let (mut below, mut from) = (0.0, 1.0);
            for (edge, count) in buckets {
                if *count > 0.0 && below + count >= level * total {
                    let share = ((level * total - below) / count).clamp(0.0, 1.0);
                    let from = f64::max(from, 1.0);
                    return from * (edge.max(from) / from).powf(share);
                }
                below += count;
                from = *edge;
            }
            from
        };
        Some(Self::of_shape(LEVELS.map(quantile), mean))
    }

    /// Lengths of this shape and mean.
    fn of_shape(quantiles: [f64; COUNT], mean: f64) -> Self {
        let shape = Self { mean, quantiles, seen_by_a_token: mean };
        let by = mean / shape.integral(1).max(1e-9);
        let lengths = Self { quantiles: quantiles.map(|quantile| (quantile * by).max(1.0)), ..shape };
        Self { seen_by_a_token: lengths.integral(2) / mean, ..lengths }
    }

    /// The length at a level, 0 to 1.
    #[must_use]
    pub fn at(&self, level: f64) -> f64 {
        let after = LEVELS.partition_point(|known| *known < level).clamp(1, COUNT - 1);
        let share = (level - LEVELS[after - 1]) / (LEVELS[after] - LEVELS[after - 1]);
        let (from, to) = (self.quantiles[after - 1], self.quantiles[after]);
        from * (to / from).powf(share.clamp(0.0, 1.0))
    }

    /// The mean of the length's power: exact for a logarithm that is linear between the levels.
    fn integral(&self, power: i32) -> f64 {
        let raised = self.quantiles.map(|quantile| quantile.powi(power));
        let ends = LEVELS[0] * raised[0] + (1.0 - LEVELS[COUNT - 1]) * raised[COUNT - 1];
        let between = |place: usize| {
            let (from, to) = (raised[place], raised[place + 1]);
            let growth = (to / from).ln();
            let mean = if growth.abs() > 1e-9 { (to - from) / growth } else { from };
            (LEVELS[place + 1] - LEVELS[place]) * mean
        };
        ends + (0..COUNT - 1).map(between).sum::<f64>()
    }

    /// The same mean, varying by no more than this coefficient of variation: every length is that much nearer to the mean.
    #[must_use]
    pub fn narrowed(&self, most: f64) -> Self {
        let cv = (self.seen_by_a_token / self.mean - 1.0).max(0.0).sqrt();
        if !(most >= 0.0 && most < cv) {
            return *self;
        }
        let share = most / cv;
        Self::of_shape(
            self.quantiles.map(|quantile| self.mean * (quantile / self.mean).powf(share)),
            self.mean,
        )
    }

    /// The mean of x² over the mean of x: the length of the request that a token picked at random belongs to.
    #[must_use]
    pub const fn seen_by_a_token(&self) -> f64 {
        self.seen_by_a_token
    }

    /// How far the shapes are apart: the greatest ratio of quantiles from the 3rd to the 97th percentile, in units of
    /// the mean, as a logarithm.
    fn shape_distance(&self, other: &Self) -> f64 {
        let part = |place: usize| {
            (self.quantiles[place] / self.mean / other.quantiles[place] * other.mean).ln().abs()
        };
        (3..10).map(part).fold(0.0, f64::max)
    }
}

/// The mix of a pool's requests: what the time that an engine spends on one depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Prompt lengths (ISL).
    pub isl: Lengths,
    /// Output lengths (OSL).
    pub osl: Lengths,
    /// Share of the prompt tokens found in the prefix cache, 0 to 0.95.
    pub hit: f64,
    /// Tokens that come out of one decode iteration for one sequence: above 1 with speculative decoding.
    pub tokens_per_step: f64,
}

impl Mix {
    /// A mix without prefix hits and speculation.
    #[must_use]
    pub const fn new(isl: Lengths, osl: Lengths) -> Self {
        Self { isl, osl, hit: 0.0, tokens_per_step: 1.0 }
    }

    /// Prompt tokens to compute of a mean request.
    #[must_use]
    pub fn to_compute(&self) -> f64 {
        self.isl.mean * (1.0 - self.hit.clamp(0.0, 0.95))
    }

    /// The mean context that a prompt token attends to while it is computed, tokens: of longer prompts there are more
    /// tokens.
    #[must_use]
    pub fn attended(&self) -> f64 {
        attended(self.isl.seen_by_a_token(), self.hit.clamp(0.0, 0.95))
    }

    /// Iterations that a mean request decodes in.
    #[must_use]
    pub fn decode_steps(&self) -> f64 {
        (self.osl.mean / self.tokens_per_step.clamp(1.0, 16.0)).max(1.0)
    }

    /// The mean context of a sequence in an iteration that decodes it, tokens: long outputs are seen more often.
    #[must_use]
    pub fn context(&self) -> f64 {
        self.isl.mean + self.osl.seen_by_a_token() / 2.0
    }

    /// How far another mix is from this one: the greatest of the ratios of their parts, as a logarithm.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        let ratio = |a: f64, b: f64| (a / b).ln().abs();
        let parts = [
            ratio(self.to_compute(), other.to_compute()),
            ratio(self.context(), other.context()),
            ratio(self.decode_steps(), other.decode_steps()),
            self.isl.shape_distance(&other.isl) / 3.0,
            self.osl.shape_distance(&other.osl) / 3.0,
        ];
        parts.into_iter().fold(0.0, f64::max)
    }
}

/// The mean context that the computed tokens of a prompt attend to: of n tokens the share h is in the prefix cache, so the
/// others have from h n to n before them, (1 + h) n / 2 on the mean.
pub(super) fn attended(tokens: f64, hit: f64) -> f64 {
    tokens * (1.0 + hit) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_bounded() {
        assert!((Lengths::log_normal(f64::NAN, f64::NAN).at(0.5) - 1.0).abs() < 1e-9);
        assert!((Lengths::log_normal(f64::INFINITY, -1.0).at(0.9) - 16_777_216.0).abs() < 1.0);
        assert_eq!(Lengths::of_buckets(10.0, &[]), None);
        assert_eq!(Lengths::of_buckets(f64::NAN, &[(10.0, 5.0)]), None);
    }

    #[test]
    fn a_shape_keeps_its_mean_and_its_middle() {
        let lengths = Lengths::log_normal(1_000.0, 1.0);
        assert!((lengths.at(0.5) - 707.0).abs() < 60.0, "{}", lengths.at(0.5));
        assert!((lengths.seen_by_a_token() / 2_000.0 - 1.0).abs() < 0.15, "{}", lengths.seen_by_a_token());
        let buckets = [(10.0, 10.0), (20.0, 20.0), (50.0, 40.0), (100.0, 25.0), (200.0, 5.0)];
        let lengths = Lengths::of_buckets(45.0, &buckets).unwrap();
        assert!((20.0..50.0).contains(&lengths.at(0.5)) && lengths.at(0.99) > 100.0);
        assert!((lengths.integral(1) / 45.0 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn cached_tokens_are_not_computed_and_are_attended_to() {
        let mix = Mix::new(Lengths::log_normal(32_768.0, 0.0), Lengths::log_normal(200.0, 0.0));
        assert!((mix.attended() / 16_384.0 - 1.0).abs() < 1e-6);
        let cached = Mix { hit: 0.7, ..mix };
        assert!((cached.to_compute() / 9_830.4 - 1.0).abs() < 1e-6);
        // From 22,938 to 32,768 tokens before each.
        assert!((cached.attended() / 27_852.8 - 1.0).abs() < 1e-6);
        let mixed = Mix { isl: Lengths::log_normal(32_768.0, 1.0), ..mix };
        assert!(mixed.attended() > 1.7 * mix.attended());
    }

    #[test]
    fn a_narrowed_shape_keeps_its_mean_and_varies_less() {
        let buckets = [(20_000.0, 0.0), (50_000.0, 100.0)];
        let wide = Lengths::of_buckets(32_768.0, &buckets).unwrap();
        assert!(wide.at(0.99) > 1.3 * wide.mean);
        let alike = wide.narrowed(0.0);
        assert!((alike.at(0.99) / 32_768.0 - 1.0).abs() < 1e-6 && (alike.mean - wide.mean).abs() < 1e-6);
        let half = wide.narrowed(0.1);
        assert!(half.at(0.99) < wide.at(0.99) && half.at(0.99) > alike.at(0.99));
        // What it may vary by is no reason to vary more.
        for most in [10.0, f64::NAN, -1.0, f64::INFINITY] {
            assert_eq!(wide.narrowed(most), wide);
        }
    }

    #[test]
    fn equal_mixes_are_near_and_others_as_far_as_their_worst_part() {
        let mix = Mix::new(Lengths::log_normal(1_000.0, 1.0), Lengths::log_normal(200.0, 1.0));
        assert!(mix.distance(&mix) < 1e-12);
        let longer = Mix { osl: Lengths::log_normal(400.0, 1.0), ..mix };
        assert!((mix.distance(&longer) - 2.0_f64.ln()).abs() < 0.01);
    }
}
