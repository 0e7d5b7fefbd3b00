//! How engines keep to their profile: what the calibration learns from.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::{EngineConfig, StepShape};

use super::Pool;
use crate::{
    observe::{Engine, Observation},
    perf::{Decoding, Mix, Prefilling},
};

/// A prompt tells as much of an engine's pace as so many tokens that it decodes.
const PROMPT: f64 = 8.0;

/// Halvings of a range of lengths: to within a hundredth of 16 million.
const BISECTIONS: u32 = 12;

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

/// The tokens of one prompt that such engines, slower than their profile by `factor`, compute in the mean time to first token
/// told, nothing else being computed: of a mean prompt no more were. None where no such time is told.
pub(super) fn most_computed(config: &EngineConfig, factor: f64, seen: &Observation) -> Option<f64> {
    let took = seen.ttft().mean_s().filter(|took| *took > 0.0)? / factor;
    let budget = f64::from(config.max_num_batched_tokens.max(1));
    let takes = |tokens: f64| {
        let chunks = (tokens / budget).ceil().max(1.0);
        let each = tokens / chunks;
        let shape = StepShape {
            prefill_tokens: each as u64,
            prefill_attention: each * tokens / 2.0,
            ..StepShape::default()
        };
        config.timing.duration(&shape).as_secs_f64() * chunks
    };
    let (mut less, mut more) = (1.0_f64, f64::from(config.max_model_len.max(2)));
    for _ in 0..BISECTIONS {
        let tokens = (less * more).sqrt();
        if takes(tokens) <= took { less = tokens } else { more = tokens }
    }
    Some(less)
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
