//! Peers and bounds on every declared workload, and whether a policy keeps what is asked of it: writes
//! `docs/results.md`.
//!
//! ```sh
//! cargo run --release -p plimsoll-simulate --bin results -- --quick              # generated workloads, one draw
//! cargo run --release -p plimsoll-simulate --bin results -- --data DIR           # everything, with the traces of DIR
//! cargo run --release -p plimsoll-simulate --bin results -- --data DIR --policy demand:utilisation=0.6 --reuse
//! ```
//!
//! Cells are declared in `planner/simulate/cells.toml`. What was measured is kept in `target/results`, cell by cell: a run that
//! was cut off goes on where it was. Ends with 1 if a judged policy loses anything.

mod cache;
mod cells;
mod crew;
mod judge;
mod measure;
mod page;
mod rows;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::{cache::Cache, cells::File, crew::Crew, measure::Depth, page::Page};

/// Measures peers and bounds on every declared workload.
#[derive(Debug, Parser)]
struct Args {
    /// Folder with traces/*: cells of traces are left out without it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A few cells, one draw, a coarse grid, and peers as they come.
    #[arg(long)]
    quick: bool,
    /// A policy to judge, as `plimsoll-planner simulate --policy` takes it; give it several times.
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<String>,
    /// Only cells whose name or group contains this.
    #[arg(long, value_name = "TEXT")]
    cell: Option<String>,
    /// Begin no further cell after so many minutes; the page says what is missing. 0 tells what is known.
    #[arg(long, value_name = "MINUTES")]
    stop_after: Option<f64>,
    /// Believe peers and bounds that another build measured: for whoever changes a policy and not the world.
    #[arg(long)]
    reuse: bool,
    /// Cells that run at once.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The declared cells.
    #[arg(long, value_name = "FILE", default_value = "planner/simulate/cells.toml")]
    cells: PathBuf,
    /// Where what was measured is kept.
    #[arg(long, value_name = "DIR", default_value = "target/results")]
    cache: PathBuf,
    /// The page whose measured part is written anew; "-" prints that part instead.
    #[arg(long, value_name = "FILE", default_value = "docs/results.md")]
    out: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let file = File::read(&args.cells)?;
    let declared = file.cells()?;
    let depth = Depth { quick: args.quick };
    let (mut cells, mut skipped) = (Vec::new(), Vec::new());
    for cell in &declared {
        let asked =
            args.cell.as_ref().is_none_or(|text| cell.name.contains(text) || cell.group.contains(text));
        if !asked || (args.quick && !cell.quick) {
            continue;
        }
        if args.data.is_none() && cell.needs_data() {
            tell(&format!("SKIPPED: {} needs --data DIR with its trace or profile", cell.name));
            skipped.push(cell.name.clone());
        } else {
            cells.push(cell.clone());
        }
    }
    if cells.is_empty() {
        bail!("no cell is left: look at --cell, --quick and --data");
    }
    // The long ones first, so that no thread is left alone with one at the end.
    let mut order = cells.clone();
    order.sort_by_key(|cell| !cell.needs_data());
    let crew = Crew {
        depth,
        data: args.data.clone(),
        peers: file.peers.clone(),
        policies: args.policies.clone(),
        cache: Cache::new(args.cache.clone(), args.reuse)?,
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)),
        stop_after: args.stop_after.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0)),
    };
    let began = crew::now();
    let mut done = crew.measure(&order)?;
    let place = |name: &str| cells.iter().position(|cell| cell.name == name);
    done.sort_by_key(|(cell, _)| place(&cell.name));
    let page = Page::of(&done, &crew, declared.len(), skipped);
    publish(&args.out, &page)?;
    tell(&format!("{} cells in {:.0} s", done.len(), began.elapsed().as_secs_f64()));
    Ok(if page.lost() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn publish(out: &Path, page: &Page<'_>) -> anyhow::Result<()> {
    if out == Path::new("-") {
        print(&page.summary());
        print(&page.every_row());
        return Ok(());
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
    };
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
    };
    let with = page::replaced(&read(out)?, &page.summary()).with_context(|| {
        format!("{}: the lines {:?} and {:?} are missing", out.display(), page::BEGIN, page::END)
    })?;
    write(out, with)?;
    write(&out.with_file_name("results-cells.md"), page.every_row())
}

#[expect(clippy::print_stdout, reason = "this is what was asked for")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "for the person who waits; the result is a file")]
fn tell(text: &str) {
    eprintln!("{text}");
}
