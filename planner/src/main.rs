//! `plimsoll-planner`: flags → configuration → log → runtime → run → drain.

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use plimsoll_planner::{
    app::App,
    check::{self, CheckArgs},
    config::{Config, Settings},
    decide::{self, DecideArgs},
    journal::{
        explain::{self, ExplainArgs},
        replay::{self, ReplayArgs},
        shadow::{self, ShadowArgs},
    },
    profile::{self, ProfileArgs},
    simulate::{self, SimulateArgs},
};
use plimsoll_shell::{EXIT_USAGE, config, logging, shutdown, tls};

/// The windows of a large fleet are a million allocations of all sizes, made and given back every few seconds: the system's
/// allocator takes a third of the time that busy reports take.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes reports from the Plimsoll agents of a fleet and shows what its GPUs and inference engines do.
///
/// Agents connect by QUIC (--listen-quic); people, dashboards and Prometheus read http://127.0.0.1:9475/
/// (--listen-http). It needs a certificate, so that agents can tell who it is, and on an open port an authority for
/// the agents' certificates; --dev does without both, on one machine.
///
/// Try: plimsoll-planner --dev
#[derive(Debug, Parser)]
#[command(name = "plimsoll-planner", version, max_term_width = 110, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    settings: Settings,

    /// Check the configuration, print it as TOML and end.
    #[arg(long, help_heading = "Process")]
    print_config: bool,
}

/// What the planner does besides running.
#[derive(Debug, Subcommand)]
enum Command {
    Simulate(Box<SimulateArgs>),
    Check(Box<CheckArgs>),
    Decide(DecideArgs),
    Profile(ProfileArgs),
    Replay(ReplayArgs),
    Explain(ExplainArgs),
    Shadow(ShadowArgs),
}

fn main() -> ExitCode {
    tls::install_crypto();
    let cli = match config::parse_command_line::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Some(command) = &cli.command {
        let done = match command {
            Command::Simulate(args) => simulate::run(args),
            Command::Check(args) => check::run(args),
            Command::Decide(args) => decide::run(args),
            Command::Profile(args) => profile::run(args),
            Command::Replay(args) => replay::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Shadow(args) => shadow::run(args),
        };
        return done.unwrap_or_else(|error| fail(&format!("{error:#}"), EXIT_USAGE));
    }
    let config = match Config::load(&cli.settings) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    if cli.print_config {
        return print_config(&cli.settings);
    }
    if let Err(error) = logging::init(&config.log_filter, config.log_format) {
        return fail(&error, EXIT_USAGE);
    }
    // One thread takes the reports of a whole fleet; what would hold it up runs on the blocking pool.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let ended = runtime.block_on(async {
        let cancel = shutdown::on_signal()?;
        App::spawn(&config, cancel).await?.run(&config).await
    });
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

#[expect(clippy::print_stdout, reason = "this is what the flag asks for")]
fn print_config(settings: &Settings) -> ExitCode {
    match settings.effective() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, EXIT_USAGE),
    }
}

/// Tells a person why. Logging may not be set up; and where standard error can't be written to, the code still tells.
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "plimsoll-planner: {error}");
    ExitCode::from(code)
}
