//! What a pool takes note of besides what is told of it (decisions, a clock that is set back), and what it foresees.

use plimsoll_common::units::Micros;

use super::Pool;
use crate::perf::Foreseen;

/// Draws of requests that a forecast of latencies is the mean of.
const DRAWS: u32 = 8;

impl Pool {
    /// When something was told of it last.
    pub(crate) fn seen_at(&self) -> Option<Micros> {
        self.seen.as_ref().map(|(at, _)| *at)
    }

    /// Takes note of a decision. It is in force from now on: the target told before is older, so that a step without
    /// news begins where the one before ended.
    pub(crate) fn decided(&mut self, now: Micros, from: u32, to: u32) {
        self.history.moved(now, from, to);
        self.patience.moved(now, from, to);
        self.target = Some(to);
        if let Some((_, seen)) = &mut self.seen {
            seen.replicas.target = Some(to);
        }
    }

    /// Nothing that was noted lies after `now`: the clock was set back.
    pub(crate) fn turn_back(&mut self, now: Micros) {
        if let Some((at, _)) = &mut self.seen {
            *at = now.min(*at);
        }
        self.first_seen = self.first_seen.map(|at| at.min(now));
        self.known_since = self.known_since.map(|at| at.min(now));
        self.queued_since = self.queued_since.map(|(at, most)| (at.min(now), most));
        self.history.turn_back(now);
        self.patience.turn_back(now);
    }

    /// The latencies to be expected of so many replicas at a rate; none while too little is known.
    pub(crate) fn foresee(&self, replicas: u32, rate: f64) -> Option<Foreseen> {
        let engines = replicas.saturating_mul(self.spec.engines_per_replica.max(1));
        self.question()?.foresee(engines, rate, DRAWS)
    }
}
