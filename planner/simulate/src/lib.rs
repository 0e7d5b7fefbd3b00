//! `plimsoll-planner simulate`: the command around `plimsoll_sim`.
//!
//! A package of its own, so that whoever measures a policy (the binary `results`) builds neither sockets nor TLS.

mod args;
mod named;
mod setup;
mod table;

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plimsoll_common::units::Micros;
use plimsoll_core::score::Slo;
use plimsoll_sim::{
    Experiment, Trials, WorldConfig,
    bounds::{HEADROOM, Oracle},
    report::Report,
    workload::Workload,
};

pub use args::{LostName, RouterName, SimulateArgs};

use named::Named;

/// What a command line describes: a world, what comes in, and what is promised.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The world.
    pub config: WorldConfig,
    /// What comes in.
    pub workload: Workload,
    /// What is promised.
    pub slo: Slo,
}

impl SimulateArgs {
    /// Reads or generates what the arguments name. What was left out of a trace is told by `note`.
    ///
    /// # Errors
    /// What cannot be read or understood, with what would help.
    pub fn scenario(&self, note: &mut dyn FnMut(String)) -> anyhow::Result<Scenario> {
        let workload = setup::workload(self, note)?;
        let (slo, mut config) = (setup::slo(self)?, setup::world(self)?);
        if self.initial == setup::BY_ORACLE {
            let draw = [Experiment { config: &config, workload: &workload, slo }];
            let headroom = Trials::new(&draw).oracle()?.map_or(HEADROOM[0], |oracle| oracle.headroom);
            config = Oracle::with_headroom(&config, &workload, &slo, headroom).beginning(&config);
        }
        Ok(Scenario { config, workload, slo })
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// What cannot be read, understood or written, with what would help.
pub fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let bar = bar();
    let Scenario { config, workload, slo } = args.scenario(&mut |note| bar.suspend(|| tell(&note)))?;
    let experiment = Experiment { config: &config, workload: &workload, slo };
    // Every policy is understood before the first one runs.
    let texts = args.policy.iter().cloned().chain(args.compare.iter().flat_map(|list| named::separate(list)));
    let named = texts.map(|text| Named::read(&text, &experiment)).collect::<anyhow::Result<Vec<Named>>>()?;
    let title = format!("Simulation of {}", args.workload);
    let mut report = Report::new(title, &workload, slo, setup::described(args, &config));
    bar.set_length(workload.len() as u64);
    let mut watcher = |arrived: usize, _: Micros| bar.set_position(arrived as u64);
    for one in &named {
        bar.set_message(one.text().to_owned());
        match one.run(&experiment, &mut watcher)? {
            Some(run) => report.add(&run, &workload),
            None => bar.suspend(|| tell(&format!("{}: nothing of it keeps the SLO", one.text()))),
        }
    }
    if named.is_empty() || args.sweep {
        bar.set_message("static fleets");
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
