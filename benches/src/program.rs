//! What the programs that measure have in common: how they end and print, and what they spend.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Prints the result of a program, or why there is none, and ends it.
#[must_use]
pub fn end(program: &str, result: anyhow::Result<String>) -> ExitCode {
    match result {
        Ok(line) => {
            tell(&line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(program, &error);
            ExitCode::FAILURE
        }
    }
}

/// Says what went wrong.
#[expect(clippy::print_stderr, reason = "there is no log here, and a person waits for the reason")]
pub fn complain(program: &str, error: &anyhow::Error) {
    eprintln!("{program}: {error:#}");
}

/// Prints a line of the result.
#[expect(clippy::print_stdout, reason = "the result is what such a program is for")]
pub fn tell(line: &str) {
    println!("{line}");
}

/// CPU time of this thread: what else runs on the machine does not count.
#[must_use]
pub fn cpu_of_thread() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// CPU time of this process, all of its threads.
#[must_use]
pub fn cpu_of_process() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// Time on the wall since some moment.
#[must_use]
pub fn wall() -> Duration {
    clock(ClockId::Monotonic)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Resident memory of this process, bytes.
///
/// # Errors
/// Where `/proc/self/status` does not tell it.
pub fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(kib.context("/proc/self/status tells no VmRSS")?.parse::<u64>()? * 1024)
}

/// Where most, nearly all and all of what was measured lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Percentiles {
    /// Of any values, to two decimals; zeros where there is none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |q: f64| (q * values.len() as f64).ceil().max(1.0) as usize - 1;
        let at = |q: f64| values.get(rank(q)).map_or(0.0, |value| (value * 1e2).round() / 1e2);
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }

    /// Of times, in milliseconds.
    #[must_use]
    pub fn of_millis(times: &[Duration]) -> Self {
        Self::of(times.iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let all: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(Percentiles::of(all), Percentiles { p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
        let one = Percentiles::of_millis(&[Duration::from_micros(1_234)]);
        assert_eq!(one, Percentiles { p50: 1.23, p99: 1.23, max: 1.23 });
    }
}
