//! What a policy means, with every default filled in.

use plimsoll_core::policy::{
    Behavior, Budget, Load, ModelPolicy, Policy, PoolPolicy, ScalingRules, SelectPolicy, Target, feasible,
};
use serde::Serialize;

/// A policy with every default filled in. Times are in seconds.
#[derive(Debug, Serialize)]
pub struct Understood {
    /// Between two decisions.
    pub interval_s: f64,
    /// The bounds over all pools.
    pub budget: Budget,
    /// What all pools' `min` take of it.
    pub at_min: Taken,
    /// What all pools' `max` take of it.
    pub at_max: Taken,
    /// The models.
    pub models: Vec<Model>,
}

/// What replicas take of the budgets. Watts and cost are none where a pool does not tell its own.
#[derive(Debug, Serialize)]
pub struct Taken {
    /// GPUs.
    pub gpus: u64,
    /// Watts.
    pub watts: Option<f64>,
    /// Cost an hour.
    pub cost_per_hour: Option<f64>,
}

/// One model.
#[derive(Debug, Serialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Who comes first when a budget does not do.
    pub priority: i32,
    /// By what replicas are counted.
    pub target: Target,
    /// Thresholds, for other targets than `sla`.
    pub thresholds: Option<Load>,
    /// The longest time to first token.
    pub ttft_s: Option<f64>,
    /// The longest mean time between tokens.
    pub itl_s: Option<f64>,
    /// The share of requests that are to keep both.
    pub goal: Option<f64>,
    /// The mapping of the source that sees demand without replicas.
    pub demand: bool,
    /// The pools.
    pub pools: Vec<Pool>,
}

/// One pool.
#[derive(Debug, Serialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Which part of a request it serves.
    pub role: &'static str,
    /// GPUs that a replica occupies.
    pub gpus_per_replica: u32,
    /// The fewest replicas.
    pub min: u32,
    /// The most replicas.
    pub max: u32,
    /// Expected from the order of a replica to its first token.
    pub start_up_s: f64,
    /// The engine profile's name.
    pub profile: Option<String>,
    /// What one engine does at best.
    pub best: Option<AtBest>,
    /// Growing, in words.
    pub scale_up: String,
    /// Shrinking, in words.
    pub scale_down: String,
}

/// What one engine does at best, by its profile, for the model's mean request (1,000 tokens in and 200 out if not told).
#[derive(Debug, Serialize)]
pub struct AtBest {
    /// Time to first token on an empty engine.
    pub ttft_s: f64,
    /// Time between the tokens of a sequence that runs alone.
    pub itl_s: f64,
    /// Sequences at once that keep the promised ITL; without such a promise, that fit.
    pub sequences: u32,
}

impl Understood {
    pub(super) fn of(policy: &Policy) -> Self {
        Self {
            interval_s: policy.interval.as_secs(),
            budget: policy.budget,
            at_min: taken(policy, |pool| pool.min),
            at_max: taken(policy, |pool| pool.max),
            models: policy.models.iter().map(model).collect(),
        }
    }
}

fn taken(policy: &Policy, replicas: fn(&PoolPolicy) -> u32) -> Taken {
    let sum = |of: fn(&PoolPolicy) -> Option<f64>| {
        policy.pools().map(|(_, pool)| Some(of(pool)? * f64::from(replicas(pool)))).sum()
    };
    Taken {
        gpus: policy.pools().map(|(_, p)| u64::from(p.gpus_per_replica()) * u64::from(replicas(p))).sum(),
        watts: sum(PoolPolicy::watts_per_replica),
        cost_per_hour: sum(PoolPolicy::cost_per_replica_hour),
    }
}

fn model(model: &ModelPolicy) -> Model {
    let slo = model.slo();
    let seconds = |limit: Option<plimsoll_common::units::Micros>| limit.map(|limit| limit.as_secs_f64());
    Model {
        name: model.name.to_string(),
        priority: model.priority,
        target: model.target,
        thresholds: model.thresholds(),
        ttft_s: seconds(slo.and_then(|slo| slo.ttft)),
        itl_s: seconds(slo.and_then(|slo| slo.itl)),
        goal: slo.map(|slo| slo.goal.get()),
        demand: model.demand.is_some(),
        pools: model.pools.iter().map(|one| pool(model, one)).collect(),
    }
}

fn pool(model: &ModelPolicy, pool: &PoolPolicy) -> Pool {
    Pool {
        name: pool.name.to_string(),
        role: pool.role.as_str(),
        gpus_per_replica: pool.gpus_per_replica(),
        min: pool.min,
        max: pool.max,
        start_up_s: pool.start_up.as_secs(),
        profile: pool.profile().map(|profile| profile.name.clone()),
        best: at_best(model, pool),
        scale_up: words(&pool.behavior.scale_up, pool.behavior.up_window_s(), Behavior::UP_WINDOW_S),
        scale_down: words(&pool.behavior.scale_down, down_window_s(pool), 0),
    }
}

/// The window for giving back, s: the policy's, or what the planner begins with by itself.
fn down_window_s(pool: &PoolPolicy) -> u32 {
    let of_policy = pool.behavior.scale_down.stabilization_window_seconds;
    of_policy.unwrap_or_else(|| pool.start_up.as_secs().clamp(60.0, 3_600.0) as u32)
}

fn at_best(model: &ModelPolicy, pool: &PoolPolicy) -> Option<AtBest> {
    let config = pool.engine_config()?;
    let (isl, osl) = feasible::usual(model);
    let hits = pool.engine.prefix_hit_rate.unwrap_or_default();
    let speculation = pool.engine.speculation;
    let best = feasible::best(&config, isl, osl, hits, speculation)?;
    let limit = model.slo().and_then(|slo| slo.itl).unwrap_or(plimsoll_common::units::Micros::MAX);
    Some(AtBest {
        ttft_s: best.ttft.as_secs_f64(),
        itl_s: best.itl_alone.as_secs_f64(),
        sequences: feasible::most_sequences(&config, isl, osl, limit, speculation),
    })
}

/// Rules in words: `at once`, `after 300 s`, `at most 4 replicas in 60 s`.
fn words(rules: &ScalingRules, window: u32, at_once: u32) -> String {
    if rules.select_policy == SelectPolicy::Disabled {
        return "never".to_owned();
    }
    let wait = if window == at_once { "at once".to_owned() } else { format!("after {window} s") };
    if rules.policies.is_empty() {
        return wait;
    }
    let or = if rules.select_policy == SelectPolicy::Min { " and " } else { " or " };
    let limits: Vec<String> = rules.policies.iter().map(ToString::to_string).collect();
    format!("{wait}, at most {}", limits.join(or))
}
