//! The arrays of Dynamo's profiler, and the grids that its mocker is given.
//!
//! Profiler: `prefill_isl`, `prefill_ttft` in ms and `prefill_thpt_per_gpu`, prompts one at a time; `x_kv_usage` as a share
//! of `max_kv_tokens`, `y_context_length`, `z_itl` in ms and `z_thpt_per_gpu`, for which (ISL + OSL / 2) × concurrency was
//! varied. Mocker: `prefill_isl`, `prefill_ttft_ms`, and `decode_itl` by `decode_active_kv_tokens` and
//! `decode_context_length`. How many GPUs the engine has is in none of them, but follows from the throughputs.

use crate::{
    arrays::{Array, Arrays},
    error::SourceError,
    rows::Measured,
    tables::{Range, Tables},
};

/// Whether these arrays are of that kind.
pub(crate) fn is_known(arrays: &Arrays) -> bool {
    !arrays.is_empty()
}

/// The tables in these arrays: prompts, decodes or both.
pub(crate) fn tables(given: &str, arrays: &Arrays) -> Result<Tables, SourceError> {
    let mut tables = Tables {
        given: given.to_owned(),
        origin: "measured by Dynamo's profiler".to_owned(),
        scattered: true,
        ..Tables::default()
    };
    if arrays.has("prefill_isl") || arrays.has("prefill_ttft") || arrays.has("prefill_ttft_ms") {
        prefill(&mut tables, arrays)?;
    }
    if arrays.has("decode_itl") {
        tables.origin = "a grid for Dynamo's mocker".to_owned();
        grid(&mut tables, arrays)?;
    } else if ["x_kv_usage", "y_context_length", "z_itl"].iter().any(|name| arrays.has(name)) {
        decode(&mut tables, arrays)?;
    }
    if tables.prefill.is_empty() && tables.decode.is_empty() {
        return Err(SourceError::Missing {
            what: "the key",
            name: "prefill_isl or x_kv_usage",
            has: arrays.names(),
        });
    }
    tables.checked()
}

fn prefill(tables: &mut Tables, arrays: &Arrays) -> Result<(), SourceError> {
    let times = if arrays.has("prefill_ttft_ms") { "prefill_ttft_ms" } else { "prefill_ttft" };
    let (isl, ttft) = (arrays.need("prefill_isl")?, arrays.need(times)?);
    same_length(("prefill_isl", isl), (times, ttft))?;
    for (index, (isl, ttft)) in isl.iter().zip(ttft).enumerate() {
        let tokens = Range::TOKENS.check(index, "prefill_isl", *isl)?;
        tables.prefill.push(Measured {
            tokens,
            ms: Range::MS.check(index, times, *ttft)?,
            ..Measured::default()
        });
    }
    if let Some(Array { values, .. }) = arrays.get("prefill_thpt_per_gpu") {
        same_length(("prefill_isl", isl), ("prefill_thpt_per_gpu", values))?;
        let each = isl.iter().zip(ttft).zip(values).map(|((isl, ttft), rate)| isl / ttft * 1e3 / rate);
        tables.prefill_gpus = median(each.collect());
    }
    Ok(())
}

fn decode(tables: &mut Tables, arrays: &Arrays) -> Result<(), SourceError> {
    let usage = arrays.need("x_kv_usage")?;
    let (contexts, itl) = (arrays.need("y_context_length")?, arrays.need("z_itl")?);
    same_length(("x_kv_usage", usage), ("y_context_length", contexts))?;
    same_length(("x_kv_usage", usage), ("z_itl", itl))?;
    let capacity = arrays.need("max_kv_tokens")?;
    let &[capacity] = capacity else {
        return Err(SourceError::Lengths {
            one: "max_kv_tokens",
            other: "one engine",
            lengths: (capacity.len(), 1),
        });
    };
    let capacity = Range::KV_TOKENS.check(0, "max_kv_tokens", capacity)?;
    tables.kv_tokens = Some(capacity);
    for (index, ((usage, context), itl)) in usage.iter().zip(contexts).zip(itl).enumerate() {
        let usage = Range::USAGE.check(index, "x_kv_usage", *usage)?;
        let context = Range::TOKENS.check(index, "y_context_length", *context)?;
        let ms = Range::MS.check(index, "z_itl", *itl)?;
        let sequences = (usage * capacity / context).round().max(1.0);
        let sequences =
            Range::SEQUENCES.check(index, "x_kv_usage × max_kv_tokens / y_context_length", sequences)?;
        tables.decode.push(Measured { sequences, context, ms, ..Measured::default() });
    }
    if let Some(Array { values, .. }) = arrays.get("z_thpt_per_gpu") {
        same_length(("z_itl", itl), ("z_thpt_per_gpu", values))?;
        let each = tables.decode.iter().zip(values).map(|(row, rate)| row.sequences / row.ms * 1e3 / rate);
        tables.decode_gpus = median(each.collect());
    }
    Ok(())
}

/// `decode_itl` has a row for each number of active tokens and a column for each context. Where less than one sequence is
/// active, the grid repeats what one takes; those cells are left out.
fn grid(tables: &mut Tables, arrays: &Arrays) -> Result<(), SourceError> {
    let active = arrays.need("decode_active_kv_tokens")?;
    let contexts = arrays.need("decode_context_length")?;
    let cells = arrays.need("decode_itl")?;
    if cells.len() != active.len().saturating_mul(contexts.len()) {
        return Err(SourceError::Lengths {
            one: "decode_itl",
            other: "decode_active_kv_tokens × decode_context_length",
            lengths: (cells.len(), active.len().saturating_mul(contexts.len())),
        });
    }
    let mut most = 0.0_f64;
    for (index, itl) in cells.iter().enumerate() {
        let (row, column) = (index / contexts.len(), index % contexts.len());
        let kv = Range::CACHED.check(row, "decode_active_kv_tokens", active[row])?;
        let context = Range::TOKENS.check(column, "decode_context_length", contexts[column])?;
        most = most.max(kv);
        let sequences = kv / context;
        // A mocker's grid begins at contexts of one token, where no engine is.
        if (1.0..=65_536.0).contains(&sequences) {
            let ms = Range::MS.check(index, "decode_itl", *itl)?;
            tables.decode.push(Measured { sequences, context, ms, ..Measured::default() });
        }
    }
    // The grid ends where the profiler's fullest cache was.
    tables.kv_tokens = Some(Range::KV_TOKENS.check(0, "decode_active_kv_tokens", most)?);
    tables.kv_tokens_assumed = true;
    Ok(())
}

fn same_length(one: (&'static str, &[f64]), other: (&'static str, &[f64])) -> Result<(), SourceError> {
    let lengths = (one.1.len(), other.1.len());
    if lengths.0 == lengths.1 {
        Ok(())
    } else {
        Err(SourceError::Lengths { one: one.0, other: other.0, lengths })
    }
}

/// The middle one of those that are numbers.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
