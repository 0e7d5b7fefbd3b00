//! What forecasts cost: one bin learned, one question answered, a step of 1,000 pools; and the state of one, as it is saved.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use plimsoll_common::units::Micros;
use plimsoll_core::forecast::{Ensemble, Settings};

const BIN_MICROS: u64 = 10_000_000;

/// A day and a half of a sine with noise: every member but the week's has something to say.
const BINS: u64 = 12_960;

/// A rate with noise of its own: a Weyl sequence, so that every run is the same.
fn rate(bin: u64) -> f64 {
    let noise = (bin as f64 * 0.618_033_988_75).fract() - 0.5;
    20.0 + 10.0 * (bin as f64 / 180.0 * std::f64::consts::TAU).sin() + 6.0 * noise
}

fn seasoned(offset: u64) -> Ensemble {
    let mut ensemble = Ensemble::new(Settings::default());
    for bin in 1..=BINS {
        ensemble.observe(Micros(bin * BIN_MICROS), rate(bin + offset));
    }
    ensemble
}

fn one(criterion: &mut Criterion) {
    let mut ensemble = seasoned(0);
    let mut group = criterion.benchmark_group("forecast");
    let mut bin = BINS;
    group.bench_function("observe", |bencher| {
        bencher.iter(|| {
            bin += 1;
            black_box(ensemble.observe(Micros(bin * BIN_MICROS), rate(bin)))
        });
    });
    for secs in [20, 80, 360] {
        let horizon = Micros(secs * 1_000_000);
        group.bench_function(format!("upper_over/{secs} s"), |bencher| {
            bencher.iter(|| black_box(ensemble.upper_over(black_box(horizon), 0.95)));
        });
    }
    group.bench_function("predict/80 s", |bencher| {
        bencher.iter(|| black_box(ensemble.predict(black_box(Micros(80_000_000)))));
    });
    group.finish();
}

fn fleet(criterion: &mut Criterion) {
    let mut pools: Vec<Ensemble> = (0..1_000).map(|_| Ensemble::new(Settings::default())).collect();
    for (offset, pool) in pools.iter_mut().enumerate() {
        for bin in 1..=400 {
            pool.observe(Micros(bin * BIN_MICROS), rate(bin + offset as u64));
        }
    }
    let mut bin = 400;
    criterion.bench_function("forecast/1,000 pools: observe and upper_over 80 s", |bencher| {
        bencher.iter(|| {
            bin += 1;
            for pool in &mut pools {
                pool.observe(Micros(bin * BIN_MICROS), rate(bin));
                black_box(pool.upper_over(Micros(80_000_000), 0.95));
            }
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = one, fleet
}
criterion_main!(benches);
