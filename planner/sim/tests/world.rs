//! Small worlds whose ends can be told beforehand.

use plimsoll_common::units::Micros;
use plimsoll_core::score::Slo;
use plimsoll_engine::{Curve, EngineConfig, Profile, Roofline, Rows, Table, Timing};
use plimsoll_sim::{
    Ending, Fault, Lost, Outcome, PoolConfig, Router, StartUp, Who, World, WorldConfig,
    bounds::Oracle,
    policies::Fixed,
    policy::{Decision, Drain, Observation, PoolId, ScalingPolicy, Target},
    workload::{Arrival, Workload},
};

const SECOND: u64 = 1_000_000;

/// 10 ms an iteration and 1 ms a token.
fn pool() -> PoolConfig {
    let mut profile = Profile::built_in("llama-3.1-8b-h200-tp1").expect("a built-in profile");
    profile.timing = Timing::new(Curve::Roofline(Roofline {
        a_ms: 10.0,
        w_ms: 0.0,
        b_ms_per_token: 1.0,
        c_ms_per_token_squared: 0.0,
        d_ms_per_sequence: 0.0,
        e_ms_per_kv_token: 0.0,
    }));
    let mut pool = PoolConfig::new("pool", &profile);
    pool.engine = EngineConfig { kv_blocks: 10_000, max_num_seqs: 8, max_model_len: 10_000, ..pool.engine };
    pool
}

/// Sets each target at its time.
#[derive(Debug)]
struct Script(Vec<(u64, u32, Drain)>);

impl ScalingPolicy for Script {
    fn name(&self) -> String {
        "script".to_owned()
    }

    fn interval(&self) -> Micros {
        Micros(SECOND)
    }

    fn decide(&mut self, now: Micros, _: &Observation) -> Decision {
        let due = self.0.iter().filter(|(at, _, _)| Micros(at * SECOND) == now);
        let targets = due.map(|(_, replicas, drain)| Target {
            pool: PoolId(0),
            replicas: *replicas,
            reason: "script".to_owned(),
            remove_first: Vec::new(),
            drain: *drain,
        });
        Decision { targets: targets.collect() }
    }
}

fn every(gap_ms: u64, n: u64, prompt: u32, output: u32) -> Workload {
    Workload::new((0..n).map(|i| Arrival::new(Micros(i * gap_ms * 1_000), prompt, output)).collect())
}

fn run(config: &WorldConfig, workload: &Workload, policy: &mut dyn ScalingPolicy) -> Outcome {
    World::new(config, workload).expect("a valid world").run(policy)
}

fn all_finished(outcome: &Outcome) -> bool {
    outcome.requests.iter().all(|request| request.ending == Ending::Finished)
}

#[test]
fn one_request_takes_what_its_iterations_take() {
    let outcome = run(&WorldConfig::aggregated(pool()), &every(1, 1, 100, 11), &mut Fixed::new(vec![1]));
    let request = outcome.requests[0];
    assert_eq!(request.ttft(), Some(Micros(110_000)));
    assert_eq!(request.mean_itl(), Some(Micros(11_000)));
    assert_eq!(outcome.end, Micros(220_000));
}

#[test]
fn a_disaggregated_request_pays_for_its_transfer() {
    let mut config = WorldConfig::disaggregated(pool(), pool());
    config.transfer.bytes_per_token = 1_000;
    config.transfer.bytes_per_s = 1e6;
    config.transfer.latency = Micros(500);
    let outcome = run(&config, &every(1, 1, 100, 11), &mut Fixed::new(vec![1, 1]));
    let request = outcome.requests[0];
    // 110 ms of prefill, 100.5 ms of transfer, ten decodes of 11 ms.
    assert_eq!(request.ttft(), Some(Micros(110_000)));
    assert_eq!(request.last_token, Some(Micros(110_000 + 100_500 + 110_000)));
    // A single output token never sees the decode pool.
    let outcome = run(&config, &every(1, 1, 100, 1), &mut Fixed::new(vec![1, 1]));
    assert_eq!(outcome.requests[0].last_token, Some(Micros(110_000)));
}

#[test]
fn replicas_start_when_asked_and_drain_before_they_go() {
    let start_up = StartUp { mean: Micros(10 * SECOND), spread: 0.0, failures: 0.0 };
    let config = WorldConfig::aggregated(pool().with_start_up(start_up));
    let script = vec![(5, 3, Drain::Wait), (30, 1, Drain::Wait)];
    let outcome = run(&config, &every(100, 600, 200, 100), &mut Script(script));
    assert!(all_finished(&outcome));
    let spans = &outcome.replicas;
    assert_eq!(spans.len(), 3);
    assert_eq!((spans[1].requested, spans[1].ready), (Micros(5 * SECOND), Some(Micros(15 * SECOND))));
    let drained: Vec<_> = spans.iter().filter(|span| span.draining == Some(Micros(30 * SECOND))).collect();
    assert_eq!(drained.len(), 2);
    assert!(drained.iter().all(|span| span.gone > span.draining));
    let actions: Vec<_> = outcome.actions.iter().map(|action| (action.at.0 / SECOND, action.to)).collect();
    assert_eq!(actions, vec![(5, 3), (30, 1)]);
}

#[test]
fn only_who_asks_for_it_aborts_by_scaling_down() {
    let config = WorldConfig::aggregated(pool().with_initial(2));
    let script = vec![(10, 1, Drain::AbortAfter(Micros(SECOND)))];
    let outcome = run(&config, &every(500, 60, 200, 200), &mut Script(script));
    let aborted = outcome.requests.iter().filter(|request| request.ending == Ending::Aborted).count();
    assert!(aborted > 0 && aborted <= 8, "{aborted}");
    assert_eq!(outcome.replicas.iter().filter_map(|span| span.gone).next(), Some(Micros(11 * SECOND)));
}

#[test]
fn a_start_that_is_given_up_is_gone_at_once() {
    let config = WorldConfig::aggregated(pool());
    let script = vec![(5, 2, Drain::Wait), (7, 1, Drain::Wait)];
    let outcome = run(&config, &every(100, 300, 10, 10), &mut Script(script));
    assert_eq!(outcome.replicas[1].gone, Some(Micros(7 * SECOND)));
    assert_eq!(outcome.replicas[1].ready, None);
}

#[test]
fn failed_starts_are_tried_again_and_dead_replicas_replaced() {
    let start_up = StartUp { mean: Micros(5 * SECOND), spread: 0.3, failures: 0.5 };
    let mut config = WorldConfig::aggregated(pool().with_start_up(start_up).with_initial(2));
    config.faults = vec![Fault::Death { at: Micros(20 * SECOND), pool: PoolId(0), who: Who::All }];
    config.lost = Lost::Retry;
    let outcome = run(&config, &every(100, 600, 200, 50), &mut Fixed::new(vec![3]));
    assert!(all_finished(&outcome));
    assert!(outcome.requests.iter().any(|request| request.retries > 0));
    assert!(outcome.replicas.iter().any(|span| span.failed));
    let died = outcome.replicas.iter().filter(|span| span.died).count();
    assert!((2..=3).contains(&died), "{died}");
    // Requests that came while nobody was ready waited at the door for as long as a start takes.
    let longest = outcome.requests.iter().filter_map(plimsoll_sim::RequestRecord::ttft).max();
    assert!(longest > Some(Micros(3 * SECOND)), "{longest:?}");
    config.lost = Lost::Abort;
    let outcome = run(&config, &every(100, 600, 200, 50), &mut Fixed::new(vec![3]));
    assert!(outcome.requests.iter().any(|request| request.ending == Ending::Aborted));
}

#[test]
fn a_hot_spot_is_hot_and_a_slow_replica_slow() {
    let mut config = WorldConfig::aggregated(pool().with_initial(4));
    let workload = every(100, 600, 200, 20);
    let busiest = |config: &WorldConfig| {
        #[derive(Debug, Default)]
        struct Watch(Vec<Vec<u64>>);
        impl ScalingPolicy for Watch {
            fn name(&self) -> String {
                "watch".to_owned()
            }
            fn interval(&self) -> Micros {
                Micros(10 * SECOND)
            }
            fn decide(&mut self, _: Micros, seen: &Observation) -> Decision {
                self.0.push(seen.pools[0].replicas.iter().map(|r| r.gained.arrived).collect());
                Decision::default()
            }
        }
        let mut watch = Watch::default();
        let _ = World::new(config, &workload).expect("a valid world").run(&mut watch);
        watch.0
    };
    assert_eq!(busiest(&config)[2], vec![25, 25, 25, 25]);
    let (from, to) = (Micros(20 * SECOND), Micros(40 * SECOND));
    config.faults = vec![Fault::HotSpot { from, to, pool: PoolId(0), nth: 1, share: 0.6 }];
    let seen = busiest(&config);
    assert_eq!(seen[2].iter().sum::<u64>(), 100);
    assert!((68..=72).contains(&seen[2][1]), "{:?}", seen[2]);
    assert!(seen[4].iter().all(|n| (24..=26).contains(n)), "{:?}", seen[4]);
    config.faults = vec![Fault::Silence { from, to, pool: PoolId(0), who: Who::Nth(0) }];
    let seen = busiest(&config);
    assert_eq!((seen[1].len(), seen[2].len()), (3, 3));
    // What a silent replica counted is there when it speaks again.
    assert_eq!(seen[3], vec![75, 25, 25, 25]);
    config.faults = vec![Fault::Slow { from, to, pool: PoolId(0), who: Who::Nth(2), factor: 1.5 }];
    let outcome = run(&config, &workload, &mut Fixed::new(vec![4]));
    // Every fourth request is replica 2's.
    let mean = |from: usize| {
        let its = outcome.requests[from..].iter().skip(2).step_by(4).take(20);
        its.filter_map(plimsoll_sim::RequestRecord::mean_itl).map(|itl| itl.0).sum::<u64>() / 20
    };
    assert!(2 * mean(200) > 3 * mean(100), "{} {}", mean(200), mean(100));
    assert_eq!(mean(500), mean(100));
}

#[test]
fn gpus_bound_the_fleet_and_are_waited_for() {
    let start_up = StartUp { mean: Micros(2 * SECOND), ..StartUp::default() };
    let mut config = WorldConfig::aggregated(pool().with_start_up(start_up));
    config.gpus = Some(2);
    let outcome = run(&config, &every(100, 300, 10, 10), &mut Script(vec![(3, 5, Drain::Wait)]));
    assert_eq!(outcome.replicas.len(), 2);
    assert_eq!(outcome.samples.last().map(|sample| (sample.wanted, sample.ready)), Some((5, 2)));
}

#[test]
fn looking_routers_spread_by_load_and_by_prefix() {
    for router in [Router::LeastLoaded, Router::PrefixAware { load_weight: 0.2 }] {
        let mut pool = pool().with_initial(3);
        pool.router = router;
        let outcome = run(&WorldConfig::aggregated(pool), &every(40, 500, 100, 50), &mut Fixed::new(vec![3]));
        assert!(all_finished(&outcome), "{router:?}");
    }
}

#[test]
fn what_an_engine_refuses_is_a_miss_and_not_a_hang() {
    let workload = Workload::new(vec![Arrival::new(Micros(5), 20_000, 5), Arrival::new(Micros(6), 20, 5)]);
    for config in [WorldConfig::aggregated(pool()), WorldConfig::disaggregated(pool(), pool())] {
        let outcome = run(&config, &workload, &mut Fixed::new(Vec::new()));
        assert_eq!(outcome.requests[0].ending, Ending::Rejected);
        assert_eq!(outcome.requests[1].ending, Ending::Finished);
    }
}

#[test]
fn patience_ends() {
    let mut config = WorldConfig::aggregated(pool());
    config.patience = Micros(5 * SECOND);
    let outcome = run(&config, &every(10, 500, 900, 50), &mut Fixed::new(vec![1]));
    let unfinished = outcome.requests.iter().filter(|request| request.ending == Ending::Unfinished).count();
    assert!(unfinished > 400, "{unfinished}");
    assert_eq!(outcome.end, workload_end(500, 10).saturating_add(config.patience));
}

fn workload_end(n: u64, gap_ms: u64) -> Micros {
    Micros((n - 1) * gap_ms * 1_000)
}

/// A mixture of experts: its decode times bend, since small batches already touch most experts.
fn bent() -> Profile {
    let prefill = vec![(64.0, 28.0), (1_024.0, 69.0), (4_096.0, 207.0), (16_384.0, 1_065.0)];
    let line = |context: f64, times: [f64; 4]| {
        [1.0, 8.0, 64.0, 256.0].into_iter().zip(times).map(move |(batch, ms)| (batch, context, ms))
    };
    let (short, long) = (line(1_000.0, [11.0, 30.0, 45.0, 60.0]), line(8_000.0, [12.0, 32.0, 52.0, 95.0]));
    let table = Table::new(Rows { prefill, decode: short.chain(long).collect() }).expect("a table");
    let dense = Profile::built_in("llama-3.1-8b-h200-tp1").expect("a built-in profile");
    Profile { gpus: 8, kv_tokens: 1_000_000, timing: Timing::new(Curve::Table(table)), ..dense }
}

#[test]
fn the_truth_can_be_a_table_and_the_prior_a_line() {
    let truth = bent();
    let line = Timing::new(Curve::Roofline(Roofline {
        a_ms: 11.0,
        w_ms: 0.0,
        b_ms_per_token: 0.05,
        c_ms_per_token_squared: 0.0,
        d_ms_per_sequence: 0.1,
        e_ms_per_kv_token: 1e-5,
    }));
    let mut pool = PoolConfig::new("moe", &truth);
    pool.prior = Some(line.clone());
    let config = WorldConfig::aggregated(pool);
    // Policies believe the line, and of the engine's limits the truth.
    let briefing = config.briefing();
    assert_eq!(briefing.pools[0].prior.timing, line);
    assert_eq!(briefing.pools[0].prior.kv_tokens(), config.pools[0].engine.kv_tokens());
    // The world goes by the table: eight outputs at once take 30 ms a token and more, where the line says 13.
    let eight = Workload::new((0..8).map(|_| Arrival::new(Micros(0), 1_000, 101)).collect());
    let outcome = run(&config, &eight, &mut Fixed::new(vec![1]));
    assert!(all_finished(&outcome));
    for request in &outcome.requests {
        let itl = request.mean_itl().expect("two tokens").as_millis_f64();
        assert!((28.0..36.0).contains(&itl), "{itl}");
    }
    // Whoever trusts the line asks for too few: the oracle, which sees the table, needs more.
    let slo = Slo::of_millis(2_000, 40);
    let load = every(100, 6_000, 1_000, 100);
    let mut believed = config.clone();
    believed.pools[0].engine.timing = line;
    let need = |config: &WorldConfig| Oracle::new(config, &load, &slo).gpu_hours();
    assert!(need(&config) > 1.3 * need(&believed), "{} {}", need(&config), need(&believed));
}
