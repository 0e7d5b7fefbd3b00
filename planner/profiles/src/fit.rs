//! Closed forms through tables.

use plimsoll_engine::{Curve, Phases, Roofline};

use crate::{least, rows::Measured};

/// The knee is looked for up to so many tokens in a batch: beyond, every GPU computes rather than reads.
const LARGEST_KNEE: f64 = 8_192.0;
/// Knees that are tried for each doubling, before the best is narrowed down.
const STEPS: i32 = 4;
/// Rows that knees are tried on, evenly taken; a knee is no better known from more.
const TRIED: usize = 1_000;

/// t = a + max(w, b (P + B)) + c PP + d B + e KV through all rows; None where they don't determine it.
///
/// The maximum is b × max(knee, P + B) with knee = w / b: for a given knee the rest is linear, and the knee is searched.
pub(crate) fn roofline(rows: &[&Measured]) -> Option<Curve> {
    let tried: Vec<&Measured> = rows.iter().step_by(rows.len().div_ceil(TRIED).max(1)).copied().collect();
    let at = |knee: f64| with_knee(&tried, knee);
    let steps = (LARGEST_KNEE.log2() * f64::from(STEPS)) as i32;
    let grid =
        std::iter::once(0.0).chain((0..=steps).map(|step| (f64::from(step) / f64::from(STEPS)).exp2()));
    let nearest =
        |best: Option<Found>, next: Found| Some(best.filter(|best| best.0 <= next.0).unwrap_or(next));
    let mut best = grid.filter_map(at).fold(None, nearest)?;
    // Between the neighbours of the best knee, halving in.
    let mut width = (1.0 / f64::from(STEPS)).exp2();
    while best.1 > 0.0 && width > 1.001 {
        let around = [best.1 / width, best.1 * width];
        best = around.into_iter().filter_map(at).fold(Some(best), nearest)?;
        width = width.sqrt();
    }
    let (_, knee, [a, b, c, d, e]) = with_knee(rows, best.1)?;
    Some(Curve::Roofline(Roofline {
        a_ms: a,
        w_ms: b * knee,
        b_ms_per_token: b,
        c_ms_per_token_squared: c,
        d_ms_per_sequence: d,
        e_ms_per_kv_token: e,
    }))
}

/// The mean distance, the knee, and the coefficients.
type Found = (f64, f64, [f64; 5]);

fn with_knee(rows: &[&Measured], knee: f64) -> Option<Found> {
    let features = |row: &&Measured| {
        let batch = (row.tokens + row.sequences).max(knee);
        ([1.0, batch, row.attention(), row.sequences, row.kv()], row.ms)
    };
    let rows: Vec<([f64; 5], f64)> = rows.iter().map(features).collect();
    let coefficients = least::fit(&rows)?;
    Some((least::distance(&rows, &coefficients), knee, coefficients))
}

/// Prompts and decodes apart: a + b P + c PP and a + d B + e KV.
pub(crate) fn phases(prefill: &[Measured], decode: &[Measured]) -> Option<Curve> {
    let prompts: Vec<([f64; 3], f64)> =
        prefill.iter().map(|row| ([1.0, row.tokens, row.attention()], row.ms)).collect();
    let decodes: Vec<([f64; 3], f64)> =
        decode.iter().map(|row| ([1.0, row.sequences, row.kv()], row.ms)).collect();
    let ([a, b, c], [decode_a, d, e]) = (least::fit(&prompts)?, least::fit(&decodes)?);
    Some(Curve::Phases(Phases {
        prefill_a_ms: a,
        prefill_b_ms_per_token: b,
        prefill_c_ms_per_token_squared: c,
        decode_a_ms: decode_a,
        decode_d_ms_per_sequence: d,
        decode_e_ms_per_kv_token: e,
    }))
}
