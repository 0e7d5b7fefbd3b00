//! What is shown of a step.

use std::time::Duration;

use plimsoll_common::{
    engine::Role,
    ids::{ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::{controller::Step, explain::PoolExplanation, plan::Refused};
use serde::{Serialize, Serializer};

use super::{Finding, InForce};
use crate::policy::Problem;

/// The newest advice, with why.
#[derive(Debug, Clone, Serialize)]
pub struct Advice {
    /// When it was worked out; absent before the first step.
    #[serde(rename = "at_unix_seconds", serialize_with = "maybe_seconds")]
    pub at: Option<Micros>,
    /// What becomes of it: `advise`, nobody acts on it.
    pub mode: &'static str,
    /// Between two steps, seconds.
    pub interval_seconds: f64,
    /// The policy's file.
    pub policy: PolicyState,
    /// What is odd about the policy.
    pub problems: Vec<Problem>,
    /// What does not fit between policy and fleet.
    pub findings: Vec<Finding>,
    /// By name; without pools of which nothing was ever seen.
    pub pools: Vec<PoolAdvice>,
    /// Why the plan was refused by its check; empty if it was not.
    pub refused: Vec<Refused>,
    /// Plans refused since the start.
    pub refused_plans: u64,
    /// How long steps took.
    #[serde(skip)]
    pub times: StepTimes,
}

/// One pool of the policy.
#[derive(Debug, Clone, Serialize)]
pub struct PoolAdvice {
    /// Its name in the policy.
    pub pool: PoolName,
    /// The model it serves.
    pub model: ModelName,
    /// Which part of a request it serves.
    pub role: Role,
    /// GPUs of one replica.
    pub gpus_per_replica: u32,
    /// The explanation in one line.
    pub text: String,
    /// All that led to it.
    #[serde(flatten)]
    pub explained: PoolExplanation,
}

/// The policy's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyState {
    /// Where it is.
    pub path: String,
    /// When the policy in force was read.
    #[serde(rename = "loaded_unix_seconds", serialize_with = "seconds")]
    pub loaded: Micros,
    /// How often another was taken since the start.
    pub reloads: u64,
    /// How often a changed file could not be used.
    pub failures: u64,
    /// Why the file as it is now is not followed; absent where it is.
    pub error: Option<String>,
}

/// How long steps took, as a histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepTimes {
    /// How many took at most as long as each of [`Self::BOUNDS`]; the last counts the others.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All together, seconds.
    pub sum: f64,
}

impl StepTimes {
    /// The upper bounds, seconds.
    pub const BOUNDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

    /// Counts one.
    pub(super) fn add(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.counts[Self::BOUNDS.partition_point(|bound| *bound < took)] += 1;
        self.sum += took;
    }
}

impl Advice {
    /// Before the first step.
    pub(super) fn none(file: PolicyState, policy: &InForce) -> Self {
        Self {
            at: None,
            mode: "advise",
            interval_seconds: policy.policy.interval.as_secs(),
            policy: file,
            problems: policy.problems.clone(),
            findings: Vec::new(),
            pools: Vec::new(),
            refused: Vec::new(),
            refused_plans: 0,
            times: StepTimes::default(),
        }
    }

    /// What came of a step.
    pub(super) fn new(
        now: Micros,
        step: &Step,
        refused_plans: u64,
        findings: Vec<Finding>,
        policy: &InForce,
        file: PolicyState,
    ) -> Self {
        let pools = policy.policy.pools().filter_map(|(model, pool)| {
            let explained = step.explanation.pools.get(&pool.name)?.clone();
            Some(PoolAdvice {
                pool: pool.name.clone(),
                model: model.name.clone(),
                role: pool.role,
                gpus_per_replica: pool.gpus_per_replica(),
                text: explained.to_string(),
                explained,
            })
        });
        let mut pools: Vec<PoolAdvice> = pools.collect();
        pools.sort_by(|a, b| a.pool.cmp(&b.pool));
        let refused = step.explanation.refused.clone();
        Self { at: Some(now), pools, refused, refused_plans, findings, ..Self::none(file, policy) }
    }
}

fn seconds<S: Serializer>(at: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.as_secs_f64())
}

fn maybe_seconds<S: Serializer>(at: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => seconds(at, serializer),
        None => serializer.serialize_none(),
    }
}
