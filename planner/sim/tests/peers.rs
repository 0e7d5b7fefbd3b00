//! The port of Dynamo's planner against the original, which was run in NVIDIA's simulator.
//!
//! `PLIMSOLL_DATA=DIR cargo test -p plimsoll-sim --test peers -- --ignored --nocapture`, where
//! `DIR/traces/azure2023_conv.csv.gz` holds the published trace. Prints a row a policy; `docs/results.md` says what they
//! were, and where the two differ.

use std::io::Read as _;

use plimsoll_common::units::Micros;
use plimsoll_core::score::Slo;
use plimsoll_engine::Profile;
use plimsoll_sim::{
    Experiment, PoolConfig, Run, Trials, WorldConfig,
    bounds::{Grid, Oracle, grid},
    policies::from_text,
    workload::{Workload, read},
};

#[expect(clippy::disallowed_methods, reason = "the trace is read from where somebody says")]
#[expect(clippy::print_stdout, reason = "whoever runs the tests is to know what was left out")]
fn trace(name: &str) -> Option<Workload> {
    let Ok(folder) = std::env::var("PLIMSOLL_DATA") else {
        println!("SKIPPED: needs PLIMSOLL_DATA, a folder with traces/{name}");
        return None;
    };
    let path = format!("{folder}/traces/{name}");
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("a gzipped text");
    Some(read(name, &text).expect("a trace").workload)
}

/// The world of the measured rows: one prefill and one decode engine of two H200 each to begin with, a minute to start
/// another, 32 GPUs, round-robin, 50 GB/s.
fn world() -> WorldConfig {
    let profile = Profile::built_in("qwen3-32b-h200-tp2").expect("a built-in profile");
    let pool = |name| PoolConfig::new(name, &profile);
    let mut config = WorldConfig::disaggregated(pool("prefill"), pool("decode"));
    config.gpus = Some(32);
    config
}

#[expect(clippy::print_stdout, reason = "the rows are what this is for")]
fn tell(run: &Run) -> (f64, f64) {
    let (attained, hours) =
        (run.score.attained.map_or(1.0, |share| share.low().get()), run.score.gpu_hours.total);
    let mut ttft: Vec<u64> =
        run.outcome.requests.iter().filter_map(|r| r.ttft().map(|ttft| ttft.0)).collect();
    ttft.sort_unstable();
    let ms = |q: f64| ttft.get((ttft.len() as f64 * q) as usize).map_or(0, |ttft| ttft / 1_000);
    println!(
        "{:<30} {:>6.2} % {:>6.2} GPU-h {:>4} actions, {:>3} reversals, TTFT p50 {} p99 {} ms",
        run.outcome.policy,
        attained * 100.0,
        hours,
        run.score.actions,
        run.score.reversals,
        ms(0.5),
        ms(0.99),
    );
    (attained, hours)
}

#[test]
#[ignore = "needs the published trace, and a minute in a debug build"]
fn dynamo_on_azure_conversations_times_four() {
    let Some(workload) = trace("azure2023_conv.csv.gz") else { return };
    let workload = workload.scaled(4.0, Micros(2_000_000), 1);
    let (config, slo) = (world(), Slo::of_millis(1_000, 30));
    let experiment = Experiment { config: &config, workload: &workload, slo };
    let of = |text: &str| {
        let mut policy = from_text(text, &config.briefing(), &slo).expect("a policy");
        tell(&experiment.run(&mut *policy, &mut |_, _| ()).expect("a world"))
    };
    for fleet in [[3, 1], [4, 1], [5, 1]] {
        tell(&experiment.run_static(&fleet, &mut |_, _| ()).expect("a world"));
    }
    let hybrid = of("dynamo:target=sla,loops=hybrid");
    let throughput = of("dynamo:target=sla,loops=throughput,interval=60");
    let load = of("dynamo:target=sla,loops=load");
    for text in ["dynamo:target=throughput", "dynamo:target=latency", "hpa:queue=5", "keda:in_flight=30"] {
        of(text);
    }
    of("kpa:in_flight=70");
    of("wva");
    println!("oracle by its own account: {:.2} GPU-h", Oracle::new(&config, &workload, &slo).gpu_hours());
    let oracle = tell(&experiment.run_oracle(&mut |_, _| ()).expect("a world"));
    // The original's rows: attainment within 5 points, GPU-hours within 10 %.
    for ((attained, hours), (original, original_hours)) in
        [(hybrid, (0.728, 6.23)), (throughput, (0.602, 5.75)), (load, (0.369, 6.05))]
    {
        assert!((attained - original).abs() < 0.05, "{attained} against {original}");
        assert!((hours / original_hours - 1.0).abs() < 0.1, "{hours} against {original_hours}");
    }
    assert!(oracle.0 > 0.95, "{}", oracle.0);
}

#[test]
#[ignore = "needs the published trace, and five minutes in a debug build"]
fn the_causal_bound_on_azure_conversations_times_four() {
    let Some(workload) = trace("azure2023_conv.csv.gz") else { return };
    let workload = workload.scaled(4.0, Micros(2_000_000), 1);
    let (mut config, slo) = (world(), Slo::of_millis(1_000, 30));
    // As many as the static fleet that keeps the promise: a start that is too small misses for a minute whatever follows.
    config.pools[0].initial = 4;
    let experiment = Experiment { config: &config, workload: &workload, slo };
    let ladders = grid(Grid { disaggregated: true, ..Grid::default() });
    let bound = Trials::new(&[experiment]).causal(&ladders).expect("a grid").expect("ladders");
    println!(
        "causal bound: {} attains {:.2} % with {:.2} GPU-h",
        bound.trial.policy,
        bound.trial.attained() * 100.0,
        bound.trial.gpu_hours()
    );
    assert!(bound.kept);
}
