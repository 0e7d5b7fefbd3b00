//! Tables as the engine interpolates them: decode times by numbers of sequences, at each of which several contexts are
//! known.

use plimsoll_engine::{Curve, Rows, Table};

use crate::{rows::Measured, tables::Tables};

/// Cells up to which every number of sequences that was measured gets its line.
const MOST_CELLS: usize = 20_000;
/// Numbers of sequences in a grid of geometric steps.
const STEPS: usize = 64;

/// The table of these rows. Rows with a computed prefix are left to the table's own rule for later chunks.
pub(crate) fn table(tables: &Tables) -> Option<Curve> {
    let whole = tables.prefill.iter().filter(|row| row.cached <= 0.0);
    let prefill = whole.map(|row| (row.tokens, row.ms)).collect();
    let decode = if tables.scattered {
        spread(&tables.decode)
    } else {
        tables.decode.iter().map(|row| (row.sequences, row.context, row.ms)).collect()
    };
    Table::new(Rows { prefill, decode }).ok().map(Curve::Table)
}

/// Where usage was varied, every context has its own numbers of sequences: each context's line is read at all of them.
fn spread(rows: &[Measured]) -> Vec<(f64, f64, f64)> {
    let mut by_context = rows.to_vec();
    by_context.sort_by(|a, b| a.context.total_cmp(&b.context).then(a.sequences.total_cmp(&b.sequences)));
    let lines: Vec<&[Measured]> = by_context.chunk_by(|a, b| b.context - a.context < 0.5).collect();
    let mut batches: Vec<f64> = rows.iter().map(|row| row.sequences).chain([1.0]).collect();
    batches.sort_by(f64::total_cmp);
    batches.dedup_by(|a, b| (*a - *b).abs() < 0.5);
    if batches.len().saturating_mul(lines.len()) > MOST_CELLS {
        let most = batches.last().copied().unwrap_or(1.0);
        batches = (0..STEPS).map(|n| most.powf(n as f64 / (STEPS - 1) as f64).round()).collect();
        batches.dedup_by(|a, b| (*a - *b).abs() < 0.5);
    }
    let cells = |batch: &f64| {
        let batch = *batch;
        lines.iter().filter_map(move |line| Some((batch, line.first()?.context, at(line, batch)?)))
    };
    batches.iter().flat_map(cells).collect()
}

/// The time for so many sequences on a line of rows of one context, by rising sequences. Beyond its ends it goes on by the
/// slope of the whole, since that of two noisy neighbours may be anything; never below its fastest row.
fn at(line: &[Measured], sequences: f64) -> Option<f64> {
    let (first, last) = (line.first()?, line.last()?);
    let slope = ((last.ms - first.ms) / (last.sequences - first.sequences).max(1.0)).max(0.0);
    let least = line.iter().map(|row| row.ms).fold(f64::INFINITY, f64::min);
    if sequences <= first.sequences {
        // Fewer sequences than were measured are taken for no slower, and for no faster than by half.
        return Some((first.ms - slope * (first.sequences - sequences)).clamp(least * 0.5, first.ms));
    }
    if sequences >= last.sequences {
        return Some((last.ms + slope * (sequences - last.sequences)).max(least));
    }
    let after = line.partition_point(|row| row.sequences <= sequences);
    let (low, high) = (line.get(after.checked_sub(1)?)?, line.get(after)?);
    let share = (sequences - low.sequences) / (high.sequences - low.sequences);
    Some(low.ms + (high.ms - low.ms) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sequences: f64, context: f64, ms: f64) -> Measured {
        Measured { sequences, context, ms, ..Measured::default() }
    }

    #[test]
    fn every_context_is_known_at_every_number_of_sequences() {
        let rows = [row(1.0, 100.0, 5.0), row(9.0, 100.0, 13.0), row(1.0, 900.0, 6.0), row(3.0, 900.0, 10.0)];
        let cells = spread(&rows);
        assert_eq!(cells.len(), 6);
        assert!(cells.contains(&(3.0, 100.0, 7.0)), "between rows: {cells:?}");
        assert!(cells.contains(&(9.0, 900.0, 22.0)), "beyond the last: {cells:?}");
        assert!(cells.contains(&(1.0, 900.0, 6.0)), "a row itself: {cells:?}");
    }

    #[test]
    fn noise_at_the_end_of_a_line_does_not_lead_below_zero() {
        let line = [row(2.0, 100.0, 10.0), row(50.0, 100.0, 30.0), row(60.0, 100.0, 20.0)];
        assert!(at(&line, 1_000.0).is_some_and(|ms| ms > 20.0));
        assert!(at(&line, 1.0).is_some_and(|ms| (5.0..=10.0).contains(&ms)));
        assert_eq!(at(&[], 1.0), None);
    }

    #[test]
    fn a_fine_grid_is_thinned_out() {
        let rows: Vec<Measured> = (1..=100)
            .flat_map(|c| (1..=100).map(move |b| row(f64::from(b * 7 + c), f64::from(c), 5.0)))
            .collect();
        assert!(spread(&rows).len() <= 100 * STEPS);
    }
}
