//! What vLLM's page shows besides load and totals, and when it changes.

use plimsoll_engine::{RequestFacts, Step, Token};

use crate::{
    config::Config,
    histogram::Histogram,
    live::Live,
    state::{Latencies, nanos},
};

pub(super) const TTFT_BOUNDS: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
pub(super) const ITL_BOUNDS: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
pub(super) const REQUEST_BOUNDS: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const BLOCK_BOUNDS: [f64; 21] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
    300.0, 600.0, 1200.0, 1800.0,
];
const ITERATION_BOUNDS: [f64; 13] =
    [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
const PREEMPTION_BOUNDS: [f64; 7] = [1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];

/// The histograms, in the page's order.
#[derive(Clone, Debug)]
pub(crate) struct Histograms {
    pub(crate) request_prompt_tokens: Histogram,
    pub(crate) request_generation_tokens: Histogram,
    pub(crate) iteration_tokens: Histogram,
    pub(crate) request_max_num_generation_tokens: Histogram,
    pub(crate) request_params_n: Histogram,
    pub(crate) request_params_max_tokens: Histogram,
    pub(crate) ttft: Histogram,
    pub(crate) itl: Histogram,
    pub(crate) tpot: Histogram,
    pub(crate) e2e: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) inference: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) num_preemptions: Histogram,
    pub(crate) prefill_kv_computed_tokens: Histogram,
    /// The block histograms need per-block tracking, which the model does not do: always empty.
    pub(crate) kv_blocks: Histogram,
}

impl Histograms {
    /// The tokens of a step. Live: this happens as the tokens go out.
    pub(crate) fn record_step(&mut self, step: &Step<'_>) {
        let computed: u64 = step.tokens.iter().map(|token| self.record_token(token)).sum();
        if !step.tokens.is_empty() {
            self.iteration_tokens.observe(computed);
        }
    }

    /// Returns the token, and with the first one the prompt tokens that were computed for it.
    fn record_token(&mut self, token: &Token) -> u64 {
        if !token.is_first() {
            self.itl.observe(nanos(token.latency));
            return 1;
        }
        self.ttft.observe(nanos(token.latency));
        u64::from(token.prompt_tokens) - u64::from(token.cached_tokens) + 1
    }

    /// A request said all: only now do its queue, prefill, decode and e2e times become visible, as in vLLM.
    pub(crate) fn record_finished(&mut self, facts: &RequestFacts, live: &Live) {
        self.request_prompt_tokens.observe(facts.prompt_tokens.into());
        self.request_generation_tokens.observe(facts.emitted_tokens.into());
        self.request_max_num_generation_tokens.observe(facts.emitted_tokens.into());
        self.request_params_n.observe(1);
        self.request_params_max_tokens.observe(live.max_tokens.into());
        self.num_preemptions.observe(facts.preemptions.into());
        self.prefill_kv_computed_tokens.observe((facts.prompt_tokens - facts.cached_tokens).into());
        if let Some(latencies) = Latencies::of(facts) {
            self.tpot.observe(latencies.tpot);
            self.e2e.observe(latencies.e2e);
            self.queue.observe(latencies.queue);
            self.inference.observe(latencies.inference);
            self.prefill.observe(latencies.prefill);
            self.decode.observe(latencies.decode);
        }
    }

    pub(crate) fn new(config: &Config) -> Self {
        let buckets = &config.buckets;
        // Up to 0.7 they ended at 10 s and at 2.5 s.
        let (ttft, itl): (&[f64], &[f64]) = if config.version.at_least(0, 8, 0) {
            (&TTFT_BOUNDS, &ITL_BOUNDS)
        } else {
            (&TTFT_BOUNDS[..16], &ITL_BOUNDS[..13])
        };
        let ttft = buckets.time_to_first_token.as_deref().unwrap_or(ttft);
        let itl = buckets.inter_token_latency.as_deref().unwrap_or(itl);
        let request = buckets.request_latency.as_deref().unwrap_or(&REQUEST_BOUNDS);
        let tokens = || Histogram::of_counts(one_two_five(config.engine.max_model_len));
        Self {
            request_prompt_tokens: tokens(),
            request_generation_tokens: tokens(),
            iteration_tokens: Histogram::of_counts(ITERATION_BOUNDS.to_vec()),
            request_max_num_generation_tokens: tokens(),
            request_params_n: Histogram::of_counts(vec![1.0, 2.0, 5.0, 10.0, 20.0]),
            request_params_max_tokens: tokens(),
            ttft: Histogram::of_seconds(ttft),
            itl: Histogram::of_seconds(itl),
            tpot: Histogram::of_seconds(itl),
            e2e: Histogram::of_seconds(request),
            queue: Histogram::of_seconds(request),
            inference: Histogram::of_seconds(request),
            prefill: Histogram::of_seconds(request),
            decode: Histogram::of_seconds(request),
            num_preemptions: Histogram::of_counts(PREEMPTION_BOUNDS.to_vec()),
            prefill_kv_computed_tokens: tokens(),
            kv_blocks: Histogram::of_seconds(&BLOCK_BOUNDS),
        }
    }
}

/// 1, 2, 5, 10, 20, … up to the longest request.
fn one_two_five(most: u32) -> Vec<f64> {
    let mut bounds = Vec::new();
    let mut decade = 1_u64;
    while decade <= u64::from(most) {
        let within =
            [1, 2, 5].map(|step| step * decade).into_iter().filter(|bound| *bound <= u64::from(most));
        bounds.extend(within.map(|bound| bound as f64));
        decade *= 10;
    }
    bounds
}
