//! What an engine of a profile can do at best.

use plimsoll_common::units::{Micros, Ratio};
use plimsoll_core::policy::feasible;
use plimsoll_profiles::Profile;
use serde::Serialize;

/// What one engine can do at best, for requests of one size. Nothing waits here: how many requests a second keep an SLO is
/// what `simulate` tells.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Hints {
    /// The requests' prompts, tokens.
    pub isl: u32,
    /// The requests' outputs, tokens.
    pub osl: u32,
    /// The longest time between two tokens, s.
    pub itl_limit_s: f64,
    /// Blocks of the KV cache that requests can hold, of 16 tokens.
    pub kv_blocks: u32,
    /// Requests of this size that the KV cache holds, half of their output generated.
    pub fit: u64,
    /// Time to first token on an empty engine, s; none where such a request does not fit.
    pub ttft_s: Option<f64>,
    /// Time between two tokens of a request alone, s.
    pub itl_s: Option<f64>,
    /// Requests that may decode at once within the limit.
    pub sequences: u32,
    /// Requests a second if so many always decoded and every prompt were computed in between: no engine takes more.
    pub most_rps: Option<f64>,
}

impl Hints {
    /// For requests of so many tokens in and out, and a longest time between tokens in seconds.
    #[must_use]
    pub fn of(profile: &Profile, (isl, osl): (u32, u32), itl_limit_s: f64) -> Self {
        let config = profile.engine_config();
        let best = feasible::best(&config, isl, osl, Ratio::default(), None);
        let limit = Micros::from_secs_f64(itl_limit_s).unwrap_or(Micros::MAX);
        let sequences = feasible::most_sequences(&config, isl, osl, limit, None);
        let context = isl.saturating_add(osl / 2).max(1);
        let most_rps = best.filter(|_| sequences > 0).map(|best| {
            let shape = plimsoll_engine::StepShape {
                decode_sequences: u64::from(sequences),
                decode_context: u64::from(sequences) * u64::from(context),
                ..plimsoll_engine::StepShape::default()
            };
            let iteration = config.timing.duration(&shape).as_secs_f64();
            1.0 / (best.ttft.as_secs_f64() + f64::from(osl) * iteration / f64::from(sequences))
        });
        Self {
            isl,
            osl,
            itl_limit_s,
            kv_blocks: config.kv_blocks,
            fit: config.kv_tokens() / u64::from(context),
            ttft_s: best.map(|best| best.ttft.as_secs_f64()),
            itl_s: best.map(|best| best.itl_alone.as_secs_f64()),
            sequences,
            most_rps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_can_do_is_bounded_by_time_and_memory() {
        let profile = Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
        let hints = Hints::of(&profile, (1_000, 200), 0.02);
        let tight = Hints::of(&profile, (1_000, 200), 0.008);
        assert!(tight.sequences < hints.sequences && tight.most_rps < hints.most_rps, "{tight:?} {hints:?}");
        assert_eq!(hints.kv_blocks, profile.engine_config().kv_blocks);
        let none = Hints::of(&profile, (5_000_000, 200), 0.02);
        assert_eq!((none.ttft_s, none.most_rps, none.fit), (None, None, 0));
    }
}
