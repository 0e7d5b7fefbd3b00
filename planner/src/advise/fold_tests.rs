//! Reports in, observations out.

use std::sync::Arc;

use plimsoll_common::{
    engine::{DistributionKind, Role, Unit},
    histogram::BucketLayout,
    ids::{AgentEpoch, GpuUuid, ModelName, NodeName, ReplicaId, Seq},
    units::Micros,
};
use plimsoll_core::{
    fleet::{
        EngineGauges, EngineIdentity, EngineReading, EngineState, Fleet, Limits, NodeInventory, Part,
        PoolKey, Samples,
    },
    policy::{Policy, ProfileRef},
};
use proptest::prelude::*;

use super::*;
use crate::advise::Gather;

const SECOND: Micros = Micros(1_000_000);

fn policy(more: &str) -> Arc<Matching> {
    let text = format!(
        "models:
- {{name: m, slo: {{ttft: {{limit: 100ms}}, itl: {{limit: 30ms}}}}, pools: [{{name: chat, max: 9{more}}}]}}"
    );
    let mut policy: Policy = serde_saphyr::from_str(&text).unwrap();
    policy.inline_profiles(&mut ProfileRef::built_in).unwrap();
    Arc::new(Matching::new(&policy))
}

/// A node whose engines say what a test wants.
struct Node {
    inventory: Arc<NodeInventory>,
    seq: Seq,
}

fn engine(id: &str, replica: Option<&str>) -> EngineIdentity {
    EngineIdentity {
        id: EngineId::parse(id).unwrap(),
        kind: "vllm".to_owned(),
        url: String::new(),
        version: None,
        pool: PoolKey { model: Some(ModelName::parse("m").unwrap()), pool: None, role: Role::Aggregated },
        replica: replica.map(|replica| ReplicaId::parse(replica).unwrap()),
        gpus: Vec::<GpuUuid>::new(),
        kv_capacity_tokens: None,
        follower: false,
        front_end: false,
    }
}

fn node_name() -> NodeName {
    NodeName::parse("n").unwrap()
}

impl Node {
    fn new(engines: Vec<EngineIdentity>) -> Self {
        let seconds = BucketLayout::new(&[0.05, 0.1, 0.2], Unit::Seconds).unwrap();
        let tokens = BucketLayout::new(&[100.0, 1000.0], Unit::Tokens).unwrap();
        let inventory = NodeInventory {
            engines: engines.into_iter().map(Arc::new).collect(),
            layouts: vec![seconds, tokens],
            ..NodeInventory::default()
        };
        Self { inventory: Arc::new(inventory), seq: Seq(0) }
    }

    fn report(&mut self, engines: Vec<EngineReading>, parts: Vec<Part>) -> plimsoll_core::fleet::Observation {
        self.seq = self.seq.next();
        plimsoll_core::fleet::Observation {
            engines,
            parts,
            length: SECOND,
            ..plimsoll_core::fleet::Observation::new(
                node_name(),
                Arc::clone(&self.inventory),
                AgentEpoch(1),
                self.seq,
            )
        }
    }
}

fn reading(state: EngineState, held_s: u64, arrived: Option<u64>) -> EngineReading {
    let mut gained = Counts::none();
    gained.set(Counter::Arrived, arrived);
    let gauges = EngineGauges {
        state: Some(state),
        state_held: Some(Micros(held_s * 1_000_000)),
        running_requests: Some(3),
        waiting_requests: Some(1),
        kv_cache_utilization_ratio: Some(0.25),
        ..EngineGauges::default()
    };
    EngineReading { gauges, gained }
}

fn ready(arrived: u64) -> EngineReading {
    reading(EngineState::Ready, 60, Some(arrived))
}

fn buckets(kind: DistributionKind, counts: &[(usize, u64)], sum: u64) -> Part {
    let layout = usize::from(kind.unit() == Unit::Tokens);
    Part { engine: 0, kind, samples: Samples::Buckets { layout, counts: counts.to_vec() }, sum }
}

/// A fleet and what is gathered beside it, as the driver has them.
struct Live {
    fleet: Fleet,
    gather: Gather,
    matching: Arc<Matching>,
    memory: Memory,
}

impl Live {
    fn new(matching: Arc<Matching>) -> Self {
        let gather = Gather::new(Arc::clone(&matching), Micros(0));
        Self { fleet: Fleet::new(Limits::default()), gather, matching, memory: Memory::default() }
    }

    fn take(&mut self, at_s: u64, observation: plimsoll_core::fleet::Observation) {
        self.gather.add(&observation);
        self.fleet.observe(Micros(at_s * 1_000_000), observation);
    }

    fn step(&mut self, at_s: u64) -> (Vec<Observation>, Vec<Finding>) {
        let seen = self.gather.take(Micros(at_s * 1_000_000), &self.fleet);
        fold(&seen, &self.matching, &mut self.memory)
    }
}

#[test]
fn gains_are_added_up_and_gauges_are_the_newest() {
    let mut live = Live::new(policy(""));
    let mut node = Node::new(vec![engine("a", None)]);
    let ttft = buckets(DistributionKind::Ttft, &[(0, 4), (1, 2), (2, 1), (3, 1)], 800_000);
    let itl = buckets(DistributionKind::ItlStep, &[(0, 10)], 200_000);
    let isl = buckets(DistributionKind::Isl, &[(0, 1), (1, 2), (2, 1)], 4_000);
    let first = node.report(vec![ready(5)], vec![ttft.clone(), itl, isl]);
    live.take(1, first);
    let second = node.report(
        vec![EngineReading {
            gauges: EngineGauges { running_requests: Some(7), ..ready(0).gauges },
            ..ready(2)
        }],
        vec![ttft],
    );
    live.take(2, second);
    let (observations, findings) = live.step(3);
    assert_eq!(findings, []);
    let [seen] = &observations[..] else { panic!("{observations:?}") };
    assert_eq!((seen.pool.as_str(), seen.window), ("chat", Micros(3_000_000)));
    assert_eq!((seen.replicas.ready, seen.replicas.target), (1, Some(1)));
    let engine = &seen.engines[&EngineId::parse("n/a").unwrap()];
    assert_eq!((engine.running, engine.waiting, engine.kv_utilization), (Some(7), Some(1), Some(0.25)));
    assert_eq!(engine.gained.arrived, Some(7));
    // 100 ms is an edge: what is in time is known.
    assert_eq!(
        (engine.ttft.count, engine.ttft.sum, engine.ttft.within),
        (16, Micros(1_600_000), Some((12, 12)))
    );
    // 30 ms is none: of the first bucket, all may be in time.
    assert_eq!((engine.itl.count, engine.itl.within), (10, Some((0, 10))));
    assert_eq!(engine.prompt_lengths, [(100, 1), (1_000, 2), (u64::from(u32::MAX), 1)]);
    assert_eq!((engine.gained.finished, engine.gained.finished_prompt_tokens), (Some(4), Some(4_000)));
    assert_eq!(engine.gained.finished_output_tokens, None, "absent is not zero");
}

#[test]
fn what_was_told_once_is_not_told_again_and_a_quiet_report_is_a_zero() {
    let mut live = Live::new(policy(""));
    let mut node = Node::new(vec![engine("a", None)]);
    let report = node.report(vec![ready(5)], vec![]);
    live.take(1, report);
    let arrived =
        |observations: &[Observation]| observations[0].engines.values().next().map(|e| e.gained.arrived);
    assert_eq!(arrived(&live.step(2).0), Some(Some(5)));
    // No report came since, and the agent is live all the same.
    assert_eq!(arrived(&live.step(3).0), Some(Some(0)));
    let (observations, _) = live.step(100);
    assert_eq!(arrived(&observations), None, "a silent agent's engine tells nothing");
    assert_eq!((observations[0].replicas.ready, observations[0].replicas.silent), (1, 1));
}

#[test]
fn states_become_replicas() {
    let states = [
        ("a", EngineState::Ready),
        ("b", EngineState::Frozen),
        ("c", EngineState::Draining),
        ("d", EngineState::Gone),
        ("e", EngineState::Sleeping),
        ("f", EngineState::Unreachable),
        ("g", EngineState::Starting),
    ];
    let mut live = Live::new(policy(""));
    let mut node = Node::new(states.iter().map(|(id, _)| engine(id, None)).collect());
    let readings = states.iter().map(|(_, state)| reading(*state, 7, None)).collect();
    let report = node.report(readings, vec![]);
    live.take(1, report);
    let (observations, _) = live.step(2);
    let replicas = &observations[0].replicas;
    assert_eq!((replicas.ready, replicas.silent, replicas.draining), (3, 2, 1));
    assert_eq!(replicas.starting, [Micros(8_000_000)], "7 s at its report, which is a second old");
    assert_eq!(replicas.target, Some(4));
}

#[test]
fn what_a_start_took_is_told_at_its_end_and_a_failed_one_once() {
    let mut live = Live::new(policy(""));
    let mut node = Node::new(vec![engine("a", None), engine("b", None)]);
    let starting = |held| reading(EngineState::Starting, held, None);
    let report = node.report(vec![starting(2), starting(4)], vec![]);
    live.take(10, report);
    let (observations, _) = live.step(10);
    assert_eq!(observations[0].replicas.starting, [Micros(2_000_000), Micros(4_000_000)]);
    // Began at 8 s and at 6 s; the first serves since 13 s, the other is gone.
    let report =
        node.report(vec![reading(EngineState::Ready, 2, None), reading(EngineState::Gone, 0, None)], vec![]);
    live.take(15, report);
    let (observations, _) = live.step(15);
    let replicas = &observations[0].replicas;
    assert_eq!((replicas.started_in.as_slice(), replicas.failed_starts), ([Micros(5_000_000)].as_slice(), 1));
    assert_eq!((replicas.ready, replicas.starting.len()), (1, 0));
    let (observations, _) = live.step(16);
    assert_eq!((observations[0].replicas.started_in.len(), observations[0].replicas.failed_starts), (0, 0));
}

#[test]
fn an_engine_that_its_agent_no_longer_names_is_gone_at_once() {
    let mut live = Live::new(policy(""));
    let mut node = Node::new(vec![engine("a", None), engine("b", None)]);
    let report = node.report(vec![ready(1), ready(1)], vec![]);
    live.take(1, report);
    assert_eq!(live.step(2).0[0].replicas.ready, 2);
    let mut fewer = Node { seq: node.seq, ..Node::new(vec![engine("b", None)]) };
    let report = fewer.report(vec![ready(1)], vec![]);
    live.take(3, report);
    let (observations, _) = live.step(4);
    assert_eq!((observations[0].replicas.ready, observations[0].replicas.silent), (1, 0));
}

#[test]
fn a_replica_of_several_engines_counts_once() {
    let profile = ", profile: llama-3.1-8b-h100-tp1, parallel: {dp: 2}";
    // By the policy two engines are one; the fifth is half a replica.
    let mut live = Live::new(policy(profile));
    let mut node = Node::new(["a", "b", "c", "d", "e"].iter().map(|id| engine(id, None)).collect());
    let report = node.report(vec![ready(1); 5], vec![]);
    live.take(1, report);
    assert_eq!(live.step(2).0[0].replicas.ready, 2);
    // By their own word; and one that has an engine that starts is not ready.
    let mut live = Live::new(policy(profile));
    let engines = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")];
    let mut node = Node::new(engines.iter().map(|(id, replica)| engine(id, Some(replica))).collect());
    let starting = reading(EngineState::Starting, 3, None);
    let report = node.report(vec![ready(1), ready(1), ready(1), starting], vec![]);
    live.take(2, report);
    let (observations, _) = live.step(2);
    let replicas = &observations[0].replicas;
    assert_eq!((replicas.ready, replicas.starting.as_slice()), (1, [Micros(3_000_000)].as_slice()));
}

#[test]
fn an_empty_fleet_is_not_told_of_before_it_was_ever_seen() {
    let mut live = Live::new(policy(""));
    let nobody = Finding::PoolWithoutEngines { pool: PoolName::parse("chat").unwrap() };
    assert_eq!(live.step(1), (vec![], vec![nobody.clone()]));
    let mut node = Node::new(vec![engine("a", None)]);
    let report = node.report(vec![ready(1)], vec![]);
    live.take(2, report);
    assert_eq!(live.step(3).0.len(), 1);
    let mut empty = Node { seq: node.seq, ..Node::new(vec![]) };
    let report = empty.report(vec![], vec![]);
    live.take(4, report);
    let (observations, findings) = live.step(5);
    assert_eq!((observations[0].replicas.ready, findings), (0, vec![nobody]), "from then on, none is none");
}

#[test]
fn engines_of_no_pool_are_told() {
    let mut live = Live::new(policy(""));
    let other = EngineIdentity {
        pool: PoolKey { model: ModelName::parse("x").ok(), ..PoolKey::default() },
        ..engine("x", None)
    };
    let mut node = Node::new(vec![engine("a", None), other]);
    let report = node.report(vec![ready(1), ready(1)], vec![]);
    live.take(1, report);
    let (_, findings) = live.step(2);
    let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert_eq!(
        texts,
        [
            "1 engines of the pool x/aggregated belong to no pool of the policy: the policy does not have the model"
        ]
    );
}

#[test]
fn a_front_end_tells_demand_of_a_pool_without_engines() {
    let mut live = Live::new(policy(""));
    let (mut observations, _) = live.step(1);
    let pool = PoolName::parse("chat").unwrap();
    let door = Door { arrived: Some(4), ..Door::default() };
    at_doors(&mut observations, BTreeMap::from([(pool.clone(), door)]), SECOND);
    assert_eq!((observations[0].door, observations[0].replicas.target), (Some(door), Some(0)));
    let mut node = Node::new(vec![engine("a", None)]);
    let report = node.report(vec![ready(1)], vec![]);
    live.take(2, report);
    let (mut observations, _) = live.step(3);
    at_doors(&mut observations, BTreeMap::from([(pool, door)]), SECOND);
    assert_eq!(
        (observations.len(), observations[0].door, observations[0].replicas.ready),
        (1, Some(door), 1)
    );
}

proptest! {
    // However reports are cut into steps, nothing is lost and nothing is told twice.
    #[test]
    fn every_gain_is_told_exactly_once(
        arrivals in prop::collection::vec((0u64..1000, any::<bool>()), 1..20),
    ) {
        let mut live = Live::new(policy(""));
        let mut node = Node::new(vec![engine("a", None)]);
        let (mut told, mut at) = (0, 0);
        let sum = |observations: &[Observation]| -> u64 {
            let engines = observations.iter().flat_map(|seen| seen.engines.values());
            engines.filter_map(|engine| engine.gained.arrived).sum()
        };
        for (n, step) in &arrivals {
            at += 1;
            let report = node.report(vec![ready(*n)], vec![]);
            live.take(at, report);
            if *step {
                told += sum(&live.step(at).0);
            }
        }
        told += sum(&live.step(at).0);
        prop_assert_eq!(told, arrivals.iter().map(|(n, _)| n).sum::<u64>());
    }
}
