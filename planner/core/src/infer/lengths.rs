//! How long requests are, by the tokens that flow and those that are held.

use plimsoll_common::units::Micros;

use crate::observe::Observation;

/// Tokens below which a window tells nothing of lengths.
const ENOUGH_TOKENS: f64 = 500.0;

/// The most of a prompt that a cache is believed to hold.
const MOST_HIT: f64 = 0.95;

/// Mean lengths that turn tokens into requests, tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenLengths {
    /// Output tokens of a request.
    pub output: Option<f64>,
    /// Prompt tokens to compute of a request.
    pub to_compute: Option<f64>,
}

/// What requests under way are like, as their tokens tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inferred {
    /// Prompt tokens of a request.
    pub prompt: f64,
    /// Output tokens of a request.
    pub output: f64,
    /// Share of the prompt that was found in a prefix cache, 0 to 0.95: as told, or what must have been.
    pub hit: f64,
    /// Requests that the window's tokens are worth.
    pub requests: f64,
}

/// What is known beside the tokens themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Tokens that the KV cache of one engine holds.
    pub kv_tokens: f64,
    /// Share of prompts found in prefix caches, where that is told.
    pub hit: Option<f64>,
    /// Tokens that can be computed in the mean time to first token: no more of a mean prompt were.
    pub most_computed: Option<f64>,
}

/// Lengths of the requests under way; none where tokens or KV caches tell too little.
///
/// A sequence that is looked at while it decodes holds its prompt and half an output on the mean; outputs that are long
/// are looked at more often, which for lengths with a coefficient of variation of 1 makes it a whole mean output. What
/// flows in for each token that flows out is the ratio of the lengths. Two equations, two lengths. Where another pool
/// computes the prompts, what flows in is what that one told (`before`).
///
/// A prompt that is found in a cache is held whole and computed in part. If nobody tells how much is found, prompts that
/// by the two equations take longer to compute than the first token took must have been found in part.
#[must_use]
pub fn lengths(seen: &Observation, before: Option<&Observation>, known: &Known) -> Option<Inferred> {
    let (mut held, mut running, mut prompts, mut outputs) = (0.0, 0.0, 0.0, 0.0);
    let handed_over = before.map(|before| {
        let prefilled = before.engines.values().filter_map(|engine| engine.gained.prefilled_tokens);
        prefilled.map(|tokens| tokens as f64).sum::<f64>()
    });
    for engine in seen.engines.values() {
        let prefilled = engine.gained.prefilled_tokens.or_else(|| before.map(|_| 0));
        let (Some(share), Some(runs), Some(prefilled)) = (engine.kv_utilization, engine.running, prefilled)
        else {
            continue;
        };
        let Some(generated) = engine.gained.generated_tokens else { continue };
        if !(0.0..=1.0).contains(&share) {
            continue;
        }
        held += share * known.kv_tokens;
        running += runs as f64;
        prompts += prefilled as f64;
        outputs += generated as f64;
    }
    let computed = handed_over.unwrap_or(prompts);
    if seen.window == Micros::ZERO || running < 1.0 || held < 1.0 || outputs < ENOUGH_TOKENS {
        return None;
    }
    let hit = known.hit.unwrap_or(0.0).clamp(0.0, MOST_HIT);
    let (held, computed) = (held / running, (computed / outputs).clamp(1e-3, 1e4));
    let ratio = computed / (1.0 - hit);
    let output = (held / (ratio + 1.0)).clamp(1.0, 1e6);
    let most = known.most_computed.filter(|most| known.hit.is_none() && *most >= 1.0);
    let inferred = match most.filter(|most| computed * output > *most) {
        Some(most) => {
            let output = (most / computed).clamp(1.0, 1e6);
            let prompt = (held - output).max(most);
            Inferred { prompt, output, hit: (1.0 - most / prompt).clamp(0.0, MOST_HIT), requests: 0.0 }
        }
        None => Inferred { prompt: ratio * output, output, hit, requests: 0.0 },
    };
    let requests = outputs / inferred.output;
    Some(Inferred { prompt: inferred.prompt.clamp(1.0, 1e7), requests, ..inferred })
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
        let known = Known { kv_tokens: 100_000.0, hit: None, most_computed: Some(1_500.0) };
        let found = lengths(&seen, None, &known).unwrap();
        assert!((found.prompt - 1_000.0).abs() < 1e-6 && (found.output - 200.0).abs() < 1e-6);
        assert!((found.requests - 50.0).abs() < 1e-6 && found.hit < 1e-9);
        // If no more than 250 tokens can have been computed of each, there are 200 of them, and most of a prompt was there.
        let found = lengths(&seen, None, &Known { most_computed: Some(250.0), ..known }).unwrap();
        assert!((found.output - 50.0).abs() < 1e-6 && (found.prompt - 1_150.0).abs() < 1e-6);
        assert!((found.requests - 200.0).abs() < 1e-6 && (found.hit - 900.0 / 1_150.0).abs() < 1e-6);
        // What is told counts.
        let told =
            lengths(&seen, None, &Known { hit: Some(0.5), most_computed: Some(250.0), ..known }).unwrap();
        assert!((told.prompt / told.output - 10.0).abs() < 1e-6 && (told.hit - 0.5).abs() < 1e-9);
        seen.engines.values_mut().for_each(|engine| engine.kv_utilization = Some(f64::NAN));
        assert_eq!(lengths(&seen, None, &known), None);
    }
}
