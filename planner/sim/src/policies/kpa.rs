//! Knative's pod autoscaler (KPA) on requests in flight.
//!
//! Every 2 s it takes the mean of the requests in flight over a stable window of 60 s and a panic window of 6 s, and
//! divides each by the target. If the panic window wants at least 200 % of the replicas that are ready, it panics: it
//! takes the greater number and never scales down until a whole stable window has gone by without cause for panic.
//! Otherwise the stable window counts. At once at most 1,000 times as many, and at least half as many, as are ready.
//!
//! The default target is Knative's: 70 % of 100 requests in flight.

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;

use super::{PolicyError, keda::in_flight, settings::Settings, window::Window};
use crate::policy::{Decision, Observation, PoolId, PoolObservation, ScalingPolicy};

const TICK: Micros = Micros(2_000_000);
const MAX_SCALE_UP: f64 = 1_000.0;
const MAX_SCALE_DOWN: f64 = 2.0;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Kpa {
    in_flight: f64,
    stable: Micros,
    panic: Micros,
    threshold: f64,
    pools: BTreeMap<PoolId, State>,
}

#[derive(Clone, Debug)]
struct State {
    stable: Window,
    panic: Window,
    /// Since when there is panic, renewed as long as there is cause; and the most that was wanted in it.
    panicking: Option<(Micros, u32)>,
}

impl Kpa {
    pub(super) const SETTINGS: &'static [&'static str] = &["in_flight", "stable", "panic", "threshold"];

    /// With a target: requests in flight a replica.
    #[must_use]
    pub const fn new(in_flight: f64) -> Self {
        let (stable, panic) = (Micros::from_millis(60_000), Micros::from_millis(6_000));
        Self { in_flight, stable, panic, threshold: 2.0, pools: BTreeMap::new() }
    }

    pub(super) fn read(settings: &Settings<'_>) -> Result<Self, PolicyError> {
        Ok(Self {
            stable: settings.seconds("stable", 60)?,
            panic: settings.seconds("panic", 6)?,
            threshold: settings.number("threshold", (110.0, 1_000.0))?.unwrap_or(200.0) / 100.0,
            ..Self::new(settings.number("in_flight", (0.01, 1e6))?.unwrap_or(70.0))
        })
    }

    fn wanted(&mut self, now: Micros, pool: &PoolObservation) -> u32 {
        let fresh =
            || State { stable: Window::new(self.stable), panic: Window::new(self.panic), panicking: None };
        let state = self.pools.entry(pool.id).or_insert_with(fresh);
        let here = f64::from(in_flight(pool));
        state.stable.add(now, here);
        state.panic.add(now, here);
        let ready = f64::from(pool.ready.max(1));
        let of = |window: &Window| {
            let wanted = (window.mean() / self.in_flight).ceil();
            wanted.clamp((ready / MAX_SCALE_DOWN).floor(), (ready * MAX_SCALE_UP).ceil()).max(1.0)
        };
        let (stable, panic) = (of(&state.stable), of(&state.panic));
        let cause = panic / ready >= self.threshold;
        let wanted = stable.max(panic) as u32;
        state.panicking = match state.panicking {
            Some((_, most)) if cause => Some((now, most.max(wanted))),
            None if cause => Some((now, wanted)),
            Some((since, most)) if now.saturating_sub(since) <= self.stable => {
                Some((since, most.max(wanted)))
            }
            _ => None,
        };
        state.panicking.map_or(stable as u32, |(_, most)| most)
    }
}

impl ScalingPolicy for Kpa {
    fn name(&self) -> String {
        format!("kpa in-flight {}", self.in_flight)
    }

    fn interval(&self) -> Micros {
        TICK
    }

    fn decide(&mut self, now: Micros, observation: &Observation) -> Decision {
        let mut decision = Decision::default();
        for pool in &observation.pools {
            let wanted = self.wanted(now, pool);
            let panicking = self.pools.get(&pool.id).is_some_and(|state| state.panicking.is_some());
            decision.set(pool.id, wanted, if panicking { "panic window" } else { "stable window" });
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::testing::{Seen, at, run_burst, targets};

    #[test]
    fn a_steady_load_is_divided_by_the_target() {
        let mut kpa = Kpa::new(10.0);
        for s in (2..=60).step_by(2) {
            let decision = kpa.decide(at(s), &Seen::of(2).running(12).observation(2));
            assert_eq!(targets(&decision), [3], "{s} s");
        }
    }

    #[test]
    fn it_panics_at_twice_what_is_there_and_stays_up_for_a_stable_window() {
        let mut kpa = Kpa::new(10.0);
        let mut last = Vec::new();
        for s in (2..=60).step_by(2) {
            last = targets(&kpa.decide(at(s), &Seen::of(2).running(1).observation(2)));
        }
        assert_eq!(last, [1]);
        // The mean of the last 6 s: 50 × 2, of 2 replicas.
        let busy = || Seen::of(2).running(50).observation(2);
        let wanted: Vec<u32> =
            [62, 64, 66].iter().map(|s| targets(&kpa.decide(at(*s), &busy()))[0]).collect();
        assert_eq!(wanted, [4, 7, 10]);
        let calm = |kpa: &mut Kpa, s| targets(&kpa.decide(at(s), &Seen::of(10).running(0).observation(2)));
        assert_eq!(calm(&mut kpa, 68), [10]);
        assert_eq!(calm(&mut kpa, 126), [10]);
        // No cause for more than a minute; at least half as many as are ready.
        assert_eq!(calm(&mut kpa, 128), [5]);
    }

    #[test]
    fn it_grows_and_shrinks_with_a_burst() {
        let run = run_burst(&mut Kpa::new(30.0));
        assert!(run.actions.iter().any(|a| a.to > a.from) && run.actions.iter().any(|a| a.to < a.from));
    }
}
