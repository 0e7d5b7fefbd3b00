//! TensorRT-LLM's iteration statistics: the JSON that `trtllm-serve` answers at `/metrics`. Read in its source, not seen
//! on the wire.
//!
//! The page empties itself when it is read: every iteration is told once, to one reader. So it tells gains, not totals.

use std::collections::BTreeMap;

use plimsoll_common::engine::EngineKind;
use serde::Deserialize;

use super::{
    gauges::{EngineGauges, PageQuality},
    page::{Counter, EnginePage, PageError},
    quantity::ratio,
};
use crate::exposition::PageTooLarge;

/// One iteration, as far as it is read. Everything may be missing: fields came and went with the releases.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Iteration {
    iter: Option<u64>,
    num_active_requests: Option<u64>,
    num_queued_requests: Option<u64>,
    num_completed_requests: Option<u64>,
    kv_cache_stats: Option<KvCacheStats>,
    inflight_batching_stats: Option<InflightBatchingStats>,
    spec_decoding_stats: Option<SpecDecodingStats>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KvCacheStats {
    max_num_blocks: Option<u64>,
    used_num_blocks: Option<u64>,
    tokens_per_block: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct InflightBatchingStats {
    num_paused_requests: Option<u64>,
    num_gen_requests: Option<u64>,
    num_ctx_tokens: Option<u64>,
    avg_num_decoded_tokens_per_iter: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpecDecodingStats {
    num_draft_tokens: Option<u64>,
    num_accepted_tokens: Option<u64>,
}

/// What the iterations since the last read tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Iterations {
    /// How many there were.
    pub count: u64,
    /// How many more there must have been, by the gaps in their numbers: another reader took them, or they were thinned
    /// out or pushed out of the engine's ring.
    pub missing: u64,
    page: EnginePage,
}

/// Whether a page starts like an array.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Reads the statistics as an endpoint's only page.
pub(super) fn read_alone(bytes: &[u8], limit: usize) -> Result<EnginePage, PageError> {
    Ok(read_iterations(bytes, limit)?.page)
}

/// Reads the statistics. None at all may mean that no iteration ran, or that the engine does not keep any
/// (`enable_iter_perf_stats`).
///
/// # Errors
/// When the answer is longer than `limit` bytes, or no array of iterations.
pub fn read_iterations(bytes: &[u8], limit: usize) -> Result<Iterations, PageError> {
    if bytes.len() > limit {
        return Err(PageTooLarge { bytes: bytes.len(), limit }.into());
    }
    let told: Vec<Iteration> =
        serde_json::from_slice(bytes).map_err(|error| PageError::Iterations(error.to_string()))?;
    let mut read = Iterations { count: told.len() as u64, ..Iterations::default() };
    let mut gained: BTreeMap<Counter, u64> = BTreeMap::new();
    let mut gain = |counter, n: Option<u64>| {
        if let Some(n) = n {
            let sum = gained.entry(counter).or_insert(0);
            *sum = sum.saturating_add(n);
        }
    };
    let mut before: Option<u64> = None;
    for iteration in &told {
        if let (Some(before), Some(now)) = (before, iteration.iter) {
            read.missing += now.saturating_sub(before.saturating_add(1));
        }
        before = iteration.iter.or(before);
        gain(Counter::Ended, iteration.num_completed_requests);
        if let Some(batch) = &iteration.inflight_batching_stats {
            gain(Counter::LivePrefill, batch.num_ctx_tokens);
            gain(Counter::LiveDecoded, decoded(batch));
        }
        if let Some(spec) = &iteration.spec_decoding_stats {
            gain(Counter::DraftTokens, spec.num_draft_tokens);
            gain(Counter::AcceptedTokens, spec.num_accepted_tokens);
        }
    }
    let quality = PageQuality { missed_iterations: read.missing, ..PageQuality::default() };
    read.page = EnginePage {
        quality,
        kind: Some(EngineKind::TensorRtLlm),
        kv_capacity_tokens: told.last().and_then(capacity),
        gauges: told.last().map(gauges).unwrap_or_default(),
        // Iterations run only while requests do, so that none is no sign of a stuck engine by itself.
        pulse: before.map(|iter| iter as f64),
        gained,
        ..EnginePage::default()
    };
    Ok(read)
}

impl Iterations {
    /// Lays the statistics over the Prometheus page, whose gauges move only when a request ends. What the page counts
    /// itself is left alone, so that nothing is counted twice.
    pub fn lay_over(self, page: &mut EnginePage) {
        let Self { count, missing, page: mut told } = self;
        page.kv_capacity_tokens = page.kv_capacity_tokens.or(told.kv_capacity_tokens);
        page.quality.missed_iterations += missing;
        page.pulse = told.pulse.or(page.pulse);
        let counts_ended = page.counters.contains_key(&Counter::FinishedStop);
        // The iterations tell computed prompt tokens only; the page tells all of them, the cached ones included.
        let counts_prompts = page.counters.contains_key(&Counter::PromptTokens);
        told.gained.retain(|counter, _| match counter {
            Counter::Ended => !counts_ended,
            Counter::LivePrefill => !counts_prompts,
            _ => true,
        });
        page.gained.append(&mut told.gained);
        if count > 0 {
            let (now, shown) = (told.gauges, &mut page.gauges);
            shown.running = now.running.or(shown.running);
            shown.waiting = now.waiting.or(shown.waiting);
            shown.paused = now.paused.or(shown.paused);
            shown.kv_usage = now.kv_usage.or(shown.kv_usage);
            shown.kv_usage_max = now.kv_usage_max.or(shown.kv_usage_max);
        }
    }
}

/// Tokens generated: a mean a request and iteration, which is 1 without speculative decoding.
fn decoded(batch: &InflightBatchingStats) -> Option<u64> {
    let requests = batch.num_gen_requests?;
    let each = batch.avg_num_decoded_tokens_per_iter.filter(|each| each.is_finite() && *each > 0.0);
    Some((requests as f64 * each.unwrap_or(1.0)).round() as u64)
}

fn capacity(iteration: &Iteration) -> Option<u64> {
    let kv = iteration.kv_cache_stats.as_ref()?;
    kv.max_num_blocks?.checked_mul(kv.tokens_per_block?).filter(|tokens| *tokens > 0)
}

fn gauges(iteration: &Iteration) -> EngineGauges {
    let usage = iteration.kv_cache_stats.as_ref().and_then(|kv| {
        let max = kv.max_num_blocks.filter(|max| *max > 0)?;
        ratio(kv.used_num_blocks? as f64 / max as f64)
    });
    EngineGauges {
        running: iteration.num_active_requests,
        waiting: iteration.num_queued_requests,
        paused: iteration.inflight_batching_stats.as_ref().and_then(|batch| batch.num_paused_requests),
        kv_usage: usage,
        kv_usage_max: usage,
        ..EngineGauges::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"[
        {"iter": 7, "iterLatencyMS": 12.5, "numActiveRequests": 3, "numQueuedRequests": 9, "numCompletedRequests": 1,
         "kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": 40, "freeNumBlocks": 60, "tokensPerBlock": 32},
         "inflightBatchingStats": {"numContextRequests": 1, "numGenRequests": 2, "numCtxTokens": 128}},
        {"iter": 10, "numActiveRequests": 4, "numQueuedRequests": 8, "numCompletedRequests": 2, "future": [1],
         "kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": 50, "tokensPerBlock": 32},
         "inflightBatchingStats": {"numGenRequests": 4, "numPausedRequests": 1, "avgNumDecodedTokensPerIter": 2.5},
         "specDecodingStats": {"numDraftTokens": 12, "numAcceptedTokens": 6}}]"#;

    #[test]
    fn every_iteration_counts_and_the_last_one_shows() {
        let read = read_iterations(TWO.as_bytes(), 1 << 20).unwrap();
        assert_eq!((read.count, read.missing), (2, 2));
        let page = read.page;
        assert_eq!(
            (page.gauges.running, page.gauges.waiting, page.gauges.paused),
            (Some(4), Some(8), Some(1))
        );
        assert_eq!(page.gauges.kv_usage.map(|usage| usage.to_ppm()), Some(500_000));
        assert_eq!(page.kv_capacity_tokens, Some(3200));
        let gained = |counter| page.gained.get(&counter).copied();
        assert_eq!(gained(Counter::Ended), Some(3));
        assert_eq!((gained(Counter::LivePrefill), gained(Counter::LiveDecoded)), (Some(128), Some(12)));
        assert_eq!((gained(Counter::DraftTokens), gained(Counter::AcceptedTokens)), (Some(12), Some(6)));
    }

    #[test]
    fn what_the_page_counts_itself_is_left_alone() {
        let mut page = EnginePage::default();
        page.counters.insert(Counter::PromptTokens, BTreeMap::new());
        page.counters.insert(Counter::FinishedStop, BTreeMap::new());
        page.gauges.running = Some(99);
        read_iterations(TWO.as_bytes(), 1 << 20).unwrap().lay_over(&mut page);
        assert_eq!((page.gauges.running, page.quality.missed_iterations), (Some(4), 2));
        let told: Vec<_> = page.gained.keys().copied().collect();
        assert_eq!(told, [Counter::LiveDecoded, Counter::DraftTokens, Counter::AcceptedTokens]);
        // No iteration since the last read says nothing of the gauges.
        read_iterations(b"[]", 100).unwrap().lay_over(&mut page);
        assert_eq!(page.gauges.running, Some(4));
    }

    #[test]
    fn nothing_is_not_zero() {
        let read = read_iterations(b" []", 100).unwrap();
        assert_eq!((read.count, read.page.gauges), (0, EngineGauges::default()));
        assert!(read.page.gained.is_empty());
    }

    #[test]
    fn other_answers_are_refused() {
        for bad in ["", "[", "{}", "[1]", "null", "[{\"iter\": -1}]", "[{\"iter\": \"x\"}]"] {
            assert!(read_iterations(bad.as_bytes(), 100).is_err(), "{bad}");
        }
        assert!(matches!(read_iterations(TWO.as_bytes(), 10), Err(PageError::TooLarge(_))));
        let deep = "[".repeat(100_000);
        assert!(read_iterations(deep.as_bytes(), 1 << 20).is_err());
    }
}
