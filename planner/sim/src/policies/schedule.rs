//! A schedule made beforehand: what an oracle would do, or a timetable of an operator's.

use plimsoll_common::units::Micros;

use crate::policy::{Decision, Observation, PoolId, ScalingPolicy};

/// Targets that were fixed before anything began. A schedule foresees nothing of the world's mishaps: replicas start and
/// drain as they do for everybody.
#[derive(Clone, Debug)]
pub struct Schedule {
    name: String,
    interval: Micros,
    /// By time: from when on a pool's target is what.
    entries: Vec<(Micros, PoolId, u32)>,
    next: usize,
}

impl Schedule {
    /// Targets from given times on, in any order; those of one moment and pool count in the order in which they are
    /// given. They are set at the first tick at or after their time, so the interval says how exactly they are kept.
    #[must_use]
    pub fn new(name: &str, interval: Micros, mut entries: Vec<(Micros, PoolId, u32)>) -> Self {
        entries.sort_by_key(|(at, _, _)| *at);
        Self { name: name.to_owned(), interval, entries, next: 0 }
    }
}

impl ScalingPolicy for Schedule {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn interval(&self) -> Micros {
        self.interval
    }

    fn decide(&mut self, now: Micros, _observation: &Observation) -> Decision {
        let mut decision = Decision::default();
        while let Some((_, pool, replicas)) = self.entries.get(self.next).filter(|(at, _, _)| *at <= now) {
            decision.set(*pool, *replicas, "as scheduled");
            self.next += 1;
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_set_once_and_in_order() {
        let second = |s: u64| Micros(s * 1_000_000);
        let entries = vec![(second(20), PoolId(0), 5), (second(3), PoolId(0), 2), (second(9), PoolId(1), 7)];
        let mut schedule = Schedule::new("oracle", second(10), entries);
        let nothing = Observation { window: second(10), pools: Vec::new() };
        let mut at = |s: u64| {
            let decision = schedule.decide(second(s), &nothing);
            decision.targets.iter().map(|target| (target.pool.0, target.replicas)).collect::<Vec<_>>()
        };
        assert_eq!(at(10), vec![(0, 2), (1, 7)]);
        assert_eq!(at(20), vec![(0, 5)]);
        assert!(at(30).is_empty());
    }
}
