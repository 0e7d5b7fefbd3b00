//! What really happened: the samples of the engines' own records, with their times.

use std::path::PathBuf;

use plimsoll_tests::request_log::{Ended, Tail, percentile};

/// Samples older than this are forgotten, seconds: more than the longest of the planner's windows.
const KEPT_SECONDS: f64 = 420.0;
/// p50, p95 and p99, as shares.
pub const SHARES: [f64; 3] = [0.5, 0.95, 0.99];

/// The record of all replicas of a model.
#[derive(Debug)]
pub struct Record {
    logs: Vec<Tail>,
    ttft: Vec<(f64, f64)>,
    itl: Vec<(f64, f64)>,
    sums: Sums,
}

/// Everything since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests that ended.
    pub requests: u64,
    /// Their prompt tokens.
    pub prompt_tokens: u64,
    /// Their output tokens.
    pub generation_tokens: u64,
}

/// The exact percentiles of a span of time, seconds; `None` where there is no sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exact {
    /// Time to first token.
    pub ttft: [Option<f64>; 3],
    /// Inter-token latency.
    pub itl: [Option<f64>; 3],
}

impl Record {
    /// Follows these request logs.
    #[must_use]
    pub fn new(logs: Vec<PathBuf>) -> Self {
        let logs = logs.into_iter().map(Tail::new).collect();
        Self { logs, ttft: Vec::new(), itl: Vec::new(), sums: Sums::default() }
    }

    /// Takes in what the logs have got since the last call.
    ///
    /// # Errors
    /// When a log can't be read.
    pub fn catch_up(&mut self) -> anyhow::Result<()> {
        let mut news = Vec::new();
        for log in &mut self.logs {
            news.append(&mut log.news()?);
        }
        news.iter().for_each(|request| self.take(request));
        let newest = self.ttft.iter().map(|(at, _)| *at).fold(0.0, f64::max);
        for samples in [&mut self.ttft, &mut self.itl] {
            samples.retain(|(at, _)| *at >= newest - KEPT_SECONDS);
        }
        Ok(())
    }

    fn take(&mut self, request: &Ended) {
        self.sums.requests += 1;
        self.sums.prompt_tokens += request.prompt_tokens;
        self.sums.generation_tokens += request.output_tokens;
        self.ttft.extend(request.first_token_unix_s().zip(request.ttft_s));
        self.itl.extend(request.timed_itl());
    }

    /// Everything since the start.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        self.sums
    }

    /// The percentiles of what happened after `from` and up to `to`, seconds since 1970. Exact once all requests that
    /// arrived before `to` have ended.
    #[must_use]
    pub fn percentiles(&self, from: f64, to: f64) -> Exact {
        Exact { ttft: percentiles(&self.ttft, from, to), itl: percentiles(&self.itl, from, to) }
    }
}

fn percentiles(samples: &[(f64, f64)], from: f64, to: f64) -> [Option<f64>; 3] {
    let within = samples.iter().filter(|(at, _)| *at > from && *at <= to);
    let mut within: Vec<f64> = within.map(|(_, value)| *value).collect();
    SHARES.map(|share| percentile(&mut within, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_in_the_span_counts() {
        let mut record = Record::new(Vec::new());
        record.ttft = (1..=100).map(|second| (f64::from(second), f64::from(second) / 100.0)).collect();
        let exact = record.percentiles(50.0, 60.0);
        assert_eq!(exact.ttft, [Some(0.55), Some(0.6), Some(0.6)]);
        assert_eq!(exact.itl, [None; 3]);
    }
}
