//! What a page tells of now, and how well it could be read.

use plimsoll_common::{engine::SleepState, units::Ratio};

use crate::exposition::LineError;

/// An engine's gauges, over all data-parallel engines of the page. `None`: the page does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineGauges {
    /// Requests in the running batches.
    pub running: Option<u64>,
    /// Requests that wait, for whichever reason.
    pub waiting: Option<u64>,
    /// Of these, those that wait for room in the batch or in the KV cache: more replicas would serve them.
    pub waiting_capacity: Option<u64>,
    /// Of these, those that wait for something else: a KV cache on its way, a grammar being compiled.
    pub waiting_deferred: Option<u64>,
    /// Requests that were taken out of the batch and hold their place, as long as the engine is paused.
    pub paused: Option<u64>,
    /// KV-cache utilization, the engines weighted by their capacity.
    pub kv_usage: Option<Ratio>,
    /// KV-cache utilization of the fullest engine of the page.
    pub kv_usage_max: Option<Ratio>,
    /// Utilization of the tier below the KV cache (host memory), the engines weighted alike.
    pub kv_offload_usage: Option<Ratio>,
    /// Share of the prompt tokens found in the prefix cache, as the engine averages it, where it does not count them.
    pub prefix_hit_ratio: Option<Ratio>,
    /// Share of the drafted tokens that were accepted, as the engine averages it, where it does not count them.
    pub spec_acceptance: Option<Ratio>,
    /// Whether it sleeps; of several engines the one that sleeps deepest.
    pub sleep: Option<SleepState>,
    /// Requests within a front-end, from their arrival to their end.
    pub frontend_inflight: Option<u64>,
    /// Requests within a front-end that have no first token yet.
    pub frontend_queued: Option<u64>,
    /// When the engine's scheduler wrote the newest of these values, seconds since the Unix epoch on its own clock. Only
    /// SGLang tells; a scheduler that hangs no longer moves it. Of several, the oldest.
    pub snapshot_time: Option<f64>,
}

/// How well a page could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PageQuality {
    /// Malformed lines, skipped; entries of TensorRT-LLM's `/perf_metrics` among them.
    pub malformed_lines: u64,
    /// The first of them that is a line.
    pub first_malformed: Option<LineError>,
    /// Well-formed samples that were left out because a limit was reached.
    pub dropped_samples: u64,
    /// Histogram series whose buckets, count and sum contradict each other. Their gain is not lost: it comes with the
    /// next page on which they agree.
    pub torn_series: u64,
    /// Iterations that TensorRT-LLM's statistics lack, by the gaps in their numbers.
    pub missed_iterations: u64,
}

impl PageQuality {
    /// Whether the page may have more series than were read.
    #[must_use]
    pub const fn is_incomplete(&self) -> bool {
        self.malformed_lines > 0 || self.dropped_samples > 0
    }
}
