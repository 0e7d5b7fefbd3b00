//! What a world is made of.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::{ConfigError as EngineError, EngineConfig, Pace, Profile, Timing};

use super::{faults::Fault, router::Router};
use crate::policy::{Briefing, PoolFacts, PoolId};

/// A world to be.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The pools; a pool's id is its place here.
    pub pools: Vec<PoolConfig>,
    /// Which pools serve which model; a model's number is its place here.
    pub models: Vec<Serving>,
    /// How keys and values get from prefill to decode replicas.
    pub transfer: KvTransfer,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
    /// What becomes of the requests of a replica that dies.
    pub lost: Lost,
    /// GPUs that all pools share; a replica that finds too few free waits for them. None for no bound.
    pub gpus: Option<u32>,
    /// Whether policies see what arrives at the front door.
    pub door_observed: bool,
    /// How long after the last arrival the world waits for requests to finish. What is unfinished then, misses.
    pub patience: Micros,
    /// What everything random is drawn from.
    pub seed: u64,
}

impl WorldConfig {
    /// One pool that serves one model, prefill and decode together.
    #[must_use]
    pub fn aggregated(pool: PoolConfig) -> Self {
        Self::of(vec![pool], Serving::Aggregated(PoolId(0)))
    }

    /// One model with a prefill pool (id 0) and a decode pool (id 1).
    #[must_use]
    pub fn disaggregated(prefill: PoolConfig, decode: PoolConfig) -> Self {
        let pools = vec![prefill.with_role(Role::Prefill), decode.with_role(Role::Decode)];
        Self::of(pools, Serving::Disaggregated { prefill: PoolId(0), decode: PoolId(1) })
    }

    fn of(pools: Vec<PoolConfig>, serving: Serving) -> Self {
        Self {
            pools,
            models: vec![serving],
            transfer: KvTransfer::default(),
            faults: Vec::new(),
            lost: Lost::Abort,
            gpus: None,
            door_observed: true,
            patience: Micros::from_millis(3_600_000),
            seed: 1,
        }
    }

    /// What a policy is told before anything runs.
    #[must_use]
    pub fn briefing(&self) -> Briefing {
        let model_of = |id: PoolId| {
            let serves = |serving: &Serving| match serving {
                Serving::Aggregated(pool) => *pool == id,
                Serving::Disaggregated { prefill, decode } => *prefill == id || *decode == id,
            };
            self.models.iter().position(serves).unwrap_or_default() as u16
        };
        let pools = self.pools.iter().enumerate().map(|(index, pool)| {
            let id = PoolId(index as u32);
            let mut prior = pool.engine.clone();
            let scaled = || pool.engine.timing.scaled(1.0 / pool.truth_over_prior);
            prior.timing = pool.prior.clone().unwrap_or_else(scaled);
            PoolFacts {
                id,
                name: pool.name.clone(),
                role: pool.role,
                model: model_of(id),
                gpus_per_replica: pool.gpus_per_replica,
                router: pool.router,
                bounds: (pool.min, pool.max),
                initial: pool.initial,
                prior,
                start_up_prior: pool.start_up.mean,
            }
        });
        Briefing { pools: pools.collect(), gpus: self.gpus }
    }

    /// Checks that such a world can be.
    ///
    /// # Errors
    /// The first thing that cannot be, and where.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for pool in &self.pools {
            pool.validate()?;
        }
        let role =
            |id: PoolId| self.pools.get(id.0 as usize).map(|pool| pool.role).ok_or(ConfigError::NoPool(id));
        for serving in &self.models {
            let fits = match serving {
                Serving::Aggregated(pool) => role(*pool)? == Role::Aggregated,
                Serving::Disaggregated { prefill, decode } => {
                    role(*prefill)? == Role::Prefill && role(*decode)? == Role::Decode
                }
            };
            if !fits {
                return Err(ConfigError::Roles);
            }
        }
        for fault in &self.faults {
            role(fault.pool())?;
        }
        if self.models.is_empty() { Err(ConfigError::NoModel) } else { self.transfer.validate() }
    }
}

/// Which pools serve a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// One pool does everything.
    Aggregated(PoolId),
    /// Prompts are computed in one pool, the other tokens in another.
    Disaggregated {
        /// Computes prompts and generates the first token.
        prefill: PoolId,
        /// Generates the rest.
        decode: PoolId,
    },
}

/// Replicas of one engine.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name in reports.
    pub name: String,
    /// Which part of a request it serves.
    pub role: Role,
    /// The engine as it is in this world.
    pub engine: EngineConfig,
    /// How much longer this world's iterations take than the prior says that policies are given: 1.3 for a profile
    /// that is 30 % too fast, 1 for one that is right.
    pub truth_over_prior: f64,
    /// What policies are told of iteration times, if that is of another form altogether: a fitted line where the truth
    /// is a table. `truth_over_prior` then says nothing.
    pub prior: Option<Timing>,
    /// Noise of iteration times: standard deviation as a share, 0 to 0.5.
    pub noise: f64,
    /// GPUs of one replica.
    pub gpus_per_replica: u32,
    /// How requests are spread over replicas.
    pub router: Router,
    /// How long replicas take to start.
    pub start_up: StartUp,
    /// Replicas that are ready when the world starts.
    pub initial: u32,
    /// The least target.
    pub min: u32,
    /// The greatest target.
    pub max: u32,
    /// Whether replicas keep a prefix cache.
    pub prefix_cache: bool,
}

impl PoolConfig {
    /// A pool of this engine: one replica to begin with, 1 to 1,000 of them, a minute to start one, round-robin.
    #[must_use]
    pub fn new(name: &str, profile: &Profile) -> Self {
        Self {
            name: name.to_owned(),
            role: Role::Aggregated,
            engine: profile.engine_config(),
            truth_over_prior: 1.0,
            prior: None,
            noise: 0.0,
            gpus_per_replica: profile.gpus,
            router: Router::RoundRobin,
            start_up: StartUp::default(),
            initial: 1,
            min: 1,
            max: 1_000,
            prefix_cache: false,
        }
    }

    /// The same with this many replicas to begin with.
    #[must_use]
    pub fn with_initial(self, initial: u32) -> Self {
        Self { initial, ..self }
    }

    /// The same in another role.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The same with other start-up times.
    #[must_use]
    pub fn with_start_up(self, start_up: StartUp) -> Self {
        Self { start_up, ..self }
    }

    pub(crate) fn pace(&self, seed: u64, factor: f64) -> Pace {
        Pace { factor, noise: self.noise, seed }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let pool = || self.name.clone();
        if let Err(source) = self.engine.validate() {
            return Err(ConfigError::Engine { pool: pool(), source });
        }
        if self.min > self.max || self.initial > self.max {
            return Err(ConfigError::Bounds {
                pool: pool(),
                min: self.min,
                initial: self.initial,
                max: self.max,
            });
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let bad = [
            ("truth_over_prior", self.truth_over_prior, positive(self.truth_over_prior)),
            ("noise", self.noise, (0.0..=0.5).contains(&self.noise)),
            ("start-up spread", self.start_up.spread, share(self.start_up.spread)),
            ("share of failed starts", self.start_up.failures, (0.0..1.0).contains(&self.start_up.failures)),
        ];
        match bad.iter().find(|(_, _, fine)| !fine) {
            Some((what, value, _)) => Err(ConfigError::Number { pool: pool(), what, value: *value }),
            None => Ok(()),
        }
    }
}

/// How long a replica takes from being asked for to taking requests, and how often that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartUp {
    /// The mean.
    pub mean: Micros,
    /// Each start takes from 1 − spread to 1 + spread times the mean, all equally likely; 0 to 1.
    pub spread: f64,
    /// The share of starts that end in nothing, after the time that they would have taken; below 1.
    pub failures: f64,
}

impl Default for StartUp {
    /// A minute, sharp, without failures.
    fn default() -> Self {
        Self { mean: Micros::from_millis(60_000), spread: 0.0, failures: 0.0 }
    }
}

impl StartUp {
    /// A mean in seconds ± 30 %, 2 % of starts failing: the world of the published tables.
    #[must_use]
    pub fn rough(mean_s: u64) -> Self {
        Self { mean: Micros::from_millis(mean_s.saturating_mul(1_000)), spread: 0.3, failures: 0.02 }
    }
}

/// How keys and values get from a prefill to a decode replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvTransfer {
    /// Bytes of one token's keys and values, over all layers.
    pub bytes_per_token: u64,
    /// Bytes a second between two replicas; transfers don't contend for it.
    pub bytes_per_s: f64,
    /// What each transfer takes besides.
    pub latency: Micros,
}

impl Default for KvTransfer {
    /// 50 GB/s and 256 KiB a token: 400 Gbit/s and a dense 32B model.
    fn default() -> Self {
        Self { bytes_per_token: 262_144, bytes_per_s: 50e9, latency: Micros::ZERO }
    }
}

impl KvTransfer {
    /// How long a prompt of that many tokens is under way.
    #[must_use]
    pub fn duration(&self, tokens: u32) -> Micros {
        let bytes = self.bytes_per_token as f64 * f64::from(tokens);
        self.latency.saturating_add(Micros::from_millis_f64(bytes / self.bytes_per_s * 1e3))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.bytes_per_s > 0.0 { Ok(()) } else { Err(ConfigError::Bandwidth(self.bytes_per_s)) }
    }
}

/// What becomes of the requests of a replica that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Their clients see an error: they count as aborted.
    Abort,
    /// The router sends them to another replica, which begins from the prompt; at most 3 times.
    Retry,
}

/// Why there cannot be such a world.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No model is served.
    #[error("no model is served: name at least one pool")]
    NoModel,
    /// A pool is named that does not exist.
    #[error("pool {} does not exist: pools are numbered from 0", .0.0)]
    NoPool(PoolId),
    /// A pool serves what its role does not.
    #[error(
        "a pool's role does not fit the model it serves: an aggregated pool stands alone, a prefill and a decode \
         pool belong together"
    )]
    Roles,
    /// An engine cannot run.
    #[error("pool {pool:?}: {source}")]
    Engine {
        /// Whose.
        pool: String,
        /// Why.
        source: EngineError,
    },
    /// The numbers of replicas contradict each other.
    #[error("pool {pool:?}: min {min}, initial {initial} and max {max} replicas contradict each other")]
    Bounds {
        /// Whose.
        pool: String,
        /// Least.
        min: u32,
        /// At the start.
        initial: u32,
        /// Most.
        max: u32,
    },
    /// A number is out of range.
    #[error("pool {pool:?}: {what} cannot be {value}")]
    Number {
        /// Whose.
        pool: String,
        /// Which number.
        what: &'static str,
        /// What was given.
        value: f64,
    },
    /// A request asks for a model that nobody serves.
    #[error("request {request} asks for model {model}, and only {models} are served")]
    NoSuchModel {
        /// The request's place in the workload.
        request: usize,
        /// What it asks for.
        model: u16,
        /// How many models there are.
        models: usize,
    },
    /// No bandwidth.
    #[error("KV transfers at {0} bytes a second never arrive: give a positive bandwidth")]
    Bandwidth(f64),
}
