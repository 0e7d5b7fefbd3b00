//! What a large fleet costs. Not a test but a measurement:
//! `cargo test -p plimsoll-core --release --test scale -- --ignored --nocapture`.

mod support;

#[expect(clippy::disallowed_methods, reason = "a measurement needs a clock, the core does not")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

use plimsoll_common::{engine::DistributionKind, units::Micros};
use plimsoll_core::fleet::{Fleet, Limits, Observation, Part};
use support::{arrive, inventory, node, observation, ttft};

const NODES: usize = 2_000;
const ENGINES: usize = 8;
const SECONDS: u64 = 90;

/// Five requests a second and engine over every family, and a hundred inter-token latencies.
fn busy(template: &Observation, at: usize, seq: u64, random: &mut impl FnMut(u64) -> u64) -> Observation {
    let mut one = Observation { node: node(at), ..template.clone() };
    one.seq.0 = seq;
    for engine in 0..ENGINES {
        arrive(&mut one, engine, 5);
        for kind in DistributionKind::ALL {
            let (n, most) = if *kind == DistributionKind::ItlStep { (100, 40_000) } else { (5, 2_000_000) };
            let samples: Vec<u64> = (0..n).map(|_| 5_000 + random(most)).collect();
            one.parts.push(Part { kind: *kind, ..ttft(engine, &samples) });
        }
    }
    one
}

#[test]
#[ignore = "a measurement of minutes"]
fn a_large_fleet() {
    let names: Vec<String> = (0..20).map(|i| format!("model-{i}")).collect();
    let inventories: Vec<_> = names.iter().map(|name| inventory(&[(name.as_str(), None); ENGINES])).collect();
    let templates: Vec<_> =
        inventories.iter().map(|inventory| observation(0, inventory, 1, Micros(0))).collect();
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut fleet = Fleet::new(Limits::default());
    let mut spent = std::time::Duration::ZERO;
    for second in 0..SECONDS {
        let at = Micros(1_760_000_000_000_000 + second * 1_000_000);
        for i in 0..NODES {
            let one = busy(&templates[i % templates.len()], i, second + 1, &mut random);
            let begun = now();
            fleet.observe(at, one);
            spent += begun.elapsed();
        }
    }
    let at = Micros(1_760_000_000_000_000 + SECONDS * 1_000_000);
    let begun = now();
    let shown = fleet.snapshot(at);
    let snapshot = begun.elapsed();
    let begun = now();
    fleet.expire(at);
    let expire = begun.elapsed();
    let (engines, pools) = fleet.window_bytes();
    println!(
        "{NODES} nodes, {} engines, {} pools: {:.1} µs an observation of {ENGINES} engines; snapshot {snapshot:.1?}, \
         expire {expire:.1?}; windows: {} bytes an engine, {} bytes a pool",
        shown.engines.len(),
        shown.pools.len(),
        spent.as_secs_f64() * 1e6 / (SECONDS as f64 * NODES as f64),
        engines / shown.engines.len(),
        pools / shown.pools.len(),
    );
}
