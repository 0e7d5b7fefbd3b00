//! How much slower or faster an engine is than its profile says.
//!
//! One number for the iterations of a pool: a kernel-level estimate times one scalar comes within a few per cent of a
//! real engine, and one scalar is all that can be told apart from an engine's metrics page, whose counters say how much
//! was computed and how long tokens took, but not which part of an iteration took it.

use plimsoll_common::units::Micros;
use plimsoll_engine::{StepShape, Timing};
use serde::{Deserialize, Serialize};

use super::mix::attended;

/// What an observation may say at most: a factor of 8 either way is a mistake in the profile's name, not a calibration.
const WIDEST: f64 = 8.0;

/// The weight of the profile, in windows.
const PRIOR: f64 = 1.0;

/// Windows after which an observation counts half.
const HALF_LIFE: f64 = 40.0;

/// A window counts fully from so many iterations or tokens on.
const FULL: f64 = 200.0;

/// Windows of the fast average that tells a drift from noise.
const FAST: f64 = 6.0;

/// How far, as a logarithm, the fast average must be from the slow one to be a drift.
const DRIFT: f64 = 0.15;

/// A factor learned from ratios of observed to expected times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Sum of the weights.
    weight: f64,
    /// Weighted sum of the logarithms of the ratios.
    sum: f64,
    /// Fast average of the logarithm, where there is one.
    fast: Option<f64>,
    /// How often a drift made it forget.
    drifts: u32,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { weight: PRIOR, sum: 0.0, fast: None, drifts: 0 }
    }
}

impl Calibration {
    /// Takes one window: observed over expected time, from so many iterations or tokens. What is no positive number is
    /// left out.
    pub fn observe(&mut self, ratio: f64, samples: f64) {
        if !(ratio.is_finite() && ratio > 0.0 && samples >= 1.0) {
            return;
        }
        let (log, weight) = (ratio.clamp(1.0 / WIDEST, WIDEST).ln(), (samples / FULL).min(1.0));
        let pull = weight / FAST;
        let fast = self.fast.map_or(log, |fast| fast + (log - fast) * pull);
        self.fast = Some(fast);
        let kept = 0.5_f64.powf(weight / HALF_LIFE);
        self.weight = self.weight * kept + weight;
        self.sum = self.sum * kept + weight * log;
        // Another engine version, a throttled clock: what was learned before says nothing any more.
        if self.weight > 2.0 * FAST && (fast - self.log()).abs() > DRIFT {
            self.weight = FAST / 2.0;
            self.sum = self.weight * fast;
            self.drifts += 1;
        }
    }

    fn log(&self) -> f64 {
        self.sum / self.weight
    }

    /// The factor: above 1 where the engine is slower than its profile.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.log().exp()
    }

    /// Windows that speak for it.
    #[must_use]
    pub fn windows(&self) -> f64 {
        (self.weight - PRIOR).max(0.0)
    }

    /// How often a drift made it begin anew.
    #[must_use]
    pub const fn drifts(&self) -> u32 {
        self.drifts
    }
}

/// What an engine did in one window, in sums that every metrics page has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decoding {
    /// The length of the window.
    pub window: Micros,
    /// Samples of ITL.
    pub tokens: f64,
    /// Their sum, seconds.
    pub itl_sum: f64,
    /// Prompt tokens computed.
    pub prefilled: f64,
    /// Mean prompt length, tokens to compute.
    pub prompt: f64,
    /// The mean context that a prompt token attends to, tokens: cached ones are not computed and still read.
    pub attended: f64,
    /// The most tokens of one iteration.
    pub budget: f64,
    /// The mean context of a sequence that decodes, tokens.
    pub context: f64,
    /// The most sequences that decode at once.
    pub most: f64,
    /// The variance over the mean of how many decode: 1 where requests come independently, 0 where they come evenly.
    pub scatter: f64,
    /// Iterations, where the page counts them.
    pub iterations: Option<f64>,
    /// Tokens that a sequence gets of one iteration.
    pub tokens_per_step: f64,
}

impl Decoding {
    /// Observed over expected mean ITL, by a profile; none where too little was decoded to tell.
    ///
    /// The sum of the ITL samples over the window is the mean number *b* of sequences that decode (Little). Samples are
    /// tokens, and a token sees what it is a part of: b sequences and as many more as their number scatters, 1 + b where
    /// they come independently, b where they are spread evenly or wait for each other's prompts; and a chunk of a prompt as
    /// often as b sequences are there to wait for it. An engine that is mostly idle computes most chunks while nobody
    /// decodes; what it takes for them is no time between tokens.
    #[must_use]
    pub fn ratio(&self, timing: &Timing) -> Option<f64> {
        let window = self.window.as_secs_f64();
        if self.tokens < 20.0 || self.itl_sum <= 0.0 || window <= 0.0 {
            return None;
        }
        let mean = self.itl_sum / self.tokens;
        let decoding = self.itl_sum / window;
        let chunk = self.prompt.min(self.budget - decoding).max(1.0);
        let per_step = self.tokens_per_step.max(1.0);
        let with_chunk = (self.prefilled / chunk * decoding * per_step / self.tokens).clamp(0.0, 1.0);
        // Where prompts come faster than iterations, several are computed in one.
        let steps =
            self.iterations.filter(|n| *n >= 1.0).unwrap_or_else(|| self.tokens / decoding.max(1.0)).max(1.0);
        let prefill = chunk.max(self.prefilled / steps);
        let alone = StepShape {
            prefill_tokens: chunk as u64,
            prefill_attention: chunk * self.attended,
            ..StepShape::default()
        };
        // The share of time in which prompts are computed: one after the other, so that sequences begin further apart than
        // they come.
        let prefilling = self.prefilled / chunk * timing.duration(&alone).as_secs_f64() / window;
        let scatter = self.scatter.clamp(0.0, 1.0) * (1.0 - prefilling.min(1.0));
        let together = (decoding + scatter).min(self.most).max(1.0);
        let at = |sequences: f64, prefill: f64| {
            let shape = StepShape {
                prefill_tokens: prefill as u64,
                prefill_attention: prefill * self.attended,
                decode_sequences: sequences as u64,
                decode_context: (sequences * self.context) as u64,
            };
            timing.duration(&shape).as_secs_f64()
        };
        let seconds = |prefill: f64| {
            let (below, share) = (together.floor(), together.fract());
            at(below, prefill) * (1.0 - share) + at(below + 1.0, prefill) * share
        };
        let mixed = if with_chunk > 0.0 { seconds(prefill) } else { 0.0 };
        let expected = (seconds(0.0) * (1.0 - with_chunk) + mixed * with_chunk) / per_step;
        (expected > 0.0).then(|| mean / expected)
    }
}

/// What a prefill engine did in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prefilling {
    /// Prompts whose first token came out.
    pub prompts: f64,
    /// Sum of their times from first scheduling to first token, seconds.
    pub prefill_sum: f64,
    /// Prompt tokens computed.
    pub prefilled: f64,
    /// Share of the prompts' tokens that was found in the prefix cache.
    pub hit: f64,
    /// The mean of the square of the prompts' lengths over the square of their mean, 1 or more.
    pub skew: f64,
    /// The most tokens of one iteration.
    pub budget: f64,
    /// Iterations, where the page counts them.
    pub iterations: Option<f64>,
}

impl Prefilling {
    /// Observed over expected mean time from first scheduling to first token, by what these prompts were themselves:
    /// few long ones tell little of the usual one.
    #[must_use]
    pub fn ratio(&self, timing: &Timing) -> Option<f64> {
        if self.prompts < 1.0 || self.prefill_sum <= 0.0 || self.prefilled < 1.0 {
            return None;
        }
        let prompt = self.prefilled / self.prompts;
        // Prompts that are computed together take as long as all of them.
        let together = self.iterations.filter(|n| *n >= 1.0).map_or(prompt, |n| self.prefilled / n);
        let (tokens, chunk) = (prompt.max(together), self.budget.max(1.0));
        let chunks = (prompt / chunk).ceil().max(1.0);
        let each = (tokens / chunks).min(chunk);
        // Most tokens are in the longest prompts.
        let hit = self.hit.clamp(0.0, 0.95);
        let context = attended(prompt / (1.0 - hit), hit) * self.skew.max(1.0);
        let shape = StepShape {
            prefill_tokens: each as u64,
            prefill_attention: each * context,
            ..StepShape::default()
        };
        let expected = timing.duration(&shape).as_secs_f64() * chunks;
        (expected > 0.0).then(|| self.prefill_sum / self.prompts / expected)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_engine::Profile;

    use super::*;

    #[test]
    fn a_scalar_is_recovered_and_a_drift_is_followed() {
        let mut calibration = Calibration::default();
        for window in 0..60 {
            let noise = if window % 2 == 0 { 1.05 } else { 0.95 };
            calibration.observe(1.36 * noise, 500.0);
        }
        assert!((calibration.factor() / 1.36 - 1.0).abs() < 0.05, "{}", calibration.factor());
        assert_eq!(calibration.drifts(), 0);
        for _ in 0..12 {
            calibration.observe(2.0, 500.0);
        }
        assert!((calibration.factor() / 2.0 - 1.0).abs() < 0.1, "{}", calibration.factor());
        assert!(calibration.drifts() >= 1);
    }

    #[test]
    fn whatever_prompts_came_an_engine_that_keeps_to_its_profile_is_seen_to() {
        let profile = Profile::built_in("llama-3.3-70b-fp8-h100-tp2-measured").unwrap();
        let timing = profile.engine_config().timing;
        // One prompt an iteration, a part of each found in the cache: short ones, long ones, and both.
        for (lengths, hit) in [
            (vec![300.0, 500.0], 0.0),
            (vec![6_000.0, 8_000.0], 0.0),
            (vec![500.0, 8_000.0], 0.0),
            (vec![8_000.0], 0.5),
        ] {
            let shape = |length: &f64| {
                let new = length * (1.0 - hit);
                StepShape {
                    prefill_tokens: new as u64,
                    prefill_attention: new * (length * hit + new / 2.0),
                    ..StepShape::default()
                }
            };
            let prompts = lengths.len() as f64;
            let mean = lengths.iter().sum::<f64>() / prompts;
            let doing = Prefilling {
                prompts,
                prefill_sum: lengths.iter().map(|length| timing.duration(&shape(length)).as_secs_f64()).sum(),
                prefilled: lengths.iter().sum::<f64>() * (1.0 - hit),
                hit,
                skew: lengths.iter().map(|length| length * length).sum::<f64>() / prompts / mean / mean,
                budget: 8_192.0,
                iterations: Some(prompts),
            };
            let ratio = doing.ratio(&timing).unwrap();
            assert!((ratio - 1.0).abs() < 0.05, "{lengths:?}: {ratio}");
        }
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut calibration = Calibration::default();
        for ratio in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            calibration.observe(ratio, 100.0);
        }
        calibration.observe(2.0, f64::NAN);
        assert_eq!(calibration, Calibration::default());
        calibration.observe(1e300, 1e300);
        assert!(calibration.factor() <= WIDEST);
    }
}
