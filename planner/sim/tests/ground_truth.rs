//! The world against a real vLLM, whose requests were recorded one by one.
//!
//! `PLIMSOLL_DATA=DIR cargo test -p plimsoll-sim --test ground_truth -- --nocapture`, where `DIR/ground-truth` holds the
//! records. One scalar on all iteration times is fitted so that the mean TPOT of the first hundred requests comes out;
//! the requests after them are judged.

use plimsoll_common::units::Micros;
use plimsoll_engine::{Curve, EngineConfig, Profile, Roofline, Timing};
use plimsoll_sim::{
    Outcome, PoolConfig, RequestRecord, World, WorldConfig,
    policies::Fixed,
    workload::{Arrival, Workload},
};
use serde::Deserialize;

/// How many requests the scalar is fitted on.
const FITTED: usize = 100;

#[derive(Deserialize)]
struct Record {
    input_toks: u32,
    output_toks: u32,
    arrival_time: f64,
    queued_ts: f64,
    first_token_ts: f64,
    last_token_ts: f64,
}

/// TTFT and TPOT of every request, ms.
struct Latencies(Vec<(f64, f64)>);

impl Latencies {
    fn mean_and_p99(&self, of: fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let mut values: Vec<f64> = self.0.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let rank = (values.len() as f64 * 0.99).ceil() as usize - 1;
        (values.iter().sum::<f64>() / values.len() as f64, values[rank])
    }
}

#[expect(clippy::disallowed_methods, reason = "the records are read from where somebody says")]
#[expect(clippy::print_stdout, reason = "whoever runs the tests is to know what was left out")]
fn records(name: &str) -> Option<Vec<Record>> {
    let Ok(folder) = std::env::var("PLIMSOLL_DATA") else {
        println!("SKIPPED: {name} needs PLIMSOLL_DATA, a folder with ground-truth/{name}.requests.jsonl");
        return None;
    };
    let path = format!("{folder}/ground-truth/{name}.requests.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect())
}

/// What came in, and what the real engine made of it.
fn truth(records: &[Record]) -> (Workload, Latencies) {
    // Arrivals are on another clock than the engine's: the fastest way from one to the other took no time.
    let shift = records.iter().map(|r| r.queued_ts - r.arrival_time).fold(f64::INFINITY, f64::min);
    let zero = records.iter().map(|r| r.arrival_time).fold(f64::INFINITY, f64::min);
    let mut real: Vec<(Arrival, (f64, f64))> = records
        .iter()
        .map(|r| {
            let at = Micros::from_millis_f64((r.arrival_time - zero) * 1e3);
            let ttft = (r.first_token_ts - r.arrival_time - shift) * 1e3;
            let tpot = (r.last_token_ts - r.first_token_ts) * 1e3 / f64::from(r.output_toks.max(2) - 1);
            (Arrival::new(at, r.input_toks, r.output_toks), (ttft, tpot))
        })
        .collect();
    real.sort_by_key(|(arrival, _)| arrival.at);
    let (arrivals, latencies) = real.into_iter().unzip();
    (Workload::new(arrivals), Latencies(latencies))
}

fn simulated(engine: &EngineConfig, scalar: f64, workload: &Workload) -> Latencies {
    let profile = Profile::built_in("llama-3.1-8b-h200-tp1").expect("a built-in profile");
    let mut pool = PoolConfig::new("pool", &profile);
    pool.engine = EngineConfig { timing: engine.timing.scaled(scalar), ..engine.clone() };
    let outcome: Outcome =
        World::new(&WorldConfig::aggregated(pool), workload).expect("a world").run(&mut Fixed::new(vec![1]));
    let latencies = |r: &RequestRecord| {
        let ttft = r.ttft().expect("a first token").as_millis_f64();
        (ttft, r.mean_itl().map_or(0.0, Micros::as_millis_f64))
    };
    Latencies(outcome.requests.iter().map(latencies).collect())
}

/// The scalar with which the mean TPOT of the first hundred requests is the real one.
fn fitted(engine: &EngineConfig, workload: &Workload, real: &Latencies) -> f64 {
    let tpot = |latencies: &Latencies| latencies.0[..FITTED].iter().map(|l| l.1).sum::<f64>() / FITTED as f64;
    let (mut low, mut high) = (0.1_f64, 10.0_f64);
    for _ in 0..40 {
        let middle = (low * high).sqrt();
        if tpot(&simulated(engine, middle, workload)) < tpot(real) { low = middle } else { high = middle }
    }
    (low * high).sqrt()
}

/// Deviations of the simulation from the truth over the requests that nothing was fitted on: TTFT mean and p99, TPOT
/// mean and p99, as shares.
#[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
fn judge(name: &str, engine: &EngineConfig) -> Option<[f64; 4]> {
    let (workload, real) = truth(&records(name)?);
    let scalar = fitted(engine, &workload, &real);
    let rest = |latencies: Latencies| Latencies(latencies.0[FITTED..].to_vec());
    let (real, ours) = (rest(real), rest(simulated(engine, scalar, &workload)));
    println!("{name}: scalar {scalar:.3}, judged on {} requests", real.0.len());
    let mut deviations = [0.0; 4];
    for (index, (what, of)) in [("TTFT", (|l| l.0) as fn(&(f64, f64)) -> f64), ("TPOT", |l: &(f64, f64)| l.1)]
        .into_iter()
        .enumerate()
    {
        let (real, ours) = (real.mean_and_p99(of), ours.mean_and_p99(of));
        deviations[2 * index] = ours.0 / real.0 - 1.0;
        deviations[2 * index + 1] = ours.1 / real.1 - 1.0;
        println!(
            "  {what}: mean {:.1} against {:.1} ms ({:+.1} %), p99 {:.1} against {:.1} ms ({:+.1} %)",
            ours.0,
            real.0,
            100.0 * deviations[2 * index],
            ours.1,
            real.1,
            100.0 * deviations[2 * index + 1]
        );
    }
    Some(deviations)
}

fn engine(kv_tokens: u32, max_num_seqs: u32, roofline: Roofline) -> EngineConfig {
    EngineConfig {
        block_size: 16,
        kv_blocks: kv_tokens / 16,
        max_num_seqs,
        max_num_batched_tokens: 2_048,
        max_model_len: 32_768,
        max_waiting: 10_000,
        reserve_full_prompt: true,
        timing: Timing::new(Curve::Roofline(roofline)),
    }
}

#[test]
fn qwen3_32b_on_two_rtx_pro_6000_comes_out_within_five_per_cent() {
    // A fit of kernel-level estimates for this model on this machine: what a planner would begin with.
    let prior = Roofline {
        a_ms: 18.64,
        w_ms: 5.84,
        b_ms_per_token: 0.1265,
        c_ms_per_token_squared: 0.0,
        d_ms_per_sequence: 0.0,
        e_ms_per_kv_token: 6.257_120_274_547_012e-5,
    };
    let Some(deviations) = judge("RTXPRO6000_Qwen3-32B", &engine(421_764, 128, prior)) else { return };
    assert!(deviations.iter().all(|deviation| deviation.abs() < 0.05), "{deviations:?}");
}

#[test]
fn llama_8b_on_an_rtx_4090_is_reported() {
    // Nobody has estimated this machine. An H100's curve is begun with: the wrong proportions of computing to memory.
    let prior = Profile::built_in("llama-3.1-8b-h100-tp1").expect("a built-in profile").timing;
    let Curve::Roofline(roofline) = prior.curve else { panic!("a roofline") };
    // No bar: with 41,408 KV tokens the engine preempts all the time.
    let _ = judge("RTX4090_Llama-3.1-8B", &engine(41_408, 256, roofline));
}
