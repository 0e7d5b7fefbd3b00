//! The seam between the world and whoever scales it.
//!
//! A [`ScalingPolicy`] is asked at every tick: it gets an [`Observation`], which holds what a planner in a real cluster
//! could know and nothing more, and answers with absolute replica targets. The world brings them about, with start-up
//! times, failed starts and draining as in life. Policies are plain values without a clock or randomness of their own:
//! the same observations must give the same decisions.
//!
//! ```
//! use plimsoll_common::units::Micros;
//! use plimsoll_sim::policy::{Decision, Observation, ScalingPolicy};
//!
//! /// One replica for every thirty requests in flight.
//! #[derive(Debug)]
//! struct InFlight;
//!
//! impl ScalingPolicy for InFlight {
//!     fn name(&self) -> String {
//!         "in-flight/30".to_owned()
//!     }
//!
//!     fn interval(&self) -> Micros {
//!         Micros::from_millis(15_000)
//!     }
//!
//!     fn decide(&mut self, _now: Micros, observation: &Observation) -> Decision {
//!         let mut decision = Decision::default();
//!         for pool in &observation.pools {
//!             let in_flight: u32 = pool.replicas.iter().map(|replica| replica.running + replica.waiting).sum();
//!             decision.set(pool.id, in_flight.div_ceil(30).max(1), "30 requests in flight a replica");
//!         }
//!         decision
//!     }
//! }
//! ```

use std::fmt;

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::{EngineConfig, StepStats};
use serde::Serialize;

use crate::{telemetry::Published, world::Router};

/// A pool's number in the world's configuration, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PoolId(pub u32);

/// A replica's number in the order in which the world asked for them, from 0; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u32);

/// Who decides how many replicas there are.
pub trait ScalingPolicy: fmt::Debug {
    /// Its name in tables and reports, with the parameters that matter.
    fn name(&self) -> String;

    /// The time between two ticks. A policy with several loops takes the shortest and counts.
    fn interval(&self) -> Micros;

    /// Decides from what is seen at `now`. The first tick comes one interval after the world's start.
    fn decide(&mut self, now: Micros, observation: &Observation) -> Decision;
}

/// What a policy may know before anything runs: given to whoever builds one.
#[derive(Clone, Debug)]
pub struct Briefing {
    /// The pools, by id.
    pub pools: Vec<PoolFacts>,
    /// GPUs that all pools share; None for no bound.
    pub gpus: Option<u32>,
}

/// What is known of a pool from its configuration.
#[derive(Clone, Debug)]
pub struct PoolFacts {
    /// Which.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// Which part of a request it serves.
    pub role: Role,
    /// Which model it serves: pools of the same number are the prefill and decode pools of one model.
    pub model: u16,
    /// GPUs of one replica.
    pub gpus_per_replica: u32,
    /// How requests are spread over its replicas.
    pub router: Router,
    /// The least and most replicas that the world allows.
    pub bounds: (u32, u32),
    /// Replicas that are ready when the world starts.
    pub initial: u32,
    /// What the policy is told of the engine. Its limits are true; its iteration times are the *prior*, which may be
    /// wrong by what the scenario says, as profiles are.
    pub prior: EngineConfig,
    /// Start-up time as the policy is told, wrong or right.
    pub start_up_prior: Micros,
}

/// What is seen at a tick. Counts and distributions cover the time since the tick before.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The time since the tick before, or since the world's start.
    pub window: Micros,
    /// Every pool, by id.
    pub pools: Vec<PoolObservation>,
}

impl Observation {
    /// The pool of that number.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&PoolObservation> {
        self.pools.get(id.0 as usize)
    }
}

/// What is seen of one pool.
#[derive(Clone, Debug)]
pub struct PoolObservation {
    /// Which.
    pub id: PoolId,
    /// Which part of a request it serves.
    pub role: Role,
    /// The target in force.
    pub target: u32,
    /// Replicas that take requests, silent ones included.
    pub ready: u32,
    /// Replicas that were asked for and are not ready yet, the oldest first: when each was asked for.
    pub starting: Vec<Micros>,
    /// Replicas asked for that found no free GPU: they have not begun to start.
    pub unschedulable: u32,
    /// Replicas that finish what they have and take nothing new.
    pub draining: u32,
    /// Starts that failed since the tick before.
    pub failed_starts: u32,
    /// Start-up times of the replicas that became ready since the tick before.
    pub started_in: Vec<Micros>,
    /// Ready and draining replicas whose telemetry arrived, by id. A silent one is counted above and missing here.
    pub replicas: Vec<ReplicaObservation>,
    /// What the front door saw, if the world has a front door that is observed.
    pub door: Option<DoorObservation>,
}

impl PoolObservation {
    /// Ready and starting replicas together: what a target is compared with.
    #[must_use]
    pub fn coming(&self) -> u32 {
        self.ready + self.starting.len() as u32
    }

    /// Replicas among the ready ones that tell nothing.
    #[must_use]
    pub fn silent(&self) -> u32 {
        let told = self.replicas.iter().filter(|replica| !replica.draining).count() as u32;
        self.ready.saturating_sub(told)
    }
}

/// What a gateway in front of the pool saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct DoorObservation {
    /// Requests that arrived since the tick before.
    pub arrived: u64,
    /// Their prompt tokens.
    pub arrived_prompt_tokens: u64,
    /// Requests that wait there because no replica is ready.
    pub waiting: u32,
}

/// What one replica tells: the gauges of its metrics page at this moment, and what its counters and histograms have
/// gained since the tick before.
#[derive(Clone, Debug)]
pub struct ReplicaObservation {
    /// Which.
    pub id: ReplicaId,
    /// Whether it is draining.
    pub draining: bool,
    /// When it became ready.
    pub ready_since: Micros,
    /// Requests that hold KV blocks.
    pub running: u32,
    /// Requests in its queue.
    pub waiting: u32,
    /// The share of its KV blocks that are held, 0 to 1.
    pub kv_usage: f64,
    /// Prompt tokens that are known and not computed, of running and waiting requests.
    pub queued_prefill_tokens: u64,
    /// Sequences that decode.
    pub decode_sequences: u32,
    /// The sum of their contexts, tokens.
    pub decode_context: u64,
    /// The sum of the contexts of waiting requests that were begun already (preempted here, or prefilled elsewhere and
    /// waiting for blocks), tokens.
    pub queued_context: u64,
    /// What the last iteration computed and how long it took, if there was one since the tick before: a sample of one,
    /// as engines with a forward-pass feed publish it.
    pub last_iteration: Option<(StepStats, Micros)>,
    /// What it did since the tick before.
    pub gained: Gained,
    /// TTFT, in the buckets that vLLM publishes. For a decode replica always empty.
    pub ttft: Published,
    /// ITL, likewise. For a prefill replica always empty.
    pub itl: Published,
    /// Time in the queue before the first scheduling, likewise.
    pub queue_time: Published,
    /// Prompt lengths of finished requests, tokens, likewise.
    pub prompt_lengths: Published,
    /// Output lengths of finished requests, tokens, likewise.
    pub output_lengths: Published,
}

/// What a replica's counters gained since the tick before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gained {
    /// Requests that arrived at it.
    pub arrived: u64,
    /// Their prompt tokens.
    pub arrived_prompt_tokens: u64,
    /// Requests that it finished.
    pub finished: u64,
    /// Prompt tokens of the finished ones.
    pub finished_prompt_tokens: u64,
    /// Output tokens of the finished ones.
    pub finished_output_tokens: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub cache_query_tokens: u64,
    /// Prompt tokens found there.
    pub cache_hit_tokens: u64,
    /// Prompt tokens computed, recomputed ones included.
    pub prefilled_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Iterations.
    pub iterations: u64,
    /// Requests that lost their blocks.
    pub preemptions: u64,
}

/// What a policy wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// New targets; a pool that is not named keeps its own.
    pub targets: Vec<Target>,
}

impl Decision {
    /// Asks for `replicas` in a pool, starting ones included and draining ones not.
    pub fn set(&mut self, pool: PoolId, replicas: u32, reason: impl Into<String>) {
        self.targets.push(Target {
            pool,
            replicas,
            reason: reason.into(),
            remove_first: Vec::new(),
            drain: Drain::Wait,
        });
    }
}

/// An absolute target for one pool. The world replaces what fails or dies until the target is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which pool.
    pub pool: PoolId,
    /// Ready and starting replicas together; the world clamps it to the pool's bounds.
    pub replicas: u32,
    /// Why, in a few words: shown beside the action in reports if the target is new.
    pub reason: String,
    /// Which replicas to remove first, if any are to be removed. After these the world takes starting ones, the
    /// youngest first, then the ready ones with the fewest requests.
    pub remove_first: Vec<ReplicaId>,
    /// What becomes of the requests of removed replicas.
    pub drain: Drain,
}

/// What becomes of the requests of a replica that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They finish, however long it takes; the replica takes nothing new and is billed until it is empty.
    Wait,
    /// They have this long, then they are aborted.
    AbortAfter(Micros),
}
