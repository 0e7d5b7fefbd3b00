//! `plimsoll-planner simulate`: the command around `plimsoll_sim`.

mod args;
mod setup;
mod table;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_common::units::Micros;
use plimsoll_sim::{
    Experiment, Run,
    policies::{self, static_sizes},
    report::Report,
};

pub use args::{RouterName, SimulateArgs};

/// Runs what the command line asks for.
///
/// # Errors
/// What cannot be read, understood or written, with what would help.
pub fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let bar = bar();
    let workload = setup::workload(args, &mut |note| bar.suspend(|| tell(&note)))?;
    let (slo, config) = (setup::slo(args)?, setup::world(args)?);
    let briefing = config.briefing();
    let experiment = Experiment { config: &config, workload: &workload, slo };
    let named: Vec<&String> = args.policy.iter().chain(&args.compare).collect();
    // Every policy is understood before the first one runs.
    for name in &named {
        policies::from_text(name, &briefing, &slo)?;
    }
    let title = format!("Simulation of {}", args.workload);
    let mut report = Report::new(title, &workload, slo, setup::described(args, &config));
    bar.set_length(workload.len() as u64);
    for name in named {
        bar.set_message(name.clone());
        let mut watcher = |arrived: usize, _: Micros| bar.set_position(arrived as u64);
        let run: Run = match static_sizes(name) {
            Some(sizes) => experiment.run_static(&sizes, &mut watcher)?,
            None => experiment.run(&mut *policies::from_text(name, &briefing, &slo)?, &mut watcher)?,
        };
        report.add(&run, &workload);
    }
    if args.policy.is_none() && args.compare.is_empty() || args.sweep {
        bar.set_message("static fleets");
        let mut watcher = |arrived: usize, _: Micros| bar.set_position(arrived as u64);
        let mut best = experiment.static_best(&mut watcher)?;
        if args.sweep {
            experiment.sweep_static(&mut best, &mut watcher)?;
        }
        report.add_static(&best);
        if let Some(replicas) = best.replicas.as_ref().filter(|_| report.runs.is_empty()) {
            report.add(&experiment.run_static(replicas, &mut watcher)?, &workload);
        }
    }
    bar.finish_and_clear();
    write(args, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn write(args: &SimulateArgs, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &args.html {
        let page = report.to_html()?;
        std::fs::write(path, page).with_context(|| format!("{} can't be written", path.display()))?;
    }
    let text = if args.json { report.to_json()? + "\n" } else { table::table(report) };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the result can't be written"),
    }
}

/// A bar on stderr, and only if a person watches.
fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:24!} {wide_bar} {human_pos}/{human_len} requests, {elapsed}");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[expect(clippy::print_stderr, reason = "a remark for the person who waits; the result goes to stdout")]
fn tell(note: &str) {
    eprintln!("plimsoll-planner: {note}");
}
