//! How long an iteration takes.

use serde::{Deserialize, Serialize};

use plimsoll_common::units::Micros;

use crate::table::Table;

/// The longest that one iteration may take by the model: an hour. Coefficients beyond it are nonsense.
const LONGEST: Micros = Micros(3_600_000_000);

/// What one iteration computes, in the terms that its duration depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepShape {
    /// Prompt tokens computed: the *P* of the formula.
    pub prefill_tokens: u64,
    /// Token pairs that the prompt tokens' attention covers: the *PP* of the formula,
    /// Σ new × (context before + new / 2) over the sequences that prefill.
    pub prefill_attention: f64,
    /// Sequences that decode one token each: the *B* of the formula.
    pub decode_sequences: u64,
    /// Σ of the contexts of the decoding sequences, in tokens: the *KV* of the formula.
    pub decode_context: u64,
}

/// t = a + max(w, b (P + B)) + c PP + d B + e KV, in milliseconds: reading the weights bounds a small batch from below
/// and computing bounds a large one, which is what puts the knee of throughput where engines have it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roofline {
    /// Fixed cost of an iteration, ms.
    pub a_ms: f64,
    /// Reading the weights once, ms.
    pub w_ms: f64,
    /// The dense layers' work for a token, ms.
    pub b_ms_per_token: f64,
    /// Prefill attention for a pair of tokens, ms.
    pub c_ms_per_token_squared: f64,
    /// What each decoding sequence adds, ms.
    pub d_ms_per_sequence: f64,
    /// Reading one token's keys and values, ms.
    pub e_ms_per_kv_token: f64,
}

/// Two separate fits, as end-to-end measurements give them: prefill alone a + b P + c PP, decode alone a + d B + e KV.
///
/// An iteration that does both pays the larger of the two fixed costs and the sum of the rest. The prefill fit's fixed
/// cost holds what the measurement could not take apart (HTTP, tokenization), so mixed iterations come out rather too
/// long than too short.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// Fixed cost of an iteration that prefills, ms.
    pub prefill_a_ms: f64,
    /// Cost of a prompt token, ms.
    pub prefill_b_ms_per_token: f64,
    /// Prefill attention for a pair of tokens, ms.
    pub prefill_c_ms_per_token_squared: f64,
    /// Fixed cost of an iteration that decodes, ms.
    pub decode_a_ms: f64,
    /// What each decoding sequence adds, ms.
    pub decode_d_ms_per_sequence: f64,
    /// Reading one token's keys and values, ms.
    pub decode_e_ms_per_kv_token: f64,
}

/// The form of the function from what an iteration computes to how long it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Curve {
    /// One line with a roofline: dense models.
    Roofline(Roofline),
    /// Prefill and decode fitted apart.
    Phases(Phases),
    /// Measured or estimated times, interpolated: mixtures of experts, which no line fits.
    Table(Table),
}

/// A curve and the factor that fits it to one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// The form and its coefficients.
    pub curve: Curve,
    /// Every duration is multiplied by this: 1.3 is a machine 30 % slower than the curve says. One such scalar takes a
    /// kernel-level estimate to within a few per cent of a real engine.
    #[serde(default = "one")]
    pub factor: f64,
}

fn one() -> f64 {
    1.0
}

/// Why a timing cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// A coefficient is negative, infinite or not a number.
    #[error(
        "timing coefficient {name} is {value}: give a finite number of milliseconds that is not negative"
    )]
    Coefficient {
        /// The coefficient's name as in the configuration.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// The factor is not a positive finite number.
    #[error("timing factor is {0}: give a finite number above 0, 1 for the curve as it is")]
    Factor(f64),
    /// A table of times is none.
    #[error("a table of iteration times cannot be used: {0}")]
    Table(&'static str),
}

impl Timing {
    /// A curve as it is.
    #[must_use]
    pub const fn new(curve: Curve) -> Self {
        Self { curve, factor: 1.0 }
    }

    /// The same with every duration multiplied by `by`.
    #[must_use]
    pub fn scaled(&self, by: f64) -> Self {
        Self { factor: self.factor * by, ..self.clone() }
    }

    /// Checks that every duration will be a finite number that is not negative.
    ///
    /// # Errors
    /// The first coefficient that is out of range.
    pub fn validate(&self) -> Result<(), TimingError> {
        if !(self.factor.is_finite() && self.factor > 0.0) {
            return Err(TimingError::Factor(self.factor));
        }
        for (name, value) in self.curve.coefficients() {
            if !(value.is_finite() && value >= 0.0) {
                return Err(TimingError::Coefficient { name, value });
            }
        }
        Ok(())
    }

    /// How long an iteration of this shape takes: at least a microsecond, so that time always moves, and at most an
    /// hour.
    #[must_use]
    pub fn duration(&self, shape: &StepShape) -> Micros {
        Micros::from_millis_f64(self.curve.millis(shape) * self.factor).clamp(Micros(1), LONGEST)
    }
}

impl Curve {
    fn coefficients(&self) -> [(&'static str, f64); 6] {
        match self {
            // A table was checked when it was made.
            Self::Table(_) => [("table", 0.0); 6],
            Self::Roofline(r) => [
                ("a_ms", r.a_ms),
                ("w_ms", r.w_ms),
                ("b_ms_per_token", r.b_ms_per_token),
                ("c_ms_per_token_squared", r.c_ms_per_token_squared),
                ("d_ms_per_sequence", r.d_ms_per_sequence),
                ("e_ms_per_kv_token", r.e_ms_per_kv_token),
            ],
            Self::Phases(p) => [
                ("prefill_a_ms", p.prefill_a_ms),
                ("prefill_b_ms_per_token", p.prefill_b_ms_per_token),
                ("prefill_c_ms_per_token_squared", p.prefill_c_ms_per_token_squared),
                ("decode_a_ms", p.decode_a_ms),
                ("decode_d_ms_per_sequence", p.decode_d_ms_per_sequence),
                ("decode_e_ms_per_kv_token", p.decode_e_ms_per_kv_token),
            ],
        }
    }

    fn millis(&self, shape: &StepShape) -> f64 {
        let prefill = shape.prefill_tokens as f64;
        let decode = shape.decode_sequences as f64;
        let context = shape.decode_context as f64;
        match self {
            Self::Roofline(r) => {
                let dense = r.w_ms.max(r.b_ms_per_token * (prefill + decode));
                r.a_ms
                    + dense
                    + r.c_ms_per_token_squared * shape.prefill_attention
                    + r.d_ms_per_sequence * decode
                    + r.e_ms_per_kv_token * context
            }
            Self::Phases(p) => {
                let mut fixed = 0.0_f64;
                if shape.prefill_tokens > 0 {
                    fixed = fixed.max(p.prefill_a_ms);
                }
                if shape.decode_sequences > 0 {
                    fixed = fixed.max(p.decode_a_ms);
                }
                fixed
                    + p.prefill_b_ms_per_token * prefill
                    + p.prefill_c_ms_per_token_squared * shape.prefill_attention
                    + p.decode_d_ms_per_sequence * decode
                    + p.decode_e_ms_per_kv_token * context
            }
            Self::Table(table) => table.millis(shape),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOFLINE: Roofline = Roofline {
        a_ms: 2.0,
        w_ms: 3.0,
        b_ms_per_token: 0.02,
        c_ms_per_token_squared: 1e-6,
        d_ms_per_sequence: 0.01,
        e_ms_per_kv_token: 1e-4,
    };

    #[test]
    fn a_small_batch_pays_for_reading_the_weights() {
        let timing = Timing::new(Curve::Roofline(ROOFLINE));
        // 2 + max(3, 0.02 × 10) + 0.01 × 10 + 1e-4 × 5000 = 5.6 ms.
        let shape = StepShape { decode_sequences: 10, decode_context: 5_000, ..StepShape::default() };
        assert_eq!(timing.duration(&shape), Micros(5_600));
    }

    #[test]
    fn a_large_batch_pays_for_computing() {
        let timing = Timing { factor: 2.0, ..Timing::new(Curve::Roofline(ROOFLINE)) };
        // 2 × (2 + max(3, 0.02 × 1000) + 1e-6 × 1000 × (200 + 500)) = 45.4 ms.
        let shape = StepShape {
            prefill_tokens: 1_000,
            prefill_attention: 1_000.0 * (200.0 + 500.0),
            ..StepShape::default()
        };
        assert_eq!(timing.duration(&shape), Micros(45_400));
    }

    #[test]
    fn a_mixed_iteration_pays_one_fixed_cost_of_two_fits() {
        let phases = Phases {
            prefill_a_ms: 18.0,
            prefill_b_ms_per_token: 0.01,
            prefill_c_ms_per_token_squared: 0.0,
            decode_a_ms: 4.0,
            decode_d_ms_per_sequence: 0.5,
            decode_e_ms_per_kv_token: 0.001,
        };
        let timing = Timing::new(Curve::Phases(phases));
        let decode = StepShape { decode_sequences: 2, decode_context: 100, ..StepShape::default() };
        assert_eq!(timing.duration(&decode), Micros(5_100));
        let mixed = StepShape { prefill_tokens: 100, prefill_attention: 5_000.0, ..decode };
        assert_eq!(timing.duration(&mixed), Micros(20_100));
    }

    #[test]
    fn nonsense_is_refused_by_name_and_never_panics() {
        let bad = Timing::new(Curve::Roofline(Roofline { w_ms: f64::NAN, ..ROOFLINE }));
        assert!(matches!(bad.validate(), Err(TimingError::Coefficient { name: "w_ms", .. })));
        let bad = Timing { factor: 0.0, ..Timing::new(Curve::Roofline(ROOFLINE)) };
        assert!(matches!(bad.validate(), Err(TimingError::Factor(_))));
        let huge = StepShape { decode_sequences: u64::MAX, decode_context: u64::MAX, ..StepShape::default() };
        assert_eq!(Timing::new(Curve::Roofline(ROOFLINE)).duration(&huge), LONGEST);
    }
}
