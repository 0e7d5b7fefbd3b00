//! TensorRT-LLM's file of requests, schema version 1, one JSON object a line. From its source.

use std::{io, path::Path};

use serde_json::json;

use super::{Ended, lines::Lines};
use crate::state::trtllm::Measured;

/// The file of this life.
#[derive(Debug)]
pub(super) struct Export {
    lines: Lines,
}

impl Export {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        super::directory(directory)?;
        let began = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let name = format!("perf_metrics-server-emulator-{}-{began}.jsonl", std::process::id());
        Ok(Self { lines: Lines::open(&directory.join(name))? })
    }

    pub(super) fn write(&mut self, block_size: u32, ended: &Ended<'_>) {
        let (live, facts) = (ended.live, *ended.facts);
        let measured =
            Measured { facts, first_iteration: live.first_iteration, last_iteration: ended.iteration };
        self.lines.write(&json!({
            "schema_version": 1, "request_id": facts.id.0.to_string(), "status": "complete",
            "phases": { "server": measured.perf_metrics(block_size) }, "streaming": live.streaming,
        }));
    }
}
