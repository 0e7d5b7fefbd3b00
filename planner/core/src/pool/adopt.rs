//! What was learned of a pool, under a policy that may have changed since.

use std::sync::OnceLock;

use super::Pool;
use crate::{
    perf::{Calibration, CapacityTable},
    spec::PoolSpec,
};

impl Pool {
    /// The same pool under a new specification: what no longer applies is forgotten, the policy's words are taken anew.
    #[must_use]
    pub(crate) fn adopt(self, spec: PoolSpec) -> Self {
        if self.spec.model != spec.model || self.spec.role != spec.role {
            return Self::new(spec);
        }
        let mut pool = self;
        if pool.spec.engine != spec.engine {
            // How much slower than its profile an engine is says nothing about another profile.
            pool.calibration = Calibration::default();
            pool.engines.clear();
            pool.table = CapacityTable::default();
        }
        if pool.spec.lengths != spec.lengths && pool.known_since.is_none() {
            pool.demand = Self::new(spec.clone()).demand;
        }
        pool.start_up.set_prior(spec.start_up);
        pool.spec = spec;
        pool.derived = OnceLock::new();
        pool
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_common::{engine::Role, units::Micros};

    use super::*;
    use crate::controller::tests::{calm, spec};

    #[test]
    fn a_new_word_of_the_policy_counts_and_what_was_learned_stays() {
        let mut pool = Pool::new(spec("a"));
        for n in 1..=8 {
            pool.learn(Micros(n * 10_000_000), calm("a", 2, 5.0), None);
        }
        let rate = pool.demand.rate();
        assert!(rate.is_some_and(|rate| rate > 4.0));
        let changed = PoolSpec { start_up: Micros(5_000_000), bounds: (2, 4), ..spec("a") };
        let adopted = pool.clone().adopt(changed.clone());
        assert_eq!(adopted.spec, changed);
        assert_eq!(adopted.start_up.quantile(0.9), Micros(5_000_000));
        assert_eq!(adopted.demand, pool.demand);
        assert_eq!(adopted.calibration, pool.calibration);
    }

    #[test]
    fn another_profile_forgets_the_calibration_and_another_role_everything() {
        let mut pool = Pool::new(spec("a"));
        for _ in 0..50 {
            pool.calibration.observe(1.5, 500.0);
        }
        pool.learn(Micros(10_000_000), calm("a", 2, 5.0), None);
        let engine = spec("a").engine.map(|mut engine| {
            engine.max_num_seqs /= 2;
            engine
        });
        let adopted = pool.clone().adopt(PoolSpec { engine, ..spec("a") });
        assert_eq!(adopted.calibration, Calibration::default());
        assert!(adopted.seen.is_some());
        let adopted = pool.adopt(PoolSpec { role: Role::Prefill, ..spec("a") });
        assert!(adopted.seen.is_none());
    }
}
