//! What the core expects of latencies against what happens in the world.
//!
//! `cargo test -p plimsoll-sim --test estimates -- --nocapture` prints a row a case. A file of `tests/estimates` is an
//! engine, a kind of request and loads; the world runs them with real queues, chunks and prefix caches, the core sees the
//! engines' pages and nothing else, and what it then expects of the first token is held against what every single request
//! got.

use plimsoll_common::{ids::PoolName, units::Micros};
use plimsoll_core::{
    perf::{Lengths, Mix, Question},
    policy::Routing,
    score::Slo,
    tuning::Tuning,
};
use plimsoll_engine::Profile;
use plimsoll_sim::{
    Outcome, PoolConfig, World, WorldConfig,
    policies::{Fixed, Plimsoll},
    workload::{self, Generator, Workload},
};
use proptest::{prelude::*, test_runner::RngSeed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

/// Requests of one run that is judged.
const REQUESTS: u32 = 4_000;
/// Of these, the share that finds engines and caches unsettled: not counted.
const SETTLING: f64 = 0.1;
/// Steps that the core has to learn what it believes.
const STEPS: f64 = 25.0;
/// What the hashes of a prompt's blocks stand for, tokens.
const BLOCK: u32 = 512;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Estimate {
    #[serde(rename = "about")]
    _about: String,
    profile: serde_json::Value,
    prompt_tokens: u32,
    /// Tokens at the begin of each prompt that others share.
    shared_tokens: u32,
    /// How many such beginnings there are.
    documents: u64,
    output_tokens: u32,
    slo: Limits,
    /// How far an estimate may be from what happened, as a share.
    tolerance: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    ttft_ms: u64,
    itl_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Requests a second in all.
    rps: f64,
    replicas: u32,
    /// How many times longer iterations take than the core's profile says.
    truth: f64,
}

/// Poisson arrivals of prompts of one length that begin with one of a few documents.
fn cached_prompts(of: &Estimate, rps: f64, requests: u32, seed: u64) -> Workload {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut at_ms, mut fresh, mut lines) = (0.0, 1_000_000_u64, String::new());
    let (shared, all) = (of.shared_tokens / BLOCK, of.prompt_tokens.div_ceil(BLOCK));
    for _ in 0..requests {
        at_ms += -(1.0 - rng.random::<f64>()).ln() / rps * 1e3;
        let document = 1_000 * rng.random_range(0..of.documents);
        let hashes = (0..all).map(|block| {
            fresh += 1;
            if block < shared { document + u64::from(block) } else { fresh }
        });
        let line = serde_json::json!({
            "timestamp": at_ms, "input_length": of.prompt_tokens, "output_length": of.output_tokens,
            "hash_ids": hashes.collect::<Vec<u64>>(),
        });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    workload::read("cached-prompts.jsonl", &lines).expect("a trace").workload
}

/// A core that watched a world, looking every so many seconds.
fn watch(config: &WorldConfig, workload: &Workload, slo: &Slo, every_s: f64) -> Plimsoll {
    let every = Micros::from_millis_f64(every_s * 1e3);
    let mut core = Plimsoll::new(every, Tuning::default(), &config.briefing(), slo);
    let _ = World::new(config, workload).expect("a world").run(&mut core);
    core
}

fn fixed(profile: &Profile, replicas: u32, truth: f64) -> PoolConfig {
    let mut pool = PoolConfig::new("pool", profile).with_initial(replicas);
    (pool.min, pool.max) = (replicas, replicas);
    pool.engine.timing = pool.engine.timing.scaled(truth);
    pool.truth_over_prior = truth;
    pool
}

/// Mean and 99th percentile of the settled requests' time to first token, seconds.
fn first_tokens(outcomes: &[Outcome]) -> (f64, f64) {
    let skipped = (f64::from(REQUESTS) * SETTLING) as usize;
    let settled = outcomes.iter().flat_map(|outcome| outcome.requests.iter().skip(skipped));
    let mut ttft: Vec<f64> =
        settled.map(|request| request.ttft().expect("a first token").as_secs_f64()).collect();
    ttft.sort_by(f64::total_cmp);
    let rank = (ttft.len() as f64 * 0.99).ceil() as usize - 1;
    (ttft.iter().sum::<f64>() / ttft.len() as f64, ttft[rank])
}

fn factor(core: &Plimsoll, pool: &str) -> f64 {
    core.last().expect("a step").explanation.pools[&PoolName::parse(pool).expect("a name")].believed.factor
}

#[expect(clippy::print_stdout, reason = "the figures are half of what this is for")]
fn judge(file: &str, of: &Estimate, case: &Case) -> Vec<String> {
    let profile = Profile::from_json(&of.profile.to_string()).expect("a profile");
    let slo = Slo::of_millis(of.slo.ttft_ms, of.slo.itl_ms);
    let mut config = WorldConfig::aggregated(fixed(&profile, case.replicas, case.truth));
    config.pools[0].prefix_cache = true;
    // Six requests a look are enough to tell by.
    let every_s = (6.0 / case.rps).max(10.0);
    let watched = cached_prompts(of, case.rps, (case.rps * every_s * STEPS) as u32, 7);
    let core = watch(&config, &watched, &slo, every_s);
    let run = |seed| {
        let workload = cached_prompts(of, case.rps, REQUESTS, seed);
        World::new(&config, &workload).expect("a world").run(&mut Fixed::new(vec![case.replicas]))
    };
    let outcomes: Vec<Outcome> = (1..5).map(run).collect();
    let pool = PoolName::parse("pool").expect("a name");
    let foreseen = core.controller().foresee(&pool, case.replicas, case.rps).expect("an estimate");
    let believed = &core.last().expect("a step").explanation.pools[&pool].believed;
    let mix = believed.mix.expect("a mix");
    let (mean, p99) = first_tokens(&outcomes);
    println!(
        "{file} {:.2}/s on {}, truth {:.2}: hits {:.3}, factor {:.3}, dispersion {:.2}; mean {:.3} s, expected {:.3} \
         ({:+.1} %); p99 {:.3} s, expected {:.3} ({:+.1} %)",
        case.rps,
        case.replicas,
        case.truth,
        mix.hit,
        believed.factor,
        believed.dispersion,
        mean,
        foreseen.ttft_mean_s,
        100.0 * (foreseen.ttft_mean_s / mean - 1.0),
        p99,
        foreseen.ttft_goal_s,
        100.0 * (foreseen.ttft_goal_s / p99 - 1.0),
    );
    let off = |what: &str, ours: f64, truth: f64| {
        let deviation = ours / truth - 1.0;
        (deviation.abs() > of.tolerance)
            .then(|| format!("{file} at {}/s: {what} {ours:.3} against {truth:.3}", case.rps))
    };
    let shared = f64::from(of.shared_tokens) / f64::from(of.prompt_tokens);
    let all = [
        off("mean", foreseen.ttft_mean_s, mean),
        off("p99", foreseen.ttft_goal_s, p99),
        ((mix.hit - shared).abs() > 0.02).then(|| format!("{file}: hits {}", mix.hit)),
        ((believed.factor / case.truth - 1.0).abs() > 0.08)
            .then(|| format!("{file}: factor {}", believed.factor)),
    ];
    all.into_iter().flatten().collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the cases are data files")]
fn what_is_expected_of_long_cached_prompts_comes_about() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/estimates");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the cases").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    let mut wrong = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a file");
        let estimate: Estimate =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path.file_stem().expect("a name").to_string_lossy().into_owned();
        wrong.extend(estimate.cases.iter().flat_map(|case| judge(&file, &estimate, case)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(11),
        ..ProptestConfig::default()
    })]

    /// Invariant: whatever scalar a world's iterations take longer or shorter than the profile says, it is recovered within
    /// 5 % from what engines' pages tell, up to three fifths of what engines take; beyond, and where several short prompts
    /// are computed in one iteration, within 10 %.
    #[test]
    fn calibration_recovers_a_scalar(
        name in prop::sample::select(vec![
            "llama-3.1-8b-h200-tp1", "qwen3-32b-h200-tp2", "llama-3.3-70b-fp8-h100-tp2-measured",
        ]),
        truth in 0.5..2.0_f64,
        load in 0.15..0.8_f64,
        (isl, isl_cv) in (200.0..6_000.0_f64, 0.0..1.2_f64),
        (osl, osl_cv) in (30.0..500.0_f64, 0.0..1.0_f64),
        seed in 0..1_000_u64,
    ) {
        let profile = Profile::built_in(name).expect("a built-in profile");
        let slo = Slo::of_millis(2_000, 50);
        let pool = fixed(&profile, 2, truth);
        let question = Question {
            engine: pool.engine.clone(),
            role: pool.role,
            routing: Routing::RoundRobin,
            mix: Mix::new(Lengths::log_normal(isl, isl_cv), Lengths::log_normal(osl, osl_cv)),
            burstiness: 1.0,
            slo,
        };
        let rate = 2.0 * load * question.throughput();
        let mut generator = Generator::poisson(rate, 900.0, isl, osl);
        (generator.prompt.cv, generator.output.cv) = (isl_cv, osl_cv);
        let workload = generator.generate(seed).expect("a workload");
        let core = watch(&WorldConfig::aggregated(pool), &workload, &slo, 20.0);
        let found = factor(&core, "pool");
        let bar = if load <= 0.6 && isl >= 1_000.0 { 0.05 } else { 0.1 };
        prop_assert!((found / truth - 1.0).abs() < bar, "{found} for {truth}");
    }
}
