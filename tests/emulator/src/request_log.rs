//! The exact record of every request that ended.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use plimsoll_engine::{Micros, RequestFacts};
use serde::Serialize;

use crate::{
    clock::Clock,
    histogram::seconds,
    job::FinishReason,
    state::{Latencies, nanos},
};

/// One line of the request log. Times are seconds; a time that does not exist is null.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: &'a str,
    model: &'a str,
    /// Arrival, seconds since 1970.
    arrival_unix_s: f64,
    /// Arrival, seconds since the emulator began.
    arrival_s: f64,
    prompt_tokens: u32,
    cached_tokens: u32,
    output_tokens: u32,
    max_tokens: u32,
    ttft_s: Option<f64>,
    queue_s: Option<f64>,
    prefill_s: Option<f64>,
    decode_s: Option<f64>,
    inference_s: Option<f64>,
    e2e_s: f64,
    tpot_s: Option<f64>,
    /// Every ITL sample, in order.
    itl_s: Vec<f64>,
    preemptions: u32,
    finish_reason: FinishReason,
}

/// Appends a line for each request, complete in the file before the client hears of its end.
#[derive(Debug)]
pub(crate) struct RequestLog {
    file: File,
    line: Vec<u8>,
    lost: u64,
}

impl RequestLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, line: Vec::new(), lost: 0 })
    }

    /// Writes one line in one call; a line that cannot be written is counted and the log goes on.
    pub(crate) fn write(&mut self, clock: &Clock, model: &str, ended: &Ended<'_>) {
        let facts = ended.facts;
        let latencies = Latencies::of(facts);
        let line = Line {
            id: ended.name,
            model,
            arrival_unix_s: clock.unix_seconds(facts.arrival),
            arrival_s: facts.arrival.as_secs_f64(),
            prompt_tokens: facts.prompt_tokens,
            cached_tokens: facts.cached_tokens,
            output_tokens: facts.emitted_tokens,
            max_tokens: ended.max_tokens,
            ttft_s: latencies.map(|l| seconds(l.ttft)),
            queue_s: facts.queue_time().map(|span| seconds(nanos(span))),
            prefill_s: latencies.map(|l| seconds(l.prefill)),
            decode_s: latencies.map(|l| seconds(l.decode)),
            inference_s: latencies.map(|l| seconds(l.inference)),
            e2e_s: seconds(nanos(facts.e2e())),
            tpot_s: latencies.map(|l| seconds(l.tpot)),
            itl_s: ended.itl.iter().map(|span| seconds(nanos(*span))).collect(),
            preemptions: facts.preemptions,
            finish_reason: ended.reason,
        };
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, &line).map_err(io::Error::from).and_then(|()| {
            self.line.push(b'\n');
            self.file.write_all(&self.line)
        });
        if let Err(error) = written {
            self.lost += 1;
            if self.lost.is_power_of_two() {
                tracing::warn!(%error, lost = self.lost, "a line of the request log was lost");
            }
        }
    }
}

/// A request that ended, and what the driver kept of it.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) name: &'a str,
    pub(crate) facts: &'a RequestFacts,
    pub(crate) max_tokens: u32,
    pub(crate) itl: &'a [Micros],
    pub(crate) reason: FinishReason,
}
