//! What does not change about a fleet: the policy in the core's terms.

use plimsoll_common::{
    engine::Role,
    ids::{ModelName, PoolName},
    units::Micros,
};
use plimsoll_engine::EngineConfig;
use serde::{Deserialize, Serialize};

use crate::{
    plan::Limits,
    policy::{Behavior, Load, Policy, Routing, Target},
    score::Slo,
};

/// What all pools share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetSpec {
    /// Between two steps.
    pub interval: Micros,
    /// What all pools together may use.
    pub limits: Limits,
    /// The pools, names unique.
    pub pools: Vec<PoolSpec>,
}

/// What does not change about a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Its name.
    pub name: PoolName,
    /// The model it serves.
    pub model: ModelName,
    /// The model's priority: the higher gets its own first.
    pub priority: i32,
    /// Which part of a request it serves.
    pub role: Role,
    /// The least and the most replicas.
    pub bounds: (u32, u32),
    /// GPUs of one replica.
    pub gpus: u32,
    /// Watts of one replica; 0 where they are not counted.
    pub watts: f64,
    /// Money an hour of one replica; 0 where it is not counted.
    pub cost_per_hour: f64,
    /// How long a replica takes to start, until that was seen.
    pub start_up: Micros,
    /// One engine by its profile; none without a profile.
    pub engine: Option<EngineConfig>,
    /// Engines of one replica.
    pub engines_per_replica: u32,
    /// How requests are spread over replicas.
    pub routing: Routing,
    /// What the model promises; none without a promise.
    pub slo: Option<Slo>,
    /// The thresholds to size by; none for sizing by the SLO.
    pub thresholds: Option<Load>,
    /// Lengths expected until some were seen: prompt and output tokens.
    pub lengths: (Option<u32>, Option<u32>),
    /// How fast it may move.
    pub behavior: Behavior,
    /// Whether its replicas can change between prefill and decode.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub role_switch: bool,
}

impl FleetSpec {
    /// A number that tells one specification from another, the same in every build: FNV-1a over its MessagePack.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        struct Fnv(u64);
        impl std::io::Write for Fnv {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                for byte in bytes {
                    self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        // Writing a number down can't fail; what was written so far tells specifications apart, too.
        let _ = rmp_serde::encode::write_named(&mut hash, self);
        hash.0
    }
}

impl From<&Policy> for FleetSpec {
    /// A policy whose profiles are inlined; a pool without a profile is sized by thresholds.
    fn from(policy: &Policy) -> Self {
        let limits = Limits {
            gpus: policy.budget.gpus,
            watts: policy.budget.watts.map(|watts| watts.get()),
            cost_per_hour: policy.budget.cost_per_hour.map(|cost| cost.get()),
        };
        let pools = policy.pools().map(|(model, pool)| PoolSpec {
            name: pool.name.clone(),
            model: model.name.clone(),
            priority: model.priority,
            role: pool.role,
            bounds: (pool.min, pool.max),
            gpus: pool.gpus_per_replica(),
            watts: pool.watts_per_replica().unwrap_or(0.0),
            cost_per_hour: pool.cost_per_replica_hour().unwrap_or(0.0),
            start_up: pool.start_up.0,
            engine: pool.engine_config(),
            engines_per_replica: pool.engines_per_replica(),
            routing: pool.routing,
            slo: model.slo(),
            thresholds: match model.target {
                Target::Sla => None,
                Target::Throughput => Some(model.load.unwrap_or_else(Load::throughput)),
                Target::Latency => Some(model.load.unwrap_or_else(Load::latency)),
                Target::Load => Some(model.load.unwrap_or_default()),
            },
            lengths: (model.traffic.isl, model.traffic.osl),
            behavior: pool.behavior.clone(),
            role_switch: model.role_switch,
        });
        Self { interval: policy.interval.0, limits, pools: pools.collect() }
    }
}
