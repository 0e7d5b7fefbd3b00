//! The same number of replicas all the time.

use plimsoll_common::units::Micros;

use crate::policy::{Decision, Observation, PoolId, ScalingPolicy};

/// A static fleet: what most deployments are, and what every policy has to beat.
#[derive(Clone, Debug)]
pub struct Fixed {
    targets: Vec<u32>,
}

impl Fixed {
    /// A number of replicas for each pool, by pool id. A pool without one keeps what it started with.
    #[must_use]
    pub const fn new(targets: Vec<u32>) -> Self {
        Self { targets }
    }
}

impl ScalingPolicy for Fixed {
    fn name(&self) -> String {
        let numbers: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        format!("static {}", numbers.join("+"))
    }

    fn interval(&self) -> Micros {
        Micros::from_millis(60_000)
    }

    fn decide(&mut self, _now: Micros, _observation: &Observation) -> Decision {
        let mut decision = Decision::default();
        for (pool, replicas) in self.targets.iter().enumerate() {
            decision.set(PoolId(pool as u32), *replicas, "static");
        }
        decision
    }
}
