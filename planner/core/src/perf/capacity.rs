//! What a pool takes within its SLO, waiting included.
//!
//! Formulas for queues know neither chunked prefill nor a batch that slows everybody down, so the engines themselves are
//! run ahead: the greatest rate is searched at which the goal's share of requests keeps the limits, for 1, 2, 4 and 8
//! replicas. Pools of other sizes lie between; more replicas share bursts better, so a replica of a larger pool takes no
//! less.

use plimsoll_common::engine::Role;
use plimsoll_engine::EngineConfig;
use serde::{Deserialize, Serialize};

use super::{
    analytic,
    mix::Mix,
    trial::{Drawn, Enough, Trial},
};
use crate::{policy::Routing, score::Slo};

/// The sizes that are tried.
pub const SIZES: [u32; 4] = [1, 2, 4, 8];

/// The shares of the allowed misses that rates are searched for: a careful, a fair and a generous one.
pub const SPENDS: [f64; 3] = [0.4, 1.0, 3.0];

/// How closely a rate is searched: the share of it between the rates that keep and miss the goal.
const CLOSENESS: f64 = 0.02;

/// The most trials of one search.
const MOST_TRIALS: u32 = 10;

/// All that a capacity depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The engine, as calibrated.
    pub engine: EngineConfig,
    /// Which part of a request it serves.
    pub role: Role,
    /// How requests are spread.
    pub routing: Routing,
    /// What requests are like.
    pub mix: Mix,
    /// Squared coefficient of variation of the gaps between requests, at least 1.
    pub burstiness: f64,
    /// What is promised; the goal is the share of requests that must keep it.
    pub slo: Slo,
}

impl Question {
    /// Requests a second that one replica takes in the long run if nobody minds waiting.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        analytic::rps(self.role, &self.engine, &self.mix, &Slo { ttft: None, itl: None, ..self.slo })
    }

    /// Requests a second that one replica takes, its latencies within the SLO on the mean.
    #[must_use]
    pub fn on_the_mean(&self) -> f64 {
        analytic::rps(self.role, &self.engine, &self.mix, &self.slo)
    }

    /// Requests a second that each of so many replicas takes such that no more than each of [`SPENDS`] times the
    /// allowed share of requests misses; 0 where no rate is low enough. Every `draw` tries other requests of the same mix.
    #[must_use]
    pub fn search(&self, replicas: u32, draw: u64) -> [f64; 3] {
        let trial = self.trial(draw);
        let drawn = trial.draw(replicas);
        let (mean, throughput) = (self.on_the_mean().clamp(1e-6, 1e6), self.throughput());
        let kept = 1.0 - self.allowed() * SPENDS[2];
        let mut tries = Tries { trial, drawn, replicas, kept, mean, throughput, seen: Vec::new() };
        let mut found = [0.0; 3];
        // The loosest first: what it tries brackets the others.
        for place in [2, 1, 0] {
            found[place] = tries.search(self.allowed() * SPENDS[place]);
        }
        found[1] = found[1].max(found[0]);
        found[2] = found[2].max(found[1]);
        found
    }

    /// Engines run ahead under requests of this mix; every `draw` draws others.
    pub(super) const fn trial(&self, draw: u64) -> Trial<'_> {
        let Self { engine, role, routing, mix, burstiness, slo } = self;
        Trial { engine, role: *role, routing: *routing, mix, burstiness: *burstiness, slo, draw }
    }

    /// The share of requests that may miss.
    fn allowed(&self) -> f64 {
        (1.0 - self.slo.goal.get()).max(1e-6)
    }
}

/// The trials of one size, so that none is run twice.
struct Tries<'a> {
    trial: Trial<'a>,
    drawn: Drawn,
    replicas: u32,
    /// The share of requests that has to be kept at the loosest level.
    kept: f64,
    /// What one replica takes by the formula: latencies within the SLO on the mean, and no matter how long one waits.
    mean: f64,
    throughput: f64,
    /// Rate a replica, and the share that misses: exact up to the level that was searched then, above it only "more".
    /// Levels get stricter, so that is all that later ones need.
    seen: Vec<(f64, f64)>,
}

impl Tries<'_> {
    fn misses(&mut self, rate: f64, allowed: f64) -> f64 {
        let enough = Enough { kept: self.kept, asked: allowed };
        let all = rate * f64::from(self.replicas);
        let misses = 1.0 - self.trial.attained(&self.drawn, self.replicas, all, enough);
        self.seen.push((rate, misses));
        misses
    }

    /// The greatest rate with at most this share of misses, between what was tried already.
    fn search(&mut self, allowed: f64) -> f64 {
        let mean = self.mean;
        let within = |misses: f64| misses <= allowed + 1e-12;
        let kept = self.seen.iter().filter(|(_, misses)| within(*misses)).map(|(rate, _)| *rate);
        let mut low = kept.fold(0.0, f64::max);
        let broken = self.seen.iter().filter(|(rate, misses)| !within(*misses) && *rate > low);
        let mut high = broken.map(|(rate, _)| *rate).reduce(f64::min);
        // Beyond the throughput queues grow without end; latencies within the SLO on the mean are only a guess at where
        // the goal's share keeps it, which may lie far above.
        let most = (self.throughput * 1.1).max(mean);
        for _ in 0..MOST_TRIALS {
            let top = high.unwrap_or(most);
            if top - low <= CLOSENESS * top {
                break;
            }
            let next = match (high, low > 0.0) {
                (None, false) => mean * 0.8,
                (None, true) => (low * 1.5).min(most),
                (Some(high), true) => f64::midpoint(low, high),
                // Nothing has kept the goal yet: the rate may be far below.
                (Some(high), false) => high / 2.5,
            };
            if within(self.misses(next, allowed)) { low = next } else { high = Some(next) }
        }
        low
    }
}

/// Capacities by how much of the allowed misses they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CapacityMap {
    /// One for each of [`SPENDS`].
    pub by_spend: [Capacity; 3],
}

impl CapacityMap {
    /// With what was found at one of [`SIZES`]; a larger pool is never taken for less than a smaller one.
    pub fn set(&mut self, place: usize, found: [f64; 3]) {
        for (capacity, rate) in self.by_spend.iter_mut().zip(found) {
            capacity.per_replica[place] = rate;
        }
    }

    /// The same, every rate multiplied.
    #[must_use]
    pub fn scaled(&self, by: f64) -> Self {
        Self { by_spend: self.by_spend.map(|capacity| capacity.scaled(by)) }
    }

    /// The capacity at which so many times the allowed misses are spent, within [`SPENDS`].
    #[must_use]
    pub fn at(&self, spend: f64) -> Capacity {
        let [low, middle, high] = self.by_spend;
        let spend = if spend.is_nan() { SPENDS[0] } else { spend.clamp(SPENDS[0], SPENDS[2]) };
        let share = |from: f64, to: f64| (spend / from).ln() / (to / from).ln();
        if spend <= SPENDS[1] {
            low.towards(&middle, share(SPENDS[0], SPENDS[1]))
        } else {
            middle.towards(&high, share(SPENDS[1], SPENDS[2]))
        }
    }

    /// How many times the allowed misses so many replicas make at a rate: the inverse of [`CapacityMap::at`], going on
    /// at the same pace beyond it, at most a hundred times.
    #[must_use]
    pub fn spent(&self, replicas: f64, rate: f64) -> f64 {
        let takes = self.by_spend.map(|capacity| capacity.of(replicas));
        let log = |place: usize| SPENDS[place].ln();
        let line = |a: usize, b: usize| {
            let width = takes[b] - takes[a];
            if width <= 1e-9 * takes[b] {
                return if rate > takes[b] { f64::INFINITY } else { log(a) };
            }
            log(a) + (rate - takes[a]) / width * (log(b) - log(a))
        };
        let log = if rate <= takes[1] { line(0, 1) } else { line(1, 2) };
        log.exp().clamp(0.0, 100.0)
    }
}

/// A capacity by the number of replicas: what each of them takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Requests a second and replica at each of [`SIZES`], never falling; 0 where no rate keeps the SLO.
    pub per_replica: [f64; 4],
}

impl Capacity {
    /// The same, every rate multiplied.
    #[must_use]
    pub fn scaled(&self, by: f64) -> Self {
        Self { per_replica: self.per_replica.map(|rate| rate * by) }
    }

    fn towards(&self, other: &Self, share: f64) -> Self {
        let mut per_replica = self.per_replica;
        for (rate, other) in per_replica.iter_mut().zip(other.per_replica) {
            *rate += (other - *rate) * share;
        }
        Self { per_replica }
    }

    /// Requests a second that so many replicas take together; rises with every replica.
    #[must_use]
    pub fn of(&self, replicas: f64) -> f64 {
        if replicas <= 0.0 {
            return 0.0;
        }
        let place = replicas.max(1.0).log2().min(3.0);
        let (below, share) = (place.floor() as usize, place - place.floor());
        // More replicas share bursts better: what is searched and not so, is noise.
        let up_to = |place: usize| self.per_replica[..=place].iter().copied().fold(0.0, f64::max);
        replicas * (up_to(below) * (1.0 - share) + up_to((below + 1).min(3)) * share)
    }

    /// The fewest replicas that take `rate` requests a second, at most `most`.
    #[must_use]
    pub fn replicas_for(&self, rate: f64, most: u32) -> u32 {
        if rate.is_nan() || rate <= 0.0 {
            return 0;
        }
        // `of` rises with the size, so the answer is found by halving.
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.of(f64::from(middle)) >= rate { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// Whether no rate keeps the SLO.
    #[must_use]
    pub fn is_impossible(&self) -> bool {
        self.per_replica.iter().all(|rate| *rate <= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_engine::Profile;

    use super::*;
    use crate::perf::Lengths;

    fn question() -> Question {
        let profile = Profile::built_in("llama-3.3-70b-fp8-h100-tp2-measured").unwrap();
        Question {
            engine: profile.engine_config(),
            role: Role::Aggregated,
            routing: Routing::RoundRobin,
            mix: Mix::new(Lengths::log_normal(1_000.0, 1.0), Lengths::log_normal(200.0, 1.0)),
            burstiness: 1.0,
            slo: Slo::of_millis(1_000, 30),
        }
    }

    #[test]
    fn what_is_found_keeps_the_goal_and_a_tenth_more_does_not() {
        let question = question();
        let trial = |rate: f64| {
            let (trial, all) = (question.trial(0), Enough { kept: 0.5, asked: 0.5 });
            1.0 - trial.attained(&trial.draw(4), 4, 4.0 * rate, all)
        };
        let found = question.search(4, 0);
        for (rate, spend) in found.into_iter().zip(SPENDS).skip(1) {
            assert!(trial(rate) <= 0.01 * spend + 1e-9, "{found:?}");
            assert!(trial(rate * 1.15) > 0.01 * spend, "{found:?}");
        }
        // Far above what latencies on the mean would allow.
        assert!(found[1] > 1.5 * question.on_the_mean(), "{found:?} {}", question.on_the_mean());
    }

    #[test]
    fn prompts_as_long_as_an_engine_takes_are_refused_by_none() {
        for role in [Role::Aggregated, Role::Prefill, Role::Decode] {
            let mut question = Question {
                role,
                slo: Slo::of_millis(600_000, 10_000),
                mix: Mix::new(Lengths::log_normal(20_000.0, 1.0), Lengths::log_normal(1.0, 0.0)),
                ..question()
            };
            question.engine.max_model_len = 8_192;
            let (trial, all) = (question.trial(0), Enough { kept: 0.0, asked: 1.0 });
            let kept = trial.attained(&trial.draw(1), 1, 0.01, all);
            assert!((kept - 1.0).abs() < 1e-9, "{role:?}: {kept}");
        }
    }

    #[test]
    fn an_impossible_slo_has_no_capacity() {
        let question = Question { slo: Slo::of_millis(1, 1), ..question() };
        assert!(question.search(2, 0).iter().all(|rate| *rate <= 0.0));
    }

    #[test]
    fn spending_more_takes_more_and_the_inverse_fits() {
        let mut map = CapacityMap::default();
        for place in 0..4 {
            map.set(place, [2.0, 2.4, 3.0]);
        }
        for spend in [0.4, 0.7, 1.0, 2.0, 3.0] {
            let rate = map.at(spend).of(4.0);
            assert!((map.spent(4.0, rate) / spend - 1.0).abs() < 0.05, "{spend} {}", map.spent(4.0, rate));
        }
        assert!(map.at(0.4).of(4.0) < map.at(3.0).of(4.0));
        assert_eq!(map.at(1.0).replicas_for(9.7, 100), 5);
        assert_eq!(map.at(1.0).replicas_for(1e9, 100), 100);
        assert_eq!(map.at(1.0).replicas_for(f64::NAN, 100), 0);
    }
}
