//! Policies in the same world, one after the other, and the best that a static fleet could have done.

use plimsoll_common::units::Micros;
use plimsoll_core::score::{Score, Slo};

use crate::{
    outcome::Outcome,
    policies::Fixed,
    policy::ScalingPolicy,
    search::{MOST, Search},
    workload::Workload,
    world::{ConfigError, World, WorldConfig},
};

/// Told at every tick: requests arrived so far, and what time it is in the world.
pub type Watcher<'a> = &'a mut dyn FnMut(usize, Micros);

/// A world, what comes in, and what is promised.
#[derive(Clone, Copy, Debug)]
pub struct Experiment<'a> {
    /// The world.
    pub config: &'a WorldConfig,
    /// What comes in.
    pub workload: &'a Workload,
    /// What is promised.
    pub slo: Slo,
}

/// One policy's run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What happened.
    pub outcome: Outcome,
    /// How well it went.
    pub score: Score,
}

/// The smallest static fleet that keeps the promise, and those that were tried on the way.
#[derive(Clone, Debug)]
pub struct StaticBest {
    /// Replicas by pool, if any fleet within the pools' bounds keeps the promise.
    pub replicas: Option<Vec<u32>>,
    /// Every fleet that was tried, by size: replicas by pool, and how well it went.
    pub tried: Vec<(Vec<u32>, Score)>,
}

impl StaticBest {
    /// How well the best did.
    #[must_use]
    pub fn score(&self) -> Option<&Score> {
        let best = self.replicas.as_ref()?;
        self.tried.iter().find(|(replicas, _)| replicas == best).map(|(_, score)| score)
    }
}

impl Experiment<'_> {
    /// Puts a policy into the world.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn run(&self, policy: &mut dyn ScalingPolicy, watcher: Watcher<'_>) -> Result<Run, ConfigError> {
        let outcome = World::new(self.config, self.workload)?.run_watched(policy, watcher);
        Ok(Run { score: outcome.score(self.slo), outcome })
    }

    /// Runs a static fleet that is ready from the start.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn run_static(&self, replicas: &[u32], watcher: Watcher<'_>) -> Result<Run, ConfigError> {
        let mut config = self.config.clone();
        for (pool, replicas) in config.pools.iter_mut().zip(replicas) {
            pool.initial = *replicas;
            pool.min = pool.min.min(*replicas);
            pool.max = pool.max.max(*replicas);
        }
        Experiment { config: &config, ..*self }.run(&mut Fixed::new(replicas.to_vec()), watcher)
    }

    /// Looks for the static fleet that keeps the promise with the fewest GPUs: what an operator with hindsight would
    /// have chosen.
    ///
    /// A larger fleet is taken to do no worse. With prefill and decode pools, the smallest number of prefill replicas
    /// that can do it at all and the three after it are each tried with the fewest decode replicas. Only worlds of one
    /// model can be searched: with several, the first model's pools are, and the others stay as they begin.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn static_best(&self, watcher: Watcher<'_>) -> Result<StaticBest, ConfigError> {
        let mut run = |fleet: &[u32]| {
            let score = self.run_static(fleet, watcher)?.score;
            let attained = crate::report::share(&score);
            Ok((score, attained))
        };
        let mut search = Search::new(self.slo.goal.get(), &mut run);
        let replicas = search.best(&self.config.pools)?;
        let tried = search.tried.into_iter().map(|(fleet, score, _)| (fleet, score)).collect();
        Ok(StaticBest { replicas, tried })
    }
}

impl Experiment<'_> {
    /// Tries every static fleet of the first pool (of the last, with prefill and decode) from half the best size to
    /// half as much again, for curves of attainment against GPU-hours.
    ///
    /// # Errors
    /// If there cannot be such a world.
    pub fn sweep_static(&self, best: &mut StaticBest, watcher: Watcher<'_>) -> Result<(), ConfigError> {
        let Some(fleet) = best.replicas.clone() else { return Ok(()) };
        let Some(chosen) = fleet.last().copied() else { return Ok(()) };
        let most = (chosen + chosen / 2 + 1).min(MOST);
        let step = ((most - chosen / 2) / 12).max(1);
        let mut size = (chosen / 2).max(1);
        while size <= most {
            let mut fleet = fleet.clone();
            if let Some(last) = fleet.last_mut() {
                *last = size;
            }
            if !best.tried.iter().any(|(tried, _)| *tried == fleet) {
                let run = self.run_static(&fleet, watcher)?;
                best.tried.push((fleet, run.score));
            }
            size += step;
        }
        best.tried.sort_by(|a, b| a.0.iter().sum::<u32>().cmp(&b.0.iter().sum()).then_with(|| a.0.cmp(&b.0)));
        Ok(())
    }
}
