//! KEDA-like: so many requests in flight a replica.
//!
//! Every 30 s (the polling interval's default): desired = ⌈requests in flight / target⌉, those at the front door
//! included, unless that is within 10 % of what is there. Up at once; down to the greatest number that was desired in
//! the last 300 s (the cool-down's and the stabilisation window's default).

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;

use super::{PolicyError, settings::Settings, window::Window};
use crate::policy::{Decision, Observation, PoolId, PoolObservation, ScalingPolicy};

/// Requests in flight at a pool: running and waiting, at replicas that do not drain and at the door.
pub(super) fn in_flight(pool: &PoolObservation) -> u32 {
    let at_door = pool.door.map_or(0, |door| door.waiting);
    let serving = pool.replicas.iter().filter(|replica| !replica.draining);
    serving.map(|replica| replica.running + replica.waiting).sum::<u32>() + at_door
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Keda {
    in_flight: f64,
    poll: Micros,
    cool_down: Micros,
    wanted: BTreeMap<PoolId, Window>,
}

impl Keda {
    pub(super) const SETTINGS: &'static [&'static str] = &["in_flight", "poll", "cool_down"];

    /// With a target: requests in flight a replica.
    #[must_use]
    pub const fn new(in_flight: f64) -> Self {
        let (poll, cool_down) = (Micros::from_millis(30_000), Micros::from_millis(300_000));
        Self { in_flight, poll, cool_down, wanted: BTreeMap::new() }
    }

    /// With another polling interval and cool-down than the defaults.
    #[must_use]
    pub fn with_times(self, poll: Micros, cool_down: Micros) -> Self {
        Self { poll, cool_down, ..self }
    }

    pub(super) fn read(settings: &Settings<'_>) -> Result<Self, PolicyError> {
        let in_flight = settings.number("in_flight", (0.01, 1e6))?.unwrap_or(30.0);
        let (poll, cool_down) = (settings.seconds("poll", 30)?, settings.seconds("cool_down", 300)?);
        Ok(Self::new(in_flight).with_times(poll, cool_down))
    }
}

impl ScalingPolicy for Keda {
    fn name(&self) -> String {
        format!("keda in-flight {}", self.in_flight)
    }

    fn interval(&self) -> Micros {
        self.poll
    }

    fn decide(&mut self, now: Micros, observation: &Observation) -> Decision {
        let mut decision = Decision::default();
        for pool in &observation.pools {
            let wanted = f64::from(in_flight(pool)) / self.in_flight;
            let unchanged = (wanted / f64::from(pool.target.max(1)) - 1.0).abs() <= 0.1;
            let desired = if unchanged { pool.target } else { (wanted.ceil() as u32).max(1) };
            let window = self.wanted.entry(pool.id).or_insert_with(|| Window::new(self.cool_down));
            window.add(now, f64::from(desired));
            let replicas =
                if desired < pool.target { (window.max() as u32).min(pool.target) } else { desired };
            decision.set(pool.id, replicas, format!("{} in flight", in_flight(pool)));
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::testing::{Seen, at, run_burst, targets};

    #[test]
    fn it_divides_what_is_in_flight() {
        let mut keda = Keda::new(10.0);
        assert_eq!(targets(&keda.decide(at(30), &Seen::of(2).waiting(20).running(5).observation(30))), [5]);
        // 21 of 20 is within 10 %.
        let mut keda = Keda::new(20.0);
        assert_eq!(targets(&keda.decide(at(30), &Seen::of(1).running(21).observation(30))), [1]);
    }

    #[test]
    fn it_cools_down_before_it_scales_down() {
        let mut keda = Keda::new(10.0);
        assert_eq!(targets(&keda.decide(at(30), &Seen::of(3).running(10).observation(30))), [3]);
        assert_eq!(targets(&keda.decide(at(300), &Seen::of(3).running(1).observation(30))), [3]);
        assert_eq!(targets(&keda.decide(at(330), &Seen::of(3).running(1).observation(30))), [1]);
    }

    #[test]
    fn it_grows_and_shrinks_with_a_burst() {
        let run = run_burst(&mut Keda::new(10.0));
        assert!(run.actions.iter().any(|a| a.to > a.from) && run.actions.iter().any(|a| a.to < a.from));
    }
}
