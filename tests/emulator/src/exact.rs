//! Exact latencies of the last while: what a planner that sees only buckets can be held against.

use std::collections::VecDeque;

use plimsoll_engine::Micros;
use serde::{Deserialize, Serialize};

use crate::{histogram::seconds, state::nanos};

/// Samples kept of each metric; 16 bytes each.
const KEPT: usize = 1 << 20;

/// What `GET /emulator/exact` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exact {
    /// Served model name.
    pub model: String,
    /// When this was, seconds since 1970.
    pub now_unix_s: f64,
    /// Requests that hold KV blocks.
    pub running: u32,
    /// Requests in the queue.
    pub waiting: u32,
    /// Requests that ended by themselves since the start.
    pub finished: u64,
    /// Requests aborted since the start.
    pub aborted: u64,
    /// The last 10 s, the last 60 s, and everything since the start.
    pub windows: Windows,
}

/// One summary for each span of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Windows {
    /// The last 10 seconds.
    #[serde(rename = "10s")]
    pub ten_seconds: Window,
    /// The last 60 seconds.
    #[serde(rename = "60s")]
    pub minute: Window,
    /// Since the start.
    pub all: Window,
}

/// TTFT and ITL in one span of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Time to first token, by when the token came out.
    pub ttft: Summary,
    /// Inter-token latency, by when the later token came out.
    pub itl: Summary,
}

/// Count, sum and nearest-rank percentiles, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Samples.
    pub count: u64,
    /// Their sum.
    pub sum_s: f64,
    /// Median; null without samples, as the two below.
    pub p50_s: Option<f64>,
    /// 95th percentile.
    pub p95_s: Option<f64>,
    /// 99th percentile.
    pub p99_s: Option<f64>,
    /// False if older samples of this span had to be forgotten: the percentiles are then those of the rest, and in the
    /// two short spans count and sum too.
    pub complete: bool,
}

/// The samples of one metric.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    recent: VecDeque<(Micros, u64)>,
    count: u64,
    sum: u64,
    /// When the latest forgotten sample was taken.
    forgotten: Option<Micros>,
}

/// All samples.
#[derive(Debug, Default)]
pub(crate) struct ExactSamples {
    pub(crate) ttft: Samples,
    pub(crate) itl: Samples,
}

impl Samples {
    pub(crate) fn push(&mut self, at: Micros, latency: Micros) {
        if self.recent.len() == KEPT {
            self.forgotten = self.recent.pop_front().map(|(at, _)| at);
        }
        self.recent.push_back((at, nanos(latency)));
        self.count += 1;
        self.sum = self.sum.saturating_add(nanos(latency));
    }

    fn summary(&self, from: Micros) -> Summary {
        let start = self.recent.partition_point(|(at, _)| *at < from);
        let mut values: Vec<u64> = self.recent.range(start..).map(|(_, value)| *value).collect();
        values.sort_unstable();
        let everything = from == Micros::ZERO;
        let (count, sum) =
            if everything { (self.count, self.sum) } else { (values.len() as u64, values.iter().sum()) };
        Summary {
            count,
            sum_s: seconds(sum),
            p50_s: percentile(&values, 50),
            p95_s: percentile(&values, 95),
            p99_s: percentile(&values, 99),
            complete: self.forgotten.is_none_or(|at| at < from),
        }
    }
}

/// The smallest sample that at least `percent` of all samples do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().map(seconds)
}

impl ExactSamples {
    pub(crate) fn windows(&self, now: Micros) -> Windows {
        let window = |span: Micros| {
            // A window is (now - span, now]; everything is everything.
            let from = if span == Micros::MAX {
                Micros::ZERO
            } else {
                now.saturating_sub(span).saturating_add(Micros(1))
            };
            Window { ttft: self.ttft.summary(from), itl: self.itl.summary(from) }
        };
        Windows {
            ten_seconds: window(Micros(10_000_000)),
            minute: window(Micros(60_000_000)),
            all: window(Micros::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_percentiles_are_exact() {
        let mut samples = ExactSamples::default();
        for second in 1..=100_u64 {
            samples.itl.push(Micros(second * 1_000_000), Micros(second * 1_000));
        }
        let windows = samples.windows(Micros(100_000_000));
        assert_eq!(
            (windows.ten_seconds.itl.count, windows.minute.itl.count, windows.all.itl.count),
            (10, 60, 100)
        );
        assert_eq!(windows.all.itl.p50_s, Some(0.05));
        assert_eq!(windows.all.itl.p95_s, Some(0.095));
        assert_eq!(windows.all.itl.p99_s, Some(0.099));
        assert_eq!(windows.ten_seconds.itl.p50_s, Some(0.095));
        assert!((windows.all.itl.sum_s - 5.05).abs() < 1e-12);
        assert!(windows.all.itl.complete);
        assert_eq!(windows.all.ttft, Summary { complete: true, ..Summary::default() });
    }

    #[test]
    fn what_is_forgotten_is_said() {
        let mut samples = ExactSamples::default();
        for index in 0..(KEPT as u64 + 5) {
            samples.ttft.push(Micros(index * 100), Micros(1));
        }
        let windows = samples.windows(Micros((KEPT as u64 + 4) * 100));
        assert_eq!(windows.all.ttft.count, KEPT as u64 + 5);
        assert!(!windows.all.ttft.complete);
        assert!(windows.ten_seconds.ttft.complete);
    }
}
