//! SGLang's request log (`--export-metrics-to-file`), as 0.5.23 writes it: one JSON object a line, the parameters of the
//! request (and so its prompt) as one text, and beside it the `meta_info` that clients get.

use serde::{Deserialize, de};

use super::{
    record::RequestRecord,
    tail::{Line, LineError},
};

/// The fields that are read. All others, the prompt among them, are skipped without being decoded.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    e2e_latency: Option<f64>,
    first_token_latency: Option<f64>,
    queue_time: Option<f64>,
    forward_entry_time: Option<f64>,
    prefill_finished_time: Option<f64>,
    request_finished_ts: Option<f64>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    finish_reason: Option<FinishReason>,
}

/// How the request ended. The object also tells what matched, which is output.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FinishReason {
    r#type: Ending,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Ending {
    #[default]
    Served,
    Aborted,
}

impl<'de> Deserialize<'de> for Ending {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Ending;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a finish reason")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ending, E> {
                Ok(if text == "abort" { Ending::Aborted } else { Ending::Served })
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Reads one line; `None` for a record that is not to be counted, such as that of an aborted request, whose latencies
/// end where its client hung up.
pub(super) fn read(line: Line<'_>) -> Result<Option<RequestRecord>, LineError> {
    let row: Row = line.decode()?;
    let aborted = row.finish_reason.as_ref().is_some_and(|reason| reason.r#type == Ending::Aborted);
    if aborted || row.e2e_latency.is_none() {
        return Ok(None);
    }
    let between = |from: Option<f64>, to: Option<f64>| Some(to? - from?);
    Ok(Some(RequestRecord {
        ttft: row.first_token_latency,
        e2e: row.e2e_latency,
        queue: row.queue_time,
        prefill: between(row.forward_entry_time, row.prefill_finished_time),
        decode: between(row.first_token_latency, row.e2e_latency),
        inference: between(row.forward_entry_time, row.request_finished_ts),
        prompt_tokens: row.prompt_tokens,
        generated_tokens: row.completion_tokens,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"request_parameters": "{\"text\": \"the \\\"secret\\\" prompt\"}", "id": "7f", "finish_reason":
        {"type": "length", "length": 5}, "prompt_tokens": 12, "weight_version": "default", "num_retractions": 0,
        "forward_entry_time": 1761000000.5, "prefill_finished_time": 1761000000.75, "queue_time": 0.125,
        "reasoning_tokens": 0, "completion_tokens": 5, "cached_tokens": 4, "dp_rank": null, "e2e_latency": 2.5,
        "request_received_ts": 1761000000.25, "first_token_latency": 0.5, "request_finished_ts": 1761000002.75,
        "decode_throughput": 2.0}"#;

    fn of(text: &str) -> Result<Option<RequestRecord>, LineError> {
        read(Line::Held(text.as_bytes()))
    }

    #[test]
    fn a_row_becomes_a_record() {
        let record = of(ROW).unwrap().unwrap();
        let want = RequestRecord {
            ttft: Some(0.5),
            e2e: Some(2.5),
            queue: Some(0.125),
            prefill: Some(0.25),
            decode: Some(2.0),
            inference: Some(2.25),
            prompt_tokens: Some(12),
            generated_tokens: Some(5),
        };
        assert_eq!(record, want);
    }

    #[test]
    fn without_enable_metrics_the_scheduler_s_times_are_absent() {
        let record =
            of(r#"{"e2e_latency": 1.0, "first_token_latency": 0.25, "prompt_tokens": 3}"#).unwrap().unwrap();
        assert_eq!((record.queue, record.prefill, record.inference), (None, None, None));
        assert_eq!((record.ttft, record.decode), (Some(0.25), Some(0.75)));
    }

    #[test]
    fn aborted_requests_and_other_rows_are_not_counted() {
        let aborted = ROW.replace("length\", \"length\": 5", "abort\", \"message\": \"client gone\"");
        assert_eq!(of(&aborted), Ok(None));
        assert_eq!(of("{}"), Ok(None));
        assert!(of(&ROW.replace("{\"type\": \"length\", \"length\": 5}", "null")).unwrap().is_some());
    }

    #[test]
    fn hostile_rows_are_refused_and_tell_nothing_of_their_text() {
        let deep = format!("{{\"x\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for bad in [
            "",
            "null",
            "[]",
            "[1.0, 2.0]",
            "\"secret\"",
            "{\"e2e_latency\": \"secret\"}",
            "{\"e2e_latency\": NaN}",
            "{\"e2e_latency\": 1e999}",
            "{\"e2e_latency\": 1, \"e2e_latency\": 2}",
            "{\"prompt_tokens\": -1}",
            "{\"prompt_tokens\": 1.5}",
            "{\"finish_reason\": \"secret\"}",
            "{\"finish_reason\": {\"type\": 7}}",
            "{\"e2e_latency\": 1.0",
            "{\"e2e_latency\": 1.0} secret",
        ] {
            let error = of(bad).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{bad}: {error}");
        }
        assert_eq!(of(&deep), Ok(None), "what is skipped may be as deep as it likes");
        assert!(read(Line::Held(b"{\"finish_reason\": {\"type\": \"\xff\xfe\"}}")).is_err());
        assert!(
            read(Line::Held(b"{\"x\": \"\xff\", \"e2e_latency\": 1.0}")).unwrap().is_some(),
            "not decoded"
        );
    }
}
