//! How long requests are, by the tokens that flow and those that are held.

use plimsoll_common::units::Micros;

use crate::observe::Observation;

/// Tokens below which a window tells nothing of lengths.
const ENOUGH_TOKENS: f64 = 500.0;

/// Mean lengths that turn tokens into requests, tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenLengths {
    /// Output tokens of a request.
    pub output: Option<f64>,
    /// Prompt tokens to compute of a request.
    pub to_compute: Option<f64>,
}

/// Prompt and output length of the requests under way, and how many requests the window's tokens are worth; none where
/// tokens or KV caches tell too little.
///
/// A sequence that is looked at while it decodes holds its prompt and half an output on the mean; outputs that are long
/// are looked at more often, which for lengths with a coefficient of variation of 1 makes it a whole mean output. What
/// flows in for each token that flows out is the ratio of the lengths. Two equations, two lengths.
#[must_use]
pub fn lengths(seen: &Observation, kv_tokens: f64, hit: f64) -> Option<(f64, f64, f64)> {
    let (mut held, mut running, mut prompts, mut outputs) = (0.0, 0.0, 0.0, 0.0);
    for engine in seen.engines.values() {
        let told = (engine.kv_utilization, engine.running, engine.gained.prefilled_tokens);
        let (Some(share), Some(runs), Some(prefilled)) = told else { continue };
        let Some(generated) = engine.gained.generated_tokens else { continue };
        if !(0.0..=1.0).contains(&share) {
            continue;
        }
        held += share * kv_tokens;
        running += runs as f64;
        prompts += prefilled as f64 / (1.0 - hit.clamp(0.0, 0.95));
        outputs += generated as f64;
    }
    if seen.window == Micros::ZERO || running < 1.0 || held < 1.0 || outputs < ENOUGH_TOKENS {
        return None;
    }
    let ratio = (prompts / outputs).clamp(1e-3, 1e4);
    let output = (held / running / (ratio + 1.0)).clamp(1.0, 1e6);
    let prompt = (ratio * output).clamp(1.0, 1e7);
    Some((prompt, output, outputs / output))
}

#[cfg(test)]
mod tests {
    use plimsoll_common::ids::{EngineId, PoolName};

    use super::*;
    use crate::observe::{Engine, Gained};

    #[test]
    fn two_equations_give_two_lengths() {
        let mut seen = Observation::new(PoolName::parse("a").unwrap(), Micros(10_000_000));
        let gained =
            Gained { prefilled_tokens: Some(50_000), generated_tokens: Some(10_000), ..Gained::default() };
        let engine = Engine { running: Some(20), kv_utilization: Some(0.24), gained, ..Engine::default() };
        seen.engines.insert(EngineId::parse("0").unwrap(), engine);
        // 1,200 tokens a sequence, five in for each out: 1,000 and 200, 50 requests.
        let (prompt, output, requests) = lengths(&seen, 100_000.0, 0.0).unwrap();
        assert!((prompt - 1_000.0).abs() < 1e-6 && (output - 200.0).abs() < 1e-6);
        assert!((requests - 50.0).abs() < 1e-6);
        seen.engines.values_mut().for_each(|engine| engine.kv_utilization = Some(f64::NAN));
        assert_eq!(lengths(&seen, 100_000.0, 0.0), None);
    }
}
