//! TensorRT-LLM's request log (`perf_metrics_output_dir`), schema version 1, and the entries of the older
//! `/perf_metrics`, which look the same. From the engine's published source; not seen on the wire.

use serde::Deserialize;

use super::{
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

/// Reads one line; `None` for a record that is not to be counted: an unfinished request, or a front's own row.
pub(super) fn read(line: Line<'_>) -> Result<Option<RequestRecord>, LineError> {
    let row: Row = line.decode()?;
    if let Some(version) = row.schema_version.filter(|version| *version != SCHEMA_VERSION) {
        return Err(LineError::Schema(version));
    }
    if matches!(row.status, Some(Status::Other)) {
        return Ok(None);
    }
    let phase = row.perf_metrics.or_else(|| row.phases?.server);
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
}
