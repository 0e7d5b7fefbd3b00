//! What a step of the decision core costs a large fleet: time of the step and of taking what was observed before it, and
//! memory.
//!
//! `step POOLS STEPS` prints one JSON line. Every pool has ten engines of eight GPUs and tells everything that an engine can
//! tell, every ten seconds, so that every step also ends a bin of the forecast. Three times are told apart, each with
//! percentiles in milliseconds: of the `first` so many steps; of so many that only `search`, without news, fewer if every
//! pool has a searched capacity before; and of so many `settled` ones after that. A step searches one capacity as long
//! as one is not known well enough, which in a large fleet is long; with few pools and many steps the settled ones search
//! nothing. `cpu` is the time of the one thread that works, `wall` what passed meanwhile. Memory is resident memory
//! before the controller was made and at the end, by the number of pools; it contains what each pool told last.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use plimsoll_common::{
    engine::Role,
    ids::{EngineId, ModelName, PoolName},
    units::Micros,
};
use plimsoll_core::{
    controller::{Controller, Step},
    observe::{Engine, Gained, Latency, Observation, Replicas},
    plan::Limits,
    policy::{Behavior, Routing},
    score::Slo,
    spec::{FleetSpec, PoolSpec},
    tuning::Tuning,
};
use plimsoll_engine::{EngineConfig, Profile};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// The planner's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROFILE: &str = "llama-3.1-70b-fp8-h100-tp8";
const ENGINES: u32 = 10;
const GPUS: u32 = 8;
const INTERVAL: Micros = Micros(10_000_000);
/// Where virtual time begins, Unix microseconds.
const BEGIN: u64 = 1_795_353_870_000_000;

#[derive(Debug, Serialize)]
struct Report {
    pools: u32,
    engines: u32,
    gpus: u32,
    first: Summary,
    search: Summary,
    settled: Summary,
    /// Pools of which a capacity was searched: after the first steps, and at the end.
    searched: (usize, usize),
    kib_a_pool: f64,
}

#[derive(Debug, Serialize)]
struct Summary {
    steps: usize,
    cpu_ms: Percentiles,
    wall_ms: Percentiles,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Debug, Default)]
struct Spent {
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
}

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            tell(&line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "there is no log here")]
fn complain(error: &anyhow::Error) {
    eprintln!("step: {error:#}");
}

#[expect(clippy::print_stdout, reason = "the result is what it is for")]
fn tell(line: &str) {
    println!("{line}");
}

fn run() -> anyhow::Result<String> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("usage: step POOLS STEPS");
    let (pools, steps): (u32, u64) = (next()?.parse()?, next()?.parse()?);
    anyhow::ensure!((1..=100_000).contains(&pools), "{pools} pools: give 1 to 100,000");
    anyhow::ensure!((1..=100_000).contains(&steps), "{steps} steps: give 1 to 100,000");
    let engine = Profile::built_in(PROFILE)?.engine_config();
    let usual = (0..pools).map(|pool| usual(pool, &engine)).collect::<anyhow::Result<Vec<_>>>()?;
    let specs = (0..pools).map(|pool| spec(pool, &engine)).collect::<anyhow::Result<Vec<_>>>()?;
    let gpus = pools * ENGINES * GPUS;
    let limits = Limits { gpus: Some(gpus), ..Limits::default() };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // Once, so that what building them takes is not counted as the controller's.
    drop(varied(&usual, &mut random));

    let before = resident()?;
    let spec = FleetSpec { interval: INTERVAL, limits, pools: specs };
    let mut controller = Controller::new(spec, Tuning::default());
    let at = |step: u64| Micros(BEGIN + step * INTERVAL.0);
    let (mut first, mut search, mut settled) = (Spent::default(), Spent::default(), Spent::default());
    let mut early = 0;
    for step in 1..=steps {
        early = searched(&first.time(&mut controller, at(step), varied(&usual, &mut random)));
    }
    for _ in 0..steps {
        if searched(&search.time(&mut controller, at(steps), Vec::new())) >= usual.len() {
            break;
        }
    }
    let mut late = 0;
    for step in steps + 1..=2 * steps {
        late = searched(&settled.time(&mut controller, at(step), varied(&usual, &mut random)));
    }
    let report = Report {
        pools,
        engines: pools * ENGINES,
        gpus,
        first: first.summary(),
        search: search.summary(),
        settled: settled.summary(),
        searched: (early, late),
        kib_a_pool: resident()?.saturating_sub(before) as f64 / 1024.0 / f64::from(pools),
    };
    Ok(serde_json::to_string(&report)?)
}

impl Spent {
    /// A step with what was observed before it.
    fn time(&mut self, controller: &mut Controller, now: Micros, seen: Vec<Observation>) -> Step {
        let (cpu, wall) = (clock(ClockId::ThreadCPUTime), clock(ClockId::Monotonic));
        for one in seen {
            controller.observe(one);
        }
        let step = controller.step(now);
        self.cpu.push(clock(ClockId::ThreadCPUTime).saturating_sub(cpu));
        self.wall.push(clock(ClockId::Monotonic).saturating_sub(wall));
        step
    }

    fn summary(self) -> Summary {
        Summary { steps: self.cpu.len(), cpu_ms: percentiles(self.cpu), wall_ms: percentiles(self.wall) }
    }
}

fn percentiles(mut spent: Vec<Duration>) -> Percentiles {
    spent.sort_unstable();
    let rank = |q: f64| (q * spent.len() as f64).ceil().max(1.0) as usize - 1;
    let at = |q: f64| spent.get(rank(q)).map_or(0.0, |time| (time.as_secs_f64() * 1e5).round() / 1e2);
    Percentiles { p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Resident memory, bytes.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(kib.context("/proc/self/status tells no VmRSS")?.parse::<u64>()? * 1024)
}

/// Pools of which engines were run ahead for a capacity.
fn searched(step: &Step) -> usize {
    let known = step.explanation.pools.values().filter_map(|pool| pool.believed.capacity);
    known.filter(|known| known.searched > 0).count()
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

/// The next window of every pool: up to 5 % more or less of everything that comes, batches and caches likewise.
fn varied(usual: &[Observation], random: &mut impl Rng) -> Vec<Observation> {
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
