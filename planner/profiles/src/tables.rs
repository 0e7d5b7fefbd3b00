//! What a file of tables tells of an engine, whatever its form, and what two such files tell together.

use crate::{
    error::{ImportError, SourceError},
    rows::Measured,
};

/// Rows that one table may have.
pub(crate) const MOST_ROWS: usize = 50_000;
/// The longest prompt or context, tokens: as long as an engine's longest request may be.
const MOST_TOKENS: f64 = 268_435_456.0;
/// The most sequences at once.
const MOST_SEQUENCES: f64 = 65_536.0;
/// The longest iteration: an hour.
const MOST_MS: f64 = 3_600_000.0;
/// No engine answers a whole table in less; one that seems to has its times in seconds.
const LEAST_LONGEST_MS: f64 = 1.0;

/// What is known of an engine. Absent is not told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// The file, for messages.
    pub(crate) given: String,
    /// Where the numbers are from, in words.
    pub(crate) origin: String,
    pub(crate) name: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) gpu: Option<String>,
    /// Prompts alone, some with a computed prefix.
    pub(crate) prefill: Vec<Measured>,
    /// Decodes alone.
    pub(crate) decode: Vec<Measured>,
    /// Both in one iteration.
    pub(crate) mixed: Vec<Measured>,
    /// Whether no two contexts share their numbers of sequences, as where KV-cache usage was varied.
    pub(crate) scattered: bool,
    /// Whether rows are of one data-parallel rank; otherwise sequences are those of the whole engine.
    pub(crate) by_rank: bool,
    /// Tokens in the KV cache of the whole engine.
    pub(crate) kv_tokens: Option<f64>,
    /// Whether that is only where the table ends.
    pub(crate) kv_tokens_assumed: bool,
    /// GPUs of the whole engine.
    pub(crate) gpus: Option<u32>,
    /// Data-parallel ranks of the engine.
    pub(crate) ranks: Option<u32>,
    /// GPUs of one rank, as the throughput of prompts tells.
    pub(crate) prefill_gpus: Option<f64>,
    /// GPUs of the whole engine, as the throughput of decodes tells.
    pub(crate) decode_gpus: Option<f64>,
    /// Bytes of one token's keys and values on one GPU.
    pub(crate) kv_bytes_per_gpu: Option<u64>,
    /// Whether the numbers are estimates rather than measurements.
    pub(crate) estimated: bool,
}

impl Tables {
    /// Two files of the same engine, one with its prompts and one with its decodes.
    pub(crate) fn with(self, other: Self) -> Result<Self, ImportError> {
        let twice =
            |what| ImportError::Twice { first: self.given.clone(), second: other.given.clone(), what };
        if !self.prefill.is_empty() && !other.prefill.is_empty() {
            return Err(twice("a table of prefill times"));
        }
        if !self.decode.is_empty() && !other.decode.is_empty() {
            return Err(twice("a table of decode times"));
        }
        let join = |a: &str, b: &str| if a == b { a.to_owned() } else { format!("{a}, {b}") };
        Ok(Self {
            given: join(&self.given, &other.given),
            origin: join(&self.origin, &other.origin),
            name: self.name.or(other.name),
            model: self.model.or(other.model),
            gpu: self.gpu.or(other.gpu),
            prefill: [self.prefill, other.prefill].concat(),
            decode: [self.decode, other.decode].concat(),
            mixed: [self.mixed, other.mixed].concat(),
            scattered: self.scattered || other.scattered,
            by_rank: self.by_rank || other.by_rank,
            kv_tokens: self.kv_tokens.or(other.kv_tokens),
            kv_tokens_assumed: self.kv_tokens_assumed || other.kv_tokens_assumed,
            gpus: self.gpus.or(other.gpus),
            ranks: self.ranks.or(other.ranks),
            prefill_gpus: self.prefill_gpus.or(other.prefill_gpus),
            decode_gpus: self.decode_gpus.or(other.decode_gpus),
            kv_bytes_per_gpu: self.kv_bytes_per_gpu.or(other.kv_bytes_per_gpu),
            estimated: self.estimated || other.estimated,
        })
    }

    /// Puts rows in order and looks whether there are enough for a curve, in the right unit.
    pub(crate) fn checked(mut self) -> Result<Self, SourceError> {
        for (table, rows) in
            [("prefill", &mut self.prefill), ("decode", &mut self.decode), ("mixed", &mut self.mixed)]
        {
            if rows.is_empty() {
                continue;
            }
            if rows.len() > MOST_ROWS {
                return Err(SourceError::TooMany { table, rows: rows.len(), most: MOST_ROWS });
            }
            Measured::sort(rows);
            let longest = rows.iter().map(|row| row.ms).fold(0.0, f64::max);
            if longest < LEAST_LONGEST_MS {
                return Err(SourceError::Seconds { table, longest });
            }
            let same = |a: &Measured, b: &Measured| a.shape() == b.shape();
            let places = rows.chunk_by(same).count();
            if places < 2 && table != "mixed" {
                return Err(SourceError::TooFew { table, places, least: 2 });
            }
        }
        Ok(self)
    }
}

/// A number of a row, where it is within its range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    least: f64,
    most: f64,
    text: &'static str,
}

impl Range {
    pub(crate) const TOKENS: Self =
        Self { least: 1.0, most: MOST_TOKENS, text: "a number of tokens from 1 to 268,435,456" };
    pub(crate) const CACHED: Self =
        Self { least: 0.0, most: MOST_TOKENS, text: "a number of tokens from 0 to 268,435,456" };
    pub(crate) const SEQUENCES: Self =
        Self { least: 1.0, most: MOST_SEQUENCES, text: "a number of sequences from 1 to 65,536" };
    pub(crate) const SOME_SEQUENCES: Self =
        Self { least: 0.0, most: MOST_SEQUENCES, text: "a number of sequences from 0 to 65,536" };
    pub(crate) const MS: Self =
        Self { least: 1e-3, most: MOST_MS, text: "milliseconds, from 0.001 to 3,600,000" };
    pub(crate) const USAGE: Self =
        Self { least: 0.0, most: 1.5, text: "a share of the KV cache from 0 to 1 (not per cent)" };
    pub(crate) const KV_TOKENS: Self =
        Self { least: 32.0, most: 4_294_967_295.0, text: "the KV cache's tokens, from 32 to 4,294,967,295" };

    /// The number itself. Rows count from 0 here, and from 1 for people.
    pub(crate) fn check(self, row: usize, column: &'static str, value: f64) -> Result<f64, SourceError> {
        // NaN is in no range.
        if (self.least..=self.most).contains(&value) {
            Ok(value)
        } else {
            Err(SourceError::Number { row: row + 1, column, value, range: self.text })
        }
    }
}
