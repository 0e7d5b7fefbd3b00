//! The decision core in the simulated world: what engines' pages tell, and nothing more.

use std::collections::BTreeMap;

use plimsoll_common::{
    ids::{EngineId, ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::{
    controller::{Controller, Step},
    observe::{self, Door, Latency, Replicas},
    plan::Limits,
    policy::{Behavior, Routing, ScalingRules},
    score::Slo,
    spec::{FleetSpec, PoolSpec},
    tuning::Tuning,
};

use super::{
    PolicyError,
    settings::Settings,
    signals::{Dimmed, Signals},
};
use crate::{
    policy::{
        Briefing, Decision, Observation, PoolFacts, PoolId, PoolObservation, ReplicaObservation,
        ScalingPolicy,
    },
    telemetry::Published,
    world::Router,
};

/// See the [module](self).
#[derive(Debug)]
pub struct Plimsoll {
    interval: Micros,
    slo: Slo,
    names: BTreeMap<PoolId, PoolName>,
    controller: Controller,
    dimmed: Dimmed,
    last: Option<Step>,
}

impl Plimsoll {
    pub(super) const SETTINGS: &'static [&'static str] =
        &["tick", "ahead", "keep", "spend", "panic", "hold", "signals"];

    /// A core that steps at this interval.
    #[must_use]
    pub fn new(interval: Micros, tuning: Tuning, briefing: &Briefing, slo: &Slo) -> Self {
        let specs: Vec<PoolSpec> = briefing.pools.iter().filter_map(|facts| spec(facts, slo)).collect();
        let limits = Limits { gpus: briefing.gpus, ..Limits::default() };
        let names = briefing.pools.iter().zip(&specs).map(|(facts, spec)| (facts.id, spec.name.clone()));
        Self {
            interval,
            slo: *slo,
            names: names.collect(),
            controller: Controller::new(FleetSpec { interval, limits, pools: specs }, tuning),
            dimmed: Dimmed::default(),
            last: None,
        }
    }

    /// The same, told no more than this.
    #[must_use]
    pub fn told(self, signals: Signals) -> Self {
        Self { dimmed: Dimmed::new(signals), ..self }
    }

    pub(super) fn read(settings: &Settings<'_>, briefing: &Briefing, slo: &Slo) -> Result<Self, PolicyError> {
        let mut tuning = Tuning::default();
        for (name, value) in [
            ("ahead", &mut tuning.ahead),
            ("keep", &mut tuning.keep),
            ("spend", &mut tuning.spend),
            ("panic", &mut tuning.panic),
            ("hold", &mut tuning.hold_s),
        ] {
            if let Some(given) = settings.number(name, (0.01, 1e4))? {
                *value = given;
            }
        }
        let words = [("all", Signals::All), ("few", Signals::Few), ("least", Signals::Least)];
        let signals = settings.word("signals", &words, Signals::All)?;
        Ok(Self::new(settings.seconds("tick", 5)?, tuning, briefing, slo).told(signals))
    }

    /// The core, with all that it learned.
    #[must_use]
    pub const fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Its last decision, with why.
    #[must_use]
    pub const fn last(&self) -> Option<&Step> {
        self.last.as_ref()
    }

    fn observation(
        &self,
        now: Micros,
        window: Micros,
        pool: &PoolObservation,
    ) -> Option<observe::Observation> {
        let engines = pool.replicas.iter().filter_map(|replica| {
            Some((EngineId::parse(&replica.id.0.to_string()).ok()?, self.engine(replica)))
        });
        Some(observe::Observation {
            window,
            replicas: Replicas {
                target: Some(pool.target),
                ready: pool.ready,
                starting: pool.starting.iter().map(|asked| now.saturating_sub(*asked)).collect(),
                unschedulable: pool.unschedulable,
                draining: pool.draining,
                silent: pool.silent(),
                failed_starts: pool.failed_starts,
                started_in: pool.started_in.clone(),
            },
            door: pool.door.map(|door| Door {
                arrived: Some(door.arrived),
                arrived_prompt_tokens: Some(door.arrived_prompt_tokens),
                waiting: Some(u64::from(door.waiting)),
            }),
            engines: engines.collect(),
            ..observe::Observation::new(self.names.get(&pool.id)?.clone(), window)
        })
    }

    fn engine(&self, replica: &ReplicaObservation) -> observe::Engine {
        let gained = &replica.gained;
        observe::Engine {
            draining: replica.draining,
            running: Some(u64::from(replica.running)),
            waiting: Some(u64::from(replica.waiting)),
            kv_utilization: Some(replica.kv_usage),
            queued_prefill_tokens: None,
            gained: observe::Gained {
                arrived: Some(gained.arrived),
                arrived_prompt_tokens: Some(gained.arrived_prompt_tokens),
                finished: Some(gained.finished),
                finished_prompt_tokens: Some(gained.finished_prompt_tokens),
                finished_output_tokens: Some(gained.finished_output_tokens),
                prefix_query_tokens: Some(gained.cache_query_tokens),
                prefix_hit_tokens: Some(gained.cache_hit_tokens),
                prefilled_tokens: Some(gained.prefilled_tokens),
                generated_tokens: Some(gained.generated_tokens),
                accepted_draft_tokens: None,
                iterations: Some(gained.iterations),
                preemptions: Some(gained.preemptions),
            },
            ttft: latency(&replica.ttft, self.slo.ttft),
            itl: latency(&replica.itl, self.slo.itl),
            queue_time: latency(&replica.queue_time, None),
            prompt_lengths: lengths(&replica.prompt_lengths),
            output_lengths: lengths(&replica.output_lengths),
        }
    }
}

fn spec(facts: &PoolFacts, slo: &Slo) -> Option<PoolSpec> {
    Some(PoolSpec {
        name: PoolName::parse(&facts.name).ok()?,
        model: ModelName::parse(&format!("model-{}", facts.model)).ok()?,
        role: facts.role,
        priority: 0,
        bounds: facts.bounds,
        gpus: facts.gpus_per_replica,
        watts: 0.0,
        cost_per_hour: 0.0,
        start_up: facts.start_up_prior,
        engine: Some(facts.prior.clone()),
        engines_per_replica: 1,
        routing: match facts.router {
            Router::RoundRobin => Routing::RoundRobin,
            Router::LeastLoaded => Routing::LeastLoaded,
            Router::PrefixAware { .. } => Routing::PrefixAware,
        },
        slo: Some(*slo),
        thresholds: None,
        lengths: (None, None),
        behavior: Behavior { scale_down: ScalingRules::default(), ..Behavior::default() },
        role_switch: false,
    })
}

fn latency(published: &Published, limit: Option<Micros>) -> Latency {
    let within = limit.and_then(|limit| published.share_within(limit)).map(|(certain, possible)| {
        let samples = |share: f64| (share * published.count as f64).round() as u64;
        (samples(certain), samples(possible))
    });
    Latency { count: published.count, sum: Micros(published.sum), within }
}

fn lengths(published: &Published) -> Vec<(u64, u64)> {
    let edges = published.edges.iter().copied().chain([u64::from(u32::MAX)]);
    edges.zip(published.counts.iter().copied()).filter(|(_, count)| *count > 0).collect()
}

impl ScalingPolicy for Plimsoll {
    fn name(&self) -> String {
        "plimsoll".to_owned()
    }

    fn interval(&self) -> Micros {
        self.interval
    }

    fn decide(&mut self, now: Micros, observation: &Observation) -> Decision {
        for pool in &observation.pools {
            if let Some(seen) = self.observation(now, observation.window, pool) {
                self.controller.observe(self.dimmed.observation(now, seen));
            }
        }
        let step = self.controller.step(now);
        let mut decision = Decision::default();
        for (id, name) in &self.names {
            let Some(target) = step.plan.targets.get(name) else { continue };
            let reason = step.explanation.pools.get(name).map(ToString::to_string).unwrap_or_default();
            decision.set(*id, *target, reason);
        }
        self.last = Some(step);
        decision
    }
}
