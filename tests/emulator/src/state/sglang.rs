//! What SGLang's page and `/v1/loads` show, and when it changes.
//!
//! Two processes publish. The scheduler counts tokens and queue times as they happen, and sets its gauges only at each
//! prefill batch, at every 40th decode step, and every 30 s while it is idle. The front process sees a request's tokens
//! as they are delivered: one by one where the client streams, otherwise 50 at a time; it counts prompts and answers
//! when they end.

use plimsoll_engine::{Micros, RequestFacts, Step};

use crate::{
    config::Config,
    live::{Heard, Live, Requests},
    state::nanos,
};

mod gauges;
mod histograms;

pub(crate) use gauges::{Gauges, Loads};
pub(crate) use histograms::{Answers, Histograms};

/// Decode steps between two settings of the gauges (`decode_log_interval`).
pub(crate) const DECODE_LOG_INTERVAL: u32 = 40;

/// Decode steps between two publications for `/v1/loads` (`load_snapshot_publish_interval`).
pub(crate) const PUBLISH_INTERVAL: u32 = 15;

/// Tokens that an answer which nobody streams must gather before the front process hears of them.
const DELIVERY: u32 = 50;

/// Idle time between two settings of the gauges.
const IDLE_INTERVAL: Micros = Micros(30_000_000);

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Sglang {
    pub(crate) histograms: Histograms,
    /// What ended, and what was delivered of it: not streamed, streamed.
    pub(crate) answers: [Answers; 2],
    /// Prompt tokens of ended requests that came from the cache.
    pub(crate) cached_tokens: u64,
    pub(crate) aborted: u64,
    pub(crate) retracted: u64,
    pub(crate) evicted_tokens: u64,
    pub(crate) prefill_compute: u64,
    pub(crate) prefill_cache: u64,
    pub(crate) decode: u64,
    pub(crate) prefill_passes: u64,
    pub(crate) decode_passes: u64,
    pub(crate) prefill_busy: Micros,
    /// Over decode steps: their number, Σ batch, Σ µs, Σ batch², Σ batch · µs, Σ tokens.
    pub(crate) decode_moments: [f64; 6],
    pub(crate) gauges: Gauges,
    pub(crate) loads: Loads,
    /// Idle time that is over.
    idle_before: Micros,
    idle_since: Option<Micros>,
    idle_set_at: Option<Micros>,
    block_size: u64,
}

impl Sglang {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            histograms: Histograms::new(config),
            answers: [Answers::new(config), Answers::new(config)],
            cached_tokens: 0,
            aborted: 0,
            retracted: 0,
            evicted_tokens: 0,
            prefill_compute: 0,
            prefill_cache: 0,
            decode: 0,
            prefill_passes: 0,
            decode_passes: 0,
            prefill_busy: Micros::ZERO,
            decode_moments: [0.0; 6],
            gauges: Gauges::new(config),
            loads: Loads::default(),
            idle_before: Micros::ZERO,
            idle_since: Some(Micros::ZERO),
            idle_set_at: None,
            block_size: config.engine.block_size.into(),
        }
    }

    /// Time without work up to `now`.
    pub(crate) fn idle_time(&self, now: Micros) -> Micros {
        self.idle_before
            .saturating_add(self.idle_since.map_or(Micros::ZERO, |since| now.saturating_sub(since)))
    }

    pub(crate) fn record_submitted(&mut self, evicted_tokens: u64, remembered_blocks: u64) {
        self.gauges.remembered_tokens = remembered_blocks * self.block_size;
        self.histograms.request_process.observe(0);
        if evicted_tokens > 0 {
            self.evicted_tokens += evicted_tokens;
            self.histograms.eviction.observe(0);
        }
    }

    pub(crate) fn record_step(&mut self, step: &Step<'_>, live: &mut Requests) {
        self.retracted += step.preempted.len() as u64;
        let mut hits = 0;
        for admission in step.admitted {
            self.histograms.queue.observe(nanos(admission.queue_time));
            hits += u64::from(admission.cached_tokens);
        }
        let (mut decoded, mut context) = (0, 0);
        for token in step.tokens {
            if !token.is_first() {
                decoded += 1;
                context += u64::from(token.prompt_tokens) + u64::from(token.index);
            }
            if let Some(live) = live.get_mut(&token.id) {
                self.record_token(live, token.is_first());
            }
        }
        self.decode += decoded;
        let took = step.ended_at.saturating_sub(step.started_at);
        let used = u64::from(step.load.kv_blocks_used) * self.block_size;
        let computed = step.stats.shape.prefill_tokens;
        if computed > 0 {
            self.prefill_compute += computed;
            self.prefill_cache += hits;
            self.prefill_passes += 1;
            self.prefill_busy = self.prefill_busy.saturating_add(took);
            self.gauges.prefill_batch(step, used, decoded, computed, hits);
        } else {
            self.decode_passes += 1;
            self.add_moments(decoded, took);
            self.gauges.decode_step(step, used, decoded, context);
        }
        if self.loads.is_due(computed > 0) {
            let waiting = live.values().filter(|live| !live.admitted);
            let waiting_tokens = waiting.map(|live| u64::from(live.prompt_tokens)).sum();
            // In a prefill batch nothing counts as running but what decodes already.
            let running = if computed > 0 { decoded } else { u64::from(step.load.running) };
            let waiting = (u64::from(step.load.waiting), waiting_tokens);
            self.loads.publish(step.ended_at, running, waiting, used, &self.gauges);
        }
    }

    fn add_moments(&mut self, decoded: u64, took: Micros) {
        let (batch, micros) = (decoded as f64, took.0 as f64);
        let terms = [1.0, batch, micros, batch * batch, batch * micros, batch];
        for (moment, term) in self.decode_moments.iter_mut().zip(terms) {
            *moment += term;
        }
    }

    /// A token left the scheduler; perhaps it, and those kept back before it, are delivered now.
    fn record_token(&mut self, live: &mut Live, first: bool) {
        if first {
            self.histograms.prefill_forward.observe(nanos(live.elapsed.saturating_sub(live.queue_time)));
        }
        if live.probe {
            return;
        }
        live.heard.kept += 1;
        if live.streaming || live.heard.kept == DELIVERY {
            self.deliver(live);
        }
    }

    fn deliver(&mut self, live: &mut Live) {
        let Heard { tokens, first, latest, kept } = live.heard;
        if kept == 0 {
            return;
        }
        let now = live.elapsed;
        if tokens == 0 {
            self.answers[usize::from(live.streaming)].ttft.observe(nanos(now));
        } else {
            self.histograms.itl.observe_spread(nanos(now.saturating_sub(latest)), kept.into());
        }
        let first = if tokens == 0 { now } else { first };
        live.heard = Heard { tokens: tokens + kept, first, latest: now, kept: 0 };
    }

    pub(crate) fn record_finished(&mut self, facts: &RequestFacts, live: &mut Live) {
        self.deliver(live);
        self.cached_tokens += u64::from(facts.cached_tokens);
        self.histograms.prompt_tokens.observe(facts.prompt_tokens.into());
        self.histograms.uncached_prompt_tokens.observe((facts.prompt_tokens - facts.cached_tokens).into());
        self.histograms.generation_tokens.observe(facts.emitted_tokens.into());
        let answers = &mut self.answers[usize::from(live.streaming)];
        answers.requests += 1;
        answers.prompt_tokens += u64::from(facts.prompt_tokens);
        answers.generation_tokens += u64::from(facts.emitted_tokens);
        answers.e2e.observe(nanos(facts.e2e()));
        // From the first delivery on: for an answer that nobody streams that is its 50th token or its end.
        let decode = nanos(live.elapsed.saturating_sub(live.heard.first));
        if let Some(tpot) = decode.checked_div(u64::from(facts.emitted_tokens.saturating_sub(1))) {
            answers.tpot.observe(tpot);
        }
    }

    /// The scheduler publishes for `/v1/loads` all the time while it idles, but sets its gauges only every 30 s: after a
    /// burst that follows another closely they tell of the last prefill or 40th decode step for a while.
    pub(crate) fn idle(&mut self, now: Micros) {
        self.idle_since.get_or_insert(now);
        if self.idle_set_at.is_none_or(|at| now.saturating_sub(at) >= IDLE_INTERVAL) {
            self.gauges.set_idle(now);
            self.idle_set_at = Some(now);
        }
        self.loads.publish_idle(now, &self.gauges);
    }

    pub(crate) fn busy(&mut self, now: Micros) {
        if let Some(since) = self.idle_since.take() {
            self.idle_before = self.idle_before.saturating_add(now.saturating_sub(since));
        }
    }
}
