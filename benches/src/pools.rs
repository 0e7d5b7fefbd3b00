//! A large fleet as the decision core is told of it: ten engines of eight GPUs a pool, which tell all that engines can.

use plimsoll_common::{
    engine::Role,
    ids::{EngineId, ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::{
    observe::{Engine, Gained, Latency, Observation, Replicas},
    plan::Limits,
    policy::{Behavior, Routing},
    score::Slo,
    spec::{FleetSpec, PoolSpec},
};
use plimsoll_engine::{EngineConfig, Profile};
use rand::{Rng, RngExt};

const PROFILE: &str = "llama-3.1-70b-fp8-h100-tp8";
/// Engines of a pool.
pub const ENGINES: u32 = 10;
/// GPUs of an engine.
pub const GPUS: u32 = 8;
/// Between two steps: a bin of the forecast.
pub const INTERVAL: Micros = Micros(10_000_000);
/// Where virtual time begins, Unix microseconds.
const BEGIN: u64 = 1_795_353_870_000_000;

/// When a step is.
#[must_use]
pub const fn at(step: u64) -> Micros {
    Micros(BEGIN + step * INTERVAL.0)
}

/// So many pools, with a budget of the GPUs that they have.
///
/// # Errors
/// When the built-in profile or a name can't be used.
pub fn fleet(pools: u32) -> anyhow::Result<FleetSpec> {
    let engine = Profile::built_in(PROFILE)?.engine_config();
    let limits = Limits { gpus: Some(pools * ENGINES * GPUS), ..Limits::default() };
    let pools = (0..pools).map(|pool| spec(pool, &engine)).collect::<anyhow::Result<_>>()?;
    Ok(FleetSpec { interval: INTERVAL, limits, pools })
}

/// What so many pools tell in one window on the mean.
///
/// # Errors
/// When the built-in profile or a name can't be used.
pub fn windows(pools: u32) -> anyhow::Result<Vec<Observation>> {
    let engine = Profile::built_in(PROFILE)?.engine_config();
    (0..pools).map(|pool| usual(pool, &engine)).collect()
}

/// The next window of every pool: up to 5 % more or less of everything that comes, batches and caches likewise.
pub fn varied(usual: &[Observation], random: &mut impl Rng) -> Vec<Observation> {
    let mut seen = usual.to_vec();
    for engine in seen.iter_mut().flat_map(|pool| pool.engines.values_mut()) {
        let by = random.random_range(0.95..1.05);
        let vary = |count: &mut Option<u64>| *count = count.map(|count| (count as f64 * by).round() as u64);
        let gained = &mut engine.gained;
        vary(&mut gained.arrived);
        // Lengths stay: as many more or fewer tokens as requests.
        gained.arrived_prompt_tokens = gained
            .arrived
            .zip(gained.finished)
            .zip(gained.finished_prompt_tokens)
            .map(|((arrived, finished), tokens)| arrived * (tokens / finished.max(1)));
        vary(&mut engine.running);
        engine.kv_utilization = engine.kv_utilization.map(|share| (share * by).min(1.0));
    }
    seen
}

fn spec(pool: u32, engine: &EngineConfig) -> anyhow::Result<PoolSpec> {
    Ok(PoolSpec {
        name: PoolName::parse(&format!("pool-{pool:05}"))?,
        model: ModelName::parse(&format!("model-{pool:05}"))?,
        role: Role::Aggregated,
        priority: 0,
        bounds: (1, 2 * ENGINES),
        gpus: GPUS,
        watts: 0.0,
        cost_per_hour: 0.0,
        start_up: Micros(180_000_000),
        engine: Some(engine.clone()),
        engines_per_replica: 1,
        routing: Routing::LeastLoaded,
        slo: Some(Slo::of_millis(1_000, 50)),
        thresholds: None,
        lengths: (None, None),
        behavior: Behavior::default(),
        role_switch: false,
    })
}

/// What a pool tells in one window on the mean: rates and lengths of its own, engines that are a little slower than their
/// profile.
fn usual(pool: u32, config: &EngineConfig) -> anyhow::Result<Observation> {
    let mut seen = Observation::new(PoolName::parse(&format!("pool-{pool:05}"))?, INTERVAL);
    seen.replicas = Replicas { target: Some(ENGINES), ready: ENGINES, ..Replicas::default() };
    let requests = 10 + u64::from(pool % 97);
    let (prompt, output) = (500 + 25 * u64::from(pool % 83), 100 + 5 * u64::from(pool % 61));
    let itl = Micros(15_000);
    let running = (requests * output * itl.0).div_ceil(INTERVAL.0);
    let held = running * (prompt + output / 2);
    let latency = |count: u64, mean: Micros| Latency {
        count,
        sum: Micros(count * mean.0),
        within: Some((count, count)),
    };
    let engine = Engine {
        draining: false,
        running: Some(running),
        waiting: Some(0),
        kv_utilization: Some((held as f64 / config.kv_tokens() as f64).min(1.0)),
        queued_prefill_tokens: Some(0),
        gained: Gained {
            arrived: Some(requests),
            arrived_prompt_tokens: Some(requests * prompt),
            finished: Some(requests),
            finished_prompt_tokens: Some(requests * prompt),
            finished_output_tokens: Some(requests * output),
            prefix_query_tokens: Some(requests * prompt),
            prefix_hit_tokens: Some(requests * prompt / 4),
            prefilled_tokens: Some(requests * prompt * 3 / 4),
            generated_tokens: Some(requests * output),
            accepted_draft_tokens: None,
            iterations: Some(INTERVAL.0 / itl.0),
            preemptions: Some(0),
        },
        ttft: latency(requests, Micros(150_000)),
        itl: latency(requests * (output - 1), itl),
        queue_time: latency(requests, Micros(5_000)),
        prompt_lengths: lengths(prompt, requests),
        output_lengths: lengths(output, requests),
    };
    for id in 0..ENGINES {
        seen.engines.insert(EngineId::parse(&format!("engine-{id}"))?, engine.clone());
    }
    Ok(seen)
}

/// So many lengths, half of them below half the mean, in buckets as engines have them.
fn lengths(mean: u64, requests: u64) -> Vec<(u64, u64)> {
    let shares = [(4, 25), (2, 25), (1, 20), (0, 30)];
    let counted =
        shares.map(|(part, percent)| (mean.checked_div(part).unwrap_or(3 * mean), requests * percent / 100));
    counted.into_iter().filter(|(_, count)| *count > 0).collect()
}
