//! What holds in every world.

use std::collections::BTreeMap;

use plimsoll_common::units::Micros;
use plimsoll_core::score::Slo;
use plimsoll_engine::{EngineConfig, Profile};
use plimsoll_sim::{
    Ending, Fault, Lost, Outcome, PoolConfig, Router, StartUp, Who, World, WorldConfig,
    policy::{Decision, Drain, Observation, PoolId, ScalingPolicy, Target},
    workload::{Arrival, Generator, Workload},
};
use proptest::prelude::*;

/// Sets whatever comes next, and checks what it sees.
#[derive(Debug)]
struct Whim {
    targets: Vec<(u32, u32, bool)>,
    tick: usize,
    /// What every replica's counters gained, summed: arrived, finished, generated.
    gained: BTreeMap<u32, (u64, u64, u64)>,
}

impl ScalingPolicy for Whim {
    fn name(&self) -> String {
        "whim".to_owned()
    }

    fn interval(&self) -> Micros {
        Micros(5_000_000)
    }

    fn decide(&mut self, now: Micros, seen: &Observation) -> Decision {
        let mut decision = Decision::default();
        for pool in &seen.pools {
            assert!(pool.starting.iter().all(|at| *at <= now));
            for replica in &pool.replicas {
                // KV blocks are conserved: no replica holds more than it has, and none holds any without a request.
                assert!((0.0..=1.0).contains(&replica.kv_usage));
                assert!(replica.running > 0 || replica.kv_usage == 0.0);
                assert_eq!(replica.ttft.counts.iter().sum::<u64>(), replica.ttft.count);
                let sum = self.gained.entry(replica.id.0).or_default();
                sum.0 += replica.gained.arrived;
                sum.1 += replica.gained.finished;
                sum.2 += replica.gained.generated_tokens;
            }
            let (prefill, decode, abort) = self.targets[self.tick % self.targets.len()];
            decision.targets.push(Target {
                pool: pool.id,
                replicas: if pool.id == PoolId(0) { prefill } else { decode },
                reason: String::new(),
                remove_first: Vec::new(),
                drain: if abort { Drain::AbortAfter(Micros(500_000)) } else { Drain::Wait },
            });
        }
        self.tick += 1;
        decision
    }
}

fn pool(name: &str, prefix_cache: bool, router: Router, failures: f64) -> PoolConfig {
    let profile = Profile::built_in("qwen3-32b-h200-tp2").expect("a built-in profile");
    let mut pool = PoolConfig::new(name, &profile).with_initial(2);
    // Small enough for preemptions and queues.
    pool.engine = EngineConfig { kv_blocks: 700, max_num_seqs: 24, max_model_len: 8_000, ..pool.engine };
    pool.noise = 0.05;
    pool.min = 0;
    pool.router = router;
    pool.prefix_cache = prefix_cache;
    pool.start_up = StartUp { mean: Micros(7_000_000), spread: 0.3, failures };
    pool
}

fn fault() -> impl Strategy<Value = Fault> {
    let time = || (0..100_u64).prop_map(|s| Micros(s * 1_000_000));
    let who = prop_oneof![Just(Who::All), (0..3_u32).prop_map(Who::Nth)];
    (time(), time(), who, 0..5_u8, 0.5..3.0_f64).prop_map(|(a, b, who, kind, factor)| {
        let (from, to, pool) = (a.min(b), a.max(b), PoolId(0));
        match kind {
            0 => Fault::Death { at: from, pool, who },
            1 => Fault::Slow { from, to, pool, who, factor },
            2 => Fault::Drift { from, over: to, pool, factor },
            3 => Fault::HotSpot { from, to, pool, nth: 1, share: factor / 3.0 },
            _ => Fault::Silence { from, to, pool, who },
        }
    })
}

fn router() -> impl Strategy<Value = Router> {
    prop_oneof![
        Just(Router::RoundRobin),
        Just(Router::LeastLoaded),
        Just(Router::PrefixAware { load_weight: 0.1 })
    ]
}

prop_compose! {
    fn world()(
        disaggregated in any::<bool>(), cache in any::<bool>(), router in router(), failures in 0.0..0.5_f64,
        faults in prop::collection::vec(fault(), 0..4), retry in any::<bool>(), gpus in prop::option::of(4..20_u32),
        seed in any::<u64>(),
    ) -> WorldConfig {
        let pool = |name| pool(name, cache, router, failures);
        let mut config = if disaggregated {
            WorldConfig::disaggregated(pool("prefill"), pool("decode"))
        } else {
            WorldConfig::aggregated(pool("chat"))
        };
        config.faults = faults;
        config.lost = if retry { Lost::Retry } else { Lost::Abort };
        config.gpus = gpus;
        config.seed = seed;
        config.patience = Micros(200_000_000);
        config
    }
}

fn workload(seed: u64) -> Workload {
    let mut workload = Generator::poisson(4.0, 90.0, 900.0, 60.0).generate(seed).expect("a generator");
    // A few that no engine takes, and a few that want one token.
    let odd = [(10, 9_000, 5), (20, 500, 1), (30, 7_000, 900)];
    let odd = odd.map(|(at, prompt, output)| Arrival::new(Micros(at * 1_000_000), prompt, output));
    workload = Workload::superpose(vec![workload, Workload::new(odd.to_vec())]);
    workload
}

fn check(outcome: &Outcome, workload: &Workload, config: &WorldConfig) {
    // Requests are conserved, and each one's times are in order.
    assert_eq!(outcome.requests.len(), workload.len());
    for (request, arrival) in outcome.requests.iter().zip(workload.arrivals()) {
        assert_eq!((request.arrival, request.output_tokens), (arrival.at, arrival.output_tokens));
        assert_eq!(request.last_token.is_some(), request.ending == Ending::Finished);
        assert!(request.first_token.is_none_or(|first| first > request.arrival));
        assert!(request.last_token.is_none_or(|last| Some(last) >= request.first_token));
        assert!(request.cached_tokens < request.prompt_tokens);
    }
    for span in &outcome.replicas {
        assert!(span.ready.is_none_or(|ready| ready >= span.requested));
        assert!(span.gone.is_none_or(|gone| gone >= span.requested.max(span.ready.unwrap_or_default())));
        assert!(span.draining.is_none_or(|draining| Some(draining) >= span.ready));
    }
    // No more GPUs are held than there are, except by replicas that were there from the start.
    if let Some(gpus) = config.gpus {
        for sample in &outcome.samples {
            let held: u32 = outcome
                .samples
                .iter()
                .filter(|other| other.at == sample.at)
                .map(|s| 2 * (s.ready + s.starting + s.draining))
                .sum();
            let initial = 2 * config.pools.iter().map(|pool| pool.initial).sum::<u32>();
            assert!(held <= gpus.max(initial), "{held} of {gpus} at {:?}", sample.at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Requests, tokens and replicas are conserved whatever a policy wants and whatever goes wrong, and the same world
    /// runs the same way twice.
    #[test]
    fn nothing_is_lost_and_runs_repeat(
        config in world(),
        targets in prop::collection::vec((0..5_u32, 0..5_u32, prop::bool::weighted(0.1)), 1..8),
        seed in 0..1_000_u64,
    ) {
        let workload = workload(seed);
        let run = || {
            let mut whim = Whim { targets: targets.clone(), tick: 0, gained: BTreeMap::new() };
            let outcome = World::new(&config, &workload).expect("a valid world").run(&mut whim);
            (outcome, whim)
        };
        let ((outcome, whim), (again, _)) = (run(), run());
        prop_assert_eq!(&outcome.requests, &again.requests);
        prop_assert_eq!(&outcome.replicas, &again.replicas);
        prop_assert_eq!(&outcome.actions, &again.actions);
        check(&outcome, &workload, &config);
        // What replicas published is no more than what happened.
        let generated: u64 = whim.gained.values().map(|sum| sum.2).sum();
        let asked: u64 = outcome.requests.iter().map(|r| u64::from(r.output_tokens) * (1 + u64::from(r.retries))).sum();
        prop_assert!(generated <= asked);
        prop_assert!(whim.gained.values().all(|sum| sum.1 <= sum.0));
        let score = outcome.score(Slo::of_millis(1_000, 30));
        prop_assert_eq!(score.requests, workload.len() as u64);
        prop_assert!(score.gpu_hours.total >= score.gpu_hours.starting);
    }

    /// Without faults, failures or orders to abort, scaling alone never loses a request: whoever is accepted finishes.
    #[test]
    fn scaling_down_aborts_nobody(
        targets in prop::collection::vec((1..5_u32, 1..5_u32, Just(false)), 1..8),
        disaggregated in any::<bool>(), router in router(), seed in 0..1_000_u64,
    ) {
        let pool = |name| PoolConfig { min: 1, ..pool(name, false, router, 0.0) };
        let config = if disaggregated {
            WorldConfig::disaggregated(pool("prefill"), pool("decode"))
        } else {
            WorldConfig::aggregated(pool("chat"))
        };
        let workload = workload(seed);
        let mut whim = Whim { targets, tick: 0, gained: BTreeMap::new() };
        let outcome = World::new(&config, &workload).expect("a valid world").run(&mut whim);
        prop_assert_eq!(outcome.count(Ending::Aborted), 0);
        prop_assert_eq!(outcome.count(Ending::Unfinished), 0);
        let too_long = |r: &&plimsoll_sim::RequestRecord| r.prompt_tokens + r.output_tokens > 8_000;
        let refused = outcome.requests.iter().filter(too_long).count();
        prop_assert_eq!(outcome.count(Ending::Rejected), refused);
    }
}
