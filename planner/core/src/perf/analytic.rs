//! What an engine takes in the long run, without any waiting: one formula, exact for means only.
//!
//! It starts the search for the capacity under an SLO, carries a capacity found for one mix over to a mix nearby, and
//! stands in for it until the search was run.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::{EngineConfig, StepShape};

use super::mix::Mix;
use crate::score::Slo;

/// Halvings of the range in which the batch is searched.
const HALVINGS: u32 = 16;

/// The seconds that an iteration takes; `attended` is the mean context that a prompt token attends to.
fn step(engine: &EngineConfig, prefill: f64, attended: f64, decodes: f64, context: f64) -> f64 {
    let shape = StepShape {
        prefill_tokens: prefill.round() as u64,
        prefill_attention: prefill * attended,
        decode_sequences: decodes.round() as u64,
        decode_context: (decodes * context).round() as u64,
    };
    engine.timing.duration(&shape).as_secs_f64()
}

/// The seconds in which an empty engine computes a mean prompt, chunk by chunk.
fn prefill_s(engine: &EngineConfig, mix: &Mix) -> f64 {
    let tokens = mix.to_compute();
    let chunks = (tokens / f64::from(engine.max_num_batched_tokens.max(1))).ceil().max(1.0);
    chunks * step(engine, tokens / chunks, mix.attended(), 0.0, 0.0)
}

/// Requests a second that one engine of a role takes in the long run, its latencies within the SLO on the mean.
pub(super) fn rps(role: Role, engine: &EngineConfig, mix: &Mix, slo: &Slo) -> f64 {
    match role {
        Role::Prefill => 1.0 / prefill_s(engine, mix).max(1e-9),
        Role::Decode => best(engine, mix, slo, false),
        _ => best(engine, mix, slo, true),
    }
}

/// The greatest batch whose iterations are short enough; where none is, the best of all. The batch is searched as a real
/// number: what is carried over by the answer must not jump with it.
fn best(engine: &EngineConfig, mix: &Mix, slo: &Slo, prefills: bool) -> f64 {
    let limit = slo.itl.map_or(f64::INFINITY, Micros::as_secs_f64) * mix.tokens_per_step.max(1.0);
    let context = mix.context();
    let by_kv = (engine.kv_tokens() as f64 / context.max(1.0)).max(1.0);
    let most = by_kv.min(f64::from(engine.max_num_seqs));
    let seconds = |batch: f64| {
        let prefill = if prefills { batch * mix.to_compute() / mix.decode_steps() } else { 0.0 };
        step(engine, prefill, mix.attended(), batch, context).max(1e-9)
    };
    let rps = |batch: f64| batch / (mix.decode_steps() * seconds(batch));
    if seconds(most) <= limit || seconds(1.0) > limit {
        return rps(most);
    }
    let (mut low, mut high) = (1.0, most);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if seconds(middle) <= limit { low = middle } else { high = middle }
    }
    rps(low)
}
