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
//!
//! `decided` is a hash of all plans with their explanations: two builds that decide alike print the same.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use plimsoll_benches::{
    pools::{self, ENGINES, GPUS},
    program::{self, Percentiles},
};
use plimsoll_common::units::Micros;
use plimsoll_core::{
    controller::{Controller, Step},
    observe::Observation,
    tuning::Tuning,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// The planner's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    decided: String,
}

#[derive(Debug, Serialize)]
struct Summary {
    steps: usize,
    cpu_ms: Percentiles,
    wall_ms: Percentiles,
}

/// Steps of one kind, and what they took.
#[derive(Debug, Default)]
struct Spent {
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
}

/// The core under measurement.
#[derive(Debug)]
struct Bench {
    controller: Controller,
    /// Of all steps so far: FNV-1a over their JSON.
    decided: u64,
}

fn main() -> ExitCode {
    program::end("step", run())
}

fn run() -> anyhow::Result<String> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("usage: step POOLS STEPS");
    let (pools, steps): (u32, u64) = (next()?.parse()?, next()?.parse()?);
    anyhow::ensure!((1..=100_000).contains(&pools), "{pools} pools: give 1 to 100,000");
    anyhow::ensure!((1..=100_000).contains(&steps), "{steps} steps: give 1 to 100,000");
    let (usual, spec) = (pools::windows(pools)?, pools::fleet(pools)?);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // Once, so that what building them takes is not counted as the controller's.
    drop(pools::varied(&usual, &mut random));

    let before = program::resident()?;
    let mut bench =
        Bench { controller: Controller::new(spec, Tuning::default()), decided: 0xcbf2_9ce4_8422_2325 };
    let (mut first, mut search, mut settled) = (Spent::default(), Spent::default(), Spent::default());
    let mut early = 0;
    for step in 1..=steps {
        early = searched(&bench.time(&mut first, pools::at(step), pools::varied(&usual, &mut random))?);
    }
    for _ in 0..steps {
        if searched(&bench.time(&mut search, pools::at(steps), Vec::new())?) >= usual.len() {
            break;
        }
    }
    let mut late = 0;
    for step in steps + 1..=2 * steps {
        late = searched(&bench.time(&mut settled, pools::at(step), pools::varied(&usual, &mut random))?);
    }
    let report = Report {
        pools,
        engines: pools * ENGINES,
        gpus: pools * ENGINES * GPUS,
        first: first.summary(),
        search: search.summary(),
        settled: settled.summary(),
        searched: (early, late),
        kib_a_pool: program::resident()?.saturating_sub(before) as f64 / 1024.0 / f64::from(pools),
        decided: format!("{:016x}", bench.decided),
    };
    Ok(serde_json::to_string(&report)?)
}

impl Bench {
    /// A step with what was observed before it.
    fn time(&mut self, spent: &mut Spent, now: Micros, seen: Vec<Observation>) -> anyhow::Result<Step> {
        let (cpu, wall) = (program::cpu_of_thread(), program::wall());
        for one in seen {
            self.controller.observe(one);
        }
        let step = self.controller.step(now);
        spent.cpu.push(program::cpu_of_thread().saturating_sub(cpu));
        spent.wall.push(program::wall().saturating_sub(wall));
        for byte in serde_json::to_vec(&step)? {
            self.decided = (self.decided ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(step)
    }
}

impl Spent {
    fn summary(self) -> Summary {
        let Self { cpu, wall } = self;
        Summary {
            steps: cpu.len(),
            cpu_ms: Percentiles::of_millis(&cpu),
            wall_ms: Percentiles::of_millis(&wall),
        }
    }
}

/// Pools of which engines were run ahead for a capacity.
fn searched(step: &Step) -> usize {
    let known = step.explanation.pools.values().filter_map(|pool| pool.believed.capacity);
    known.filter(|known| known.searched > 0).count()
}
