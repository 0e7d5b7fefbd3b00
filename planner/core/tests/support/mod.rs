//! Small fleets to observe.

#![expect(clippy::unwrap_used, reason = "what is unwrapped here is written here")]

use std::sync::Arc;

use plimsoll_common::{
    engine::{DistributionKind, Role, Unit},
    histogram::BucketLayout,
    ids::{AgentEpoch, EngineId, GpuUuid, ModelName, NodeName, PoolName, Seq},
    units::Micros,
};
use plimsoll_core::fleet::{
    Counter, Counts, EngineGauges, EngineIdentity, EngineReading, EngineState, GpuIdentity, GpuReading,
    GpuState, NodeInventory, Observation, Part, PoolKey, Samples,
};

/// vLLM's default TTFT edges, seconds.
pub(crate) const TTFT_EDGES: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];

pub(crate) fn node(i: usize) -> NodeName {
    NodeName::parse(&format!("node-{i}")).unwrap()
}

pub(crate) fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

pub(crate) fn engine(i: usize) -> EngineId {
    EngineId::parse(&format!("engine-{i}")).unwrap()
}

/// An inventory of one GPU and one engine for each `(model, pool)`.
pub(crate) fn inventory(engines: &[(&str, Option<&str>)]) -> Arc<NodeInventory> {
    let uuid = |i: usize| GpuUuid::parse(&format!("GPU-{i}")).unwrap();
    Arc::new(NodeInventory {
        gpus: (0..engines.len())
            .map(|i| {
                Arc::new(GpuIdentity {
                    uuid: uuid(i),
                    index: i as u32,
                    name: None,
                    pci_bus_id: None,
                    memory_total_bytes: Some(80 << 30),
                    power_limit_watts: Some(700.0),
                    nvlink_domain: None,
                })
            })
            .collect(),
        engines: engines
            .iter()
            .enumerate()
            .map(|(i, (name, pool))| {
                Arc::new(EngineIdentity {
                    id: engine(i),
                    kind: "vllm".to_owned(),
                    url: format!("http://127.0.0.1:{}/metrics", 8000 + i),
                    version: None,
                    pool: PoolKey {
                        model: Some(model(name)),
                        pool: pool.map(|pool| PoolName::parse(pool).unwrap()),
                        role: Role::Aggregated,
                    },
                    replica: None,
                    gpus: vec![uuid(i)],
                    kv_capacity_tokens: None,
                    follower: false,
                    front_end: false,
                })
            })
            .collect(),
        layouts: vec![
            BucketLayout::new(TTFT_EDGES, Unit::Seconds).unwrap(),
            BucketLayout::new(&[10.0, 100.0, 1000.0], Unit::Tokens).unwrap(),
        ],
        ..NodeInventory::default()
    })
}

/// An observation of one second that ended `age` before now, with a row for each GPU and engine.
pub(crate) fn observation(at: usize, inventory: &Arc<NodeInventory>, seq: u64, age: Micros) -> Observation {
    let gpu = GpuReading { state: Some(GpuState::Ok), power_watts: Some(350.0), ..GpuReading::default() };
    let gauges = EngineGauges {
        state: Some(EngineState::Ready),
        running_requests: Some(seq),
        ..EngineGauges::default()
    };
    Observation {
        age,
        length: Micros(1_000_000),
        gpus: vec![gpu; inventory.gpus.len()],
        engines: vec![EngineReading { gauges, gained: Counts::default() }; inventory.engines.len()],
        ..Observation::new(node(at), Arc::clone(inventory), AgentEpoch(1), Seq(seq))
    }
}

/// Lets an engine's row gain requests.
pub(crate) fn arrive(observation: &mut Observation, engine: usize, requests: u64) {
    observation.engines[engine].gained.gain(Counter::Arrived, requests);
}

/// A TTFT part of single samples in microseconds, as an engine's buckets count them.
pub(crate) fn ttft(engine: usize, samples: &[u64]) -> Part {
    let mut counts = vec![0u64; TTFT_EDGES.len() + 1];
    for sample in samples {
        counts[TTFT_EDGES.partition_point(|edge| *edge < *sample as f64 / 1e6)] += 1;
    }
    let counts = counts.into_iter().enumerate().filter(|(_, n)| *n > 0).collect();
    Part {
        engine,
        kind: DistributionKind::Ttft,
        samples: Samples::Buckets { layout: 0, counts },
        sum: samples.iter().sum(),
    }
}
