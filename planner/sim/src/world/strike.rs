//! Faults happen and pass.

use super::{
    World,
    faults::{DRIFT_STEPS, Fault, Who},
};
use crate::policy::{PoolId, ReplicaId};

impl World<'_> {
    pub(super) fn strike(&mut self, index: usize, step: u32) {
        match self.config.faults[index] {
            Fault::Death { pool, who, .. } => {
                for id in self.victims(pool, who) {
                    self.die(id);
                }
            }
            Fault::Slow { pool, who, factor, .. } => {
                let factor = if step == 0 { factor } else { 1.0 / factor };
                self.strike_some(index, step, pool, who, |world, whom| match whom {
                    Some(id) => world.replica(id).slow *= factor,
                    None => world.pools[pool.0 as usize].slow *= factor,
                });
                self.set_paces(pool);
            }
            Fault::Drift { pool, factor, .. } => {
                let done = f64::from(step + 1) / f64::from(DRIFT_STEPS);
                self.pools[pool.0 as usize].drift = 1.0 + (factor - 1.0) * done;
                self.set_paces(pool);
            }
            Fault::HotSpot { pool, nth, share, .. } => {
                self.pools[pool.0 as usize].hot = (step == 0).then_some((nth, share));
            }
            Fault::Silence { pool, who, .. } => {
                self.strike_some(index, step, pool, who, |world, whom| match whom {
                    Some(id) => world.replica(id).silent = step == 0,
                    None => world.pools[pool.0 as usize].silent = step == 0,
                });
            }
        }
    }

    /// Does something to those whom a fault strikes, or on its second step to those whom it struck on its first; to
    /// the pool as a whole (None) where all are struck.
    fn strike_some(
        &mut self,
        index: usize,
        step: u32,
        pool: PoolId,
        who: Who,
        mut act: impl FnMut(&mut Self, Option<ReplicaId>),
    ) {
        if who == Who::All {
            return act(self, None);
        }
        if step == 0 {
            self.struck[index] = self.victims(pool, who);
        }
        for id in self.struck[index].clone() {
            act(self, Some(id));
        }
    }

    fn victims(&self, pool: PoolId, who: Who) -> Vec<ReplicaId> {
        let ready = &self.pools[pool.0 as usize].ready;
        match who {
            Who::Nth(nth) => ready.get(nth as usize).copied().into_iter().collect(),
            Who::All => ready.clone(),
        }
    }

    fn set_paces(&mut self, pool: PoolId) {
        let pool = &self.pools[pool.0 as usize];
        let ids: Vec<ReplicaId> = pool.ready.iter().chain(&pool.draining).copied().collect();
        for id in ids {
            self.advance(id);
            self.set_pace(id);
        }
    }
}
