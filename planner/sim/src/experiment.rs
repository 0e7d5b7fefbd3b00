//! Policies in the same world, one after the other, and the best that a static fleet could have done.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_core::score::{Score, Slo};

use crate::{
    outcome::Outcome,
    policies::Fixed,
    policy::ScalingPolicy,
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
        let mut search = Search { experiment: *self, tried: Vec::new(), watcher };
        let decode = self.config.pools.iter().position(|pool| pool.role == Role::Decode);
        let most = |pool: usize| self.config.pools.get(pool).map_or(1, |pool| pool.max.min(MOST));
        let base: Vec<u32> = self.config.pools.iter().map(|pool| pool.initial.max(1)).collect();
        let mut found: Vec<Vec<u32>> = Vec::new();
        match decode {
            None => found.extend(search.fewest(&base, 0, most(0))?),
            Some(decode) => {
                let prefill = usize::from(decode == 0);
                let mut plenty = base;
                plenty[decode] = most(decode);
                if let Some(least) = search.fewest(&plenty, prefill, most(prefill))? {
                    for more in 0..4 {
                        let mut fleet = least.clone();
                        fleet[prefill] = (least[prefill] + more).min(most(prefill));
                        found.extend(search.fewest(&fleet, decode, most(decode))?);
                    }
                }
            }
        }
        let gpus = |fleet: &Vec<u32>| -> u32 {
            fleet.iter().zip(&self.config.pools).map(|(n, pool)| n * pool.gpus_per_replica).sum()
        };
        found.sort_by_key(|fleet| (gpus(fleet), fleet.clone()));
        let mut tried = search.tried;
        tried.sort_by_key(|(fleet, _)| (gpus(fleet), fleet.clone()));
        tried.dedup_by(|a, b| a.0 == b.0);
        Ok(StaticBest { replicas: found.into_iter().next(), tried })
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

/// The largest static fleet that is tried, in one pool.
const MOST: u32 = 512;

struct Search<'a, 'w> {
    experiment: Experiment<'a>,
    tried: Vec<(Vec<u32>, Score)>,
    watcher: Watcher<'w>,
}

impl Search<'_, '_> {
    /// The fleet with the fewest replicas in one pool that keeps the promise, the other pools as in `fleet`.
    fn fewest(&mut self, fleet: &[u32], pool: usize, most: u32) -> Result<Option<Vec<u32>>, ConfigError> {
        let with = |n: u32| {
            let mut fleet = fleet.to_vec();
            if let Some(replicas) = fleet.get_mut(pool) {
                *replicas = n;
            }
            fleet
        };
        let (mut too_few, mut enough) = (0, 1);
        let mut before = 0.0;
        while !self.keeps(&with(enough))? {
            too_few = enough;
            let attained = self.attained(&with(enough));
            // Most attain, and twice as many replicas have made no difference: what misses, misses on an idle replica.
            let hopeless = before > 0.5 && attained <= before + 1e-4;
            if enough >= most || hopeless {
                return Ok(None);
            }
            before = attained;
            enough = (enough * 2).min(most);
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if self.keeps(&with(middle))? {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        Ok(Some(with(enough)))
    }

    fn attained(&self, fleet: &[u32]) -> f64 {
        let tried = self.tried.iter().find(|(tried, _)| tried == fleet);
        tried.map_or(0.0, |(_, score)| crate::report::share(score))
    }

    fn keeps(&mut self, fleet: &[u32]) -> Result<bool, ConfigError> {
        if let Some((_, score)) = self.tried.iter().find(|(tried, _)| tried == fleet) {
            return Ok(score.kept());
        }
        let run = self.experiment.run_static(fleet, self.watcher)?;
        let kept = run.score.kept();
        self.tried.push((fleet.to_vec(), run.score));
        Ok(kept)
    }
}
