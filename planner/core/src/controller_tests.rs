//! The loop in single cases. What holds for every fleet is in `controller/properties.rs`.

use plimsoll_common::{
    engine::Role,
    ids::{EngineId, ModelName, PoolName},
    units::Micros,
};
use plimsoll_engine::Profile;

use super::*;
use crate::{
    explain::Reason,
    observe::{Engine, Gained, Latency, Replicas},
    policy::{Behavior, Load, Routing},
    score::Slo,
    spec::PoolSpec,
};

pub(crate) const STEP: Micros = Micros(10_000_000);

pub(crate) fn name(pool: &str) -> PoolName {
    PoolName::parse(pool).unwrap()
}

pub(crate) fn spec(pool: &str) -> PoolSpec {
    let profile = Profile::built_in("llama-3.1-8b-h200-tp1").unwrap();
    PoolSpec {
        name: name(pool),
        model: ModelName::parse("llama").unwrap(),
        priority: 0,
        role: Role::Aggregated,
        bounds: (1, 50),
        gpus: 1,
        watts: 0.0,
        cost_per_hour: 0.0,
        start_up: Micros(60_000_000),
        engine: Some(profile.engine_config()),
        engines_per_replica: 1,
        routing: Routing::LeastLoaded,
        slo: Some(Slo::of_millis(1_000, 30)),
        // Thresholds need no search, which would be slow without optimisation.
        thresholds: None,
        lengths: (Some(1_000), Some(200)),
        behavior: Behavior { scale_down: crate::policy::ScalingRules::default(), ..Behavior::default() },
        role_switch: false,
    }
}

pub(crate) fn by_thresholds(pool: &str) -> PoolSpec {
    PoolSpec { thresholds: Some(Load::latency()), ..spec(pool) }
}

pub(crate) fn fleet(pools: Vec<PoolSpec>, gpus: Option<u32>) -> Controller {
    let limits = Limits { gpus, ..Limits::default() };
    Controller::new(FleetSpec { interval: STEP, limits, pools }, Tuning::default())
}

/// A pool of `ready` replicas at so many requests a second in all, engines that keep up.
pub(crate) fn calm(pool: &str, ready: u32, rps: f64) -> Observation {
    let mut seen = Observation::new(name(pool), STEP);
    seen.replicas = Replicas { target: Some(ready), ready, ..Replicas::default() };
    let arrived = (rps * 10.0 / f64::from(ready.max(1))) as u64;
    for id in 0..ready {
        let engine = Engine {
            running: Some(arrived / 5),
            waiting: Some(0),
            kv_utilization: Some(0.1),
            gained: Gained {
                arrived: Some(arrived),
                arrived_prompt_tokens: Some(arrived * 1_000),
                finished: Some(arrived),
                finished_prompt_tokens: Some(arrived * 1_000),
                finished_output_tokens: Some(arrived * 200),
                ..Gained::default()
            },
            ttft: Latency { count: arrived, sum: Micros(arrived * 50_000), within: Some((arrived, arrived)) },
            ..Engine::default()
        };
        seen.engines.insert(EngineId::parse(&format!("engine-{id}")).unwrap(), engine);
    }
    seen
}

/// Lets a pool of `ready` replicas see the same for so many steps; the last step.
pub(crate) fn settle(controller: &mut Controller, from: u64, steps: u64, seen: &Observation) -> Step {
    let mut last = None;
    for n in from..from + steps {
        assert!(controller.observe(seen.clone()));
        last = Some(controller.step(Micros(n * STEP.0)));
    }
    last.unwrap()
}

pub(crate) fn target(step: &Step, pool: &str) -> u32 {
    step.plan.targets[&name(pool)]
}

pub(crate) fn reasons(step: &Step, pool: &str) -> Vec<Reason> {
    step.explanation.pools[&name(pool)].reasons.clone()
}

#[test]
fn a_step_without_news_moves_nothing_and_says_why() {
    let mut controller = fleet(vec![spec("a")], None);
    let step = controller.step(STEP);
    assert!(step.plan.targets.is_empty());
    let mut seen = Observation::new(name("a"), STEP);
    seen.replicas = Replicas { target: Some(3), ready: 3, ..Replicas::default() };
    controller.observe(seen);
    let step = controller.step(Micros(2 * STEP.0));
    assert_eq!(target(&step, "a"), 3);
    assert!(reasons(&step, "a").contains(&Reason::NoDemand));
    assert!(!controller.observe(Observation::new(name("other"), STEP)));
}

#[test]
fn a_rise_is_answered_in_one_decision_and_a_steady_load_is_a_fixpoint() {
    let mut controller = fleet(vec![spec("a")], None);
    let before = settle(&mut controller, 1, 12, &calm("a", 2, 6.0));
    let few = target(&before, "a");
    assert!(few <= 2, "{few}");
    controller.observe(calm("a", 2, 300.0));
    let risen = controller.step(Micros(13 * STEP.0));
    assert!(target(&risen, "a") >= 4 * few, "{}", risen.explanation.pools[&name("a")]);
    assert!(reasons(&risen, "a").contains(&Reason::Panic), "{:?}", reasons(&risen, "a"));
    // With what it asked for it asks for nothing more.
    let ready = target(&risen, "a");
    let mut steady = fleet(vec![spec("a")], None);
    let settled = settle(&mut steady, 1, 12, &calm("a", ready, 300.0));
    let again = settle(&mut steady, 13, 1, &calm("a", target(&settled, "a"), 300.0));
    assert_eq!(target(&again, "a"), target(&settled, "a"));
}

#[test]
fn silence_and_a_short_acquaintance_never_shrink() {
    let mut controller = fleet(vec![spec("a")], None);
    let learning = settle(&mut controller, 1, 3, &calm("a", 20, 6.0));
    assert_eq!(target(&learning, "a"), 20);
    assert!(reasons(&learning, "a").contains(&Reason::Learning));
    let mut silent = calm("a", 20, 6.0);
    silent.replicas.silent = 1;
    let step = settle(&mut controller, 4, 120, &silent);
    assert_eq!(target(&step, "a"), 20);
    assert!(reasons(&step, "a").contains(&Reason::Silence), "{:?}", reasons(&step, "a"));
    let step = settle(&mut controller, 124, 60, &calm("a", 20, 6.0));
    assert!(target(&step, "a") < 20);
}

#[test]
fn a_start_that_does_not_come_is_written_off() {
    let mut controller = fleet(vec![spec("a")], None);
    let mut seen = calm("a", 2, 6.0);
    seen.replicas.starting = vec![Micros(3_600_000_000)];
    seen.replicas.target = Some(3);
    let step = settle(&mut controller, 1, 12, &seen);
    let explained = &step.explanation.pools[&name("a")];
    assert_eq!(explained.seen.overdue, 1);
    assert_eq!(explained.load.coming, 2);
    // Told as long as it is so, not only where the target rises.
    assert_eq!((explained.from, explained.to), (3, 3));
    assert!(explained.reasons.contains(&Reason::Overdue), "{explained}");
}

#[test]
fn who_cannot_shrink_yet_does_not_stop_the_others() {
    let mut controller =
        fleet(vec![PoolSpec { priority: 5, ..by_thresholds("a") }, by_thresholds("b")], Some(12));
    let mut silent = calm("b", 8, 1.0);
    silent.replicas.silent = 1;
    let mut busy = calm("a", 2, 1.0);
    busy.engines.values_mut().for_each(|engine| engine.waiting = Some(50));
    controller.observe(silent);
    controller.observe(busy);
    let step = controller.step(STEP);
    // The more important model would get eleven; eight cannot be taken back while one of them tells nothing.
    assert_eq!((target(&step, "a"), target(&step, "b")), (4, 8));
    assert!(reasons(&step, "a").contains(&Reason::Budget) && reasons(&step, "b").contains(&Reason::Silence));
    assert!(step.explanation.refused.is_empty() && controller.refused() == 0);
}

#[test]
fn a_pool_that_is_told_seldom_counts_its_moves_once() {
    let mut slow = by_thresholds("a");
    slow.behavior.scale_up.policies = vec![crate::policy::RateLimit {
        kind: crate::policy::RateLimitType::Replicas,
        value: 4,
        period_seconds: 60,
    }];
    let mut controller = fleet(vec![slow], None);
    let mut busy = calm("a", 2, 1.0);
    busy.engines.values_mut().for_each(|engine| engine.waiting = Some(50));
    controller.observe(busy);
    assert_eq!(target(&controller.step(STEP), "a"), 6);
    // Sooner than the interval and without news: what was decided is in force, not what was told before.
    let step = controller.step(Micros(STEP.0 + 2_000_000));
    assert_eq!((step.explanation.pools[&name("a")].from, target(&step, "a")), (6, 6));
}

#[test]
fn what_waits_at_one_engine_is_no_reason_for_more() {
    let mut controller = fleet(vec![spec("a")], None);
    let mut seen = calm("a", 4, 6.0);
    if let Some(engine) = seen.engines.values_mut().next() {
        engine.waiting = Some(400);
    }
    let step = settle(&mut controller, 1, 12, &seen);
    assert!(target(&step, "a") <= 4, "{}", step.explanation.pools[&name("a")]);
    assert!(reasons(&step, "a").contains(&Reason::HotSpot), "{:?}", reasons(&step, "a"));
}

#[test]
fn the_budget_goes_to_the_more_important_model() {
    let pools = vec![PoolSpec { priority: 5, ..by_thresholds("a") }, by_thresholds("b")];
    let mut controller = fleet(pools, Some(10));
    let busy = |controller: &mut Controller, pool: &str| {
        let mut seen = calm(pool, 4, 1.0);
        seen.replicas.target = None;
        seen.engines.values_mut().for_each(|engine| engine.waiting = Some(5));
        controller.observe(seen);
    };
    // What b has when it is first seen is kept for as long as anything; then the more important model gets its own.
    let mut targets = Vec::new();
    for n in 1..=8 {
        busy(&mut controller, "a");
        busy(&mut controller, "b");
        let step = controller.step(Micros(n * STEP.0));
        targets.push((target(&step, "a"), target(&step, "b")));
        assert!(reasons(&step, "b").contains(&Reason::Budget));
    }
    assert_eq!((targets[0], targets[7]), ((6, 4), (9, 1)), "{targets:?}");
}

#[test]
fn prefill_gives_what_decode_misses_until_that_is_observed() {
    let of = |pool: &str, role: Role| PoolSpec { role, role_switch: true, ..by_thresholds(pool) };
    let mut controller = fleet(vec![of("p", Role::Prefill), of("d", Role::Decode)], Some(8));
    let told = |pool: &str, ready: u32, waiting: u64| {
        let mut seen = calm(pool, ready, 1.0);
        seen.engines.values_mut().for_each(|engine| engine.waiting = Some(waiting));
        seen
    };
    let mut step = controller.step(STEP);
    for n in 2..14 {
        controller.observe(told("p", 6, 0));
        controller.observe(told("d", 2, 20));
        step = controller.step(Micros(n * STEP.0));
    }
    // As long as prefill is kept, nothing is there to give; and decode is cut by the budget.
    assert_eq!((target(&step, "p"), target(&step, "d")), (1, 7));
    let proposed = RoleSwitch { from: name("p"), to: name("d"), replicas: 5 };
    assert_eq!(step.plan.switches, [proposed]);
    assert!(step.explanation.pools[&name("d")].to_string().contains("5 of p could become d"));
    // Half of them have turned, the others not: what is there counts, not what was proposed.
    controller.observe(told("p", 4, 0));
    controller.observe(told("d", 4, 20));
    let step = controller.step(Micros(14 * STEP.0));
    assert_eq!(step.plan.switches[0].replicas, 3);
    // Told to be starting elsewhere, they are not missed any more.
    controller.observe(told("p", 4, 0));
    let mut starting = told("d", 4, 20);
    starting.replicas.starting = vec![STEP; 3];
    starting.replicas.target = Some(7);
    controller.observe(starting);
    assert!(controller.step(Micros(15 * STEP.0)).plan.switches.is_empty());
}

#[test]
fn a_placer_says_where_and_holds_what_has_no_place() {
    use crate::plan::place_tests::{FirstFit, domains};
    let mut controller =
        fleet(vec![by_thresholds("a"), by_thresholds("b")], None).placed_by(Box::new(FirstFit));
    controller.survey(domains(&[3, 1]));
    let mut busy = calm("a", 2, 1.0);
    busy.engines.values_mut().for_each(|engine| engine.waiting = Some(50));
    controller.observe(busy);
    controller.observe(calm("b", 1, 1.0));
    let step = controller.step(STEP);
    assert_eq!((target(&step, "a"), target(&step, "b")), (6, 1));
    assert!(reasons(&step, "a").contains(&Reason::NoPlace), "{:?}", reasons(&step, "a"));
    let places: Vec<u32> = step.plan.places[&name("a")].iter().map(|place| place.replicas).collect();
    assert_eq!((places, step.plan.places.len()), (vec![3, 1], 1));
}

#[test]
fn a_line_that_leaves_a_pool_out_does_not_hold_it_for_another_window() {
    let mut controller = fleet(vec![by_thresholds("a")], None);
    let mut ready = 20;
    for n in 1..=180 {
        // Every third step tells nothing of it.
        if n % 3 > 0 {
            controller.observe(calm("a", ready, 6.0));
        }
        let step = controller.step(Micros(n * STEP.0));
        let target = step.plan.targets.get(&name("a")).copied().unwrap_or(ready);
        assert!(n % 3 > 0 || target == ready, "without news nothing is given back");
        ready = target;
    }
    assert!(ready < 20, "{ready}");
}
