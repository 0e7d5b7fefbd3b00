//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{CommandFactory as _, Parser, ValueEnum, error::ErrorKind};
use jiff::SignedDuration;

use crate::plan::MOST_NODES;

/// Plimsoll on one machine, without a GPU: agents of several nodes, emulated engines under load, and the planner.
///
/// Shows the latencies that the planner sees beside the exact ones that the engines recorded. Nothing but this machine's
/// loopback interface is used, and no port is fixed. Ctrl-C ends it.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "plimsoll-demo", bin_name = "cargo demo", max_term_width = 110)]
pub struct Args {
    /// Nodes: by turns an HGX H100 with two replicas of llama-3.1-8b, and a GB200 tray with one of it and one of
    /// qwen3-32b on two GPUs.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_NODES)))]
    pub nodes: u32,

    /// What is played.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Scenario::Steady)]
    pub scenario: Scenario,

    /// Requests per second, over all models, in the mean of a slow sine [default: 6 a node].
    #[arg(long, value_name = "R", value_parser = positive, conflicts_with = "workload")]
    pub rate: Option<f64>,

    /// Ask for what this CSV file says, at its times: timestamp_ms,input_tokens,output_tokens. Ends with it.
    #[arg(long, value_name = "FILE")]
    pub workload: Option<PathBuf>,

    /// End after this long, such as 90s or 5m; without it, at Ctrl-C.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Engines are this many times faster than the real ones, 0.01 to 100.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    pub speed: f64,

    /// Follow the advice: engines are started and stopped as the planner says, through a burst of about four minutes. Ends by
    /// itself, with what was attained and what it took, and with exit code 1 if the SLO was missed.
    #[arg(long, conflicts_with_all = ["workload", "nodes", "scenario", "duration", "rate"])]
    pub act: bool,

    /// Seed of arrivals and lengths.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Keep all logs, certificates and request records in this new folder; by default they go when the demo ends.
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,

    /// Write line after line instead of a table in place, also on a terminal.
    #[arg(long)]
    pub plain: bool,
}

/// What the demo plays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// All goes well: the planner's latencies beside the exact ones.
    #[default]
    Steady,
    /// Engines freeze, stop, sleep, lock up, restart with other buckets and die under the load. Each has to show for what
    /// it is within 5 s; ends with a table, and with exit code 1 if one was missed.
    Faults,
}

impl Args {
    /// Parses a command line. A `--` before the flags is skipped: `cargo demo -- --rate 5` and `cargo demo --rate 5` are
    /// the same.
    ///
    /// # Errors
    /// When it can't be understood, or asks for help.
    pub fn parse_from_cargo(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut line: Vec<OsString> = line.into_iter().collect();
        if line.get(1).is_some_and(|word| word == "--") {
            line.remove(1);
        }
        let args = Self::try_parse_from(line)?;
        if args.scenario == Scenario::Faults && args.duration.is_some() {
            let reason =
                "--scenario faults ends by itself, once every fault was played; leave --duration out";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, reason));
        }
        Ok(args)
    }

    /// Requests per second where no trace says more.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate.unwrap_or_else(|| 6.0 * f64::from(self.nodes))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    if (0.01..=10_000.0).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{value} is outside 0.01 to 10000"))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration =
        text.parse().map_err(|_| format!("'{text}' is no duration; write it like 90s or 5m"))?;
    let duration =
        Duration::try_from(signed).map_err(|_| format!("'{text}' is negative; a duration is not"))?;
    if duration.is_zero() {
        Err("the demo needs some time; write it like 90s or 5m".to_owned())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        let line = ["demo"].iter().chain(args).map(OsString::from);
        Args::parse_from_cargo(line).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_and_what_they_follow_from() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.nodes, args.rate().to_bits()), (2, 12f64.to_bits()));
        assert_eq!(parse(&["--duration", "1m 30s"]).unwrap().duration, Some(Duration::from_secs(90)));
    }

    #[test]
    fn cargos_separator_may_stand_there_twice() {
        assert_eq!(parse(&["--", "--rate", "5"]).unwrap(), parse(&["--rate", "5"]).unwrap());
    }

    #[test]
    fn faults_end_by_themselves() {
        assert_eq!(parse(&["--scenario", "faults"]).unwrap().scenario, Scenario::Faults);
        assert!(parse(&["--scenario", "faults", "--duration", "5s"]).unwrap_err().contains("by itself"));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (args, says) in [
            (["--rate", "fast"], "no number"),
            (["--rate", "0"], "outside"),
            (["--duration", "soon"], "90s"),
            (["--duration", "0s"], "some time"),
            (["--nodes", "0"], "1..="),
        ] {
            let error = parse(&args).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(parse(&["--rate", "1", "--workload", "x.csv"]).is_err());
    }
}
