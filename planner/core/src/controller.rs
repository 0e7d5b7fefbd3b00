//! The loop: observations in, a plan and its explanation out.

mod checkpoint;

use std::collections::BTreeMap;

use plimsoll_common::{engine::Role, ids::PoolName, units::Micros};
use serde::{Deserialize, Serialize};

use crate::{
    explain::{Explanation, PoolExplanation, Reason},
    observe::Observation,
    plan::{Asked, Limits, Planned, Refused, Share, check, split},
    policy::HeldBack,
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
}

impl Controller {
    /// A core that has seen nothing yet.
    #[must_use]
    pub fn new(spec: FleetSpec, tuning: Tuning) -> Self {
        let fingerprint = spec.fingerprint();
        let pools = spec.pools.into_iter().map(|spec| (spec.name.clone(), Pool::new(spec))).collect();
        let (pending, refused) = (BTreeMap::new(), 0);
        Self { interval: spec.interval, limits: spec.limits, tuning, pools, pending, refused, fingerprint }
    }

    /// Takes what was seen of one pool; it counts from the next step on. Several observations of one pool are added up,
    /// in whatever order they come; one of a pool that the policy does not know is not taken.
    pub fn observe(&mut self, observation: Observation) -> bool {
        if !self.pools.contains_key(&observation.pool) {
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

    /// Learns from what was observed since the step before, and decides.
    pub fn step(&mut self, now: Micros) -> Step {
        self.learn(now);
        self.refresh(now);
        let (interval, tuning) = (self.interval, self.tuning);
        let wishes: BTreeMap<PoolName, Wish> = self
            .pools
            .iter_mut()
            .filter_map(|(name, pool)| Some((name.clone(), pool.wish(now, interval, &tuning)?)))
            .collect();
        let asked = self.asked(&wishes);
        let shares = split(&self.limits, &asked);
        let mut step = self.stabilize(now, wishes, &shares);
        if let Err(refused) = self.check(&step, &asked) {
            self.refuse(&mut step, refused);
        }
        for (name, explained) in &step.explanation.pools {
            if let Some(pool) = self.pools.get_mut(name) {
                pool.history.moved(now, explained.from, explained.to);
                pool.patience.moved(now, explained.from, explained.to);
                pool.target = Some(explained.to);
            }
        }
        step
    }

    /// Plans that were refused since the start.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn learn(&mut self, now: Micros) {
        let pending = std::mem::take(&mut self.pending);
        let feeding: BTreeMap<_, _> = self
            .pools
            .values()
            .filter(|pool| pool.spec.role == Role::Prefill)
            .map(|pool| (pool.spec.model.clone(), pool.spec.name.clone()))
            .collect();
        for (name, pool) in &mut self.pools {
            let Some(seen) = pending.get(name) else { continue };
            let before = feeding.get(&pool.spec.model).filter(|_| pool.spec.role == Role::Decode);
            pool.learn(now, seen.clone(), before.and_then(|name| pending.get(name)));
        }
    }

    /// Searches the capacity of the one pool and size that needs it most: a step stays short, whatever changes at once.
    fn refresh(&mut self, now: Micros) {
        let stale = |pool: &Pool| {
            let question = pool.question()?;
            let (place, staleness) = pool.stalest(&question)?;
            Some((staleness, pool.spec.name.clone(), place, question))
        };
        let stalest = self
            .pools
            .values()
            .filter_map(stale)
            .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        if let Some((_, name, place, question)) = stalest
            && let Some(pool) = self.pools.get_mut(&name)
        {
            pool.search(now, place, question);
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

    /// What of the shares may come about now.
    fn stabilize(
        &mut self,
        now: Micros,
        wishes: BTreeMap<PoolName, Wish>,
        shares: &BTreeMap<PoolName, Share>,
    ) -> Step {
        let mut step = Step {
            plan: Plan::default(),
            explanation: Explanation::default(),
            next: now.saturating_add(self.interval),
        };
        let tuning = self.tuning;
        for (name, wish) in wishes {
            let (Some(pool), Some(share)) = (self.pools.get_mut(&name), shares.get(&name)) else { continue };
            let explained = stabilize(now, &tuning, pool, wish, *share);
            step.plan.targets.insert(name.clone(), explained.to);
            step.explanation.pools.insert(name, explained);
        }
        step
    }

    fn check(&self, step: &Step, asked: &[Asked]) -> Result<(), Vec<Refused>> {
        let planned = |asked| planned(&self.pools, step, asked);
        check(&self.limits, &asked.iter().filter_map(planned).collect::<Vec<_>>())
    }

    fn refuse(&mut self, step: &mut Step, refused: Vec<Refused>) {
        self.refused += 1;
        for (name, explained) in &mut step.explanation.pools {
            explained.to = explained.from;
            explained.reasons.insert(0, Reason::Refused);
            step.plan.targets.insert(name.clone(), explained.from);
        }
        step.explanation.refused = refused;
    }
}

fn planned<'a>(pools: &BTreeMap<PoolName, Pool>, step: &Step, asked: &'a Asked) -> Option<Planned<'a>> {
    let (pool, explained) = (pools.get(&asked.pool)?, step.explanation.pools.get(&asked.pool)?);
    Some(Planned {
        asked,
        most: pool.spec.bounds.1,
        from: explained.from,
        to: explained.to,
        silent: explained.seen.silent > 0,
        in_flight: explained.in_flight,
    })
}

/// What of one pool's share may come about now: what is silent, in flight or within the policy's windows holds.
fn stabilize(now: Micros, tuning: &Tuning, pool: &mut Pool, wish: Wish, share: Share) -> PoolExplanation {
    let Wish { seen, believed, load, needs, current, mut reasons, in_flight, .. } = wish;
    let mut to = share.replicas;
    if share.cut {
        reasons.insert(0, Reason::Budget);
    }
    let (least, most) = pool.spec.bounds;
    // Beyond the upper bound nothing is held.
    let hold = current.min(most.max(least));
    if to < hold && seen.silent > 0 {
        to = hold;
        reasons.insert(0, Reason::Silence);
    }
    if to < hold.min(in_flight) {
        to = hold.min(in_flight);
        reasons.insert(0, Reason::InFlight);
    }
    let mut behavior = pool.spec.behavior.clone();
    behavior.scale_down.stabilization_window_seconds = Some(pool.down_window_s(tuning));
    let kept = pool.kept(now, tuning, current, to);
    pool.history.want(now, to);
    if kept > to {
        to = kept;
        reasons.insert(0, Reason::Keep);
    }
    let allowed = behavior.allowed(&pool.history, now, current, to);
    let held_back: Option<HeldBack> = allowed.held_back.filter(|_| allowed.replicas != to);
    if held_back.is_some() {
        reasons.insert(0, Reason::Behavior);
    }
    let to = allowed.replicas.clamp(least.min(current), most.max(least));
    if to == current {
        reasons.push(Reason::Steady);
    }
    PoolExplanation { seen, believed, load, needs, from: current, to, reasons, held_back, in_flight }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
pub(crate) mod tests;
