//! How long requests are, by the tokens that flow and those that are held.

use plimsoll_common::units::Micros;
use serde::{Deserialize, Serialize};

use crate::observe::Observation;

/// Tokens generated below which lengths are not told.
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
}

/// What is known beside the tokens themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Share of prompts found in prefix caches, where that is told.
    pub hit: Option<f64>,
    /// Tokens that can be computed in the mean time to first token: no more of a mean prompt were.
    pub most_computed: Option<f64>,
}

/// Tokens as they were seen window by window, the older the less. Sums, since a window in which few long requests run tells
/// little of all: the mean of what windows say is no mean of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tokens {
    held: f64,
    running: f64,
    computed: f64,
    generated: f64,
}

impl Tokens {
    /// What was seen counts less by so much.
    pub fn fade(&mut self, kept: f64) {
        for sum in [&mut self.held, &mut self.running, &mut self.computed, &mut self.generated] {
            *sum *= kept;
        }
    }

    /// Takes a window of engines whose KV caches hold `kv_tokens` each; where another pool computes the prompts, what it
    /// told is `before`. Engines that leave out any of it are left out.
    pub fn observe(&mut self, seen: &Observation, before: Option<&Observation>, kv_tokens: f64) {
        if seen.window == Micros::ZERO {
            return;
        }
        for engine in seen.engines.values() {
            let prefilled = engine.gained.prefilled_tokens.or_else(|| before.map(|_| 0));
            let told = (engine.kv_utilization, engine.running, prefilled, engine.gained.generated_tokens);
            let (Some(share), Some(runs), Some(prefilled), Some(generated)) = told else { continue };
            if !(0.0..=1.0).contains(&share) {
                continue;
            }
            self.held += share * kv_tokens;
            self.running += runs as f64;
            self.generated += generated as f64;
            self.computed += if before.is_none() { prefilled as f64 } else { 0.0 };
        }
        let handed_over = before.into_iter().flat_map(|before| before.engines.values());
        let prefilled = handed_over.filter_map(|engine| engine.gained.prefilled_tokens);
        self.computed += prefilled.map(|tokens| tokens as f64).sum::<f64>();
    }

    /// Lengths of requests; none where tokens or KV caches tell too little.
    ///
    /// A sequence that is looked at while it decodes holds its prompt and half an output on the mean; outputs that are long
    /// are looked at more often, which for lengths with a coefficient of variation of 1 makes it a whole mean output. What
    /// flows in for each token that flows out is the ratio of the lengths. Two equations, two lengths.
    ///
    /// A prompt that is found in a cache is held whole and computed in part. If nobody tells how much is found, prompts that
    /// by the two equations take longer to compute than the first token took must have been found in part.
    #[must_use]
    pub fn lengths(&self, known: &Known) -> Option<Inferred> {
        if self.running < 1.0 || self.held < 1.0 || self.generated < ENOUGH_TOKENS {
            return None;
        }
        let hit = known.hit.unwrap_or(0.0).clamp(0.0, MOST_HIT);
        let (held, computed) = (self.held / self.running, (self.computed / self.generated).clamp(1e-3, 1e4));
        let ratio = computed / (1.0 - hit);
        let output = (held / (ratio + 1.0)).clamp(1.0, 1e6);
        let most = known.most_computed.filter(|most| known.hit.is_none() && *most >= 1.0);
        let inferred = match most.filter(|most| computed * output > *most) {
            Some(most) => {
                let output = (most / computed).clamp(1.0, 1e6);
                let prompt = (held - output).max(most);
                Inferred { prompt, output, hit: (1.0 - most / prompt).clamp(0.0, MOST_HIT) }
            }
            None => Inferred { prompt: ratio * output, output, hit },
        };
        Some(Inferred { prompt: inferred.prompt.clamp(1.0, 1e7), ..inferred })
    }
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
        let of = |seen: &Observation| {
            let mut tokens = Tokens::default();
            tokens.observe(seen, None, 100_000.0);
            tokens
        };
        // 1,200 tokens a sequence, five in for each out: 1,000 and 200.
        let known = Known { hit: None, most_computed: Some(1_500.0) };
        let found = of(&seen).lengths(&known).unwrap();
        assert!((found.prompt - 1_000.0).abs() < 1e-6 && (found.output - 200.0).abs() < 1e-6);
        assert!(found.hit < 1e-9);
        // If no more than 250 tokens can have been computed of each, most of a prompt was there already.
        let found = of(&seen).lengths(&Known { most_computed: Some(250.0), ..known }).unwrap();
        assert!((found.output - 50.0).abs() < 1e-6 && (found.prompt - 1_150.0).abs() < 1e-6);
        assert!((found.hit - 900.0 / 1_150.0).abs() < 1e-6);
        // What is told counts.
        let told = of(&seen).lengths(&Known { hit: Some(0.5), most_computed: Some(250.0) }).unwrap();
        assert!((told.prompt / told.output - 10.0).abs() < 1e-6 && (told.hit - 0.5).abs() < 1e-9);
        seen.engines.values_mut().for_each(|engine| engine.kv_utilization = Some(f64::NAN));
        assert_eq!(of(&seen).lengths(&known), None);
    }

    #[test]
    fn few_long_requests_are_not_outvoted_by_windows_of_short_ones() {
        let window = |running: u64, held: f64| {
            let gained =
                Gained { prefilled_tokens: Some(60_000), generated_tokens: Some(1_000), ..Gained::default() };
            let share = Some(held / 1e6);
            let engine =
                Engine { running: Some(running), kv_utilization: share, gained, ..Engine::default() };
            let mut seen = Observation::new(PoolName::parse("a").unwrap(), Micros(5_000_000));
            seen.engines.insert(EngineId::parse("0").unwrap(), engine);
            seen
        };
        let mut tokens = Tokens::default();
        // One request of 1,220 tokens is seen as often as three of 16,000 each.
        for _ in 0..50 {
            tokens.observe(&window(1, 1_220.0), None, 1e6);
            tokens.observe(&window(3, 47_580.0), None, 1e6);
        }
        let found = tokens.lengths(&Known { hit: Some(0.0), most_computed: None }).unwrap();
        assert!((found.prompt - 12_000.0).abs() < 1.0 && (found.output - 200.0).abs() < 1.0, "{found:?}");
    }
}
