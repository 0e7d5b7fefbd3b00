//! llm-d's workload variant autoscaler, its saturation analyser of percentages (V1), for one variant.
//!
//! Once a minute: a replica is saturated if it holds at least 80 % of its KV blocks or 5 requests wait. One replica more
//! if the others have, on average, less than 10 points of KV or fewer than 3 waiting requests to spare below that, or if
//! there are no others. One less if what the others hold, laid on one replica fewer, leaves that much to spare. Nothing
//! while replicas start.

use plimsoll_common::units::Micros;

use super::{PolicyError, settings::Settings};
use crate::policy::{Decision, Observation, PoolObservation, ScalingPolicy};

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Wva {
    interval: Micros,
    kv: f64,
    queue: f64,
    spare_kv: f64,
    spare_queue: f64,
}

impl Default for Wva {
    fn default() -> Self {
        Self { interval: Micros::from_millis(60_000), kv: 0.8, queue: 5.0, spare_kv: 0.1, spare_queue: 3.0 }
    }
}

impl Wva {
    pub(super) const SETTINGS: &'static [&'static str] =
        &["interval", "kv", "queue", "spare_kv", "spare_queue"];

    pub(super) fn read(settings: &Settings<'_>) -> Result<Self, PolicyError> {
        let usual = Self::default();
        Ok(Self {
            interval: settings.seconds("interval", 60)?,
            kv: settings.number("kv", (0.01, 1.0))?.unwrap_or(usual.kv),
            queue: settings.number("queue", (0.01, 1e6))?.unwrap_or(usual.queue),
            spare_kv: settings.number("spare_kv", (0.0, 1.0))?.unwrap_or(usual.spare_kv),
            spare_queue: settings.number("spare_queue", (0.0, 1e6))?.unwrap_or(usual.spare_queue),
        })
    }

    /// The new target and why, if there is cause for one.
    fn wanted(&self, pool: &PoolObservation) -> Option<(u32, &'static str)> {
        let told: Vec<_> = pool.replicas.iter().filter(|replica| !replica.draining).collect();
        if told.is_empty() || !pool.starting.is_empty() {
            return None;
        }
        let free = |kv: f64, waiting: f64| kv < self.kv && waiting < self.queue;
        let (mut others, mut kv, mut waiting) = (0_u32, 0.0, 0.0);
        for replica in told.iter().filter(|replica| free(replica.kv_usage, f64::from(replica.waiting))) {
            others += 1;
            kv += replica.kv_usage;
            waiting += f64::from(replica.waiting);
        }
        let short = |replicas: u32| {
            let (kv, waiting) = (kv / f64::from(replicas), waiting / f64::from(replicas));
            self.kv - kv < self.spare_kv || self.queue - waiting < self.spare_queue
        };
        if others == 0 || short(others) {
            Some((pool.target.saturating_add(1), "saturated"))
        } else {
            (others >= 2 && !short(others - 1))
                .then(|| (pool.target.saturating_sub(1).max(1), "spare without one"))
        }
    }
}

impl ScalingPolicy for Wva {
    fn name(&self) -> String {
        format!("wva kv {} queue {}", self.kv, self.queue)
    }

    fn interval(&self) -> Micros {
        self.interval
    }

    fn decide(&mut self, _now: Micros, observation: &Observation) -> Decision {
        let mut decision = Decision::default();
        for pool in &observation.pools {
            if let Some((replicas, reason)) = self.wanted(pool) {
                decision.set(pool.id, replicas, reason);
            }
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::testing::{Seen, at, run_burst, targets};

    #[test]
    fn it_keeps_headroom_on_the_replicas_that_are_not_saturated() {
        let wanted = |seen: Seen| targets(&Wva::default().decide(at(60), &seen.observation(60)));
        assert_eq!(wanted(Seen::of(2).kv(0.72)), [3]);
        assert_eq!(wanted(Seen::of(2).kv(0.9)), [3]);
        assert_eq!(wanted(Seen::of(2).waiting(3)), [3]);
        // 2 × 0.5 on one replica is saturated, 2 × 0.3 is not.
        assert!(wanted(Seen::of(2).kv(0.5)).is_empty());
        assert_eq!(wanted(Seen::of(2).kv(0.3)), [1]);
        assert!(wanted(Seen::of(1).kv(0.0)).is_empty());
        assert!(wanted(Seen::of(2).starting(1).kv(0.9)).is_empty());
        // The saturated one does not count for the spare of the others.
        let one_hot = Seen::of(3).kv(0.3).each(|replica| {
            if replica.id.0 == 0 {
                replica.kv_usage = 0.95;
            }
        });
        assert_eq!(wanted(one_hot), [2]);
    }

    #[test]
    fn it_grows_and_shrinks_with_a_burst() {
        let run = run_burst(&mut Wva::default());
        assert!(run.actions.iter().any(|a| a.to > a.from) && run.actions.iter().any(|a| a.to < a.from));
    }
}
