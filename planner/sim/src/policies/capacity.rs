//! What an engine can take by the prior, without any waiting: the capacity model of Dynamo's planner.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_core::score::Slo;
use plimsoll_engine::{EngineConfig, StepShape};

/// The greatest batch that is looked at.
const MOST_BATCHES: u32 = 128;

/// Mean lengths, as the planner knows them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lengths {
    pub(super) isl: f64,
    pub(super) osl: f64,
    /// Share of prompt tokens found in the prefix cache.
    pub(super) hit: f64,
}

impl Lengths {
    /// Prompt tokens to compute of one request.
    pub(super) fn to_compute(self) -> f64 {
        self.isl * (1.0 - self.hit.clamp(0.0, 0.95))
    }

    /// The mean context of a decode, tokens.
    pub(super) fn context(self) -> f64 {
        self.isl + self.osl / 2.0
    }
}

/// The seconds that an iteration takes.
fn step(engine: &EngineConfig, prefill: f64, prompt: f64, decodes: f64, context: f64) -> f64 {
    let shape = StepShape {
        prefill_tokens: prefill.round() as u64,
        prefill_attention: prefill * prompt / 2.0,
        decode_sequences: decodes.round() as u64,
        decode_context: context.round() as u64,
    };
    engine.timing.duration(&shape).as_secs_f64()
}

/// The seconds in which an engine computes so many prompt tokens, chunk by chunk, with `decodes` sequences in each.
pub(super) fn prefill_s(engine: &EngineConfig, tokens: f64, lengths: &Lengths, decodes: (f64, f64)) -> f64 {
    let chunk = f64::from(engine.max_num_batched_tokens);
    let prompt = lengths.isl.min(tokens.max(1.0));
    let whole = (tokens / chunk).floor().min(1e4);
    let rest = tokens - whole * chunk;
    let mut seconds = whole * step(engine, chunk, prompt, decodes.0, decodes.1);
    if rest >= 0.5 {
        seconds += step(engine, rest, prompt, decodes.0, decodes.1);
    }
    seconds
}

/// The seconds of an iteration that decodes.
pub(super) fn decode_s(engine: &EngineConfig, sequences: f64, context: f64) -> f64 {
    step(engine, 0.0, 0.0, sequences, context)
}

fn limit(limit: Option<Micros>) -> f64 {
    limit.map_or(f64::INFINITY, Micros::as_secs_f64)
}

/// Requests a second that one engine of a role takes within the limits.
pub(super) fn rps(role: Role, engine: &EngineConfig, lengths: &Lengths, slo: &Slo) -> f64 {
    match role {
        Role::Prefill => prefill_rps(engine, lengths, slo),
        Role::Decode => decode_rps(engine, lengths, slo),
        _ => aggregated_rps(engine, lengths, slo),
    }
}

/// Requests a second that one prefill engine takes: the best batch that starts together and is done within the limit.
fn prefill_rps(engine: &EngineConfig, lengths: &Lengths, slo: &Slo) -> f64 {
    best((1..=MOST_BATCHES).map(|batch| {
        let batch = f64::from(batch);
        let ttft = prefill_s(engine, batch * lengths.to_compute(), lengths, (0.0, 0.0)).max(1e-9);
        (ttft <= limit(slo.ttft), batch / ttft)
    }))
}

/// Requests a second that one decode engine takes.
fn decode_rps(engine: &EngineConfig, lengths: &Lengths, slo: &Slo) -> f64 {
    best(batches(engine, lengths).map(|batch| {
        let itl = decode_s(engine, batch, batch * lengths.context());
        (itl <= limit(slo.itl), batch / (lengths.osl.max(1.0) * itl))
    }))
}

/// Requests a second that one aggregated engine takes.
fn aggregated_rps(engine: &EngineConfig, lengths: &Lengths, slo: &Slo) -> f64 {
    best(batches(engine, lengths).filter_map(|batch| {
        let prefill = (batch * lengths.to_compute() / lengths.osl.max(1.0)).ceil();
        if prefill > f64::from(engine.max_num_batched_tokens) - batch {
            return None;
        }
        let context = batch * lengths.context();
        let itl = step(engine, prefill, lengths.isl, batch, context);
        let ttft = prefill_s(engine, prefill + lengths.to_compute(), lengths, (batch, context));
        let eligible = itl <= limit(slo.itl) && ttft <= limit(slo.ttft);
        Some((eligible, batch / (lengths.osl.max(1.0) * itl)))
    }))
}

/// Up to 128 sizes of a batch that fits, evenly spread.
fn batches(engine: &EngineConfig, lengths: &Lengths) -> impl Iterator<Item = f64> + use<> {
    let by_kv = (engine.kv_tokens() as f64 / lengths.context().max(1.0)).floor().max(1.0);
    let most = by_kv.min(f64::from(engine.max_num_seqs)) as u32;
    let step = most.div_ceil(MOST_BATCHES).max(1);
    (1..=most).filter(move |batch| batch % step == 0 || *batch == 1).map(f64::from)
}

/// The best eligible one, or the best of all if none is: then the planner only warns.
fn best(found: impl Iterator<Item = (bool, f64)>) -> f64 {
    let (mut eligible, mut any) = (0.0_f64, 0.0_f64);
    for (fits, rps) in found {
        any = any.max(rps);
        if fits {
            eligible = eligible.max(rps);
        }
    }
    if eligible > 0.0 { eligible } else { any }
}

#[cfg(test)]
mod tests {
    use plimsoll_engine::{Curve, Profile, Roofline, Timing};

    use super::*;

    /// 10 ms an iteration and 0.1 ms a token.
    fn engine() -> EngineConfig {
        let mut profile = Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
        profile.timing = Timing::new(Curve::Roofline(Roofline {
            a_ms: 10.0,
            w_ms: 0.0,
            b_ms_per_token: 0.1,
            c_ms_per_token_squared: 0.0,
            d_ms_per_sequence: 0.0,
            e_ms_per_kv_token: 0.0,
        }));
        profile.engine_config()
    }

    #[test]
    fn capacity_is_the_best_batch_within_the_limits() {
        let lengths = Lengths { isl: 1_000.0, osl: 100.0, hit: 0.0 };
        let slo = Slo::of_millis(1_000, 15);
        // Eight prompts fit one iteration of 810 ms; a ninth begins another.
        assert!((prefill_rps(&engine(), &lengths, &slo) - 8.0 / 0.81).abs() < 1e-6);
        // 50 sequences at 15 ms a token.
        assert!((decode_rps(&engine(), &lengths, &slo) - 50.0 / (100.0 * 0.015)).abs() < 1e-6);
        // Half of every prompt is found: sixteen fit.
        let half = Lengths { hit: 0.5, ..lengths };
        assert!((prefill_rps(&engine(), &half, &slo) - 16.0 / 0.81).abs() < 1e-6);
        // B decodes and 10 B prompt tokens an iteration: 10 + 1.1 B ≤ 15 ms.
        assert!((aggregated_rps(&engine(), &lengths, &slo) - 4.0 / (100.0 * 0.0144)).abs() < 1e-6);
    }

    #[test]
    fn if_no_batch_keeps_the_limit_the_best_of_all_is_taken() {
        let lengths = Lengths { isl: 1_000.0, osl: 100.0, hit: 0.0 };
        let slo = Slo::of_millis(50, 5);
        assert!(prefill_rps(&engine(), &lengths, &slo) > 9.0);
        assert!(decode_rps(&engine(), &lengths, &slo) > 60.0);
    }
}
