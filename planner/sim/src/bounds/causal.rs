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

/// What a declared grid is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// The period of the season, s: then every policy by request rate is tried with what came one period before, too.
    pub period_s: Option<u64>,
    /// Whether prefill and decode have pools of their own: then they have utilisations of their own, too.
    pub disaggregated: bool,
    /// A third of it, for a first look.
    pub coarse: bool,
}

/// The declared grid, as policies are written. By request rate and profile: utilisations of 0.4 to 0.9 (with decode
/// pools, each with 0.5, 0.7 and 0.9 there), windows of 30 and 120 s, holds of 60, 300 and 900 s. By requests in
/// flight: 8 to 128 a replica, down after 60 and 300 s.
#[must_use]
pub fn grid(of: Grid) -> Vec<String> {
    let utilisations: &[&str] =
        if of.coarse { &["0.4", "0.6", "0.8"] } else { &["0.4", "0.5", "0.6", "0.7", "0.8", "0.9"] };
    let decode: &[&str] = match (of.disaggregated, of.coarse) {
        (false, _) => &[""],
        (true, false) => &[",decode=0.5", ",decode=0.7", ",decode=0.9"],
        (true, true) => &[",decode=0.6", ",decode=0.9"],
    };
    let windows: &[u64] = if of.coarse { &[30] } else { &[30, 120] };
    let holds: &[u64] = if of.coarse { &[60, 300] } else { &[60, 300, 900] };
    let season = of.period_s.map(|seconds| format!(",period={seconds}"));
    let mut texts = Vec::new();
    for season in std::iter::once(String::new()).chain(season) {
        for (utilisation, decode) in utilisations.iter().flat_map(|u| decode.iter().map(move |d| (u, d))) {
            for (window, hold) in windows.iter().flat_map(|w| holds.iter().map(move |h| (w, h))) {
                texts.push(format!(
                    "demand:utilisation={utilisation}{decode},window={window},hold={hold}{season}"
                ));
            }
        }
    }
    for in_flight in [8, 16, 32, 64, 128] {
        for cool_down in if of.coarse { &[300][..] } else { &[60, 300] } {
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
        let of = |period_s, disaggregated, coarse| grid(Grid { period_s, disaggregated, coarse });
        let day = Some(86_400);
        let sizes =
            [of(None, false, false), of(day, false, false), of(None, true, false), of(None, false, true)];
        assert_eq!(sizes.map(|grid| grid.len()), [46, 82, 118, 11]);
        for text in of(day, true, false).iter().chain(&of(day, true, true)) {
            from_text(text, &config.briefing(), &Slo::of_millis(1_000, 30)).unwrap();
        }
        let all = of(day, true, false);
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
