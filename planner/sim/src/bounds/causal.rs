//! The causal bound: the cheapest of a declared grid of policies that keeps the promise, chosen in hindsight.
//!
//! No policy reaches the oracle, which foresees the noise of every slot. What can be reached without foresight is
//! bounded from above by what a good family of policies does with the best parameters for exactly this workload.

use plimsoll_core::score::Score;

use crate::{
    experiment::{Experiment, Watcher},
    policies::{PolicyError, from_text},
    world::ConfigError,
};

/// One policy of the grid.
#[derive(Clone, Debug)]
pub struct Tried {
    /// As it is written.
    pub policy: String,
    /// How well it went.
    pub score: Score,
}

/// What the grid can do.
#[derive(Clone, Debug)]
pub struct CausalBound {
    /// The one with the fewest GPU-hours that kept the promise, the first of the grid among equals; none if none did:
    /// then the oracle is what to judge by.
    pub best: Option<Tried>,
    /// Every policy, in the order of the grid.
    pub tried: Vec<Tried>,
}

/// Why the grid could not be tried.
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

/// The declared grid: 36 policies by request rate and profile, 10 by requests in flight, and with a season, given by its
/// period in seconds, the 36 again with what came one period before.
#[must_use]
pub fn grid(period_s: Option<u64>) -> Vec<String> {
    let mut texts = Vec::new();
    for season in [None, period_s].into_iter().take(if period_s.is_some() { 2 } else { 1 }) {
        let season = season.map(|seconds| format!(",period={seconds}")).unwrap_or_default();
        for utilisation in ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9"] {
            for window in [30, 120] {
                for hold in [60, 300, 900] {
                    texts.push(format!(
                        "demand:utilisation={utilisation},window={window},hold={hold}{season}"
                    ));
                }
            }
        }
    }
    for in_flight in [8, 16, 32, 64, 128] {
        for cool_down in [60, 300] {
            texts.push(format!("keda:in_flight={in_flight},poll=10,cool_down={cool_down}"));
        }
    }
    texts
}

impl Experiment<'_> {
    /// Tries every policy of a grid.
    ///
    /// # Errors
    /// If a text names no policy, or there cannot be such a world.
    pub fn causal_bound(&self, grid: &[String], watcher: Watcher<'_>) -> Result<CausalBound, CausalError> {
        let briefing = self.config.briefing();
        let mut tried = Vec::with_capacity(grid.len());
        for text in grid {
            let mut policy = from_text(text, &briefing, &self.slo)?;
            let score = self.run(&mut *policy, watcher)?.score;
            tried.push(Tried { policy: text.clone(), score });
        }
        let hours = |tried: &Tried| tried.score.gpu_hours.total;
        let kept = tried.iter().filter(|tried| tried.score.kept());
        let best = kept.min_by(|a, b| hours(a).total_cmp(&hours(b))).cloned();
        Ok(CausalBound { best, tried })
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_core::score::Slo;

    use super::*;
    use crate::policies::testing::burst_world;

    #[test]
    fn the_best_is_the_cheapest_that_keeps_the_promise() {
        let (mut config, workload) = burst_world();
        config.pools[0].initial = 8;
        let experiment = Experiment { config: &config, workload: &workload, slo: Slo::of_millis(3_000, 60) };
        let grid: Vec<String> = ["demand:utilisation=0.6", "demand:utilisation=0.05", "demand:utilisation=1"]
            .map(str::to_owned)
            .to_vec();
        let bound = experiment.causal_bound(&grid, &mut |_, _| ()).unwrap();
        assert_eq!(bound.tried.len(), 3);
        let best = bound.best.unwrap();
        assert!(best.score.kept());
        let cheaper = |tried: &&Tried| tried.score.gpu_hours.total < best.score.gpu_hours.total;
        assert!(bound.tried.iter().filter(cheaper).all(|tried| !tried.score.kept()));
    }

    #[test]
    fn the_declared_grid_can_be_read() {
        let (config, _) = burst_world();
        assert_eq!((grid(None).len(), grid(Some(86_400)).len()), (46, 82));
        for text in grid(Some(86_400)) {
            from_text(&text, &config.briefing(), &Slo::of_millis(1_000, 30)).unwrap();
        }
    }
}
