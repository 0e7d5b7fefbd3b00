//! Iteration times from tables, as profilers measure them: for engines that no line fits.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::timing::{StepShape, TimingError};

/// The most rows that a table may have: more is no profile.
const MOST_ROWS: usize = 100_000;

/// Prefill times by prompt length and decode times by batch and context, interpolated.
///
/// Prefill of `n` new tokens that follow `c` computed ones takes T(c + n) − T(c) + T(0): what the longer prompt takes
/// beyond the shorter one, and the fixed cost once. Decode is interpolated in the context at each of the two batch sizes
/// next to the batch, and then between these; beyond the table the last slope goes on.
///
/// An iteration that does both computes P + B tokens, as a prompt of so many would, and reads the decodes' keys and values
/// beside: what their contexts add to a decode of the same batch. It takes no less than the decode alone. (In mixtures of
/// experts a batch of decodes is dear because it reads most experts, which the prompt reads anyway: the plain sum of both was
/// up to 80 % too long.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Rows", into = "Rows")]
pub struct Table(Arc<Parts>);

/// A table as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// Prompt length in tokens, time in ms.
    pub prefill: Vec<(f64, f64)>,
    /// Sequences, mean context in tokens, time in ms.
    pub decode: Vec<(f64, f64, f64)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    rows: Rows,
    prefill: Line,
    prefill_fixed: f64,
    decode: Vec<(f64, Line)>,
    decode_fixed: f64,
}

/// Points by rising x.
#[derive(Clone, Debug, PartialEq)]
struct Line(Vec<(f64, f64)>);

impl Line {
    /// The value at `x`, on a straight line between the points next to it, or through the two at the end.
    fn at(&self, x: f64) -> f64 {
        let after = self.0.partition_point(|(px, _)| *px <= x).clamp(1, (self.0.len() - 1).max(1));
        match (self.0.get(after - 1), self.0.get(after)) {
            (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
            (Some((_, y)), None) => *y,
            _ => 0.0,
        }
    }
}

impl Table {
    /// A table of these rows, in any order; rows of the same place are averaged.
    ///
    /// # Errors
    /// When a phase has no rows, or a number is negative or not finite.
    pub fn new(rows: Rows) -> Result<Self, TimingError> {
        if rows.prefill.is_empty() || rows.decode.is_empty() {
            return Err(TimingError::Table("it needs rows of prefill and of decode"));
        }
        if rows.prefill.len() + rows.decode.len() > MOST_ROWS {
            return Err(TimingError::Table("it has more than 100,000 rows"));
        }
        let fine = |number: f64| number.is_finite() && number >= 0.0;
        let prefill_fine = rows.prefill.iter().all(|(x, y)| fine(*x) && fine(*y));
        if !prefill_fine || !rows.decode.iter().all(|(b, x, y)| *b >= 1.0 && fine(*b) && fine(*x) && fine(*y))
        {
            return Err(TimingError::Table("a number is negative, not finite, or a batch below 1"));
        }
        let prefill = line(rows.prefill.clone());
        let mut batches: Vec<f64> = rows.decode.iter().map(|(batch, _, _)| *batch).collect();
        batches.sort_by(f64::total_cmp);
        batches.dedup_by(|a, b| (*a - *b).abs() < 0.5);
        let of_batch = |batch: &f64| {
            let rows = rows.decode.iter().filter(|(b, _, _)| (b - batch).abs() < 0.5);
            (*batch, line(rows.map(|(_, context, ms)| (*context, *ms)).collect()))
        };
        let decode: Vec<(f64, Line)> = batches.iter().map(of_batch).collect();
        let least = |times: &mut dyn Iterator<Item = f64>| times.fold(f64::INFINITY, f64::min);
        let prefill_fixed = prefill.at(0.0).clamp(0.0, least(&mut prefill.0.iter().map(|(_, ms)| *ms)));
        let decode_fixed = least(&mut rows.decode.iter().map(|(_, _, ms)| *ms));
        Ok(Self(Arc::new(Parts { rows, prefill, prefill_fixed, decode, decode_fixed })))
    }

    pub(crate) fn millis(&self, shape: &StepShape) -> f64 {
        let (new, batch) = (shape.prefill_tokens as f64, shape.decode_sequences as f64);
        let context = shape.decode_context as f64 / batch;
        match (shape.prefill_tokens > 0, shape.decode_sequences > 0) {
            (true, true) => {
                let decode = self.decode_ms(batch, context);
                let reading = (decode - self.between(batch, 0.0)).clamp(0.0, decode);
                (self.prefill_ms(shape, new + batch) + reading).max(decode)
            }
            (true, false) => self.prefill_ms(shape, new),
            (false, true) => self.decode_ms(batch, context),
            (false, false) => 0.0,
        }
    }

    /// The time of `tokens` after what was computed before the iteration's prompt tokens.
    fn prefill_ms(&self, shape: &StepShape, tokens: f64) -> f64 {
        let new = shape.prefill_tokens as f64;
        // PP = new × (before + new / 2), were it one sequence. Several short ones come out as none before.
        let before = (shape.prefill_attention / new - new / 2.0).max(0.0);
        let beyond = self.0.prefill.at(before + tokens) - self.0.prefill.at(before);
        self.0.prefill_fixed + beyond.max(0.0)
    }

    fn decode_ms(&self, batch: f64, context: f64) -> f64 {
        // No slope leads below the fastest decode that was measured.
        self.between(batch, context).max(self.0.decode_fixed)
    }

    /// On the lines of the two batches next to this one.
    fn between(&self, batch: f64, context: f64) -> f64 {
        let rows = &self.0.decode;
        let after = rows.partition_point(|(b, _)| *b <= batch).clamp(1, (rows.len() - 1).max(1));
        match (rows.get(after - 1), rows.get(after)) {
            (Some((b0, low)), Some((b1, high))) => {
                let (low, high) = (low.at(context), high.at(context));
                low + (high - low) * (batch - b0) / (b1 - b0)
            }
            (Some((_, only)), None) => only.at(context),
            _ => 0.0,
        }
    }
}

impl TryFrom<Rows> for Table {
    type Error = TimingError;
    fn try_from(rows: Rows) -> Result<Self, TimingError> {
        Self::new(rows)
    }
}

impl From<Table> for Rows {
    fn from(table: Table) -> Self {
        table.0.rows.clone()
    }
}

/// A line through points in any order; those of one place are averaged.
fn line(mut points: Vec<(f64, f64)>) -> Line {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mean = |group: &[(f64, f64)]| {
        let n = group.len() as f64;
        (group[0].0, group.iter().map(|(_, y)| y).sum::<f64>() / n)
    };
    Line(points.chunk_by(|a, b| (a.0 - b.0).abs() < 1e-9).map(mean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new(Rows {
            prefill: vec![(1_000.0, 60.0), (100.0, 15.0), (2_000.0, 130.0)],
            decode: vec![
                (1.0, 1_000.0, 10.0),
                (8.0, 1_000.0, 17.0),
                (8.0, 3_000.0, 27.0),
                (1.0, 3_000.0, 11.0),
            ],
        })
        .unwrap()
    }

    fn shape(new: u64, before: u64, sequences: u64, context: u64) -> StepShape {
        StepShape {
            prefill_tokens: new,
            prefill_attention: new as f64 * (before as f64 + new as f64 / 2.0),
            decode_sequences: sequences,
            decode_context: sequences * context,
        }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn rows_are_met_and_interpolated() {
        let table = table();
        // 15 ms at 100 tokens and 50 ms per 1,000 more: 10 ms of it is fixed.
        close(table.millis(&shape(1_000, 0, 0, 0)), 60.0);
        close(table.millis(&shape(550, 0, 0, 0)), 37.5);
        close(table.millis(&shape(0, 0, 8, 1_000)), 17.0);
        close(table.millis(&shape(0, 0, 8, 2_000)), 22.0);
        close(table.millis(&shape(0, 0, 4, 1_000)), 13.0);
        // Beyond the table the last slope goes on.
        close(table.millis(&shape(3_000, 0, 0, 0)), 200.0);
        close(table.millis(&shape(0, 0, 15, 1_000)), 24.0);
    }

    #[test]
    fn a_later_chunk_costs_what_the_longer_prompt_costs_more() {
        close(table().millis(&shape(1_000, 1_000, 0, 0)), 10.0 + 70.0);
    }

    #[test]
    fn a_prompt_beside_decodes_computes_their_tokens_and_reads_their_caches() {
        // 1,008 tokens as one prompt, and what 1,000 tokens of context add to a decode of 8: 5 ms per 1,000.
        close(table().millis(&shape(1_000, 0, 8, 1_000)), 60.0 + 8.0 * 0.07 + 5.0);
        // One token beside a large batch takes what the batch takes.
        close(table().millis(&shape(1, 0, 8, 40_000)), 17.0 + 39.0 * 5.0);
    }

    #[test]
    fn nonsense_is_refused() {
        for rows in [
            Rows { prefill: vec![], decode: vec![(1.0, 1.0, 1.0)] },
            Rows { prefill: vec![(1.0, f64::NAN)], decode: vec![(1.0, 1.0, 1.0)] },
            Rows { prefill: vec![(1.0, 1.0)], decode: vec![(0.0, 1.0, 1.0)] },
            Rows { prefill: vec![(1.0, 1.0)], decode: vec![(1.0, 1.0, -1.0)] },
        ] {
            assert!(Table::new(rows).is_err());
        }
        let one = Table::new(Rows { prefill: vec![(5.0, 1.0)], decode: vec![(1.0, 1.0, 2.0)] }).unwrap();
        close(one.millis(&shape(50, 0, 0, 0)), 1.0);
        close(one.millis(&shape(0, 0, 9, 9)), 2.0);
    }
}
