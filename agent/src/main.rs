//! `plimsoll-agent`: flags → configuration → log → runtime → run → drain.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;
use plimsoll_agent::{
    app,
    config::{Config, Settings},
    gpu::RestartNeeded,
};
use plimsoll_shell::{EXIT_USAGE, config, logging, shutdown, tls};

/// Samples the GPUs and inference engines of this node, serves what it sees, and reports to the Plimsoll planner.
///
/// It only observes. Without flags it looks for GPUs through NVML and serves http://127.0.0.1:9474/; with --engine it
/// also reads engines, and with --planner it reports.
///
/// Try: plimsoll-agent --engine http://127.0.0.1:8000 --planner 127.0.0.1:9476 --dev
#[derive(Debug, Parser)]
#[command(name = "plimsoll-agent", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    settings: Settings,

    /// Check the configuration, print it as TOML and end.
    #[arg(long, help_heading = "Process")]
    print_config: bool,
}

fn main() -> ExitCode {
    tls::install_crypto();
    let cli = match config::parse_command_line::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
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
    // One thread is plenty for a node, and keeps the footprint small; NVML has its own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let ended = runtime.block_on(async {
        let cancel = shutdown::on_signal()?;
        app::run(config, cli.settings, cancel).await
    });
    // A blocked system call must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let outdated = error.downcast_ref::<RestartNeeded>().is_some();
            fail(&format!("{error:#}"), if outdated { RestartNeeded::EXIT_CODE } else { 1 })
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is what the flag asks for")]
fn print_config(settings: &Settings) -> ExitCode {
    match Settings::effective(settings) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, EXIT_USAGE),
    }
}

/// Tells a person why. Logging may not be set up; and where standard error can't be written to, the code still tells.
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "plimsoll-agent: {error}");
    ExitCode::from(code)
}
