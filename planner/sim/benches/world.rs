//! How fast the world runs.
//!
//! `cargo bench -p plimsoll-sim`. With `PLIMSOLL_DATA` naming a folder that holds `traces/azure2023_conv.csv` and
//! `traces/azure2024_conv_tue_recon_x0.10.csv` (unpacked), those too.

use criterion::{Criterion, criterion_group, criterion_main};
use plimsoll_engine::Profile;
use plimsoll_sim::{
    PoolConfig, Router, World, WorldConfig,
    policies::Fixed,
    workload::{self, Workload, spec},
};

fn world(c: &mut Criterion, name: &str, workload: &Workload, replicas: u32, router: Router) {
    let profile = Profile::built_in("qwen3-32b-h200-tp2").expect("a built-in profile");
    let mut pool = PoolConfig::new("pool", &profile).with_initial(replicas);
    pool.router = router;
    let config = WorldConfig::aggregated(pool);
    c.bench_function(name, |bench| {
        bench.iter(|| {
            let world = World::new(&config, workload).expect("a valid world");
            world.run(&mut Fixed::new(vec![replicas])).end
        });
    });
}

fn benches(c: &mut Criterion) {
    let mut group_input = vec![
        ("chat_20k_requests_3_replicas", made("poisson:rate=5.5,duration=1h,isl=1155,osl=211"), 3),
        ("chat_500k_requests_16_replicas", made("diurnal:low=2.5,high=9,duration=1d,isl=1155,osl=150"), 16),
    ];
    for (name, file, replicas) in [
        ("azure2023_conv_3_replicas", "azure2023_conv.csv", 3),
        ("azure2024_conv_day_16_replicas", "azure2024_conv_tue_recon_x0.10.csv", 16),
    ] {
        match trace(file) {
            Some(workload) => group_input.push((name, workload, replicas)),
            None => skipped(name, file),
        }
    }
    for (name, workload, replicas) in &group_input {
        world(c, name, workload, *replicas, Router::RoundRobin);
        world(c, &format!("{name}_least_loaded"), workload, *replicas, Router::LeastLoaded);
    }
}

#[expect(clippy::print_stderr, reason = "whoever runs the benches is to know what was left out")]
fn skipped(name: &str, file: &str) {
    eprintln!("SKIPPED: {name} needs PLIMSOLL_DATA/traces/{file}");
}

fn made(line: &str) -> Workload {
    spec::generate(line, 1).expect("a generator")
}

#[expect(clippy::disallowed_methods, reason = "a bench may read the traces that somebody points it at")]
fn trace(file: &str) -> Option<Workload> {
    let folder = std::env::var("PLIMSOLL_DATA").ok()?;
    let text = std::fs::read_to_string(format!("{folder}/traces/{file}")).ok()?;
    Some(workload::read(file, &text).expect("a trace").workload)
}

criterion_group! {
    name = speed;
    config = Criterion::default().sample_size(10);
    targets = benches
}
criterion_main!(speed);
