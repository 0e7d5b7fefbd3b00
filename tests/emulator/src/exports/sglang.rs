//! SGLang's hourly files of requests, one JSON object a line.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Ended, lines::Lines};
use crate::{clock::Clock, job::FinishReason};

/// The files; the one of the hour is open.
#[derive(Debug)]
pub(super) struct Export {
    directory: PathBuf,
    hour: String,
    lines: Option<Lines>,
}

impl Export {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        super::directory(directory)?;
        Ok(Self { directory: directory.to_owned(), hour: String::new(), lines: None })
    }

    pub(super) fn write(&mut self, clock: &Clock, ended: &Ended<'_>) {
        if let Err(error) = self.turn(&hour(clock.unix_seconds(ended.facts.ended))) {
            tracing::warn!(%error, directory = %self.directory.display(), "the hour's file cannot be opened");
        }
        if let Some(lines) = &mut self.lines {
            lines.write(&record(clock, ended));
        }
    }

    fn turn(&mut self, hour: &str) -> io::Result<()> {
        if self.lines.is_some() && self.hour == hour {
            return Ok(());
        }
        self.lines = None;
        let path = self.directory.join(format!("sglang-request-metrics-{hour}.log"));
        self.lines = Some(Lines::open(&path)?);
        hour.clone_into(&mut self.hour);
        Ok(())
    }
}

/// As files are named; of UTC, where the real engine takes the machine's zone.
fn hour(unix_seconds: f64) -> String {
    jiff::Timestamp::from_second(unix_seconds as i64)
        .map(|at| at.strftime("%Y%m%d_%H").to_string())
        .unwrap_or_default()
}

fn record(clock: &Clock, ended: &Ended<'_>) -> Value {
    let (live, facts) = (ended.live, ended.facts);
    let reason = match live.reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Abort => "abort",
    };
    // The real file holds the prompt here. Ours holds words in its place that a reader must not let through.
    let parameters = json!({
        "rid": live.name, "text": format!("PROMPT-OF-{}", live.name), "stream": live.streaming,
        "sampling_params": { "max_new_tokens": live.max_tokens },
    });
    let at = |moment| clock.unix_seconds(moment);
    let seconds = |span: plimsoll_engine::Micros| crate::histogram::seconds(crate::state::nanos(span));
    let decode = live.elapsed.saturating_sub(live.heard.first).as_secs_f64();
    let decoded = f64::from(facts.emitted_tokens.saturating_sub(1));
    json!({
        "request_parameters": parameters.to_string(),
        "id": live.name, "finish_reason": { "type": reason, "length": facts.emitted_tokens },
        "prompt_tokens": facts.prompt_tokens, "weight_version": "default", "num_retractions": facts.preemptions,
        "queue_time": facts.queue_time().map(seconds), "forward_entry_time": facts.first_scheduled.map(at),
        "prefill_finished_time": facts.first_token.map(at), "reasoning_tokens": 0,
        "completion_tokens": facts.emitted_tokens, "cached_tokens": facts.cached_tokens,
        "e2e_latency": seconds(facts.e2e()), "first_token_latency": seconds(live.heard.first),
        "request_received_ts": at(facts.arrival), "request_finished_ts": at(facts.ended),
        "decode_throughput": (decode > 0.0).then_some(decoded / decode),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_name_of_its_hour() {
        assert_eq!(hour(1_795_354_854.7), "20261122_13");
        let folder = tempfile::tempdir().unwrap();
        let mut export = Export::open(&folder.path().join("new")).unwrap();
        for hour in ["20261122_13", "20261122_13", "20261122_14"] {
            export.turn(hour).unwrap();
            export.lines.as_mut().unwrap().write(&json!({ "hour": hour }));
        }
        let read = |hour| {
            let name = format!("new/sglang-request-metrics-{hour}.log");
            std::fs::read_to_string(folder.path().join(name)).unwrap()
        };
        assert_eq!(read("20261122_13").lines().count(), 2);
        assert_eq!(read("20261122_14"), "{\"hour\":\"20261122_14\"}\n");
    }
}
