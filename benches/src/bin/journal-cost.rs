//! What the journal costs a large fleet: CPU time, on the thread that decides and off it, and bytes.
//!
//! `journal-cost POOLS STEPS FOLDER` prints one JSON line. Pools and what they tell are those of `step`. `decides` is the time
//! of the thread that decides: to copy a step with what was observed and hand it over, and to copy what was learned for a
//! checkpoint. `writes` is what all other threads took until it was in the store: packing, compression, SQLite. Bytes are
//! those by which the store grew. The first step of a segment is told apart, since it is the dictionary of the others.
//! The folder must be empty, and is left as it is.

use std::{fs, path::Path, process::ExitCode, sync::Arc, thread::sleep, time::Duration};

use anyhow::Context;
use plimsoll_benches::{
    pools::{self, ENGINES, INTERVAL},
    program::{self, Percentiles, cpu_of_process, cpu_of_thread},
};
use plimsoll_core::{controller::Controller, tuning::Tuning};
use plimsoll_planner::journal::{self, Basis, Stats, Totals, Writer};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// The planner's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two looks whether something was written.
const LOOK: Duration = Duration::from_millis(2);
/// Looks after which nothing is waited for any more.
const LOOKS: u32 = 30_000;

#[derive(Debug, Serialize)]
struct Report {
    pools: u32,
    engines: u32,
    steps: Cost,
    first_of_segments: Cost,
    checkpoints: Cost,
    /// A checkpoint before compression.
    checkpoint_raw_mib: f64,
    /// At the interval of the steps and the default between two checkpoints.
    mib_an_hour: f64,
    dropped: u64,
}

#[derive(Debug, Serialize)]
struct Cost {
    count: usize,
    decides_ms: Percentiles,
    writes_ms: Percentiles,
    kib: Percentiles,
}

/// What was written of one kind.
#[derive(Debug, Default)]
struct Spent {
    decides: Vec<Duration>,
    writes: Vec<Duration>,
    bytes: Vec<u64>,
}

fn main() -> ExitCode {
    program::end("journal-cost", run())
}

fn run() -> anyhow::Result<String> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("usage: journal-cost POOLS STEPS FOLDER");
    let (pools, steps): (u32, u64) = (next()?.parse()?, next()?.parse()?);
    let folder = next()?;
    anyhow::ensure!((1..=100_000).contains(&pools), "{pools} pools: give 1 to 100,000");
    anyhow::ensure!((1..=100_000).contains(&steps), "{steps} steps: give 1 to 100,000");
    fs::create_dir_all(&folder)?;
    anyhow::ensure!(fs::read_dir(&folder)?.next().is_none(), "{folder} is not empty: give an empty folder");
    let (usual, spec) = (pools::windows(pools)?, pools::fleet(pools)?);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let limits = journal::Limits { bytes: 64 << 30, ..journal::Limits::default() };
    let (mut writer, _) = journal::open(Path::new(&folder), limits, pools::at(0));
    let tuning = Tuning::default();
    writer.begin(pools::at(0), Basis { policy: String::new(), spec: spec.clone(), tuning });
    let mut controller = Controller::new(spec, tuning);
    let (mut all, mut firsts, mut checkpoints) = (Spent::default(), Spent::default(), Spent::default());
    let mut is_first = true;
    for step in 1..=steps {
        let now = pools::at(step);
        if writer.checkpoint_due(now) {
            checkpoints.time(&mut writer, |writer| writer.checkpoint(now, controller.checkpoint()))?;
            is_first = true;
        }
        let seen = pools::varied(&usual, &mut random);
        seen.iter().for_each(|one| _ = controller.observe(one.clone()));
        let decided = controller.step(now);
        let spent = if is_first { &mut firsts } else { &mut all };
        spent.time(&mut writer, |writer| writer.record(now, &seen, &decided))?;
        is_first = false;
    }
    let raw = controller.checkpoint().to_bytes()?.len();
    let totals = writer.stats().totals();
    // The last of each kind: the first checkpoint has nothing to say.
    let an_hour =
        |spent: &Spent, every: f64| 3_600.0 / every * spent.bytes.last().copied().unwrap_or_default() as f64;
    let every = limits.checkpoint_every.as_secs_f64();
    let bytes_an_hour =
        an_hour(&all, INTERVAL.as_secs_f64()) + an_hour(&firsts, every) + an_hour(&checkpoints, every);
    let report = Report {
        pools,
        engines: pools * ENGINES,
        steps: all.cost(),
        first_of_segments: firsts.cost(),
        checkpoints: checkpoints.cost(),
        checkpoint_raw_mib: mib(raw as f64),
        mib_an_hour: mib(bytes_an_hour),
        dropped: totals.steps_dropped + totals.checkpoints_dropped,
    };
    Ok(serde_json::to_string(&report)?)
}

impl Spent {
    /// Hands something over to the journal, and waits until it is there.
    fn time(&mut self, writer: &mut Writer, hand: impl FnOnce(&mut Writer)) -> anyhow::Result<()> {
        let stats = writer.stats();
        let before = stats.totals();
        let (own, all) = (cpu_of_thread(), cpu_of_process());
        hand(writer);
        let decides = cpu_of_thread().saturating_sub(own);
        let after = wait(&stats, &before)?;
        let waited = cpu_of_thread().saturating_sub(own);
        self.decides.push(decides);
        self.writes.push(cpu_of_process().saturating_sub(all).saturating_sub(waited));
        self.bytes.push(after.bytes.saturating_sub(before.bytes));
        Ok(())
    }

    fn cost(&self) -> Cost {
        Cost {
            count: self.bytes.len(),
            decides_ms: Percentiles::of_millis(&self.decides),
            writes_ms: Percentiles::of_millis(&self.writes),
            kib: Percentiles::of(self.bytes.iter().map(|bytes| *bytes as f64 / 1024.0).collect()),
        }
    }
}

/// The totals once something more was written or dropped, and measured.
fn wait(stats: &Arc<Stats>, before: &Totals) -> anyhow::Result<Totals> {
    let done = |totals: &Totals| {
        totals.steps_written + totals.checkpoints_written + totals.steps_dropped + totals.errors
    };
    for _ in 0..LOOKS {
        sleep(LOOK);
        if done(&stats.totals()) > done(before) {
            // The store is measured right after it was written.
            sleep(LOOK * 10);
            return Ok(stats.totals());
        }
    }
    anyhow::bail!("the journal did not write in time")
}

fn mib(bytes: f64) -> f64 {
    (bytes / 1024.0 / 1024.0 * 1e2).round() / 1e2
}
