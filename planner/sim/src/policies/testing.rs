//! Hand-made observations, and one small world, for the tests of policies.

use plimsoll_common::{engine::Role, units::Micros};
use plimsoll_engine::Profile;

use crate::{
    outcome::{Ending, Outcome},
    policy::{
        Decision, Gained, Observation, PoolId, PoolObservation, ReplicaId, ReplicaObservation, ScalingPolicy,
    },
    telemetry::{ITL_EDGES, LENGTH_EDGES, Published, QUEUE_EDGES, TTFT_EDGES},
    workload::{Arrival, Workload},
    world::{PoolConfig, World, WorldConfig},
};

pub(super) fn at(s: u64) -> Micros {
    Micros(s * 1_000_000)
}

pub(super) fn targets(decision: &Decision) -> Vec<u32> {
    decision.targets.iter().map(|target| target.replicas).collect()
}

/// One pool whose replicas all look alike.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) pool: PoolObservation,
}

impl Seen {
    pub(super) fn of(replicas: u32) -> Self {
        let replica = |id| ReplicaObservation {
            id: ReplicaId(id),
            draining: false,
            ready_since: Micros::ZERO,
            running: 0,
            waiting: 0,
            kv_usage: 0.0,
            queued_prefill_tokens: 0,
            decode_sequences: 0,
            decode_context: 0,
            queued_context: 0,
            last_iteration: None,
            gained: Gained::default(),
            ttft: Published::new(TTFT_EDGES),
            itl: Published::new(ITL_EDGES),
            queue_time: Published::new(QUEUE_EDGES),
            prompt_lengths: Published::new(LENGTH_EDGES),
            output_lengths: Published::new(LENGTH_EDGES),
        };
        Self {
            pool: PoolObservation {
                id: PoolId(0),
                role: Role::Aggregated,
                target: replicas,
                ready: replicas,
                starting: Vec::new(),
                unschedulable: 0,
                draining: 0,
                failed_starts: 0,
                started_in: Vec::new(),
                replicas: (0..replicas).map(replica).collect(),
                door: None,
            },
        }
    }

    pub(super) fn each(mut self, change: impl Fn(&mut ReplicaObservation)) -> Self {
        self.pool.replicas.iter_mut().for_each(change);
        self
    }

    pub(super) fn waiting(self, n: u32) -> Self {
        self.each(|replica| replica.waiting = n)
    }

    pub(super) fn running(self, n: u32) -> Self {
        self.each(|replica| replica.running = n)
    }

    pub(super) fn kv(self, share: f64) -> Self {
        self.each(|replica| replica.kv_usage = share)
    }

    pub(super) fn starting(mut self, n: u32) -> Self {
        self.pool.target += n;
        self.pool.starting = vec![Micros::ZERO; n as usize];
        self
    }

    pub(super) fn observation(self, window_s: u64) -> Observation {
        Observation { window: at(window_s), pools: vec![self.pool] }
    }
}

/// Five minutes of a heavy load, then fifteen of next to none, on an engine that starts with one replica.
pub(crate) fn burst_world() -> (WorldConfig, Workload) {
    let profile = Profile::built_in("qwen3-32b-h200-tp2").unwrap();
    let mut pool = PoolConfig::new("pool", &profile);
    pool.max = 8;
    let heavy = (0..4_800).map(|i| Arrival::new(Micros(i * 62_500), 1_500, 200));
    let light = (0..300).map(|i| Arrival::new(Micros(300_000_000 + i * 3_000_000), 1_500, 200));
    (WorldConfig::aggregated(pool), Workload::new(heavy.chain(light).collect()))
}

/// Runs a policy in [`burst_world`]; everything is to be finished, and nothing aborted by scaling down.
pub(super) fn run_burst(policy: &mut dyn ScalingPolicy) -> Outcome {
    let (config, workload) = burst_world();
    let outcome = World::new(&config, &workload).unwrap().run(policy);
    assert_eq!(outcome.count(Ending::Finished), workload.len());
    outcome
}
