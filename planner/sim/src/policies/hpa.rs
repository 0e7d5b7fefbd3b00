//! Kubernetes' HorizontalPodAutoscaler on a metric of the engines.
//!
//! Every 15 s: desired = ⌈replicas × mean / target⌉, unless mean / target is within 10 % of 1. Replicas that are not
//! ready and those that tell nothing count as idle when that would scale up, and silent ones as being at the target when
//! it would scale down, as the controller does; a correction never turns the direction. In 15 s the number may at most
//! double or grow by 4, whichever is more. Down to the greatest number that was desired in the last 300 s. With two
//! metrics the greater number counts.
//!
//! Targets have no default in Kubernetes; ours, without one, is 5 waiting requests a replica.

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;

use super::{PolicyError, settings::Settings, window::Window};
use crate::policy::{Decision, Observation, PoolId, PoolObservation, ReplicaObservation, ScalingPolicy};

const TOLERANCE: f64 = 0.1;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Hpa {
    /// Waiting requests of a replica to aim at.
    queue: Option<f64>,
    /// Share of KV blocks held to aim at, 0 to 1.
    kv: Option<f64>,
    sync: Micros,
    down: Micros,
    wanted: BTreeMap<PoolId, Window>,
}

impl Hpa {
    pub(super) const SETTINGS: &'static [&'static str] = &["queue", "kv", "sync", "down"];

    /// With targets: waiting requests of a replica, and the share of its KV blocks that are held. At least one should
    /// be given; without any the fleet stays as it is.
    #[must_use]
    pub const fn new(queue: Option<f64>, kv: Option<f64>) -> Self {
        let (sync, down) = (Micros::from_millis(15_000), Micros::from_millis(300_000));
        Self { queue, kv, sync, down, wanted: BTreeMap::new() }
    }

    pub(super) fn read(settings: &Settings<'_>) -> Result<Self, PolicyError> {
        let kv = settings.number("kv", (0.01, 1.0))?;
        let queue = settings.number("queue", (0.01, 1e6))?;
        let queue = queue.or_else(|| kv.is_none().then_some(5.0));
        Ok(Self {
            sync: settings.seconds("sync", 15)?,
            down: settings.seconds("down", 300)?,
            ..Self::new(queue, kv)
        })
    }

    /// What is wanted now, before stabilisation.
    fn desired(&self, pool: &PoolObservation) -> u32 {
        let of = |target: Option<f64>, metric: fn(&ReplicaObservation) -> f64| {
            target.map(|target| desired(pool, target, metric))
        };
        let by_queue = of(self.queue, |replica| f64::from(replica.waiting));
        by_queue.max(of(self.kv, |replica| replica.kv_usage)).unwrap_or(pool.target)
    }
}

fn desired(pool: &PoolObservation, target: f64, metric: fn(&ReplicaObservation) -> f64) -> u32 {
    let told: Vec<f64> = pool.replicas.iter().filter(|replica| !replica.draining).map(metric).collect();
    if told.is_empty() {
        return pool.target;
    }
    let sum: f64 = told.iter().sum();
    let ratio = sum / told.len() as f64 / target;
    if (ratio - 1.0).abs() <= TOLERANCE {
        return pool.target;
    }
    let silent = f64::from(pool.silent());
    let (others, at_target) =
        if ratio > 1.0 { (pool.starting.len() as f64 + silent, 0.0) } else { (silent, silent * target) };
    let counted = told.len() as f64 + others;
    let corrected = (sum + at_target) / counted / target;
    let turned = (corrected > 1.0) != (ratio > 1.0);
    if turned || (corrected - 1.0).abs() <= TOLERANCE {
        return pool.target;
    }
    let desired = (corrected * counted - 1e-9).ceil() as u32;
    // Replicas that were not counted are no reason to move against what the ratio says.
    if corrected > 1.0 { desired.max(pool.target) } else { desired.min(pool.target).max(1) }
}

impl ScalingPolicy for Hpa {
    fn name(&self) -> String {
        let targets = [self.queue.map(|q| format!("queue {q}")), self.kv.map(|kv| format!("kv {kv}"))];
        format!("hpa {}", targets.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }

    fn interval(&self) -> Micros {
        self.sync
    }

    fn decide(&mut self, now: Micros, observation: &Observation) -> Decision {
        let mut decision = Decision::default();
        for pool in &observation.pools {
            let desired = self.desired(pool);
            let window = self.wanted.entry(pool.id).or_insert_with(|| Window::new(self.down));
            window.add(now, f64::from(desired));
            let quickest = pool.target.saturating_mul(2).max(pool.target.saturating_add(4));
            let replicas = if desired < pool.target {
                (window.max() as u32).min(pool.target)
            } else {
                desired.min(quickest)
            };
            decision.set(pool.id, replicas, format!("{desired} desired"));
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::testing::{Seen, at, run_burst, targets};

    #[test]
    fn it_scales_by_the_ratio_outside_the_tolerance() {
        let mut hpa = Hpa::new(Some(5.0), None);
        // 10 each of 2 replicas: twice the target.
        assert_eq!(targets(&hpa.decide(at(15), &Seen::of(2).waiting(10).observation(15))), [4]);
        // 5.4 of 5 is within 10 %.
        assert_eq!(hpa.desired(&Seen::of(10).waiting(5).observation(15).pools[0]), 10);
        // Starting replicas count as idle: (20 + 0) / 4 is the target.
        assert_eq!(hpa.desired(&Seen::of(2).starting(2).waiting(10).observation(15).pools[0]), 4);
    }

    #[test]
    fn it_scales_down_to_the_most_of_five_minutes() {
        let mut hpa = Hpa::new(Some(5.0), None);
        assert_eq!(targets(&hpa.decide(at(15), &Seen::of(4).waiting(5).observation(15))), [4]);
        for s in (30..=300).step_by(15) {
            let decision = hpa.decide(at(s), &Seen::of(4).waiting(1).observation(15));
            assert_eq!(targets(&decision), [4], "{s} s");
        }
        assert_eq!(targets(&hpa.decide(at(315), &Seen::of(4).waiting(1).observation(15))), [1]);
    }

    #[test]
    fn it_grows_by_at_most_four_or_double_in_a_sync() {
        let mut hpa = Hpa::new(None, Some(0.5));
        assert_eq!(targets(&hpa.decide(at(15), &Seen::of(1).kv(1.0).observation(15))), [2]);
        let mut hpa = Hpa::new(Some(1.0), None);
        assert_eq!(targets(&hpa.decide(at(15), &Seen::of(1).waiting(90).observation(15))), [5]);
        assert_eq!(targets(&hpa.decide(at(15), &Seen::of(8).waiting(90).observation(15))), [16]);
    }

    #[test]
    fn it_grows_and_shrinks_with_a_burst() {
        let run = run_burst(&mut Hpa::new(Some(2.0), None));
        assert!(run.actions.iter().any(|a| a.to > a.from) && run.actions.iter().any(|a| a.to < a.from));
    }
}
