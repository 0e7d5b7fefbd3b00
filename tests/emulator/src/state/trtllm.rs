//! What trtllm-serve shows, and when it changes. From its source; never seen on the wire.
//!
//! Iterations go into a ring. Where requests are measured too, one loop alone empties the ring: it wakes when a request
//! ends, sets the gauges from what it finds (the newest iteration wins), and keeps the iterations for the JSON page.
//! Between two ends of requests the gauges stand still, and an idle engine keeps its last ones.

use std::collections::VecDeque;

use plimsoll_engine::{Micros, RequestFacts, Step};
use serde_json::{Value, json};

use crate::{
    config::{Config, Measures},
    histogram::Histogram,
    job::FinishReason,
    live::Live,
    state::{Latencies, vllm},
};

const PREFILL_BOUNDS: [f64; 18] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0,
    2560.0,
];
const CACHED_BOUNDS: [f64; 9] = [0.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
const BATCH_BOUNDS: [f64; 10] = [64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Trtllm {
    measures: Measures,
    block_size: u64,
    /// Iterations that nobody has taken yet.
    ring: VecDeque<Iteration>,
    /// Iterations that the loop took, for the JSON page.
    taken: VecDeque<Iteration>,
    /// The iteration that the gauges show.
    pub(crate) shown: Option<Iteration>,
    pub(crate) completed: u64,
    pub(crate) stop: u64,
    pub(crate) length: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) generation_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) histograms: Histograms,
    requests: VecDeque<Measured>,
}

/// One iteration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Iteration {
    pub(crate) number: u64,
    pub(crate) took: Micros,
    pub(crate) active: u32,
    pub(crate) queued: u32,
    pub(crate) completed: u64,
    pub(crate) context: u64,
    pub(crate) generating: u64,
    pub(crate) paused: u64,
    pub(crate) context_tokens: u64,
    pub(crate) blocks: u32,
    pub(crate) used_blocks: u32,
    pub(crate) allocated_blocks: u64,
    pub(crate) reused_blocks: u64,
    pub(crate) missed_blocks: u64,
}

/// One ended request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) facts: RequestFacts,
    pub(crate) first_iteration: u64,
    pub(crate) last_iteration: u64,
}

/// The histograms.
#[derive(Clone, Debug)]
pub(crate) struct Histograms {
    pub(crate) e2e: Histogram,
    pub(crate) ttft: Histogram,
    pub(crate) tpot: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) inference: Histogram,
    pub(crate) cached_tokens: Histogram,
    pub(crate) batch_tokens: Histogram,
}

impl Trtllm {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            measures: config.measures,
            block_size: config.engine.block_size.into(),
            ring: VecDeque::new(),
            taken: VecDeque::new(),
            shown: None,
            completed: 0,
            stop: 0,
            length: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
            cached_tokens: 0,
            histograms: Histograms::new(config),
            requests: VecDeque::new(),
        }
    }

    pub(crate) fn record_step(&mut self, step: &Step<'_>) {
        if !self.measures.iterations {
            return;
        }
        let (shape, totals) = (&step.stats.shape, step.totals);
        let generating = shape.decode_sequences;
        let iteration = Iteration {
            number: totals.iterations,
            took: step.ended_at.saturating_sub(step.started_at),
            active: step.load.running,
            queued: step.load.waiting,
            completed: step.finished.len() as u64,
            context: u64::from(step.stats.sequences).saturating_sub(generating),
            generating,
            paused: u64::from(step.stats.preempted),
            context_tokens: shape.prefill_tokens,
            blocks: step.load.kv_blocks_total,
            used_blocks: step.load.kv_blocks_used,
            allocated_blocks: totals.prefilled_tokens.saturating_add(totals.generated_tokens)
                / self.block_size,
            reused_blocks: totals.cache_hit_tokens / self.block_size,
            missed_blocks: totals.cache_query_tokens.saturating_sub(totals.cache_hit_tokens)
                / self.block_size,
        };
        push(&mut self.ring, iteration, self.measures.most_iterations);
    }

    pub(crate) fn record_finished(&mut self, facts: &RequestFacts, live: &Live, iteration: u64) {
        if !self.measures.requests {
            return;
        }
        if self.measures.iterations {
            self.take_iterations();
        }
        match live.reason {
            FinishReason::Stop => self.stop += 1,
            _ => self.length += 1,
        }
        self.prompt_tokens += u64::from(facts.prompt_tokens);
        self.generation_tokens += u64::from(facts.emitted_tokens);
        self.cached_tokens += u64::from(facts.cached_tokens);
        self.histograms.record(facts);
        let measured =
            Measured { facts: *facts, first_iteration: live.first_iteration, last_iteration: iteration };
        push(&mut self.requests, measured, self.measures.most_requests);
    }

    /// What the loop does when a request ends.
    fn take_iterations(&mut self) {
        for iteration in std::mem::take(&mut self.ring) {
            self.completed += iteration.completed;
            if iteration.context_tokens > 0 {
                self.histograms.batch_tokens.observe(iteration.context_tokens);
            }
            self.shown = Some(iteration);
            push(&mut self.taken, iteration, self.measures.most_iterations);
        }
    }

    /// What a reader of the JSON page takes away.
    pub(crate) fn drain_iterations(&mut self) -> VecDeque<Iteration> {
        let both = self.measures.requests && self.measures.iterations;
        std::mem::take(if both { &mut self.taken } else { &mut self.ring })
    }

    /// What a reader of `/perf_metrics` takes away.
    pub(crate) fn drain_requests(&mut self) -> VecDeque<Measured> {
        std::mem::take(&mut self.requests)
    }
}

impl Measured {
    /// As both `/perf_metrics` and the JSON lines have it; times are seconds of a clock that is not the wall's.
    pub(crate) fn perf_metrics(&self, block_size: u32) -> Value {
        let (facts, block) = (&self.facts, u64::from(block_size));
        let seconds = |at: Option<Micros>| at.map(Micros::as_secs_f64);
        let arrival = seconds(Some(facts.arrival));
        let tokens = u64::from(facts.prompt_tokens) + u64::from(facts.emitted_tokens);
        let (all, reused) = (tokens.div_ceil(block), u64::from(facts.cached_tokens) / block);
        json!({
            "first_iter": self.first_iteration, "last_iter": self.last_iteration,
            "timing_metrics": {
                "server_arrival_time": arrival, "arrival_time": arrival,
                "first_scheduled_time": seconds(facts.first_scheduled),
                "first_token_time": seconds(facts.first_token),
                "server_first_token_time": seconds(facts.first_token),
                "last_token_time": seconds(facts.last_token),
            },
            "kv_cache_metrics": {
                "num_total_allocated_blocks": all, "num_new_allocated_blocks": all.saturating_sub(reused),
                "num_reused_blocks": reused,
                "num_missed_blocks": u64::from(facts.prompt_tokens).div_ceil(block).saturating_sub(reused),
            },
        })
    }
}

/// The newest `most`.
fn push<T>(ring: &mut VecDeque<T>, item: T, most: usize) {
    if most == 0 {
        return;
    }
    while ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(item);
}

impl Histograms {
    fn new(config: &Config) -> Self {
        let buckets = &config.buckets;
        let request = buckets.request_latency.as_deref();
        let long = || Histogram::of_seconds(request.unwrap_or(&vllm::REQUEST_BOUNDS));
        let ttft = buckets.time_to_first_token.as_deref().unwrap_or(&vllm::TTFT_BOUNDS);
        let tpot = buckets.inter_token_latency.as_deref().unwrap_or(&vllm::ITL_BOUNDS);
        Self {
            e2e: long(),
            ttft: Histogram::of_seconds(ttft),
            tpot: Histogram::of_seconds(tpot),
            queue: long(),
            prefill: Histogram::of_seconds(request.unwrap_or(&PREFILL_BOUNDS)),
            decode: long(),
            inference: long(),
            cached_tokens: Histogram::of_counts(CACHED_BOUNDS.to_vec()),
            batch_tokens: Histogram::of_counts(BATCH_BOUNDS.to_vec()),
        }
    }

    /// Zeros are left out, but for the queue's: a count may be below the number of requests.
    fn record(&mut self, facts: &RequestFacts) {
        self.cached_tokens.observe(facts.cached_tokens.into());
        let Some(latencies) = Latencies::of(facts) else { return };
        self.queue.observe(latencies.queue);
        for (histogram, sample) in [
            (&mut self.e2e, latencies.e2e),
            (&mut self.ttft, latencies.ttft),
            (&mut self.tpot, latencies.tpot),
            (&mut self.prefill, latencies.prefill),
            (&mut self.decode, latencies.decode),
            (&mut self.inference, latencies.inference),
        ] {
            if sample > 0 {
                histogram.observe(sample);
            }
        }
    }
}
