//! What pages show of the engine, and the laws by which it changes. One file an engine.

use plimsoll_engine::{Load, Micros, RequestFacts, Step, Totals};

use crate::{
    args::Kind,
    config::Config,
    job::FinishReason,
    live::{Live, Requests},
};

pub(crate) mod sglang;
pub(crate) mod trtllm;
pub(crate) mod vllm;

/// The engine as its page knows it. Copied whole for each scrape, so a page never shows half a step.
#[derive(Clone, Debug)]
pub(crate) struct EngineState {
    pub(crate) load: Load,
    pub(crate) totals: Totals,
    /// Prompt tokens of requests whose prefill is done, and those among them that came from the prefix cache.
    pub(crate) prompt_tokens: u64,
    pub(crate) prompt_tokens_cached: u64,
    pub(crate) finished_stop: u64,
    pub(crate) finished_length: u64,
    /// Requests refused because too many waited.
    pub(crate) rejected_queue_full: u64,
    /// 0 awake, 1 weights offloaded, 2 discarded.
    pub(crate) sleep: u8,
    pub(crate) shown: Shown,
}

/// What one kind of engine shows besides, and by its own laws.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Vllm(Box<vllm::Histograms>),
    Sglang(Box<sglang::Sglang>),
    Trtllm(Box<trtllm::Trtllm>),
}

/// The latencies of one finished request, nanoseconds: what the histograms take in and the request log writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latencies {
    pub(crate) ttft: u64,
    pub(crate) tpot: u64,
    pub(crate) e2e: u64,
    pub(crate) queue: u64,
    pub(crate) inference: u64,
    pub(crate) prefill: u64,
    pub(crate) decode: u64,
}

pub(crate) const fn nanos(span: Micros) -> u64 {
    span.0.saturating_mul(1_000)
}

impl Latencies {
    /// None for a request that was aborted before its first token.
    pub(crate) fn of(facts: &RequestFacts) -> Option<Self> {
        let decode = nanos(facts.decode_time()?);
        Some(Self {
            ttft: nanos(facts.ttft()?),
            // As vLLM counts: the first token belongs to the prefill, and an answer of one token has a zero here.
            tpot: decode.checked_div(u64::from(facts.emitted_tokens.saturating_sub(1))).unwrap_or(0),
            e2e: nanos(facts.e2e()),
            queue: nanos(facts.queue_time()?),
            inference: nanos(facts.inference_time()?),
            prefill: nanos(facts.prefill_time()?),
            decode,
        })
    }
}

impl EngineState {
    pub(crate) fn new(config: &Config) -> Self {
        let load = Load { kv_blocks_total: config.engine.kv_blocks, ..Load::default() };
        Self {
            load,
            totals: Totals::default(),
            prompt_tokens: 0,
            prompt_tokens_cached: 0,
            finished_stop: 0,
            finished_length: 0,
            rejected_queue_full: 0,
            sleep: 0,
            shown: match config.kind {
                Kind::Vllm => Shown::Vllm(Box::new(vllm::Histograms::new(config))),
                Kind::Sglang => Shown::Sglang(Box::new(sglang::Sglang::new(config))),
                Kind::Trtllm => Shown::Trtllm(Box::new(trtllm::Trtllm::new(config))),
            },
        }
    }

    /// A request entered the queue; for it the prefix cache forgot so many tokens and holds so many blocks now.
    pub(crate) fn record_submitted(&mut self, forgotten_tokens: u64, remembered_blocks: u64) {
        if let Shown::Sglang(sglang) = &mut self.shown {
            sglang.record_submitted(forgotten_tokens, remembered_blocks);
        }
    }

    /// What a step did, but for the requests that it finished. `live` is what is known at its end.
    pub(crate) fn record_step(&mut self, step: &Step<'_>, live: &mut Requests) {
        for token in step.tokens.iter().filter(|token| token.is_first()) {
            self.prompt_tokens += u64::from(token.prompt_tokens);
            self.prompt_tokens_cached += u64::from(token.cached_tokens);
        }
        self.load = step.load;
        self.totals = *step.totals;
        match &mut self.shown {
            Shown::Vllm(histograms) => histograms.record_step(step),
            Shown::Sglang(sglang) => sglang.record_step(step, live),
            Shown::Trtllm(trtllm) => trtllm.record_step(step),
        }
    }

    /// A request said all.
    pub(crate) fn record_finished(&mut self, facts: &RequestFacts, live: &mut Live) {
        if live.probe {
            return;
        }
        match live.reason {
            FinishReason::Stop => self.finished_stop += 1,
            FinishReason::Length => self.finished_length += 1,
            FinishReason::Abort => return,
        }
        match &mut self.shown {
            Shown::Vllm(histograms) => histograms.record_finished(facts, live),
            Shown::Sglang(sglang) => sglang.record_finished(facts, live),
            Shown::Trtllm(trtllm) => trtllm.record_finished(facts, live, self.totals.iterations),
        }
    }

    /// A request's client left, or it was dropped.
    pub(crate) fn record_aborted(&mut self, live: &Live) {
        if let (Shown::Sglang(sglang), false) = (&mut self.shown, live.probe) {
            sglang.aborted += 1;
        }
    }

    /// The engine has nothing to do at `now`. Called again and again while that is so.
    pub(crate) fn idle(&mut self, now: Micros) {
        if let Shown::Sglang(sglang) = &mut self.shown {
            sglang.idle(now);
        }
    }

    /// The engine is at work again, from `now` on.
    pub(crate) fn busy(&mut self, now: Micros) {
        if let Shown::Sglang(sglang) = &mut self.shown {
            sglang.busy(now);
        }
    }
}
