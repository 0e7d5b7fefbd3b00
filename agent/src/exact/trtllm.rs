//! TensorRT-LLM's request log (`perf_metrics_output_dir`), schema version 1, and the older page `/perf_metrics` (up to 1.2),
//! whose entries look the same. From the engine's published source; not seen on the wire.

use serde::{Deserialize, de::IgnoredAny};

use super::{
    batch::ExactSamples,
    record::RequestRecord,
    tail::{Line, LineError},
};

/// The schema that is known; rows on disk carry no number.
const SCHEMA_VERSION: u64 = 1;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    schema_version: Option<u64>,
    status: Option<Status>,
    perf_metrics: Option<Phase>,
    phases: Option<Phases>,
}

/// Whether the request was served to its end.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Complete,
    #[serde(other)]
    Other,
}

/// As the server keeps it. A disaggregated front's phases are other engines' and are told by those.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Phases {
    server: Option<Phase>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Phase {
    timing_metrics: Option<Timing>,
}

/// Seconds of a steady clock; absent, null or 0 where there was no such moment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Timing {
    arrival_time: Option<f64>,
    first_scheduled_time: Option<f64>,
    first_token_time: Option<f64>,
    last_token_time: Option<f64>,
}

/// An entry of the page: one that is no record spoils none of the others.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Entry {
    Row(Row),
    Other(IgnoredAny),
}

/// The requests that ended since the page was last read, whoever read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainedRequests {
    /// What they took.
    pub samples: ExactSamples,
    /// Entries that are no records, and values that can't be true.
    pub malformed: u64,
}

/// Reads `/perf_metrics`, which empties itself when it is read.
///
/// # Errors
/// When it is no JSON array; says where, never what stands there.
pub fn read_drained(bytes: &[u8]) -> Result<DrainedRequests, LineError> {
    let entries: Vec<Entry> =
        serde_json::from_slice(bytes).map_err(|error| LineError::Json { at: error.column() })?;
    let mut drained = DrainedRequests::default();
    for entry in entries {
        let record = match entry {
            Entry::Row(row) => row.record(),
            Entry::Other(IgnoredAny) => Err(LineError::Json { at: 0 }),
        };
        match record {
            Ok(Some(record)) => drained.malformed += record.count_into(&mut drained.samples).impossible,
            Ok(None) => {}
            Err(_) => drained.malformed += 1,
        }
    }
    Ok(drained)
}

/// Reads one line; `None` for a record that is not to be counted: an unfinished request, or a front's own row.
pub(super) fn read(line: Line<'_>) -> Result<Option<RequestRecord>, LineError> {
    line.decode::<Row>()?.record()
}

impl Row {
    fn record(self) -> Result<Option<RequestRecord>, LineError> {
        if let Some(version) = self.schema_version.filter(|version| *version != SCHEMA_VERSION) {
            return Err(LineError::Schema(version));
        }
        if matches!(self.status, Some(Status::Other)) {
            return Ok(None);
        }
        let phase = self.perf_metrics.or_else(|| self.phases?.server);
        let Some(timing) = phase.and_then(|phase| phase.timing_metrics) else { return Ok(None) };
        let between = |from: Option<f64>, to: Option<f64>| {
            let moment = |time: Option<f64>| time.filter(|seconds| *seconds > 0.0);
            Some(moment(to)? - moment(from)?)
        };
        let Timing { arrival_time, first_scheduled_time, first_token_time, last_token_time } = timing;
        Ok(Some(RequestRecord {
            ttft: between(arrival_time, first_token_time),
            e2e: between(arrival_time, last_token_time),
            queue: between(arrival_time, first_scheduled_time),
            prefill: between(first_scheduled_time, first_token_time),
            decode: between(first_token_time, last_token_time),
            inference: between(first_scheduled_time, last_token_time),
            prompt_tokens: None,
            generated_tokens: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"request_id":42,"perf_metrics":{"timing_metrics":{"arrival_time":100.0,
        "first_scheduled_time":100.125,"first_token_time":100.5,"last_token_time":102.5,"server_arrival_time":99.9},
        "first_iter":7,"last_iter":90,"kv_cache_metrics":{"num_total_allocated_blocks":3}},"status":"complete"}"#;

    fn of(text: &str) -> Result<Option<RequestRecord>, LineError> {
        read(Line::Held(text.as_bytes()))
    }

    #[test]
    fn a_row_becomes_a_record() {
        let want = RequestRecord {
            ttft: Some(0.5),
            e2e: Some(2.5),
            queue: Some(0.125),
            prefill: Some(0.375),
            decode: Some(2.0),
            inference: Some(2.375),
            ..RequestRecord::default()
        };
        assert_eq!(of(ROW), Ok(Some(want)));
        let nested = r#"{"schema_version":1,"request_id":"42","status":"complete","phases":{"server":{"timing_metrics":
            {"arrival_time":100.0,"first_scheduled_time":100.125,"first_token_time":100.5,"last_token_time":102.5}}}}"#;
        assert_eq!(of(nested), Ok(Some(want)));
    }

    #[test]
    fn moments_that_were_not_are_absent() {
        for none in ["null", "0.0"] {
            let row = ROW.replace("100.125", none);
            let record = of(&row).unwrap().unwrap();
            assert_eq!((record.queue, record.prefill, record.inference), (None, None, None));
            assert_eq!(record.ttft, Some(0.5));
        }
    }

    #[test]
    fn other_rows_are_not_counted() {
        assert_eq!(of(&ROW.replace("complete", "aborted")), Ok(None));
        let front = r#"{"ctx_server":"a:1","gen_server":"b:1","disagg_server_arrival_time":1.0,
            "disagg_ctx_dispatch_time":1.1,"disagg_server_first_token_time":1.2,"status":"complete",
            "ctx_perf_metrics":{"request_id":1,"perf_metrics":{"timing_metrics":{}}}}"#;
        assert_eq!(of(front), Ok(None));
        assert_eq!(of("{}"), Ok(None));
        let newer = ROW.replacen("{", r#"{"schema_version":2,"#, 1);
        assert_eq!(of(&newer), Err(LineError::Schema(2)));
        assert!(of(&ROW.replace("100.0,", "\"soon\",")).is_err());
    }

    #[test]
    fn a_page_is_counted_entry_by_entry() {
        use plimsoll_common::engine::DistributionKind;
        // A whole one, one whose last token came before the first, one that is none, one that was aborted.
        let backwards = ROW.replace("102.5", "100.25");
        let page = format!("[{ROW},{backwards},7,{}]", ROW.replace("complete", "aborted"));
        let drained = read_drained(page.as_bytes()).unwrap();
        let count = |kind| drained.samples.get(kind).map(|cells| (cells.count(), cells.sum()));
        assert_eq!(count(DistributionKind::Ttft), Some((2, 1_000_000)));
        assert_eq!(count(DistributionKind::Decode), Some((1, 2_000_000)));
        assert_eq!(count(DistributionKind::Isl), None, "it does not tell tokens");
        assert_eq!(drained.malformed, 2);
        assert_eq!(read_drained(b" []"), Ok(DrainedRequests::default()));
        for bad in ["", "{}", "[", "[{]", "null", "not found"] {
            assert!(read_drained(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
