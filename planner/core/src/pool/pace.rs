//! How engines keep to their profile: what the calibration learns from.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::EngineConfig;

use super::Pool;
use crate::{
    observe::{Engine, Observation},
    perf::{Decoding, Mix, Prefilling},
};

/// A prompt tells as much of an engine's pace as so many tokens that it decodes.
const PROMPT: f64 = 8.0;

impl Pool {
    /// Learns how fast its engines are.
    pub(super) fn calibrate(&mut self, seen: &Observation, mix: &Mix) {
        let Some(config) = &self.spec.engine else { return };
        // What is spread over many engines comes more evenly to each of them.
        let engines = f64::from(seen.replicas.ready.max(1)) * self.engines_per_replica();
        let scatter = self.demand.dispersion() / engines;
        let (mut took, mut expected, mut all) = (0.0, 0.0, 0.0);
        for (id, engine) in &seen.engines {
            let pace = match self.spec.role {
                Role::Prefill => prefilling(engine, config, mix),
                role => decoding(engine, config, mix, seen.window, role, scatter),
            };
            if let Some(Pace { ratio, seconds, samples }) = pace.filter(|pace| pace.ratio > 0.0) {
                (took, expected, all) = (took + seconds, expected + seconds / ratio, all + samples);
                match self.engines.get_mut(id) {
                    Some(known) => known.observe(ratio, samples),
                    None => self.engines.entry(id.clone()).or_default().observe(ratio, samples),
                }
            }
        }
        // What all did together tells more than the mean of what each did.
        self.calibration.observe(took / expected, all);
    }
}

/// How an engine kept to its profile in a window.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Observed over expected time.
    ratio: f64,
    /// The observed time, s.
    seconds: f64,
    /// From how much, in tokens.
    samples: f64,
}

fn prefilling(engine: &Engine, config: &EngineConfig, mix: &Mix) -> Option<Pace> {
    let prompts = engine.ttft.count as f64;
    let queried = count(engine.gained.prefix_query_tokens);
    let hit = if queried > 0.0 { count(engine.gained.prefix_hit_tokens) / queried } else { mix.hit };
    let doing = Prefilling {
        prompts,
        prefill_sum: engine.ttft.sum.saturating_sub(engine.queue_time.sum).as_secs_f64(),
        prefilled: count(engine.gained.prefilled_tokens),
        hit,
        skew: mix.isl.seen_by_a_token() / mix.isl.mean,
        budget: f64::from(config.max_num_batched_tokens),
        iterations: engine.gained.iterations.map(|n| n as f64),
    };
    // The first scheduling of some and the first token of others: the sums only fit where many were served.
    let fits = engine.queue_time.count.abs_diff(engine.ttft.count) * 10 <= engine.ttft.count;
    let ratio = doing.ratio(&config.timing).filter(|_| fits)?;
    Some(Pace { ratio, seconds: doing.prefill_sum, samples: prompts * PROMPT })
}

fn decoding(
    engine: &Engine,
    config: &EngineConfig,
    mix: &Mix,
    window: Micros,
    role: Role,
    scatter: f64,
) -> Option<Pace> {
    let tokens = engine.itl.count as f64;
    // Where it is not told, as much was prefilled and is held as such requests need: nothing at all would make every
    // iteration look too long.
    let usual = if role == Role::Decode { 0.0 } else { tokens / mix.osl.mean * mix.to_compute() };
    // The two gauges are of one moment.
    let held = |share: f64| {
        let running = engine.running.filter(|running| *running > 0)? as f64;
        Some((share * config.kv_tokens() as f64 / running).min(f64::from(config.max_model_len)))
    };
    let doing = Decoding {
        window,
        tokens,
        itl_sum: engine.itl.sum.as_secs_f64(),
        prefilled: engine.gained.prefilled_tokens.map_or(usual, |tokens| tokens as f64),
        prompt: mix.to_compute(),
        attended: mix.attended(),
        budget: f64::from(config.max_num_batched_tokens),
        context: engine.kv_utilization.and_then(held).unwrap_or_else(|| mix.context()),
        most: f64::from(config.max_num_seqs),
        iterations: engine.gained.iterations.map(|n| n as f64),
        tokens_per_step: mix.tokens_per_step,
        scatter,
    };
    let ratio = doing.ratio(&config.timing)?;
    Some(Pace { ratio, seconds: doing.itl_sum, samples: tokens / 5.0 })
}

fn count(value: Option<u64>) -> f64 {
    value.unwrap_or(0) as f64
}
