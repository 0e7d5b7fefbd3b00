//! How far from the truth are percentiles that were read from an engine's buckets?
//!
//! ```sh
//! cargo run --release -p plimsoll-benches --bin accuracy                       # simulated engines
//! cargo run --release -p plimsoll-benches --bin accuracy -- --data FOLDER      # and captured ones
//! ```
//!
//! Simulated engines (`plimsoll-engine` in virtual time) give every sample of every family; their buckets are read once a
//! second, as the agent does it. `FOLDER` holds the captured pages of vLLM 0.32 with `client_load1.json` and
//! `client_load2.json`: the agent's own reader and tracker read the pages, and the exact values are those that the engine
//! itself put into its answers. Ends with 1 where a bound does not hold the exact value.

mod captured;
mod engines;
mod joint;
mod load;
mod methods;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;

use crate::{
    load::Load,
    table::{Row, Tables},
};

/// Measures the error of percentiles that come from buckets.
#[derive(Debug, Parser)]
struct Args {
    /// Folder of the captured vLLM pages and of the answers to the same load.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Seed of arrivals and lengths.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long each load lasts, virtual seconds.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(60..=86_400))]
    seconds: u32,
    /// Print each load's rows, not only what they have in common.
    #[arg(long)]
    each: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut tables = Tables::default();
    let mut joint = Vec::new();
    for load in Load::ALL {
        let run =
            load.run(args.seed, u64::from(args.seconds)).with_context(|| format!("load {}", load.name))?;
        tables.loads.push(run.summary());
        joint.extend(joint::rows(load.name, &run));
        for layouts in engines::ALL {
            for (kind, samples) in &run.samples {
                if let Some(edges) = layouts.edges(*kind) {
                    let measured = methods::measure(*kind, &edges, samples)?;
                    tables.rows.extend(Row::of(layouts.name, load.name, *kind, &measured));
                }
            }
        }
    }
    let mut broken = tables.print(args.each);
    joint::print(&joint);
    broken += joint.iter().filter(|row| !row.holds()).count();
    match &args.data {
        Some(folder) => broken += captured::print(folder)?,
        None => table::line("\nSKIPPED: captured pages (--data FOLDER)"),
    }
    if broken > 0 {
        table::line(&format!("\n{broken} exact values lie outside their bounds"));
        return Ok(ExitCode::FAILURE);
    }
    table::line("\nEvery exact value lies within its bounds.");
    Ok(ExitCode::SUCCESS)
}
