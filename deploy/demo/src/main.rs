//! `plimsoll-demo`: flags → programs → runtime → play → end.

use std::process::ExitCode;

use anyhow::Context;
use plimsoll_demo::{app, args::Args};
use plimsoll_tests::{artifacts::Artifacts, workload::read_trace, world::World};

/// The exit code for a command line or workload that can't be used (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::parse_from_cargo(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            // When even stderr is closed there is nobody left to tell.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let trace = match args.workload.as_deref().map(read_trace).transpose() {
        Ok(trace) => trace,
        Err(error) => return fail(&format!("--workload: {:#}", anyhow::Error::from(error)), EXIT_USAGE),
    };
    tell(
        "building what is not built yet: the agent, the planner, the emulator and fake NVML (minutes the first time)",
    );
    if let Err(error) = Artifacts::built() {
        return fail(&format!("{error:#}"), 1);
    }
    let world = match args.keep_logs.as_deref().map_or_else(World::new, World::kept_in) {
        Ok(world) => world,
        Err(error) => return fail(&format!("{error:#}"), EXIT_USAGE),
    };
    let played = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(app::run(&args, world, trace)));
    played.unwrap_or_else(|error| fail(&format!("{error:#}"), 1))
}

#[expect(clippy::print_stderr, reason = "cargo's own progress follows on standard error")]
fn tell(text: &str) {
    eprintln!("{text}");
}

fn fail(error: &str, code: u8) -> ExitCode {
    tell(&format!("plimsoll-demo: {error}"));
    ExitCode::from(code)
}
