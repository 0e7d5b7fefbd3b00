//! What engines publish: counters, and latencies in buckets.

use plimsoll_common::units::Micros;

/// Upper bounds of vLLM's TTFT buckets, µs.
pub const TTFT_EDGES: &[u64] = &[
    1_000,
    5_000,
    10_000,
    20_000,
    40_000,
    60_000,
    80_000,
    100_000,
    250_000,
    500_000,
    750_000,
    1_000_000,
    2_500_000,
    5_000_000,
    7_500_000,
    10_000_000,
    20_000_000,
    40_000_000,
    80_000_000,
    160_000_000,
    640_000_000,
    2_560_000_000,
];

/// Upper bounds of vLLM's ITL buckets, µs.
pub const ITL_EDGES: &[u64] = &[
    10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 400_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000, 20_000_000, 40_000_000, 80_000_000,
];

/// Upper bounds of vLLM's queue-time buckets, µs.
pub const QUEUE_EDGES: &[u64] = &[
    300_000,
    500_000,
    800_000,
    1_000_000,
    1_500_000,
    2_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    15_000_000,
    20_000_000,
    30_000_000,
    40_000_000,
    50_000_000,
    60_000_000,
    120_000_000,
    240_000_000,
    480_000_000,
    960_000_000,
    1_920_000_000,
    7_680_000_000,
];

/// Upper bounds of vLLM's buckets of prompt and output lengths, tokens.
pub const LENGTH_EDGES: &[u64] =
    &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000];

/// A histogram as an engine publishes it: counts per bucket, how many, and their exact sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Upper bounds, included, µs; one more bucket goes to infinity.
    pub edges: &'static [u64],
    /// Samples in each bucket (not cumulative), one more than there are edges.
    pub counts: Vec<u64>,
    /// Samples.
    pub count: u64,
    /// Their sum, µs.
    pub sum: u64,
}

impl Published {
    /// An empty histogram.
    #[must_use]
    pub fn new(edges: &'static [u64]) -> Self {
        Self { edges, counts: vec![0; edges.len() + 1], count: 0, sum: 0 }
    }

    /// Adds `n` samples of one value.
    pub fn add(&mut self, value: Micros, n: u64) {
        let bucket = self.edges.partition_point(|edge| *edge < value.0);
        self.counts[bucket] += n;
        self.count += n;
        self.sum = self.sum.saturating_add(value.0.saturating_mul(n));
    }

    /// Adds another histogram of the same edges.
    pub fn merge(&mut self, other: &Self) {
        debug_assert!(std::ptr::eq(self.edges, other.edges), "buckets of two layouts never meet");
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The mean, None without samples.
    #[must_use]
    pub fn mean(&self) -> Option<Micros> {
        (self.count > 0).then(|| Micros(self.sum / self.count))
    }

    /// The quantile `q` (0 to 1) as Prometheus' `histogram_quantile` estimates it: linear within a bucket, and the last
    /// edge for what lies above it. None without samples.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Micros> {
        if self.count == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * self.count as f64;
        let mut below = 0_u64;
        for (bucket, n) in self.counts.iter().enumerate() {
            let reached = below + n;
            if reached as f64 >= rank && *n > 0 {
                let low = if bucket == 0 { 0 } else { self.edges[bucket - 1] };
                let Some(high) = self.edges.get(bucket) else { return Some(Micros(low)) };
                let share = (rank - below as f64) / *n as f64;
                return Some(Micros(low + ((high - low) as f64 * share).round() as u64));
            }
            below = reached;
        }
        self.edges.last().map(|edge| Micros(*edge))
    }

    /// The share of samples that certainly lie at or below `bound`, and the share that may: they differ if `bound` is
    /// no edge. None without samples.
    #[must_use]
    pub fn share_within(&self, bound: Micros) -> Option<(f64, f64)> {
        if self.count == 0 {
            return None;
        }
        let whole = self.edges.partition_point(|edge| *edge <= bound.0);
        let certain: u64 = self.counts[..whole].iter().sum();
        let cut = whole > 0 && self.edges[whole - 1] == bound.0;
        let possible = if cut { certain } else { certain + self.counts[whole] };
        Some((certain as f64 / self.count as f64, possible as f64 / self.count as f64))
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.count = 0;
        self.sum = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_bucket_below_it() {
        let mut published = Published::new(ITL_EDGES);
        published.add(Micros(25_000), 3);
        published.add(Micros(25_001), 1);
        assert_eq!(published.share_within(Micros(25_000)), Some((0.75, 0.75)));
        assert_eq!(published.share_within(Micros(30_000)), Some((0.75, 1.0)));
        assert_eq!(published.mean(), Some(Micros(25_000)));
        assert_eq!(published.quantile(0.75), Some(Micros(25_000)));
    }

    #[test]
    fn what_is_above_all_edges_is_the_last_edge() {
        let mut published = Published::new(TTFT_EDGES);
        assert_eq!(published.quantile(0.5), None);
        published.add(Micros::MAX, 1);
        assert_eq!(published.quantile(0.5), Some(Micros(2_560_000_000)));
        assert_eq!(published.share_within(Micros(2_560_000_000)), Some((0.0, 0.0)));
    }
}
