//! The loop: observations in, a plan and its explanation out.

mod checkpoint;
mod stages;

use std::collections::BTreeMap;

use plimsoll_common::{engine::Role, ids::PoolName, units::Micros};
use serde::{Deserialize, Serialize};

use crate::{
    explain::{Explanation, Reason},
    observe::Observation,
    perf::Foreseen,
    plan::{Asked, LeftToScheduler, Limits, Place, Placer, RoleSwitch, Topology, split},
    pool::{Pool, Wish},
    spec::FleetSpec,
    tuning::Tuning,
};

pub use checkpoint::{Checkpoint, CheckpointError, Restoration};

/// What every pool shall have: complete, and not to be changed by whoever brings it about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Ready and starting replicas together, by pool.
    pub targets: BTreeMap<PoolName, u32>,
    /// Replicas that could change their role on the way to the targets: a proposal, which the targets do not depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<RoleSwitch>,
    /// Where further replicas shall run, by pool; without a word about those that the scheduler is to place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<PoolName, Vec<Place>>,
}

/// One step's outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What shall be.
    pub plan: Plan,
    /// Why.
    pub explanation: Explanation,
    /// When to step again.
    pub next: Micros,
}

/// The decision core of a fleet.
#[derive(Debug)]
pub struct Controller {
    interval: Micros,
    limits: Limits,
    tuning: Tuning,
    pools: BTreeMap<PoolName, Pool>,
    pending: BTreeMap<PoolName, Observation>,
    refused: u64,
    /// Of the specification.
    fingerprint: u64,
    placer: Box<dyn Placer>,
    topology: Topology,
}

impl Controller {
    /// A core that has seen nothing yet.
    #[must_use]
    pub fn new(spec: FleetSpec, tuning: Tuning) -> Self {
        let fingerprint = spec.fingerprint();
        let pools = spec.pools.into_iter().map(|spec| (spec.name.clone(), Pool::new(spec))).collect();
        let (pending, refused) = (BTreeMap::new(), 0);
        let (placer, topology) = (Box::new(LeftToScheduler), Topology::default());
        let (interval, limits) = (spec.interval, spec.limits);
        Self { interval, limits, tuning, pools, pending, refused, fingerprint, placer, topology }
    }

    /// The same core, which finds places for replicas by this; by default they are left to the cluster's scheduler. No
    /// checkpoint holds it: a core that is restored is given it again.
    #[must_use]
    pub fn placed_by(self, placer: Box<dyn Placer>) -> Self {
        Self { placer, ..self }
    }

    /// Takes what is known now of where GPUs are, in place of what was known before. No checkpoint holds it.
    pub fn survey(&mut self, topology: Topology) {
        self.topology = topology;
    }

    /// Takes what was seen of one pool; it counts from the next step on. Several observations of one pool are added up,
    /// in whatever order they come; one of a pool that the policy does not know, or of replicas that cannot be, is not
    /// taken. Other numbers that cannot be count as not told.
    pub fn observe(&mut self, mut observation: Observation) -> bool {
        if !self.pools.contains_key(&observation.pool) || !observation.leave_out_the_impossible() {
            return false;
        }
        match self.pending.get_mut(&observation.pool) {
            Some(pending) => pending.merge(observation),
            None => {
                self.pending.insert(observation.pool.clone(), observation);
            }
        }
        true
    }

    /// Lets a pool's forecast know past arrival rates, requests a second, in order of time; false for a pool that the
    /// policy does not know.
    pub fn warm(&mut self, pool: &PoolName, history: impl IntoIterator<Item = (Micros, f64)>) -> bool {
        self.pools.get_mut(pool).map(|pool| pool.warm(history)).is_some()
    }

    /// Learns from what was observed since the step before, and decides. Where time ran backwards, nothing is learned and
    /// nothing moves for this one step.
    pub fn step(&mut self, now: Micros) -> Step {
        let turned_back = self.turn_back(now);
        self.learn(now);
        self.refresh(now);
        let (interval, tuning) = (self.interval, self.tuning);
        let wishes: BTreeMap<PoolName, Wish> = self
            .pools
            .iter_mut()
            .filter_map(|(name, pool)| Some((name.clone(), pool.wish(now, interval, &tuning)?)))
            .collect();
        let step =
            if turned_back { self.hold(now, wishes, Reason::ClockSetBack) } else { self.plan(now, wishes) };
        for (name, explained) in &step.explanation.pools {
            if let Some(pool) = self.pools.get_mut(name) {
                pool.decided(now, explained.from, explained.to);
            }
        }
        step
    }

    fn plan(&mut self, now: Micros, wishes: BTreeMap<PoolName, Wish>) -> Step {
        let asked = self.asked(&wishes);
        let mut shares = split(&self.limits, &asked);
        let placed = self.place(&asked, &wishes, &mut shares);
        let mut step = self.stabilize(now, wishes, &shares);
        self.settle(&mut step, &asked);
        placed.tell(&mut step);
        self.propose_switches(&mut step);
        if let Err(refused) = self.check(&step, &asked) {
            self.refuse(&mut step, refused);
        }
        step
    }

    /// The latencies to be expected of so many replicas of a pool at so many requests a second in all, as the core
    /// believes of its engines and requests now; see [`Question::foresee`](crate::perf::Question::foresee) for what that
    /// costs. None while too little is known, or for a pool that the policy does not know.
    #[must_use]
    pub fn foresee(&self, pool: &PoolName, replicas: u32, rate: f64) -> Option<Foreseen> {
        self.pools.get(pool)?.foresee(replicas, rate)
    }

    /// Plans that were refused since the start.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn learn(&mut self, now: Micros) {
        let mut pending = std::mem::take(&mut self.pending);
        let feeding: BTreeMap<_, _> = self
            .pools
            .values()
            .filter(|pool| pool.spec.role == Role::Prefill)
            .map(|pool| (pool.spec.model.clone(), pool.spec.name.clone()))
            .collect();
        // Where prompts end tells more of their lengths than where they are computed, so these pools learn first.
        let mut prompts = BTreeMap::new();
        for (name, pool) in self.pools.iter_mut().filter(|(_, pool)| pool.spec.role != Role::Prefill) {
            let Some(seen) = pending.remove(name) else { continue };
            let before = feeding.get(&pool.spec.model).filter(|_| pool.spec.role == Role::Decode);
            pool.learn(now, seen, before.and_then(|name| pending.get(name)));
            if let Some(before) = before {
                prompts.extend(pool.prompt_to_compute().map(|tokens| (before.clone(), tokens)));
            }
        }
        for (name, mut seen) in pending {
            let Some(pool) = self.pools.get_mut(&name) else { continue };
            if !seen.tells_prompts() {
                seen.lengths.prompt = prompts.get(&name).copied();
            }
            pool.learn(now, seen, None);
        }
    }

    /// Searches the capacity of the one pool and size that needs it most: a step stays short, whatever changes at once.
    fn refresh(&mut self, now: Micros) {
        let stalest = self
            .pools
            .iter()
            .filter_map(|(name, pool)| pool.stalest().map(|(place, staleness)| (staleness, name, place)))
            .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)));
        let stalest = stalest.map(|(_, name, place)| (name.clone(), place));
        if let Some((name, place)) = stalest
            && let Some(pool) = self.pools.get_mut(&name)
        {
            pool.search(now, place);
        }
    }

    fn asked(&self, wishes: &BTreeMap<PoolName, Wish>) -> Vec<Asked> {
        let of = |pool: &Pool| {
            let wish = wishes.get(&pool.spec.name);
            Asked {
                pool: pool.spec.name.clone(),
                priority: pool.spec.priority,
                least: pool.spec.bounds.0,
                wanted: wish.map_or_else(|| pool.target.unwrap_or(pool.spec.bounds.0), |wish| wish.wanted),
                gpus: pool.spec.gpus,
                watts: pool.spec.watts,
                cost_per_hour: pool.spec.cost_per_hour,
            }
        };
        self.pools.values().map(of).collect()
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
pub(crate) mod tests;

#[cfg(test)]
mod properties;
