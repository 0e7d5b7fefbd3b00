//! The smallest static fleet that keeps a promise.

use plimsoll_common::engine::Role;

use crate::world::{ConfigError, PoolConfig};

/// The largest static fleet that is tried, in one pool.
pub(crate) const MOST: u32 = 512;

/// Says how a fleet does, and which share of requests attained.
pub(crate) type Runner<'a, T> = &'a mut dyn FnMut(&[u32]) -> Result<(T, f64), ConfigError>;

/// Tries static fleets, each once.
pub(crate) struct Search<'a, T> {
    run: Runner<'a, T>,
    goal: f64,
    /// Every fleet that was tried, with how it did.
    pub(crate) tried: Vec<(Vec<u32>, T, f64)>,
}

impl<'a, T> Search<'a, T> {
    pub(crate) fn new(goal: f64, run: Runner<'a, T>) -> Self {
        Self { run, goal, tried: Vec::new() }
    }

    /// The fleet with the fewest GPUs that keeps the promise, if any within the pools' bounds does.
    ///
    /// A larger fleet is taken to do no worse. With prefill and decode pools, the smallest number of prefill replicas
    /// that can do it at all and the three after it are each tried with the fewest decode replicas.
    pub(crate) fn best(&mut self, pools: &[PoolConfig]) -> Result<Option<Vec<u32>>, ConfigError> {
        let decode = pools.iter().position(|pool| pool.role == Role::Decode);
        let most = |pool: usize| pools.get(pool).map_or(1, |pool| pool.max.min(MOST));
        let base: Vec<u32> = pools.iter().map(|pool| pool.initial.max(1)).collect();
        let mut found: Vec<Vec<u32>> = Vec::new();
        match decode {
            None => found.extend(self.fewest(&base, 0, most(0))?),
            Some(decode) => {
                let prefill = usize::from(decode == 0);
                let mut plenty = base;
                plenty[decode] = most(decode);
                if let Some(least) = self.fewest(&plenty, prefill, most(prefill))? {
                    for more in 0..4 {
                        let mut fleet = least.clone();
                        fleet[prefill] = (least[prefill] + more).min(most(prefill));
                        found.extend(self.fewest(&fleet, decode, most(decode))?);
                    }
                }
            }
        }
        found.sort_by_key(|fleet| (gpus(fleet, pools), fleet.clone()));
        self.tried.sort_by_key(|(fleet, _, _)| (gpus(fleet, pools), fleet.clone()));
        Ok(found.into_iter().next())
    }

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
        loop {
            let attained = self.attained(&with(enough))?;
            if self.keeps(attained) {
                break;
            }
            too_few = enough;
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
            let attained = self.attained(&with(middle))?;
            if self.keeps(attained) {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        Ok(Some(with(enough)))
    }

    fn keeps(&self, attained: f64) -> bool {
        attained >= self.goal - 1e-12
    }

    fn attained(&mut self, fleet: &[u32]) -> Result<f64, ConfigError> {
        if let Some((_, _, attained)) = self.tried.iter().find(|(tried, _, _)| tried == fleet) {
            return Ok(*attained);
        }
        let (result, attained) = (self.run)(fleet)?;
        self.tried.push((fleet.to_vec(), result, attained));
        Ok(attained)
    }
}

fn gpus(fleet: &[u32], pools: &[PoolConfig]) -> u32 {
    fleet.iter().zip(pools).map(|(n, pool)| n * pool.gpus_per_replica).sum()
}
