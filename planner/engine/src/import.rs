//! Profiles from tables of others: rows under named columns, as benchmark files have them.

use serde::Deserialize;

use crate::{
    profile::{Profile, ProfileError},
    table::{Rows, Table},
    timing::{Curve, Timing},
};

/// A file of rows, with the names of their columns beside them. What else it says is not needed.
#[derive(Deserialize)]
struct Sheet {
    name: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    system: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    source: String,
    gpus_per_engine: u32,
    max_kv_tokens_per_engine: u32,
    #[serde(default)]
    kv_bytes_per_token_per_gpu: Option<u64>,
    #[serde(default)]
    attention_dp: Option<u32>,
    prefill_columns: Vec<String>,
    prefill: Vec<Vec<f64>>,
    decode_columns: Vec<String>,
    decode: Vec<Vec<f64>>,
}

impl Profile {
    /// A profile from a table of measurements or estimates in JSON: `prefill` rows with the columns `isl` and
    /// `ttft_ms`; `decode` rows with `context_len`, `itl_ms`, and either the batch or `kv_usage` as a share of
    /// `max_kv_tokens_per_engine`; `gpus_per_engine`. Iteration times are interpolated, not fitted, which is what
    /// mixture-of-experts models need.
    ///
    /// # Errors
    /// Says what is missing, or at which line the text stops being JSON.
    pub fn from_table_json(text: &str) -> Result<Self, ProfileError> {
        let sheet: Sheet = serde_json::from_str(text)?;
        let prefill = Columns(&sheet.prefill_columns);
        let (isl, ttft) = (prefill.place(&["isl"])?, prefill.place(&["ttft_ms"])?);
        let prefill = rows(&sheet.prefill, &[isl, ttft])?.into_iter().map(|row| (row[0], row[1])).collect();
        let table = Table::new(Rows { prefill, decode: sheet.decode()? }).map_err(|_| ProfileError::Rows)?;
        Ok(Self {
            name: sheet.name,
            model: sheet.model,
            gpu: sheet.system,
            gpus: sheet.gpus_per_engine,
            source: [sheet.kind, sheet.source].join(", "),
            kv_tokens: sheet.max_kv_tokens_per_engine,
            max_model_len: 131_072,
            // Where nobody says, as much as a dense model of 32 billion parameters.
            kv_bytes_per_token: sheet
                .kv_bytes_per_token_per_gpu
                .map_or(262_144, |bytes| bytes.saturating_mul(u64::from(sheet.gpus_per_engine))),
            weights_bytes: 0,
            gpu_memory_bytes: 0,
            timing: Timing::new(Curve::Table(table)),
        })
    }
}

impl Sheet {
    /// Sequences, context and time of each decode row.
    fn decode(&self) -> Result<Vec<(f64, f64, f64)>, ProfileError> {
        let columns = Columns(&self.decode_columns);
        let (context, itl) = (columns.place(&["context_len"])?, columns.place(&["itl_ms"])?);
        if let Ok(batch) = columns.place(&["batch", "batch_per_dp_rank"]) {
            let ranks = f64::from(self.attention_dp.unwrap_or(1).max(1));
            let row = |row: Vec<f64>| (row[0] * ranks, row[1], row[2]);
            return Ok(rows(&self.decode, &[batch, context, itl])?.into_iter().map(row).collect());
        }
        let usage = columns.place(&["kv_usage"])?;
        let capacity = f64::from(self.max_kv_tokens_per_engine);
        let row = |row: Vec<f64>| ((row[0] * capacity / row[1].max(1.0)).round().max(1.0), row[1], row[2]);
        Ok(rows(&self.decode, &[usage, context, itl])?.into_iter().map(row).collect())
    }
}

struct Columns<'a>(&'a [String]);

impl Columns<'_> {
    fn place(&self, names: &[&'static str]) -> Result<usize, ProfileError> {
        let found = self.0.iter().position(|column| names.contains(&column.as_str()));
        found.ok_or_else(|| ProfileError::Column(names.first().copied().unwrap_or_default()))
    }
}

fn rows(rows: &[Vec<f64>], places: &[usize]) -> Result<Vec<Vec<f64>>, ProfileError> {
    let cells =
        |row: &Vec<f64>| places.iter().map(|place| row.get(*place).copied()).collect::<Option<Vec<f64>>>();
    rows.iter().map(|row| cells(row).ok_or(ProfileError::Rows)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, Micros, StepShape};

    const SHEET: &str = r#"{"name": "x", "gpus_per_engine": 2, "max_kv_tokens_per_engine": 100000,
        "prefill_columns": ["isl", "ttft_ms", "other"], "prefill": [[100, 20.0, 0], [1000, 60.5, 0]],
        "decode_columns": ["kv_usage", "context_len", "itl_ms"],
        "decode": [[0.01, 1000, 10.0], [0.5, 1000, 30.0], [0.5, 5000, 24.0]]}"#;

    #[test]
    fn a_usage_is_as_many_sequences_as_fill_it() {
        let profile = Profile::from_table_json(SHEET).unwrap();
        let shape = StepShape { decode_sequences: 50, decode_context: 50_000, ..StepShape::default() };
        assert_eq!(profile.timing.duration(&shape), Micros(30_000));
        Engine::new(profile.engine_config()).unwrap();
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(Profile::from_json(&text).unwrap(), profile);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |from: &str, to: &str| {
            Profile::from_table_json(&SHEET.replace(from, to)).unwrap_err().to_string()
        };
        assert!(error("\"ttft_ms\"", "\"ms\"").contains("ttft_ms"));
        assert!(error("kv_usage", "usage").contains("kv_usage"));
        assert!(error("[100, 20.0, 0]", "[100]").contains("row"));
        assert!(error("[100, 20.0, 0]", "[100, -20.0, 0]").contains("row"));
        assert!(Profile::from_table_json("{").is_err());
    }
}
