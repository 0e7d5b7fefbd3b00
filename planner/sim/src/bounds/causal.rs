//! The causal bound: the cheapest of a declared grid of policies that keeps the promise, chosen in hindsight.
//!
//! No policy reaches the oracle, which foresees the noise of every slot. What can be reached without foresight is
//! bounded from above by what a good family of policies does with the best parameters for exactly this workload. The
//! family is [`Demand`](crate::policies::Demand), reactive or seasonal, and sizing by requests in flight; what is
//! chosen of it and how stands with [`Trials::causal`](crate::Trials::causal).

use crate::{policies::PolicyError, world::ConfigError};

/// Why a grid could not be tried.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CausalError {
    /// A policy of the grid is none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// There cannot be such a world.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What a declared grid is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// The period of the season, s: then every policy by request rate is tried with what came one period before, too.
    pub period_s: Option<u64>,
    /// Whether prefill and decode have pools of their own: then they have utilisations of their own, too.
    pub disaggregated: bool,
    /// A part of it, for a first look.
    pub coarse: bool,
}

/// Utilisations, of what the prior says a replica takes; above 1 for where that is too careful, as it is for aggregated
/// engines, whose prompts come one by one and not with every token.
const UTILISATIONS: [&str; 26] = [
    "0.3", "0.35", "0.4", "0.45", "0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9", "0.95",
    "1", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.8", "2", "2.2", "2.5", "3",
];

/// The declared grid, as policies are written, in ladders: from the most replicas to the fewest.
///
/// By request rate and profile: utilisations from 0.3 to 3 (with decode pools, each with 0.6, 0.8 and 1 there), for
/// windows of 30 and 120 s and holds of 60, 300 and 900 s. By requests in flight: 4 to 128 a replica, down after 60
/// and 300 s.
#[must_use]
pub fn grid(of: Grid) -> Vec<Vec<String>> {
    let decode: &[&str] = match (of.disaggregated, of.coarse) {
        (false, _) => &[""],
        (true, false) => &[",decode=0.6", ",decode=0.8", ",decode=1"],
        (true, true) => &[",decode=0.6", ",decode=0.9"],
    };
    let windows: &[u64] = if of.coarse { &[30] } else { &[30, 120] };
    let holds: &[u64] = if of.coarse { &[60, 300] } else { &[60, 300, 900] };
    let season = of.period_s.map(|seconds| format!(",period={seconds}"));
    let mut ladders = Vec::new();
    for season in std::iter::once(String::new()).chain(season) {
        for decode in decode {
            for (window, hold) in windows.iter().flat_map(|w| holds.iter().map(move |h| (w, h))) {
                let rung = |utilisation: &&str| {
                    format!("demand:utilisation={utilisation}{decode},window={window},hold={hold}{season}")
                };
                ladders.push(UTILISATIONS.iter().step_by(if of.coarse { 2 } else { 1 }).map(rung).collect());
            }
        }
    }
    for cool_down in if of.coarse { &[300][..] } else { &[60, 300] } {
        let rung = |n: &u32| format!("keda:in_flight={n},poll=10,cool_down={cool_down}");
        ladders.push([4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128].iter().map(rung).collect());
    }
    ladders
}

#[cfg(test)]
mod tests {
    use plimsoll_core::score::Slo;

    use super::*;
    use crate::policies::{from_text, testing::burst_world};

    #[test]
    fn the_declared_grid_can_be_read() {
        let (config, _) = burst_world();
        let of = |period_s, disaggregated, coarse| grid(Grid { period_s, disaggregated, coarse });
        let day = Some(86_400);
        let grids =
            [of(None, false, false), of(day, false, false), of(None, true, false), of(None, false, true)];
        assert_eq!(grids.map(|grid| grid.len()), [8, 14, 20, 3]);
        for text in of(day, true, false).iter().chain(&of(day, true, true)).flatten() {
            from_text(text, &config.briefing(), &Slo::of_millis(1_000, 30)).unwrap();
        }
        let all = of(day, true, false);
        let distinct: std::collections::BTreeSet<&String> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), all.iter().map(Vec::len).sum::<usize>());
    }
}
