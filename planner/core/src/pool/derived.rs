//! What follows from what was learned of a pool, worked out once an observation.

use plimsoll_common::{engine::Role, units::Ratio};

use super::Pool;
use crate::perf::{Mix, Posed, Question};

/// What follows from the rest of a [`Pool`] and from nothing else. It is not in a checkpoint, and forgotten whenever what it
/// follows from changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Derived {
    /// What requests are like.
    pub(super) mix: Option<Mix>,
    /// What the pool's capacity depends on; none while that is unknown.
    pub(super) posed: Option<Posed>,
}

impl Pool {
    pub(super) fn derived(&self) -> &Derived {
        self.derived.get_or_init(|| self.derive(self.demand.mix(self.spec.role)))
    }

    /// What its capacity depends on; none while that is unknown.
    pub(crate) fn question(&self) -> Option<&Question> {
        self.derived().posed.as_ref().map(Posed::question)
    }

    /// With a mix that is that of its demand.
    pub(super) fn derive(&self, mix: Option<Mix>) -> Derived {
        Derived { mix, posed: mix.and_then(|mix| self.pose(mix)).map(Posed::new) }
    }

    fn pose(&self, mix: Mix) -> Option<Question> {
        if self.spec.thresholds.is_some() {
            return None;
        }
        let mut engine = self.spec.engine.clone()?;
        let mut slo = self.spec.slo?;
        engine.timing.factor *= self.calibration.factor();
        // A request that two pools serve must be served well by both.
        let parts = if self.spec.role == Role::Aggregated { 1.0 } else { 2.0 };
        let misses = (1.0 - slo.goal.get()) / parts;
        slo.goal = Ratio::new(1.0 - misses).unwrap_or(slo.goal);
        let burstiness = self.demand.dispersion();
        Some(Question { engine, role: self.spec.role, routing: self.spec.routing, mix, burstiness, slo })
    }
}
