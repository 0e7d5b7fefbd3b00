//! What holds for every fleet.

mod support;

use std::sync::Arc;

use plimsoll_common::{
    engine::{DistributionKind, Unit},
    histogram::BucketLayout,
    units::Micros,
};
use plimsoll_core::fleet::{
    Counter, DistributionKey, Fleet, Limits, NodeInventory, Observation, Part, Samples, Source, Window,
};
use proptest::prelude::*;
use support::{arrive, inventory, observation, ttft};

const NOW: Micros = Micros(1_760_000_000_000_000);
const TTFT: DistributionKey = DistributionKey { kind: DistributionKind::Ttft, source: Source::Bucketed };

/// One window of one of three nodes with two engines each: node, seconds ago, arrivals, TTFT samples of each engine.
type Gain = (usize, u64, u64, Vec<u64>, Vec<u64>);

fn samples(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1u64..3_000_000_000, n)
}

fn gains() -> impl Strategy<Value = Vec<Gain>> {
    prop::collection::vec((0usize..3, 0u64..400, 0u64..1000, samples(0..6), samples(0..6)), 0..40)
}

fn observations(gains: &[Gain]) -> Vec<Observation> {
    let inventories: Vec<Arc<NodeInventory>> = vec![
        inventory(&[("llama", None), ("qwen", Some("batch"))]),
        inventory(&[("llama", Some("chat")), ("llama", None)]),
        inventory(&[("qwen", None), ("qwen", None)]),
    ];
    let observe = |(seq, (at, age, arrivals, first, second)): (usize, &Gain)| {
        let mut one = observation(*at, &inventories[*at], seq as u64 + 1, Micros(age * 1_000_000));
        for (engine, samples) in [first, second].into_iter().enumerate() {
            arrive(&mut one, engine, *arrivals + engine as u64);
            if !samples.is_empty() {
                one.parts.push(ttft(engine, samples));
            }
        }
        one
    };
    gains.iter().enumerate().map(observe).collect()
}

fn fleet_of(observations: Vec<Observation>) -> Fleet {
    let mut fleet = Fleet::new(Limits::default());
    for observation in observations {
        fleet.observe(NOW, observation);
    }
    fleet
}

proptest! {
    /// Invariant: the order in which windows come changes nothing that is shown, now or later.
    #[test]
    fn order_is_irrelevant(gains in gains(), by in any::<prop::sample::Index>(), later in 0u64..500_000_000) {
        let ordered = observations(&gains);
        let mut shuffled = ordered.clone();
        shuffled.reverse();
        if !shuffled.is_empty() {
            let by = by.index(shuffled.len());
            shuffled.rotate_left(by);
        }
        let (a, b) = (fleet_of(ordered), fleet_of(shuffled));
        for at in [NOW, Micros(NOW.0 + later)] {
            prop_assert_eq!(a.snapshot(at), b.snapshot(at));
            for row in a.snapshot(at).engines {
                let of = |fleet: &Fleet| fleet.engine(at, &row.node, &row.identity.id);
                prop_assert_eq!(of(&a), of(&b));
            }
        }
    }

    /// Invariant: models are exactly the sum of their engines, in totals and in every window.
    #[test]
    fn models_are_the_sum_of_their_engines(gains in gains(), later in 0u64..400_000_000) {
        let fleet = fleet_of(observations(&gains));
        let at = Micros(NOW.0 + later);
        let shown = fleet.snapshot(at);
        for model in &shown.models {
            let engines: Vec<_> = shown
                .engines
                .iter()
                .filter(|row| row.identity.pool.model.as_ref() == Some(&model.model))
                .map(|row| fleet.engine(at, &row.node, &row.identity.id).unwrap())
                .collect();
            let total: u64 = engines.iter().filter_map(|e| e.row.totals.counts.get(Counter::Arrived)).sum();
            prop_assert_eq!(model.totals.counts.get(Counter::Arrived), Some(total));
            for window in Window::ALL {
                let gained: u64 = engines.iter().filter_map(|e| e.windows[window].gained.get(Counter::Arrived)).sum();
                prop_assert_eq!(model.windows[window].gained.get(Counter::Arrived), Some(gained));
                let samples = |w: &plimsoll_core::fleet::WindowSummary| w.distributions.get(&TTFT).map_or((0, 0), |d| (d.count, d.sum));
                let of_engines = engines.iter().map(|e| samples(&e.windows[window])).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
                prop_assert_eq!(samples(&model.windows[window]), of_engines);
            }
        }
    }

    /// Invariant: every estimate lies within its bounds, the truth too, and totals are the truth's.
    #[test]
    fn quantiles_lie_within_their_bounds(gains in gains()) {
        let fleet = fleet_of(observations(&gains));
        for model in fleet.snapshot(NOW).models {
            let windows = &model.windows[&Window::FiveMinutes];
            let begin = Window::FiveMinutes.begin(NOW);
            let mut truth: Vec<u64> = Vec::new();
            for (at, age, _, first, second) in &gains {
                let of: [&[&Vec<u64>]; 3] = match model.model.as_str() {
                    "llama" => [&[first], &[first, second], &[]],
                    _ => [&[second], &[], &[first, second]],
                };
                if NOW.0 - age * 1_000_000 >= begin.0 {
                    truth.extend(of[*at].iter().copied().flatten());
                }
            }
            truth.sort_unstable();
            let Some(ttft) = windows.distributions.get(&TTFT) else {
                prop_assert!(truth.is_empty());
                continue;
            };
            prop_assert_eq!(ttft.count, truth.len() as u64);
            prop_assert_eq!(ttft.sum, truth.iter().sum::<u64>());
            for (quantile, (_, q)) in ttft.quantiles.iter().zip(plimsoll_core::fleet::QUANTILES) {
                prop_assert_eq!(quantile.is_none(), truth.is_empty());
                let Some(quantile) = quantile else { continue };
                prop_assert!(quantile.low <= quantile.estimate);
                prop_assert!(quantile.high.is_none_or(|high| quantile.estimate <= high));
                let rank = ((q * truth.len() as f64).ceil() as usize).clamp(1, truth.len());
                let exact = Micros(truth[rank - 1]);
                prop_assert!(quantile.low <= exact && quantile.high.is_none_or(|high| exact <= high));
            }
        }
    }

    /// Invariant: engines of one pool may count in different buckets; in every window the pool's bounds hold the truth over
    /// all of them, its count and sum are theirs, and what lies above an engine's own highest edge is saturated.
    #[test]
    fn layouts_of_one_pool_may_differ(
        windows in prop::collection::vec((0u64..8, samples(0..6), samples(0..6)), 1..12),
    ) {
        const COARSE: &[f64] = &[0.5, 2.0];
        let mut mixed = (*inventory(&[("llama", None), ("llama", None)])).clone();
        mixed.layouts.push(BucketLayout::new(COARSE, Unit::Seconds).unwrap());
        let mixed = Arc::new(mixed);
        let mut fleet = Fleet::new(Limits::default());
        let mut truth = Vec::new();
        let mut above = 0;
        for (seq, (age, fine, coarse)) in windows.iter().enumerate() {
            let mut one = observation(0, &mixed, seq as u64 + 1, Micros(age * 1_000_000));
            // Several scrapes of one window come apart.
            one.parts.extend(fine.chunks(2).map(|fine| ttft(0, fine)));
            let counts = coarse.iter().map(|sample| (COARSE.partition_point(|edge| *edge < *sample as f64 / 1e6), 1));
            for (bucket, n) in counts {
                let samples = Samples::Buckets { layout: mixed.layouts.len() - 1, counts: vec![(bucket, n)] };
                one.parts.push(Part { samples, ..ttft(1, &[]) });
            }
            if let Some(last) = one.parts.iter_mut().rfind(|part| part.engine == 1) {
                last.sum = coarse.iter().sum();
            }
            truth.extend(fine.iter().chain(coarse));
            above += fine.iter().filter(|sample| **sample > 2_560_000_000).count() as u64;
            above += coarse.iter().filter(|sample| **sample > 2_000_000).count() as u64;
            fleet.observe(NOW, one);
        }
        truth.sort_unstable();
        let shown = fleet.snapshot(NOW);
        for window in Window::ALL {
            let Some(ttft) = shown.pools[0].windows[window].distributions.get(&TTFT) else {
                prop_assert!(truth.is_empty());
                continue;
            };
            prop_assert_eq!((ttft.count, ttft.sum, ttft.saturated), (truth.len() as u64, truth.iter().sum(), above));
            for (quantile, (_, q)) in ttft.quantiles.iter().zip(plimsoll_core::fleet::QUANTILES) {
                let Some(quantile) = quantile else { continue };
                let rank = ((q * truth.len() as f64).ceil() as usize).clamp(1, truth.len());
                let exact = Micros(truth[rank - 1]);
                prop_assert!(quantile.low <= exact && quantile.high.is_none_or(|high| exact <= high));
                prop_assert!(quantile.low <= quantile.estimate && quantile.high.is_none_or(|high| quantile.estimate <= high));
            }
        }
    }

    /// Invariant: whatever the clock does, and however absurd ages and lengths are, nothing panics.
    #[test]
    fn a_jumping_clock_never_panics(
        steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..30),
    ) {
        let inventory = inventory(&[("llama", None)]);
        let mut fleet = Fleet::new(Limits::default());
        for (seq, (now, age, length, windows)) in steps.into_iter().enumerate() {
            let now = Micros(now);
            let mut one = observation(0, &inventory, seq as u64, Micros(age));
            one.length = Micros(length);
            one.windows = windows;
            arrive(&mut one, 0, u64::MAX);
            one.parts.push(ttft(0, &[1_000]));
            fleet.observe(now, one);
            let shown = fleet.snapshot(now);
            for row in shown.engines {
                let _ = fleet.engine(now, &row.node, &row.identity.id);
            }
            fleet.expire(now);
        }
    }
}

/// Five minutes of a busy engine: every family moves every second, over many buckets.
#[test]
fn a_busy_engine_costs_a_few_kilobytes() {
    let inventory = inventory(&[("llama", None), ("llama", None)]);
    let mut fleet = Fleet::new(Limits::default());
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    // What one engine's page tells; front-ends and forward passes have kinds of their own.
    let others = ["frontend_", "pass_"];
    let of_engine = |kind: &&DistributionKind| !others.iter().any(|other| kind.as_str().starts_with(other));
    let kinds: Vec<_> = DistributionKind::ALL.iter().filter(of_engine).collect();
    for second in 0..420u64 {
        let mut one = observation(0, &inventory, second + 1, Micros(0));
        for engine in 0..2 {
            arrive(&mut one, engine, 10);
            for kind in &kinds {
                let samples: Vec<u64> = (0..10).map(|_| 1 + next(20_000) * next(100)).collect();
                one.parts.push(Part { kind: **kind, ..ttft(engine, &samples) });
            }
        }
        fleet.observe(Micros(NOW.0 + second * 1_000_000), one);
    }
    let (engines, pools) = fleet.window_bytes();
    println!("{} bytes an engine, {pools} bytes the pool, {} kinds", engines / 2, kinds.len());
    assert!(engines / 2 < 8_000, "{engines}");
}
