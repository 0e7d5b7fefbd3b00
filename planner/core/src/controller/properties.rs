//! What holds for every fleet and whatever is observed of it.

use plimsoll_common::ids::EngineId;
use proptest::prelude::*;

use super::{
    tests::{STEP, by_thresholds, calm, fleet, name, settle, spec, target},
    *,
};
use crate::{
    observe::{Engine, Gained, Latency, MeanLengths, Replicas},
    perf::{Capacity, CapacityMap},
    plan::{Load, size},
    spec::PoolSpec,
};

fn strange() -> impl Strategy<Value = f64> {
    prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(0.0), 0.0..2.0_f64, Just(1e300)]
}

fn any_engine() -> impl Strategy<Value = Engine> {
    let n = || prop::option::of(prop_oneof![Just(0), Just(u64::MAX), 0..1_000_u64]);
    let sums = prop_oneof![0..10_000_000_u64, any::<u64>()];
    let latency = (0..2_000_u64, sums, prop::option::of((any::<u64>(), any::<u64>())))
        .prop_map(|(count, sum, within)| Latency { count, sum: Micros(sum), within });
    (prop::array::uniform8(n()), strange(), latency.clone(), latency, any::<bool>()).prop_map(
        |([running, waiting, arrived, tokens, finished, out, hits, iterations], kv, ttft, itl, draining)| {
            Engine {
                draining,
                running,
                waiting,
                kv_utilization: Some(kv),
                gained: Gained {
                    arrived,
                    arrived_prompt_tokens: tokens,
                    finished,
                    finished_output_tokens: out,
                    prefix_hit_tokens: hits,
                    prefix_query_tokens: tokens,
                    iterations,
                    ..Gained::default()
                },
                ttft,
                itl,
                output_lengths: vec![(u64::MAX, u64::MAX), (0, 1)],
                ..Engine::default()
            }
        },
    )
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let engines = prop::collection::btree_map(0..4_u8, any_engine(), 0..4);
    let times =
        || prop::collection::vec(prop_oneof![any::<u64>(), 0..200_000_000_u64].prop_map(Micros), 0..3);
    let target = prop::option::of(prop_oneof![0..60_u32, Just(u32::MAX)]);
    let ready = prop_oneof![9 => 0..60_u32, 1 => Just(u32::MAX)];
    let replicas = (ready, target, 0..3_u32, times(), times()).prop_map(
        |(ready, target, silent, starting, started_in)| Replicas {
            target,
            ready,
            silent: silent.min(ready),
            starting,
            started_in,
            ..Replicas::default()
        },
    );
    let window = prop_oneof![3 => Just(STEP.0), 1 => any::<u64>(), 1 => 0..2_000_u64];
    (prop_oneof![Just("a"), Just("b")], window, replicas, engines).prop_map(
        |(pool, window, replicas, engines)| Observation {
            replicas,
            engines: engines
                .into_iter()
                .map(|(id, engine)| (EngineId::parse(&format!("e{id}")).unwrap(), engine))
                .collect(),
            ..Observation::new(name(pool), Micros(window))
        },
    )
}

/// A pool of `ready` replicas whose engines run and hold so much, without a target told.
fn loaded(pool: &str, ready: u32, running: u64, waiting: u64, silent: u32) -> Observation {
    let mut seen = calm(pool, ready, 5.0);
    seen.replicas.target = None;
    seen.replicas.silent = silent.min(ready);
    for (place, engine) in seen.engines.values_mut().enumerate() {
        let count = u64::from(ready.max(1));
        engine.running = Some(running / count + u64::from((place as u64) < running % count));
        engine.waiting = Some(waiting / count);
        engine.kv_utilization = Some((running as f64 / count as f64 / 400.0).min(1.0));
    }
    seen
}

/// Pools of one or more GPUs by thresholds, their priorities and bounds.
fn any_pools() -> impl Strategy<Value = Vec<PoolSpec>> {
    let pool = (0..3_i32, 0..3_u32, 1..30_u32, 1..5_u32, 0..3_u32);
    prop::collection::vec(pool, 3).prop_map(|pools| {
        let named =
            |(place, (priority, least, more, gpus, price)): (usize, (i32, u32, u32, u32, u32))| PoolSpec {
                priority,
                bounds: (least, least + more),
                gpus,
                cost_per_hour: f64::from(price) * 1.1,
                ..by_thresholds(["a", "b", "c"][place])
            };
        pools.into_iter().enumerate().map(named).collect()
    })
}

/// One window of each of three pools: ready replicas, running and waiting requests, silent replicas; or nothing told.
type Told = Option<(u32, u64, u64, u32)>;

fn any_windows() -> impl Strategy<Value = Vec<[Told; 3]>> {
    let told = prop::option::weighted(0.8, (0..25_u32, 0..4_000_u64, 0..200_u64, 0..3_u32));
    let silent = told.prop_map(|told| told.map(|(ready, run, wait, silent)| (ready, run, wait, silent / 2)));
    prop::collection::vec(prop::array::uniform3(silent), 1..20)
}

fn tell(controller: &mut Controller, window: &[Told; 3]) {
    for (pool, told) in ["a", "b", "c"].into_iter().zip(window) {
        if let Some((ready, running, waiting, silent)) = *told {
            controller.observe(loaded(pool, ready, running, waiting, silent));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Invariant: whatever is observed, at whatever time, nothing panics, bounds hold, a plan is complete, and what does
    // not tell all is not shrunk.
    #[test]
    fn nothing_strange_scales_out_of_bounds(
        observations in prop::collection::vec((any_observation(), any::<u64>()), 1..12),
    ) {
        let mut controller = fleet(vec![by_thresholds("a"), PoolSpec { engine: None, ..spec("b") }], Some(70));
        for (seen, now) in observations {
            let (pool, silent) = (seen.pool.clone(), seen.replicas.silent);
            let taken = controller.observe(seen);
            let step = controller.step(Micros(now));
            for (name, to) in &step.plan.targets {
                let from = step.explanation.pools[name].from;
                prop_assert!(*to <= 50 || *to == from);
                prop_assert!(*to >= 1 || *to == from);
                prop_assert_eq!(&step.explanation.pools[name].to, to);
            }
            let explained = step.explanation.pools.get(&pool);
            if let Some(explained) = explained.filter(|_| taken && silent > 0) {
                prop_assert!(explained.to >= explained.from.min(50));
            }
        }
    }

    // Invariant: no plan grows beyond a budget of GPUs or money, or leaves the bounds of a pool that was within them, and
    // none needs to be refused: growth is cut to what the others leave, whatever they hold.
    #[test]
    fn budget_and_bounds_are_never_exceeded(
        pools in any_pools(),
        windows in any_windows(),
        (gpus, money) in (10..90_u32, prop::option::of(5.0..80.0_f64)),
    ) {
        let limits = Limits { gpus: Some(gpus), cost_per_hour: money, watts: None };
        let pools: BTreeMap<PoolName, PoolSpec> =
            pools.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let spec = FleetSpec { interval: STEP, limits, pools: pools.values().cloned().collect() };
        let mut controller = Controller::new(spec, Tuning::default());
        for (n, window) in (1..).zip(&windows) {
            tell(&mut controller, window);
            let step = controller.step(Micros(n * STEP.0));
            let (mut used, mut cost, mut grows) = (0, 0.0, false);
            for (name, explained) in &step.explanation.pools {
                let (spec, to) = (&pools[name], explained.to);
                used += spec.gpus * to;
                cost += spec.cost_per_hour * f64::from(to);
                grows |= to > explained.from && to > spec.bounds.0;
                prop_assert!(to == explained.from || (spec.bounds.0..=spec.bounds.1).contains(&to));
            }
            let fits = used <= gpus && money.is_none_or(|money| cost <= money + 1e-6);
            prop_assert!(fits || !grows, "{used} of {gpus} GPUs, {cost} of {money:?}");
            prop_assert!(step.explanation.refused.is_empty(), "{:?}", step.explanation.refused);
        }
        prop_assert_eq!(controller.refused(), 0);
    }

    // Invariant: a step without news moves nothing, however soon or late it comes after the one before.
    #[test]
    fn without_news_a_plan_is_a_fixpoint(
        pools in any_pools(),
        windows in any_windows(),
        gpus in 10..90_u32,
        later in prop_oneof![Just(0), Just(1), 0..3_600_u64],
    ) {
        let limits = Limits { gpus: Some(gpus), ..Limits::default() };
        let mut controller = Controller::new(FleetSpec { interval: STEP, limits, pools }, Tuning::default());
        let (mut step, mut now) = (controller.step(STEP), STEP.0);
        for window in &windows {
            now += STEP.0;
            tell(&mut controller, window);
            step = controller.step(Micros(now));
        }
        for n in 1..4 {
            let again = controller.step(Micros(now + n * later * 1_000_000));
            prop_assert_eq!(&again.plan, &step.plan);
            prop_assert!(again.explanation.pools.values().all(|pool| pool.from == pool.to));
        }
    }

    // Invariant: told again and again of the world that its plan asked for, under the same load, a pool comes to rest:
    // then the plan is already true and no step moves anything.
    #[test]
    fn a_plan_that_is_true_stays(running in 0..6_000_u64, ready in 1..40_u32) {
        let mut controller = fleet(vec![by_thresholds("a")], None);
        let mut ready = ready;
        let mut targets = Vec::new();
        for n in 1..60 {
            controller.observe(loaded("a", ready, running, 0, 0));
            ready = target(&controller.step(Micros(n * STEP.0)), "a");
            targets.push(ready);
        }
        prop_assert!(targets[30..].iter().all(|target| *target == ready), "{targets:?}");
    }

    // Invariant: for a fixed pool and mix, so for the same capacity by size and spend, more requests a second never need
    // fewer replicas, whatever was searched.
    #[test]
    fn more_requests_never_need_fewer_replicas(
        rates in prop::array::uniform4(prop::array::uniform3(0.0..40.0_f64)),
        spend in 0.1..5.0_f64,
        (now, ahead, keep) in (0.0..300.0_f64, 0.0..300.0_f64, 0.0..300.0_f64),
        more in 1.0..4.0_f64,
        panic: bool,
        kv in 0.0..1.0_f64,
        (least, most) in (0..5_u32, 5..200_u32),
    ) {
        let mut map = CapacityMap::default();
        for (place, found) in rates.into_iter().enumerate() {
            map.set(place, found);
        }
        let at = |by: f64| size(&Load {
            now_rps: now * by, ahead_rps: ahead * by, keep_rps: keep * by,
            panic, capacity: map.at(spend), throughput_rps: 50.0, ready: 4, coming: 4,
            kv_utilization: kv, bounds: (least, most), ..Load::default()
        });
        let (less, more) = (at(1.0), at(more));
        prop_assert!(less.wanted() <= more.wanted() && less.kept() <= more.kept(), "{less:?} {more:?}");
        let capacity: Capacity = map.at(spend);
        let together = |replicas: u32| capacity.of(f64::from(replicas));
        prop_assert!((1..200).all(|replicas| together(replicas) <= together(replicas + 1) + 1e-9));
    }

    // Invariant: the order of reports within a step does not matter, for any step of a life.
    #[test]
    fn order_within_a_step_is_irrelevant(
        steps in prop::collection::vec(prop::collection::vec((any_observation(), any::<u32>()), 1..6), 1..4),
    ) {
        let run = |is_shuffled: bool| {
            let mut controller = fleet(vec![by_thresholds("a"), by_thresholds("b")], Some(60));
            let mut told = Vec::new();
            for (n, mut reports) in (1..).zip(steps.clone()) {
                if is_shuffled {
                    reports.sort_by_key(|(_, place)| *place);
                }
                for (seen, _) in reports {
                    controller.observe(seen);
                }
                told.push(serde_json::to_string(&controller.step(Micros(n * STEP.0))).unwrap());
            }
            (told, controller.checkpoint().to_bytes().unwrap())
        };
        prop_assert_eq!(run(false), run(true));
    }

    // Invariant: while a replica tells nothing, or nobody tells anything, a pool is never shrunk, for however long and
    // whatever the others tell. Once it is told that the silent one is gone, it may be.
    #[test]
    fn silence_never_shrinks(
        ready in 2..30_u32,
        steps in prop::collection::vec((prop::option::of((1..3_u32, 0..200_u64)), 1..400_u64), 1..40),
    ) {
        let mut controller = fleet(vec![by_thresholds("a")], None);
        let busy = u64::from(ready) * 150;
        let settled = settle(&mut controller, 1, 10, &Observation {
            replicas: Replicas { target: Some(ready), ready, ..Replicas::default() },
            ..loaded("a", ready, busy, 0, 0)
        });
        let held = target(&settled, "a");
        let mut now = 10 * STEP.0;
        for (told, seconds) in steps {
            now += seconds * 1_000_000;
            if let Some((silent, running)) = told {
                controller.observe(loaded("a", ready, running, 0, silent));
            }
            prop_assert!(target(&controller.step(Micros(now)), "a") >= held);
        }
        let mut last = held;
        for _ in 0..40 {
            now += STEP.0;
            controller.observe(loaded("a", ready, 5, 0, 0));
            last = target(&controller.step(Micros(now)), "a");
        }
        prop_assert!(last < held, "{last} {held}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Invariant: a role switch is a proposal. Targets are the same whether replicas can change their role or not, a pool
    // that gives replicas over has more ready ones than its target, one that takes them has fewer on the way than its
    // target, and both say so.
    #[test]
    fn a_role_switch_is_proposed_and_never_counted(windows in any_windows(), gpus in 6..40_u32) {
        let run = |role_switch: bool| {
            let of = |pool: &str, role: Role| PoolSpec { role, role_switch, ..by_thresholds(pool) };
            let pools = vec![of("a", Role::Prefill), of("b", Role::Decode), of("c", Role::Decode)];
            let limits = Limits { gpus: Some(gpus), ..Limits::default() };
            let mut controller = Controller::new(FleetSpec { interval: STEP, limits, pools }, Tuning::default());
            let steps = (1..).zip(&windows).map(|(n, window)| {
                tell(&mut controller, window);
                controller.step(Micros(n * 10 * STEP.0))
            });
            steps.collect::<Vec<Step>>()
        };
        let (plain, turning) = (run(false), run(true));
        for (plain, turning) in plain.iter().zip(&turning) {
            prop_assert_eq!(&plain.plan.targets, &turning.plan.targets);
            prop_assert!(plain.plan.switches.is_empty());
            let pools = &turning.explanation.pools;
            for switch in &turning.plan.switches {
                let (from, to) = (&pools[&switch.from], &pools[&switch.to]);
                prop_assert!(switch.replicas > 0 && from.to + switch.replicas <= from.seen.ready);
                prop_assert!(to.load.coming + switch.replicas <= to.to);
                for side in [from, to] {
                    prop_assert!(side.reasons.contains(&Reason::RoleSwitch) && side.switches.contains(switch));
                }
            }
            let told = pools.values().any(|pool| pool.reasons.contains(&Reason::RoleSwitch));
            prop_assert_eq!(told, !turning.plan.switches.is_empty());
        }
    }
}

/// The same by a model of the engine: a steady load for two hours, the last of them without a move. What is learned on the
/// way (capacities that are searched, the error budget) is learned by then.
#[test]
fn a_steady_load_is_served_by_a_steady_pool() {
    for rps in [3.0, 47.0, 160.0] {
        let mut controller = fleet(vec![spec("a")], None);
        let (mut ready, mut targets) = (3, Vec::new());
        for n in 1..720 {
            controller.observe(calm("a", ready, rps));
            ready = target(&controller.step(Micros(n * STEP.0)), "a");
            targets.push(ready);
        }
        let moves = targets[360..].windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(moves, 0, "{rps}: {targets:?}");
    }
}

/// What no engine can have told, in place of what it told.
fn nonsense(engine: &mut Engine, which: u32, value: u64, share: f64) {
    let Engine { running, waiting, kv_utilization, queued_prefill_tokens, gained, ttft, itl, .. } = engine;
    let counts = [
        running,
        waiting,
        queued_prefill_tokens,
        &mut gained.arrived,
        &mut gained.arrived_prompt_tokens,
        &mut gained.finished,
        &mut gained.finished_prompt_tokens,
        &mut gained.finished_output_tokens,
        &mut gained.prefix_query_tokens,
        &mut gained.prefilled_tokens,
        &mut gained.generated_tokens,
        &mut gained.accepted_draft_tokens,
        &mut gained.iterations,
        &mut gained.preemptions,
    ];
    for (place, count) in counts.into_iter().enumerate() {
        if which & (1 << place) != 0 {
            *count = Some(value);
        }
    }
    if which & (1 << 14) != 0 {
        *kv_utilization = Some(share);
    }
    if which & (1 << 15) != 0 {
        *ttft = Latency { count: value, sum: Micros(value), within: Some((value, 0)) };
        *itl = Latency { count: 1, sum: Micros(value), within: None };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // Invariant: what is not a number, negative or beyond all bounds never scales a pool that is as it should be: neither
    // in the step that it comes in nor afterwards.
    #[test]
    fn nonsense_never_scales(
        by_sla: bool,
        told in prop::collection::vec(
            (
                0..(1_u32 << 16),
                prop_oneof![Just(u64::MAX), Just(u64::MAX / 3), Just(1_u64 << 62)],
                prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.5), Just(1e300)],
                0..16_u32,
            ),
            1..4,
        ),
    ) {
        let spec = if by_sla { spec("a") } else { by_thresholds("a") };
        let mut controller = fleet(vec![PoolSpec { bounds: (2, 50), ..spec }], None);
        // At its lower bound and far from needing more: whatever moves it is nonsense.
        let usual = calm("a", 2, 4.0);
        settle(&mut controller, 1, 40, &usual);
        let mut now = 40;
        for (which, value, share, replicas) in told {
            let mut seen = usual.clone();
            seen.engines.values_mut().for_each(|engine| nonsense(engine, which, value, share));
            let count = (value >> 32) as u32;
            for (place, of) in [&mut seen.replicas.ready, &mut seen.replicas.draining].into_iter().enumerate() {
                if replicas & (1 << place) != 0 {
                    *of = count;
                }
            }
            if replicas & 4 != 0 {
                seen.lengths = MeanLengths { prompt: Some(share), output: Some(share) };
                seen.replicas.started_in = vec![Micros(value)];
                seen.replicas.starting = vec![Micros(value)];
            }
            if replicas & 8 != 0 {
                seen.window = Micros(value);
            }
            now += 1;
            controller.observe(seen);
            prop_assert_eq!(target(&controller.step(Micros(now * STEP.0)), "a"), 2);
        }
        for _ in 0..6 {
            now += 1;
            controller.observe(usual.clone());
            prop_assert_eq!(target(&controller.step(Micros(now * STEP.0)), "a"), 2);
        }
    }

    // Invariant: a step at a time before the last one moves nothing, whatever is told, and says why; the next one goes on
    // from there as if the clock had always been so.
    #[test]
    fn time_that_runs_backwards_never_scales(
        windows in any_windows(),
        back in 1..2_000_000_000_u64,
        told in (0..25_u32, 0..4_000_u64, 0..200_u64),
    ) {
        let mut controller = fleet(["a", "b", "c"].map(by_thresholds).into(), None);
        let mut now = 1_000 * STEP.0;
        let mut last = controller.step(Micros(now));
        for window in &windows {
            now += STEP.0;
            tell(&mut controller, window);
            last = controller.step(Micros(now));
        }
        let known = !last.plan.targets.is_empty();
        now -= back;
        let (ready, running, waiting) = told;
        controller.observe(loaded("a", ready, running, waiting, 0));
        let turned = controller.step(Micros(now));
        if known {
            prop_assert_eq!(&turned.plan, &last.plan);
            let why = |pool: &crate::explain::PoolExplanation| pool.reasons.contains(&Reason::ClockSetBack);
            let is_since = windows.last().is_some_and(|window| window.iter().any(Option::is_some));
            prop_assert!(turned.explanation.pools.values().all(why) || (!is_since && back < 20 * STEP.0));
        }
        // What waits is answered in the step after.
        for n in 1..3 {
            controller.observe(loaded("a", 2, 500, 400, 0));
            last = controller.step(Micros(now + n * STEP.0));
        }
        prop_assert!(target(&last, "a") > 2, "{:?}", last.explanation.pools[&name("a")].reasons);
    }
}
