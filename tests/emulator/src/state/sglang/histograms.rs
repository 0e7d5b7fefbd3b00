//! Histograms of both processes.

use crate::{config::Config, histogram::Histogram};

const TTFT_BOUNDS: [f64; 18] =
    [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0];
const ITL_BOUNDS: [f64; 23] = [
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6,
    0.8, 1.0, 2.0, 4.0, 6.0, 8.0,
];
const E2E_BOUNDS: [f64; 22] = [
    0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0,
    600.0, 1200.0, 1800.0, 2400.0,
];
const QUEUE_BOUNDS: [f64; 40] = [
    0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
    50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0,
    1200.0, 1400.0, 1600.0, 1800.0, 2000.0, 2500.0, 3000.0,
];
const EVICTION_BOUNDS: [f64; 18] = [
    0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2,
    0.5, 1.0,
];
const TOKEN_BOUNDS: [f64; 35] = [
    100.0, 300.0, 500.0, 700.0, 1e3, 1.5e3, 2e3, 3e3, 4e3, 5e3, 6e3, 7e3, 8e3, 9e3, 1e4, 1.25e4, 1.5e4,
    1.75e4, 2e4, 2.25e4, 2.5e4, 2.75e4, 3e4, 3.5e4, 4e4, 6e4, 8e4, 1e5, 2e5, 3e5, 4e5, 6e5, 8e5, 1e6, 1.1e6,
];

/// Those that do not tell streamed answers from others.
#[derive(Clone, Debug)]
pub(crate) struct Histograms {
    pub(crate) request_process: Histogram,
    pub(crate) prefill_forward: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) eviction: Histogram,
    pub(crate) itl: Histogram,
    pub(crate) prompt_tokens: Histogram,
    pub(crate) uncached_prompt_tokens: Histogram,
    pub(crate) generation_tokens: Histogram,
}

/// Answers that were streamed, or those that were not.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) requests: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) generation_tokens: u64,
    pub(crate) ttft: Histogram,
    pub(crate) e2e: Histogram,
    pub(crate) tpot: Histogram,
}

impl Histograms {
    pub(crate) fn new(config: &Config) -> Self {
        let itl = config.buckets.inter_token_latency.as_deref().unwrap_or(&ITL_BOUNDS);
        let stage = stage_bounds();
        let tokens = || Histogram::of_counts(TOKEN_BOUNDS.to_vec());
        Self {
            request_process: Histogram::of_seconds(&stage),
            prefill_forward: Histogram::of_seconds(&stage),
            // Those below 100 ms came with 0.5.12.
            queue: Histogram::of_seconds(if config.version.at_least(0, 5, 12) {
                &QUEUE_BOUNDS
            } else {
                &QUEUE_BOUNDS[5..]
            }),
            eviction: Histogram::of_seconds(&EVICTION_BOUNDS),
            itl: Histogram::of_seconds(itl),
            prompt_tokens: tokens(),
            uncached_prompt_tokens: tokens(),
            generation_tokens: tokens(),
        }
    }
}

impl Answers {
    pub(crate) fn new(config: &Config) -> Self {
        let buckets = &config.buckets;
        Self {
            requests: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
            ttft: Histogram::of_seconds(buckets.time_to_first_token.as_deref().unwrap_or(&TTFT_BOUNDS)),
            e2e: Histogram::of_seconds(buckets.request_latency.as_deref().unwrap_or(&E2E_BOUNDS)),
            tpot: Histogram::of_seconds(buckets.inter_token_latency.as_deref().unwrap_or(&ITL_BOUNDS)),
        }
    }
}

/// 1 ms and on by factors of 1.62, multiplied as the real engine does, which decides the last digit.
fn stage_bounds() -> Vec<f64> {
    (0..30).map(|power| 0.001 * 1.62_f64.powf(f64::from(power))).collect()
}
