//! What a workload is like, in a few numbers.

use plimsoll_common::units::Micros;
use serde::Serialize;

use super::{Arrival, Workload};

/// A workload in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Requests.
    pub requests: usize,
    /// From the first to the last arrival, s.
    pub span_s: f64,
    /// Mean requests a second.
    pub mean_rps: f64,
    /// The most requests in any ten seconds from a multiple of ten on, a second.
    pub peak_rps: f64,
    /// Standard deviation of the times between arrivals, over their mean.
    pub gap_cv: f64,
    /// Prompt lengths, tokens.
    pub isl: Spread,
    /// Output lengths, tokens.
    pub osl: Spread,
    /// The share of prompt tokens that an endless prefix cache would hold.
    pub prefix_share: f64,
}

/// A distribution in four numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u32,
    /// 90th percentile.
    pub p90: u32,
    /// 99th percentile.
    pub p99: u32,
}

impl Spread {
    fn of(mut values: Vec<u32>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        values.sort_unstable();
        let at = |q: f64| values[((values.len() as f64 * q).ceil() as usize).clamp(1, values.len()) - 1];
        let sum: u64 = values.iter().map(|value| u64::from(*value)).sum();
        Self { mean: sum as f64 / values.len() as f64, p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

impl Workload {
    /// The workload in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let span_s = self.span().as_secs_f64();
        let slot = Micros::from_millis(10_000);
        let same_slot = |a: &Arrival, b: &Arrival| a.at.0 / slot.0 == b.at.0 / slot.0;
        let peak = self.arrivals().chunk_by(same_slot).map(<[Arrival]>::len).max().unwrap_or_default();
        let gaps: Vec<f64> =
            self.arrivals().windows(2).map(|w| w[1].at.saturating_sub(w[0].at).as_secs_f64()).collect();
        let mean_gap = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
        let variance =
            gaps.iter().map(|gap| (gap - mean_gap).powi(2)).sum::<f64>() / gaps.len().max(1) as f64;
        Summary {
            requests: self.len(),
            span_s,
            mean_rps: if span_s > 0.0 { self.len() as f64 / span_s } else { 0.0 },
            peak_rps: peak as f64 / slot.as_secs_f64(),
            gap_cv: if mean_gap > 0.0 { variance.sqrt() / mean_gap } else { 0.0 },
            isl: Spread::of(self.arrivals().iter().map(|arrival| arrival.prompt_tokens).collect()),
            osl: Spread::of(self.arrivals().iter().map(|arrival| arrival.output_tokens).collect()),
            prefix_share: self.prefix_share(),
        }
    }

    fn prefix_share(&self) -> f64 {
        let mut seen = std::collections::BTreeSet::new();
        let (mut held, mut all) = (0_u64, 0_u64);
        for arrival in self.arrivals() {
            let hashes = self.prefix(arrival);
            let leading = hashes.iter().take_while(|hash| seen.contains(*hash)).count() as u64;
            held += (leading * u64::from(self.prefix_block_tokens())).min(u64::from(arrival.prompt_tokens));
            all += u64::from(arrival.prompt_tokens);
            seen.extend(hashes.iter().copied());
        }
        if all > 0 { held as f64 / all as f64 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::read;

    #[test]
    fn numbers_are_those_of_the_requests() {
        let workload =
            Workload::new((0..101).map(|i| Arrival::new(Micros(i * 1_000_000), 100, i as u32 + 1)).collect());
        let summary = workload.summary();
        assert_eq!((summary.requests, summary.osl.p50, summary.osl.p99), (101, 51, 100));
        assert!((summary.mean_rps - 1.01).abs() < 1e-9 && (summary.peak_rps - 1.0).abs() < 1e-9);
        assert!(summary.gap_cv < 1e-9);
        assert_eq!(Workload::default().summary().requests, 0);
    }

    #[test]
    fn shared_blocks_count_from_the_front() {
        let rows = "{\"timestamp\":0,\"input_length\":1024,\"output_length\":1,\"hash_ids\":[1,2]}\n{\"timestamp\":1,\"input_length\":1024,\"output_length\":1,\"hash_ids\":[1,3]}";
        let share = read("x", rows).unwrap().workload.summary().prefix_share;
        assert!((share - 0.25).abs() < 1e-9, "{share}");
    }
}
