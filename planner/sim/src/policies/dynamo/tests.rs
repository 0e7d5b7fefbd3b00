use plimsoll_common::engine::Role;

use super::*;
use crate::{
    policies::testing::{Seen, at, burst_world, run_burst, targets},
    policy::DoorObservation,
};

fn dynamo(target: Target, loops: Loops) -> Dynamo {
    let (config, _) = burst_world();
    Dynamo::new(target, loops, &config.briefing(), &Slo::of_millis(1_000, 30))
}

/// Five seconds in which `arrived` requests of 1,500 and 200 tokens came, and as many finished.
fn busy(replicas: u32, arrived: u64) -> Seen {
    let mut seen = Seen::of(replicas);
    let gained = &mut seen.pool.replicas[0].gained;
    (gained.finished, gained.finished_output_tokens) = (arrived, arrived * 200);
    seen.pool.door = Some(DoorObservation { arrived, arrived_prompt_tokens: arrived * 1_500, waiting: 0 });
    seen
}

#[test]
fn the_predictive_loop_divides_the_rate_by_what_an_engine_takes() {
    let mut policy = dynamo(Target::Sla, Loops::Throughput);
    let lengths = Lengths { isl: 1_500.0, osl: 200.0, hit: 0.0 };
    let rps = capacity::rps(Role::Aggregated, &policy.briefing.pools[0].prior, &lengths, &policy.slo);
    for tick in 1..=35 {
        assert!(targets(&policy.decide(at(tick * 5), &busy(1, 100).observation(5))).is_empty());
    }
    let wanted = (20.0 / rps).ceil() as u32;
    assert!(wanted > 1);
    assert_eq!(targets(&policy.decide(at(180), &busy(1, 100).observation(5))), [wanted]);
}

#[test]
fn the_predictive_loop_moves_by_at_most_eight_and_only_down_while_replicas_start() {
    let mut policy = dynamo(Target::Sla, Loops::Throughput);
    assert_eq!(targets(&policy.decide(at(180), &busy(1, 100_000).observation(5))), [9]);
    let mut pending = busy(2, 100_000);
    pending.pool.starting = vec![at(300)];
    pending.pool.target = 3;
    assert!(targets(&policy.decide(at(360), &pending.observation(5))).is_empty());
    let mut pending = busy(2, 1);
    pending.pool.starting = vec![at(500)];
    pending.pool.target = 3;
    assert_eq!(targets(&policy.decide(at(540), &pending.observation(5))), [1]);
}

#[test]
fn the_reactive_loop_adds_one_only_if_all_engines_are_above_the_limit() {
    let hot = |n: u32| {
        busy(3, 10).each(|replica| {
            if replica.id.0 < n {
                replica.queued_prefill_tokens = 100_000;
            }
        })
    };
    let wanted = |seen: Seen| targets(&dynamo(Target::Sla, Loops::Load).decide(at(5), &seen.observation(5)));
    assert_eq!(wanted(hot(3)), [4]);
    assert_eq!(wanted(hot(2)), [3]);
    assert_eq!(wanted(hot(0)), [2]);
    let mut starting = hot(3);
    starting.pool.starting = vec![at(1)];
    assert!(wanted(starting).is_empty());
    let mut silent = hot(3);
    silent.pool.replicas.truncate(2);
    assert!(wanted(silent).is_empty());
}

#[test]
fn in_hybrid_the_prediction_is_a_floor() {
    let mut policy = dynamo(Target::Sla, Loops::Hybrid);
    for tick in 1..36 {
        policy.decide(at(tick * 5), &busy(4, 100).observation(5));
    }
    let floor = targets(&policy.decide(at(180), &busy(4, 100).observation(5)))[0];
    assert!(floor > 1);
    // Idle engines: down, but not below the floor.
    let idle = |n: u32| busy(n, 0).observation(5);
    assert_eq!(targets(&policy.decide(at(185), &idle(floor + 2))), [floor + 1]);
    assert_eq!(targets(&policy.decide(at(190), &idle(floor))), [floor]);
}

#[test]
fn the_default_target_waits_until_kv_is_full() {
    let (config, _) = burst_world();
    let kv = config.pools[0].engine.kv_tokens();
    let at_share = |share: f64| {
        busy(2, 10).each(move |replica| replica.decode_context = (kv as f64 * share) as u64).observation(5)
    };
    let wanted =
        |target: Target, share: f64| targets(&dynamo(target, Loops::Load).decide(at(5), &at_share(share)));
    assert_eq!(wanted(Target::Throughput, 0.99), [2]);
    assert_eq!(wanted(Target::Throughput, 1.01), [3]);
    assert_eq!(wanted(Target::Throughput, 0.4), [1]);
    assert_eq!(wanted(Target::Latency, 0.41), [3]);
    assert_eq!(wanted(Target::Latency, 0.3), [2]);
}

#[test]
fn the_budget_is_kept() {
    let (mut config, _) = burst_world();
    config.gpus = Some(6);
    let mut policy =
        Dynamo::new(Target::Sla, Loops::Throughput, &config.briefing(), &Slo::of_millis(1_000, 30));
    assert_eq!(targets(&policy.decide(at(180), &busy(1, 100_000).observation(5))), [3]);
}

#[test]
fn every_target_runs_a_world() {
    for (target, loops) in [
        (Target::Throughput, Loops::Load),
        (Target::Latency, Loops::Load),
        (Target::Sla, Loops::Load),
        (Target::Sla, Loops::Throughput),
        (Target::Sla, Loops::Hybrid),
    ] {
        let mut policy = dynamo(target, loops);
        let run = run_burst(&mut policy);
        assert_eq!(run.policy, policy.name());
        assert!(!run.samples.is_empty());
    }
    let run = run_burst(&mut dynamo(Target::Sla, Loops::Hybrid));
    assert!(run.actions.iter().any(|a| a.to > a.from) && run.actions.iter().any(|a| a.to < a.from));
}
