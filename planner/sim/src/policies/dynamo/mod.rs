//! NVIDIA Dynamo's planner, version 1.6.1, as far as its decisions go.
//!
//! Targets `throughput` (its default), `latency` and `load` compare queue and KV of every engine with static thresholds
//! every 5 s, and move by one replica. Target `sla` has two loops. The predictive one takes the request rate, ISL and OSL
//! of the last 180 s, asks its performance model how many requests a second one engine takes within the limits, and wants
//! ⌈rate / that⌉, at most 8 more or fewer than now: without any utilisation target, waiting time or start-up. The
//! reactive one, every 5 s, estimates for every engine the latency of one request more; one replica more if *all* are
//! above the limit, one fewer if all stay below 80 % of it on one engine fewer. With both (`hybrid`), what the first wants
//! is a floor for the second. No loop acts while replicas start or an engine is silent; only the predictive one alone
//! reduces then.
//!
//! What differs from the original: the performance model is the prior that every policy is given, neither fitted to
//! observed iterations nor corrected; of its default predictor, ARIMA, the moving averages are missing (see
//! [`Predictor`]), and `constant` can be had instead; the GPU budget is that of the world, where the original's is 8 unless set; and a
//! budget that is too small for a proposal lets the pools have it in order.

mod load;
mod predict;

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;
use plimsoll_core::score::Slo;

pub use self::predict::Predictor;
use self::{load::Move, predict::Series};
use super::{
    PolicyError,
    capacity::{self, Lengths},
    settings::Settings,
    traffic::Traffic,
};
use crate::policy::{Briefing, Decision, Observation, PoolFacts, PoolId, ScalingPolicy};

/// The most that the predictive loop changes a pool by at once.
const MOST_CHANGE: u32 = 8;

/// What is optimised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Few engines: up only when a context of prompts or more than the KV cache is queued.
    Throughput,
    /// Short queues.
    Latency,
    /// Thresholds of one's own.
    Load(Thresholds),
    /// TTFT and ITL by the performance model.
    Sla,
}

/// What target `load` compares with. They have no default in Dynamo; ours are one full batch of prompt tokens and
/// nothing, 80 and 40 % of KV blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Queued prompt tokens of one prefill engine.
    pub prefill_up: f64,
    /// The same of all of them.
    pub prefill_down: f64,
    /// Share of one decode or aggregated engine's KV, 0 to 1.
    pub decode_up: f64,
    /// The same of all of them.
    pub decode_down: f64,
}

/// Which loops target `sla` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loops {
    /// The predictive one.
    Throughput,
    /// The reactive one.
    Load,
    /// Both.
    Hybrid,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Dynamo {
    target: Target,
    loops: Loops,
    /// Of the predictive loop.
    horizon: Micros,
    /// Of the reactive loop.
    tick: Micros,
    briefing: Briefing,
    slo: Slo,
    predictor: Predictor,
    traffic: BTreeMap<u16, Traffic>,
    /// Rate, ISL and OSL of each model, interval by interval.
    series: BTreeMap<u16, [Series; 3]>,
    floors: BTreeMap<PoolId, u32>,
    last_prediction: Micros,
}

impl Dynamo {
    pub(super) const SETTINGS: &'static [&'static str] = &[
        "target",
        "loops",
        "predictor",
        "interval",
        "tick",
        "prefill_up",
        "prefill_down",
        "decode_up",
        "decode_down",
    ];

    /// With the intervals that it has by default: 180 s and 5 s. A target other than `sla` runs the reactive loop only.
    #[must_use]
    pub fn new(target: Target, loops: Loops, briefing: &Briefing, slo: &Slo) -> Self {
        Self {
            target,
            loops: if target == Target::Sla { loops } else { Loops::Load },
            horizon: Micros::from_millis(180_000),
            tick: Micros::from_millis(5_000),
            briefing: briefing.clone(),
            slo: *slo,
            predictor: Predictor::Arima,
            traffic: BTreeMap::new(),
            series: BTreeMap::new(),
            floors: BTreeMap::new(),
            last_prediction: Micros::ZERO,
        }
    }

    pub(super) fn read(settings: &Settings<'_>, briefing: &Briefing, slo: &Slo) -> Result<Self, PolicyError> {
        let number = |name, usual: f64, most: f64| Ok(settings.number(name, (0.0, most))?.unwrap_or(usual));
        let load = Target::Load(Thresholds {
            prefill_up: number("prefill_up", 8_192.0, 1e12)?,
            prefill_down: number("prefill_down", 0.0, 1e12)?,
            decode_up: number("decode_up", 80.0, 1_000.0)? / 100.0,
            decode_down: number("decode_down", 40.0, 1_000.0)? / 100.0,
        });
        let targets = [
            ("throughput", Target::Throughput),
            ("latency", Target::Latency),
            ("load", load),
            ("sla", Target::Sla),
        ];
        let loops = [("hybrid", Loops::Hybrid), ("throughput", Loops::Throughput), ("load", Loops::Load)];
        let predictors = [("arima", Predictor::Arima), ("constant", Predictor::Constant)];
        let predictor = settings.word("predictor", &predictors, Predictor::Arima)?;
        let target = settings.word("target", &targets, Target::Throughput)?;
        let loops = settings.word("loops", &loops, Loops::Hybrid)?;
        Ok(Self {
            predictor,
            horizon: settings.seconds("interval", 180)?,
            tick: settings.seconds("tick", 5)?,
            ..Self::new(target, loops, briefing, slo)
        })
    }

    /// What the predictive loop wants, by pool; none for a model of which nothing is known yet.
    fn predicted(&mut self, pools: &BTreeMap<PoolId, Now>) -> BTreeMap<PoolId, u32> {
        let mut forecasts: BTreeMap<u16, (f64, Lengths)> = BTreeMap::new();
        for (model, traffic) in &self.traffic {
            let (Some(rate), Some(lengths)) = (traffic.rate(), traffic.lengths()) else { continue };
            let predictor = self.predictor;
            let series =
                self.series.entry(*model).or_insert_with(|| std::array::from_fn(|_| Series::new(predictor)));
            let mut next = |index: usize, value: f64| {
                series[index].add(value);
                series[index].next().unwrap_or(value)
            };
            let (rate, isl, osl) = (next(0, rate), next(1, lengths.isl), next(2, lengths.osl));
            forecasts.insert(*model, (rate, Lengths { isl: isl.max(1.0), osl: osl.max(1.0), ..lengths }));
        }
        let mut wanted = BTreeMap::new();
        for facts in &self.briefing.pools {
            let Some((rate, lengths)) = forecasts.get(&facts.model) else { continue };
            let rps = capacity::rps(facts.role, &facts.prior, lengths, &self.slo);
            let now = pools.get(&facts.id).map_or(1, |now| now.target);
            let replicas = if rps > 0.0 { (rate / rps).ceil() as u32 } else { now };
            let capped = replicas.clamp(now.saturating_sub(MOST_CHANGE), now.saturating_add(MOST_CHANGE));
            wanted.insert(facts.id, capped.max(facts.bounds.0).max(1));
        }
        for traffic in self.traffic.values_mut() {
            traffic.begin();
        }
        wanted
    }

    /// What the reactive loop wants of one model's pools, if it may act.
    fn reacted(
        &self,
        model: u16,
        observation: &Observation,
        pools: &BTreeMap<PoolId, Now>,
        wanted: &mut Wanted,
    ) {
        let of_model = || self.briefing.pools.iter().filter(move |facts| facts.model == model);
        let steady = |facts: &PoolFacts| pools.get(&facts.id).is_some_and(|now| now.steady);
        if !of_model().all(steady) {
            return;
        }
        let lengths: Option<Lengths> = self.traffic.get(&model).and_then(Traffic::lengths);
        for facts in of_model() {
            let Some(pool) = observation.pool(facts.id) else { continue };
            let step = load::decide(self.target, &facts.prior, pool, lengths.as_ref(), &self.slo);
            let floor = self.floors.get(&facts.id).copied().unwrap_or_default();
            let least = floor.max(facts.bounds.0).max(1);
            let (replicas, reason) = match step {
                Move::Up => (pool.target.saturating_add(1), "load: up"),
                Move::Stay => (pool.target, "load: floor of the prediction"),
                Move::Down => (pool.target.saturating_sub(1), "load: down"),
            };
            wanted.insert(facts.id, (replicas.max(least), reason));
        }
    }

    /// Grants what fits the GPUs, pool by pool; reductions first, since they make room.
    fn within_budget(&self, wanted: &Wanted, pools: &BTreeMap<PoolId, Now>) -> Decision {
        let mut decision = Decision::default();
        let gpus = |facts: &PoolFacts, replicas: u32| replicas.saturating_mul(facts.gpus_per_replica);
        let target = |facts: &PoolFacts| pools.get(&facts.id).map_or(0, |now| now.target);
        let lower = |facts: &PoolFacts| {
            let wanted = wanted.get(&facts.id).map(|(replicas, _)| *replicas);
            target(facts).min(wanted.unwrap_or(u32::MAX))
        };
        let mut used: u32 = self.briefing.pools.iter().map(|facts| gpus(facts, lower(facts))).sum();
        for facts in &self.briefing.pools {
            let Some((replicas, reason)) = wanted.get(&facts.id) else { continue };
            let mut granted = lower(facts);
            while granted < *replicas {
                if self.briefing.gpus.is_some_and(|most| used + facts.gpus_per_replica > most) {
                    break;
                }
                granted += 1;
                used += facts.gpus_per_replica;
            }
            decision.set(facts.id, granted, *reason);
        }
        decision
    }
}

type Wanted = BTreeMap<PoolId, (u32, &'static str)>;

/// A pool at this tick.
#[derive(Clone, Copy, Debug)]
struct Now {
    target: u32,
    starting: bool,
    /// Whether the reactive loop may act: every replica is ready and tells.
    steady: bool,
}

impl ScalingPolicy for Dynamo {
    fn name(&self) -> String {
        match (self.target, self.loops) {
            (Target::Throughput, _) => "dynamo throughput".to_owned(),
            (Target::Latency, _) => "dynamo latency".to_owned(),
            (Target::Load(_), _) => "dynamo load".to_owned(),
            (Target::Sla, Loops::Throughput) => "dynamo sla throughput-based".to_owned(),
            (Target::Sla, Loops::Load) => "dynamo sla load-based".to_owned(),
            (Target::Sla, Loops::Hybrid) => "dynamo sla hybrid".to_owned(),
        }
    }

    fn interval(&self) -> Micros {
        self.tick
    }

    fn decide(&mut self, now: Micros, observation: &Observation) -> Decision {
        let mut pools = BTreeMap::new();
        for facts in &self.briefing.pools {
            let Some(pool) = observation.pool(facts.id) else { continue };
            self.traffic.entry(facts.model).or_default().add(pool, observation.window);
            let starting = !pool.starting.is_empty() || pool.unschedulable > 0;
            let steady = !starting && pool.silent() == 0;
            pools.insert(facts.id, Now { target: pool.target, starting, steady });
        }
        let mut wanted = Wanted::new();
        if self.loops != Loops::Load && now.saturating_sub(self.last_prediction) >= self.horizon {
            self.last_prediction = now;
            let predicted = self.predicted(&pools);
            if self.loops == Loops::Hybrid {
                self.floors.extend(predicted);
            } else {
                let pending = pools.values().any(|pool| pool.starting);
                let passes =
                    |id: &PoolId, n: u32| !pending || pools.get(id).is_some_and(|now| n < now.target);
                let passed = predicted.into_iter().filter(|(id, n)| passes(id, *n));
                wanted.extend(passed.map(|(id, n)| (id, (n, "predicted rate"))));
            }
        }
        if self.loops != Loops::Throughput {
            let mut models: Vec<u16> = self.briefing.pools.iter().map(|facts| facts.model).collect();
            models.sort_unstable();
            models.dedup();
            for model in models {
                self.reacted(model, observation, &pools, &mut wanted);
            }
        }
        self.within_budget(&wanted, &pools)
    }
}

#[cfg(test)]
mod tests;
