//! How good are the forecasts that sizing rests on?
//!
//! ```sh
//! cargo run --release -p plimsoll-benches --bin forecast                    # generated series
//! cargo run --release -p plimsoll-benches --bin forecast -- --data FOLDER   # and the rates of public traces
//! ```
//!
//! Every series is a rate of requests in bins of 10 s, shown to the forecaster one bin after the other. What it says of the
//! sustained rate (30 s; 20 s at the shortest horizon) 20, 80 and 360 s ahead is kept until that is known. The loss is
//! the pinball loss at 0.5 and at 0.9, summed, as a share of the loss of the last value; that one's upper quantile is the
//! running 0.9 quantile of its own past errors. The first half hour of each series is shown and not judged.

mod judge;
mod last_value;
mod series;

use std::path::PathBuf;

use clap::Parser;

/// Measures the error of forecasts.
#[derive(Debug, Parser)]
struct Args {
    /// Folder of the public traces; without it only generated series are judged.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Seed of what is drawn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut all = series::generated(args.seed)?;
    match &args.data {
        Some(folder) => all.extend(series::traces(folder, args.seed)?),
        None => line("SKIPPED: traces (--data FOLDER)\n"),
    }
    line(&judge::header());
    for one in &all {
        for row in judge::judge(one) {
            line(&row.to_string());
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn line(text: &str) {
    println!("{text}");
}
