//! Sheets: rows under named columns, as tables of measurements and of AIConfigurator's estimates are written.

use serde::Deserialize;

use crate::{
    arrays::listed,
    error::SourceError,
    rows::Measured,
    tables::{Range, Tables},
};

type Cells = Vec<Vec<f64>>;

/// A file of rows, with the names of their columns beside them. What else it says is not needed.
#[derive(Deserialize)]
pub(crate) struct Sheet {
    name: Option<String>,
    model: Option<String>,
    system: Option<String>,
    kind: Option<String>,
    source: Option<String>,
    gpus_per_engine: Option<u32>,
    max_kv_tokens_per_engine: Option<f64>,
    kv_bytes_per_token_per_gpu: Option<u64>,
    attention_dp: Option<u32>,
    prefill_columns: Vec<String>,
    prefill: Cells,
    #[serde(default)]
    prefill_prefix_columns: Vec<String>,
    #[serde(default)]
    prefill_with_prefix: Cells,
    #[serde(default)]
    decode_columns: Vec<String>,
    #[serde(default)]
    decode: Cells,
    #[serde(default)]
    mixed_columns: Vec<String>,
    #[serde(default)]
    mixed: Cells,
}

/// The columns that are needed of a table, in this order, by any of their names.
struct Columns<const N: usize> {
    table: &'static str,
    places: [usize; N],
    names: [&'static str; N],
}

impl<const N: usize> Columns<N> {
    fn find(
        table: &'static str,
        columns: &[String],
        wanted: [&[&'static str]; N],
    ) -> Result<Self, SourceError> {
        let (mut places, mut names) = ([0; N], [""; N]);
        for (index, known) in wanted.into_iter().enumerate() {
            let found = columns.iter().position(|column| known.contains(&column.as_str()));
            names[index] = known.first().copied().unwrap_or_default();
            let missing =
                || SourceError::Missing { what: "the column", name: names[index], has: listed(columns) };
            places[index] = found.ok_or_else(missing)?;
        }
        Ok(Self { table, places, names })
    }

    fn rows<'a>(
        &'a self,
        cells: &'a Cells,
        ranges: [Range; N],
    ) -> impl Iterator<Item = Result<[f64; N], SourceError>> + 'a {
        let needed = self.places.iter().max().map_or(0, |place| place + 1);
        cells.iter().enumerate().map(move |(row, cells)| {
            let mut values = [0.0; N];
            for (index, place) in self.places.iter().enumerate() {
                let short =
                    || SourceError::ShortRow { table: self.table, row: row + 1, cells: cells.len(), needed };
                let value = *cells.get(*place).ok_or_else(short)?;
                values[index] = ranges[index].check(row, self.names[index], value)?;
            }
            Ok(values)
        })
    }
}

impl Sheet {
    /// The tables of a sheet.
    pub(crate) fn tables(self, given: &str) -> Result<Tables, SourceError> {
        let origin = [&self.kind, &self.source].into_iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        let mut tables = Tables {
            given: given.to_owned(),
            origin: if origin.is_empty() { "a sheet of measurements".to_owned() } else { origin },
            estimated: self.kind.as_ref().is_some_and(|kind| kind.contains("estimate")),
            by_rank: true,
            gpus: self.gpus_per_engine,
            ranks: self.attention_dp,
            kv_bytes_per_gpu: self.kv_bytes_per_token_per_gpu,
            prefill: self.prefill()?,
            mixed: self.mixed()?,
            ..Tables::default()
        };
        let capacity = self.max_kv_tokens_per_engine;
        tables.kv_tokens =
            capacity.map(|n| Range::KV_TOKENS.check(0, "max_kv_tokens_per_engine", n)).transpose()?;
        if !self.decode.is_empty() {
            let batch = self.decode_columns.iter().any(|name| BATCH.contains(&name.as_str()));
            tables.decode = if batch { self.by_batch()? } else { self.by_usage(tables.kv_tokens)? };
            tables.scattered = !batch;
        }
        (tables.name, tables.model, tables.gpu) = (self.name, self.model, self.system);
        tables.checked()
    }

    fn prefill(&self) -> Result<Vec<Measured>, SourceError> {
        let columns = Columns::find("prefill", &self.prefill_columns, [&["isl"], &["ttft_ms"]])?;
        let rows = columns.rows(&self.prefill, [Range::TOKENS, Range::MS]);
        let alone = |[tokens, ms]: [f64; 2]| Measured { tokens, ms, ..Measured::default() };
        let mut prefill = rows.map(|row| row.map(alone)).collect::<Result<Vec<_>, _>>()?;
        if !self.prefill_with_prefix.is_empty() {
            let wanted: [&[&str]; 3] = [&["isl_total"], &["cached_prefix"], &["latency_ms"]];
            let columns = Columns::find("prefill_with_prefix", &self.prefill_prefix_columns, wanted)?;
            let rows = columns.rows(&self.prefill_with_prefix, [Range::TOKENS, Range::CACHED, Range::MS]);
            for (index, row) in rows.enumerate() {
                let [total, cached, ms] = row?;
                // The prompt's length counts its prefix in.
                let tokens = Range::TOKENS.check(index, "isl_total less cached_prefix", total - cached)?;
                prefill.push(Measured { tokens, cached, ms, ..Measured::default() });
            }
        }
        Ok(prefill)
    }

    fn by_batch(&self) -> Result<Vec<Measured>, SourceError> {
        let columns = Columns::find("decode", &self.decode_columns, [&BATCH, &["context_len"], &["itl_ms"]])?;
        let rows = columns.rows(&self.decode, [Range::SEQUENCES, Range::TOKENS, Range::MS]);
        let alone =
            |[sequences, context, ms]: [f64; 3]| Measured { sequences, context, ms, ..Measured::default() };
        rows.map(|row| row.map(alone)).collect()
    }

    /// Usage is a share of the KV cache, which as many sequences fill as fit.
    fn by_usage(&self, capacity: Option<f64>) -> Result<Vec<Measured>, SourceError> {
        let wanted: [&[&str]; 3] = [&["kv_usage"], &["context_len"], &["itl_ms"]];
        let columns = Columns::find("decode", &self.decode_columns, wanted)?;
        let missing = || SourceError::Missing {
            what: "the key",
            name: "max_kv_tokens_per_engine",
            has: "only kv_usage, a share of it".to_owned(),
        };
        let capacity = capacity.ok_or_else(missing)?;
        let rows = columns.rows(&self.decode, [Range::USAGE, Range::TOKENS, Range::MS]).enumerate();
        rows.map(|(index, row)| {
            let [usage, context, ms] = row?;
            let sequences = (usage * capacity / context).round().max(1.0);
            let sequences = Range::SEQUENCES.check(index, "kv_usage, in sequences,", sequences)?;
            Ok(Measured { sequences, context, ms, ..Measured::default() })
        })
        .collect()
    }

    /// Rows without a sequence that decodes repeat the table of prompts.
    fn mixed(&self) -> Result<Vec<Measured>, SourceError> {
        if self.mixed.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: [&[&str]; 4] =
            [&["prefill_chunk_tokens"], &["decode_seqs"], &["context_len"], &["iter_ms"]];
        let columns = Columns::find("mixed", &self.mixed_columns, wanted)?;
        let ranges = [Range::TOKENS, Range::SOME_SEQUENCES, Range::TOKENS, Range::MS];
        let row = |[tokens, sequences, context, ms]: [f64; 4]| Measured {
            tokens,
            cached: 0.0,
            sequences,
            context,
            ms,
        };
        let rows: Result<Vec<_>, _> = columns.rows(&self.mixed, ranges).map(|cells| cells.map(row)).collect();
        Ok(rows?.into_iter().filter(|row| row.sequences >= 1.0).collect())
    }
}

const BATCH: [&str; 2] = ["batch", "batch_per_dp_rank"];
