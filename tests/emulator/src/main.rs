//! `plimsoll-emulator`: see `--help`.

use std::process::ExitCode;

use clap::Parser as _;
use plimsoll_emulator::{Args, Config, serve};
use tracing_subscriber::EnvFilter;

/// `EX_USAGE` of sysexits: the command line or a file that it names cannot be used.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no mistakes; they go to stdout and end well.
            let code = if error.use_stderr() { USAGE } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE };
        }
    };
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let config = match Config::from_args(args) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{:#}", anyhow::Error::new(error));
            return ExitCode::from(USAGE);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(serve::run(config));
    // Without a drain, connections are cut: nothing waits for the tasks that serve them.
    runtime.shutdown_background();
    result
}
