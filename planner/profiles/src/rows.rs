//! Rows of tables: what an iteration computed and how long it took.

use plimsoll_engine::{StepShape, Timing};
use serde::Serialize;

/// One row as it was read: an iteration, and its time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Prompt tokens computed.
    pub(crate) tokens: f64,
    /// Tokens of the prompt that were computed before.
    pub(crate) cached: f64,
    /// Sequences that decode.
    pub(crate) sequences: f64,
    /// Their mean context, tokens.
    pub(crate) context: f64,
    /// Milliseconds.
    pub(crate) ms: f64,
}

impl Measured {
    pub(crate) fn shape(&self) -> StepShape {
        StepShape {
            prefill_tokens: self.tokens.round() as u64,
            prefill_attention: self.attention(),
            decode_sequences: self.sequences.round() as u64,
            decode_context: self.kv().round() as u64,
        }
    }

    /// Token pairs that the prompt tokens' attention covers.
    pub(crate) fn attention(&self) -> f64 {
        self.tokens * (self.cached + self.tokens / 2.0)
    }

    /// Contexts of all decoding sequences together, tokens.
    pub(crate) fn kv(&self) -> f64 {
        self.sequences * self.context
    }

    /// The same rows in any order are the same table.
    pub(crate) fn sort(rows: &mut [Self]) {
        let key = |row: &Self| [row.tokens, row.cached, row.sequences, row.context, row.ms];
        rows.sort_by(|a, b| {
            let pairs = key(a).into_iter().zip(key(b));
            pairs
                .map(|(a, b)| a.total_cmp(&b))
                .find(|order| order.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
    }
}

/// One row of an imported table beside what the profile says for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Prompt tokens that the iteration computes; 0 where it only decodes.
    pub prompt_tokens: u64,
    /// Tokens of that prompt that were computed before: a prefix, or earlier chunks.
    pub cached_tokens: u64,
    /// Sequences that decode; 0 where it only prefills.
    pub sequences: u64,
    /// Their mean context, tokens.
    pub context: u64,
    /// The time in the table, ms.
    pub table_ms: f64,
    /// The time by the profile, ms.
    pub profile_ms: f64,
}

impl Row {
    pub(crate) fn of(measured: &Measured, timing: &Timing) -> Self {
        let shape = measured.shape();
        Self {
            prompt_tokens: shape.prefill_tokens,
            cached_tokens: measured.cached.round() as u64,
            sequences: shape.decode_sequences,
            context: measured.context.round() as u64,
            table_ms: measured.ms,
            profile_ms: timing.duration(&shape).as_millis_f64(),
        }
    }

    /// `prefill`, `decode` or `mixed`.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        match (self.prompt_tokens > 0, self.sequences > 0) {
            (true, true) => "mixed",
            (true, false) => "prefill",
            _ => "decode",
        }
    }

    /// By how much the profile is above (or, negative, below) the table, as a share.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.profile_ms / self.table_ms - 1.0
    }
}

/// How far a profile is from the rows of one phase, as shares of the rows' times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PhaseErrors {
    /// Rows of the phase.
    pub rows: usize,
    /// The mean distance.
    pub mean: f64,
    /// The greatest distance.
    pub worst: f64,
}

/// How far a profile is from its table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Errors {
    /// Iterations that only prefill.
    pub prefill: PhaseErrors,
    /// Iterations that only decode.
    pub decode: PhaseErrors,
    /// Iterations that do both, where the table has such.
    pub mixed: Option<PhaseErrors>,
}

impl Errors {
    pub(crate) fn of(rows: &[Row]) -> Self {
        let phase = |name: &str| {
            let distances: Vec<f64> =
                rows.iter().filter(|row| row.phase() == name).map(|row| row.error().abs()).collect();
            let count = distances.len();
            let mean = distances.iter().sum::<f64>() / count.max(1) as f64;
            PhaseErrors { rows: count, mean, worst: distances.into_iter().fold(0.0, f64::max) }
        };
        let mixed = Some(phase("mixed")).filter(|mixed| mixed.rows > 0);
        Self { prefill: phase("prefill"), decode: phase("decode"), mixed }
    }

    /// The greater of the mean distances of what a kept table would give back exactly.
    pub(crate) fn of_phases(&self) -> f64 {
        self.prefill.mean.max(self.decode.mean)
    }

    /// The mean over the phases, each with the same weight.
    pub(crate) fn overall(&self) -> f64 {
        let means = [Some(self.prefill), Some(self.decode), self.mixed];
        let (count, sum) =
            means.into_iter().flatten().fold((0.0, 0.0), |(n, sum), one| (n + 1.0, sum + one.mean));
        sum / count
    }

    /// In words: `2.5 % prefill, 6.2 % decode`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let mixed = self.mixed.map(|mixed| format!(", {} mixed", percent(mixed.mean))).unwrap_or_default();
        format!("{} prefill, {} decode{mixed}", percent(self.prefill.mean), percent(self.decode.mean))
    }
}
